// The stream of what happens. It comes back by itself, whatever became of the server.

/** A stream that says nothing for so long may be dead without anybody having told. */
const SILENCE = 30_000;
const LONGEST = 8_000;

/** Calls `on.hello`, `on.event`, `on.status`, `on.lagged` with what comes, and `on.lost` when it breaks off. */
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
    for (const kind of ["hello", "event", "status", "lagged"]) {
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
      // A browser tries again after a broken connection, and gives up after any other answer.
      if (mine.readyState !== EventSource.CLOSED) return;
      clearTimeout(silent);
      silent = setTimeout(open, pause);
      pause = Math.min(pause * 2, LONGEST);
    };
  }

  open();
}
