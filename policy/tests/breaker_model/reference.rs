//! A naive reference breaker: plain lists of all events, evaluated anew for each query. It shares
//! only the settings with the kernel.

use std::time::Duration;

use breakerbox_policy::{
    BreakerCommand, BreakerSettings, CancelledPolicy, Class, HalfOpenRule, LostProbe, OverrideMode,
    Rate, RecordResult, RefusalState, State, Time, WindowKind,
};

/// The fixed random number of all draws.
pub(crate) const UNIT: f64 = 0.5;

#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    Good,
    Bad,
    Cancelled,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Time,
    what: What,
    slow: bool,
}

/// A permit of the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pass {
    Normal { epoch: u64 },
    Probe { epoch: u64, id: u64 },
    Unrecorded,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
    cancelled: u64,
    run: u64,
    run_cancelled: u64,
}

pub(crate) struct Reference {
    settings: BreakerSettings,
    pub(crate) state: State,
    pub(crate) epoch: u64,
    log: Vec<Entry>,
    pub(crate) probes: Vec<(u64, Time)>,
    results: Vec<Entry>,
    ids: u64,
    entered: Time,
    until: Time,
    pub(crate) attempt: u32,
    overdue: u64,
    operator: Option<(OverrideMode, Option<Time>)>,
    parked: bool,
    pub(crate) moves: Vec<(State, State, Time)>,
}

fn millionths(rate: Rate) -> u128 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let millionths = (rate.as_f64() * 1e6).round() as u128;
    millionths
}

fn reaches(rate: Rate, part: u64, whole: u64) -> bool {
    whole > 0 && u128::from(part) * 1_000_000 >= millionths(rate) * u128::from(whole)
}

