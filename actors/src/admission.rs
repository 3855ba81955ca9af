//! Leave to make one call, and the duty to say what it came to.
//!
//! The gate is read here and nowhere else. The permit goes back exactly once, whatever happens.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Outcome, Permit, PermitKind, RefusalState, Time};

use crate::call::Race;
use crate::circuit::Circuit;
use crate::dependency::{Shared, Verdict};
use crate::error::Refused;
use crate::flight::Seat;
use crate::gate::{GateWord, Mode, tag_of};
use crate::message::{Acquire, Flush, Release, Report};
use crate::record::{Ended, tell};

/// What the gate said.
pub(crate) enum Passage {
    /// Go.
    Granted(Held),
    /// Only the breaker itself can say.
    AskBreaker,
    /// No.
    Refused(Refused),
}

/// A permit in somebody's hands. Whoever holds it must settle, release or forsake it.
#[derive(Debug)]
#[must_use = "a permit has to go back"]
pub(crate) struct Held {
    permit: Permit,
    started: Time,
    /// [`Time::MAX`] for none.
    deadline: Time,
    /// Where it is counted while it is in flight.
    seat: Option<Seat>,
    /// The key's breaker that gave it; `None` for the dependency's.
    circuit: Option<Arc<Circuit>>,
    /// The race that the attempt takes part in.
    race: Race,
}

impl Held {
    pub(crate) fn new(
        circuit: Option<Arc<Circuit>>,
        permit: Permit,
        started: Time,
        deadline: Option<Time>,
    ) -> Self {
        Self {
            permit,
            started,
            deadline: deadline.unwrap_or(Time::MAX),
            seat: None,
            circuit,
            race: Race::default(),
        }
    }

    fn circuit<'a>(&'a self, shared: &'a Shared) -> &'a Circuit {
        self.circuit.as_deref().unwrap_or(&shared.circuit)
    }

    /// When it was given.
    pub(crate) fn started(&self) -> Time {
        self.started
    }

    /// Notes that the call has its place and is on its way to the dependency: from here on it can
    /// be overdue (rule BRK-9).
    pub(crate) fn depart(&mut self, shared: &Shared, now: Time) {
        self.started = now;
        self.seat = self.seat(shared, now);
    }

    /// Counts it as in flight from now on.
    #[inline(always)]
    fn seat(&self, shared: &Shared, now: Time) -> Option<Seat> {
        // What nobody measures has no generation of this breaker to be overdue in.
        if matches!(self.permit.kind(), PermitKind::Unrecorded) {
            return None;
        }
        let tag = tag_of(self.permit.generation());
        self.circuit(shared).start(now, tag)
    }

    /// Whether the breaker has moved since, and lets only probes through, or nobody. What has not
    /// begun by then must not reach a dependency that is known to be sick.
    pub(crate) fn is_overtaken(&self, shared: &Shared) -> bool {
        let (_, word) = shared.word(self.circuit.as_ref());
        match word.mode() {
            // Nobody was ever let through under it.
            Mode::ForcedOpen => true,
            Mode::Open | Mode::HalfOpen => tag_of(self.permit.generation()) != word.tag(),
            Mode::Closed | Mode::Watchful | Mode::Disabled => false,
        }
    }

    /// The refusal of a call that is overtaken.
    pub(crate) fn overtaken(&self, shared: &Shared, now: Time) -> Refused {
        shared.overtaken(self.circuit.as_ref(), now)
    }

    /// Notes that the first part of the answer is there: how long the others take is no slowness
    /// (rule BRK-9).
    pub(crate) fn answered(&mut self, shared: &Shared) {
        if let Some(seat) = self.seat.take() {
            self.circuit(shared).end(seat);
        }
    }

    /// Whether the breaker waits for it, so that it can decide.
    pub(crate) fn is_probe(&self) -> bool {
        self.permit.is_probe()
    }

    /// What the breaker has to hear of its end.
    #[cold]
    fn report(self, elapsed: Duration, verdict: &Verdict) -> Box<Report> {
        Box::new(Report {
            circuit: self.circuit,
            permit: Some(self.permit),
            outcome: outcome(elapsed, verdict),
            then: None,
        })
    }

    /// Takes the clock's word that the call begins now: waiting for a place is not the
    /// dependency's time.
    pub(crate) fn begin(&mut self, now: Time) {
        self.started = now;
    }
}

