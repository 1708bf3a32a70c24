// What a text took, beside what it would take from left to right: a pass for each token.

const NUMBERS = [["passes", "forward passes"], ["tokens", "tokens"], ["each", "tokens per pass"], ["speed", "tokens/s"]];

export class Counters {
  constructor(root) {
    this.root = root;
    root.innerHTML = `<dl>${NUMBERS.map(([name, label]) => `<div><dt>${label}</dt><dd data-is="${name}"></dd></div>`).join("")}</dl>
      <div class="race"><p><span>this text</span><span class="lane"><i data-lane="passes"></i></span><b data-is="here"></b></p>
      <p><span>left to right</span><span class="lane"><i data-lane="tokens"></i></span><b data-is="there"></b></p></div>`;
  }

  show({ tokens, passes, seconds }) {
    const few = n => n < 100 ? n.toFixed(1) : n.toFixed(0), plural = n => `${n} pass${n === 1 ? "" : "es"}`;
    const values = {
      passes, tokens,
      each: passes ? few(tokens / passes) : "\u2013",
      speed: seconds > 0 ? few(tokens / seconds) : "\u2013",
      here: plural(passes),
      there: `would need ${plural(tokens)}`,
    };
    for (const part of this.root.querySelectorAll("[data-is]")) part.textContent = values[part.dataset.is];
    for (const lane of this.root.querySelectorAll("[data-lane]")) lane.style.width = `${100 * { passes, tokens }[lane.dataset.lane] / Math.max(1, passes, tokens)}%`;
    this.root.hidden = false;
  }
}
