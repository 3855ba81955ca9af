//! Checked settings of one dependency, in the form the state machines take.
//!
//! Values that cannot work are unrepresentable where the type system can say so. Relations between
//! fields are checked by the reader of the configuration, and by [`judgement`] (rule CFG-1). Nothing
//! here parses.

mod changes;

pub mod judgement;

mod limits;

mod overriding;

mod shown;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::{ClassifySettings, HealthSettings, Rate, Symptoms};

pub use overriding::{ConfiguredOverride, OverrideMode};

pub use limits::{
    AdaptiveRule, AdaptiveSettings, ChaosSettings, HedgeDelay, HedgeSettings, KeySettings,
    QuotaReset, RateLimitSettings, RateSharing, ThrottleSettings, WhenAllDown,
};

/// The number one, as a non-zero integer.
const ONE: NonZeroU32 = NonZeroU32::MIN;

/// Builds a non-zero constant. Zero becomes one; no caller below passes zero.
const fn nonzero(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => ONE,
    }
}

/// All settings of one dependency.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DependencySettings {
    /// Breaker: when calls are refused.
    pub breaker: BreakerSettings,
    /// Time limits of a call.
    pub timeout: TimeoutSettings,
    /// Retries of a failed call.
    pub retry: RetrySettings,
    /// Hedging: a second attempt beside a slow one; `None` for never.
    pub hedge: Option<HedgeSettings>,
    /// Maximum rate of calls; `None` for no limit.
    pub rate_limit: Option<RateLimitSettings>,
    /// Makes `rate_limit` one limit for all replicas of a fleet; `None` for one of each replica.
    pub rate_sharing: Option<RateSharing>,
    /// Reaction when the dependency asks for less traffic.
    pub throttle: ThrottleSettings,
    /// Bulkhead: limit on calls in flight.
    pub bulkhead: BulkheadSettings,
    /// Workers that execute the calls, and their restart after a crash.
    pub workers: WorkerSettings,
    /// Class of each symptom of an attempt.
    pub classify: ClassifySettings,
    /// When its answers make it degraded.
    pub health: HealthSettings,
    /// Breakers of the request keys, if its requests have keys.
    pub keys: KeySettings,
    /// Lease that the breaker of a key needs before it probes.
    pub key_lease: ProbeLease,
    /// Result of a call that the breaker refused and no fallback could answer.
    pub when_all_down: WhenAllDown,
    /// Injected faults; `None` for none.
    pub chaos: Option<ChaosSettings>,
    /// True if its fallbacks answer all calls and the dependency itself is never called.
    pub fallback_only: bool,
    /// Override of its breaker that holds while no operator and no supervisor sets another one;
    /// `None` for none.
    pub configured_override: Option<ConfiguredOverride>,
}

/// Kind of window over which a closed breaker judges its calls.
///
/// # Source  Rule BRK-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// The run of failures since the last success.
    Consecutive,
    /// The last `size` outcomes.
    Count {
        /// Number of outcomes in the window.
        size: NonZeroU32,
    },
    /// The last `span` of time; outcomes are forgotten one bucket at a time.
    Time {
        /// Age at which an outcome is forgotten; at exactly this age it is gone.
        span: Duration,
        /// Number of buckets into which the span is divided.
        buckets: NonZeroU32,
    },
    /// Fixed intervals; the counts start from zero at each multiple of `span`.
    Tumbling {
        /// Length of an interval.
        span: Duration,
    },
}

/// Rules by which a breaker opens, its open time, and its recovery.
///
/// By default, five failures in a row open it for 30 s, and one successful probe closes it.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// Window of outcomes remembered while closed.
    pub window: WindowKind,
    /// Number of failures in the window that opens it; `None` disables the rule.
    pub failure_threshold: Option<NonZeroU32>,
    /// Number of failures in a row that opens it, for every kind of window; `None` disables the
    /// rule.
    pub consecutive_failures: Option<NonZeroU32>,
    /// Failure rate that opens it, judged from `minimum_calls` on.
    pub failure_rate: Option<Rate>,
    /// Rate of slow calls that opens it, judged from `minimum_calls` on; needs `slow_call`.
    pub slow_rate: Option<Rate>,
    /// Duration from which a call is slow (`>=`).
    pub slow_call: Option<Duration>,
    /// Minimum number of outcomes in the window before a rate is judged.
    pub minimum_calls: u32,
    /// Time for which it stays open.
    pub open: OpenTime,
    /// Probing of the dependency before it closes.
    pub half_open: HalfOpenSettings,
    /// Effect of a call that its caller cancelled before the deadline.
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

