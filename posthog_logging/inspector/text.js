// How the page writes: elements, texts that cannot trick the eye, numbers, times and JSON.
// What arrives is only ever shown as text: no string becomes markup.

const LONGEST = 4000; // characters shown of one text
const MOST_JSON = 1500; // values shown of one event

export const $ = (id) => document.getElementById(id);

export function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(text, act, kind = "link") {
  const made = node("button", { class: kind, type: "button" }, text);
  made.addEventListener("click", act);
  return made;
}

// Characters that reorder or hide what stands beside them are spelled out.
const TRICKS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const spelled = (text) => text.replace(TRICKS, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

export function shown(text, most = LONGEST) {
  const whole = inJson(text);
  return spelled(whole.length > most ? `${whole.slice(0, most)}… ${whole.length - most} more characters` : whole);
}

// A value as text. Not `String(value)`: an object that arrived as {"toString": 1} has no text.
export const inJson = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");

// Put exactly *wanted* into *parent*, and leave alone what is there already.
export function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
}

export const count = (number) => number.toLocaleString("en");
export const plural = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

const DAY = 864e5;

// The time of day in UTC, as it is sent and as `posthog-logging tail` prints it.
export function clock(milliseconds) {
  if (Number.isNaN(milliseconds)) return "";
  const whole = new Date(milliseconds).toISOString();
  const isToday = Math.floor(milliseconds / DAY) === Math.floor(Date.now() / DAY);
  return isToday ? whole.slice(11, 23) : whole.slice(0, 16).replace("T", " ");
}

export function span(milliseconds) {
  const size = Math.abs(milliseconds);
  const [number, unit] = size < 1000 ? [size, "ms"] : size < 60e3 ? [size / 1e3, "s"]
    : size < 3600e3 ? [size / 60e3, "min"] : size < DAY ? [size / 3600e3, "h"] : [size / DAY, "d"];
  return `${unit === "ms" || number >= 100 ? Math.round(number) : number.toFixed(1)} ${unit}`;
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return node("dl", { class: "facts" }, ...known.map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, value))));
}

export function json(value) {
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

// Numbers that a double cannot hold are shown as they came, where the browser knows them.
export const exactly = (key, value, context) =>
  (typeof value === "number" && /^-?\d{16,}$/.test(context?.source ?? "") ? BigInt(context.source) : value);
