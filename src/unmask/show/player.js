import { Past } from "./past.js";

// Draws a text's past, and plays it: the text, what is known of one token, play, scrub, speed and colour.
// A past may still be growing: `follow` draws what has come, until the reader looks back.

const PARTS = `
  <div class="paper">
    <pre class="text" role="group" tabindex="0" aria-label="Text as it stands after this pass. With the arrow keys, walk its tokens."></pre>
    <div class="token" role="status"></div>
  </div>
  <div class="controls">
    <button class="play" type="button" aria-label="Play"><svg class="go" viewBox="0 0 24 24" aria-hidden="true"><path d="M8 5.2v13.6c0 .8.9 1.3 1.5.8l10-6.8c.6-.4.6-1.2 0-1.6l-10-6.8c-.6-.5-1.5 0-1.5.8z"/></svg><svg class="pause" viewBox="0 0 24 24" aria-hidden="true"><path d="M7 5h3.6v14H7zM13.4 5H17v14h-3.6z"/></svg></button>
    <div class="scrub"><div class="bars" aria-hidden="true"></div><input class="frame" type="range" min="0" max="0" step="1" value="0" aria-label="Network pass"></div>
    <button class="again" type="button" aria-label="Restart"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 5V1.8L7 6l5 4.2V7a5.5 5.5 0 1 1-5.4 6.6H4.5A7.5 7.5 0 1 0 12 5z"/></svg></button>
  </div>
  <div class="controls more">
    <div class="colours choice" role="group" aria-label="Colour of a token"></div>
    <select class="speed" aria-label="Speed"><option value=".25">&frac14;&times; speed</option><option value=".5">&frac12;&times; speed</option><option value="1" selected>1&times; speed</option><option value="2">2&times; speed</option><option value="4">4&times; speed</option></select>
    <div class="legend"><span class="key" aria-hidden="true"></span><span class="masked">mask</span><span class="ends"><span class="low"></span><span class="ramp" aria-hidden="true"></span><span class="high"></span></span></div>
  </div>`;
const COLOURS = { plain: ["Plain", "", ""], step: ["Step", "early", "late"], sure: ["Confidence", "unsure", "sure"] };
const MOST_BARS = 120;
const BEHIND = 40;  // frames that may wait to be drawn before some are skipped

