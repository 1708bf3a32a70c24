import { Lost, Refused, Watch, get, stream, useKey } from "./api.js";
import { Counters } from "./counters.js";
import { Editor } from "./editor.js";
import { MODES } from "./modes.js";
import { Player, calm } from "./player.js";
import { Run } from "./run.js";
import { Sampler } from "./sampler.js";
import { replay, trace } from "./share.js";
import { theme } from "./theme.js";

const $ = id => document.getElementById(id);
const states = Object.fromEntries(Object.entries(MODES).map(([name, { state }]) => [name, { spans: [], turns: [], run: null, problem: "", ...state }]));
let mode = "write", model = null, stop = null, working = null;  // stop: ends the answer of the mode `working`

const state = () => states[mode], way = () => MODES[mode].ways?.[state().way] ?? MODES[mode];
const talking = () => state().way === "chat";
const counters = new Counters($("counters")), sampler = new Sampler($("settings"));
const player = new Player($("canvas"), { colours: ["plain", "step", "sure"], drawn: ({ frame }) => { if (state().run) counters.show(state().run.counts(frame)); } });
const editor = new Editor($("editor"), { changed: edited });
const say = words => { $("said").textContent = words; };

// -- what is seen

function edited(editor) {
  Object.assign(state(), { text: editor.text, spans: editor.spans });
  $("marked").textContent = MODES[mode].marked?.(editor.marked.length) ?? "";
  $("unmark").disabled = !editor.marked.length;
  $("share-of").hidden = mode !== "edit" || editor.marked.length > 0 || Boolean(state().run);
}

function show() {
  const { run, turns, problem, text, spans } = state(), { lead, marking, mark } = MODES[mode], { go } = way(), busy = working === mode;
  const writing = !run || talking();
  Object.assign(document.body.dataset, { mode, way: state().way ?? "" });
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const here = tab.dataset.mode === mode;
    tab.setAttribute("aria-selected", here);
    tab.tabIndex = here ? 0 : -1;
    if (here) $("panel").setAttribute("aria-labelledby", tab.id);
  }
  for (const button of $("ways").children) button.setAttribute("aria-pressed", button.dataset.way === state().way);
  $("lead").textContent = lead;
  $("ways").hidden = mode !== "write";
  $("marking").hidden = marking === "none" || !writing;
  $("mark").textContent = mark ?? "";
  $("editor").hidden = !writing;
  $("canvas").hidden = !run;
  $("counters").hidden = !run;
  $("turns").replaceChildren(...(talking() ? turns : []).filter((_, i) => !(run && !busy && i === turns.length - 1)).map(turn));
  $("go").textContent = busy ? "Stop" : run && !talking() ? `${go} again` : go;
  $("go").disabled = !busy && (working !== null || model === null);
  $("back").hidden = writing || busy;
  $("keep").hidden = writing || busy || !run?.text;
  $("anew").hidden = !talking() || busy || !turns.length;
  $("changes").replaceChildren(...(run?.final?.changes ?? []).map(change));
  for (const name of ["copy", "replay", "trace"]) $(name).hidden = !run || busy;
  $("problem").hidden = !problem;
  $("problem").textContent = problem;
  $("panel").setAttribute("aria-busy", busy);
  sampler.shown(mode);
  editor.show({ text, spans, marking, label: way().label, placeholder: way().placeholder });
}

function turn({ role, content }) {
  const item = document.createElement("li"), who = document.createElement("b"), words = document.createElement("p");
  who.textContent = role === "user" ? "You" : "Model";
  words.textContent = content;
  item.className = role;
  item.append(who, words);
  return item;
}

function change({ before, after }) {
  const item = document.createElement("li");
  for (const [tag, words] of [["del", before], ["ins", after]]) item.append(Object.assign(document.createElement(tag), { textContent: words }));
  return item;
}

function to(name) {
  mode = name;
  const { run } = state();
  show();
  if (run) { player.open(run.past, { growing: run.running }); player.go(run.past.last); }
  if (location.hash !== `#${name}`) history.replaceState(null, "", `#${name}`);
}

// -- asking

