// The three things one can do here: what stands in the editor, and what is asked of the server.
// A mode's state: text, spans, run (the last answer), turns (of a chat).

const asked = ({ tokens, ...said }) => said;  // tokens is a number of the page's own: max_tokens where it counts
const USUAL = 64;

const completion = {
  go: "Write",
  label: "Beginning of a text",
  placeholder: "Type a beginning",
  ask: ({ text }, said) => ({
    path: "v1/completions",
    body: { prompt: text, max_tokens: said.tokens ?? USUAL, ...asked(said) },
    lead: text,
    expected: said.tokens ?? USUAL,
  }),
};
const chat = {
  go: "Send",
  label: "Your message",
  placeholder: "Say something",
  ask: ({ text, turns }, said) => ({
    path: "v1/chat/completions",
    body: { messages: [...turns, { role: "user", content: text }], max_tokens: said.tokens ?? USUAL, ...asked(said) },
    expected: said.tokens ?? USUAL,
  }),
};

export const MODES = {
  write: {
    lead: "Type a beginning. The whole rest of the page starts as masks and settles, several tokens in one pass.",
    marking: "none",
    ways: { completion, chat },
    state: { text: "import os\n\ndef ", way: "completion" },
  },
  fill: {
    lead: "Put gaps anywhere in a text. What stands before and behind a gap is seen while it is filled.",
    go: "Fill",
    marking: "gaps",
    mark: "Gap",
    marked: n => n ? `${n} gap${n === 1 ? "" : "s"}` : "no gap yet",
    label: "Text with gaps, written <gap:8>, 8 tokens long",
    placeholder: "Type a text, then put gaps into it",
    state: { text: "def read(path):\n    with open(<gap:4>) as file:\n        return <gap:6>\n" },
    ask: ({ text }, said) => ({ path: "v1/fill", body: { text, ...asked(said) } }),
    ready: editor => editor.gaps.length ? "" : "There is no gap yet: set the cursor where one should be and press Gap.",
  },
  edit: {
    lead: "Select the words to reconsider. With none selected, those the model is least sure of are taken.",
    go: "Reconsider",
    marking: "spans",
    mark: "Select",
    marked: n => n ? `${n} selected` : "",
    label: "Text to edit",
    placeholder: "Type a text, then select words to reconsider",
    state: { text: "def area(width, height):\n    result = width * height\n    return height\n" },
    ask: ({ text, spans, share }, said) => ({ path: "v1/edit", body: { text, ...(spans.length ? { spans: points(text, spans) } : { share }), ...asked(said) } }),
  },
};

// The server counts characters, a script counts UTF-16 units.
function points(text, spans) {
  const count = end => [...text.slice(0, end)].length;
  return spans.map(span => span.map(count));
}
