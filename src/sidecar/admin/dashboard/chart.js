// Charts: a small one in each row, and a large one with marks among the details.

import { draw, make, say, set } from "./dom.js";
import { stretches } from "./model.js";
import { count, rate, short, time, word } from "./words.js";

const HOUR = 3_600_000;

/** Least span of a chart. A process that is younger than an hour fills the whole width all the same. */
const LEAST = 5 * 60_000;

/** The span that a chart shows: up to `whole`, but hardly more than something is known of. */
const spanOf = (whole, now, started, series) => Math.min(whole, Math.max(LEAST, now - Math.min(started, series?.first ?? Infinity)));

/** Paths of a line and of the area below it. A gap in the values is one in the line. */
function paths(points, name, { from, span, width, height, top }) {
  let line = "";
  let area = "";
  let began = null;
  let x = null;
  const close = () => {
    if (began !== null) area += `L${x} ${height}L${began} ${height}Z`;
    began = null;
  };
  for (const point of points) {
    const value = point[name];
    if (value === null) { close(); continue; }
    x = Math.min(width, Math.max(0, ((point.at - from) / span) * width)).toFixed(1);
    const y = (height - (value / top) * (height - 2)).toFixed(1);
    line += `${began === null ? "M" : "L"}${x} ${y}`;
    area += `${began === null ? "M" : "L"}${x} ${y}`;
    began ??= x;
  }
  close();
  return { line, area };
}

function highest(points, least) {
  return points.reduce((top, { calls }) => (calls !== null && calls > top ? calls : top), least);
}

/** Calls of the last hour, and the errors among them, as wide as a column. */
export class Spark {
  constructor() {
    this.calls = draw("path", { class: "calls" });
    this.errors = draw("path", { class: "errors" });
    this.node = draw("svg", { class: "spark", viewBox: "0 0 120 24", preserveAspectRatio: "none", "aria-hidden": "true" }, this.calls, this.errors);
    this.drawn = -Infinity;
  }

  /** Draws at most every few seconds: a step has 30. */
  show(series, now, started) {
    if (!series || now - this.drawn < 4_000) return;
    this.drawn = now;
    const span = spanOf(HOUR, now, started, series);
    const from = now - span;
    const points = series.points(from, now);
    const frame = { from, span, width: 120, height: 24, top: highest(points, 0.2) };
    set(this.calls, "d", paths(points, "calls", frame).area);
    set(this.errors, "d", points.some(({ errors }) => errors > 0) ? paths(points, "errors", frame).area : "");
  }
}

const WIDTH = 600;
const HEIGHT = 84;
// A state that blocks calls is drawn higher, so that height shows it too.
const HEIGHTS = { closed: 3, shadow: 3, disabled: 3, half_open: 7, open: 12, forced_open: 12 };
/** Spans that the large chart shows: milliseconds, name, the server's name of the step. */
export const SPANS = { hour: [HOUR, "Hour", "5s"], day: [24 * HOUR, "Day", "1m"] };

/** Calls, errors, states and marks of one dependency over an hour or a day. */
export class Chart {
  /** `choose` is called with the span that the user wants. */
  constructor(name, choose) {
    this.span = "hour";
    this.top = make("span", { class: "top-value" });
    this.calls = draw("path", { class: "calls" });
    this.line = draw("path", { class: "line" });
    this.errors = draw("path", { class: "errors" });
    this.marks = draw("g", { class: "marks" });
    this.svg = draw("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      this.calls, this.line, this.errors, this.marks);
    this.band = draw("svg", { class: "band", viewBox: `0 0 ${WIDTH} 12`, preserveAspectRatio: "none", role: "img" });
    this.begin = make("span", {});
    this.list = make("ol", { class: "mark-list" });
    this.choices = Object.entries(SPANS).map(([span, [, text]]) => make("button", { type: "button", class: "quiet", "aria-pressed": String(span === this.span), text,
      onclick: () => { this.#choose(span); choose(span); } }));
    this.node = make("figure", { class: "past" },
      make("figcaption", {}, make("span", { text: "Calls, and errors among them" }), this.top,
        make("span", { class: "spans", role: "group", "aria-label": `Span of the chart of ${name}` }, ...this.choices)),
      this.svg, this.band,
      make("p", { class: "scale", "aria-hidden": "true" }, this.begin, make("span", { text: "now" })),
      this.list);
    this.drawn = "";
  }

  #choose(span) {
    this.span = span;
    this.drawn = "";
    for (const [index, name] of Object.keys(SPANS).entries()) set(this.choices[index], "aria-pressed", name === span);
  }

  /** `series`: of the chosen span, or undefined while it is fetched. `marks`: `{at, kind, text}`, oldest first. */
  show(one, series, marks, { serverNow: now, started }) {
    const span = spanOf(SPANS[this.span][0], now, started, series);
    const from = now - span;
    const shown = marks.filter(({ at }) => at >= from);
    const states = stretches(one, Math.max(from, started), now);
    const x = (at) => ((at - from) / span) * WIDTH;
    const key = JSON.stringify([series?.version, Math.floor(now / 5_000), shown.length, shown.at(-1)?.at, states.length, one.shown]);
    if (key === this.drawn) return;
    this.drawn = key;
    const points = series?.points(from, now) ?? [];
    const top = highest(points, 0.2);
    const frame = { from, span, width: WIDTH, height: HEIGHT, top };
    const calls = paths(points, "calls", frame);
    set(this.calls, "d", calls.area);
    set(this.line, "d", calls.line);
    set(this.errors, "d", points.some(({ errors }) => errors > 0) ? paths(points, "errors", frame).area : "");
    say(this.top, series ? `up to ${rate(top)}` : "");
    say(this.begin, time(from));
    this.marks.replaceChildren(...shown.map(({ at, kind }) => draw("path", { class: "mark", "data-kind": kind, d: `M${x(at).toFixed(1)} 0V${HEIGHT}` })));
    this.list.replaceChildren(...shown.slice(-6).reverse().map(({ at, kind, text }) => make("li", { "data-kind": kind },
      make("time", { datetime: new Date(at).toISOString(), text: time(at) }), ` ${text}`)));
    this.#states(states, x);
    this.#label(points, top, shown.length);
  }

  #states(all, x) {
    this.band.replaceChildren(...all.map(({ state, from, to }) => {
      const height = HEIGHTS[state] ?? 3;
      const width = Math.max(x(to) - x(from), 1.5);
      return draw("rect", { class: "stretch", "data-state": state, x: x(from).toFixed(1), width: width.toFixed(1), y: 12 - height, height },
        draw("title", { text: `${word(state)}: ${time(from)} to ${time(to)}` }));
    }));
    const trips = all.filter(({ state }, at) => state === "open" && at > 0).length;
    const now = all.length > 0 ? word(all.at(-1).state).toLowerCase() : "unknown";
    set(this.band, "aria-label", `Breaker over the last ${this.span}: opened ${count(trips, "time", "times")}, now ${now}`);
  }

  #label(points, top, marks) {
    const errors = points.reduce((most, point) => Math.max(most, point.errors ?? 0), 0);
    set(this.svg, "aria-label", `Calls over the last ${this.span}: up to ${short(top)} each second; errors up to ${short(errors)} each second; ${count(marks, "mark", "marks")}`);
  }
}
