//! The checked settings of one dependency, as the machines take them.
//!
//! Values that cannot work are unrepresentable where the type system can say so; the relations
//! between fields are checked by whoever reads a configuration (rule CFG-1). Nothing here parses.

mod changes;

mod limits;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::{ClassifySettings, Rate, Symptoms};

pub use limits::{
    AdaptiveRule, AdaptiveSettings, ChaosSettings, HedgeDelay, HedgeSettings, KeySettings,
    QuotaReset, RateLimitSettings, ThrottleSettings, WhenAllDown,
};

/// One, as a number that is not zero.
const ONE: NonZeroU32 = NonZeroU32::MIN;

/// Builds a non-zero constant; falls back to one, which no caller below asks for.
const fn nonzero(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => ONE,
    }
}

/// Everything that is set for one dependency.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DependencySettings {
    /// When calls are refused.
    pub breaker: BreakerSettings,
    /// How long a call may take.
    pub timeout: TimeoutSettings,
    /// How often it is tried.
    pub retry: RetrySettings,
    /// When a second attempt is sent beside a slow one; `None` for never.
    pub hedge: Option<HedgeSettings>,
    /// How many may go out in each interval; `None` for no limit.
    pub rate_limit: Option<RateLimitSettings>,
    /// What follows when it asks for less.
    pub throttle: ThrottleSettings,
    /// How many may run at once.
    pub bulkhead: BulkheadSettings,
    /// Who executes them, and what happens after a crash.
    pub workers: WorkerSettings,
    /// What an attempt's symptoms count for.
    pub classify: ClassifySettings,
    /// The breakers of its keys, where its requests have any.
    pub keys: KeySettings,
    /// What a call gets that nobody could answer.
    pub when_all_down: WhenAllDown,
    /// Faults on purpose; `None` for none.
    pub chaos: Option<ChaosSettings>,
    /// Whether its fallbacks answer all calls, and it is never called itself.
    pub fallback_only: bool,
}

/// The memory by which a closed breaker judges.
///
/// # Source  Rule BRK-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// The run of failures since the last success.
    Consecutive,
    /// The last `size` outcomes.
    Count {
        /// How many outcomes are remembered.
        size: NonZeroU32,
    },
    /// The last `span` of time, forgotten a bucket at a time.
    Time {
        /// How long an outcome is remembered; at exactly this age it is gone.
        span: Duration,
        /// Into how many buckets the span is divided.
        buckets: NonZeroU32,
    },
    /// Fixed intervals; the counts start from zero at each multiple of `span`.
    Tumbling {
        /// The length of an interval.
        span: Duration,
    },
}

/// When a breaker opens, for how long, and how it closes again.
///
/// The defaults are the acceptance list's item 2: five failures in a row open it for 30 s, one
/// good probe closes it.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// What is remembered while closed.
    pub window: WindowKind,
    /// Failures in the window that open it; `None` leaves the rule out.
    pub failure_threshold: Option<NonZeroU32>,
    /// Failures in a row that open it, whatever the window; `None` leaves the rule out.
    pub consecutive_failures: Option<NonZeroU32>,
    /// Share of failures that opens it, judged from `minimum_calls` on.
    pub failure_rate: Option<Rate>,
    /// Share of slow calls that opens it, judged from `minimum_calls` on; needs `slow_call`.
    pub slow_rate: Option<Rate>,
    /// From how long on a call is slow (`>=`).
    pub slow_call: Option<Duration>,
    /// Outcomes that must be in the window before a rate is judged.
    pub minimum_calls: u32,
    /// How long it stays open.
    pub open: OpenTime,
    /// How it is tried again.
    pub half_open: HalfOpenSettings,
    /// What a call counts for whose caller went away before its deadline.
    pub cancelled: CancelledPolicy,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            window: WindowKind::Consecutive,
            failure_threshold: Some(nonzero(5)),
            consecutive_failures: None,
            failure_rate: None,
            slow_rate: None,
            slow_call: None,
            minimum_calls: 20,
            open: OpenTime::default(),
            half_open: HalfOpenSettings::default(),
            cancelled: CancelledPolicy::Ignore,
        }
    }
}

/// How long an open breaker stays open.
///
/// The n-th time in a row (0 for the first, back to 0 after a close) it is
/// `min(base * factor^n, max) * (1 + jitter * u)` with `u` in [0, 1): jitter only lengthens.
///
/// # Source  Rule BRK-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenTime {
    /// The first time, `recovery_timeout`.
    pub base: Duration,
    /// Growth for each probe period that failed; 1.0 does not grow.
    pub factor: f64,
    /// The longest time before jitter; hints may be longer.
    pub max: Duration,
    /// Largest random share that is added, in [0, 1].
    pub jitter: f64,
}