/// Time for which a breaker stays open.
///
/// The n-th time in a row (0 for the first, back to 0 after a close) it is
/// `min(base * factor^n, max) * (1 + jitter * u)` with `u` in [0, 1): jitter only lengthens it.
///
/// # Source  Rule BRK-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenTime {
    /// The first open time, `recovery_timeout`.
    pub base: Duration,
    /// Growth factor for each failed half-open period; 1.0 does not grow.
    pub factor: f64,
    /// Maximum open time before jitter; hints may be longer.
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

/// Probing of the dependency by a half-open breaker.
///
/// # Source  Rules BRK-4 and BRK-5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpenSettings {
    /// Maximum number of probes in flight.
    pub max_calls: NonZeroU32,
    /// Maximum number of probes in one half-open period, in flight plus recorded; `None` for no
    /// limit.
    pub max_admitted: Option<NonZeroU32>,
    /// Rule that closes or re-opens the breaker.
    pub rule: HalfOpenRule,
    /// Maximum time for a probe to report.
    pub probe_lease: Duration,
    /// Effect of a probe that did not report within its lease.
    pub lost_probe: LostProbe,
    /// True if a probe that its caller cancelled opens the breaker again.
    pub cancelled_probe_reopens: bool,
    /// Maximum duration of a half-open period, independent of its probes; `None` for no limit.
    pub limit: Option<HalfOpenLimit>,
    /// Consent that it needs to become half-open at the end of its open time.
    pub lease: ProbeLease,
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
            lease: ProbeLease::Own,
        }
    }
}

/// Consent that a breaker needs to become half-open at the end of its open time.
///
/// # Source  Rules FLT-1 and FLT-7 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProbeLease {
    /// It decides by itself.
    #[default]
    Own,
    /// It asks for the fleet's lease, and decides by itself only without an answer.
    Leased {
        /// Maximum wait for an answer.
        timeout: Duration,
    },
}

/// Maximum duration of a half-open period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpenLimit {
    /// Duration, measured from the start of the period.
    pub after: Duration,
    /// True to close the breaker then; false to open it again, as after a failed probe.
    pub closes: bool,
}

/// Rule that closes or re-opens a half-open breaker. A slow success is not a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfOpenRule {
    /// This many successes close it; any failure opens it.
    Successes(NonZeroU32),
    /// After this many results, the closed state's rates are judged.
    Rate {
        /// Number of results to wait for.
        results: NonZeroU32,
    },
    /// `needed` of `of` probes must succeed; decided as soon as the result is certain.
    KOfN {
        /// Number of successes needed, at most `of`.
        needed: NonZeroU32,
        /// Maximum number of results.
        of: NonZeroU32,
    },
    /// No half-open state: it closes when the open time is over.
    AutoClose,
}

/// Handling of a probe that did not report within its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostProbe {
    /// It counts as failed: the breaker opens again.
    #[default]
    Fails,
    /// Its slot is given to the next caller.
    FreesItsSlot,
}

/// Effect of a cancelled call. Past its deadline, it always counts as a failure (BRK-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CancelledPolicy {
    /// It is ignored.
    #[default]
    Ignore,
    /// It counts as a failure.
    Failure,
    /// Cancelled calls count as failures once they reach this share of all outcomes in the window,
    /// cancelled ones included; below it, they are ignored. In half-open, a cancelled probe is not
    /// a result.
    Rate(Rate),
}

/// Time limits of a call.
///
/// # Source  Rule CALL-5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutSettings {
    /// Until a connection is established; enforced by the code that connects. `None` for no limit,
    /// as below.
    pub connect: Option<Duration>,
    /// One attempt in the worker.
    pub attempt: Option<Duration>,
    /// The whole call, with its retries and waits.
    pub total: Option<Duration>,
    /// From the request to the first part of a streamed response.
    pub first_byte: Option<Duration>,
    /// Between two parts of a streamed response.
    pub idle: Option<Duration>,
    /// From the start of an attempt to the first content of a model's stream; enforced by the code that
    /// reads the content, as the next one.
    pub first_token: Option<Duration>,
    /// Between two pieces of content of a model's stream.
    pub gap: Option<Duration>,
    /// Idle time for which a connection is kept; enforced by the code that connects. `None` keeps
    /// none.
    pub keep: Option<Duration>,
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            connect: Some(Duration::from_secs(1)),
            attempt: Some(Duration::from_secs(5)),
            total: Some(Duration::from_secs(15)),
            first_byte: Some(Duration::from_secs(5)),
            idle: Some(Duration::from_secs(30)),
            first_token: None,
            gap: None,
            // Less than what servers allow: Node and uvicorn five seconds.
            keep: Some(Duration::from_secs(4)),
        }
    }
}

