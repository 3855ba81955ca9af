// Connects the parts of the page: messages of the server update the model, and the model updates
// the page.

import { Card } from "./card.js";
import * as address from "./address.js";
import { SPANS } from "./chart.js";
import { arrange, find, icon, make, plain, say, set, show } from "./dom.js";
import { Events } from "./events.js";
import { follow } from "./live.js";
import { GROUPS, Model } from "./model.js";
import { Desk } from "./operate.js";
import { Series } from "./series.js";
import { Tree } from "./tree.js";
import { HEALTH, rate, share, time, word, zone } from "./words.js";

/** Above this number, dependencies are shown as rows. */
const MANY = 12;
const TILES = { ...HEALTH, override: "Overridden" };

const model = new Model();
const cards = new Map();
const events = new Events(model);
const tree = new Tree();
const desk = new Desk((view, operation, span) => {
  model.take(view, performance.now());
  announce(`${view.name}: ${operation}${span} done.`);
  render();
});

let run = null;
let lastHeard = null;
let due = null;
/** What the list shows: the same as the address. */
let wanted = address.read(GROUPS);

const small = matchMedia("(max-width: 40rem)");
small.addEventListener("change", () => render());

const world = () => ({
  now: performance.now(),
  serverNow: model.serverNow,
  started: model.started,
  wide: model.dependencies.size <= MANY,
  small: small.matches,
  marks: (name) => model.marks(name),
});

// page

const does = {
  order: (name, operation) => desk.ask(name, operation),
  turned(name, expanded) {
    if (expanded || wanted.name === name) want({ name: expanded ? name : null });
    else render();
  },
  fetchPast,
};

const tiles = new Map(GROUPS.map((group) => {
  const number = make("span", { class: "number", text: "–" });
  const node = make("button", { type: "button", class: "tile", "data-group": group, "aria-pressed": "false",
    onclick: () => want({ show: wanted.show === group ? null : group }) }, icon(group), number, make("span", { class: "label", text: TILES[group] }));
  return [group, { node, number }];
}));
find("tiles").append(...[...tiles.values()].map((tile) => tile.node));
find("find").value = wanted.find;
find("find").addEventListener("input", () => want({ find: find("find").value.trim() }));
say(find("zone"), zone() === "UTC" ? "Times in UTC" : `Times in ${zone()}; the command line shows UTC`);
const columns = [...document.querySelectorAll("[data-order-by]")];
for (const button of columns) button.addEventListener("click", () => want({ order: button.dataset.orderBy }));
for (const skip of document.querySelectorAll("[data-skip]")) {
  // A link would take the place of the dependency in the address.
  skip.addEventListener("click", () => {
    find(skip.dataset.skip).focus();
    find(skip.dataset.skip).scrollIntoView();
  });
}

/** Changes what the list shows, and the address with it. */
function want(change) {
  wanted = { ...wanted, ...change };
  address.write(wanted);
  render();
}

/** Goes to the dependency of the address: its row is opened and comes into view. */
function goTo(name) {
  const card = cards.get(name);
  if (!card) return;
  card.chosen = true;
  render();
  card.node.scrollIntoView({ block: "start" });
}

addEventListener("hashchange", () => {
  wanted = address.read(GROUPS);
  find("find").value = wanted.find;
  render();
  goTo(wanted.name);
});

function render() {
  const now = world();
  const all = model.sorted(now.now, wanted.order);
  set(find("grid"), "class", now.wide ? "grid" : "grid rows");
  show(find("columns"), !now.wide);
  for (const name of cards.keys()) if (!model.dependencies.has(name)) cards.delete(name);
  const text = wanted.find.toLowerCase();
  // The dependency of the address is shown, whatever the filter says.
  const fits = (one) => one.name === wanted.name || ((wanted.show === null || one.isOf(wanted.show)) && one.name.toLowerCase().includes(text));
  const shown = all.filter(fits);
  for (const one of shown) cardOf(one.name).update(one, now);
  arrange(find("grid"), shown.map((one) => cards.get(one.name).node));
  summarise(all);
  const unknown = wanted.name !== null && all.length > 0 && !model.dependencies.has(wanted.name);
  say(find("shown"), `${shown.length === all.length ? all.length : `${shown.length} of ${all.length}`}${unknown ? `; there is none called ${wanted.name}` : ""}`);
  show(find("none"), shown.length === 0);
  say(find("none"), !model.isKnown ? "–" : all.length === 0 ? "No dependency has been started yet." : "No dependency matches.");
  for (const button of columns) set(button, "aria-pressed", button.dataset.orderBy === wanted.order);
}

function cardOf(name) {
  let card = cards.get(name);
  if (!card) {
    card = new Card(name, does);
    card.chosen = name === wanted.name ? true : null;
    cards.set(name, card);
  }
  return card;
}

function summarise(all) {
  const members = new Map(GROUPS.map((group) => [group, all.filter((one) => one.isOf(group)).length]));
  for (const [group, { node, number }] of tiles) {
    // Before the first answer nothing is known, and none is not the same as unknown.
    say(number, model.isKnown ? String(members.get(group)) : "–");
    set(node, "data-any", members.get(group) > 0);
    set(node, "aria-pressed", wanted.show === group);
  }
  const sum = (read) => all.reduce((whole, one) => whole + (read(one) ?? 0), 0);
  const calls = sum((one) => one.answers.calls);
  say(find("all-rate"), rate(all.some((one) => one.rate !== null) ? sum((one) => one.rate) : null));
  say(find("all-errors"), share(calls > 0 ? sum((one) => one.answers.errors) / calls : null));
  say(find("all-fallbacks"), share(calls > 0 ? sum((one) => one.answers.by_fallback) / calls : null));
  const [down, degraded] = [members.get("down"), members.get("degraded")];
  const state = down > 0 ? `${down} down – ` : degraded > 0 ? `${degraded} degraded – ` : "";
  const title = `${state}Breakerbox`;
  if (document.title !== title) document.title = title;
}

