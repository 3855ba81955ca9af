//! Tail of a server's standard error: a bounded number of lines.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::lock::LockExt as _;
use breakerbox_actors::{printable, redact};

/// Maximum length of a kept line, in bytes.
const MAX_LINE: usize = 2048;
/// Maximum length of a line in an error, in letters.
const MAX_SHOWN: usize = 160;
/// Minimum length of a secret, in bytes: shorter texts are no secrets, and occur in many lines.
const SHORTEST_SECRET: usize = 4;

/// The lines of the current incarnation and of the previous one.
#[derive(Debug)]
pub(super) struct StderrTail {
    max: usize,
    secrets: Vec<String>,
    /// Length of the longest secret.
    longest: usize,
    lines: Mutex<TailLines>,
}

#[derive(Debug, Default)]
struct TailLines {
    now: VecDeque<String>,
    before: Vec<String>,
}

impl StderrTail {
    /// Creates an empty tail.
    ///
    /// # Units   `max`: number of lines kept.
    pub(super) fn new<'a>(max: usize, secrets: impl Iterator<Item = &'a str>) -> Self {
        let secrets = secrets.filter(|secret| secret.len() >= SHORTEST_SECRET);
        let secrets: Vec<String> = secrets.map(str::to_owned).collect();
        Self {
            max,
            longest: secrets.iter().map(String::len).max().unwrap_or(0),
            secrets,
            lines: Mutex::default(),
        }
    }

    /// Returns a line of the server's output for an error: short, printable, with secrets masked.
    pub(super) fn shown(&self, line: &[u8]) -> String {
        let line = self.masked(line);
        let line = printable(line.trim_start()).into_owned();
        match line.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }

    /// Keeps a line, with secrets masked.
    pub(super) fn keep(&self, line: &[u8]) {
        let line = self.masked(line);
        let mut lines = self.lines.acquire();
        if lines.now.len() >= self.max {
            lines.now.pop_front();
        }
        if self.max > 0 && !line.is_empty() {
            lines.now.push_back(line);
        }
    }

    /// Returns the beginning of a line with secrets masked.
    fn masked(&self, line: &[u8]) -> String {
        let room = self.room();
        let is_cut = line.len() >= room;
        let line = String::from_utf8_lossy(&line[..line.len().min(room)]);
        let mut line = line.trim_end().to_owned();
        for secret in &self.secrets {
            if line.contains(secret.as_str()) {
                line = line.replace(secret.as_str(), "***");
            }
        }
        if is_cut {
            // It may end with the first part of a secret, which cannot be recognised.
            let rest = line.len().saturating_sub(self.longest);
            while line.len() > rest {
                line.pop();
            }
        }
        redact(&line).into_owned()
    }

    /// Returns the number of bytes of a line needed to mask its kept part.
    fn room(&self) -> usize {
        MAX_LINE + self.longest
    }

    /// Begins the next incarnation: the current lines become those of the previous one.
    pub(super) fn turn_over(&self) {
        let mut lines = self.lines.acquire();
        let now = std::mem::take(&mut lines.now);
        lines.before = now.into();
    }

    /// Returns the lines of the current incarnation.
    pub(super) fn now(&self) -> Vec<String> {
        self.lines.acquire().now.iter().cloned().collect()
    }

    /// Returns the last lines of the previous incarnation.
    pub(super) fn before(&self) -> Vec<String> {
        self.lines.acquire().before.clone()
    }

    /// Returns the last line, for the report of an end.
    pub(super) fn last(&self) -> Option<String> {
        self.lines.acquire().now.back().cloned()
    }
}

/// Reads lines until the end of the input, in the memory of one line.
pub(super) async fn listen(mut from: impl AsyncRead + Unpin, stderr_tail: &StderrTail) {
    let mut piece = [0; 4096];
    let mut line = Vec::new();
    loop {
        let length = match from.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        for part in piece[..length].split_inclusive(|byte| *byte == b'\n') {
            let room = stderr_tail.room().saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                stderr_tail.keep(&line);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        stderr_tail.keep(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_leaves_the_last_lines_and_no_secret() {
        let stderr_tail = StderrTail::new(3, ["hunter22", "abc"].into_iter());
        let mut text = "x".repeat(100_000).into_bytes();
        for number in 0..1000 {
            text.extend_from_slice(format!("\nline {number} hunter22 abc").as_bytes());
        }
        listen(&text[..], &stderr_tail).await;
        assert_eq!(
            stderr_tail.now(),
            [997, 998, 999].map(|number| format!("line {number} *** abc"))
        );
        assert!(
            text.len() > 100_000 && stderr_tail.now().iter().all(|line| line.len() <= MAX_LINE)
        );
        stderr_tail.turn_over();
        assert!(stderr_tail.now().is_empty());
        assert_eq!(stderr_tail.before().len(), 3);
    }

    #[test]
    fn sec_1_no_part_of_a_secret_is_left_where_a_line_is_cut() {
        let secret = "s".repeat(100);
        let stderr_tail = StderrTail::new(9, [secret.as_str()].into_iter());
        for before in MAX_LINE - 150..MAX_LINE + 150 {
            let line = "x".repeat(before) + &secret + &secret;
            stderr_tail.keep(line.as_bytes());
            assert!(!stderr_tail.last().unwrap().contains('s'), "after {before}");
        }
    }

    #[test]
    fn edge_7_sec_1_a_line_in_an_error_is_short_printable_and_without_secrets() {
        let stderr_tail = StderrTail::new(9, ["hunter22"].into_iter());
        let shown = stderr_tail.shown("  \u{1b}[2K hunter22 http://a:b@c/?d=e\r\n".as_bytes());
        assert_eq!(shown, "\\u{1b}[2K *** http://***@c/?***");
        let shown = stderr_tail.shown("x".repeat(9000).as_bytes());
        assert_eq!(shown.chars().count(), MAX_SHOWN + 1);
    }

    #[tokio::test]
    async fn none_are_kept_where_none_are_wanted() {
        let stderr_tail = StderrTail::new(0, std::iter::empty());
        listen(&b"one\ntwo"[..], &stderr_tail).await;
        assert!(stderr_tail.now().is_empty());
    }
}
