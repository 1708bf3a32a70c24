// A plain text field with marks drawn behind it: gaps, which stand in the text as <gap:8>, or spans beside it.

const GAP = /<gap(?::\d+(?:-\d+)?)?>/g, WORD = /[\p{L}\p{N}_]/u, CHARACTERS = 4;  // of a token, roughly

export class Editor {
  constructor(root, { changed = () => {} } = {}) {
    root.innerHTML = `<div class="mirror" aria-hidden="true"></div><textarea spellcheck="false" autocapitalize="off" autocomplete="off"></textarea>`;
    [this.mirror, this.area] = root.children;
    Object.assign(this, { root, changed, marking: "none", picking: false, spans: [], before: "" });
    this.area.addEventListener("input", () => this.shifted());
    this.area.addEventListener("pointerup", () => { if (this.picking && this.marking !== "none") setTimeout(() => this.mark()); });
    this.area.addEventListener("scroll", () => { this.mirror.scrollTop = this.area.scrollTop; });
  }

  get text() { return this.area.value; }

  // marking: "none", "gaps" or "spans"
  show({ text, spans = [], marking, label, placeholder }) {
    Object.assign(this, { marking, spans, before: text });
    Object.assign(this.area, { value: text, placeholder });
    this.area.setAttribute("aria-label", label);
    this.draw();
  }

  get gaps() { return [...this.text.matchAll(GAP)].map(found => [found.index, found.index + found[0].length]); }
  get marked() { return { none: [], gaps: this.gaps, spans: this.spans }[this.marking]; }

  draw() {
    const parts = [];
    let at = 0;
    for (const [start, end] of this.marked) {
      parts.push(this.text.slice(at, start), Object.assign(document.createElement("mark"), { textContent: this.text.slice(start, end) }));
      at = end;
    }
    this.mirror.replaceChildren(...parts, this.text.slice(at) + "\n");
    this.root.classList.toggle("picking", this.picking);
    this.changed(this);
  }

  // Spans move with the text they mark; one whose text is touched goes.
  shifted() {
    const [old, now] = [this.before, this.text], most = Math.min(old.length, now.length);
    let head = 0, tail = 0;
    while (head < most && old[head] === now[head]) head++;
    while (tail < most - head && old[old.length - 1 - tail] === now[now.length - 1 - tail]) tail++;
    const end = old.length - tail, by = now.length - old.length;
    this.spans = this.spans.filter(([a, b]) => b <= head || a >= end).map(([a, b]) => a >= end && b > head ? [a + by, b + by] : [a, b]);
    this.before = now;
    this.draw();
  }

  // What is selected, out to whole words; the word at the cursor if nothing is.
  get chosen() {
    let { selectionStart: start, selectionEnd: end } = this.area;
    const inGap = this.gaps.find(([a, b]) => start >= a && end <= b && (start > a || end > start));
    if (inGap) return inGap;
    while (start > 0 && WORD.test(this.text[start - 1])) start--;
    while (end < this.text.length && WORD.test(this.text[end])) end++;
    return [start, end];
  }

  mark() {
    const [start, end] = this.chosen;
    if (this.marking === "gaps") this.gap(start, end);
    if (this.marking === "spans" && end > start) this.span(start, end);
  }

  // A gap where there is none, of about the length of what it replaces; one that is there goes.
  gap(start, end) {
    const there = this.gaps.some(([a, b]) => a === start && b === end), bare = this.area.selectionStart === this.area.selectionEnd;
    if (!there && bare && !this.picking) [start, end] = [this.area.selectionStart, this.area.selectionStart];
    if (this.picking && start === end) return;
    this.replace(start, end, there ? "" : `<gap:${end > start ? Math.ceil((end - start) / CHARACTERS) : 8}>`);
  }

  span(start, end) {
    const inside = this.spans.some(([a, b]) => a <= start && end <= b);
    const apart = this.spans.filter(([a, b]) => b < start || a > end), touching = this.spans.filter(([a, b]) => b >= start && a <= end);
    const whole = [Math.min(start, ...touching.map(([a]) => a)), Math.max(end, ...touching.map(([, b]) => b))];
    const left = [[whole[0], start], [end, whole[1]]].filter(([a, b]) => b > a && this.text.slice(a, b).trim());
    this.spans = [...apart, ...(inside ? left : [whole])].sort((x, y) => x[0] - y[0]);
    this.area.focus();
    this.area.setSelectionRange(end, end);
    this.draw();
  }

  unmark() {
    this.spans = [];
    for (const [start, end] of this.marking === "gaps" ? this.gaps.reverse() : []) this.replace(start, end, "");
    this.draw();
  }

  // As if it were typed, so that it can be undone.
  replace(start, end, words) {
    this.area.focus();
    this.area.setSelectionRange(start, end);
    const done = document.execCommand(words ? "insertText" : "delete", false, words);
    if (!done) { this.area.setRangeText(words, start, end, "end"); this.shifted(); }
  }
}
