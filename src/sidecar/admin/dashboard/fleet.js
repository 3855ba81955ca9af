// The replicas of a fleet as a grid: one row for each dependency, one column for each replica; many that all have
// closed are one line. They have no stream: they are fetched while the page is seen.

import { find, make, rebuild, say, show } from "./dom.js";
import { count } from "./words.js";

const PAUSE = 2_000;
/** Number of dependencies from which those that all replicas have closed are only counted. */
const MANY = 12;
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
  const all = names.map((name) => ({
    name,
    cells: fleet.replicas.map(({ dependencies }) => told(dependencies[name] ?? null)),
    known: shared(fleet.dependencies[name]),
  }));
  const rows = all.length > MANY ? all.filter((row) => !isCalm(row)) : all;
  const calm = all.length - rows.length;
  show(find("fleet-calm"), calm > 0);
  say(find("fleet-calm"), `${rows.length > 0 ? "The other " : ""}${count(calm, "dependency is", "dependencies are")} closed at every replica.`);
  const heads = ["dependency", ...fleet.replicas.map(({ name, self }) => self ? `${name} (this one)` : name), "fleet"];
  rebuild(find("fleet-grid"), [heads, rows], () => rows.length === 0 ? [] : [
    make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...rows.map(line)),
  ]);
}

/** True if no replica says anything else than that it lets calls through. */
function isCalm({ cells, known }) {
  return known === "–" && cells.every((cell) => cell === null || (cell.state === "closed" && !cell.evidence));
}

/** What is shown of a cell, without what changes all the time. */
function told(cell) {
  return cell === null ? null : { state: cell.state, evidence: cell.evidence };
}

function line({ name, cells, known }) {
  return make("tr", {}, make("th", { scope: "row", text: name }),
    ...cells.map((cell) => make("td", {}, state(cell))), make("td", {}, make("span", { class: "is long", text: known })));
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
  if (override !== null) parts.push(`by order: ${override}`);
  if (evidence > 0) parts.push(`${evidence} open by their own calls`);
  if (lease !== null) parts.push(`${lease.holder} probes`);
  else if (verdict !== null) parts.push(`${verdict.result}, said ${verdict.by}`);
  return parts.join("; ") || "–";
}

load();
setInterval(load, PAUSE);
document.addEventListener("visibilitychange", load);
