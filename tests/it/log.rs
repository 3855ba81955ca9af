//! Capture of the current thread's log.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::MakeWriter;

/// The lines logged on this thread while the value lives.
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

/// A second subscriber for the whole process. With a single one, tracing caches the interest of a
/// callsite from the first thread that reaches it; another test's thread has no subscriber, so the
/// callsite would stay disabled for all threads.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

impl Log {
    pub(crate) fn capture() -> Self {
        Self::from(Level::INFO)
    }

    /// The same, including debug lines.
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

    /// The lines that contain this text.
    pub(crate) fn lines(&self, words: &str) -> Vec<String> {
        let text = self.text.0.lock().unwrap();
        let text = String::from_utf8_lossy(&text);
        let wanted = text.lines().filter(|line| line.contains(words));
        wanted.map(str::to_owned).collect()
    }
}