impl Default for OpenTime {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(30),
            factor: 1.0,
            max: Duration::from_secs(300),
            jitter: 0.0,
        }
    }
}

/// How a half-open breaker finds out whether the dependency is back.
///
/// # Source  Rules BRK-4 and BRK-5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpenSettings {
    /// Probes at once.
    pub max_calls: NonZeroU32,
    /// Probes of one half-open period, in flight plus recorded; `None` for no such limit.
    pub max_admitted: Option<NonZeroU32>,
    /// What decides.
    pub rule: HalfOpenRule,
    /// How long a probe may be silent.
    pub probe_lease: Duration,
    /// What a probe counts for that was silent for longer.
    pub lost_probe: LostProbe,
    /// Whether a probe whose caller went away opens the breaker again.
    pub cancelled_probe_reopens: bool,
    /// The longest a half-open period may last, whatever its probes do; `None` for no limit.
    pub limit: Option<HalfOpenLimit>,
}

impl Default for HalfOpenSettings {
    fn default() -> Self {
        Self {
            max_calls: ONE,
            max_admitted: None,
            rule: HalfOpenRule::Successes(ONE),
            probe_lease: Duration::from_secs(10),
            lost_probe: LostProbe::Fails,
            cancelled_probe_reopens: false,
            limit: None,
        }
    }
}

/// The longest a half-open period may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpenLimit {
    /// Measured from the period's beginning.
    pub after: Duration,
    /// Whether it closes then; otherwise it opens again, as after a failed probe.
    pub closes: bool,
}

/// What closes or re-opens a half-open breaker. A slow success is no success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfOpenRule {
    /// So many successes close it; any failure opens it.
    Successes(NonZeroU32),
    /// After so many results the closed state's rates are judged.
    Rate {
        /// Results to wait for.
        results: NonZeroU32,
    },
    /// `needed` of `of` must succeed; decided as early as it is certain.
    KOfN {
        /// Successes needed, at most `of`.
        needed: NonZeroU32,
        /// Results at most.
        of: NonZeroU32,
    },
    /// No half-open state: it closes when the open time is over.
    AutoClose,
}

/// What becomes of a probe that did not report within its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostProbe {
    /// It counts as failed: the breaker opens again.
    #[default]
    Fails,
    /// Its slot is given to the next caller.
    FreesItsSlot,
}

/// What a cancelled call counts for. Past its deadline it is a failure in any case (BRK-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CancelledPolicy {
    /// Nothing.
    #[default]
    Ignore,
    /// A failure.
    Failure,
    /// Failures, once they reach this share of all outcomes in the window, cancelled ones included;
    /// below it, nothing. In half-open a cancelled probe is no result.
    Rate(Rate),
}

/// How long a call may take.
///
/// # Source  Rule CALL-5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutSettings {
    /// Until a connection stands; kept by whoever connects. `None` for no limit, as below.
    pub connect: Option<Duration>,
    /// One attempt in the worker.
    pub attempt: Option<Duration>,
    /// The whole call with its retries and waits.
    pub total: Option<Duration>,
    /// From the request to the first part of a streamed answer.
    pub first_byte: Option<Duration>,
    /// Between two parts of a streamed answer.
    pub idle: Option<Duration>,
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            connect: Some(Duration::from_secs(1)),
            attempt: Some(Duration::from_secs(5)),
            total: Some(Duration::from_secs(15)),
            first_byte: Some(Duration::from_secs(5)),
            idle: Some(Duration::from_secs(30)),
        }
    }
}

/// How often, and how far apart, a failed call is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// Attempts in all; 1 means no retry.
    pub max_attempts: NonZeroU32,
    /// The waits between them.
    pub backoff: BackoffSettings,
    /// The share of calls that may be retries.
    pub budget: Option<BudgetSettings>,
    /// Whether the dependency's `Retry-After` lengthens the wait.
    pub respect_retry_after: bool,
    /// Whether a refusal by the open breaker is tried again too. Off: retrying stops when it opens.
    pub on_open: bool,
    /// The symptoms after which it is tried again; `None` for every failure and throttle.
    pub on: Option<Symptoms>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max_attempts: ONE,
            backoff: BackoffSettings::default(),
            budget: Some(BudgetSettings::default()),
            respect_retry_after: true,
            on_open: false,
            on: None,
        }
    }
}

/// A growing delay: `min(base * factor^n, max)`, spread by `jitter`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackoffSettings {
    /// The first delay.
    pub base: Duration,
    /// Growth from one delay to the next, at least 1.0.
    pub factor: f64,
    /// The longest delay.
    pub max: Duration,
    /// How it is spread.
    pub jitter: RetryJitter,
}

impl Default for BackoffSettings {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(2),
            jitter: RetryJitter::Full,
        }
    }
}

