// What became of one text, pass by pass: for each position the moments at which anything there changed.
// Knows neither the screen nor where the frames come from.

// A position at a moment. frame: since when it is so; text: how the token reads; id: the token, null where nobody
// said; special: shown small, by name; empty: a mask stands there; open: still to be written; sure: probability,
// null where there is none; at: the frame in which it was settled; revised: something else had been settled before.
const BLANK = { frame: 0, text: "", id: null, special: false, empty: true, open: true, given: false, sure: null, at: 0, revised: false };

export class Past {
  constructor({ title = "", model = "", start = [] } = {}) {
    Object.assign(this, { title, model, counts: null, positions: [], settled: [0], passes: [0], steps: [-1] });
    this.lengthen(0, start);
  }

  get length() { return this.positions.length; }
  get last() { return this.settled.length - 1; }

  // A row may grow while it is written: new positions are masks unless `start` says what they are.
  lengthen(length, start = []) {
    for (const state of start) this.positions.push([{ ...BLANK, ...state }]);
    while (this.length < length) this.positions.push([{ ...BLANK, frame: this.settled.length - 1 }]);
  }

  // One frame. changes: [position, what differs there]; `settled: true` says that the token was written in this pass.
  add(changes, { step = this.last, passes = this.last + 1 } = {}) {
    const frame = this.settled.push(0) - 1;
    this.steps.push(step);
    this.passes.push(passes);
    for (const [i, { settled = false, ...change }] of changes) {
      const states = this.positions[i], before = states[states.length - 1], next = { ...before, ...change, frame };
      if (settled) { next.at = frame; this.settled[frame]++; }
      if (!("revised" in change)) next.revised = !next.open && !next.empty && !next.given && replaced(states, next);
      states.push(next);
    }
  }

  // All is written: what is still open in the last frame stays empty.
  close() {
    for (const states of this.positions) {
      const state = states[states.length - 1];
      if (state.open) states.push({ ...state, text: "", empty: true, open: false, frame: this.last });
    }
  }

  stateAt(i, frame) {
    const states = this.positions[i];
    let k = states.length - 1;
    while (k && states[k].frame > frame) k--;  // the last one, where two have come with one frame
    return states[k];
  }

  // The room that a mask takes: that of the last token which stands there, as far as it is known.
  room(i) {
    const states = this.positions[i];
    for (let k = states.length - 1; k >= 0; k--) if (!states[k].empty) return states[k].text || " ";
    return "   ";
  }

  kind(i, frame) {
    const state = this.stateAt(i, frame);
    if (state.given) return "given";
    if (state.open) return state.empty ? "mask" : "draft";
    return state.empty ? "gone" : "written";
  }

  written(frame) {
    let count = 0;
    for (let i = 0; i < this.length; i++) count += this.kind(i, frame) === "written";
    return count;
  }

  text(frame = this.last) {
    return this.positions.map((_, i) => this.stateAt(i, frame)).filter(s => !s.special && (s.given || !s.open)).map(s => s.text).join("");
  }
}

function replaced(states, next) {
  const kept = states.filter(s => !s.open && !s.empty).pop();
  return kept !== undefined && (kept.revised || kept.text !== next.text);
}

// From what a replay page carries (Page.as_dict of show/replay.py), and back.
export function unfold(page) {
  const entry = index => { const [id, text, special] = page.vocabulary[index]; return { id, text, special: Boolean(special), empty: index === page.mask }; };
  const start = page.start.map((token, i) => {
    const given = page.given[i] === "1";
    return { ...entry(token), given, open: !given, sure: given ? 1 : null };
  });
  const past = new Past({ title: page.title, model: page.model, start });
  for (const change of page.frames) {
    const next = new Map(), touch = i => next.get(i) || next.set(i, {}).get(i);
    for (const i of change.open || []) touch(i).open = !past.stateAt(i, past.last).open;
    pairs(change.token, (i, token) => Object.assign(touch(i), entry(token)));
    pairs(change.sure, (i, sure) => { touch(i).sure = sure; });
    for (const i of change.settled || []) touch(i).settled = true;
    past.add(next, { step: change.step });
  }
  past.counts = page.counts;
  return past;
}

export function fold(past) {
  const vocabulary = [[null, "<mask>", 1]], index = new Map();
  const entry = s => {
    if (s.empty) return 0;
    const key = JSON.stringify([s.id, s.text, Number(s.special)]);
    if (!index.has(key)) index.set(key, vocabulary.push(JSON.parse(key)) - 1);
    return index.get(key);
  };
  const given = past.positions.map(states => states[0].given);
  const start = past.positions.map((states, i) => given[i] ? entry(states[0]) : 0);
  const frames = [];
  for (let frame = 1; frame <= past.last; frame++) {
    const found = { step: past.steps[frame], token: [[], []], open: [], settled: [], sure: [[], []] };
    past.positions.forEach((states, i) => {
      const now = past.stateAt(i, frame), before = frame > 1 ? past.stateAt(i, frame - 1) : { ...BLANK, ...(given[i] && states[0]) };
      if (entry(now) !== entry(before)) { found.token[0].push(i); found.token[1].push(entry(now)); }
      if (now.open !== before.open) found.open.push(i);
      if (now.at === frame && now.frame === frame) found.settled.push(i);
      if (now.sure !== null && now.sure !== before.sure) { found.sure[0].push(i); found.sure[1].push(now.sure); }
    });
    const kept = Object.entries(found).filter(([, value]) => !Array.isArray(value) || value.flat().length);
    frames.push(Object.fromEntries(kept));
  }
  const { title, model, counts } = past;
  return { title, model, counts, mask: 0, vocabulary, given: given.map(Number).join(""), start, frames };
}

function pairs(columns, each) {
  if (columns) columns[0].forEach((i, k) => each(i, columns[1][k]));
}
