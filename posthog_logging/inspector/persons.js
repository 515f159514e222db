// Who is whom: persons as PostHog makes them of what arrived, each with all of its ids.

import { inJson } from "./text.js";

const OTHER_ID = { __proto__: null, $identify: "$anon_distinct_id", $create_alias: "alias", $merge_dangerously: "alias" };
const IN_VAIN = /^(cannot_merge|alias to itself)|is dropped/;

const byId = new Map();
let sorted = null; // the persons in order, until one of them changes

export function forgetPersons() {
  byId.clear();
  sorted = null;
}

export const personOf = (id) => byId.get(id) ?? { ids: [id], total: 0, refused: 0, at: 0 };

function known(id) {
  if (!byId.has(id)) byId.set(id, { ids: [id], total: 0, refused: 0, at: 0, kind: "person", key: -byId.size - 1 });
  return byId.get(id);
}

// Take in one event: it is its person's, and it may make one person of two.
export function learn(event) {
  if (!event.distinct_id || event.properties.$process_person_profile === false) return;
  sorted = null;
  const person = known(event.distinct_id);
  person.total += 1;
  person.at = event.received_at;
  delete person.text; // what the search knew of it
  const other = event.properties[OTHER_ID[event.event]];
  if (event.reason || other === undefined || other === "") return;
  if (event.warnings.some((text) => IN_VAIN.test(text))) person.refused += 1;
  else merge(known(inJson(other)), person);
}

function merge(source, target) {
  if (source === target) return;
  target.ids.push(...source.ids);
  target.total += source.total;
  target.refused += source.refused;
  for (const id of source.ids) byId.set(id, target);
}

// The persons, the one that was seen last at the end, as in every list here.
export function persons() {
  sorted ??= [...new Set(byId.values())].filter((person) => person.total > 0).sort((one, other) => one.at - other.at || one.key - other.key);
  return sorted;
}