/// How a delay is spread, so that callers who failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RetryJitter {
    /// Not at all.
    None,
    /// Uniform in [0, delay).
    #[default]
    Full,
    /// Half fixed, half uniform: [delay / 2, delay).
    Equal,
    /// Uniform in [base, 3 * the delay before), at most the longest delay: each caller's delays
    /// grow by a path of their own.
    Decorrelated,
    /// Lengthened by a random share of at most this much, in [0, 1].
    Added(f64),
}

/// How many retries a dependency's callers may make together.
///
/// # Source  Rule LIM-4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetSettings {
    /// Retries per call, in [0, 1].
    pub ratio: f64,
    /// Retries a second that are always allowed.
    pub floor_per_second: u32,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            floor_per_second: 10,
        }
    }
}

/// How many calls may be at the dependency at once, and how many may wait.
///
/// # Source  Rule CALL-6.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BulkheadSettings {
    /// Calls in flight.
    pub max_concurrent: NonZeroU32,
    /// Writes in flight, at most `max_concurrent`; `None` for no limit of their own (LIM-3).
    pub max_concurrent_writes: Option<NonZeroU32>,
    /// Calls that wait for a place.
    pub max_queue: u32,
    /// How long one waits at most.
    pub max_wait: Duration,
    /// A limit that finds its own height below `max_concurrent`; `None` for none.
    pub adaptive: Option<AdaptiveSettings>,
}

impl Default for BulkheadSettings {
    fn default() -> Self {
        Self {
            max_concurrent: nonzero(32),
            max_concurrent_writes: None,
            max_queue: 64,
            max_wait: Duration::from_millis(500),
            adaptive: None,
        }
    }
}

/// Who executes the calls, and what happens after a crash.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerSettings {
    /// How many workers.
    pub count: NonZeroU32,
    /// On which thread.
    pub placement: Placement,
    /// When a worker that ended is started again.
    pub restart: RestartType,
    /// Restarts that are too many.
    pub intensity: Intensity,
    /// The wait before a restart; the first after a healthy run is at once.
    pub backoff: BackoffSettings,
    /// Healthy running time after which the backoff starts from the beginning.
    pub reset_after: Duration,
    /// What happens when the restarts were too many.
    pub give_up: GiveUp,
    /// What becomes of calls while no worker runs.
    pub while_restarting: WhileRestarting,
    /// How long a worker may finish its calls when it is stopped.
    pub drain: Duration,
    /// From how long on a worker that blocks its thread is taken for stuck; dedicated ones only.
    pub stuck_after: Option<Duration>,
    /// When a call that keeps crashing workers is refused.
    pub quarantine: Option<QuarantineSettings>,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            count: ONE,
            placement: Placement::Shared,
            restart: RestartType::Permanent,
            intensity: Intensity {
                max: 5,
                within: Duration::from_secs(30),
            },
            backoff: BackoffSettings {
                base: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(10),
                jitter: RetryJitter::Added(0.2),
            },
            reset_after: Duration::from_secs(10),
            give_up: GiveUp::Park,
            while_restarting: WhileRestarting::Hold,
            drain: Duration::from_secs(5),
            stuck_after: None,
            quarantine: Some(QuarantineSettings::default()),
        }
    }
}

/// On which thread an actor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// On one of the runtime's own threads.
    #[default]
    Shared,
    /// On a thread of its own: for whatever may block.
    Dedicated,
}

/// When a child that ended is started again (OTP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartType {
    /// Always.
    #[default]
    Permanent,
    /// After an abnormal end.
    Transient,
    /// Never.
    Temporary,
}

/// Restarts that are too many: more than `max` within `within`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are still tolerated.
    pub max: u32,
    /// The sliding window; a restart counts while it is younger than this.
    pub within: Duration,
}

/// What a supervisor does when the restarts were too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GiveUp {
    /// Stop the other children and fail upward.
    Escalate,
    /// Keep the child down, force its breaker open, let the siblings live.
    #[default]
    Park,
}

/// What becomes of calls while no worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhileRestarting {
    /// They wait for the next incarnation, within the bulkhead's bound and their own deadline.
    #[default]
    Hold,
    /// They are refused at once (and may be answered by a fallback); queued ones fail too.
    Reject,
}

/// When a call that keeps crashing workers is refused.
///
/// # Source  Rule SUP-6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// Crashes by the same fingerprint that are too many.
    pub crashes: NonZeroU32,
    /// How long the fingerprint is refused, and how long a crash is remembered.
    pub ttl: Duration,
    /// Fingerprints that are remembered at most; the oldest is forgotten first.
    pub max_entries: NonZeroU32,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        Self {
            crashes: nonzero(2),
            ttl: Duration::from_secs(60),
            max_entries: nonzero(1024),
        }
    }
}
