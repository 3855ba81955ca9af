// The event stream. It reconnects by itself, even after the server was restarted.

/** Silence after which a stream may be dead unnoticed, in milliseconds. */
const SILENCE = 30_000;
const LONGEST = 8_000;

/** Calls `on.hello`, `on.event`, `on.status`, `on.notes`, `on.lagged` for each message, and `on.lost` when the stream breaks. */
export function follow(on) {
  let source = null;
  let silent = null;
  let pause = 1_000;

  const heard = () => {
    clearTimeout(silent);
    silent = setTimeout(open, SILENCE);
  };

  function open() {
    source?.close();
    const mine = new EventSource("api/events/stream");
    source = mine;
    heard();
    for (const kind of ["hello", "event", "status", "notes", "lagged"]) {
      mine.addEventListener(kind, ({ data }) => {
        if (source !== mine) return;
        heard();
        if (kind === "hello") pause = 1_000;
        on[kind](JSON.parse(data));
      });
    }
    mine.onerror = () => {
      if (source !== mine) return;
      on.lost();
      // A browser retries after a broken connection, but gives up after an error response.
      if (mine.readyState !== EventSource.CLOSED) return;
      clearTimeout(silent);
      silent = setTimeout(open, pause);
      pause = Math.min(pause * 2, LONGEST);
    };
  }

  open();
}