/// A permit that is forsaken when it is dropped.
#[derive(Debug)]
pub(crate) struct Admission<S: Deref<Target = Shared>> {
    shared: S,
    held: Option<Held>,
    /// Whether the call is on its way to the dependency.
    departed: bool,
    /// Whether the work itself runs under it, in this very task.
    begun: bool,
}

impl<S: Deref<Target = Shared>> Admission<S> {
    pub(crate) fn new(shared: S, held: Held) -> Self {
        Self {
            shared,
            held: Some(held),
            departed: false,
            begun: false,
        }
    }

    /// One without a permit so far.
    #[inline(always)]
    pub(crate) fn none(shared: S) -> Self {
        Self {
            shared,
            held: None,
            departed: false,
            begun: false,
        }
    }

    /// Takes a permit in whose call goes on its way at the moment it was given; see
    /// [`Held::depart`].
    #[inline(always)]
    pub(crate) fn set_off(&mut self, held: Held) {
        let seat = held.seat(&self.shared, held.started);
        self.held = Some(Held { seat, ..held });
        self.departed = true;
    }

    /// Takes the permit out, and the duty with it.
    pub(crate) fn into_held(mut self) -> Option<Held> {
        self.take_held()
    }

    /// See [`Admission::into_held`].
    pub(crate) fn take_held(&mut self) -> Option<Held> {
        self.held.take()
    }

    /// Notes that the work runs under it from now on, in this very task; it has departed just
    /// now, at the time that is given back.
    pub(crate) fn begin(&mut self) -> Option<Time> {
        self.begun = true;
        self.held.as_ref().map(Held::started)
    }

    /// When the call went on its way.
    pub(crate) fn departed_at(&self) -> Option<Time> {
        self.held.as_ref().map(Held::started)
    }

    /// See [`Held::depart`]; without a time, at the moment the permit was given.
    pub(crate) fn depart(&mut self, now: Option<Time>) {
        self.departed = true;
        if let Some(held) = &mut self.held {
            let now = now.unwrap_or(held.started());
            held.depart(&self.shared, now);
        }
    }

    /// See [`Held::is_overtaken`].
    pub(crate) fn is_overtaken(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.is_overtaken(&self.shared))
    }

    /// Notes the race that the attempt takes part in: when another one wins it, this one is given
    /// back as if it had not been used.
    pub(crate) fn race(&mut self, race: Race) {
        if let Some(held) = &mut self.held {
            held.race = race;
        }
    }

    /// The race that the attempt takes part in.
    pub(crate) fn race_of(&self) -> Option<&Race> {
        self.held.as_ref().map(|held| &held.race)
    }

    pub(crate) fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.shared.release(held);
        }
    }

    /// See [`Shared::settle`].
    #[inline(always)]
    pub(crate) fn settle(&mut self, verdict: &Verdict, now: Time) -> Settled {
        let Some(held) = &self.held else {
            return Settled::Counted;
        };
        let elapsed = now.since(held.started);
        if self.shared.take_in(held, elapsed, verdict, now) {
            self.held = None;
            return Settled::Counted;
        }
        let owed = self.held.take().map(|held| held.report(elapsed, verdict));
        owed.map_or(Settled::Counted, Settled::Owed)
    }
}

impl<S: Deref<Target = Shared>> Drop for Admission<S> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            if !self.departed {
                // It waited for a place: the dependency knows nothing of it (rule CALL-4).
                return self.shared.release(held);
            }
            let panicked = self.begun && std::thread::panicking();
            self.shared.forsake(held, panicked);
        }
    }
}

/// How an admission was settled.
pub(crate) enum Settled {
    /// It is counted.
    Counted,
    /// It must be counted by the breaker before anyone hears of it. On the heap: what few calls
    /// come to must not make each of them hand on more.
    Owed(Box<Report>),
}

impl Shared {
    /// A permit of the gate's own, where it lets everybody through; no message, no wait.
    #[inline(always)]
    pub(crate) fn normal_permit(
        &self,
        circuit: Option<&Arc<Circuit>>,
        now: Time,
    ) -> Option<Permit> {
        let (_, word) = self.word(circuit);
        match word.mode() {
            Mode::Closed | Mode::Watchful => Some(Permit::normal(word.tag(), now)),
            Mode::Disabled => Some(Permit::unrecorded(word.tag(), now)),
            Mode::Open | Mode::HalfOpen | Mode::ForcedOpen => None,
        }
    }