async function go() {
  if (working !== null) { if (working === mode) stop.abort(); return; }
  const here = mode, mine = state(), said = sampler.said();
  mine.problem = MODES[mode].ready?.(editor) ?? "";
  if (said === null || mine.problem) { show(); return; }
  mine.share = +$("share").value;
  const { path, body, lead, expected } = way().ask(mine, said);
  const run = new Run({ path, body: { model, ...body, stream: true, diffusing: true, stream_options: { include_usage: true } }, lead, expected, model });
  if (talking()) { mine.turns = body.messages; mine.text = ""; }
  Object.assign(mine, { run });
  [stop, working] = [new AbortController(), here];
  if (expected || lead) player.open(run.past, { growing: true });
  show();
  $("canvas").hidden = !(expected || lead);
  const ending = await stream(path, run.body, chunk => took(run, chunk, here), stop.signal).then(() => null, error => error);
  finished(run, here, ending);
}

function took(run, chunk, name) {
  const first = run.frames.length === 0;
  run.take(chunk);
  if (mode !== name || !run.frames.length) return;
  if (first) { $("canvas").hidden = false; player.open(run.past, { growing: true }); }
  player.follow();
}

function finished(run, name, ending) {
  [stop, working] = [null, null];
  run.end({ whole: ending === null });
  const mine = states[name];
  if (!run.frames.length) { mine.run = null; if (run.lead === "" && mine.turns.length) mine.text = mine.turns.pop().content; }
  else if (mine.way === "chat") mine.turns = [...mine.turns, { role: "assistant", content: run.text }];
  mine.problem = ending instanceof Refused ? ending.message : ending instanceof Lost ? "The server went away before the text was whole." : ending && ending.name !== "AbortError" ? `The page failed: ${ending.message}` : "";
  if (ending instanceof Refused && ending.status === 401) $("key").showModal();
  if (ending instanceof Lost) watch.look();
  if (ending === null) sampler.next();
  if (mode !== name) return;
  player.follow({ whole: true });
  show();
  say(ending === null ? `Done: ${run.tokens} tokens in ${run.passes} passes. ${run.text}` : mine.problem || "Stopped.");
}

// -- the server

const watch = new Watch(there => {
  document.body.classList.toggle("away", !there);
  $("gone").hidden = there;
  $("gone").textContent = there ? "" : "The server does not answer. This page looks for it and goes on by itself.";
  if (there) meet();
});

async function meet() {
  try {
    const [{ data: [served] }, { presets, options }] = await Promise.all([get("v1/models"), get("v1/presets")]);
    model = served.id;
    $("model").textContent = model;
    sampler.offer(presets, { ...options, tokens: served.max_tokens });
  } catch (error) {
    if (error instanceof Refused && error.status === 401) $("key").showModal();
    else if (error instanceof Refused) state().problem = error.message;
    else watch.look();
  }
  show();
}

// -- what is pressed

const tabs = [...document.querySelectorAll("[role=tab]")];
tabs.forEach((tab, i) => {
  tab.onclick = () => to(tab.dataset.mode);
  tab.onkeydown = event => {
    const next = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const other = tabs[(next + tabs.length) % tabs.length];
    to(other.dataset.mode);
    other.focus();
  };
});
for (const button of $("ways").children) button.onclick = () => { Object.assign(state(), { way: button.dataset.way, run: null, turns: [], problem: "" }); show(); };
$("go").onclick = go;
$("back").onclick = () => { state().run = null; show(); editor.area.focus(); };
$("keep").onclick = () => { const { run } = state(); Object.assign(state(), { text: run.lead + run.text, spans: [], run: null }); show(); editor.area.focus(); };
$("anew").onclick = () => { Object.assign(state(), { run: null, turns: [], text: "", problem: "" }); show(); editor.area.focus(); };
$("mark").onclick = () => editor.mark();
$("unmark").onclick = () => editor.unmark();
$("pick").onclick = () => { editor.picking = !editor.picking; $("pick").setAttribute("aria-pressed", editor.picking); editor.draw(); };
$("copy").onclick = async () => { const { run } = state(); await navigator.clipboard.writeText(run.lead + run.text); say("Copied."); };
$("replay").onclick = () => replay(state().run, "Text out of masks").catch(error => { state().problem = `The replay page could not be made: ${error.message}`; show(); });
$("trace").onclick = () => trace(state().run);
$("key").onclose = () => { useKey($("key-value").value); $("key-value").value = ""; meet(); };
addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); go(); }
  else if (event.key === "Escape" && working === mode && !$("key").open) stop.abort();
  else if ($("canvas").contains(event.target)) player.key(event);
});
addEventListener("hashchange", () => { const name = location.hash.slice(1); if (name in MODES && name !== mode) to(name); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) watch.look(); });
const narrow = matchMedia("(max-width: 1079px)"), fold = () => { $("sampler").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
theme($("theme"));
to(location.hash.slice(1) in MODES ? location.hash.slice(1) : "write");
watch.look();
