import { fold } from "./past.js";
import { text } from "./api.js";

// A run as a file: a replay page that needs nothing else, or everything the server sent.

export const trace = run => save("trace.json", "application/json", JSON.stringify(run.trace(), null, 1));

export async function replay(run, title) {
  const parts = { title: title.replace(/[&<>]/g, c => `&#${c.charCodeAt(0)};`), data: asScript([fold(run.past)]) };
  const page = (await text("page/replay.html")).replace(/\{\{(title|data)\}\}/g, (_, name) => parts[name]);
  save("replay.html", "text/html", page);
}

// JSON that cannot end the script element it stands in.
const asScript = data => JSON.stringify(data).replace(/</g, "\\u003c");

function save(name, type, words) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([words], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
