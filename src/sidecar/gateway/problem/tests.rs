//! Tests of the gateway's own errors.

use std::num::NonZeroU32;
use std::sync::Arc;

use breakerbox_policy::supervision::{PanicReport, StopCause};
use breakerbox_policy::{PauseReason, RefusalState};

use super::*;
use crate::sidecar::gateway::http::connect_failure::ConnectFailure;
use crate::sidecar::gateway::message::{ContentFailure, SlowBody};
use crate::{BulkheadLimit, RefusalReason, Refused};
use crate::{Limit, NotExecutedReason};

type Error = CallError<HttpError>;

fn name() -> Arc<str> {
    Arc::from("web")
}

fn shown(error: &Error) -> (&'static str, u16, &'static str, Option<u64>) {
    let problem = GatewayProblem::of_call(error, "web");
    let ProblemKind(code, status, _) = kind_of(error, &|error| kind_of_failure(error.failure));
    assert_eq!(problem.kind, format!("urn:breakerbox:{code}"));
    assert_eq!(problem.status, status.as_u16());
    (
        code,
        problem.status,
        problem.executed,
        problem.retry_after_ms,
    )
}

fn failed(failure: HttpFailure) -> Error {
    let error = HttpError::from(failure);
    CallError::Failed {
        dependency: name(),
        executed: error.verdict().executed,
        error,
    }
}

fn absent(reason: NotExecutedReason) -> Error {
    CallError::NotExecuted {
        dependency: name(),
        reason,
        cause: None,
        retry_after: Some(Duration::from_micros(1500)),
    }
}

fn refused() -> Error {
    let reason = RefusalReason::new(name(), None, "it failed");
    let wait = Some(Duration::from_secs(3));
    let mut refused = Refused::new(RefusalState::HalfOpen, wait, reason);
    refused.executed = Executed::Yes;
    CallError::Open(refused)
}

fn limited(limit: Limit) -> Error {
    CallError::RateLimited {
        dependency: name(),
        limit,
        retry_after: None,
    }
}

#[test]
fn call_2_each_way_to_end_has_its_code() {
    let panic = PanicReport::new("told to");
    let one = NonZeroU32::MIN;
    let dependency = name();
    let ends: [(Error, _); 14] = [
        (refused(), ("breaker-open", 503, "yes", Some(3000))),
        (
            CallError::Overloaded {
                dependency: name(),
                limit: BulkheadLimit::default(),
                max_concurrent: 1,
                max_queue: 1,
            },
            ("overloaded", 503, "no", None),
        ),
        (limited(Limit::Rate), ("rate-limited", 429, "no", None)),
        (
            limited(Limit::Pause(PauseReason::Throttled)),
            ("rate-limited", 429, "no", None),
        ),
        (
            limited(Limit::TooHeavy {
                weight: one,
                burst: one,
            }),
            ("rate-limited", 429, "no", None),
        ),
        (
            CallError::TimedOut {
                dependency: name(),
                limit: TimeLimit::Total,
                after: Duration::ZERO,
                executed: Executed::No,
            },
            ("timed-out", 504, "no", None),
        ),
        (
            CallError::WorkerCrashed {
                dependency: name(),
                panic,
            },
            ("worker-crashed", 502, "maybe", None),
        ),
        (
            CallError::Interrupted {
                dependency: name(),
                cause: StopCause::Lost,
            },
            ("worker-crashed", 502, "maybe", None),
        ),
        (
            CallError::Quarantined {
                dependency,
                retry_after: Duration::from_secs(1),
            },
            ("quarantined", 503, "no", Some(1000)),
        ),
        (
            absent(NotExecutedReason::Parked),
            ("unavailable", 503, "no", Some(2)),
        ),
        (
            absent(NotExecutedReason::ShuttingDown),
            ("shutting-down", 503, "no", Some(2)),
        ),
        (
            CallError::Injected { dependency: name() },
            ("upstream-failed", 502, "no", None),
        ),
        (
            failed(HttpFailure::Status(500)),
            ("upstream-failed", 502, "yes", None),
        ),
        (
            CallError::FallbackFailed {
                dependency: name(),
                fallback: name(),
                message: "no".to_owned(),
                executed: Executed::Maybe,
                executed_by_fallbacks: Executed::Maybe,
                cause: Box::new(failed(HttpFailure::Reset)),
            },
            ("upstream-failed", 502, "maybe", None),
        ),
    ];
    for (error, expected) in ends {
        assert_eq!(shown(&error), expected, "{error}");
    }
}

