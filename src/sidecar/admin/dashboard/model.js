// The data of the page: the state of each dependency, its last minutes, and the events. It draws
// nothing.

/** Seconds that a sparkline shows. */
export const SAMPLES = 120;
/** Seconds over which a figure is averaged. */
const RECENT = 5;
/** Same as the capacity of the server's history. */
const MAX_EVENTS = 1024;

/** Milliseconds for which a recovered dependency keeps its place, so that the order stays calm. */
const CALM = 5_000;

/** Most severe first. */
export const GROUPS = ["open", "half_open", "degraded", "override", "closed"];

export class Dependency {
  constructor(name) {
    this.name = name;
    this.view = null;
    this.before = null;
    this.samples = [];
    this.moves = [];
    this.until = null;
    this.wait = null;
    this.rank = GROUPS.length;
    this.rankedAt = -Infinity;
  }

  /** Applies a status; if an event has already shown a newer state, the newer state stays. */
  take(view, now) {
    const known = this.view;
    if (known && view.generation < known.generation) {
      const { state, reason, generation, since, retry_after_ms, half_open } = known;
      view = { ...view, state, reason, generation, since, retry_after_ms, half_open };
      this.view = view;
      return;
    }
    this.view = view;
    this.#countDown(view.retry_after_ms, now);
  }

  /** Applies a transition from an event, ahead of the next status. */
  move(event, now) {
    const { from, to, generation, cause, retry_after_ms } = event.details;
    const known = this.view;
    if (!known || !from || generation <= known.generation) return;
    this.view = { ...known, state: to, reason: cause, generation, since: event.time, retry_after_ms, half_open: null };
    this.#countDown(retry_after_ms, now);
  }

  #countDown(ms, now) {
    const since = this.view.since;
    if (ms === null || ms === undefined) {
      this.until = null;
      this.wait = null;
    } else {
      this.until = now + ms;
      if (this.wait === null || this.wait.since !== since || ms > this.wait.ms) this.wait = { since, ms };
    }
  }

  /** The effective state: the operator's override, else the breaker's own state. */
  get shown() {
    return this.view.override?.mode ?? this.view.state;
  }

  get group() {
    const shown = this.shown;
    if (shown === "open" || shown === "forced_open") return "open";
    if (shown === "half_open") return "half_open";
    if (this.view.health !== "ok") return "degraded";
    return shown === "closed" ? "closed" : "override";
  }

  /** Rank in the order: it rises at once, and falls after a calm period. */
  ranked(now) {
    const rank = GROUPS.indexOf(this.group);
    if (rank <= this.rank || now - this.rankedAt > CALM) {
      this.rank = rank;
      this.rankedAt = now;
    }
    return this.rank;
  }

  /** Records the increase since the last sample. The server sends counters; rates are computed here. */
  sample(now) {
    const { totals, latency_ms: taken } = this.view;
    const counters = {
      at: now,
      submitted: totals.submitted,
      errors: totals.failed + totals.refused,
      fallback: totals.fallback,
      ended: totals.primary + totals.fallback + totals.refused + totals.failed,
      attempts: taken.count,
      spent: taken.sum,
    };
    const before = this.before;
    this.before = counters;
    // Falling counters mean that the server was restarted.
    if (!before || counters.submitted < before.submitted || counters.attempts < before.attempts) {
      this.samples = [];
      return;
    }
    const sample = { seconds: (now - before.at) / 1000 };
    for (const name of ["submitted", "errors", "fallback", "ended", "attempts", "spent"]) {
      sample[name] = counters[name] - before[name];
    }
    this.samples.push(sample);
    if (this.samples.length > SAMPLES) this.samples.shift();
  }

  /** Sum over the last seconds up to a sample. */
  #sum(end, name) {
    let sum = 0;
    for (let at = Math.max(0, end - RECENT); at < end; at += 1) sum += this.samples[at][name];
    return sum;
  }

  #ratio(end, part, whole) {
    const all = this.#sum(end, whole);
    return all > 0 ? this.#sum(end, part) / all : null;
  }

  rateAt(end) {
    return this.#ratio(end, "submitted", "seconds");
  }

  errorsAt(end) {
    return this.#ratio(end, "errors", "ended");
  }

  latencyAt(end) {
    return this.#ratio(end, "spent", "attempts");
  }

  recent(name) {
    return this.#sum(this.samples.length, name);
  }

  series(read) {
    return this.samples.map((_, at) => read.call(this, at + 1));
  }
}

