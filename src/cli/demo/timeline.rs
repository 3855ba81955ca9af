//! Live output of the demo: one line for each event of interest.
//!
//! It reads the runtime's events, remembers all of them, and selects those to print. It never moves
//! the cursor, so that a pipe gets the same lines.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use breakerbox::policy::supervision::StopCause;
use breakerbox::policy::{BreakerEvent, RoundedDuration, State, Time};
use breakerbox::prelude::*;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// Polling interval for conditions without an event.
const GLANCE: Duration = Duration::from_millis(20);

/// Prints and remembers events.
pub(crate) struct Timeline<'w> {
    out: &'w mut dyn Write,
    colour: bool,
    runtime: Runtime,
    stream: Receiver<Event>,
    events: Vec<Event>,
    outages: BTreeMap<Arc<str>, ShownOutage>,
}

/// Printed state of a dependency, since its last own answer with a closed breaker.
#[derive(Debug, Default)]
struct ShownOutage {
    falling_back: bool,
    tripped: bool,
    closed: bool,
    /// True if the latest answer in an event was the dependency's own.
    over: bool,
    served: u64,
}

impl ShownOutage {
    /// Returns the text for the end of the outage, once it has ended. Single own answers in between
    /// do not end it.
    fn end(&mut self) -> Option<String> {
        let ended = self.over && self.closed && self.tripped;
        ended.then(|| {
            let served = std::mem::take(self).served;
            EventKind::FallbackOver { served }.to_string()
        })
    }
}

/// Colours of a line, as ANSI codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain = 0,
    Scene = 1,
    Bad = 31,
    Good = 32,
    Wary = 33,
}

impl<'w> Timeline<'w> {
    pub(crate) fn new(runtime: &Runtime, out: &'w mut dyn Write, colour: bool) -> Self {
        Self {
            out,
            colour,
            stream: runtime.events(),
            runtime: runtime.clone(),
            events: Vec::new(),
            outages: BTreeMap::new(),
        }
    }

    /// Returns all events, printed or not.
    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// Returns the time since the runtime's start.
    pub(crate) fn now(&self) -> Time {
        self.runtime.clock().now()
    }

    /// Prints a line of the script, after all earlier events.
    pub(crate) fn say(&mut self, subject: &str, text: &str) -> io::Result<()> {
        self.catch_up()?;
        self.line(self.now(), subject, text, Tone::Scene)
    }

    /// Prints events for this time.
    pub(crate) async fn pass(&mut self, span: Duration) -> io::Result<()> {
        self.until(span, |_| false).await.map(|_| ())
    }

    /// Prints events until a condition holds. Returns false if that takes longer than `patience`.
    pub(crate) async fn until(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&Self) -> bool,
    ) -> io::Result<bool> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            self.catch_up()?;
            if wanted(self) {
                return Ok(true);
            }
            let now = tokio::time::Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            let glance = deadline.min(now + GLANCE);
            match tokio::time::timeout_at(glance, self.stream.recv()).await {
                Ok(Ok(event)) => self.take(event)?,
                Ok(Err(RecvError::Lagged(_))) => self.read_up()?,
                // The runtime keeps its own sender; if it is gone, time passes all the same.
                Ok(Err(RecvError::Closed)) => tokio::time::sleep_until(glance).await,
                Err(_elapsed) => {}
            }
        }
    }

    /// Returns the time when a breaker moved to this state, at or after `after`.
    pub(crate) fn moved(&self, subject: &str, after: Time, into: State) -> Option<Time> {
        let found = self.events.iter().find(|event| {
            let moved = matches!(&event.kind, EventKind::Breaker(BreakerEvent::Transition { to, .. }) if *to == into);
            moved && event.at >= after && &*event.subject == subject
        });
        found.map(|event| event.at)
    }

    /// Returns the number of crashes of a dependency's workers so far.
    pub(crate) fn crashes(&self, subject: &str) -> usize {
        let crashed = |event: &&Event| {
            let of = event.subject.strip_prefix(subject);
            let worker = of.is_some_and(|rest| rest.starts_with("/worker-"));
            let panicked = matches!(&event.kind, EventKind::Ended { cause, .. } if matches!(cause, StopCause::Crashed(_)));
            worker && panicked
        };
        self.events.iter().filter(crashed).count()
    }

    /// Processes all events so far.
    fn catch_up(&mut self) -> io::Result<()> {
        loop {
            match self.stream.try_recv() {
                Ok(event) => self.take(event)?,
                Err(TryRecvError::Lagged(_)) => self.read_up()?,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Reads events from the history that the stream has dropped.
    fn read_up(&mut self) -> io::Result<()> {
        let last = self.events.last().map_or(0, |event| event.id);
        for event in self.runtime.events_since(last) {
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        if self.events.last().is_some_and(|last| last.id >= event.id) {
            return Ok(());
        }
        if let Some((text, tone)) = self.tell(&event) {
            self.line(event.at, &event.subject, &text, tone)?;
        }
        let outage = self.outages.get_mut(&event.subject);
        if let Some(end) = outage.and_then(ShownOutage::end) {
            self.line(event.at, &event.subject, &end, Tone::Good)?;
        }
        self.events.push(event);
        Ok(())
    }

    /// Returns the line for an event, if it is printed.
    fn tell(&mut self, event: &Event) -> Option<(String, Tone)> {
        let plainly = |tone| Some((event.kind.to_string(), tone));
        match &event.kind {
            EventKind::Breaker(BreakerEvent::Transition { to, .. }) => {
                let outage = self.outages.entry(Arc::clone(&event.subject)).or_default();
                outage.closed = *to == State::Closed;
                outage.tripped |= *to == State::Open;
                plainly(match to {
                    State::Open => Tone::Bad,
                    State::HalfOpen => Tone::Wary,
                    State::Closed => Tone::Good,
                })
            }
            EventKind::Breaker(BreakerEvent::HalfOpenProgress { .. }) => None,
            EventKind::Started { incarnation: 1 } => None,
            EventKind::Started { .. } => plainly(Tone::Good),
            EventKind::Ended { cause, .. } if cause.is_normal() => None,
            EventKind::RestartScheduled { after } if after.is_zero() => None,
            EventKind::RestartScheduled { after } => {
                let wait = RoundedDuration(*after);
                Some((format!("restart in {wait}"), Tone::Wary))
            }
            EventKind::FallbackServing { .. } => {
                let outage = self.outages.entry(Arc::clone(&event.subject)).or_default();
                outage.over = false;
                let first = !std::mem::replace(&mut outage.falling_back, true);
                first.then(|| (event.kind.to_string(), Tone::Wary))
            }
            EventKind::FallbackOver { served } => {
                let outage = self.outages.entry(Arc::clone(&event.subject)).or_default();
                outage.over = true;
                outage.served += served;
                None
            }
            EventKind::Draining => plainly(Tone::Plain),
            _ => plainly(Tone::Bad),
        }
    }

    fn line(&mut self, at: Time, subject: &str, text: &str, tone: Tone) -> io::Result<()> {
        let seconds = at.since(Time::ZERO).as_secs_f64();
        // Text of a panic or of a server stays on one line.
        let text = text.replace(|letter: char| letter.is_control(), " ");
        if self.colour && tone != Tone::Plain {
            let tone = tone as u8;
            writeln!(
                self.out,
                "{seconds:8.2} s  {subject:<24}  \u{1b}[{tone}m{text}\u{1b}[0m"
            )
        } else {
            writeln!(self.out, "{seconds:8.2} s  {subject:<24}  {text}")
        }
    }
}
