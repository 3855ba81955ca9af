// Operator commands: a reason, an end, and the token. The token leaves this tab only in a request
// header.

import { find, say, show } from "./dom.js";
import { span, wait } from "./words.js";

const KEY = "breakerbox.token";
const ENDS = new Set(["open", "disable", "shadow"]);
const EFFECTS = {
  open: "Forces the breaker open. No call goes to the dependency; its fallbacks answer, or callers are refused.",
  close: "Removes any override and closes the breaker. Calls go to the dependency again.",
  disable: "Disables the breaker: every call goes to the dependency, and nothing is recorded.",
  shadow: "Admits every call and only measures: an event reports when the breaker would have opened.",
  reset: "Removes any override, closes the breaker, ends a pause and sets its counters to zero.",
  check: "Ends the wait of the open breaker: the next call is its probe.",
  restart: "Starts its workers anew with a fresh restart budget: a parked one, one that waits for its next try, and one that runs, once its calls have ended.",
  sign: "Changes need the admin token of this server. Reading does not.",
};
const TITLES = { open: "Open", close: "Close", disable: "Disable", shadow: "Shadow", reset: "Reset", check: "Check", restart: "Restart" };

export class Desk {
  /** `done` is called with the state of the dependency after an order. */
  constructor(done) {
    this.done = done;
    this.dialog = find("order");
    this.busy = false;
    find("order-form").addEventListener("submit", (event) => { event.preventDefault(); this.#send(); });
    find("order-cancel").addEventListener("click", () => this.dialog.close());
    find("sign").addEventListener("click", () => this.#sign());
    this.dialog.addEventListener("close", () => { find("order-token").value = ""; });
    this.#tell();
  }

  get token() {
    return sessionStorage.getItem(KEY);
  }

  #tell() {
    say(find("sign"), this.token ? "Sign out" : "Sign in");
  }

  #sign() {
    if (this.token) {
      sessionStorage.removeItem(KEY);
      this.#tell();
    } else this.ask(null, "sign");
  }

  /** Opens the dialog for an order, or for the token alone. */
  ask(name, operation) {
    const signs = operation === "sign";
    this.asked = { name, operation };
    say(find("order-title"), signs ? "Sign in" : `${TITLES[operation]} ${name}`);
    say(find("order-effect"), EFFECTS[operation]);
    say(find("order-do"), signs ? "Sign in" : TITLES[operation]);
    for (const id of ["order-reason", "order-for", "order-token"]) {
      find(id).value = "";
      find(id).removeAttribute("aria-invalid");
    }
    show(find("order-reason").parentNode, !signs);
    show(find("order-ends"), ENDS.has(operation));
    show(find("order-sign"), signs || !this.token);
    this.#problem("");
    this.dialog.showModal();
    find(signs ? "order-token" : "order-reason").focus();
  }

  #problem(text, field) {
    say(find("order-problem"), text);
    if (!field) return;
    find(field).setAttribute("aria-invalid", "true");
    find(field).focus();
  }

  async #send() {
    if (this.busy) return;
    for (const id of ["order-reason", "order-for", "order-token"]) find(id).removeAttribute("aria-invalid");
    const { name, operation } = this.asked;
    const token = this.token ?? find("order-token").value;
    if (operation === "sign") {
      if (token === "") return this.#problem("The token is missing.", "order-token");
      sessionStorage.setItem(KEY, token);
      this.#tell();
      return this.dialog.close();
    }
    const reason = find("order-reason").value.trim();
    if (reason === "") return this.#problem("A reason is missing.", "order-reason");
    const for_ms = ENDS.has(operation) ? span(find("order-for").value) : null;
    if (Number.isNaN(for_ms) || for_ms === 0) return this.#problem("This is not a duration such as 90s, 15m or 1h 30m.", "order-for");
    if (token === "") return this.#problem("The token is missing.", "order-token");
    this.busy = true;
    find("order-do").disabled = true;
    this.#problem("");
    try {
      await this.#order(name, operation, token, for_ms === null ? { reason } : { reason, for_ms });
    } finally {
      this.busy = false;
      find("order-do").disabled = false;
    }
  }

  async #order(name, operation, token, body) {
    let answer;
    let told;
    try {
      answer = await fetch(`api/dependencies/${encodeURIComponent(name)}/${operation}`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
        body: JSON.stringify(body),
        cache: "no-store",
      });
      told = await answer.json();
    } catch {
      return this.#problem(answer ? "The server's response cannot be read." : "The server cannot be reached. The change may not have been made.");
    }
    if (answer.ok) {
      sessionStorage.setItem(KEY, token);
      this.#tell();
      this.dialog.close();
      return this.done(told.dependency, operation, body.for_ms ? ` for ${wait(body.for_ms)}` : "");
    }
    if (answer.status === 401) {
      sessionStorage.removeItem(KEY);
      this.#tell();
      show(find("order-sign"), true);
    }
    const allowed = told.allowed ? ` Allowed: ${told.allowed}.` : "";
    this.#problem(`${told.detail ?? answer.statusText}.${allowed}`, answer.status === 401 ? "order-token" : null);
  }
}
