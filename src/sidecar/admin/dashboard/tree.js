// The supervision tree, fetched again when a child starts or stops. What runs is one line; only the
// rest is listed, and the whole tree on request.

import { find, make, rebuild, say, show } from "./dom.js";
import { count } from "./words.js";

const CHANGES = new Set(["started", "ended", "restart_scheduled", "parked", "gave_up", "stuck", "removed", "draining"]);

export class Tree {
  constructor() {
    this.due = null;
    this.groups = [];
    this.closed = new Set();
    find("tree-whole").addEventListener("toggle", () => this.#whole());
  }

  /** Batches requests: several children often stop together. */
  refresh(kind) {
    if (kind !== undefined && !CHANGES.has(kind)) return;
    this.due ??= setTimeout(() => { this.due = null; this.#load(); }, 300);
  }

  async #load() {
    try {
      const answer = await fetch("api/tree", { cache: "no-store" });
      const told = await answer.json();
      say(find("tree-note"), answer.ok ? "" : told.detail ?? "");
      if (!answer.ok) return;
      this.groups = told.children;
      this.#sick();
      this.#whole();
    } catch {
      // The stream reports a lost server; the tree is fetched again after it returns.
    }
  }

  /** The children that do not run, with their groups. */
  #sick() {
    const all = this.groups.flatMap((node) => flat(node, ""));
    const sick = all.filter(({ node }) => node.state !== "running");
    const restarted = all.filter(({ node }) => node.restarts > 0).length;
    const runs = all.length - sick.length;
    const again = restarted > 0 ? `, ${restarted} of them after a restart` : "";
    say(find("tree-runs"), `${count(runs, "actor runs", "actors run")}${again}.`);
    show(find("tree"), sick.length > 0);
    rebuild(find("tree"), sick, () => sick.map(({ node, path }) => make("li", {}, make("div", { class: "leaf" }, ...line(node, path)))));
  }

  #whole() {
    if (!find("tree-whole").open) return find("tree-all").replaceChildren();
    find("tree-all").shown = undefined;
    rebuild(find("tree-all"), this.groups, () => this.groups.map((node) => this.#item(node, node.name)));
  }

  #item(node, path) {
    if (!node.children?.length) return make("li", {}, make("div", { class: "leaf" }, ...line(node, node.name)));
    const below = node.children.map((child) => this.#item(child, `${path}/${child.name}`));
    const details = make("details", {}, make("summary", {}, ...line(node, node.name)), make("ul", {}, ...below));
    details.open = !this.closed.has(path);
    details.addEventListener("toggle", () => { if (details.open) this.closed.delete(path); else this.closed.add(path); });
    return make("li", {}, details);
  }
}

/** All nodes at and below one, each with the names above it. */
function flat(node, above) {
  const path = above === "" ? node.name : `${above} / ${node.name}`;
  return [{ node, path }, ...(node.children ?? []).flatMap((child) => flat(child, path))];
}

function line(node, name) {
  const parts = [
    make("span", { class: "child", text: name }),
    make("span", { class: "is", "data-state": node.state, text: node.state }),
  ];
  if (node.restarts > 0) parts.push(make("span", { class: "lives", text: `life ${node.incarnation}, ${count(node.restarts, "restart", "restarts")}` }));
  if (node.last_exit) parts.push(make("span", { class: "exit", text: node.last_exit }));
  return parts;
}
