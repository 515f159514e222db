// The plan in the overview: what does not fit, what is not planned, what never came, what came as planned.

import { $, arrange, button, count, node, plural, shown } from "./text.js";

const GROUPS = [["wrong", "Does not fit"], ["unplanned", "Not in the plan"], ["missing", "Never came"], ["fine", "As planned"]];
const MOST_OPEN = 12; // names: a longer group is folded at first

let page; // what this part needs of the page: listName, openNumber
let isStale = true;
let isAsking = false;
let isThere = true; // until the inspector answers that it has no plan

export const usePlanOn = (given) => { page = given; };
export const planChanged = () => { isStale = true; };

// Ask for the plan's counts if something has arrived since; called now and then.
export async function drawPlan() {
  if (!isThere || !isStale || isAsking) return;
  [isStale, isAsking] = [false, true];
  try {
    const answer = await (await fetch("/api/plan")).json();
    isThere = answer.plan !== null;
    if (isThere) show(answer);
  } catch {
    isStale = true; // not reachable: the stream says so, and comes back
  } finally {
    isAsking = false;
  }
}

const groupOf = (one) => (one.misfits ? "wrong" : one.came ? "fine" : one.deprecated ? "" : "missing");

function show({ plan, events, unplanned, others }) {
  const groups = { wrong: [], fine: [], missing: [], "": [], unplanned };
  for (const one of events) groups[groupOf(one)].push(one);
  const expected = events.filter((one) => !one.deprecated);
  const came = expected.filter((one) => one.came);
  $("plan").hidden = false;
  $("plan-name").textContent = shown(plan, 100);
  $("plan-came").textContent = `${count(came.length)} of ${plural(expected.length, "planned event")} came`;
  const made = GROUPS.filter(([id]) => groups[id].length).map(([id, title]) => group(id, title, groups[id]));
  arrange($("plan-groups"), made);
  $("plan-others").textContent = others ? `and ${plural(others, "event")} of further names that are not in the plan` : "";
}

// What is there stays there, so that a press or the keyboard's place is not lost.
const kept = new Map();

function once(key, make) {
  if (!kept.has(key)) kept.set(key, make());
  return kept.get(key);
}

function group(id, title, members) {
  const made = once(id, () => {
    const fold = node("details", { class: `planned ${id}` }, node("summary", {}, `${title} `, node("b")), node("ul"));
    fold.open = members.length <= MOST_OPEN;
    return fold;
  });
  made.querySelector("b").textContent = count(members.length);
  arrange(made.querySelector("ul"), members.map((one) => item(id, one)));
  return made;
}

const nameOf = (one) => node("span", { class: "cut", title: shown(one.description ?? "", 300) }, shown(one.event, 100) || "(no name)");

function item(id, one) {
  const made = once(`${id} ${one.event}`, () => {
    const about = one.nearest ? `did you mean ${shown(one.nearest, 100)}?` : one.deprecated ? `deprecated: ${shown(one.deprecated, 200)}` : "";
    const head = id === "missing" ? node("p") : button("", () => page.listName(one.event), "came");
    head.append(nameOf(one), node("b"));
    return node("li", {}, head, about ? node("p", { class: "soft" }, about) : null, node("ul"));
  });
  const total = one.came ? count(one.came) : "";
  made.querySelector("b").textContent = one.misfits ? `${count(one.misfits)} of ${total}` : total;
  arrange(made.querySelector("ul"), (one.problems ?? []).map((problem, at) => problemOf(`${id} ${one.event} ${at}`, one.event, problem)));
  return made;
}

function problemOf(key, event, { text, count: times, example }) {
  const made = once(key, () => node("li", {}, button("", () => page.openNumber(Number(made.dataset.example), event)), node("span", { class: "soft" })));
  made.dataset.example = example;
  made.querySelector("button").textContent = shown(text, 300);
  made.querySelector("span").textContent = times > 1 ? ` (${count(times)} times)` : "";
  return made;
}
