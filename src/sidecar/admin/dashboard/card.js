// One dependency: a line that is always visible, and its details below.

import { Details, OPERATIONS, REMEDIES, link, operations } from "./details.js";
import { Spark } from "./chart.js";
import { icon, make, rebuild, say, set, show } from "./dom.js";
import { advice, breaker, callers, headline, next, probes, reason } from "./outage.js";
import { HEALTH, latency, rate, share, short } from "./words.js";

let made = 0;

export class Card {
  /** `does`: `order(name, operation)`, `turned(name, expanded)` and `fetchPast(name, span)`. */
  constructor(name, does) {
    this.name = name;
    this.does = does;
    this.chosen = null;
    this.details = null;
    this.said = null;
    this.bodyId = `body-${made += 1}`;
    this.icon = make("span", { class: "sign" });
    this.word = make("span", {});
    this.state = make("p", { class: "state" });
    this.toggle = make("button", { type: "button", class: "name", "aria-expanded": "false", text: name,
      onclick: () => { this.chosen = !this.expanded; does.turned(name, this.chosen); } });
    this.why = make("div", { class: "said" });
    this.rate = figure("Calls", "Calls made each second, over the last seconds");
    this.errors = figure("Errors", "Share of the calls that ended with an error or a refusal, without a fallback's answer, over the last 30 s");
    this.latency = figure("Latency", "Mean duration of an attempt over the last seconds");
    this.spark = new Spark();
    this.node = make("article", { class: "dependency", "data-name": name, "aria-label": name },
      make("header", { class: "head" }, make("h3", {}, this.toggle), make("p", { class: "health" }, this.icon, this.word), this.state),
      this.why,
      make("div", { class: "measured" }, make("dl", { class: "figures" }, this.rate.node, this.errors.node, this.latency.node), this.spark.node));
  }

  /** Cards are expanded and rows collapsed, unless the user chose otherwise. */
  open(spacious) {
    this.expanded = this.chosen ?? spacious;
    set(this.toggle, "aria-expanded", this.expanded);
    if (this.expanded && !this.details) {
      this.details = new Details(this.name, this.bodyId, this.does);
      this.node.append(this.details.node);
      set(this.toggle, "aria-controls", this.bodyId);
    }
    if (this.details) show(this.details.node, this.expanded);
    set(this.node, "data-expanded", this.expanded);
  }

  update(one, world) {
    const { view, shown, group } = one;
    // On a small screen only the failing ones are expanded.
    this.open(world.wide && (!world.small || group !== "ok"));
    set(this.node, "data-group", group);
    set(this.node, "data-state", shown);
    if (this.icon.firstChild?.dataset.shape !== group) this.icon.replaceChildren(icon(group));
    say(this.word, HEALTH[view.health] ?? view.health);
    say(this.state, breaker(one));
    this.#say(one, world);
    this.tick(one, world);
    const { calls, errors, share: part } = one.answers;
    const few = calls > 0 ? `${short(errors)} of ${short(calls)}` : "–";
    say(this.rate.value, rate(one.rate));
    say(this.errors.value, part === null ? few : share(part));
    set(this.errors.node, "data-tone", tone(part));
    say(this.latency.value, latency(one.latency));
    if (!this.expanded) this.spark.show(one.past, world.serverNow, world.started);
    if (this.expanded) {
      this.does.fetchPast(this.name, this.details.chart.span);
      this.details.update(one, world);
    }
  }

  /** Tells what is wrong. A healthy dependency has nothing to tell, and no nodes for it. */
  #say(one, world) {
    const quiet = one.group === "ok" && !one.outage && next(one, world).text === "";
    if (quiet) {
      if (this.said) { this.why.replaceChildren(); this.said = null; }
      return;
    }
    this.said ??= new Said(this.why, this.name, this.does);
    this.said.show(one, world);
  }

  /** Updates the parts that change with time alone. */
  tick(one, world) {
    this.said?.tick(one, world);
  }
}

function tone(part) {
  if (part === null || part < 0.05) return "plain";
  return part >= 0.5 ? "bad" : "warn";
}

function figure(name, hint) {
  const value = make("dd", { class: "value", text: "–" });
  return { value, node: make("div", { class: "figure" }, make("dt", { text: name, title: hint }), value) };
}

/** What is wrong, what callers get, and what to do. */
class Said {
  constructor(parent, name, does) {
    this.headline = make("p", { class: "headline" });
    this.reason = make("p", { class: "why" });
    this.callers = make("p", { class: "callers" });
    this.timer = make("span", { class: "left", role: "timer" });
    this.rest = make("span", { class: "rest" });
    this.track = make("span", { class: "track", "aria-hidden": "true" }, this.rest);
    this.probes = make("span", { class: "probes" });
    this.waiting = make("p", { class: "waiting" }, this.timer, this.track, this.probes);
    this.advice = make("span", { class: "advice" });
    this.quick = make("button", { type: "button", class: "order main", onclick: () => does.order(name, this.operation) });
    this.runbook = make("span", { class: "runbook" });
    this.todo = make("p", { class: "todo" }, this.advice, this.quick, this.runbook);
    this.name = name;
    parent.replaceChildren(this.headline, this.reason, this.callers, this.waiting, this.todo);
  }

  show(one, world) {
    const sick = ["down", "degraded"].includes(one.group);
    text(this.headline, headline(one, world.serverNow));
    text(this.reason, reason(one));
    text(this.callers, sick ? callers(one) : "");
    say(this.probes, probes(one));
    text(this.advice, sick ? advice(one) : "");
    [this.operation] = operations(one);
    const offered = REMEDIES.has(this.operation);
    show(this.quick, offered);
    if (offered) rebuild(this.quick, this.operation, () => [OPERATIONS[this.operation], make("span", { class: "hidden", text: ` ${this.name}` })]);
    const page = sick ? one.view.links?.runbook : undefined;
    show(this.runbook, page !== undefined);
    rebuild(this.runbook, page ?? null, () => (page === undefined ? [] : [link("Runbook", page, this.name)]));
    show(this.todo, sick || offered);
  }

  tick(one, world) {
    const { text: told, part } = next(one, world);
    say(this.timer, told);
    show(this.waiting, told !== "" || this.probes.textContent !== "");
    show(this.track, part !== null);
    if (part !== null) this.rest.style.setProperty("--part", part.toFixed(3));
  }
}

/** Shows a text, and nothing if it is empty. */
function text(node, words) {
  say(node, words);
  show(node, words !== "");
}
