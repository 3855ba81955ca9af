// The replicas of a fleet as a grid: one row for each replica, one column for each dependency. They have no
// stream: they are fetched while the page is seen.

import { find, make, rebuild, say, show } from "./dom.js";

const PAUSE = 2_000;
const WORDS = { closed: "closed", open: "open", half_open: "half-open" };
const GOOD = { closed: "running", open: "stopped", half_open: "waiting" };

async function load() {
  if (document.hidden) return;
  try {
    const answer = await fetch("api/fleet", { cache: "no-store" });
    if (answer.ok) render(await answer.json());
  } catch {
    // The stream reports a lost server; the fleet is fetched again after it returns.
  }
}

function render(fleet) {
  show(find("fleet"), fleet !== null);
  if (fleet === null) return;
  const note = fleet.connected
    ? `${fleet.name}, as ${fleet.replica} sees it`
    : `${fleet.replica} decides alone: ${fleet.reason ?? "the board is not reached yet"}`;
  say(find("fleet-note"), note);
  const names = Object.keys(fleet.dependencies);
  const rows = fleet.replicas.map(({ name, self, dependencies }) =>
    [self ? `${name} (this one)` : name, ...names.map((one) => dependencies[one] ?? null)].map(told));
  const known = ["fleet", ...names.map((one) => shared(fleet.dependencies[one]))];
  rebuild(find("fleet-grid"), [names, rows, known], () => [
    make("thead", {}, make("tr", {}, ...["replica", ...names].map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...rows.map(line), make("tr", {}, ...known.map((text, at) =>
      make(at === 0 ? "th" : "td", at === 0 ? { scope: "row", text } : { text })))),
  ]);
}

/** What is shown of a cell, without what changes all the time. */
function told(cell) {
  if (cell === null || typeof cell === "string") return cell;
  return { state: cell.state, evidence: cell.evidence };
}

function line([name, ...cells]) {
  return make("tr", {}, make("th", { scope: "row", text: name }), ...cells.map((cell) => make("td", {}, state(cell))));
}

function state(cell) {
  if (cell === null) return make("span", { class: "lives", text: "–" });
  const word = WORDS[cell.state] ?? cell.state;
  const text = cell.evidence ? `${word}, by its own calls` : word;
  return make("span", { class: "is", "data-state": GOOD[cell.state] ?? "waiting", text });
}

/** What the fleet knows of one dependency. */
function shared({ evidence, lease, verdict, override }) {
  const parts = [];
  if (override !== null) parts.push(override);
  if (evidence > 0) parts.push(`${evidence} open by their own calls`);
  if (lease !== null) parts.push(`${lease.holder} probes`);
  else if (verdict !== null) parts.push(`${verdict.result}, said ${verdict.by}`);
  return parts.join("; ") || "–";
}

load();
setInterval(load, PAUSE);
document.addEventListener("visibilitychange", load);
