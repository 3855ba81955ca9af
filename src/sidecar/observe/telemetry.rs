//! Log output: its destination, its format and its filter.
//!
//! Events go to standard error, and results of commands to standard output, so that a pipe never
//! mixes them. The code that logs decides the content; nothing here filters by content.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};

use breakerbox_actors::{nearest_word, printable_json, printable_line};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Default filter without `RUST_LOG`. The client of NATS logs each attempt to connect, twice a second;
/// our own lines tell the reason once.
const DEFAULT_FILTER: &str = "info,async_nats=off";

/// Format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// For people: one line for each event, coloured on a terminal unless `NO_COLOR` is set.
    Pretty,
    /// For machines: one JSON object a line, with the event's fields beside `timestamp`, `level`,
    /// `message`.
    Json,
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
}

/// Proof that log output is set up, for the rest of the process.
#[derive(Debug)]
#[non_exhaustive]
pub struct Telemetry {}

/// Error of setting up log output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error(
        "RUST_LOG is {given:?}, allowed: directives such as \"info,breakerbox=debug\": {source}"
    )]
    Filter {
        /// The given filter.
        given: String,
        /// The parse error.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Log output is set up already; the earlier set-up stays.
    #[error("log output is set up already, allowed: to set it up once in a process")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

impl Telemetry {
    /// Sends the events of the whole process to standard error.
    ///
    /// `RUST_LOG` selects events; the default is INFO and above. `NO_COLOR` is respected.
    ///
    /// # Errors  [`TelemetryError`]: an invalid `RUST_LOG`, or log output that was set up before.
    pub fn init(format: Format) -> Result<Self, TelemetryError> {
        let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let terminal = std::io::stderr().is_terminal();
        let format = match format {
            Format::Auto if terminal => Format::Pretty,
            Format::Auto => Format::Json,
            chosen => chosen,
        };
        let filter = set("RUST_LOG").unwrap_or_else(|| DEFAULT_FILTER.to_owned());
        let colour = terminal && set("NO_COLOR").is_none();
        subscriber(format, &filter, colour, std::io::stderr)?.try_init()?;
        Ok(Self {})
    }

    /// Checks `RUST_LOG` as [`Telemetry::init`] does, without setting anything up.
    ///
    /// # Errors  [`TelemetryError::Filter`].
    pub fn check() -> Result<(), TelemetryError> {
        let given = std::env::var("RUST_LOG").unwrap_or_default();
        parse_filter(&given).map(drop)
    }
}

/// Crates with events that a filter may choose.
const TARGETS: [&str; 22] = [
    "actix",
    "actix_rt",
    "async_nats",
    "axum",
    "breakerbox",
    "breakerbox_actors",
    "breakerbox_policy",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "notify",
    "opentelemetry",
    "opentelemetry_sdk",
    "reqwest",
    "rmcp",
    "rustls",
    "tokio",
    "tonic",
    "tower",
    "tower_http",
    "tracing",
];
/// Levels of events.
const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// Returns the warning about a word of `RUST_LOG` that is neither a level nor a known target: as the
/// name of a target it silences everything else.
///
/// # Source  Rule EDGE-7 in docs/rules.md.
pub fn doubtful_filter() -> Option<String> {
    doubtful(&std::env::var("RUST_LOG").unwrap_or_default())
}

fn doubtful(filter: &str) -> Option<String> {
    let is_known = |word: &str| {
        let lower = word.to_ascii_lowercase();
        let begin = word.split("::").next().unwrap_or(word).replace('-', "_");
        let is_number = word.len() == 1 && word.bytes().all(|byte| byte.is_ascii_digit());
        LEVELS.contains(&&*lower) || is_number || TARGETS.contains(&&*begin)
    };
    let words = filter
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    let mut words = words.filter(|word| !word.contains(['=', '[']));
    let word = words.find(|word| !is_known(word))?;
    let near = nearest_word(&word.to_ascii_lowercase(), LEVELS.into_iter());
    let near = near.map_or(".".to_owned(), |near| format!(", did you mean {near}?"));
    Some(format!(
        "RUST_LOG: {word:?} is no level{near} As a target it leaves out the events of all others"
    ))
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let bad = |source| TelemetryError::Filter {
        given: filter.to_owned(),
        source,
    };
    let mut parsed = EnvFilter::try_new(filter).map_err(bad)?;
    // A line about a change of a file would be the next change, if the log is a file there.
    for watcher in ["notify=off", "notify_debouncer_full=off"] {
        parsed = parsed.add_directive(watcher.parse().map_err(bad)?);
    }
    Ok(parsed)
}

/// A writer of log lines in which no character moves or reorders a terminal.
struct PrintableLines<W> {
    inner: W,
    json: bool,
    coloured: bool,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for PrintableLines<W> {
    type Writer = PrintableLines<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        PrintableLines {
            inner: self.inner.make_writer(),
            json: self.json,
            coloured: self.coloured,
        }
    }
}

impl<W: io::Write> io::Write for PrintableLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A line is written as a whole.
        let Ok(line) = std::str::from_utf8(bytes) else {
            return self.inner.write(bytes);
        };
        let clean = if self.json {
            printable_json(line)
        } else {
            printable_line(line, self.coloured)
        };
        match clean {
            Cow::Borrowed(_) => self.inner.write(bytes),
            Cow::Owned(clean) => self.inner.write_all(clean.as_bytes()).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Builds the subscriber that [`Telemetry::init`] installs.
fn subscriber<W>(
    format: Format,
    filter: &str,
    colour: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse_filter(filter)?;
    let json = matches!(format, Format::Json);
    let writer = PrintableLines {
        inner: writer,
        json,
        coloured: colour,
    };
    let lines = tracing_subscriber::fmt()
        // Reporting such an error to a closed standard error would panic in the thread that logs.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(writer);
    Ok(match format {
        Format::Json => Box::new(lines.json().flatten_event(true).finish()),
        Format::Pretty | Format::Auto => Box::new(lines.with_ansi(colour).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(dependency = "web_search", failures = 5, "breaker opened");
            tracing::debug!("too much");
        });
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn ops_1_a_json_line_has_the_fields_of_its_event() {
        let text = logged(Format::Json, "info");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "breaker opened");
        assert_eq!(line["dependency"], "web_search");
        assert_eq!(line["failures"], 5);
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn ops_1_a_pretty_line_is_plain_text_without_a_terminal() {
        let text = logged(Format::Pretty, "info");
        assert!(
            text.contains("breaker opened dependency=\"web_search\" failures=5"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn edge_7_e8e_no_log_line_moves_a_terminal() {
        for format in [Format::Json, Format::Pretty] {
            let captured = Captured::default();
            let writer = captured.clone();
            let subscriber = subscriber(format, "info", false, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(name = "\u{202e}evil", "\u{9b}2J{}\u{2066}", "\u{1b}[2J");
                // The writer writes a field of this kind as it is.
                tracing::warn!(cause = %"\u{1b}[2J\n12:00 INFO forged", "a cause");
            });
            let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
            let moving = ['\u{202e}', '\u{9b}', '\u{2066}', '\u{1b}'];
            assert!(!text.contains(moving), "{text:?}");
            assert!(text.contains("202e") && text.ends_with('\n'), "{text:?}");
            assert!(!text.contains("\n12:00"), "{text:?}");
        }
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        assert_eq!(logged(Format::Pretty, "debug").lines().count(), 2);
        assert_eq!(logged(Format::Pretty, "off"), "");
        let captured = Captured::default();
        let writer = captured.clone();
        let watching = subscriber(Format::Json, "trace", false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(watching, || {
            tracing::warn!(target: "notify::inotify", "a file has changed");
            tracing::error!(target: "notify_debouncer_full", "a file has changed");
        });
        assert!(
            captured.0.lock().unwrap().is_empty(),
            "a log that feeds itself"
        );
        let error = subscriber(Format::Json, "breakerbox=loud", false, io::sink)
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .starts_with("RUST_LOG is \"breakerbox=loud\""),
            "{error}"
        );
    }

    #[test]
    fn a_second_set_up_is_an_error_and_no_panic() {
        let first = Telemetry::init(Format::Json);
        let second = Telemetry::init(Format::Json);
        assert!(
            matches!(second, Err(TelemetryError::AlreadySet(_))),
            "{first:?}"
        );
    }

    #[test]
    fn edge_7_a_word_that_is_no_level_is_doubted() {
        let said = doubtful("inof").unwrap();
        assert!(said.contains("did you mean info?"), "{said}");
        assert!(doubtful("info,mymod").is_some());
        for good in [
            "",
            "info",
            "INFO,hyper",
            "breakerbox::mcp",
            "warn,h2=off",
            "2",
            "[call]",
        ] {
            assert_eq!(doubtful(good), None, "{good}");
        }
    }
}
