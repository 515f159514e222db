// The inspector's page: the stream of what arrives, the list, the overview, chaos and the keys.

import { $, arrange, button, clock, count, node, plural, shown, span } from "./text.js";
import { KINDS, arrivedAt, delayOf, isEvent, kindOf, levelOf, notesOf, sentAt, summaryOf, titleOf } from "./kinds.js";
import { compiled } from "./search.js";
import { forgetPersons, learn, personOf, persons } from "./persons.js";
import { drawPlan, planChanged, usePlanOn } from "./plan.js";
import { openEvent, openRequest, openTimeline, statusOf, useOn } from "./detail.js";

const SPARE = 8; // rows above and below what is seen
const SECONDS = 60;
const BARS = 12;
const LATE = 2000; // milliseconds from which an arrival counts as late

const state = {
  items: [], view: [], kind: "", query: "", fits: () => true, requests: new Map(), names: new Map(), levels: new Map(), seconds: new Map(),
  tally: new Map(), counts: {}, capacity: 10000, chaos: null, playing: "", generation: "", lastEvent: 0, lastRequest: 0,
  chosen: null, open: null, unseen: 0, lastKey: 0, heard: { all: 0, bad: 0 }, row: 44,
};
const pending = [];
const rows = new Map();
// Where the browser forbids storage, what is remembered lasts as long as the page.
const kept = (() => { try { return localStorage; } catch { return {}; } })();
const narrow = matchMedia("(max-width: 700px)");
const dark = matchMedia("(prefers-color-scheme: dark)");

// What is listed: of one kind, or everything, as far as the search fits.

const isListed = (item) => (!state.kind || item.kind === state.kind) && state.fits(item);

function relist() {
  state.view = state.kind === "person" ? persons().filter(state.fits) : state.items.filter(isListed);
}

function search(query) {
  $("query").value = query;
  state.query = query;
  state.fits = compiled(query);
  relist();
  $("list").scrollTop = 0;
  draw();
}

function show(kind) {
  state.kind = kind;
  state.chosen = null;
  rows.clear();
  relist();
  $("list").scrollTop = 0;
  draw();
}

// What arrives.

function connect() {
  takeIn();
  const source = new EventSource(`/api/stream?after=${state.generation}.${state.lastEvent}.${state.lastRequest}`);
  source.onopen = () => live("live", true);
  source.onmessage = (message) => { pending.push(message.data); schedule(); };
  source.onerror = () => {
    source.close();
    live("not reachable, trying again", false);
    setTimeout(connect, 1000);
  };
}

function live(text, isOn) {
  $("live").textContent = text;
  $("live").toggleAttribute("data-on", isOn);
}

let isDue = false;
function schedule() {
  if (isDue) return;
  isDue = true;
  // A hidden page has no animation frames.
  const later = document.hidden ? (act) => setTimeout(act, 250) : requestAnimationFrame;
  later(() => { isDue = false; takeIn(); draw(); });
}

function takeIn() {
  const before = state.view.length;
  const fresh = pending.splice(0).map((text) => JSON.parse(text)).flatMap(accept);
  if (state.kind === "person" && fresh.length) { relist(); rows.clear(); }
  const dropped = forget();
  const added = state.view.length + dropped - before;
  const list = $("list");
  if (list.scrollTop > state.row && added > 0) {
    list.scrollTop += added * state.row; // what is looked at stays where it is
    state.unseen += added;
  }
  const ids = state.open?.person === undefined ? [] : personOf(state.open.person).ids;
  if (fresh.some((item) => ids.includes(item.distinct_id))) prolong(state.open.person);
}

function prolong(person) {
  const held = [...$("detail-body").querySelectorAll("button")].indexOf(document.activeElement);
  openTimeline(person);
  if (held >= 0) $("detail-body").querySelectorAll("button")[held].focus({ preventScroll: true });
}

function accept(message) {
  if (message.generation !== state.generation) begin(message.generation);
  const { counts, chaos, playing, capacity } = message;
  Object.assign(state, { counts, chaos, playing, capacity });
  planChanged();
  return message.arrived.filter(remember);
}