#[test]
fn call_2_what_the_caller_did_wrong_is_told_as_that() {
    for (failure, code, status) in [
        (
            HttpFailure::BodyTooLarge("gateway.max_body"),
            "body-too-large",
            413,
        ),
        (
            HttpFailure::BodyTooSlow(SlowBody::Pause),
            "request-timeout",
            408,
        ),
        (HttpFailure::BodyCut, "bad-request", 400),
    ] {
        assert_eq!(shown(&failed(failure)), (code, status, "maybe", None));
    }
    assert_eq!(
        shown(&failed(HttpFailure::Connect(ConnectFailure::Refused))).2,
        "no"
    );
    assert_eq!(
        shown(&failed(HttpFailure::Late(TimeLimit::Idle))).0,
        "timed-out"
    );
    let unsent = HttpFailure::Connect(ConnectFailure::Late(TimeLimit::FirstByte));
    assert_eq!(shown(&failed(unsent)), ("timed-out", 504, "no", None));
}

#[test]
fn edge_8_each_limit_that_cuts_is_named_in_the_text_and_as_the_cause() {
    let limits = [
        (
            HttpFailure::BodyTooLarge("gateway.max_body"),
            "gateway.max_body",
        ),
        (
            HttpFailure::BodyTooSlow(SlowBody::Pause),
            "gateway.body_timeout",
        ),
        (
            HttpFailure::BodyTooSlow(SlowBody::Place),
            "bulkhead.max_concurrent",
        ),
        (
            HttpFailure::Content(ContentFailure::NoContent),
            "timeout.first_token",
        ),
        (HttpFailure::Content(ContentFailure::Gap), "timeout.gap"),
        (HttpFailure::Late(TimeLimit::Idle), "timeout.idle"),
    ];
    for (failure, limit) in limits {
        for problem in [
            GatewayProblem::of_call(&failed(failure), "web"),
            GatewayProblem::of_body(failure.before_sending(), "web"),
        ] {
            assert_eq!(problem.cause, limit);
            assert!(problem.detail.contains(limit), "{}", problem.detail);
        }
    }
}

#[test]
fn lim_4_what_no_retry_helps_says_so() {
    for (kind, is_said) in [
        (ProblemKind::LOOP, true),
        (ProblemKind::NO_TUNNEL, true),
        (ProblemKind::OPEN, true),
        (ProblemKind::NOT_READY, false),
        (ProblemKind::NO_KEYS, false),
    ] {
        let response = GatewayProblem::of(kind, None, "x").into_response();
        let is_told = response.headers().contains_key("x-should-retry");
        assert_eq!(is_told, is_said, "{kind:?}");
    }
}

#[test]
fn edge_8_the_page_of_the_gateway_has_each_code_with_its_status() {
    let all = [
        ProblemKind::OPEN,
        ProblemKind::OVERLOADED,
        ProblemKind::RATE_LIMITED,
        ProblemKind::TIMED_OUT,
        ProblemKind::FAILED,
        ProblemKind::CRASHED,
        ProblemKind::UNAVAILABLE,
        ProblemKind::STOPPING,
        ProblemKind::QUARANTINED,
        ProblemKind::NOT_READY,
        ProblemKind::UNKNOWN,
        ProblemKind::NO_PATH,
        ProblemKind::BAD_REQUEST,
        ProblemKind::FOREIGN_HOST,
        ProblemKind::FOREIGN_ORIGIN,
        ProblemKind::UNAUTHORIZED,
        ProblemKind::NO_SCOPE,
        ProblemKind::NO_KEYS,
        ProblemKind::LOOP,
        ProblemKind::NO_TUNNEL,
        ProblemKind::UNKNOWN_CODING,
        ProblemKind::METHOD,
        ProblemKind::EXPECTATION,
        ProblemKind::HEAD_TOO_LARGE,
        ProblemKind::BODY_TOO_LARGE,
        ProblemKind::BODY_TOO_SLOW,
        ProblemKind::INPUT_REQUIRED,
        ProblemKind::CANCELLED,
    ];
    let kinds = include_str!("../problem.rs").matches(": Self = Self(");
    assert_eq!(kinds.count(), all.len(), "one is missing here");
    let page = include_str!("../../../../docs/gateway.md");
    for ProblemKind(code, status, _) in all {
        let row = format!("| `{code}` | {} |", status.as_u16());
        assert!(page.contains(&row), "{row}");
    }
}