impl Reference {
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            epoch: 0,
            log: Vec::new(),
            probes: Vec::new(),
            results: Vec::new(),
            ids: 0,
            entered: Time::ZERO,
            until: Time::ZERO,
            attempt: 0,
            overdue: 0,
            operator: None,
            parked: false,
            moves: Vec::new(),
        }
    }

    pub(crate) fn mode(&self) -> Option<OverrideMode> {
        if self.parked {
            Some(OverrideMode::ForcedOpen)
        } else {
            self.operator.map(|(mode, _)| mode)
        }
    }

    fn new_epoch(&mut self, now: Time) {
        self.epoch += 1;
        self.overdue = 0;
        self.probes.clear();
        self.results.clear();
        self.entered = now;
    }

    fn go(&mut self, to: State, now: Time) {
        self.moves.push((self.state, to, now));
        self.state = to;
        self.log.clear();
        self.new_epoch(now);
    }

    fn close(&mut self, now: Time) {
        self.attempt = 0;
        self.go(State::Closed, now);
    }

    fn own_wait(&self) -> Duration {
        let open = self.settings.open;
        let grown =
            (0..self.attempt).fold(open.base, |wait, _| wait.mul_f64(open.factor).min(open.max));
        let wait = grown.min(open.max);
        wait + wait.mul_f64(open.jitter * UNIT)
    }

    fn open(&mut self, now: Time, wait: Duration) {
        self.until = now.after(wait);
        self.go(State::Open, now);
    }

    fn reopen(&mut self, now: Time, hint: Duration) {
        self.attempt += 1;
        self.open(now, self.own_wait().max(hint));
    }

    pub(crate) fn pass_time(&mut self, now: Time) {
        if let Some((_, Some(until))) = self.operator
            && until <= now
        {
            self.operator = None;
            self.new_epoch(now);
        }
        while self.state == State::HalfOpen
            && let Some(&(_, started)) = self.probes.first()
            && started.after(self.settings.half_open.probe_lease) <= now
        {
            self.probes.remove(0);
            if self.settings.half_open.lost_probe == LostProbe::Fails {
                self.result(now, What::Bad, false, Duration::ZERO);
            }
        }
        if self.state == State::HalfOpen
            && let Some(limit) = self.settings.half_open.limit
            && self.entered.after(limit.after) <= now
        {
            if limit.closes {
                self.close(now);
            } else {
                self.reopen(now, Duration::ZERO);
            }
        }
        if self.state == State::Open && self.until <= now {
            if self.settings.half_open.rule == HalfOpenRule::AutoClose {
                self.close(now);
            } else {
                self.go(State::HalfOpen, now);
            }
        }
    }

    pub(crate) fn admit(&mut self, now: Time) -> Result<Pass, RefusalState> {
        self.pass_time(now);
        let epoch = self.epoch;
        match (self.mode(), self.state) {
            (Some(OverrideMode::ForcedOpen), _) => Err(RefusalState::ForcedOpen),
            (Some(OverrideMode::Disabled), _) => Ok(Pass::Unrecorded),
            (Some(OverrideMode::Shadow), _) | (None, State::Closed) => Ok(Pass::Normal { epoch }),
            (None, State::Open) => Err(RefusalState::Open),
            (None, State::HalfOpen) => {
                let half_open = self.settings.half_open;
                let at_once = self.probes.len() < half_open.max_calls.get() as usize;
                let in_all = half_open.max_admitted.is_none_or(|most| {
                    let most = most.get().max(self.results_needed()) as usize;
                    self.probes.len() + self.results.len() < most
                });
                if !at_once || !in_all {
                    return Err(RefusalState::HalfOpen);
                }
                self.ids += 1;
                self.probes.push((self.ids, now));
                Ok(Pass::Probe {
                    epoch,
                    id: self.ids,
                })
            }
        }
    }

    fn results_needed(&self) -> u32 {
        match self.settings.half_open.rule {
            HalfOpenRule::Successes(needed) => needed.get(),
            HalfOpenRule::Rate { results } => results.get(),
            HalfOpenRule::KOfN { of, .. } => of.get(),
            HalfOpenRule::AutoClose => 1,
        }
    }

    /// Removes a probe from the list; returns false if it is missing.
    fn take(&mut self, id: u64) -> bool {
        let before = self.probes.len();
        self.probes.retain(|&(probe, _)| probe != id);
        self.probes.len() < before
    }

    pub(crate) fn release(&mut self, now: Time, pass: Pass) {
        self.pass_time(now);
        if let Pass::Probe { epoch, id } = pass
            && epoch == self.epoch
        {
            self.take(id);
        }
    }

    pub(crate) fn finish(
        &mut self,
        now: Time,
        pass: Pass,
        class: Class,
        elapsed: Duration,
        hint: Option<Duration>,
    ) -> RecordResult {
        self.pass_time(now);
        let (epoch, probe) = match pass {
            Pass::Unrecorded => return RecordResult::Unrecorded,
            Pass::Normal { epoch } => (epoch, None),
            Pass::Probe { epoch, id } => (epoch, Some(id)),
        };
        if epoch != self.epoch || probe.is_some_and(|id| !self.take(id)) {
            return RecordResult::Late;
        }
        let slow = self.settings.slow_call.is_some_and(|slow| elapsed >= slow);
        let what = match (class, self.settings.cancelled) {
            (Class::Success, _) => What::Good,
            (Class::Failure, _) | (Class::Cancelled, CancelledPolicy::Failure) => What::Bad,
            (Class::Cancelled, CancelledPolicy::Rate(_)) if probe.is_none() => What::Cancelled,
            (class, _) => {
                let reopens = self.settings.half_open.cancelled_probe_reopens;
                if class == Class::Cancelled && probe.is_some() && reopens {
                    self.reopen(now, Duration::ZERO);
                }
                return RecordResult::Neutral;
            }
        };
        let hint = hint.filter(|_| what == What::Bad).unwrap_or_default();
        if probe.is_some() {
            self.result(now, what, slow, hint);
            return RecordResult::Counted;
        }
        let slow = slow && what != What::Cancelled;
        self.log.push(Entry {
            at: now,
            what,
            slow,
        });
        let counts = what != What::Cancelled || self.cancelled_count(&self.figures(now));
        self.judge(now, hint);
        if counts {
            RecordResult::Counted
        } else {
            RecordResult::Neutral
        }
    }

    /// Records a probe's result.
    fn result(&mut self, now: Time, what: What, slow: bool, hint: Duration) {
        self.results.push(Entry {
            at: now,
            what,
            slow,
        });
        let all = self.results.len() as u64;
        let bad = self.results.iter().filter(|r| r.what == What::Bad).count() as u64;
        let slow = self.results.iter().filter(|r| r.slow).count() as u64;
        let good = |r: &&Entry| r.what == What::Good && !r.slow;
        let good = self.results.iter().filter(good).count() as u64;
        let verdict = match self.settings.half_open.rule {
            HalfOpenRule::Successes(_) | HalfOpenRule::AutoClose if good < all => Some(false),
            HalfOpenRule::Successes(needed) => (good >= u64::from(needed.get())).then_some(true),
            HalfOpenRule::AutoClose => Some(true),
            HalfOpenRule::Rate { results } if all < u64::from(results.get()) => None,
            HalfOpenRule::Rate { .. } => {
                let by_failures = match (self.settings.failure_rate, self.settings.slow_rate) {
                    (Some(rate), _) => reaches(rate, bad, all),
                    (None, None) => bad > 0,
                    (None, Some(_)) => false,
                };
                let by_slow = self
                    .settings
                    .slow_rate
                    .is_some_and(|rate| reaches(rate, slow, all));
                Some(!by_failures && !by_slow)
            }
            HalfOpenRule::KOfN { needed, of } => {
                let needed = u64::from(needed.get());
                if good >= needed {
                    Some(true)
                } else {
                    let left = u64::from(of.get()).saturating_sub(all);
                    (good + left < needed).then_some(false)
                }
            }
        };
        match verdict {
            Some(true) => self.close(now),
            Some(false) => self.reopen(now, hint),
            None => {}
        }
    }

    pub(crate) fn successes(&mut self, now: Time, epoch: u64, count: u64) {
        self.pass_time(now);
        for _ in 0..count {
            let measured = self.mode() == Some(OverrideMode::Shadow)
                || (self.mode().is_none() && self.state == State::Closed);
            if measured && epoch == self.epoch {
                let what = What::Good;
                self.log.push(Entry {
                    at: now,
                    what,
                    slow: false,
                });
                self.judge(now, Duration::ZERO);
            }
        }
    }

    pub(crate) fn set_overdue(&mut self, now: Time, calls: u64) {
        self.pass_time(now);
        self.overdue = calls;
        if calls > 0 && self.mode().is_none() && self.state == State::Closed {
            self.judge(now, Duration::ZERO);
        }
    }

    /// Figures of the window, or of the half-open period.
    pub(crate) fn seen(&self, now: Time) -> Figures {
        if self.state == State::HalfOpen && self.mode() != Some(OverrideMode::Shadow) {
            return Figures {
                calls: self.results.len() as u64,
                failures: self.results.iter().filter(|r| r.what == What::Bad).count() as u64,
                slow: self.results.iter().filter(|r| r.slow).count() as u64,
                ..Figures::default()
            };
        }
        self.figures(now)
    }

    fn figures(&self, now: Time) -> Figures {
        let bucket = |at: Time, width: Duration| u128::from(at.as_nanos()) / width.as_nanos();
        let held: Vec<Entry> = match self.settings.window {
            WindowKind::Consecutive => self.log.clone(),
            WindowKind::Count { size } => {
                let skip = self.log.len().saturating_sub(size.get() as usize);
                self.log[skip..].to_vec()
            }
            WindowKind::Time { span, buckets } => {
                let width = span / buckets.get();
                let oldest = (bucket(now, width) + 1).saturating_sub(u128::from(buckets.get()));
                let held = self.log.iter().filter(|e| bucket(e.at, width) >= oldest);
                held.copied().collect()
            }
            WindowKind::Tumbling { span } => {
                let held = self
                    .log
                    .iter()
                    .filter(|e| bucket(e.at, span) == bucket(now, span));
                held.copied().collect()
            }
        };
        let count = |what: What| held.iter().filter(|e| e.what == what).count() as u64;
        let since_good = self.log.iter().rev().take_while(|e| e.what != What::Good);
        let since_good: Vec<What> = since_good.map(|e| e.what).collect();
        let run = since_good.iter().filter(|&&what| what == What::Bad).count() as u64;
        let consecutive = self.settings.window == WindowKind::Consecutive;
        Figures {
            calls: count(What::Good) + count(What::Bad),
            failures: if consecutive { run } else { count(What::Bad) },
            slow: held.iter().filter(|e| e.slow).count() as u64,
            cancelled: count(What::Cancelled),
            run,
            run_cancelled: since_good.len() as u64 - run,
        }
    }

    fn cancelled_count(&self, figures: &Figures) -> bool {
        matches!(self.settings.cancelled, CancelledPolicy::Rate(rate)
            if figures.cancelled > 0
                && reaches(rate, figures.cancelled, figures.calls + figures.cancelled))
    }

    fn judge(&mut self, now: Time, hint: Duration) {
        let settings = &self.settings;
        let mut seen = self.figures(now);
        let consecutive = settings.window == WindowKind::Consecutive;
        if self.cancelled_count(&seen) {
            seen.calls += seen.cancelled;
            seen.failures += if consecutive {
                seen.run_cancelled
            } else {
                seen.cancelled
            };
            seen.run += seen.run_cancelled;
        }
        let minimum = match settings.window {
            WindowKind::Count { size } => settings.minimum_calls.min(size.get()),
            _ => settings.minimum_calls,
        };
        let enough = |calls: u64| calls >= u64::from(minimum.max(1));
        let overdue = self.overdue;
        let trips = settings
            .failure_threshold
            .is_some_and(|most| seen.failures >= u64::from(most.get()))
            || settings
                .consecutive_failures
                .is_some_and(|most| seen.run >= u64::from(most.get()))
            || settings
                .failure_rate
                .is_some_and(|rate| enough(seen.calls) && reaches(rate, seen.failures, seen.calls))
            || settings.slow_rate.is_some_and(|rate| {
                enough(seen.calls + overdue)
                    && reaches(rate, seen.slow + overdue, seen.calls + overdue)
            });
        if trips && self.mode().is_none() {
            self.open(now, self.own_wait().max(hint));
        }
    }

    pub(crate) fn command(&mut self, now: Time, command: &BreakerCommand) -> bool {
        self.pass_time(now);
        let mode = match command {
            BreakerCommand::Open { .. } => Some(OverrideMode::ForcedOpen),
            BreakerCommand::Disable { .. } => Some(OverrideMode::Disabled),
            BreakerCommand::Shadow { .. } => Some(OverrideMode::Shadow),
            _ => None,
        };
        match command {
            BreakerCommand::Open { until, .. }
            | BreakerCommand::Disable { until, .. }
            | BreakerCommand::Shadow { until, .. } => {
                self.operator = mode.map(|mode| (mode, *until));
                self.new_epoch(now);
            }
            BreakerCommand::Clear => self.take_overrides_off(now),
            BreakerCommand::Close { .. } | BreakerCommand::Reset { .. } => {
                self.take_overrides_off(now);
                self.attempt = 0;
                if self.state != State::Closed {
                    self.close(now);
                }
                if matches!(command, BreakerCommand::Reset { .. }) {
                    self.log.clear();
                }
            }
            BreakerCommand::Park { .. } => {
                self.parked = true;
                self.new_epoch(now);
            }
            BreakerCommand::Unpark => {
                if self.parked {
                    self.parked = false;
                    self.new_epoch(now);
                }
            }
            BreakerCommand::Trip { wait, .. } if self.state == State::Open => {
                self.until = self.until.max(now.after(wait.unwrap_or_default()));
                self.new_epoch(now);
            }
            BreakerCommand::Trip { wait, .. } => self.open(now, wait.unwrap_or(self.own_wait())),
            BreakerCommand::Probe { .. } => match self.state {
                State::Closed => return false,
                State::Open => self.go(State::HalfOpen, now),
                State::HalfOpen => self.new_epoch(now),
            },
            other => panic!("a command without a model: {other:?}"),
        }
        true
    }

    fn take_overrides_off(&mut self, now: Time) {
        self.operator = None;
        self.parked = false;
        self.new_epoch(now);
    }

    pub(crate) fn reconfigure(&mut self, now: Time, settings: BreakerSettings) {
        let old = std::mem::replace(&mut self.settings, settings);
        let window = old.window != self.settings.window;
        if window {
            self.log.clear();
        }
        let probing = self.state == State::HalfOpen && old.half_open != self.settings.half_open;
        if window || probing {
            self.new_epoch(now);
        }
    }

    pub(crate) fn recover(&mut self, now: Time) {
        self.log.clear();
        self.new_epoch(now);
    }
}
