// One dependency: a line that is always visible, and its details below.

import { icon, make, rebuild, say, set, show } from "./dom.js";
import { Band, Figure } from "./spark.js";
import { count, latency, rate, share, short, time, wait, word } from "./words.js";

const ORDERS = [["open", "Open"], ["close", "Close"], ["disable", "Disable"], ["shadow", "Shadow"], ["reset", "Reset"], ["check", "Check now"], ["restart", "Restart"]];

let made = 0;

export class Card {
  constructor(name, order, turned) {
    const id = `body-${made += 1}`;
    this.chosen = null;
    this.icon = make("span", { class: "sign" });
    this.word = make("span", { class: "word" });
    this.toggle = make("button", { type: "button", class: "name", "aria-controls": id, text: name,
      onclick: () => { this.chosen = !this.expanded; turned(); } });
    this.reason = make("span", { class: "reason" });
    this.since = make("time", {});
    this.why = make("p", { class: "why" }, this.reason, this.since);
    this.timer = make("span", { class: "left", role: "timer" });
    this.rest = make("span", { class: "rest" });
    this.waiting = make("p", { class: "waiting" }, this.timer, make("span", { class: "track", "aria-hidden": "true" }, this.rest));
    this.rate = new Figure("Calls", "Calls made each second, over the last seconds");
    this.errors = new Figure("Errors", "Share of the calls that ended with an error or a refusal, without a fallback's answer");
    this.latency = new Figure("Latency", "Mean duration of an attempt over the last seconds");
    this.body = make("div", { class: "body", id }, ...this.#parts());
    this.actions = new Map(ORDERS.map(([operation, text]) => [operation, make("button", { type: "button", class: "order", "data-order": operation, onclick: () => order(name, operation) },
      text, make("span", { class: "hidden", text: ` ${name}` }))]));
    this.body.append(make("div", { class: "orders", role: "group", "aria-label": `Operations on ${name}` }, ...this.actions.values()));
    this.node = make("article", { class: "dependency", "data-name": name, "aria-label": name },
      make("header", { class: "head" }, make("h3", {}, this.toggle), make("p", { class: "state" }, this.icon, this.word)),
      make("div", { class: "said" }, this.why, this.waiting),
      make("dl", { class: "figures" }, this.rate.node, this.errors.node, this.latency.node),
      this.body);
  }

  #parts() {
    this.notes = make("ul", { class: "notes" });
    this.inFlight = new Gauge("In flight");
    this.queue = new Gauge("Queue");
    this.band = new Band();
    this.facts = make("dl", { class: "facts" });
    this.workersNote = make("summary", {});
    this.workers = make("ul", { class: "list" });
    this.movesNote = make("summary", {});
    this.moves = make("ol", { class: "list", reversed: true });
    this.keysNote = make("summary", {});
    this.keys = make("ul", { class: "list" });
    this.keysPart = make("details", {}, this.keysNote, this.keys);
    this.toolsNote = make("summary", {});
    this.tools = make("ul", { class: "list" });
    this.toolsPart = make("details", {}, this.toolsNote, this.tools);
    return [
      this.notes,
      make("div", { class: "gauges" }, this.inFlight.node, this.queue.node),
      this.band.node,
      this.facts,
      make("details", {}, this.workersNote, this.workers),
      make("details", {}, this.movesNote, this.moves),
      this.keysPart,
      this.toolsPart,
    ];
  }

  /** Cards are expanded and rows collapsed, unless the user chose otherwise. */
  open(spacious) {
    this.expanded = this.chosen ?? spacious;
    set(this.toggle, "aria-expanded", this.expanded);
    show(this.body, this.expanded);
  }

  update(one, world) {
    const { view, shown } = one;
    // On a small screen only the failing ones are expanded.
    this.open(world.wide && (!world.small || one.group !== "closed"));
    set(this.node, "data-group", one.group);
    set(this.node, "data-state", shown);
    // A closed breaker alone does not mean health.
    const shape = one.group === "degraded" ? "degraded" : shown;
    if (this.icon.firstChild?.dataset.shape !== shape) this.icon.replaceChildren(icon(shape));
    say(this.word, word(shown));
    say(this.reason, reason(one));
    // The start of an override or a degradation is not known.
    say(this.since, view.override || one.group === "degraded" ? "" : `since ${time(view.since)}`);
    set(this.since, "datetime", view.since);
    this.tick(one, world);
    const end = one.samples.length;
    this.rate.show(rate(one.rateAt(end)), one.series(one.rateAt), 1);
    this.errors.show(share(one.errorsAt(end)), one.series(one.errorsAt), 0.2);
    this.latency.show(latency(one.latencyAt(end)), one.series(one.latencyAt), 5);
    if (this.expanded) this.#details(one, world);
  }