    /// Asks the gate; no message, no wait.
    pub(crate) fn pass(
        &self,
        circuit: Option<&Arc<Circuit>>,
        now: Time,
        deadline: Option<Time>,
    ) -> Passage {
        if let Some(permit) = self.normal_permit(circuit, now) {
            return Passage::Granted(Held::new(circuit.cloned(), permit, now, deadline));
        }
        let (of, word) = self.word(circuit);
        match word.mode() {
            // One that let everybody through a moment later has the breaker say so.
            Mode::Closed | Mode::Watchful | Mode::Disabled | Mode::HalfOpen => Passage::AskBreaker,
            Mode::Open if retry_at(word) <= now => Passage::AskBreaker,
            Mode::Open | Mode::ForcedOpen => Passage::Refused(Shut { of, word, now }.refusal()),
        }
    }

    /// The gate that has the word on a call: what an operator or the supervisor says of the whole
    /// dependency goes before the key's own breaker.
    #[inline]
    pub(crate) fn word<'a>(&'a self, circuit: Option<&'a Arc<Circuit>>) -> (&'a Circuit, GateWord) {
        let whole = self.circuit.gate.read();
        match circuit {
            Some(key) if !matches!(whole.mode(), Mode::ForcedOpen | Mode::Disabled) => {
                (key, key.gate.read())
            }
            _ => (&self.circuit, whole),
        }
    }

    /// The gate that refuses whoever asks now; `None` when it lets calls through, or would ask the
    /// breaker. Where the time does not matter, nobody is asked for it.
    #[inline]
    pub(crate) fn refuses<'a>(&'a self, circuit: Option<&'a Arc<Circuit>>) -> Option<Shut<'a>> {
        let (of, word) = self.word(circuit);
        let now = match word.mode() {
            Mode::Closed | Mode::Watchful | Mode::Disabled | Mode::HalfOpen => return None,
            Mode::ForcedOpen if word.retry_at_ms() == 0 => Time::ZERO,
            Mode::Open | Mode::ForcedOpen => self.clock.now(),
        };
        let is_over = word.mode() == Mode::Open && retry_at(word) <= now;
        (!is_over).then_some(Shut { of, word, now })
    }

    /// The refusal of a call whose permit was given before the breaker moved.
    pub(crate) fn overtaken(&self, circuit: Option<&Arc<Circuit>>, now: Time) -> Refused {
        let (of, word) = self.word(circuit);
        Shut { of, word, now }.refusal()
    }

    /// Asks the breaker actor for a permit.
    ///
    /// # Cancel safety   Dropped while it waits, a permit that was granted goes back.
    pub(crate) async fn ask_for_permit(
        &self,
        circuit: Option<&Arc<Circuit>>,
        deadline: Option<Time>,
    ) -> Result<Admission<Arc<Shared>>, Refused> {
        let (of, _) = self.word(circuit);
        let gone = || refused(of, RefusalState::Open, None);
        let port = self.breaker.get().ok_or_else(gone)?;
        let circuit = circuit.cloned();
        match port.acquire.send(Acquire { circuit, deadline }).await {
            Ok(Ok(admission)) => Ok(admission),
            Ok(Err(refusal)) => Err(refused(of, refusal.state, refusal.retry_after)),
            Err(_closed) => Err(gone()),
        }
    }

    /// Gives a permit back unused: an inner layer refused, the dependency was not asked.
    pub(crate) fn release(&self, held: Held) {
        self.land(&held);
        // A gate's permit holds no place in the breaker; only a probe has to go back.
        if held.permit.is_probe()
            && let Some(port) = self.breaker.get()
        {
            port.release.do_send(Release {
                permit: held.permit,
                circuit: held.circuit,
            });
        }
    }

    /// Ends an attempt without a word from the dependency: `cancelled`, which counts for nothing,
    /// when the caller left early; a failure when its deadline had passed or the work panicked
    /// (rule BRK-6).
    pub(crate) fn forsake(&self, held: Held, panicked: bool) {
        if held.race.is_lost() && !panicked {
            return self.release(held);
        }
        let now = self.clock.now();
        let too_late = now >= held.deadline;
        let class = if too_late || panicked {
            Class::Failure
        } else {
            Class::Cancelled
        };
        if let Settled::Owed(report) = self.settle(held, &Verdict::from(class), now) {
            self.report(*report);
        }
    }

    /// Counts a quick success at the gate; everything else is owed to the breaker.
    pub(crate) fn settle(&self, held: Held, verdict: &Verdict, now: Time) -> Settled {
        let elapsed = now.since(held.started);
        self.settle_after(held, elapsed, verdict, now)
    }

    /// The same for an attempt that is to count as one that took this long.
    pub(crate) fn settle_after(
        &self,
        held: Held,
        elapsed: Duration,
        verdict: &Verdict,
        now: Time,
    ) -> Settled {
        if self.take_in(&held, elapsed, verdict, now) {
            return Settled::Counted;
        }
        Settled::Owed(held.report(elapsed, verdict))
    }

    /// Books the end of an attempt; false when the breaker has to hear of it too.
    #[inline]
    fn take_in(&self, held: &Held, elapsed: Duration, verdict: &Verdict, now: Time) -> bool {
        self.land(held);
        self.totals.observe(elapsed);
        self.note_traffic(verdict, held.started, now);
        self.note_setup(verdict);
        self.bulkhead.sample(now, elapsed, verdict.class);
        let kind = held.permit.kind();
        if let Some(recorder) = &self.recorder {
            let ended = Ended {
                dependency: &self.name,
                at: now,
                outcome: outcome(elapsed, verdict),
                permit: kind,
            };
            tell(&**recorder, ended);
        }
        if matches!(kind, PermitKind::Unrecorded) {
            return true;
        }
        let of = held.circuit(self);
        if of.key.is_some() {
            of.use_now(now);
        }
        let is_quiet = verdict.class == Class::Success
            && !of.is_slow(elapsed)
            && matches!(kind, PermitKind::Normal)
            && of.gate.read().mode() == Mode::Closed;
        if is_quiet {
            let flushed = of.count_success(held.permit.generation(), now);
            if let (Some(successes), Some(port)) = (flushed, self.breaker.get()) {
                port.flush.do_send(Flush {
                    successes,
                    circuit: held.circuit.clone(),
                });
            }
        }
        is_quiet
    }

    #[inline(always)]
    fn land(&self, held: &Held) {
        if let Some(seat) = held.seat {
            held.circuit(self).end(seat);
        }
    }

    /// Sends a report; what follows it runs even when there is no breaker any more.
    pub(crate) fn report(&self, report: Report) {
        if let Some(port) = self.breaker.get() {
            port.report.do_send(report);
        }
    }

    /// Sends a report and waits until it is counted (rule CALL-3).
    ///
    /// # Cancel safety   Dropped while it waits, the report is counted all the same.
    pub(crate) async fn report_and_wait(&self, report: Box<Report>) {
        if let Some(port) = self.breaker.get() {
            // A closed mailbox means that nobody counts any more.
            let _ = port.report.send(*report).await;
        }
    }
}