/// Number of attempts of a failed call, and the waits between them.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// Maximum number of attempts that are made; 1 means no retry. It is the maximum number of refusals
    /// by an open breaker too, where `on_open` lets calls ask again.
    pub max_attempts: NonZeroU32,
    /// Waits between the attempts.
    pub backoff: BackoffSettings,
    /// Share of calls that may be retries.
    pub budget: Option<BudgetSettings>,
    /// True if the dependency's `Retry-After` lengthens the wait.
    pub respect_retry_after: bool,
    /// True if a refusal by an open breaker is retried too. If false, retrying stops when it opens.
    pub on_open: bool,
    /// Symptoms that are retried; `None` for every failure and throttle.
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
    /// Growth factor from one delay to the next, at least 1.0.
    pub factor: f64,
    /// Maximum delay.
    pub max: Duration,
    /// Random spread of the delay.
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

/// Random spread of a delay, so that callers that failed together do not retry together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RetryJitter {
    /// No spread.
    None,
    /// Uniform in [0, delay).
    #[default]
    Full,
    /// Half fixed, half uniform: [delay / 2, delay).
    Equal,
    /// Uniform in [base, 3 * the previous delay), at most the maximum delay: each caller's delays
    /// grow along a different path.
    Decorrelated,
    /// Lengthened by a random share of at most this value, in [0, 1].
    Added(f64),
}

/// Retry budget that all callers of a dependency share.
///
/// # Source  Rule LIM-4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetSettings {
    /// Retries per call, in [0, 1].
    pub ratio: f64,
    /// Retries per second that are always allowed.
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

/// Limits on calls in flight and on waiting calls.
///
/// # Source  Rule CALL-6.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BulkheadSettings {
    /// Maximum number of calls in flight.
    pub max_concurrent: NonZeroU32,
    /// Maximum number of writes in flight, at most `max_concurrent`; `None` for no separate limit
    /// (LIM-3).
    pub max_concurrent_writes: Option<NonZeroU32>,
    /// Maximum number of calls that wait for a slot.
    pub max_queue: u32,
    /// Maximum wait of a call.
    pub max_wait: Duration,
    /// Adaptive limit below `max_concurrent`; `None` for none.
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

/// Workers that execute the calls, and their restart after a crash.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerSettings {
    /// Number of workers.
    pub count: NonZeroU32,
    /// Thread on which a worker runs.
    pub placement: Placement,
    /// Condition for restarting a worker that ended.
    pub restart: RestartType,
    /// Restart intensity that is tolerated.
    pub intensity: Intensity,
    /// Wait before a restart; the first restart after a healthy run is immediate.
    pub backoff: BackoffSettings,
    /// Healthy running time after which the backoff starts over.
    pub reset_after: Duration,
    /// Maximum time of one start of a worker, the first one or a later one; `None` for no limit. A
    /// start that takes longer has failed.
    pub start_timeout: Option<Duration>,
    /// Action when the restart intensity is exceeded.
    pub give_up: GiveUp,
    /// Handling of calls while no worker runs.
    pub while_restarting: WhileRestarting,
    /// Maximum time for a stopping worker to finish its calls.
    pub drain: Duration,
    /// Time after which a worker that blocks its thread counts as stuck; dedicated workers only.
    pub stuck_after: Option<Duration>,
    /// Quarantine of calls that keep crashing workers.
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
            start_timeout: None,
            give_up: GiveUp::Park,
            while_restarting: WhileRestarting::Hold,
            drain: Duration::from_secs(5),
            stuck_after: None,
            quarantine: Some(QuarantineSettings::default()),
        }
    }
}

/// Thread on which an actor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// One of the runtime's own threads.
    #[default]
    Shared,
    /// A thread of its own, for work that may block.
    Dedicated,
}

/// Condition for restarting a child that ended (OTP).
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

/// Restart intensity: more than `max` restarts within `within` are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Maximum number of restarts that is tolerated.
    pub max: u32,
    /// The sliding window; a restart counts while it is younger than this.
    pub within: Duration,
}

/// Action of a supervisor when the restart intensity is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GiveUp {
    /// Stop the other children and fail upward.
    Escalate,
    /// Keep the child down, force its breaker open, and let its siblings run.
    #[default]
    Park,
    /// Force its breaker open and let its siblings run, but start the child again after each
    /// backoff, for ever: it is well again by itself once its cause is gone.
    Retry,
}

/// Handling of calls while no worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhileRestarting {
    /// They wait for the next incarnation, within the bulkhead's bound and their own deadline.
    #[default]
    Hold,
    /// They are refused at once (and may be answered by a fallback); queued ones fail too.
    Reject,
}

/// Refusal of a call that keeps crashing workers.
///
/// # Source  Rule SUP-6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// Number of crashes by one fingerprint that is too many.
    pub crashes: NonZeroU32,
    /// Time for which a fingerprint is refused, and for which a crash is remembered.
    pub ttl: Duration,
    /// Maximum number of fingerprints remembered; the oldest is forgotten first.
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
