// Figures over time in steps of equal width: fetched once, then continued from what the page counts
// itself.

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

  /** Adds calls that ended just before a moment of the server's clock. */
  add(moment, calls, errors) {
    const at = Math.floor((moment - this.begin) / this.step);
    if (at < this.calls.length - 1) return;
    while (this.calls.length <= at) {
      const skipped = this.calls.length < at;
      this.calls.push(skipped ? null : 0);
      this.errors.push(skipped ? null : 0);
    }
    const last = this.calls.length - 1;
    this.calls[last] = (this.calls[last] ?? 0) + calls;
    this.errors[last] = (this.errors[last] ?? 0) + errors;
    const old = this.calls.length - this.length;
    if (old > 0) {
      this.calls.splice(0, old);
      this.errors.splice(0, old);
      this.begin += old * this.step;
    }
    this.version += 1;
  }

  /** Points `{at, calls, errors}` per second, from a moment on; the last step is left out while it is not over. */
  points(from, now) {
    const all = [];
    for (const [index, calls] of this.calls.entries()) {
      const at = this.begin + (index + 0.5) * this.step;
      const seconds = Math.min(this.step, now - this.begin - index * this.step) / 1000;
      if (at + this.step < from || seconds * 1000 < this.step / 3) continue;
      all.push(calls === null ? { at, calls, errors: null } : { at, calls: calls / seconds, errors: this.errors[index] / seconds });
    }
    return all;
  }
}