export class Model {
  constructor() {
    this.dependencies = new Map();
    this.events = new Map();
    this.sampled = 0;
    this.missed = 0;
    /** Lead of the server's clock over this one, in milliseconds. */
    this.ahead = 0;
    /** Start time of the server's runtime. */
    this.started = -Infinity;
  }

  /** Resets the data after a server restart: events, generations and counters begin anew. */
  forget() {
    this.events.clear();
    this.missed = 0;
    for (const one of this.dependencies.values()) {
      one.view = one.view && { ...one.view, generation: -1 };
      one.moves = [];
      one.samples = [];
      one.before = null;
    }
  }

  /** Applies the full list of dependencies from the server. */
  takeAll(views, now) {
    const names = new Set(views.map((view) => view.name));
    for (const name of this.dependencies.keys()) if (!names.has(name)) this.dependencies.delete(name);
    for (const view of views) this.take(view, now);
    if (now - this.sampled >= 500) this.sample(now);
  }

  take(view, now) {
    let one = this.dependencies.get(view.name);
    if (!one) {
      one = new Dependency(view.name);
      one.moves = [...this.events.values()].filter((event) => isMove(event, view.name));
      this.dependencies.set(view.name, one);
    }
    one.take(view, now);
  }

  /** Samples without a message: while nothing changes, the server sends none. */
  tick(now) {
    if (now - this.sampled >= 1400) this.sample(now);
  }

  sample(now) {
    this.sampled = now;
    for (const one of this.dependencies.values()) one.sample(now);
  }

  /** Adds an event once; returns true if it is new. */
  add(event, now) {
    if (this.events.has(event.id)) return false;
    this.events.set(event.id, event);
    // Histories may arrive after live events: the oldest event is the one with the lowest id.
    if (this.events.size > MAX_EVENTS) this.events.delete(Math.min(...this.events.keys()));
    const one = this.dependencies.get(event.dependency);
    if (one && isMove(event, one.name)) {
      one.moves.push(event);
      one.moves.sort((a, b) => a.id - b.id);
      if (one.moves.length > 100) one.moves.shift();
      one.move(event, now);
    }
    return true;
  }

  get lastId() {
    return this.events.size === 0 ? 0 : Math.max(...this.events.keys());
  }

  /** Failing dependencies first. */
  sorted(now) {
    const all = [...this.dependencies.values()];
    for (const one of all) one.ranked(now);
    return all.sort((a, b) => a.rank - b.rank || a.name.localeCompare(b.name));
  }
}

/** Returns true if an event changes the shown state of the dependency's own breaker, not of a key's. */
function isMove(event, name) {
  return event.subject === name && ["transition", "override_set", "override_removed"].includes(event.kind);
}

/** Periods of each shown state: `{state, from, to}`. */
export function stretches(one, begin, end) {
  let state = null;
  let mode = null;
  const marks = [];
  for (const { kind, time, details } of one.moves) {
    if (kind === "transition") {
      if (state === null) marks.push({ at: -Infinity, shown: details.from });
      state = details.to;
    } else mode = kind === "override_set" ? details.mode : null;
    marks.push({ at: Date.parse(time), shown: mode ?? state ?? one.view.state });
  }
  if (marks.length === 0 || marks[0].at > begin) {
    marks.unshift({ at: -Infinity, shown: one.moves.length > 0 ? "closed" : one.shown });
  }
  const all = [];
  for (const [index, { at, shown }] of marks.entries()) {
    const from = Math.max(at, begin);
    const to = Math.min(marks[index + 1]?.at ?? end, end);
    if (to <= from) continue;
    const last = all.at(-1);
    if (last?.state === shown) last.to = to;
    else all.push({ state: shown, from, to });
  }
  return all;
}
