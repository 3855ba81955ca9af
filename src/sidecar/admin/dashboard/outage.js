// What is wrong with a dependency, in sentences: since when and by what cause, why, what callers
// get, and what to do.

import { count, lasting, sentence, share, short, time, wait, word } from "./words.js";

/** What to do about answers that are no fault of the dependency's program. */
const STATUS_ADVICE = {
  402: () => "Fill up the account with it, or raise its limit.",
  429: ({ rate_limit: limit }) => `It wants fewer calls: ${limit ? "lower rate_limit" : "set a rate_limit"} or raise the quota with it.`,
};

/** What to do about connections that come to nothing, by the words of the cause. */
const CONNECTION_ADVICE = [
  [/certificate/, "Look at its certificate: its names, its end, and who signed it."],
  [/name not found/, "Its name is not known: check url and the name servers."],
  [/process ended/, "Its process ends: look at its last exit and its last lines in the details."],
  [/not TLS|not HTTP|was expected/, "What answers there speaks another protocol: check scheme and port of url, and http_version."],
];

/** The advice for a lost connection with these words, if there is one. */
const byWords = (cause) => CONNECTION_ADVICE.find(([words]) => words.test(cause.text))?.[1];

/** What wants the operator's eye first, by the kind of the first cause. */
const ADVICE = {
  status: (outage, view) => STATUS_ADVICE[outage.cause.status]?.(view) ?? "Look at its own log, and at what was deployed last.",
  timeout: ({ cause }) => `It is slow or hangs: look at its load${cause.limit ? `; ${cause.limit} is the limit that cuts` : ""}.`,
  connect: ({ cause }, { upstream }) => byWords(cause) ?? `See whether it runs${upstream ? ` at ${upstream}` : ""} and can be reached from here.`,
  reset: ({ cause }) => byWords(cause) ?? "It breaks connections off: look at its own log.",
  crash: () => "Our worker for it crashes: look at the last exit in the details.",
  hang: () => "It takes calls and answers none: look at its load, and at what it waits for.",
  slow: () => "It answers, but too slowly: look at its load.",
  parked: () => "Remove the cause of the crashes, then restart its workers.",
  overload: ({ cause }) => `Calls in flight take too long, or are too many${cause.limit ? `: ${cause.limit} is the limit` : ""}.`,
  misconfigured: () => "It refuses our configuration: check credentials and address.",
};

/** True if the override is what callers notice first: it refuses them, or nothing else is wrong. A shadow lets all calls through. */
const isOrdered = ({ view, outage }) => Boolean(view.override) && (view.override.mode === "forced_open" || !(outage || view.health !== "ok"));

/** The words of an override. */
const order = (over) => `${over.by === "supervisor" ? "the supervisor" : "an operator"}: ${over.reason}`;

/** The head line of a sick dependency: what it is, since when, and the first cause; then its override. */
export function headline(one, serverNow) {
  const { view } = one;
  if (isOrdered(one)) return `By ${order(view.override)}`;
  const sick = sickness(one, serverNow);
  return view.override && sick ? `${sick}; ${word(view.override.mode).toLowerCase()} by ${order(view.override)}` : sick;
}

function sickness({ view, outage }, serverNow) {
  if (outage) {
    const ms = Math.max(outage.lasts_ms ?? 0, serverNow - Date.parse(outage.since));
    // Callers get its own answers again, and the breaker has not closed yet.
    const recovers = view.health === "ok" ? "It recovers from: " : "";
    return `${sentence(`${recovers}${outage.cause.text}`)}, since ${time(outage.since)} (${lasting(ms)})`;
  }
  if (view.health !== "ok") return sentence(view.health_reason ?? "Callers do not get its own answers");
  return "";
}

