// The data of the page: the state of each dependency, its last hour, the events and the notes. It
// draws nothing.

import { Series } from "./series.js";

/** Samples that are kept: seconds over which a figure is averaged. */
const RECENT = 5;
/** Same as the capacity of the server's history. */
const MAX_EVENTS = 1024;
const HOUR = 3_600_000;

/** Milliseconds for which a recovered dependency keeps its place, so that the order stays calm. */
const CALM = 5_000;

/** Health as callers find it, most severe first. */
export const GROUPS = ["down", "degraded", "override", "ok"];

export class Dependency {
  constructor(name) {
    this.name = name;
    this.view = null;
    this.before = null;
    this.samples = [];
    this.moves = [];
    this.until = null;
    this.wait = null;
    /** The last hour in steps of 30 s, and, once its details are shown, finer ones by span. */
    this.past = null;
    this.detail = new Map();
    this.sickUntil = -Infinity;
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

  /** The group by health. An override of a healthy dependency is a group of its own. */
  get group() {
    const { health, override } = this.view;
    if (health === "down" || health === "degraded") return health;
    return override ? "override" : "ok";
  }

  /** True if a tile of this name counts and shows it. A sick one with an override is of two tiles. */
  isOf(group) {
    return this.group === group || (group === "override" && this.view.override !== null);
  }

  /** What callers got over the last half minute. */
  get answers() {
    return this.view.answers;
  }

  /** The standing outage, or null. */
  get outage() {
    return this.view.outage;
  }

  /** True while it is sick, and for a calm period afterwards. */
  isSick(now) {
    const sick = ["down", "degraded"].includes(this.group);
    if (sick) this.sickUntil = now + CALM;
    return sick || now < this.sickUntil;
  }

  /** Errors each second in coarse steps, so that small changes do not move a row. */
  get affected() {
    const each = this.answers.errors_per_second;
    return each > 0 ? Math.round(Math.log2(each)) : -Infinity;
  }

  /** Records the increase since the last sample. The server sends counters; rates are computed here. */
  sample(now, serverNow) {
    const { totals, latency_ms: taken } = this.view;
    const errors = totals.failed + totals.refused;
    const counters = {
      at: now,
      submitted: totals.submitted,
      errors,
      ended: totals.primary + totals.fallback + errors,
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
    const sample = { at: now, until: serverNow, seconds: (now - before.at) / 1000 };
    for (const name of ["submitted", "errors", "ended", "attempts", "spent"]) sample[name] = counters[name] - before[name];
    this.samples.push(sample);
    if (this.samples.length > RECENT) this.samples.shift();
    for (const series of [this.past, ...this.detail.values()]) continueWith(series, sample);
  }

  /** Continues a series that was asked for at a moment with the samples since then. */
  since(asked, series) {
    for (const sample of this.samples) if (sample.at > asked) continueWith(series, sample);
    return series;
  }

  #ratio(part, whole) {
    const sum = (name) => this.samples.reduce((all, sample) => all + sample[name], 0);
    const all = sum(whole);
    return all > 0 ? sum(part) / all : null;
  }

  /** Calls each second, over the last seconds. */
  get rate() {
    return this.#ratio("submitted", "seconds");
  }

  /** Mean duration of an attempt, over the last seconds, in milliseconds. */
  get latency() {
    return this.#ratio("spent", "attempts");
  }
}

function continueWith(series, { until, seconds, ended, errors }) {
  series?.add(until - seconds * 1000, until, ended, errors);
}

export class Model {
  constructor() {
    this.dependencies = new Map();
    this.events = new Map();
    this.notes = [];
    /** Time of the last sample. The first status is one, or the chart would lack the calls up to the next. */
    this.sampled = -Infinity;
    this.missed = 0;
    /** Lead of the server's clock over this one, in milliseconds. */
    this.ahead = 0;
    /** Start time of the server's runtime. */
    this.started = -Infinity;
    /** True once the server has told all dependencies. */
    this.isKnown = false;
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
      one.past = null;
      one.detail.clear();
    }
  }

  get serverNow() {
    return Date.now() + this.ahead;
  }

  /** Applies the last hour of all dependencies, which was asked for at a moment. */
  takePast(all, asked) {
    for (const series of all) {
      const one = this.dependencies.get(series.dependency);
      if (one) one.past = one.since(asked, new Series(series, HOUR));
    }
  }

  /** Applies the full list of dependencies from the server. */
  takeAll(views, now) {
    this.isKnown = true;
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
    if (this.dependencies.size > 0 && now - this.sampled >= 1400) this.sample(now);
  }

  sample(now) {
    this.sampled = now;
    for (const one of this.dependencies.values()) one.sample(now, this.serverNow);
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

  /** Orders the dependencies; by default the sick ones come first, by the callers that they affect. */
  sorted(now, order) {
    const all = [...this.dependencies.values()];
    const byName = (a, b) => a.name.localeCompare(b.name);
    const falling = (read) => (a, b) => (read(b) ?? -1) - (read(a) ?? -1) || byName(a, b);
    if (order === "name") return all.sort(byName);
    if (order === "calls") return all.sort(falling((one) => one.rate));
    if (order === "errors") return all.sort(falling((one) => one.answers.errors_per_second));
    if (order === "latency") return all.sort(falling((one) => one.latency));
    const ranks = new Map(all.map((one) => [one, [one.isSick(now) ? 0 : 1, -one.affected, GROUPS.indexOf(one.group)]]));
    return all.sort((a, b) => {
      const [left, right] = [ranks.get(a), ranks.get(b)];
      const at = left.findIndex((rank, index) => rank !== right[index]);
      return at < 0 ? byName(a, b) : left[at] < right[at] ? -1 : 1;
    });
  }

  /** Marks on the chart of a dependency, oldest first: what changed it, and notes. */
  marks(name) {
    const all = [];
    for (const event of this.events.values()) {
      const kind = markOf(event, name);
      if (kind !== null) all.push({ at: Date.parse(event.time), kind, text: event.message });
    }
    for (const note of this.notes) {
      if (note.dependency === null || note.dependency === name) all.push({ at: Date.parse(note.time), kind: "note", text: note.text });
    }
    return all.sort((a, b) => a.at - b.at);
  }
}

/** Kind of an event's mark on the chart of a dependency; null if it has none. */
function markOf({ kind, subject, dependency, details }, name) {
  if (kind === "reload_applied") return "order";
  if (dependency !== name) return null;
  if (kind === "transition" && subject === name) return details.from === "closed" ? "open" : details.to === "closed" ? "closed" : null;
  if (["operated", "override_set", "override_removed"].includes(kind)) return "order";
  return ["parked", "gave_up", "misconfigured"].includes(kind) ? "open" : null;
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