function begin(generation) {
  Object.assign(state, { generation, items: [], view: [], lastEvent: 0, lastRequest: 0, chosen: null, unseen: 0 });
  for (const map of [state.requests, state.names, state.levels, state.seconds, state.tally, rows]) map.clear();
  forgetPersons();
  close();
}

function remember(item) {
  item.kind = kindOf(item);
  if (isEvent(item)) {
    state.lastEvent = item.number;
    change(state.seconds, Math.floor(item.received_at), 1);
    state.heard.all += 1;
    state.heard.bad += item.reason ? 1 : 0;
    learn(item);
  } else {
    state.lastRequest = item.number;
    state.requests.set(item.number, item);
    if (item.kept) return false; // its events say all of it
  }
  enter(item, 1);
  item.key = ++state.lastKey;
  state.items.push(item);
  if (state.kind !== "person" && isListed(item)) state.view.push(item);
  return true;
}

// Count an item in, or out again.
function enter(item, by) {
  change(state.tally, item.kind, by);
  if (!isEvent(item)) return;
  if (item.warnings.length) change(state.tally, "warned", by);
  if (item.kind === "log") change(state.levels, levelOf(item), by); else change(state.names, item.event, by);
}

function change(map, key, by) {
  const number = (map.get(key) ?? 0) + by;
  if (number > 0) map.set(key, number); else map.delete(key);
}

function forget() {
  const most = 2 * state.capacity; // good and bad ones, as many as the inspector remembers
  if (state.items.length <= most) return 0;
  for (const old of state.items.splice(0, state.items.length - most)) enter(old, -1);
  for (const number of state.requests.keys()) {
    if (state.requests.size <= most) break;
    state.requests.delete(number);
  }
  if (state.kind === "person") return 0;
  const gone = place(state.items[0].key);
  state.view.splice(0, gone);
  return gone;
}

// Where in the view a key is, or would be.
function place(key) {
  if (state.kind === "person") return state.view.findIndex((one) => one.key === key);
  let [low, high] = [0, state.view.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (state.view[middle].key < key) low = middle + 1; else high = middle;
  }
  return low;
}

// The list: only the rows that are seen exist.

function draw() {
  const { view, items, row: height } = state;
  const list = $("list");
  const isFirst = items.length === 0;
  $("empty").hidden = !isFirst;
  $("nothing").hidden = view.length > 0 || isFirst;
  $("heads").hidden = isFirst;
  const canvas = $("canvas");
  canvas.style.height = `${view.length * height}px`;
  if (list.scrollTop <= height) state.unseen = 0;
  const first = Math.max(0, Math.floor(list.scrollTop / height) - SPARE);
  const last = Math.min(view.length, Math.ceil((list.scrollTop + list.clientHeight) / height) + SPARE);
  const seen = [];
  for (let at = first; at < last; at += 1) seen.push(row(view[view.length - 1 - at], at));
  canvas.style.paddingTop = `${first * height}px`;
  arrange(canvas, seen);
  const drawn = new Set(seen);
  for (const [key, one] of rows) if (!drawn.has(one)) rows.delete(key);
  list.setAttribute("aria-rowcount", view.length + 1);
  const isThere = state.chosen !== null && rows.has(state.chosen);
  if (isThere) list.setAttribute("aria-activedescendant", `row-${state.chosen}`);
  else list.removeAttribute("aria-activedescendant");
  drawCounts();
  drawKinds();
  drawTexts();
}

function drawCounts() {
  const { counts, unseen, tally } = state;
  for (const one of document.querySelectorAll("[data-count]")) {
    const number = one.dataset.count === "warned" ? tally.get("warned") ?? 0 : counts[one.dataset.count] ?? 0;
    one.textContent = count(number);
    const noun = one.nextElementSibling;
    if (noun) noun.textContent = noun.textContent.replace(/s?$/, number === 1 ? "" : "s");
  }
  document.querySelector('[data-query="is:bad"]').classList.toggle("some", counts.bad > 0);
  document.querySelector('[data-query="is:warned"]').classList.toggle("doubt", (tally.get("warned") ?? 0) > 0);
  $("newer").hidden = !unseen;
  $("newer").textContent = `${count(unseen)} newer`;
  document.title = counts.total ? `Inspector (${count(counts.total)})` : "Inspector";
}

