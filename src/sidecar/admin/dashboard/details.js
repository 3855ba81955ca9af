// The details of one dependency, below its line. They are built when they are first shown: a hundred
// rows have none.

import { Chart } from "./chart.js";
import { arrange, make, rebuild, say, set, show } from "./dom.js";
import { count, latency, sentence, share, short, time, wait, word } from "./words.js";

/** Operations with their texts. */
export const OPERATIONS = {
  check: "Check now",
  close: "Close",
  restart: "Restart",
  open: "Open",
  disable: "Disable",
  shadow: "Shadow",
  reset: "Reset",
};

/** Operations that may end what is wrong. */
export const REMEDIES = new Set(["check", "close", "restart"]);

/** Operations that make sense for a dependency, the most likely one first. */
export function operations({ view }) {
  const rest = ["open", "disable", "shadow", "reset", "restart"];
  if (view.parked) return ["restart", ...rest.filter((one) => one !== "restart")];
  if (view.override) return ["close", ...rest];
  if (view.state !== "closed") return ["check", "close", ...rest];
  return rest;
}

export class Details {
  /** `does`: `order(name, operation)` and `fetchPast(name, span)`. */
  constructor(name, id, does) {
    this.name = name;
    this.notes = make("ul", { class: "notes" });
    this.chart = new Chart(name, (span) => does.fetchPast(name, span));
    this.inFlight = new Gauge("In flight");
    this.queue = new Gauge("Queue");
    this.facts = make("dl", { class: "facts" });
    [this.workersPart, this.workersNote, this.workers] = part("ul");
    [this.movesPart, this.movesNote, this.moves] = part("ol");
    [this.keysPart, this.keysNote, this.keys] = part("ul");
    [this.toolsPart, this.toolsNote, this.tools] = part("ul");
    this.links = make("p", { class: "links" });
    this.buttons = new Map(Object.entries(OPERATIONS).map(([operation, text]) => [operation, make("button", { type: "button", class: "order", "data-order": operation,
      onclick: () => does.order(name, operation) }, text, make("span", { class: "hidden", text: ` ${name}` }))]));
    this.orders = make("div", { class: "orders", role: "group", "aria-label": `Operations on ${name}` }, ...this.buttons.values());
    this.node = make("div", { class: "body", id },
      this.notes,
      this.chart.node,
      make("div", { class: "gauges" }, this.inFlight.node, this.queue.node),
      this.facts,
      this.workersPart,
      this.movesPart,
      this.keysPart,
      this.toolsPart,
      this.links,
      this.orders);
  }

  update(one, world) {
    const { view } = one;
    const notes = notesOf(one);
    rebuild(this.notes, notes, () => notes.map((text) => make("li", { text })));
    show(this.notes, notes.length > 0);
    this.chart.show(one, one.detail.get(this.chart.span), world.marks(this.name), world);
    this.inFlight.show(view.in_flight, view.limits.concurrent, view.limits.max_concurrent);
    this.queue.show(view.queued, view.limits.max_queue, view.limits.max_queue);
    const facts = factsOf(view);
    rebuild(this.facts, facts, () => facts.map(([term, text]) => make("div", {}, make("dt", { text: term }), make("dd", { text }))));
    this.#workers(view.workers);
    this.#moves(one);
    this.#keys(view);
    this.#tools(view.tools ?? []);
    this.#links(view);
    this.#orders(one);
  }

  #workers(workers) {
    const running = workers.filter((one) => one.state === "running").length;
    const restarts = workers.reduce((sum, one) => sum + one.restarts, 0);
    const text = workers.length === 0 ? "No workers" : `${running} of ${count(workers.length, "worker", "workers")} running, ${count(restarts, "restart", "restarts")}`;
    say(this.workersNote, text);
    set(this.workersNote, "data-tone", running < workers.length ? "bad" : "plain");
    const lines = workers.map((one) => [one.state, workerLine(one), one.last_exit]);
    rebuild(this.workers, lines, () => lines.map(([state, line, exit]) => make("li", { "data-state": state }, line,
      ...(exit ? [make("span", { class: "exit", text: `Last exit: ${exit}` })] : []))));
  }

  #moves(one) {
    const moves = one.moves.slice(-12).reverse();
    say(this.movesNote, one.moves.length === 0 ? "No transitions yet" : count(one.moves.length, "transition", "transitions"));
    rebuild(this.moves, moves.map((move) => move.id), () => moves.map((move) => make("li", {},
      make("time", { datetime: move.time, text: time(move.time) }), ` ${move.message}`)));
  }

  #tools(tools) {
    show(this.toolsPart, tools.length > 0);
    say(this.toolsNote, `${count(tools.length, "tool", "tools")} called most`);
    const lines = tools.map((tool) => [tool.failed > 0 ? "failing" : "running", toolLine(tool)]);
    rebuild(this.tools, lines, () => lines.map(([state, text]) => make("li", { "data-state": state, text })));
  }

  #keys(view) {
    show(this.keysPart, view.key_count > 0);
    const sick = view.keys.filter((key) => key.override || key.state !== "closed");
    say(this.keysNote, `${count(view.key_count, "key", "keys")}, ${sick.length} not closed`);
    const lines = sick.slice(0, 20).map((key) => `${key.key}: ${word(key.override?.mode ?? key.state).toLowerCase()}, ${key.reason}`);
    rebuild(this.keys, lines, () => lines.map((text) => make("li", { text })));
  }

  #links(view) {
    const links = linksOf(view);
    show(this.links, links.length > 0);
    rebuild(this.links, links, () => links.map(([text, page]) => (page === null ? make("span", { text }) : link(text, page, this.name))));
  }

  /** Shows what can be done now, the most likely first. */
  #orders(one) {
    const wanted = operations(one);
    for (const [operation, button] of this.buttons) {
      show(button, wanted.includes(operation));
      set(button, "class", operation === wanted[0] && REMEDIES.has(operation) ? "order main" : "order");
    }
    const hidden = Object.keys(OPERATIONS).filter((operation) => !wanted.includes(operation));
    arrange(this.orders, [...wanted, ...hidden].map((operation) => this.buttons.get(operation)));
  }
}

