// The panel at the side: one event, exception, log, request or person, for reading.

import { arrange, button, clock, count, exactly, facts, inJson, json, node, plural, shown, span } from "./text.js";
import { arrivedAt, delayOf, entriesOf, framesOf, isOwn, levelOf, notesOf, ordered, placeOf, sentAt, titleOf } from "./kinds.js";

const IN_TIMELINE = 200;
const MOST_PROPERTIES = 300;
const CAUSES = { __proto__: null, cause: "Caused by", context: "While handling", member: "One of", suppressed: "Suppressed" };

let page; // what this panel needs of the page: open, openItem, openTimeline, search, requestOf, personOf, itemsOf, kept
export const useOn = (given) => { page = given; };

const heading = (text, level = "h3") => node(level, {}, text);
const statusOf = (request) => (request.status ? `${request.status} ${shown(request.error, 200)}`.trim() : "no answer");
const iso = (milliseconds) => (Number.isNaN(milliseconds) ? "" : new Date(milliseconds).toISOString());

// What is long or seldom read is folded away; the page remembers what somebody unfolded.
function folded(title, name, isOpen, ...inside) {
  const made = node("details", { class: "fold" }, node("summary", {}, title), ...inside);
  made.open = page.kept[`fold-${name}`] ? page.kept[`fold-${name}`] === "open" : isOpen;
  made.addEventListener("toggle", () => { page.kept[`fold-${name}`] = made.open ? "open" : "shut"; });
  return made;
}

function verdicts(event) {
  const verdict = event.reason ? node("p", { class: "verdict no" }, `Refused: ${shown(event.reason)}`) : node("p", { class: "verdict ok" }, "Accepted");
  const again = event.duplicate ? [node("p", { class: "verdict hm" }, "Duplicate: this uuid had been accepted before")] : [];
  return [verdict, ...event.warnings.map((text) => node("p", { class: "verdict hm" }, shown(text))), ...again];
}

function who(event) {
  if (!event.distinct_id) return "";
  const { ids } = page.personOf(event.distinct_id);
  const others = ids.filter((id) => id !== event.distinct_id).slice(0, 5).join(", ");
  return node("span", {}, button(shown(event.distinct_id), () => page.openTimeline(event.distinct_id)), others ? ` also ${shown(others, 200)}` : "");
}

function times(event) {
  const delay = delayOf(event);
  const after = Number.isNaN(delay) ? "" : delay < 0 ? `, ${span(delay)} before its time` : `, ${span(delay)} later`;
  return [["Time", shown(event.timestamp)], ["Arrived", iso(arrivedAt(event)) + after]];
}

function origin(event, attempts) {
  const request = page.requestOf(event.request_number);
  return facts([
    ["UUID", node("span", { class: "mono" }, shown(event.uuid))], ["Dialect", event.dialect], ["Path", request ? shown(request.path) : ""],
    ["Request", `${event.request_number}${request ? `, answered ${statusOf(request)}, ${plural(request.events, "event")}` : ""}`],
    ["Attempt", attempts],
    ["Compression", request ? shown(request.coding) || "none" : ""],
    ["Bytes", request ? `${count(request.bytes)}${request.coding ? `, unpacked ${count(request.size)}` : ""}` : ""],
  ]);
}

const value = (one) => (one && typeof one === "object" ? json(one) : node("span", { class: typeof one === "string" ? "" : "mono" }, shown(inJson(one))));
const table = (pairs) => facts(pairs.slice(0, MOST_PROPERTIES).map(([name, one]) => [shown(name, 300), value(one)]));

function properties(event, hidden = () => false) {
  const all = ordered(event.properties).filter(([name]) => !hidden(name));
  const own = all.filter(([name]) => isOwn(name));
  const rest = all.filter(([name]) => !isOwn(name));
  return [
    ...(own.length ? [heading("Properties"), table(own)] : []),
    ...(rest.length ? [folded(`${own.length ? "And" : "Only"} ${rest.length} of the library’s own`, "own", !own.length, table(rest))] : []),
  ];
}

// The request of the program in which it happened, as the middlewares describe it.
const OF_REQUEST = new Set([
  "$request_method", "$request_path", "$response_status", "$current_url", "$host", "$pathname", "$referrer", "$referring_domain", "$user_agent", "$raw_user_agent", "$ip",
]);

function requestIn({ properties: of }) {
  if (of.$request_method === undefined) return [];
  const path = of.$current_url ?? of.$request_path ?? of.$pathname ?? "";
  const pairs = [
    ["Request", `${inJson(of.$request_method)} ${inJson(path)}`], ["Answered", of.$response_status], ["Referrer", of.$referrer],
    ["Address", of.$ip], ["User agent", of.$raw_user_agent ?? of.$user_agent],
  ];
  return [heading("In the request"), facts(pairs.map(([name, one]) => [name, one === undefined ? "" : shown(inJson(one), 500)]))];
}