// How many there are of each kind: of those that fit the search where there is one.
let lastDrawn = "";
function drawKinds() {
  const stamp = [state.generation, state.lastKey, state.items.length, state.kind, state.query].join();
  if (stamp === lastDrawn) return; // a scroll changes none of it
  lastDrawn = stamp;
  const tally = state.query ? new Map() : state.tally;
  if (state.query) for (const item of state.items) if (state.fits(item)) change(tally, item.kind, 1);
  const listed = state.items.length && state.query ? [...tally.values()].reduce((sum, one) => sum + one, 0) : state.items.length;
  for (const press of $("kinds").children) {
    const { kind } = press.dataset;
    const number = kind === "person" ? persons().filter(state.fits).length : kind ? tally.get(kind) ?? 0 : listed;
    press.querySelector("b").textContent = count(number);
    press.setAttribute("aria-pressed", kind === state.kind);
    press.hidden = kind === "dead" && !number && state.kind !== "dead";
    press.classList.toggle("none", !number);
  }
}

const HEADS = { log: ["Level", "Message", ""], person: ["", "Person", "Events"], request: ["", "Path", "Request"], exception: ["Level", "Exception", "Person"] };

function drawTexts() {
  const [kind, name, who] = HEADS[state.kind] ?? ["Kind", "Event", "Person"];
  for (const [id, text] of [["head-kind", kind], ["head-name", name], ["head-who", who]]) $(id).textContent = text;
  const { chaos, playing, counts, capacity } = state;
  const text = [playing && `Plays ${playing}`, chaos && chaosText(chaos)].filter(Boolean).join(", ");
  $("alarm").hidden = !text;
  if (text && $("alarm-text").textContent !== text) $("alarm-text").textContent = text;
  $("older").hidden = !counts.forgotten;
  $("older").textContent = counts.forgotten
    ? `${plural(counts.forgotten, "older one")} of ${count(counts.total)} forgotten: the inspector keeps the latest ${count(capacity)} (serve --capacity).` : "";
  const what = KINDS.find(([one]) => one === state.kind)[1].toLowerCase();
  $("nothing-text").textContent = state.query ? `None of the ${state.kind ? what : "rows"} kept here fits ${shown(state.query, 200)}.` : `There are no ${what} yet.`;
}

function row(item, at) {
  let made = rows.get(item.key);
  if (!made) {
    made = ROWS[item.kind]?.(item) ?? eventRow(item);
    made.id = `row-${item.key}`;
    made.dataset.key = item.key;
    if (Date.now() - arrivedAt(item) < 1000) made.classList.add("fresh");
    rows.set(item.key, made);
  }
  made.setAttribute("aria-rowindex", at + 2);
  made.setAttribute("aria-selected", item.key === state.chosen);
  made.classList.toggle("chosen", item.key === state.chosen);
  return made;
}

const cell = (kind, ...inside) => node("div", { class: kind, role: "gridcell" }, ...inside);
const dot = (label) => cell("kind", node("span", { class: "mark", role: "img", "aria-label": label, title: label }));
const level = (item) => cell("kind", node("span", { class: `level level-${/^\w+$/.test(levelOf(item)) ? levelOf(item) : "info"}` }, shown(levelOf(item), 10)));

function eventRow(event) {
  const { kind } = event;
  const who = node("span", { title: "Show this person’s timeline" }, shown(event.distinct_id, 200));
  const delay = delayOf(event);
  const after = Number.isNaN(delay) ? "" : `${span(delay)} ${delay < 0 ? "before its time" : "later"}`;
  return node("div", { class: `row is-${kind}${event.reason ? " is-bad" : ""}`, role: "row" },
    node("time", { role: "gridcell", title: shown(event.timestamp, 60) }, clock(sentAt(event)) || "unreadable"),
    event.reason ? dot("refused") : kind === "log" || kind === "exception" ? level(event) : dot("accepted"),
    cell("name cut", shown(titleOf(event), 300)), cell("who cut", kind === "log" || event.event === "$http_log" ? "" : who), // nobody's, or a hash
    cell("rest", node("span", { class: "what cut" }, ...summaryOf(event)),
      node("span", { class: "notes" }, ...notesOf(event).map((text) => node("span", { class: "note" }, text)))),
    node("div", { class: delay > LATE ? "late much" : "late", role: "gridcell", title: after }, clock(arrivedAt(event))));
}

