//! What is logged on this thread.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::MakeWriter;

/// The lines that are logged on this thread while it lives.
pub(crate) struct Log {
    text: Text,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Text {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A second reader for the whole process: while there is only one, a place that logs for the first
/// time asks the reader of its own thread, and another test's thread has none. Then the place
/// would be silent for everybody.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

impl Log {
    pub(crate) fn capture() -> Self {
        Self::from(Level::INFO)
    }

    /// The same with what is only of use for those who look for something.
    pub(crate) fn capture_all() -> Self {
        Self::from(Level::DEBUG)
    }

    fn from(level: Level) -> Self {
        LazyLock::force(&SECOND);
        let text = Text::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(text.clone())
            .with_max_level(level)
            .with_ansi(false)
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines with these words.
    pub(crate) fn lines(&self, words: &str) -> Vec<String> {
        let text = self.text.0.lock().unwrap();
        let text = String::from_utf8_lossy(&text);
        let wanted = text.lines().filter(|line| line.contains(words));
        wanted.map(str::to_owned).collect()
    }
}
