import { Past } from "./past.js";

// One answer of the server as it comes in: the past of its canvas, its text, what it cost, and everything it sent.

const MEANS = {
  given: { given: true, open: false, empty: false, sure: 1 },
  open: { open: true, empty: true, text: "", sure: null },
  draft: { open: true, empty: false },
  settled: { open: false, empty: false, settled: true, revised: false }, // the server says which are
  revised: { open: false, empty: false, settled: true, revised: true },
};
const MOST_EXPECTED = 256;
const given = text => ({ text, ...MEANS.given });

export class Run {
  // lead: text that stands before the canvas; expected: how many masks to show until the first frame comes.
  constructor({ path, body, lead = "", expected = 0, model = "" }) {
    const start = lead ? [given(lead)] : [];
    Object.assign(this, { path, body, model, lead, offset: start.length, frames: [], times: [0], text: "", usage: null, final: null });
    this.past = new Past({ model, start });
    this.past.lengthen(this.offset + Math.min(expected, MOST_EXPECTED));
    this.began = performance.now();
    this.running = true;
  }

  get seconds() { return (performance.now() - this.began) / 1000; }

  take(chunk) {
    const choice = chunk.choices?.[0];
    this.text += choice?.delta?.content ?? choice?.text ?? "";
    if (chunk.usage) this.usage = chunk.usage;
    if (chunk.gaps || chunk.changes) { this.final = chunk; this.text = chunk.text; }
    if (chunk.unmask) this.frame(chunk.unmask);
  }

  frame(frame) {
    const { step, passes, length, changed } = frame;
    if (!this.frames.length) this.begin(length, changed);
    this.frames.push(frame);
    this.past.lengthen(this.offset + length);
    if (!passes) return;
    const changes = changed.map(({ at, text, p, state }) => [at + this.offset, { text, sure: p, ...MEANS[state] }]);
    this.past.add(changes, { step, passes });
    this.times.push(this.seconds);
  }

  // The first frame lists every position: what is given stands there from the beginning.
  begin(length, changed) {
    const start = Array.from({ length }, () => ({}));
    for (const { at, text, state } of changed) if (state === "given") start[at] = given(text);
    this.past = new Past({ model: this.model, start: [...(this.lead ? [given(this.lead)] : []), ...start] });
  }

  // whole: nothing more comes because all is written; what is open now stays empty.
  end({ whole }) {
    this.running = false;
    if (whole) this.past.close();
    this.past.counts = { tokens: this.tokens, passes: this.passes, seconds: this.times[this.times.length - 1] };
  }

  get passes() { return this.usage?.forward_passes ?? this.past.passes[this.past.last]; }
  get tokens() { return this.usage?.completion_tokens ?? this.past.written(this.past.last); }

  // What it took up to a frame of its past.
  counts(frame) {
    const { past } = this, over = frame === past.last && !this.running;
    const tokens = over ? this.tokens : past.written(frame), passes = over ? this.passes : past.passes[frame];
    return { tokens, passes, seconds: this.times[frame] };
  }

  trace() {
    const { path, body: request, model, text, usage, final, frames } = this;
    return { format: "unmask-trace", path, model, request, text, usage, result: final, frames };
  }
}