  /** Updates the parts that change with time alone. */
  tick(one, { now, serverNow }) {
    const { view, shown, until, wait: whole } = one;
    const over = view.override;
    let text = "";
    let part = null;
    if (over?.until) text = `Ends in ${wait(Date.parse(over.until) - serverNow)}`;
    else if (over) text = "Until it is removed";
    else if (shown === "open" && until !== null) {
      const left = until - now;
      text = left > 0 ? `Next probe in ${wait(left)}` : "Next probe with the next call";
      part = Math.min(1, Math.max(0, left / whole.ms));
    } else if (shown === "open") text = "Next probe with the next call";
    else if (shown === "half_open" && view.half_open) {
      const { successes, needed, in_flight: trying } = view.half_open;
      text = `${successes} of ${needed} probes succeeded${trying > 0 ? `, ${trying} under way` : ""}`;
      part = needed > 0 ? successes / needed : null;
    } else if (view.pause) text = `Paused for ${wait(view.pause.ends_in_ms)}`;
    say(this.timer, text);
    show(this.waiting, text !== "");
    show(this.rest.parentNode, part !== null);
    if (part !== null) this.rest.style.setProperty("--part", part.toFixed(3));
  }

  #details(one, world) {
    const { view } = one;
    const notes = notesOf(one);
    rebuild(this.notes, notes, () => notes.map((text) => make("li", { text })));
    show(this.notes, notes.length > 0);
    this.inFlight.show(view.in_flight, view.limits.concurrent, view.limits.max_concurrent);
    this.queue.show(view.queued, view.limits.max_queue, view.limits.max_queue);
    this.band.show(one, world.started, world.serverNow);
    const facts = factsOf(view);
    rebuild(this.facts, facts, () => facts.map(([term, text]) => make("div", {}, make("dt", { text: term }), make("dd", { text }))));
    this.#workers(view.workers);
    this.#moves(one);
    this.#keys(view);
    this.#tools(view.tools ?? []);
    show(this.actions.get("check"), !view.override && view.state !== "closed");
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

function reason({ view, group }) {
  if (view.override) return `By ${view.override.by === "supervisor" ? "the supervisor" : "an operator"}: ${view.override.reason}`;
  if (group === "degraded") return sentence(view.health_reason ?? "");
  // It was closed from the start.
  if (view.state === "closed" && view.reason === "started") return "Closed";
  return sentence(view.reason);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function notesOf({ view, group }) {
  const notes = [];
  if (view.override) notes.push(`Without the override it would be ${word(view.state).toLowerCase()}: ${view.reason}`);
  if (view.parked) notes.push("Parked after too many crashes");
  if (view.pause) notes.push(view.pause.reason === "quota_used_up" ? "Its quota is used up" : "It asked for less traffic");
  if (view.health_reason && group !== "degraded" && !view.override && view.health === "down") notes.push("No fallback: callers get errors");
  if (view.chaos) notes.push(`Faults on purpose: ${chaos(view.chaos)}`);
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
  facts.push(["Window", windowOf(window)]);
  facts.push(["Opens at", threshold(limits)]);
  if (taken.p50 !== null) facts.push(["All attempts", `p50 ${latency(taken.p50)}, p99 ${latency(taken.p99)}`]);
  if (view.rate_limit) facts.push(["Rate limit", `${short(view.rate_limit.rate)} in ${latency(view.rate_limit.per_ms)}, burst ${view.rate_limit.burst}`]);
  facts.push(["Opened", count(totals.trips, "time", "times")], ["Kind", view.kind.replaceAll("_", " ")]);
  return facts;
}

/** A rate is shown from `minimum_calls` on; before that, how many calls there are and how many it needs. */
function windowOf({ calls, failures, slow, failure_rate: failed, slow_rate: slowed, minimum_calls: needed }) {
  if (failed === null) return `${calls} of ${needed} calls for a rate, ${failures} failed, ${slow} slow`;
  return `${count(calls, "call", "calls")}, ${failures} failed (${share(failed)}), ${slow} slow (${share(slowed)})`;
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