/** Why: the breaker's own words, unless they are said already. */
export function reason(one) {
  const { view, outage } = one;
  if (isOrdered(one)) return "";
  const rule = outage?.cause.rule ?? (view.state === "closed" ? "" : view.reason);
  const said = outage?.cause.text ?? view.health_reason ?? "";
  return said.includes(rule) ? "" : sentence(rule);
}

/** What callers get. */
export function callers(one) {
  const { calls, errors, by_fallback: helped, share: part, per_second: each, span_ms: span } = one.answers;
  const parts = [];
  if (calls === 0) parts.push(`no calls in the last ${wait(span)}`);
  else if (part === null) parts.push(`errors for ${errors} of ${count(calls, "call", "calls")} in the last ${wait(span)}`);
  else if (errors > 0) parts.push(`errors for ${share(part)} of ${short(each)} calls/s`);
  else parts.push(`${helped > 0 ? "all are answered" : "no errors"}, ${short(each)} calls/s`);
  if (helped > 0) parts.push(`a fallback's answer for ${share(helped / calls)}`);
  const affected = one.outage?.affected;
  if (affected) {
    const by = affected.by_fallback > 0 ? `, ${short(affected.by_fallback)} answered by fallbacks` : "";
    const errors = affected.errors > 0 ? count(affected.errors, "error", "errors") : "no errors";
    parts.push(`${errors} since it began${by}`);
  }
  return `Callers: ${parts.join("; ")}`;
}

/** What to do first. */
export function advice(one) {
  const { view, outage } = one;
  if (isOrdered(one)) return "";
  if (view.parked) return ADVICE.parked();
  if (view.pause?.reason === "quota_used_up") return STATUS_ADVICE[402]();
  const known = ADVICE[outage?.cause.kind];
  return known ? known(outage, view) : "Look at its own log.";
}

/** Results of the probes so far; empty if there were none. */
export function probes({ outage }) {
  if (!outage || outage.probes === 0) return "";
  const last = outage.last_probe && !outage.last_probe.succeeded ? `, the last with ${outage.last_probe.text}` : "";
  return `${short(outage.probes_failed)} of ${count(outage.probes, "probe", "probes")} failed${last}`;
}

/** What happens next by itself: `{text, part}`; `part` of the wait is left, or of the probes has succeeded. */
export function next(one, { now, serverNow }) {
  const { view, shown, until, wait: whole } = one;
  const over = view.override;
  if (over?.until) return { text: `Ends in ${wait(Date.parse(over.until) - serverNow)}`, part: null };
  if (over) return { text: "Until it is removed", part: null };
  if (shown === "open") {
    const left = until === null ? 0 : until - now;
    if (left <= 0) return { text: view.waits_for_call ? "Waits for a call to try it" : "Next probe with the next call", part: null };
    return { text: `Next probe in ${wait(left)}`, part: Math.min(1, left / whole.ms) };
  }
  if (shown === "half_open" && view.half_open) {
    const { successes, needed, in_flight: trying, results } = view.half_open;
    const waits = view.waits_for_call && trying === 0;
    if (waits && results === 0) return { text: "Waits for a call to try it", part: null };
    const then = trying > 0 ? `, ${trying} under way` : waits ? "; waits for a call to try it" : "";
    return { text: `${successes} of ${count(needed, "probe", "probes")} succeeded${then}`, part: needed > 0 ? successes / needed : null };
  }
  if (view.pause) return { text: `Paused for ${wait(view.pause.ends_in_ms)}`, part: null };
  return { text: "", part: null };
}

/** The breaker's state, second to the health, with the keys whose own breakers refuse calls meanwhile. */
export function breaker(one) {
  const state = `Breaker ${word(one.shown).toLowerCase()}`;
  const refused = one.view.keys.filter((key) => ["open", "forced_open"].includes(key.override?.mode ?? key.state));
  if (refused.length === 0 || one.shown !== "closed") return state;
  return `${state}, open for ${refused.length === 1 ? refused[0].key : count(refused.length, "key", "keys")}`;
}
