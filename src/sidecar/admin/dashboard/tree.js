// The supervision tree, fetched again when a child starts or stops.

import { find, make, rebuild, say } from "./dom.js";
import { count } from "./words.js";

/** Above this number, groups start collapsed, unless a child in them is failing. */
const FEW = 8;
const CHANGES = new Set(["started", "ended", "restart_scheduled", "parked", "gave_up", "stuck", "removed", "draining"]);

export class Tree {
  constructor() {
    this.due = null;
    this.opened = new Map();
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
      if (!answer.ok) return say(find("tree-note"), told.detail ?? "");
      say(find("tree-note"), "");
      this.#show(told.children);
    } catch {
      // The stream reports a lost server; the tree is fetched again after it returns.
    }
  }

  #show(groups) {
    const open = groups.length <= FEW;
    rebuild(find("tree"), groups, () => groups.map((node) => this.#item(node, open, node.name)));
  }

  #item(node, open, path) {
    const line = [
      make("span", { class: "child", text: node.name }),
      make("span", { class: "is", "data-state": node.state, text: node.state }),
      make("span", { class: "lives", text: lives(node) }),
    ];
    if (node.last_exit) line.push(make("span", { class: "exit", text: node.last_exit }));
    if (!node.children?.length) return make("li", {}, make("div", { class: "leaf" }, ...line));
    const below = node.children.map((child) => this.#item(child, open, `${path}/${child.name}`));
    const details = make("details", {}, make("summary", {}, ...line), make("ul", {}, ...below));
    details.open = this.opened.get(path) ?? (open || !isWell(node));
    details.querySelector("summary").addEventListener("click", () => this.opened.set(path, !details.open));
    return make("li", {}, details);
  }
}

function lives({ incarnation, restarts }) {
  return restarts > 0 ? `life ${incarnation}, ${count(restarts, "restart", "restarts")}` : "";
}

function isWell(node) {
  return node.state === "running" && (node.children ?? []).every(isWell);
}
