// Figures over time in steps of equal width: fetched once, then continued from what the page counts
// itself.

/** Milliseconds of a step from which its rate is shown. */
const LEAST = 10_000;

/** A step of which nothing is known is `null`. */
export class Series {
  /** `span`: how long the series is kept, in milliseconds. */
  constructor({ step_ms: step, begin, calls, errors }, span) {
    this.step = step;
    this.begin = Date.parse(begin);
    this.calls = calls;
    this.errors = errors;
    this.length = span / step + 1;
    /** Number of changes, so that a chart knows whether it is up to date. */
    this.version = 0;
  }

  /** Adds calls that ended between two moments of the server's clock, no further apart than a step. */
  add(from, until, calls, errors) {
    const edge = this.begin + Math.floor((until - this.begin) / this.step) * this.step;
    // What lies across an edge belongs to both steps, or a short step would have a peak.
    const part = from < edge ? (until - edge) / (until - from) : 1;
    if (part < 1) this.#put(edge - 1, calls * (1 - part), errors * (1 - part));
    this.#put(until, calls * part, errors * part);
    this.version += 1;
  }

  #put(moment, calls, errors) {
    const at = Math.floor((moment - this.begin) / this.step);
    // Long before the last step, everything is known.
    if (at < Math.max(0, this.calls.length - 2)) return;
    while (this.calls.length <= at) {
      const skipped = this.calls.length < at;
      this.calls.push(skipped ? null : 0);
      this.errors.push(skipped ? null : 0);
    }
    this.calls[at] = (this.calls[at] ?? 0) + calls;
    this.errors[at] = (this.errors[at] ?? 0) + errors;
    const old = this.calls.length - this.length;
    if (old > 0) {
      this.calls.splice(0, old);
      this.errors.splice(0, old);
      this.begin += old * this.step;
    }
  }

  /** The begin of the first step of which something is known; it may be before the process, which keeps the past in a file. */
  get first() {
    const known = this.calls.findIndex((calls) => calls !== null);
    return known < 0 ? Infinity : this.begin + known * this.step;
  }

  /** Points `{at, calls, errors}` per second, from a moment on. The last step is left out while there is too little of it. */
  points(from, now) {
    const all = [];
    for (const [index, calls] of this.calls.entries()) {
      const at = this.begin + (index + 0.5) * this.step;
      const seconds = Math.min(this.step, now - this.begin - index * this.step) / 1000;
      if (at + this.step < from || seconds * 1000 < Math.min(this.step, LEAST)) continue;
      all.push(calls === null ? { at, calls, errors: null } : { at, calls: calls / seconds, errors: this.errors[index] / seconds });
    }
    return all;
  }
}