function requestRow(request) {
  const events = request.events ? `${plural(request.events, "event")}, none kept` : "nothing kept";
  return node("div", { class: "row is-request", role: "row" },
    node("time", { role: "gridcell" }, clock(arrivedAt(request))), dot("failed request"),
    cell("name cut", shown(request.path, 200)), cell("who cut", `request ${request.number}`),
    cell("rest", node("span", { class: "what cut" }, `${statusOf(request)}: ${events}`)), cell("late", clock(arrivedAt(request))));
}

function personRow(person) {
  return node("div", { class: "row is-person", role: "row" },
    node("time", { role: "gridcell" }, clock(person.at * 1000)), cell("kind"),
    cell("name cut", shown(titleOf(person), 200)), cell("who cut", plural(person.total, "event")),
    cell("rest", node("span", { class: "what cut" }, ...summaryOf(person))), cell("late", clock(person.at * 1000)));
}

const ROWS = { request: requestRow, person: personRow };

function choose(at) {
  const { view, row: height } = state;
  if (!view.length) return;
  const index = Math.min(Math.max(at, 0), view.length - 1);
  state.chosen = view[view.length - 1 - index].key;
  const list = $("list");
  const head = $("heads").offsetHeight; // it stays on top of what scrolls
  const top = index * height;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + head + height > list.scrollTop + list.clientHeight) list.scrollTop = top + head + height - list.clientHeight;
  draw();
  if (state.open) openItem(view[view.length - 1 - index]);
}

const chosenItem = () => (state.chosen === null ? undefined : state.view[place(state.chosen)]);
const chosenAt = () => (state.chosen === null ? -1 : state.view.length - 1 - place(state.chosen));

// The panel at the side.

function open(what, ...inside) {
  state.open = what;
  $("detail-body").replaceChildren(...inside);
  if ($("detail").hidden) {
    $("detail").hidden = false;
    if (narrow.matches) $("close").focus();
    draw();
  }
}

function close() {
  state.open = null;
  const held = $("detail").contains(document.activeElement);
  $("detail").hidden = true;
  if (held) $("list").focus({ preventScroll: true });
}

function openItem(item) {
  state.chosen = item.key;
  if (item.kind === "person") openTimeline(item.ids[0]);
  else if (isEvent(item)) openEvent(item); else openRequest(item);
  $("detail").scrollTop = 0;
  draw();
}

// The overview.

const bars = new Map();

function drawOverview() {
  const now = Math.floor(Date.now() / 1000);
  for (const second of state.seconds.keys()) if (second < now - SECONDS) state.seconds.delete(second);
  const rates = Array.from({ length: SECONDS }, (_, at) => state.seconds.get(now - SECONDS + 1 + at) ?? 0);
  const peak = Math.max(...rates);
  const points = rates.map((rate, at) => `${at},${39 - (peak ? (rate / peak) * 37 : 0)}`).join(" ");
  $("rate-line").setAttribute("points", peak ? points : "");
  $("rate-area").setAttribute("points", `0,40 ${points} 59,40`);
  $("rate-now").textContent = count(Math.max(rates[SECONDS - 1], rates[SECONDS - 2]));
  $("rate-peak").textContent = peak ? `peak ${count(peak)} in the last minute` : "none in the last minute";
  const hidden = drawBars("names", state.names, listName);
  $("names-more").textContent = hidden > 0 ? `and ${count(hidden)} more names` : state.names.size ? "" : "none yet";
  drawBars("levels", state.levels, (name) => { show("log"); search(`level:${name}`); });
  $("levels-section").hidden = !state.levels.size;
  drawPlan();
  announce();
}

const listName = (name) => { show(""); search(`event:${JSON.stringify(name)}`); };

function openNumber(number, name) {
  const found = state.items.find((item) => isEvent(item) && item.number === number);
  if (found) openItem(found); else listName(name);
}

// Draw the largest numbers of *map* as bars; return how many are not shown.
function drawBars(id, map, act) {
  const ranked = [...map].sort((one, other) => other[1] - one[1]);
  const top = ranked.slice(0, BARS);
  const keys = new Set(top.map(([name]) => `${id} ${name}`));
  for (const key of bars.keys()) if (key.startsWith(`${id} `) && !keys.has(key)) bars.delete(key);
  arrange($(id), top.map(([name, number]) => bar(`${id} ${name}`, name, number, top[0][1], act)));
  return ranked.length - top.length;
}

