// The list of events, with its filter.

import { arrange, find, make, say, show } from "./dom.js";
import { time } from "./words.js";

const STEP = 60;
/** Event kinds that are highlighted for the operator. */
const GRAVE = new Set(["ended", "parked", "gave_up", "stuck", "fallback_serving", "quarantined", "paused", "misconfigured", "reload_refused", "chaos", "operated"]);

export class Events {
  constructor(model) {
    this.model = model;
    this.rows = new Map();
    this.limit = STEP;
    this.known = { kind: new Set(), dependency: new Set() };
    for (const id of ["filter-text", "filter-kind", "filter-dependency"]) {
      find(id).addEventListener("input", () => { this.limit = STEP; this.render(); });
    }
    find("filter").addEventListener("submit", (event) => event.preventDefault());
    find("events-more").addEventListener("click", () => { this.limit += 4 * STEP; this.render(); });
  }

  render() {
    const all = [...this.model.events.values()].sort((a, b) => b.id - a.id);
    this.#choices(all);
    const text = find("filter-text").value.trim().toLowerCase();
    const kind = find("filter-kind").value;
    const dependency = find("filter-dependency").value;
    const fits = (event) => (kind === "" || event.kind === kind)
      && (dependency === "" || event.dependency === dependency)
      && (text === "" || `${event.subject} ${event.kind} ${event.message}`.toLowerCase().includes(text));
    const fitting = all.filter(fits);
    const shown = fitting.slice(0, this.limit);
    const rows = new Map(shown.map((event) => [event, this.rows.get(event) ?? row(event)]));
    this.rows = rows;
    arrange(find("events"), [...rows.values()]);
    const missed = this.model.missed > 0 ? `, ${this.model.missed} missed` : "";
    say(find("events-count"), fitting.length === all.length ? `${all.length}${missed}` : `${fitting.length} of ${all.length}${missed}`);
    say(find("events-none"), !this.model.isKnown ? "–" : all.length === 0 ? "Nothing has happened yet." : "No event matches.");
    show(find("events-none"), fitting.length === 0);
    show(find("events-more"), fitting.length > shown.length);
  }

  /** Fills the filters with the kinds and dependencies that occur. */
  #choices(all) {
    for (const name of ["kind", "dependency"]) {
      const known = this.known[name];
      const values = new Set(all.map((event) => event[name]));
      if (values.size === known.size && [...values].every((value) => known.has(value))) continue;
      this.known[name] = values;
      const select = find(`filter-${name}`);
      const chosen = select.value;
      if (chosen !== "") values.add(chosen);
      const options = [...values].sort().map((value) => make("option", { value, text: name === "kind" ? value.replaceAll("_", " ") : value }));
      select.replaceChildren(select.options[0], ...options);
      select.value = chosen;
    }
  }
}

function row(event) {
  const to = event.kind === "transition" ? event.details.to : "";
  const tone = to !== "" ? to : GRAVE.has(event.kind) ? "grave" : "plain";
  return make("li", { "data-tone": tone, "data-id": event.id },
    make("time", { datetime: event.time, text: time(event.time) }),
    make("span", { class: "subject", text: event.subject }),
    make("span", { class: "what" }, make("span", { class: "event-kind", text: event.kind.replaceAll("_", " ") }), " ", event.message));
}