const isOfRequest = ({ properties: of }) => (name) => of.$request_method !== undefined && OF_REQUEST.has(name);

const PARTS = { exception: exceptionParts, log: logParts };

export function openEvent(event) {
  const attempts = node("span", {}, String(event.attempt));
  const raw = node("div");
  const [title, ...parts] = (PARTS[event.kind] ?? eventParts)(event);
  page.open({ item: event.key }, title, ...verdicts(event), ...parts, heading("Where it came from"), origin(event, attempts), raw);
  complete(event, raw, attempts);
}

const eventParts = (event) => [heading(shown(titleOf(event)), "h2"), facts([["Person", who(event)], ...times(event)]), ...properties(event, isOfRequest(event)), ...requestIn(event)];

// Exceptions: what was caught, its causes, the project's own frames first, and the steps before it.

function exceptionParts(event) {
  const { $exception_source: source, $exception_steps: steps, $exception_list: list } = event.properties;
  const entries = entriesOf(event);
  const handled = entries[0].mechanism?.handled;
  return [
    node("div", {}, heading(shown(titleOf(event)), "h2"), node("p", { class: "message" }, shown(inJson(entries[0].value ?? "")))),
    facts([["Level", level(levelOf(event))], ["Caught", [handled === undefined ? "" : handled ? "handled" : "not handled", source ? `by ${shown(inJson(source), 200)}` : ""].filter(Boolean).join(" ")], ["Person", who(event)], ...times(event)]),
    ...entries.slice(0, 20).flatMap((entry, at) => stack(entry, at)),
    ...(Array.isArray(steps) && steps.length ? [heading("Before it"), stepList(steps)] : []),
    ...requestIn(event),
    ...properties(event, (name) => name === "$exception_steps" || (name === "$exception_list" && Array.isArray(list)) || isOfRequest(event)(name)),
  ];
}

const level = (name) => node("span", { class: `level level-${/^\w+$/.test(name) ? name : "info"}` }, shown(name, 20));

function stack(entry, at) {
  const frames = framesOf(entry);
  const cause = CAUSES[inJson(entry.mechanism?.source)] ?? "Then";
  const head = at ? [heading(cause), node("p", { class: "cause" }, node("b", {}, shown(inJson(entry.type ?? ""), 200)), ` ${shown(inJson(entry.value ?? ""))}`)] : [heading("Stack, the latest call first")];
  if (!frames.length) return at ? head : [];
  const all = runs(frames);
  const first = all.findIndex((run) => run.isOurs); // unfolded: where it went wrong in the project's own code
  return [...head, node("ol", { class: "frames" }, ...all.map((run, index) => frameRun(run, index - first)))];
}

// Frames in runs: the project's own one by one, those of libraries folded together.
function runs(frames) {
  const hasOwn = frames.some((frame) => frame.in_app);
  return frames.reduce((found, frame) => {
    const isOurs = Boolean(frame.in_app) || !hasOwn;
    const last = found.at(-1);
    if (!isOurs && last && !last.isOurs) last.frames.push(frame); else found.push({ isOurs, frames: [frame] });
    return found;
  }, []);
}

function frameRun({ isOurs, frames }, at) {
  if (isOurs) return node("li", {}, ...frames.map((frame) => frameOf(frame, at === 0)));
  return node("li", { class: "theirs" }, node("details", {}, node("summary", {}, plural(frames.length, "frame"), " of libraries"), ...frames.map((frame) => frameOf(frame, false))));
}

function frameOf(frame, isOpen) {
  const name = [node("b", {}, shown(inJson(frame.function ?? "?"), 200)), node("span", {}, ` ${shown(placeOf(frame), 300)}`)];
  if (typeof frame.context_line !== "string") return node("p", { class: "frame" }, ...name);
  const before = lines(frame.pre_context);
  const first = (Number(inJson(frame.lineno)) || before.length + 1) - before.length;
  const all = [...before, frame.context_line, ...lines(frame.post_context)];
  const made = node("details", {}, node("summary", { class: "frame" }, ...name), node("pre", { class: "source", tabindex: "0", "aria-label": "Source" },
    ...all.map((text, at) => node("span", at === before.length ? { class: "here" } : {}, node("i", {}, String(first + at)), `${shown(text, 500)}\n`))));
  made.open = isOpen;
  return made;
}

const lines = (list) => (Array.isArray(list) ? list.slice(0, 20).map(inJson) : []);

function stepList(steps) {
  return node("ol", { class: "before" }, ...steps.slice(-100).filter((one) => one && typeof one === "object").map((one) => {
    const { timestamp, level: name, logger, message, ...more } = one;
    const extra = Object.entries(more).filter(([key]) => !key.startsWith("$")).map(([key, one]) => `${key}=${inJson(one)}`).join(" ");
    return node("li", {}, node("time", {}, clock(Date.parse(inJson(timestamp ?? one.$timestamp)))), level(inJson(name ?? one.$level ?? "info").toLowerCase()),
      node("p", {}, node("b", {}, shown(inJson(message ?? one.$message ?? ""), 500)), node("span", {}, ` ${shown(inJson(logger ?? ""), 100)} ${shown(extra, 300)}`)));
  }));
}