function bar(key, name, number, most, act) {
  if (!bars.has(key)) {
    const press = button("", () => act(name), "bar");
    press.append(node("span", {}, shown(name, 100) || "(no name)"), node("b"), node("i"));
    bars.set(key, node("li", {}, press));
  }
  const made = bars.get(key);
  made.querySelector("b").textContent = count(number);
  made.querySelector("i").style.setProperty("--share", `${(100 * number) / most}%`);
  return made;
}

let lastSpoken = 0;
function announce() {
  const { all, bad } = state.heard;
  if (!all || Date.now() - lastSpoken < 3000) return;
  lastSpoken = Date.now();
  state.heard = { all: 0, bad: 0 };
  $("spoken").textContent = `${plural(all, "new event")}${bad ? `, ${bad} bad` : ""}`;
}

// Chaos, clearing, copying, the theme.

const post = (path, value) => fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

function wantedChaos() {
  const { play, status: code, retry, latency, reset, verdict, named, share } = $("chaos").elements;
  const answer = {};
  if (code.value !== "200") answer.status = Number(code.value);
  if (retry.value) answer.headers = { "Retry-After": retry.value };
  if (latency.value) answer.delay = Number(latency.value) / 1000;
  if (reset.value) answer.reset_after = Number(reset.value);
  const names = named.value.split(",").map((name) => name.trim()).filter(Boolean);
  if (verdict.value) answer.verdicts = Object.fromEntries(names.map((name) => [name, verdict.value === "missing" ? null : verdict.value]));
  if (verdict.value && !names.length) throw new Error("A verdict needs the names of the events that get it.");
  const isAny = Object.keys(answer).length > 0;
  if (isAny && share.value !== "100") answer.rate = Number(share.value) / 100;
  if (!isAny && !play.value) throw new Error("Choose what should go wrong.");
  return { always: isAny ? answer : null, play: play.value || null };
}

async function setChaos(wanted) {
  const answer = await post("/api/answers", wanted);
  const now = await answer.json();
  $("chaos-error").textContent = now.error ?? "";
  if (!answer.ok) return;
  state.chaos = now.always && Object.keys(now.always).length ? now.always : null;
  state.playing = now.playing ?? "";
  draw();
  $("spoken").textContent = state.chaos || state.playing ? "Chaos is on" : "Chaos is off";
}

const noChaos = () => setChaos({ always: null, play: null });

function chaosText(answer) {
  const { status: code, headers = {}, delay, reset_after: reset, verdicts, rate, hang } = answer;
  const parts = [
    code && `status ${code}`, ...Object.entries(headers).map(([name, value]) => `${name} ${value}`), delay && span(delay * 1000) + " late",
    reset !== undefined && "connection reset", verdicts && `verdicts ${JSON.stringify(verdicts)}`, hang && "no answer",
    rate !== undefined && `${Math.round(rate * 100)} % of requests`,
  ];
  return shown(parts.filter(Boolean).join(", ") || "other answers", 300);
}

function toggleChaos(isOpen = $("chaos").hidden) {
  $("chaos").hidden = !isOpen;
  $("chaos-button").setAttribute("aria-expanded", isOpen);
  if (isOpen) $("chaos").elements.play.focus();
  draw();
}

async function copy(press) {
  await navigator.clipboard.writeText($(press.dataset.copy).textContent);
  press.textContent = "Copied";
  setTimeout(() => { press.textContent = "Copy"; }, 1200);
}

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  const isDark = (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  $("theme").textContent = isDark ? "Light" : "Dark";
  return isDark;
}

function toggleTheme() {
  const name = setTheme() ? "light" : "dark";
  kept.theme = name;
  setTheme(name);
}

// Keys and clicks.

function back() {
  if (!$("chaos").hidden) toggleChaos(false);
  else if (state.open) close();
  else if ($("query").value) search("");
  else if (state.kind) show("");
  $("list").focus({ preventScroll: true });
  draw();
}