fn outcome(elapsed: Duration, verdict: &Verdict) -> Outcome {
    Outcome {
        class: verdict.class,
        elapsed,
        retry_after: verdict.retry_after,
    }
}

fn retry_at(word: GateWord) -> Time {
    Time::from_millis(word.retry_at_ms())
}

/// A gate that lets somebody not through.
pub(crate) struct Shut<'a> {
    of: &'a Circuit,
    word: GateWord,
    now: Time,
}

impl Shut<'_> {
    /// Whether somebody has shut it, and not the breaker's own judgement.
    pub(crate) fn is_forced(&self) -> bool {
        self.word.mode() == Mode::ForcedOpen
    }

    /// How long it stays so, if that is known.
    #[inline]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let until = retry_at(self.word);
        let is_known = self.state() == RefusalState::Open || until > self.now;
        is_known.then(|| until.since(self.now))
    }

    #[inline(always)]
    pub(crate) fn refusal(&self) -> Refused {
        refused(self.of, self.state(), self.retry_after())
    }

    fn state(&self) -> RefusalState {
        match self.word.mode() {
            Mode::ForcedOpen => RefusalState::ForcedOpen,
            Mode::HalfOpen => RefusalState::HalfOpen,
            Mode::Open | Mode::Closed | Mode::Watchful | Mode::Disabled => RefusalState::Open,
        }
    }
}

#[inline(always)]
fn refused(of: &Circuit, state: RefusalState, retry_after: Option<Duration>) -> Refused {
    Refused {
        state,
        retry_after,
        executed: Executed::No,
        notice: of.notice(),
    }
}
