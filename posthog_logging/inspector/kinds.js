// What arrived, as the page sees it: its kind, its level, its title, and what is worth reading first.

import { inJson, node, shown, span } from "./text.js";

const MOST_SHOWN = 8; // properties of one row

export const KINDS = [
  ["", "All"], ["event", "Events"], ["exception", "Exceptions"], ["log", "Logs"], ["person", "People"],
  ["request", "Failed requests"], ["dead", "Dead letters"],
];

export const isEvent = (item) => "distinct_id" in item;

// Events, logs and exceptions arrive; a request is listed where nothing of it was kept.
export function kindOf(item) {
  if (!isEvent(item)) return item.ids ? "person" : "request";
  if (item.reason.startsWith("dead letter")) return "dead";
  if (item.dialect === "posthog-logs") return "log";
  return item.event === "$exception" ? "exception" : "event";
}

export const sentAt = (event) => Date.parse(event.timestamp);
export const arrivedAt = (item) => (item.received_at ?? item.at) * 1000;
export const delayOf = (event) => Math.round(arrivedAt(event) - sentAt(event));

const LEVELS = [[50, "fatal"], [40, "error"], [30, "warn"], [20, "info"], [10, "debug"], [0, "trace"]];

export function levelOf(item) {
  if (item.kind === "log") {
    const level = item.properties.$severity;
    return typeof level === "number" ? LEVELS.find(([least]) => level >= least)?.[1] ?? "trace" : inJson(level ?? "info");
  }
  return item.kind === "exception" ? inJson(item.properties.$exception_level ?? "error").slice(0, 10) : "";
}

// Exceptions: the first entry is what was caught, the last one the root cause.
export function entriesOf(event) {
  const list = event.properties.$exception_list;
  const entries = Array.isArray(list) ? list.filter((one) => one && typeof one === "object") : [];
  if (entries.length) return entries;
  const { $exception_type: type, $exception_message: value } = event.properties;
  return [{ type: type ?? "exception", value: value ?? "" }];
}

export const framesOf = (entry) => {
  const frames = entry.stacktrace?.frames ?? entry.frames;
  return Array.isArray(frames) ? frames.filter((one) => one && typeof one === "object").reverse() : []; // the latest first
};

export const placeOf = (frame) => `${inJson(frame.filename ?? frame.abs_path ?? "?")}${frame.lineno ? `:${inJson(frame.lineno)}` : ""}`;

export function titleOf(item) {
  if (item.kind === "person") return item.ids[0];
  if (!isEvent(item)) return item.path;
  if (item.kind === "exception") return inJson(entriesOf(item)[0].type ?? "") || "(no type)";
  return item.event || (item.kind === "log" ? "(no message)" : "(no name)");
}

// What is worth most comes first: what the program gave, then the names of PostHog and of
// OpenTelemetry, and where in the code it was at the very end.
const LATE = /^(logger|service|deployment|telemetry|library|os|host|process|thread|http|url|exception)\./;
const CAMPAIGN = /^utm_/;
const rank = (name) => (/^code\./.test(name) ? 3 : LATE.test(name) ? 2 : name.startsWith("$") || CAMPAIGN.test(name) ? 1 : 0);
export const ordered = (properties) => Object.entries(properties).sort(([one], [other]) => rank(one) - rank(other));
export const isOwn = (name) => rank(name) === 0;

const pair = (name, value) => [`${shown(name, 40)} `, node("b", {}, shown(inJson(value), 60))];
const pairs = (values) => Object.entries(values ?? {}).slice(0, MOST_SHOWN).flatMap(([name, value]) => pair(name, value));

function ofPerson({ $anon_distinct_id: visitor, $set, $set_once: once, ...rest }, id) {
  const merge = visitor ? [node("b", {}, shown(`${inJson(visitor)} → ${id}`, 120)), " "] : [];
  return [...merge, ...pairs($set), ...pairs(once), ...plain(rest)];
}

const plain = (properties) => ordered(properties).filter(([name]) => isOwn(name)).slice(0, MOST_SHOWN)
  .flatMap(([name, value]) => pair(name, value));

// The events of PostHog's own say in other properties what they are about.
const SUMMARIES = {
  __proto__: null, // an event may be called `constructor`
  $identify: (event) => ofPerson(event.properties, event.distinct_id),
  $set: (event) => ofPerson(event.properties, event.distinct_id),
  $create_alias: ({ distinct_id: id, properties }) => [node("b", {}, shown(`${inJson(properties.alias)} → ${id}`, 200))],
  $groupidentify: ({ properties }) => [...pair(properties.$group_type, properties.$group_key), ...pairs(properties.$group_set)],
  $http_log: ({ properties }) => [node("b", {}, shown(answered(properties), 200))],
  $pageview: ({ properties }) => [node("b", {}, shown(inJson(properties.$current_url ?? ""), 200)), " ", ...plain(properties)],
  $screen: ({ properties }) => [node("b", {}, shown(inJson(properties.$screen_name ?? ""), 100)), " ", ...plain(properties)],
};

function answered({ method, $pathname: path, status_code: status, duration_ms: took }) {
  const end = [status === undefined ? "" : `answered ${inJson(status)}`, typeof took === "number" ? `in ${span(took)}` : ""].filter(Boolean).join(" ");
  return [inJson(method ?? ""), inJson(path ?? ""), end].filter(Boolean).join(" ");
}

function ofException(event) {
  const [first] = entriesOf(event);
  const frame = framesOf(first).find((one) => one.in_app) ?? framesOf(first)[0];
  const where = frame ? [`  ${shown(frame.function ?? "", 60)} `, shown(placeOf(frame), 100)] : [];
  return [node("b", {}, shown(inJson(first.value ?? ""), 200)), ...where];
}

function ofLog(event) {
  const { properties, distinct_id: id } = event;
  const { "exception.type": type, "exception.message": message } = properties;
  const raised = type ? [node("b", { class: "raised" }, shown(`${inJson(type)}: ${inJson(message ?? "")}`, 160))] : [];
  const logger = properties["logger.name"] ? [shown(inJson(properties["logger.name"]), 60)] : [];
  return [...raised, ...(id ? pair("person", id) : []), ...plain(properties), ...logger];
}

function ofPersons({ ids, refused }) {
  const others = ids.slice(1, 6).join(", ");
  const known = others ? ["also ", node("b", {}, shown(others, 200)), ids.length > 6 ? ` and ${ids.length - 6} more` : ""] : [];
  return [...known, refused ? node("b", { class: "raised" }, refused === 1 ? "a merge was refused" : `${refused} merges were refused`) : ""];
}

// The few words of a row that say what an item is about.
export function summaryOf(item) {
  if (item.reason) return [shown(item.reason, 300)];
  if (item.kind === "person") return ofPersons(item);
  if (item.kind === "exception") return ofException(item);
  if (item.kind === "log") return ofLog(item);
  return SUMMARIES[item.event]?.(item) ?? plain(item.properties);
}

export function notesOf(event) {
  const found = event.duplicate ? ["duplicate"] : [];
  if (event.attempt > 1) found.push(`attempt ${event.attempt}`);
  if (event.warnings.length) found.push(event.warnings.length === 1 ? "1 warning" : `${event.warnings.length} warnings`);
  return found;
}
