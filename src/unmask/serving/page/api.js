// What the page asks of its server: JSON, server-sent events, and whether it is still there.

export class Refused extends Error {  // the server has answered, and the answer is no
  constructor(status, message) { super(message); this.status = status; }
}
export class Lost extends Error {}  // nobody answered, or not to the end

const KEY = "unmask-key", USUAL = 5000, WAITING = 1500;  // milliseconds between two looks

export const useKey = key => sessionStorage.setItem(KEY, key);

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY), headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { cache: "no-store", ...options, headers }).catch(error => {
    throw error.name === "AbortError" ? error : new Lost(error.message);
  });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Refused(response.status, told.error?.message || `The server answered ${response.status}.`);
}

export const get = async path => (await call(path)).json();
export const text = async path => (await call(path)).text();

// Post, and call `each` with every event of the answer, in order. Whole only if the server has said so.
export async function stream(path, body, each, signal) {
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
  const response = await call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const lost = error => { throw error.name === "AbortError" ? error : new Lost(error.message); };
  for (let rest = ""; ;) {
    const { value, done } = await reader.read().catch(lost);
    if (done) throw new Lost("the answer ends early");
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) {
      const data = event.split(/\r?\n/).filter(line => line.startsWith("data:")).map(line => line.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(response.status, chunk.error.message);
      each(chunk);
    }
  }
}

// Calls `changed(there)` when the server goes and when it comes back; `look` asks at once.
export class Watch {
  constructor(changed) { Object.assign(this, { changed, there: null, timer: 0 }); }

  async look() {
    clearTimeout(this.timer);
    const there = await fetch("health", { cache: "no-store" }).then(response => response.ok, () => false);
    if (there !== this.there) { this.there = there; this.changed(there); }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), there ? USUAL : WAITING);
  }
}