// A stop of one of the ramps of player.css, share in [0, 1].
function mix(ramp, share) {
  const x = Math.min(1, Math.max(0, share || 0)) * 4, k = Math.min(3, Math.floor(x));
  return `color-mix(in srgb, var(--${ramp}-${k + 1}) ${((x - k) * 100).toFixed(1)}%, var(--${ramp}-${k}))`;
}
const wide = c => /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}]/u.test(c);
const blank = shape => [...shape].map(c => /\s/.test(c) ? c : wide(c) ? "\u3000" : "\u00a0").join("");
// Noise is shown in the shape of what comes, so that nothing jumps.
const fit = (noise, shape) => { const from = [...noise.replace(/\n/g, "")]; return [...shape].map(c => c === "\n" ? c : from.shift() || " ").join(""); };
const percent = sure => `${(100 * sure).toFixed(sure > .995 && sure < 1 ? 1 : 0)}%`;
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Player {
  // colours: which of COLOURS may be chosen, the first one to begin with; drawn: called after each drawing.
  constructor(root, { colours = ["step", "sure"], drawn = () => {} } = {}) {
    root.innerHTML = PARTS;
    root.classList.add("player");
    Object.assign(this, { root, drawn, colour: colours[0], past: new Past(), frame: 0, asked: -1, spans: [], keys: [], shown: [] });
    Object.assign(this, { playing: false, growing: false, following: false, whole: true, clock: 0, begun: 0, awaited: 0 });
    this.part = Object.fromEntries([...root.querySelectorAll("[class]")].map(e => [e.classList[0], e]));
    this.part.colours.append(...colours.map(name => this.chooser(name)));
    this.listen();
    this.recolour(this.colour);
  }

  chooser(name) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: COLOURS[name][0], onclick: () => this.recolour(name) });
    button.dataset.colour = name;
    return button;
  }

  listen() {
    const { play, again, frame, text } = this.part, under = event => +(event.target.closest("[data-i]")?.dataset.i ?? -1);
    play.onclick = () => this.play(!this.playing);
    again.onclick = () => { this.draw(0); this.play(true); };
    frame.oninput = () => this.go(+frame.value);
    text.onpointerover = event => this.ask(under(event));
    text.onpointerleave = event => { if (event.pointerType === "mouse") this.ask(-1); };
    text.onclick = event => this.ask(under(event));
  }

  // -- what is shown

  open(past, { growing = false } = {}) {
    this.play(false);
    Object.assign(this, { past, growing, following: growing, whole: !growing, frame: 0, asked: -1, spans: [], keys: [], shown: [] });
    this.part.text.replaceChildren();
    this.root.classList.toggle("growing", growing);
    this.span();
    this.bars();
    this.draw(0);
  }

  // The past has grown, or is whole now. Each frame is drawn, so that a quick model can be seen at all.
  follow({ whole = false } = {}) {
    this.whole ||= whole;
    this.awaited ||= requestAnimationFrame(() => this.catchUp());
  }

  catchUp() {
    this.awaited = 0;
    this.span();
    if (this.part.bars.dataset.last !== String(this.past.last)) this.bars();
    this.draw(this.frame + (this.following ? Math.ceil((this.past.last - this.frame) / BEHIND) : 0));
    if (this.following && this.frame < this.past.last) this.follow();
    else if (this.whole && this.growing) this.settle();
  }

  settle() {
    this.growing = this.following = false;
    this.root.classList.remove("growing");
    this.recolour(this.colour);
  }

  span() {
    for (let i = this.spans.length; i < this.past.length; i++) {
      const span = document.createElement("span");
      span.dataset.i = i;
      this.spans.push(span);
      this.part.text.append(span);
    }
  }

  draw(frame) {
    const { past, part } = this;
    this.frame = Math.min(past.last, Math.max(0, frame));
    for (let i = 0; i < past.length; i++) this.paint(i);
    part.frame.max = past.last;
    part.frame.value = this.frame;
    part.frame.style.setProperty("--done", `${100 * this.frame / Math.max(1, past.last)}%`);
    part.frame.setAttribute("aria-valuetext", `pass ${past.passes[this.frame]} of ${past.passes[past.last]}`);
    for (const bar of part.bars.children) bar.classList.toggle("past", +bar.dataset.first <= this.frame);
    this.tell();
    this.drawn(this);
  }

  paint(i) {
    const { past, frame } = this, state = past.stateAt(i, frame), kind = past.kind(i, frame), span = this.spans[i];
    const ink = kind === "written" ? this.ink(state) : "", fresh = kind === "written" && frame === state.at && (frame < past.last || this.growing);
    const special = state.special && kind !== "mask", room = kind === "mask" || kind === "draft" ? past.room(i) : "";
    const key = `${kind}|${state.text}|${room}|${ink}|${fresh}|${state.revised}`;
    if (this.keys[i] === key) return;
    this.keys[i] = key;
    const classes = { special, fresh, revised: state.revised && kind === "written", at: i === this.asked };
    span.className = ["t", kind, ...Object.keys(classes).filter(name => classes[name])].join(" ");
    span.style.setProperty("--tint", ink || "var(--ink)");
    const words = { mask: () => blank(room), draft: () => this.growing ? state.text : fit(state.text, room), gone: () => "" }[kind];
    this.spell(i, words ? words() : state.text);
  }

  // Line ends get a mark of their own, which is no part of the text.
  spell(i, words) {
    if (this.shown[i] === words) return;
    this.shown[i] = words;
    const parts = words.split("\n").flatMap((line, k) => {
      const end = Object.assign(document.createElement("span"), { className: "nl", textContent: "\n" });
      return [...(k ? [end] : []), ...(line ? [line] : [])];
    });
    this.spans[i].replaceChildren(...parts);
  }

  ink(state) {
    if (this.colour === "plain") return "";
    return this.colour === "step" ? mix("step", this.share(state.at)) : mix("sure", state.sure);
  }

  share(frame) { return this.past.last > 1 ? (frame - 1) / (this.past.last - 1) : 0; }

  recolour(name) {
    this.colour = name;
    const [, low, high] = COLOURS[name], { ramp, bars, colours, ends } = this.part;
    this.root.dataset.colour = name;
    for (const button of colours.children) button.setAttribute("aria-pressed", button.dataset.colour === name);
    ends.hidden = name === "plain";
    Object.assign(this.part.low, { textContent: low });
    Object.assign(this.part.high, { textContent: high });
    if (!ends.hidden) ramp.style.background = `linear-gradient(to right, ${[0, 1, 2, 3, 4].map(k => `var(--${name}-${k})`)})`;
    for (const bar of bars.children) bar.style.background = this.tint(bar);
    this.draw(this.frame);
  }

  tint(bar) { return this.colour === "plain" ? "var(--accent)" : mix("step", this.share(+bar.dataset.first)); }

  // How many tokens each pass settled.
  bars() {
    const { past, part } = this, count = Math.min(past.last, MOST_BARS), heights = Array(count).fill(0);
    past.settled.forEach((n, frame) => { if (frame) heights[Math.floor((frame - 1) * count / past.last)] += n; });
    const most = Math.max(1, ...heights);
    part.bars.replaceChildren(...heights.map((n, k) => {
      const bar = document.createElement("i");
      bar.dataset.first = Math.ceil(k * past.last / count) + 1;
      Object.assign(bar.style, { height: `${n ? 3 + 23 * n / most : 1}px`, background: this.tint(bar) });
      return bar;
    }));
    part.bars.dataset.last = past.last;
  }

  // -- one token

  ask(i) {
    if (i === this.asked) return;
    this.spans[this.asked]?.classList.remove("at");
    this.asked = i;
    this.spans[i]?.classList.add("at");
    this.tell();
  }

  tell() {
    const { past, asked, frame, part } = this;
    part.token.replaceChildren();
    if (asked < 0) { part.token.textContent = matchMedia("(hover: none)").matches ? "Tap a token" : "Hover or tap a token"; return; }
    const state = past.stateAt(asked, frame), kind = past.kind(asked, frame);
    const show = (words, tag = "span") => part.token.append(Object.assign(document.createElement(tag), { textContent: words }));
    const nothing = { mask: "masked", gone: "left empty" }[kind];
    show(nothing || JSON.stringify(state.text), nothing ? "span" : "code");
    show(`position ${asked}`);
    if (kind === "given") show("given");
    if (kind === "draft") show("draft");
    if (kind === "written") show(`settled in pass ${past.passes[state.at]} of ${past.passes[past.last]}`);
    if (kind !== "given" && state.sure !== null && !nothing) show(`confidence ${percent(state.sure)}`);
    if (state.revised && kind === "written") show("revised");
    if (state.id !== null && !nothing) show(`token ${state.id}`);
  }

  // -- time

  get pace() { return Math.min(12000, Math.max(2500, this.past.last * 170)) / Math.max(1, this.past.last) / +this.part.speed.value; }

  play(on) {
    clearInterval(this.clock);
    this.following = false;
    if (on && this.frame >= this.past.last) this.draw(0);
    this.playing = on && this.past.last > 0;
    this.root.classList.toggle("playing", this.playing);
    this.part.play.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    if (this.playing) { this.begun = performance.now(); this.clock = setInterval(() => this.tick(), 16); }
  }

  tick() {
    const due = Math.floor((performance.now() - this.begun) / this.pace);
    if (due > 0) { this.begun += due * this.pace; this.draw(this.frame + due); }
    if (this.frame >= this.past.last) this.play(false);
  }

  // To the end of a past that grows: there it is followed again.
  go(frame) {
    this.play(false);
    this.draw(frame);
    this.following = this.growing && this.frame === this.past.last;
    if (this.following) this.follow();
  }

  // The keys of the player; true where one of them was meant.
  key(event) {
    const { past, part } = this, inside = event.target, control = inside.closest("button, select");
    if (event.ctrlKey || event.metaKey || event.altKey || inside.closest("textarea, [type=number], [type=text]")) return false;
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key], letter = inside.closest("select") ? "" : event.key.toLowerCase();
    if (event.key === " " && !control) this.play(!this.playing);
    else if (way && inside === part.text) this.ask(Math.min(past.length - 1, Math.max(0, this.asked + way)));
    else if (way && !control) this.go(this.frame + way);
    else if (event.key === "Home" && !control) this.go(0);
    else if (event.key === "End" && !control) this.go(past.last);
    else if (event.key === "Escape" && this.asked >= 0) this.ask(-1);
    else if (letter === "r") { this.draw(0); this.play(true); }
    else if (letter === "c") this.nextColour();
    else return false;
    event.preventDefault();
    return true;
  }

  nextColour() {
    const names = [...this.part.colours.children].map(button => button.dataset.colour);
    this.recolour(names[(names.indexOf(this.colour) + 1) % names.length]);
  }
}
