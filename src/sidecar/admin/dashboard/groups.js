// Groups of MCP servers with their members. They have no stream: they are fetched while the page is seen.

import { find, make, rebuild, say, show } from "./dom.js";
import { count } from "./words.js";

const PAUSE = 5_000;
const WORDS = { ok: "well", degraded: "degraded", down: "down" };

async function load() {
  if (document.hidden) return;
  try {
    const answer = await fetch("api/groups", { cache: "no-store" });
    if (answer.ok) render(await answer.json());
  } catch {
    // The stream reports a lost server; the groups are fetched again after it returns.
  }
}

function render(groups) {
  show(find("groups"), groups.length > 0);
  const sick = groups.filter((group) => group.health !== "ok").length;
  say(find("groups-note"), sick > 0 ? `${count(sick, "group has", "groups have")} sick members` : "");
  rebuild(find("groups-list"), groups, () => groups.map(item));
}

function item({ name, health, sessions, members }) {
  const below = members.map((member) => make("li", { class: "leaf" },
    make("span", { class: "child", text: member.name }), state(member.health),
    make("span", { class: "lives", text: `${member.prefix}_…` }),
    ...(member.health_reason ? [make("span", { class: "exit", text: member.health_reason })] : [])));
  return make("li", {},
    make("div", { class: "leaf" }, make("span", { class: "child", text: name }), state(health),
      make("span", { class: "lives", text: count(sessions, "session", "sessions") })),
    make("ul", {}, ...below));
}

function state(health) {
  return make("span", { class: "is", "data-state": health === "ok" ? "running" : "stopped", text: WORDS[health] ?? health });
}

load();
setInterval(load, PAUSE);
document.addEventListener("visibilitychange", load);
