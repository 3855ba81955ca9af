// The consumers of messages as a table. They have no stream: they are fetched while the page is seen.

import { find, make, rebuild, say, show } from "./dom.js";

const PAUSE = 2_000;
const PAUSES = {
  breaker: "the breaker lets no call begin",
  pause: "the dependency asked for a pause",
  bulkhead: "no place is free",
  actor: "the actor that makes its calls has ended",
  draining: "it is being stopped",
};
const LONG_PAUSES = ["breaker", "pause", "actor"];
/** Letters of a state from which it gets a width of its own, so that it does not stand in one word a line. */
const LONG = 24;
const HEADS = ["consumer", "dependency", "state", "waiting", "in flight", "answered", "given back", "dead letters"];

async function load() {
  if (document.hidden) return;
  try {
    const answer = await fetch("api/consumers", { cache: "no-store" });
    if (answer.ok) render(await answer.json());
  } catch {
    // The stream reports a lost server; the consumers are fetched again after it returns.
  }
}

function render(consumers) {
  show(find("consumers"), consumers.length > 0);
  const paused = consumers.filter(({ paused }) => LONG_PAUSES.includes(paused)).length;
  say(find("consumers-note"), paused === 0 ? "" : `${paused} of ${consumers.length} fetch nothing`);
  rebuild(find("consumers-list"), consumers, () => [
    make("thead", {}, make("tr", {}, ...HEADS.map((text) => make("th", { scope: "col", class: HEADS.indexOf(text) > 2 ? "number" : null, text })))),
    make("tbody", {}, ...consumers.map(line)),
  ]);
}

function line(one) {
  const numbers = [one.pending, one.in_flight, one.answered, sum(one.returned)];
  return make("tr", { "data-consumer": one.name },
    make("th", { scope: "row", text: one.name }),
    make("td", { text: one.dependency }),
    make("td", {}, state(one)),
    ...numbers.map((number) => make("td", { class: "number", text: String(number) })),
    make("td", { class: "number", text: dead(one.dead_letters) }));
}

function state({ paused, problem }) {
  if (problem !== null) return make("span", { class: wide(problem), "data-state": "stopped", text: problem });
  if (paused === null) return make("span", { class: "is", "data-state": "running", text: "fetches" });
  const text = `waits: ${PAUSES[paused] ?? paused}`;
  return make("span", { class: wide(text), "data-state": "waiting", text });
}

const wide = (text) => text.length > LONG ? "is long" : "is";

/** The number of dead letters, with their reasons. */
function dead(reasons) {
  const some = Object.entries(reasons).filter(([, count]) => count > 0);
  const parts = some.map(([reason, count]) => `${count} ${reason}`);
  return parts.length === 0 ? "0" : `${sum(reasons)} (${parts.join(", ")})`;
}

function sum(counts) {
  return Object.values(counts).reduce((whole, count) => whole + count, 0);
}

load();
setInterval(load, PAUSE);
document.addEventListener("visibilitychange", load);
