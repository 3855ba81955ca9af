// Pools and language models: who answers now, tokens, times and ends of streams, and the tokens at each limit. They
// have no stream: they are fetched while the page is seen.

import { find, make, rebuild, say, show } from "./dom.js";
import { count } from "./words.js";

const PAUSE = 5_000;
const WORDS = { ok: "well", degraded: "degraded", down: "down" };
const HEADS = ["model", "tokens in", "cached", "tokens out", "first content", "longest gap", "streams", "cut or failed"];
const number = new Intl.NumberFormat("en-GB");

async function load() {
  if (document.hidden) return;
  try {
    const answer = await fetch("api/models", { cache: "no-store" });
    if (answer.ok) render(await answer.json());
  } catch {
    // The stream reports a lost server; the models are fetched again after it returns.
  }
}

function render({ pools, models, token_limits: limits }) {
  show(find("models"), pools.length + models.length + limits.length > 0);
  const without = pools.filter((pool) => pool.health !== "ok").length;
  say(find("models-note"), without > 0 ? `${count(without, "pool is", "pools are")} without the first choice` : "");
  rebuild(find("pools-list"), pools, () => pools.map(pool));
  const rows = models.map(row);
  rebuild(find("models-grid"), rows, () => rows.length === 0 ? [] : [
    make("thead", {}, make("tr", {}, ...HEADS.map((text) => make("th", { scope: "col", class: text === HEADS[0] ? null : "number", text })))),
    make("tbody", {}, ...rows.map(([name, ...cells]) =>
      make("tr", {}, make("th", { scope: "row", text: name }), ...cells.map((text) => make("td", { class: "number", text }))))),
  ]);
  rebuild(find("limits-list"), limits, () => limits.map(limit));
}

function pool({ name, health, next, members }) {
  const below = members.map((member) => make("li", { class: "leaf" },
    make("span", { class: "child", text: member.name }), state(member.health),
    make("span", { class: "lives", text: `${member.in_flight} in flight` }),
    ...(member.health_reason ? [make("span", { class: "exit", text: member.health_reason })] : [])));
  return make("li", {},
    make("div", { class: "leaf" }, make("span", { class: "child", text: name }), state(health),
      make("span", { class: "lives", text: next === null ? "asks none now" : `asks ${next}` })),
    make("ul", {}, ...below));
}

function row({ dependency, model, tokens, streams, first_token: first, longest_gap: gap }) {
  const all = Object.values(streams).reduce((sum, one) => sum + one, 0);
  const bad = all - (streams.good ?? 0) - (streams.cancelled ?? 0);
  return [
    `${dependency}: ${model}`, number.format(tokens.input), number.format(tokens.cached_input),
    number.format(tokens.output), span(first), span(gap), number.format(all), number.format(bad),
  ];
}

/** The mean of some times, and the bound of nearly all of them. */
function span({ mean_ms: mean, p95_below_ms: most }) {
  if (mean === null) return "–";
  return most === null ? seconds(mean) : `${seconds(mean)} (95 % below ${seconds(most)})`;
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function limit({ dependency, of, reserved, available, burst, shared }) {
  const kind = of === "total" ? "tokens" : `${of} tokens`;
  return make("li", { class: "leaf" }, make("span", { class: "child", text: dependency }),
    make("span", { class: "lives", text: `${number.format(available)} of ${number.format(burst)} ${kind} left, ${number.format(reserved)} held${shared ? ", of the whole fleet" : ""}` }));
}

function state(health) {
  return make("span", { class: "is", "data-state": health === "ok" ? "running" : "stopped", text: WORDS[health] ?? health });
}

load();
setInterval(load, PAUSE);
document.addEventListener("visibilitychange", load);
