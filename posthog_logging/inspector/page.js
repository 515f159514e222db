// The inspector's page. What arrives is only ever shown as text: no string becomes markup.

const KEPT = 20000; // items, as many as the inspector remembers: good and bad
const ROW = 44; // pixels, as in page.css
const SPARE = 8; // rows above and below what is seen
const SECONDS = 60;
const BARS = 12;
const IN_TIMELINE = 200;
const MOST_JSON = 1500; // values shown of one event
const LONGEST = 4000; // characters shown of one text

const state = {
  items: [], view: [], fits: () => true, requests: new Map(), names: new Map(), seconds: new Map(),
  counts: {}, chaos: null, generation: "", lastEvent: 0, lastRequest: 0,
  chosen: null, open: null, unseen: 0, lastKey: 0, heard: { all: 0, bad: 0 },
};
const pending = [];
const rows = new Map();
// Where the browser forbids storage, the theme lasts as long as the page.
const kept = (() => { try { return localStorage; } catch { return {}; } })();
const narrow = matchMedia("(max-width: 700px)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const $ = (id) => document.getElementById(id);

// Building blocks.

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function button(text, act, kind = "link") {
  const made = node("button", { class: kind, type: "button" }, text);
  made.addEventListener("click", act);
  return made;
}

// Characters that reorder or hide what stands beside them are spelled out.
const TRICKS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const spelled = (text) => text.replace(TRICKS, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

function shown(text, most = LONGEST) {
  const whole = String(text);
  return spelled(whole.length > most ? `${whole.slice(0, most)}… ${whole.length - most} more characters` : whole);
}

function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
}

const two = (number, width = 2) => String(number).padStart(width, "0");
const plural = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;

function clock(seconds) {
  const at = new Date(seconds * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
}

function span(milliseconds) {
  const size = Math.abs(milliseconds);
  const [number, unit] = size < 1000 ? [size, "ms"] : size < 60e3 ? [size / 1e3, "s"]
    : size < 3600e3 ? [size / 60e3, "min"] : size < 864e5 ? [size / 3600e3, "h"] : [size / 864e5, "d"];
  return `${unit === "ms" || number >= 100 ? Math.round(number) : number.toFixed(1)} ${unit}`;
}

const moment = (event) => Date.parse(event.timestamp);
const late = (event) => Math.round(event.received_at * 1000 - moment(event));
const isEvent = (item) => "distinct_id" in item;

// The search language: words and field:value, all of which must fit.

const quoted = (text) => (/^".*"?$/s.test(text) ? JSON.parse(`"${text.slice(1).replace(/"$/, "")}"`) : null);

function matcher(text) {
  let exact = null;
  try { exact = quoted(text); } catch { /* a lone backslash: taken as it is */ }
  if (exact !== null) return (value) => value === exact;
  const part = text.toLowerCase();
  return (value) => value.toLowerCase().includes(part);
}

function everything(item) {
  const { event, distinct_id: person, uuid, timestamp, dialect, reason, path, status: code, error, warnings = [], properties } = item;
  const parts = [event, person, uuid, timestamp, dialect, reason, path, code, error, ...warnings, JSON.stringify(properties)];
  item.text ??= parts.join("\n").toLowerCase();
  return item.text;
}

function property(properties, path) {
  if (Object.hasOwn(properties, path)) return properties[path];
  return path.split(".").reduce((value, key) => (value && Object.hasOwn(value, key) ? value[key] : undefined), properties);
}

const IS = {
  good: (item) => isEvent(item) && !item.reason,
  bad: (item) => Boolean(item.reason),
  duplicate: (item) => Boolean(item.duplicate),
  warned: (item) => isEvent(item) && item.warnings.length > 0,
  refused: (item) => !isEvent(item),
};

const FIELDS = {
  event: (text) => { const fits = matcher(text); return (item) => isEvent(item) && fits(item.event); },
  person: (text) => { const fits = matcher(text); return (item) => isEvent(item) && fits(item.distinct_id); },
  is: (text) => IS[text] ?? (() => false),
  prop: (text) => {
    const [path, ...rest] = text.split("=");
    const fits = rest.length ? matcher(rest.join("=")) : () => true;
    return (item) => {
      const value = isEvent(item) ? property(item.properties, path) : undefined;
      return value !== undefined && fits(typeof value === "string" ? value : JSON.stringify(value));
    };
  },
};

function compiled(query) {
  const tests = (query.match(/(?:[^\s"]|"(?:[^"\\]|\\.)*"?)+/g) ?? []).map((word) => {
    const not = word.length > 1 && word.startsWith("-");
    const [, field, value] = /^-?(event|person|is|prop):(.+)$/s.exec(word) ?? [];
    const plain = (not ? word.slice(1) : word).replace(/^"|"$/g, "").toLowerCase();
    const test = field ? FIELDS[field](value) : (item) => everything(item).includes(plain);
    return not ? (item) => !test(item) : test;
  });
  return (item) => tests.every((test) => test(item));
}

function search(query) {
  $("query").value = query;
  state.fits = compiled(query);
  state.view = state.items.filter(state.fits);
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
  const dropped = forget();
  const added = state.view.length + dropped - before;
  const list = $("list");
  if (list.scrollTop > ROW && added > 0) {
    list.scrollTop += added * ROW; // what is looked at stays where it is
    state.unseen += added;
  }
  if (state.open && fresh.some((item) => item.distinct_id === state.open.person)) prolong(state.open.person);
}

function prolong(person) {
  const held = [...$("detail-body").querySelectorAll("button")].indexOf(document.activeElement);
  openTimeline(person);
  if (held >= 0) $("detail-body").querySelectorAll("button")[held].focus({ preventScroll: true });
}

function accept(message) {
  if (message.generation !== state.generation) begin(message.generation);
  Object.assign(state, { counts: message.counts, chaos: message.chaos });
  return message.arrived.filter(remember);
}

function begin(generation) {
  Object.assign(state, { generation, items: [], view: [], lastEvent: 0, lastRequest: 0, chosen: null, unseen: 0 });
  for (const map of [state.requests, state.names, state.seconds, rows]) map.clear();
  close();
}

function remember(item) {
  if (isEvent(item)) {
    state.lastEvent = item.number;
    count(state.names, item.event, 1);
    count(state.seconds, Math.floor(item.received_at), 1);
    state.heard.all += 1;
    state.heard.bad += item.reason ? 1 : 0;
  } else {
    state.lastRequest = item.number;
    state.requests.set(item.number, item);
    if (item.kept) return false; // its events tell of it
  }
  item.key = ++state.lastKey;
  state.items.push(item);
  if (state.fits(item)) state.view.push(item);
  return true;
}

function count(map, key, change) {
  const number = (map.get(key) ?? 0) + change;
  if (number > 0) map.set(key, number); else map.delete(key);
}

function forget() {
  if (state.items.length <= KEPT) return 0;
  for (const old of state.items.splice(0, state.items.length - KEPT)) if (isEvent(old)) count(state.names, old.event, -1);
  for (const number of state.requests.keys()) {
    if (state.requests.size <= KEPT) break;
    state.requests.delete(number);
  }
  const gone = place(state.items[0].key);
  state.view.splice(0, gone);
  return gone;
}

// Where in the view a key is, or would be.
function place(key) {
  let [low, high] = [0, state.view.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (state.view[middle].key < key) low = middle + 1; else high = middle;
  }
  return low;
}

// The list: only the rows that are seen exist.

function draw() {
  const { view, items } = state;
  const list = $("list");
  $("empty").hidden = items.length > 0;
  $("nothing").hidden = view.length > 0 || items.length === 0;
  $("nothing-query").textContent = $("query").value;
  const canvas = $("canvas");
  canvas.style.height = `${view.length * ROW}px`;
  if (list.scrollTop <= ROW) state.unseen = 0;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(view.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  const seen = [];
  for (let at = first; at < last; at += 1) seen.push(row(view[view.length - 1 - at], at));
  canvas.style.paddingTop = `${first * ROW}px`;
  arrange(canvas, seen);
  const kept = new Set(seen);
  for (const [key, one] of rows) if (!kept.has(one)) rows.delete(key);
  list.setAttribute("aria-rowcount", view.length);
  const isThere = state.chosen !== null && rows.has(state.chosen);
  if (isThere) list.setAttribute("aria-activedescendant", `row-${state.chosen}`);
  else list.removeAttribute("aria-activedescendant");
  drawCounts();
}

function drawCounts() {
  const { view, items, counts, unseen } = state;
  for (const one of document.querySelectorAll("[data-count]")) {
    const number = counts[one.dataset.count] ?? 0;
    one.textContent = number.toLocaleString("en");
    const noun = one.nextElementSibling;
    if (noun) noun.textContent = noun.textContent.replace(/s?$/, number === 1 ? "" : "s");
  }
  document.querySelector('[data-query="is:bad"]').classList.toggle("some", counts.bad > 0);
  $("found").textContent = view.length === items.length ? "" : `${view.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
  $("newer").hidden = !unseen;
  $("newer").textContent = `${unseen} newer`;
  document.title = counts.total ? `Inspector (${counts.total})` : "Inspector";
  const text = state.chaos && chaosText(state.chaos);
  $("alarm").hidden = !text;
  if (text && $("alarm-text").textContent !== text) $("alarm-text").textContent = text;
}

function row(item, at) {
  let made = rows.get(item.key);
  if (!made) {
    made = (isEvent(item) ? eventRow : requestRow)(item);
    made.id = `row-${item.key}`;
    made.dataset.key = item.key;
    if (Date.now() / 1000 - (item.received_at ?? item.at) < 1) made.classList.add("fresh");
    rows.set(item.key, made);
  }
  made.setAttribute("aria-rowindex", at + 1);
  made.setAttribute("aria-selected", item.key === state.chosen);
  made.classList.toggle("chosen", item.key === state.chosen);
  return made;
}

const cell = (kind, ...inside) => node("div", { class: kind, role: "gridcell" }, ...inside);

function eventRow(event) {
  const mark = node("div", { class: "mark", role: "gridcell", "aria-label": event.reason ? "bad" : "good" });
  const who = node("span", { title: "Show this person’s timeline" }, shown(event.distinct_id, 200));
  return node("div", { class: event.reason ? "row is-bad" : "row", role: "row" },
    node("time", { role: "gridcell" }, clock(event.received_at)), mark,
    cell("name cut", shown(event.event, 200) || "(no name)"), cell("who cut", who),
    cell("rest", node("span", { class: "what cut" }, ...(event.reason ? [shown(event.reason, 300)] : preview(event.properties))),
      node("span", { class: "notes" }, ...notes(event).map((text) => node("span", { class: "note" }, text)))),
    cell("late", Number.isNaN(late(event)) ? "" : span(Math.max(0, late(event)))));
}

function requestRow(request) {
  const events = request.events ? `${plural(request.events, "event")}, none kept` : "nothing kept";
  return node("div", { class: "row is-request", role: "row" },
    node("time", { role: "gridcell" }, clock(request.at)),
    node("div", { class: "mark", role: "gridcell", "aria-label": "request" }),
    cell("name cut", shown(request.path, 200)), cell("who cut", `request ${request.number}`),
    cell("rest", node("span", { class: "what cut" }, `${status(request)}: ${events}`)), cell("late"));
}

function preview(properties) {
  const own = Object.entries(properties).filter(([key]) => !key.startsWith("$")).slice(0, 5);
  return own.flatMap(([key, value]) => [
    `${shown(key, 40)} `, node("b", {}, shown(typeof value === "string" ? value : JSON.stringify(value), 60)),
  ]);
}

function notes(event) {
  const found = event.duplicate ? ["duplicate"] : [];
  if (event.attempt > 1) found.push(`attempt ${event.attempt}`);
  if (event.warnings.length) found.push(plural(event.warnings.length, "warning"));
  return found;
}

const status = (request) => (request.status ? `${request.status} ${shown(request.error, 200)}`.trim() : "no answer");

function choose(at) {
  const { view } = state;
  if (!view.length) return;
  const index = Math.min(Math.max(at, 0), view.length - 1);
  state.chosen = view[view.length - 1 - index].key;
  const list = $("list");
  const top = index * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  draw();
  if (state.open) openItem(view[view.length - 1 - index]);
}

const chosenItem = () => (state.chosen === null ? undefined : state.view[place(state.chosen)]);
const chosenAt = () => (state.chosen === null ? -1 : state.view.length - 1 - place(state.chosen));

// The detail: one event, one request, or one person.

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
  if (isEvent(item)) openEvent(item); else openRequest(item);
  $("detail").scrollTop = 0;
  draw();
}

function facts(pairs) {
  const said = pairs.filter(([, value]) => value !== "" && value !== undefined);
  return node("dl", { class: "facts" }, ...said.map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, value))));
}

function openEvent(event) {
  const request = state.requests.get(event.request_number);
  const later = node("div");
  const attempts = node("span", {}, String(event.attempt));
  const behind = late(event);
  open({ item: event.key },
    node("h2", {}, shown(event.event) || "(no name)"),
    event.reason ? node("p", { class: "verdict no" }, `Bad: ${shown(event.reason)}`) : node("p", { class: "verdict ok" }, "Good"),
    ...event.warnings.map((text) => node("p", { class: "verdict hm" }, shown(text))),
    ...(event.duplicate ? [node("p", { class: "verdict hm" }, "Duplicate: this uuid had been accepted before")] : []),
    facts([
      ["Person", button(shown(event.distinct_id) || "(none)", () => openTimeline(event.distinct_id))],
      ["Time", shown(event.timestamp)],
      ["Arrived", new Date(event.received_at * 1000).toISOString()],
      ["Latency", Number.isNaN(behind) ? "" : behind < 0 ? `${span(behind)} before its time` : span(behind)],
      ["UUID", node("span", { class: "mono" }, shown(event.uuid))],
    ]),
    node("h3", {}, "Where it came from"),
    facts([
      ["Dialect", event.dialect], ["Path", request ? shown(request.path) : ""],
      ["Request", `${event.request_number}${request ? `, answered ${status(request)}, ${plural(request.events, "event")}` : ""}`],
      ["Attempt", attempts],
      ["Compression", request ? shown(request.coding) || "none" : ""],
      ["Bytes", request ? `${request.bytes.toLocaleString("en")}${request.coding ? `, unpacked ${request.size.toLocaleString("en")}` : ""}` : ""],
    ]),
    later);
  complete(event, later, attempts);
}

async function complete(event, place, attempts) {
  const answer = await fetch(`/api/event?number=${event.number}`);
  if (!answer.ok) return;
  const told = JSON.parse(await answer.text(), exactly);
  if (told.requests.length > 1) {
    const all = told.requests.map((number) => state.requests.get(number)).filter(Boolean);
    attempts.append(`: ${all.map((one) => `request ${one.number} (${one.status || "no answer"})`).join(", ")}`);
  }
  place.append(node("h3", {}, "Event"), json(told.event.raw));
  if (told.request) place.append(node("h3", {}, "Request’s headers"), json(told.request.headers));
}

// Numbers that a double cannot hold are shown as they came, where the browser tells them.
const exactly = (key, value, context) =>
  (typeof value === "number" && /^-?\d{16,}$/.test(context?.source ?? "") ? BigInt(context.source) : value);

function openRequest(request) {
  open({ item: request.key },
    node("h2", {}, `Request ${request.number}`),
    node("p", { class: "verdict hm" }, status(request)),
    facts([
      ["Path", shown(request.path)], ["Dialect", request.dialect], ["Arrived", new Date(request.at * 1000).toISOString()],
      ["Events", request.events ? `${request.events}, none of them kept` : ""],
      ["Compression", shown(request.coding) || "none"],
      ["Bytes", `${request.bytes.toLocaleString("en")}, unpacked ${request.size.toLocaleString("en")}`],
    ]));
}

function openTimeline(person) {
  const all = state.items.filter((item) => item.distinct_id === person);
  const when = (event) => moment(event) || event.received_at * 1000;
  all.sort((one, other) => when(one) - when(other));
  const latest = all.slice(-IN_TIMELINE);
  const steps = latest.map((event, at) => {
    const gap = at ? `${span(when(event) - when(latest[at - 1]))} later` : "first";
    return node("li", event.reason ? { class: "is-bad" } : {}, node("div", { class: "mark" }),
      button(shown(event.event, 200) || "(no name)", () => openItem(event)),
      node("p", {}, [clock(when(event) / 1000), gap, shown(event.reason, 200), ...notes(event)].filter(Boolean).join(" · ")));
  });
  open({ person },
    node("h2", {}, shown(person) || "(no person)"),
    node("p", { class: "soft" }, plural(all.length, "event"), all.length > steps.length ? `, the last ${steps.length} of them here. ` : ". ",
      button("Show only these", () => search(`person:${JSON.stringify(person)}`))),
    node("ol", { class: "line-of", "aria-label": "Timeline" }, ...steps));
}

function json(value) {
  const pre = node("pre", { class: "json", tabindex: "0", "aria-label": "JSON" });
  writeJson(pre, value, { left: MOST_JSON }, "\n");
  return pre;
}

function writeJson(out, value, budget, line) {
  if (value === null || typeof value !== "object") {
    const text = typeof value === "bigint" ? String(value) : JSON.stringify(value);
    out.append(node("span", { class: typeof value === "string" ? "s" : "n" }, shown(text)));
    return;
  }
  const isList = Array.isArray(value);
  const members = Object.entries(value);
  out.append(isList ? "[" : "{");
  for (const [at, [name, member]] of members.entries()) {
    if (budget.left <= 0) {
      out.append(`${line}  `, node("span", { class: "c" }, `… ${members.length - at} more, in the export`));
      break;
    }
    budget.left -= 1;
    out.append(`${line}  `);
    if (!isList) out.append(node("span", { class: "k" }, shown(JSON.stringify(name), 300)), ": ");
    writeJson(out, member, budget, `${line}  `);
    if (at < members.length - 1) out.append(",");
  }
  out.append(members.length ? line : "", isList ? "]" : "}");
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
  $("rate-now").textContent = Math.max(rates[SECONDS - 1], rates[SECONDS - 2]).toLocaleString("en");
  $("rate-peak").textContent = peak ? `peak ${peak.toLocaleString("en")}` : "the last minute";
  drawBars();
  announce();
}

function drawBars() {
  const ranked = [...state.names].sort((one, other) => other[1] - one[1]);
  const top = ranked.slice(0, BARS);
  for (const name of bars.keys()) if (!top.some(([other]) => other === name)) bars.delete(name);
  arrange($("names"), top.map(([name, number]) => bar(name, number, top[0][1])));
  $("names-more").textContent = ranked.length > BARS ? `and ${ranked.length - BARS} more names` : "";
}

function bar(name, number, most) {
  if (!bars.has(name)) {
    const press = button("", () => search(`event:${JSON.stringify(name)}`), "bar");
    press.append(node("span", {}, shown(name, 100) || "(no name)"), node("b"), node("i"));
    bars.set(name, node("li", {}, press));
  }
  const made = bars.get(name);
  made.querySelector("b").textContent = number.toLocaleString("en");
  made.querySelector("i").style.setProperty("--share", `${(100 * number) / most}%`);
  return made;
}

let lastSaid = 0;
function announce() {
  const { all, bad } = state.heard;
  if (!all || Date.now() - lastSaid < 3000) return;
  lastSaid = Date.now();
  state.heard = { all: 0, bad: 0 };
  $("said").textContent = `${plural(all, "new event")}${bad ? `, ${bad} bad` : ""}`;
}

// Chaos, clearing, copying, the theme.

const post = (path, value) => fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

function wantedChaos() {
  const { status: code, retry, latency, reset, verdict, named, share } = $("chaos").elements;
  const answer = { status: Number(code.value), rate: Number(share.value) / 100 };
  if (retry.value) answer.headers = { "Retry-After": retry.value };
  if (latency.value) answer.delay = Number(latency.value) / 1000;
  if (reset.value) answer.reset_after = Number(reset.value);
  const names = named.value.split(",").map((name) => name.trim()).filter(Boolean);
  if (verdict.value) answer.verdicts = Object.fromEntries(names.map((name) => [name, verdict.value === "missing" ? null : verdict.value]));
  if (verdict.value && !names.length) throw new Error("A verdict needs the names of the events that get it.");
  return answer;
}

async function setChaos(always) {
  const answer = await post("/api/answers", { always });
  const told = await answer.json();
  $("chaos-error").textContent = told.error ?? "";
  if (!answer.ok) return;
  state.chaos = told.always && Object.keys(told.always).length ? told.always : null;
  drawCounts();
  $("said").textContent = state.chaos ? "Chaos is on" : "Chaos is off";
}

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
  if (isOpen) $("chaos").elements.status.focus();
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
  if (isEvent(item) && event.target.closest(".who span")) { openTimeline(item.distinct_id); draw(); } else openItem(item);
}

function start() {
  const { origin } = location;
  $("copy-shell").textContent = `export POSTHOG_HOST=${origin} POSTHOG_API_KEY=phc_local`;
  $("copy-python").textContent = `log.addHandler(PostHogHandler("phc_local", host="${origin}"))`;
  const clicks = {
    canvas: onRow, close: back, newer: () => { $("list").scrollTop = 0; }, clear: () => post("/api/reset", {}), theme: toggleTheme,
    "chaos-button": () => toggleChaos(), "chaos-off": () => setChaos(null), "alarm-off": () => setChaos(null), "help-button": () => $("help").showModal(),
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
  for (const one of document.querySelectorAll("[data-query]")) one.addEventListener("click", () => search(one.dataset.query));
  for (const one of document.querySelectorAll("[data-copy]")) one.addEventListener("click", () => copy(one));
  $("chaos").addEventListener("submit", (event) => {
    event.preventDefault();
    try { setChaos(wantedChaos()); } catch (error) { $("chaos-error").textContent = error.message; }
  });
  $("chaos").elements.share.addEventListener("input", (event) => { event.target.nextElementSibling.value = `${event.target.value} %`; });
  $("query").addEventListener("input", () => search($("query").value));
  $("list").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(draw).observe($("list"));
  document.addEventListener("keydown", onKey);
  dark.addEventListener("change", () => setTheme());
  narrow.addEventListener("change", () => { $("overview").open = !narrow.matches; });
  $("overview").open = !narrow.matches;
  setTheme(kept.theme);
  setInterval(drawOverview, 500);
  connect();
}

start();
