// Connects the parts of the page: messages of the server update the model, and the model updates
// the page.

import { Card } from "./card.js";
import { arrange, find, icon, make, say, set, show } from "./dom.js";
import { Events } from "./events.js";
import { follow } from "./live.js";
import { GROUPS, Model } from "./model.js";
import { Desk } from "./operate.js";
import { Tree } from "./tree.js";
import { count, rate, share, time, word } from "./words.js";

/** Above this number, dependencies are shown as rows. */
const MANY = 12;
const TILES = {
  open: ["open", "Open"],
  half_open: ["half_open", "Half-open"],
  degraded: ["degraded", "Degraded"],
  override: ["shadow", "Overridden"],
  closed: ["closed", "Healthy"],
};

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
let chosen = null;
let lastHeard = null;
let due = null;

const small = matchMedia("(max-width: 40rem)");
small.addEventListener("change", () => render());

const world = () => ({
  now: performance.now(),
  serverNow: Date.now() + model.ahead,
  started: model.started,
  wide: model.dependencies.size <= MANY,
  small: small.matches,
});

// page

const tiles = new Map(GROUPS.map((group) => {
  const [shape, text] = TILES[group];
  const number = make("span", { class: "number", text: "0" });
  const node = make("button", { type: "button", class: "tile", "data-group": group, "aria-pressed": "false",
    onclick: () => { chosen = chosen === group ? null : group; render(); } }, icon(shape), number, make("span", { class: "label", text }));
  return [group, { node, number }];
}));
find("tiles").append(...[...tiles.values()].map((tile) => tile.node));
find("find").addEventListener("input", render);

function render() {
  const now = world();
  const all = model.sorted(now.now);
  set(find("grid"), "class", now.wide ? "grid" : "grid rows");
  show(find("columns"), !now.wide);
  for (const name of cards.keys()) if (!model.dependencies.has(name)) cards.delete(name);
  for (const one of all) {
    let card = cards.get(one.name);
    if (!card) {
      card = new Card(one.name, (name, operation) => desk.ask(name, operation), render);
      cards.set(one.name, card);
    }
  }
  const text = find("find").value.trim().toLowerCase();
  const wanted = all.filter((one) => (chosen === null || one.group === chosen) && one.name.toLowerCase().includes(text));
  for (const one of wanted) cards.get(one.name).update(one, now);
  arrange(find("grid"), wanted.map((one) => cards.get(one.name).node));
  summarise(all);
  say(find("shown"), wanted.length === all.length ? String(all.length) : `${wanted.length} of ${all.length}`);
  show(find("none"), wanted.length === 0);
  say(find("none"), all.length === 0 ? "No dependency has been started yet." : "No dependency matches.");
}

function summarise(all) {
  for (const [group, { node, number }] of tiles) {
    const members = all.filter((one) => one.group === group).length;
    say(number, String(members));
    set(node, "data-any", members > 0);
    set(node, "aria-pressed", chosen === group);
  }
  const sum = (name) => all.reduce((whole, one) => whole + one.recent(name), 0);
  const seconds = Math.max(0, ...all.map((one) => one.recent("seconds")));
  const ended = sum("ended");
  say(find("all-rate"), rate(seconds > 0 ? sum("submitted") / seconds : null));
  say(find("all-errors"), share(ended > 0 ? sum("errors") / ended : null));
  say(find("all-fallbacks"), share(ended > 0 ? sum("fallback") / ended : null));
  const open = all.filter((one) => one.group === "open").length;
  const sick = all.filter((one) => ["half_open", "degraded"].includes(one.group)).length;
  const state = open > 0 ? `${open} open – ` : sick > 0 ? `${sick} degraded – ` : "";
  const title = `${state}Breakerbox`;
  if (document.title !== title) document.title = title;
}

/** Batches rendering: events often arrive in bursts. */
function renderSoon() {
  due ??= setTimeout(() => { due = null; render(); events.render(); }, 100);
}

// screen reader announcements: a few words at a time

const news = new Map();
let speaking = null;

function tell(name, text) {
  news.set(name, text);
  speaking ??= setTimeout(() => {
    speaking = null;
    const all = [...news];
    news.clear();
    announce(all.length <= 3 ? all.map(([subject, said]) => `${subject}: ${said}.`).join(" ") : `${all.length} dependencies have changed their state.`);
  }, 500);
}

function announce(text) {
  find("announce").textContent = text;
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
    model.takeAll(views, performance.now());
    render();
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
