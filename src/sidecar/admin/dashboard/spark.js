// Small charts: a line for the last minutes of a figure, and a band for the states of a breaker.

import { draw, make, say, set } from "./dom.js";
import { SAMPLES, stretches } from "./model.js";
import { time, word } from "./words.js";

const WIDTH = 120;
const HEIGHT = 28;

/** A figure with its sparkline, as a term and its description. */
export class Figure {
  constructor(name, hint) {
    this.value = make("span", { class: "value", text: "–" });
    this.line = draw("path", { class: "line" });
    this.area = draw("path", { class: "area" });
    const spark = draw("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area, this.line);
    this.node = make("div", { class: "figure" }, make("dt", { text: name, title: hint }), make("dd", {}, this.value, spark));
  }

  /** Shows a value and its series; null is a gap. `least` is the minimum range of the axis. */
  show(text, series, least) {
    say(this.value, text);
    let top = least;
    for (const value of series) if (value !== null && value > top) top = value;
    const step = WIDTH / (SAMPLES - 1);
    const left = WIDTH - (series.length - 1) * step;
    let line = "";
    let area = "";
    let began = null;
    const close = (x) => {
      if (began !== null) area += `L${x} ${HEIGHT}L${began} ${HEIGHT}Z`;
      began = null;
    };
    for (const [index, value] of series.entries()) {
      const x = (left + index * step).toFixed(1);
      if (value === null) {
        close((left + (index - 1) * step).toFixed(1));
        continue;
      }
      const point = `${x} ${(HEIGHT - 1.5 - (value / top) * (HEIGHT - 3)).toFixed(1)}`;
      line += `${began === null ? "M" : "L"}${point}`;
      area += `${began === null ? "M" : "L"}${point}`;
      began ??= x;
    }
    close(WIDTH);
    set(this.line, "d", line);
    set(this.area, "d", area);
  }
}

/** Minutes that a band shows. */
const MINUTES = 15;
const BAND = 300;
// A state that blocks calls is drawn higher, so that height shows it too.
const HEIGHTS = { closed: 4, shadow: 4, disabled: 4, half_open: 10, open: 18, forced_open: 18 };

export class Band {
  constructor() {
    this.svg = draw("svg", { class: "band", viewBox: `0 0 ${BAND} 18`, preserveAspectRatio: "none", role: "img" });
    const scale = make("p", { class: "scale", "aria-hidden": "true" }, make("span", { text: `${MINUTES} min ago` }), make("span", { text: "now" }));
    this.node = make("div", { class: "timeline" }, this.svg, scale);
    this.drawn = "";
  }

  /** Shows the minutes up to `end`; empty before `started`. */
  show(one, started, end) {
    const span = MINUTES * 60_000;
    const begin = end - span;
    const all = stretches(one, Math.max(begin, started), end);
    const x = (at) => ((at - begin) / span) * BAND;
    const key = all.map(({ state, from, to }) => `${state} ${x(from).toFixed(0)} ${x(to).toFixed(0)}`).join();
    if (key === this.drawn) return;
    this.drawn = key;
    const parts = all.map(({ state, from, to }) => {
      const height = HEIGHTS[state] ?? 4;
      const width = Math.max(x(to) - x(from), 1.5);
      return draw("rect", { class: "stretch", "data-state": state, x: x(from).toFixed(2), width: width.toFixed(2), y: 18 - height, height },
        draw("title", { text: `${word(state)}: ${time(from)} to ${time(to)}` }));
    });
    this.svg.replaceChildren(...parts);
    const trips = all.filter(({ state }, at) => state === "open" && at > 0).length;
    const now = all.length > 0 ? word(all.at(-1).state).toLowerCase() : "unknown";
    set(this.svg, "aria-label", `The last ${MINUTES} minutes: opened ${trips} times, now ${now}`);
  }
}
