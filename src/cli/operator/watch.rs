//! `breakerbox status --watch`: the status again and again, until interrupted.
//!
//! On a terminal it has a screen of its own, as `top` does, which is given back at the end. Elsewhere
//! it prints the changes.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::client::{ClientError, RemoteAdmin};
use super::overview::Overview;
use super::terminal::{Terminal, cut};
use super::{Status, ask, show};
use crate::cli::ExitReason;

/// Refresh interval.
const EVERY: Duration = Duration::from_secs(1);

/// The other screen, without a cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
/// Back to the screen before, with its cursor.
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
const HOME: &str = "\u{1b}[H";
/// Clears the rest of a line.
const REST_OF_LINE: &str = "\u{1b}[K";
/// Clears the lines below.
const REST: &str = "\u{1b}[J";

/// Shows the status until interrupted, and waits for a server that is away for a while.
pub(super) async fn watch(
    status: &Status,
    remote: &RemoteAdmin,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    // Its first answer decides whether there is anything to watch.
    let first = match ask(status, remote).await {
        Ok(answer) => answer,
        Err(failure) => return super::tell(&failure, err),
    };
    let signals = WatchSignals::new()?;
    if Terminal::of_stdout().is_none() || status.json {
        return follow(status, remote, (first, signals), out, err).await;
    }
    write!(out, "{ENTER}")?;
    let ended = redraw(status, remote, (first, signals), out).await;
    // The terminal is as before, after an error too.
    write!(out, "{LEAVE}")?;
    out.flush()?;
    match ended? {
        Ok(end) => Ok(end),
        Err(failure) => super::tell(&failure, err),
    }
}

/// Prints the status whenever it has changed.
async fn follow(
    status: &Status,
    remote: &RemoteAdmin,
    (first, mut signals): (Value, WatchSignals),
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let mut shown = None;
    let mut next: Result<Value, ClientError> = Ok(first);
    loop {
        match next {
            Ok(answer) if shown.as_ref() != Some(&answer) => {
                show(status, &answer, out)?;
                if !status.json {
                    writeln!(out)?;
                }
                out.flush()?;
                shown = Some(answer);
            }
            Ok(_as_before) => {}
            Err(failure) if failure.is_away() => writeln!(err, "breakerbox: {failure}")?,
            Err(failure) => return super::tell(&failure, err),
        }
        let asking = async {
            tokio::time::sleep(EVERY).await;
            ask(status, remote).await
        };
        tokio::pin!(asking);
        next = loop {
            tokio::select! {
                answer = &mut asking => break answer,
                signal = signals.next() => match signal {
                    WatchSignal::End => return Ok(ExitReason::Interrupted),
                    WatchSignal::Resized => {}
                },
            }
        };
    }
}

/// Draws the status on the whole screen again and again.
async fn redraw(
    status: &Status,
    remote: &RemoteAdmin,
    (first, mut signals): (Value, WatchSignals),
    out: &mut dyn Write,
) -> io::Result<Result<ExitReason, ClientError>> {
    let mut shown = first;
    let mut trouble: Option<(Instant, ClientError)> = None;
    loop {
        let terminal = Terminal::of_stdout();
        let lines = match terminal {
            Some(terminal) => frame(status, &shown, trouble.as_ref(), terminal)?,
            // The terminal is gone.
            None => return Ok(Ok(ExitReason::Interrupted)),
        };
        write!(out, "{HOME}")?;
        for (number, line) in lines.iter().enumerate() {
            // Without a line break at the end, which would scroll a full screen.
            let new = if number == 0 { "" } else { "\r\n" };
            write!(out, "{new}{line}{REST_OF_LINE}")?;
        }
        write!(out, "{REST}")?;
        out.flush()?;
        let asking = async {
            tokio::time::sleep(EVERY).await;
            ask(status, remote).await
        };
        let answer = tokio::select! {
            answer = asking => answer,
            signal = signals.next() => match signal {
                WatchSignal::End => return Ok(Ok(ExitReason::Interrupted)),
                // Drawn anew, with the last answer.
                WatchSignal::Resized => continue,
            },
        };
        match answer {
            Ok(answer) => {
                shown = answer;
                trouble = None;
            }
            Err(failure) if failure.is_away() => {
                let since = trouble.map_or_else(Instant::now, |(since, _)| since);
                trouble = Some((since, failure));
            }
            Err(failure) => return Ok(Err(failure)),
        }
    }
}

/// Returns the lines of one screen.
fn frame(
    status: &Status,
    answer: &Value,
    trouble: Option<&(Instant, ClientError)>,
    terminal: Terminal,
) -> io::Result<Vec<String>> {
    let now = jiff::Timestamp::now().strftime("%H:%M:%S");
    let title = match trouble {
        None => format!("breakerbox status, {now} UTC; ctrl-c ends it"),
        Some((since, failure)) => {
            let age = since.elapsed().as_secs();
            format!("as of {} s ago: {failure}", age + EVERY.as_secs())
        }
    };
    let mut lines = vec![cut(&title, terminal.width)];
    match &status.name {
        None => lines.extend(terminal.lines(&Overview::of(answer, status.sick))),
        Some(_) => {
            let mut text = Vec::new();
            show(status, answer, &mut text)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            // Rows with colours fit already.
            lines.extend(text.lines().map(|line| match line.contains('\u{1b}') {
                true => line.to_owned(),
                false => cut(line, terminal.width),
            }));
        }
    }
    if lines.len() > terminal.height {
        // The sick ones are above.
        let left_out = lines.len() + 1 - terminal.height;
        lines.truncate(terminal.height.saturating_sub(1));
        lines.push(format!("… {left_out} more"));
    }
    Ok(lines)
}

/// A signal to the command.
enum WatchSignal {
    /// The user or the system ends it.
    End,
    /// The terminal has another size.
    Resized,
}

/// The signals to the command. None is lost while an answer is awaited.
struct WatchSignals {
    #[cfg(unix)]
    ends: [Signal; 3],
    #[cfg(unix)]
    resized: Signal,
}

#[cfg(unix)]
impl WatchSignals {
    fn new() -> io::Result<Self> {
        let ends = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hang_up] = ends.map(signal);
        Ok(Self {
            ends: [interrupt?, terminate?, hang_up?],
            resized: signal(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> WatchSignal {
        let [interrupt, terminate, hang_up] = &mut self.ends;
        tokio::select! {
            _ = interrupt.recv() => WatchSignal::End,
            _ = terminate.recv() => WatchSignal::End,
            _ = hang_up.recv() => WatchSignal::End,
            _ = self.resized.recv() => WatchSignal::Resized,
        }
    }
}

#[cfg(not(unix))]
impl WatchSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) -> WatchSignal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => WatchSignal::End,
            Err(_) => std::future::pending().await,
        }
    }
}
