// The state of the page in its address, so that a link shows the same: `#payments` opens that row,
// `#payments?show=down&order=calls&find=pay` filters and orders the list too.

/** What the list can be ordered by; the first is the default. */
export const ORDERS = ["sick", "name", "calls", "errors", "latency"];

/** Reads the address: `{name, show, order, find}`; what is missing is `null`, `"sick"` or empty. */
export function read(groups) {
  const text = location.hash.slice(1);
  const cut = text.indexOf("?");
  const options = new URLSearchParams(cut < 0 ? "" : text.slice(cut + 1));
  const show = options.get("show");
  const order = options.get("order");
  return {
    name: decode(cut < 0 ? text : text.slice(0, cut)),
    show: groups.includes(show) ? show : null,
    order: ORDERS.includes(order) ? order : ORDERS[0],
    find: options.get("find") ?? "",
  };
}

/** An address that was cut off by a mail program is not an error of the page. */
function decode(text) {
  try {
    return text === "" ? null : decodeURIComponent(text);
  } catch {
    return null;
  }
}

/** Puts the state into the address, without a new step in the browser's history. */
export function write({ name, show, order, find }) {
  const options = new URLSearchParams();
  if (show !== null) options.set("show", show);
  if (order !== ORDERS[0]) options.set("order", order);
  if (find !== "") options.set("find", find);
  const query = options.toString();
  const hash = `${name === null ? "" : encodeURIComponent(name)}${query === "" ? "" : `?${query}`}`;
  const wanted = hash === "" ? location.pathname + location.search : `#${hash}`;
  if (location.hash !== (hash === "" ? "" : `#${hash}`)) history.replaceState(null, "", wanted);
}