// Logs: the message, then the program's own attributes, and where in the code it was at the end.

function logParts(event) {
  const { "exception.stacktrace": trace, "code.stacktrace": called, "code.file.path": path, "code.line.number": line, "code.function.name": name } = event.properties;
  const isPlaced = (one) => one.startsWith("code.") || one === "exception.stacktrace" || one === "$severity";
  return [
    node("div", {}, heading(shown(titleOf(event)), "h2")),
    facts([["Level", level(levelOf(event))], ["Logger", shown(inJson(event.properties["logger.name"] ?? ""))], ["Person", who(event)], ...times(event),
      ["In the code", path ? `${shown(inJson(path), 300)}${line ? `:${line}` : ""}${name ? `, ${shown(inJson(name), 100)}` : ""}` : ""]]),
    ...[trace, called].filter((text) => typeof text === "string").map((text) => node("pre", { class: "trace", tabindex: "0", "aria-label": "Traceback" }, shown(text, 20000))),
    ...properties(event, isPlaced),
  ];
}

async function complete(event, place, attempts) {
  const answer = await fetch(`/api/event?number=${event.number}`);
  if (!answer.ok) {
    place.append(node("p", { class: "soft" }, "The inspector has forgotten the rest of it: it keeps the latest."));
    return;
  }
  const whole = JSON.parse(await answer.text(), exactly);
  if (whole.requests.length > 1) {
    const all = whole.requests.map((number) => page.requestOf(number)).filter(Boolean);
    attempts.append(`: ${all.map((one) => `request ${one.number} (${one.status || "no answer"})`).join(", ")}`);
  }
  place.append(folded("As it was sent", "raw", false, json(whole.event.raw)));
  if (whole.request) place.append(folded("Request’s headers", "headers", false, json(whole.request.headers)));
}

export function openRequest(request) {
  page.open({ item: request.key },
    heading(`Request ${request.number}`, "h2"),
    node("p", { class: "verdict hm" }, statusOf(request)),
    facts([
      ["Path", shown(request.path)], ["Dialect", request.dialect], ["Arrived", iso(arrivedAt(request))],
      ["Events", request.events ? `${request.events}, none of them kept` : ""],
      ["Compression", shown(request.coding) || "none"],
      ["Bytes", `${count(request.bytes)}, unpacked ${count(request.size)}`],
    ]));
}

// A person: all its ids, the merges that made it, and what it did in the order of its own time.

export function openTimeline(id) {
  const person = page.personOf(id);
  const all = page.itemsOf(new Set(person.ids));
  const when = (event) => sentAt(event) || arrivedAt(event);
  all.sort((one, other) => when(one) - when(other));
  const latest = all.slice(-IN_TIMELINE);
  const steps = latest.map((event, at) => {
    const gap = at ? `${span(when(event) - when(latest[at - 1]))} later` : "first";
    const other = event.distinct_id === id ? "" : shown(event.distinct_id, 100);
    return node("li", event.reason ? { class: "is-bad" } : {}, node("div", { class: "mark" }),
      button(shown(titleOf(event), 200), () => page.openItem(event)),
      node("p", {}, [clock(when(event)), gap, other, shown(event.reason, 200), ...notesOf(event)].filter(Boolean).join(" · ")));
  });
  const merges = node("div");
  page.open({ person: id },
    heading(shown(id) || "(no person)", "h2"),
    node("p", { class: "soft" }, plural(all.length, "event"), all.length > steps.length ? `, the last ${steps.length} of them here. ` : ". ",
      button("Show only these", () => page.search(person.ids.map((one) => `person:${JSON.stringify(one)}`)[0]))),
    merges,
    node("ol", { class: "line-of", "aria-label": "Timeline" }, ...steps));
  showMerges(id, merges);
}

async function showMerges(id, place) {
  const answer = await fetch(`/api/person?distinct_id=${encodeURIComponent(id)}`);
  if (!answer.ok) return;
  const { ids, is_identified: isIdentified, merges } = await answer.json();
  if (!merges.length && ids.length < 2 && !isIdentified) return;
  const inWords = ({ source, target, event, refused }) =>
    node("li", refused ? { class: "no" } : {}, `${shown(source, 100)} ${refused ? "was not merged" : "merged"} into ${shown(target, 100)}, by ${shown(event, 50)}`);
  arrange(place, [
    heading(isIdentified ? "An identified person" : "A person"),
    facts([["Ids", shown(ids.slice(0, 50).join(", "))]]),
    ...(merges.length ? [node("ul", { class: "merges", "aria-label": "Merges" }, ...merges.map(inWords))] : []),
  ]);
}

export { statusOf };
