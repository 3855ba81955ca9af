// Creates and changes nodes. Texts are untrusted: they only ever become text nodes.

const SVG = "http://www.w3.org/2000/svg";

// EDGE-7: control characters, and marks that reorder what is beside them: a name could look like another.
const MOVING = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** Returns a text in which such characters are written out. */
export function plain(text) {
  return String(text ?? "").replace(MOVING, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

export const find = (id) => document.getElementById(id);

/** Creates an element with attributes and children; `on…` are listeners, `text` is its text. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = plain(value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : plain(value));
  }
  node.append(...children.map((child) => (child instanceof Node ? child : plain(child))));
  return node;
}

/** Sets a text only if it differs, to avoid needless redrawing and announcements. */
export function say(node, text) {
  const clean = plain(text);
  if (node.textContent !== clean) node.textContent = clean;
}

export function set(node, name, value) {
  const text = plain(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** Gives a parent these children in this order, with the fewest moves, and keeps the focus. */
export function arrange(parent, wanted) {
  const focused = document.activeElement;
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const child of wanted) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

/** Rebuilds children only if their data has changed. */
export function rebuild(parent, shown, children) {
  const key = JSON.stringify(shown);
  if (parent.shown === key) return;
  parent.shown = key;
  parent.replaceChildren(...children());
}

// Each group has its own shape, so that colour alone never distinguishes them.
const SHAPES = {
  ok: ["M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13Z", "M4.9 8.2l2.2 2.2l4-4.4"],
  down: ["M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3Z", "M5 8h6"],
  degraded: ["M8 1.8l6.6 12H1.4Z", "M8 6.2v3.6M8 11.9v.1"],
  override: ["M3 7h10v7.5H3Z", "M5.2 7V4.8a2.8 2.8 0 0 1 5.6 0V7"],
};

export function icon(shape) {
  const [body, mark] = SHAPES[shape];
  return draw("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", "data-shape": shape },
    draw("path", { class: "shape", d: body }), draw("path", { class: "mark", d: mark }));
}
