// Formatting of figures and states.

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const STATES = {
  closed: "Closed",
  open: "Open",
  half_open: "Half-open",
  forced_open: "Forced open",
  disabled: "Disabled",
  shadow: "Shadow",
};

export const HEALTH = { down: "Down", degraded: "Degraded", ok: "Healthy" };

export const word = (name) => STATES[name] ?? String(name);

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Time of day, with the date if it is not today. */
export function time(moment) {
  const at = new Date(moment);
  const today = at.toDateString() === new Date().toDateString();
  return today ? clock.format(at) : `${day.format(at)} ${clock.format(at)}`;
}

/** The zone in which times are shown, such as `UTC+01:00 (Europe/Berlin)`. */
export function zone() {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const minutes = -new Date().getTimezoneOffset();
  if (minutes === 0) return ["UTC", "Etc/UTC"].includes(timeZone) ? "UTC" : `UTC (${timeZone})`;
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  return `UTC${minutes < 0 ? "−" : "+"}${two(Math.abs(minutes) / 60)}:${two(Math.abs(minutes) % 60)} (${timeZone})`;
}

/** A wait, rounded up, so that it never ends later than shown. */
export function wait(ms) {
  const all = Math.max(0, Math.ceil(ms / 1000));
  const [days, hours] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24];
  const [minutes, seconds] = [Math.floor(all / 60) % 60, all % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds} s` : `${seconds} s`;
}

/** How long something has lasted, in one or two units. */
export function lasting(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function rate(perSecond) {
  if (perSecond === null) return "–";
  return perSecond > 0 && perSecond < 0.05 ? "<0.1/s" : `${short(perSecond)}/s`;
}

export function short(number) {
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)}M`;
  if (number >= 1e4) return `${(number / 1e3).toFixed(1)}k`;
  return number >= 100 || Number.isInteger(number) ? number.toFixed(0) : number.toFixed(1);
}

export function share(part) {
  if (part === null) return "–";
  const percent = part * 100;
  if (percent > 0 && percent < 0.1) return "<0.1 %";
  // Not all is never shown as all.
  if (percent < 100 && percent >= 99.5) return ">99 %";
  return percent === 0 || percent >= 10 ? `${percent.toFixed(0)} %` : `${percent.toFixed(1)} %`;
}

export function latency(ms) {
  if (ms === null) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 0 : 1)} s`;
  return `${ms.toFixed(ms >= 10 ? 0 : 1)} ms`;
}

export const count = (number, one, many) => `${short(number)} ${number === 1 ? one : many}`;

const UNITS = { ms: 1, s: 1e3, m: 6e4, min: 6e4, h: 36e5, d: 864e5 };

/** Milliseconds of a span such as `1h 30m`; null if empty, NaN if invalid. */
export function span(text) {
  const parts = text.trim().toLowerCase();
  if (parts === "") return null;
  if (!/^(\d+(\.\d+)?\s*(ms|s|m|min|h|d)\s*)+$/.test(parts)) return NaN;
  let ms = 0;
  for (const [, number, unit] of parts.matchAll(/(\d+(?:\.\d+)?)\s*([a-z]+)/g)) ms += Number(number) * UNITS[unit];
  return Math.round(ms);
}