const step = (by) => () => { choose(chosenAt() < 0 ? 0 : chosenAt() + by); $("list").focus({ preventScroll: true }); };
const KEYS = {
  j: step(1), ArrowDown: step(1), k: step(-1), ArrowUp: step(-1),
  PageDown: step(10), PageUp: step(-10),
  g: () => choose(0), Home: () => choose(0), G: () => choose(state.view.length), End: () => choose(state.view.length),
  p: () => { const item = chosenItem(); if (item && isEvent(item)) openTimeline(item.distinct_id); },
  "/": () => $("query").select(), c: () => toggleChaos(), t: toggleTheme, "?": () => $("help").showModal(), Escape: back,
  ...Object.fromEntries(KINDS.map(([kind], at) => [String(at + 1), () => show(kind)])),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const isTyping = event.target.matches("input, select, textarea");
  const isElsewhere = event.target.matches("button, a, summary, pre") || $("detail").contains(event.target);
  if (isTyping && event.target === $("query") && ["Enter", "ArrowDown"].includes(event.key)) { event.preventDefault(); step(0)(); return; }
  if (isTyping && event.key !== "Escape") return;
  if (event.key === "Enter" && !isElsewhere && chosenItem()) { event.preventDefault(); openItem(chosenItem()); return; }
  if (isElsewhere && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function onRow(event) {
  const found = event.target.closest(".row");
  if (!found) return;
  state.chosen = Number(found.dataset.key);
  const item = chosenItem();
  if (isEvent(item) && item.distinct_id && event.target.closest(".who span")) { openTimeline(item.distinct_id); draw(); } else openItem(item);
}

// The height of a row is the stylesheet's to say: it is another where there is little room.
function measure() {
  const height = parseInt(getComputedStyle($("list")).getPropertyValue("--row"), 10) || 44;
  if (height !== state.row) {
    $("list").scrollTop *= height / state.row;
    state.row = height;
  }
  draw();
}

function drawTabs() {
  const press = ([kind, title]) => {
    const made = button(`${title} `, () => show(kind), "tab");
    made.dataset.kind = kind;
    made.append(node("b", {}, "0"));
    return made;
  };
  $("kinds").append(...KINDS.map(press));
}

function start() {
  const { origin } = location;
  $("copy-send").textContent = `posthog-logging send "movie played" --distinct-id user-1 --host ${origin} --api-key phc_local`;
  $("copy-shell").textContent = `export POSTHOG_HOST=${origin} POSTHOG_API_KEY=phc_local`;
  $("copy-python").textContent = `log.addHandler(PostHogHandler("phc_local", host="${origin}"))`;
  useOn({ open, openItem, openTimeline, search, personOf, kept, requestOf: (number) => state.requests.get(number), itemsOf: (ids) => state.items.filter((one) => isEvent(one) && ids.has(one.distinct_id)) });
  usePlanOn({ listName, openNumber });
  drawTabs();
  const clicks = {
    canvas: onRow, close: back, newer: () => { $("list").scrollTop = 0; }, clear: () => post("/api/reset", {}), theme: toggleTheme,
    "chaos-button": () => toggleChaos(), "chaos-off": noChaos, "alarm-off": noChaos, "help-button": () => $("help").showModal(),
    "nothing-clear": () => { show(""); search(""); },
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
  for (const one of document.querySelectorAll("[data-query]")) one.addEventListener("click", () => { show(""); search(one.dataset.query); });
  for (const one of document.querySelectorAll("[data-copy]")) one.addEventListener("click", () => copy(one));
  $("chaos").addEventListener("submit", (event) => {
    event.preventDefault();
    try { setChaos(wantedChaos()); } catch (error) { $("chaos-error").textContent = error.message; }
  });
  $("chaos").elements.share.addEventListener("input", (event) => { event.target.nextElementSibling.value = `${event.target.value} %`; });
  $("query").addEventListener("input", () => search($("query").value));
  $("list").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(measure).observe($("list"));
  document.addEventListener("keydown", onKey);
  dark.addEventListener("change", () => setTheme());
  narrow.addEventListener("change", () => { $("overview").open = !narrow.matches; });
  $("overview").open = !narrow.matches;
  setTheme(kept.theme);
  setInterval(drawOverview, 500);
  connect();
}

start();
