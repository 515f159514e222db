// The search language: words and field:value, all of which must fit.

import { inJson } from "./text.js";
import { isEvent, levelOf } from "./kinds.js";

const quoted = (text) => (/^".*"?$/s.test(text) ? JSON.parse(`"${text.slice(1).replace(/"$/, "")}"`) : null);

function matcher(text) {
  let exact = null;
  try { exact = quoted(text); } catch { /* a lone backslash: taken as it is */ }
  if (exact !== null) return (value) => value === exact;
  const part = text.toLowerCase();
  return (value) => value.toLowerCase().includes(part);
}

function everything(item) {
  const { event, distinct_id: person, uuid, timestamp, dialect, reason, path, status: code, error, warnings = [], properties, ids = [] } = item;
  const parts = [event, person, uuid, timestamp, dialect, reason, path, code, error, ...warnings, ...ids, JSON.stringify(properties)];
  item.text ??= parts.join("\n").toLowerCase();
  return item.text;
}

function property(properties, path) {
  if (Object.hasOwn(properties, path)) return properties[path];
  return path.split(".").reduce((value, key) => (value && Object.hasOwn(value, key) ? value[key] : undefined), properties);
}

const IS = {
  __proto__: null,
  good: (item) => isEvent(item) && !item.reason,
  bad: (item) => Boolean(item.reason),
  duplicate: (item) => Boolean(item.duplicate),
  warned: (item) => isEvent(item) && item.warnings.length > 0,
  refused: (item) => item.kind === "request",
  ...Object.fromEntries(["event", "log", "exception", "request", "dead"].map((kind) => [kind, (item) => item.kind === kind])),
};

const FIELDS = {
  event: (text) => { const fits = matcher(text); return (item) => isEvent(item) && fits(item.event); },
  person: (text) => { const fits = matcher(text); return (item) => (item.ids ?? (isEvent(item) ? [item.distinct_id] : [])).some(fits); },
  level: (text) => (item) => levelOf(item) === text.toLowerCase(),
  is: (text) => IS[text] ?? (() => false),
  prop: (text) => {
    const [path, ...rest] = text.split("=");
    const fits = rest.length ? matcher(rest.join("=")) : () => true;
    return (item) => {
      const value = isEvent(item) ? property(item.properties, path) : undefined;
      return value !== undefined && fits(inJson(value));
    };
  },
};

export function compiled(query) {
  const tests = (query.match(/(?:[^\s"]|"(?:[^"\\]|\\.)*"?)+/g) ?? []).map((word) => {
    const not = word.length > 1 && word.startsWith("-");
    const [, field, value] = /^-?(event|person|level|is|prop):(.+)$/s.exec(word) ?? [];
    const plain = (not ? word.slice(1) : word).replace(/^"|"$/g, "").toLowerCase();
    const test = field ? FIELDS[field](value) : (item) => everything(item).includes(plain);
    return not ? (item) => !test(item) : test;
  });
  return (item) => tests.every((test) => test(item));
}