/** A disclosure: itself, its summary, and its list. */
function part(tag) {
  const summary = make("summary", {});
  const list = make(tag, { class: "list", reversed: tag === "ol" });
  return [make("details", {}, summary, list), summary, list];
}

/** A link to another site. The name of its dependency tells two runbooks apart. */
export function link(text, page, name) {
  return make("a", { href: page, target: "_blank", rel: "noopener noreferrer" }, text, make("span", { class: "hidden", text: ` of ${name}, in a new tab` }));
}

/** Configured pages, and the address of the dependency itself: `[text, page or null]`. */
function linksOf({ links, upstream }) {
  const all = Object.entries(links ?? {}).map(([name, page]) => [sentence(name), page]);
  if (upstream) all.push([upstream, /^https?:/.test(upstream) ? upstream : null]);
  return all;
}

/** Used part of a limit. */
class Gauge {
  constructor(name) {
    this.words = make("span", { class: "value" });
    this.bar = make("span", { class: "used" });
    this.meter = make("span", { class: "track", role: "meter", "aria-label": name, "aria-valuemin": "0" }, this.bar);
    this.node = make("div", { class: "gauge" }, make("p", {}, make("span", { class: "term", text: name }), this.words), this.meter);
  }

  show(used, limit, most) {
    const less = limit < most ? `, down from ${most}` : "";
    say(this.words, `${used} of ${limit}${less}`);
    set(this.meter, "aria-valuenow", Math.min(used, limit));
    set(this.meter, "aria-valuemax", limit);
    set(this.meter, "aria-valuetext", this.words.textContent);
    const part = limit > 0 ? Math.min(1, used / limit) : 0;
    set(this.node, "data-tone", part >= 0.8 ? "warn" : "plain");
    this.bar.style.setProperty("--part", part.toFixed(3));
  }
}

function notesOf({ view }) {
  const notes = [];
  if (view.override) notes.push(`Without the override its breaker would be ${word(view.state).toLowerCase()}: ${view.reason}.`);
  if (view.parked) notes.push("Its workers are parked after too many crashes.");
  if (view.pause) notes.push(view.pause.reason === "quota_used_up" ? "Its quota is used up." : "It asked for less traffic.");
  if (view.chaos) notes.push(`Faults on purpose: ${chaos(view.chaos)}.`);
  const { ack } = view.outage ?? {};
  if (ack) notes.push(`Seen by ${ack.by} at ${time(ack.at)}: ${ack.note}`);
  return notes;
}

function chaos(set) {
  const parts = [[set.error_rate, "fail"], [set.hang_rate, "hang"], [set.panic_rate, "panic"], [set.latency_rate, `wait ${latency(set.latency_ms)}`]];
  return parts.filter(([part]) => part > 0).map(([part, what]) => `${share(part)} ${what}`).join(", ");
}

function factsOf(view) {
  const { totals, window, latency_ms: taken, limits } = view;
  const facts = [["Answered", `${short(totals.primary)} by the dependency, ${short(totals.fallback)} by fallbacks`],
    ["Not answered", `${short(totals.failed)} failed, ${short(totals.refused)} refused, ${short(totals.cancelled)} cancelled`]];
  if (view.fallbacks.length > 0) facts.push(["Fallbacks", view.fallbacks.map((one) => `${one.name} ${short(one.served)}`).join(", ")]);
  facts.push(["Window", sentence(window.text)]);
  facts.push(["Opens at", threshold(limits)]);
  if (taken.p50 !== null) facts.push(["All attempts", `p50 ${latency(taken.p50)}, p99 ${latency(taken.p99)}`]);
  if (view.rate_limit) facts.push(["Rate limit", `${short(view.rate_limit.rate)} in ${latency(view.rate_limit.per_ms)}, burst ${view.rate_limit.burst}${view.rate_limit.shared ? ", of the whole fleet" : ""}`]);
  facts.push(["Opened", count(totals.trips, "time", "times")], ["Kind", view.kind.replaceAll("_", " ")]);
  return facts;
}

function threshold({ failure_threshold: failures, failure_rate: failed, slow_rate: slow }) {
  const rules = [];
  if (failures !== null) rules.push(count(failures, "failure", "failures"));
  if (failed !== null) rules.push(`${share(failed)} failed`);
  if (slow !== null) rules.push(`${share(slow)} slow`);
  return rules.join(", ") || "never automatically";
}

function workerLine({ id, state, incarnation, restarts, back_in_ms: back }) {
  const again = back === null ? "" : `, back in ${wait(back)}`;
  return `Worker ${id}: ${state}${again}, life ${incarnation}, ${count(restarts, "restart", "restarts")}`;
}

function toolLine({ name, calls, failed, tool_errors: errors, latency_ms: taken }) {
  const parts = [count(calls, "call", "calls")];
  if (failed > 0) parts.push(`${short(failed)} failed`);
  if (errors > 0) parts.push(count(errors, "error of its own", "errors of its own"));
  parts.push(`mean ${latency(taken.sum / calls)}`);
  if (taken.p99 !== null) parts.push(`p99 at most ${latency(taken.p99)}`);
  return `${name}: ${parts.join(", ")}`;
}