/** Batches rendering: events often arrive in bursts. */
function renderSoon() {
  due ??= setTimeout(() => { due = null; render(); events.render(); }, 100);
}

// screen reader announcements: a few words at a time

/** Most letters of one announcement. */
const SPOKEN = 200;

const news = new Map();
let speaking = null;

function tell(name, text) {
  news.set(name, text);
  speaking ??= setTimeout(() => {
    speaking = null;
    const all = [...news];
    news.clear();
    announce(all.length <= 3 ? all.map(([subject, said]) => `${subject}: ${brief(said)}.`).join(" ") : `${all.length} dependencies have changed their state.`);
  }, 500);
}

/** Returns the begin of a text that is too long to be listened to; the page has all of it. */
function brief(text) {
  const letters = [...String(text)];
  return letters.length <= SPOKEN ? String(text) : `${letters.slice(0, SPOKEN).join("")}…`;
}

function announce(text) {
  // EDGE-7: a cause or a reason comes from others. The same text twice is announced twice.
  find("announce").textContent = plain(text);
}

function tellEvent({ kind, subject, dependency, details }) {
  if (subject !== dependency) return;
  if (kind === "transition") tell(subject, `${word(details.to).toLowerCase()}, ${details.cause}`);
  if (kind === "override_set") tell(subject, `${word(details.mode).toLowerCase()} by ${details.by}, ${details.reason}`);
  if (kind === "override_removed") tell(subject, `no longer ${word(details.mode).toLowerCase()}`);
}

// server messages

/** Fetches earlier events, and those between two streams. */
async function catchUp(since) {
  try {
    const asked = Date.now();
    const answer = await fetch(`api/events?since=${since}`, { cache: "no-store" });
    // The header has whole seconds: a smaller difference means none.
    const ahead = Date.parse(answer.headers.get("date")) - (asked + Date.now()) / 2;
    model.ahead = Math.abs(ahead) > 2_000 ? ahead : 0;
    const page = await answer.json();
    for (const event of page.events) model.add(event, performance.now());
    renderSoon();
  } catch {
    // The stream breaks then too, and the next hello fetches again.
  }
}

// the past

const fetching = new Set();

async function fetchJson(path) {
  const answer = await fetch(path, { cache: "no-store" });
  return answer.ok ? answer.json() : null;
}

/** Fetches the last hour of all: the page opens with what has happened before. */
async function fetchHour() {
  try {
    const asked = performance.now();
    model.takePast(await fetchJson("api/series") ?? [], asked);
    render();
  } catch {
    // The stream breaks then too, and the next hello fetches again.
  }
}

/** Fetches the last hour or day of one, unless it is there. */
async function fetchPast(name, span) {
  const one = model.dependencies.get(name);
  const key = `${span} ${name}`;
  if (!one || one.detail.has(span) || fetching.has(key)) return;
  fetching.add(key);
  const [ms, , step] = SPANS[span];
  const asked = performance.now();
  try {
    const series = await fetchJson(`api/dependencies/${encodeURIComponent(name)}/series?step=${step}`);
    if (series) one.detail.set(span, one.since(asked, new Series(series, ms)));
    renderSoon();
  } catch {
    // The next render asks again.
  } finally {
    fetching.delete(key);
  }
}

function link(state, words) {
  set(find("link"), "data-link", state);
  say(find("link-words"), words);
  document.body.classList.toggle("stale", state === "lost");
  show(find("lost"), state === "lost");
}

follow({
  hello({ version, started_at: started }) {
    // A restarted server counts its events from one again.
    if (run !== null && run !== started) model.forget();
    run = started;
    model.started = Date.parse(started);
    say(find("version"), `${version}, up since ${time(started)}`);
    link("live", "Live");
    catchUp(model.lastId);
    tree.refresh();
    for (const one of model.dependencies.values()) one.detail.clear();
    if (model.dependencies.size > 0) fetchHour();
  },
  notes(notes) {
    model.notes = notes;
    renderSoon();
  },
  event(event) {
    lastHeard = Date.now();
    if (!model.add(event, performance.now())) return;
    tellEvent(event);
    tree.refresh(event.kind);
    const one = model.dependencies.get(event.dependency);
    if (one) cards.get(one.name)?.update(one, world());
    renderSoon();
  },
  status(views) {
    lastHeard = Date.now();
    const first = model.dependencies.size === 0;
    model.takeAll(views, performance.now());
    render();
    if (!first) return;
    // Only now are there dependencies that it can belong to.
    fetchHour();
    goTo(wanted.name);
  },
  lagged({ missed }) {
    model.missed += missed;
    catchUp(model.lastId);
  },
  lost() {
    link("lost", "Connection lost, trying again");
    const seen = lastHeard === null ? "" : ` The figures shown are from ${time(lastHeard)}.`;
    say(find("lost"), `The server does not respond.${seen} This page continues when the server is back.`);
  },
});

// Countdowns continue between messages.
setInterval(() => {
  if (document.hidden) return;
  const now = world();
  for (const one of model.dependencies.values()) cards.get(one.name)?.tick(one, now);
}, 250);
setInterval(() => {
  const { sampled } = model;
  model.tick(performance.now());
  if (sampled !== model.sampled && !document.hidden) render();
}, 1_000);
