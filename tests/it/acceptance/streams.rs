//! Items 83 and 84: time limits within an attempt, and of a streamed answer.

use std::fmt;
use std::future::pending;

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{
    CallContext, CallError, CallOptions, Client, Dependency, TimeLimit, TimeLimitExceeded, Verdict,
};
use breakerbox_policy::{Class, DependencySettings, Executed, State};
use tokio::time::Instant;

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, opens_after, pass};
use crate::streamed::{LOST, Scripts, Step, play, read};

/// Host behaviour as a client sees it, on virtual time.
#[derive(Debug, Clone, Copy)]
enum Host {
    /// Drops all packets.
    Unroutable,
    /// Accepts the connection and sends nothing.
    Silent,
    /// Sends a byte every 300 ms, without an end.
    Trickling,
}

#[derive(Debug)]
struct Lost(TimeLimitExceeded);

impl fmt::Display for Lost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<TimeLimitExceeded> for Lost {
    fn from(late: TimeLimitExceeded) -> Self {
        Self(late)
    }
}

/// Client of such hosts, which enforces the limits through its [`CallContext`].
struct Transport;

impl Dependency for Transport {
    type Request = Host;
    type Response = ();
    type Error = Lost;

    async fn call(&self, host: Host, call: &CallContext) -> Result<(), Lost> {
        let connecting = async {
            if let Host::Unroutable = host {
                pending().await
            }
        };
        call.connect(connecting).await?;
        let head = async {
            match host {
                Host::Unroutable | Host::Silent => pending().await,
                Host::Trickling => pass(300).await,
            }
        };
        call.first_byte(head).await?;
        loop {
            call.idle(pass(300)).await?;
        }
    }

    fn classify(result: Result<&(), &Lost>) -> Verdict {
        result.map_or_else(
            |Lost(late)| Verdict::from(late.symptom()),
            |()| Verdict::from(Class::Success),
        )
    }
}

fn limits(settings: &mut DependencySettings) {
    settings.timeout.connect = Some(ms(200));
    settings.timeout.first_byte = Some(ms(400));
    settings.timeout.idle = Some(ms(400));
    settings.timeout.attempt = Some(ms(1_000));
    settings.breaker.failure_threshold = Some(nonzero(100));
}

fn retrying(attempts: u32) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        limits(settings);
        settings.retry.max_attempts = nonzero(attempts);
        // Delays that do not grow: their random sum must not cost an attempt.
        settings.retry.backoff.base = ms(1);
        settings.retry.backoff.factor = 1.0;
        settings.retry.budget = None;
    }
}

fn due() -> CallOptions {
    CallOptions {
        timeout: Some(ms(1_500)),
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

async fn transport(
    runtime: &TestRuntime,
    name: &str,
    configure: impl FnOnce(&mut DependencySettings),
) -> Client<Transport> {
    let builder = runtime.dependency(name).configure(configure);
    builder.workers(|| Transport).start().await.unwrap()
}

/// Returns the error of one call and the milliseconds it took.
async fn ask(client: &Client<Transport>, host: Host) -> (CallError<Lost>, u128) {
    let began = Instant::now();
    let error = client.ask_with(host, due()).await.unwrap_err();
    (error, began.elapsed().as_millis())
}

#[test]
fn item_83_each_limit_ends_what_it_is_for() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = transport(&runtime, "host", limits).await;

        let (error, took) = ask(&client, Host::Unroutable).await;
        let CallError::Failed {
            error: Lost(late), ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((late.limit, late.after), (TimeLimit::Connect, ms(200)));
        assert_eq!(took, 200);
        assert_eq!(
            error.to_string(),
            "host failed: no connection within 200 ms (timeout.connect)"
        );

        let (error, took) = ask(&client, Host::Silent).await;
        let CallError::Failed {
            error: Lost(late), ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((late.limit, late.after), (TimeLimit::FirstByte, ms(400)));
        assert_eq!(took, 400);

        let (error, took) = ask(&client, Host::Trickling).await;
        let CallError::TimedOut {
            after, executed, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((*after, *executed), (ms(1_000), Executed::Maybe));
        assert_eq!(took, 1_000);

        assert_eq!(client.status().tally.failures, 3);
        runtime.finish().await;
    });
}

#[test]
fn item_83_retries_never_pass_the_callers_deadline() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = transport(&runtime, "host", retrying(100)).await;
        for (host, attempts) in [
            // The deadline cuts the eighth attempt short.
            (Host::Unroutable, 8),
            (Host::Silent, 4),
            (Host::Trickling, 2),
        ] {
            let before = client.status().totals.attempts;
            let (_, took) = ask(&client, host).await;
            assert_eq!(took, 1_500, "{host:?}");
            assert_eq!(
                client.status().totals.attempts - before,
                attempts,
                "{host:?}"
            );
        }
        runtime.finish().await;
    });
}

/// Same limits for a streamed body, where the runtime itself enforces them.
#[test]
fn item_83_a_streamed_body_keeps_to_the_limits() {
    run_paused(async || {
        let bench = Bench::start(limits).await;
        let good = |_: Result<&_, &&str>| Verdict::from(Class::Success);

        let began = Instant::now();
        let silent = async || Ok(play([Step::Hang]));
        let opened = bench.client.run_stream_with(due(), good, silent).await;
        let error = opened.unwrap_err();
        assert!(
            matches!(error, CallError::TimedOut { after, .. } if after == ms(400)),
            "{error}"
        );
        assert_eq!(began.elapsed(), ms(400));

        let began = Instant::now();
        let byte = [Step::Wait(300), Step::Item(1)];
        let trickling = Scripts::new([&byte.repeat(100)]);
        let open = || trickling.open();
        let opened = bench.client.run_stream_with(due(), good, open).await;
        let (items, error) = read(opened.unwrap()).await;
        let error = error.unwrap();
        assert!(
            matches!(error, CallError::TimedOut { after, .. } if after == ms(1_000)),
            "{error}"
        );
        assert_eq!((items.len(), began.elapsed()), (3, ms(1_000)));
        assert_eq!(bench.status().tally.failures, 2);
        bench.finish().await;
    });
}

#[test]
fn edge_8_a_limit_that_cut_is_told_with_what_is_set() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            retrying(9)(settings);
            settings.timeout.first_byte = None;
            settings.timeout.attempt = Some(ms(200));
            settings.timeout.total = Some(ms(500));
        };
        let bench = Bench::start(configure).await;
        let again = |timeout| CallOptions { timeout, ..due() };
        // The third attempt is cut by the rest of the call's time.
        let late = bench.client.ask_with(Do::Hang, again(None)).await;
        let text = late.unwrap_err().to_string();
        assert!(text.contains("within 500 ms (timeout.total; "), "{text}");
        let late = bench.client.ask_with(Do::Hang, again(Some(ms(300)))).await;
        let text = late.unwrap_err().to_string();
        let own = "within 300 ms (the caller's own deadline; ";
        assert!(text.contains(own), "{text}");
        bench.finish().await;

        // A part of the answer has come.
        let bench = Bench::start(|settings| {
            configure(settings);
            settings.breaker.failure_threshold = Some(nonzero(4));
        });
        let bench = bench.await;
        let good = |_: Result<&_, &&str>| Verdict::from(Class::Success);
        let trickling = Scripts::new([&[Step::Wait(10), Step::Item(1)].repeat(100)]);
        for _ in 0..4 {
            let open = || trickling.open();
            let opened = bench.client.run_stream_with(due(), good, open).await;
            let (_, error) = read(opened.unwrap()).await;
            let text = error.unwrap().to_string();
            assert!(text.contains("within 200 ms (timeout.attempt; "), "{text}");
        }
        let cause = bench.status().outage.unwrap().cause;
        assert_eq!(
            cause.text,
            "no whole answer within 200 ms (timeout.attempt)"
        );
        assert_eq!(cause.limit, Some("timeout.attempt"));
        bench.finish().await;

        // The limit of one call, in place of that of the settings.
        let bench = Bench::start(configure).await;
        let own = CallOptions {
            attempt: Some(ms(50)),
            idempotent: None,
            ..due()
        };
        let text = bench.client.ask_with(Do::Hang, own).await.unwrap_err();
        let limit = "within 50 ms (the call's own limit of an attempt; ";
        assert!(text.to_string().contains(limit), "{text}");
        bench.finish().await;
    });
}

#[test]
fn item_83_streams_that_never_begin_are_retried_until_the_callers_deadline() {
    run_paused(async || {
        let bench = Bench::start(retrying(100)).await;
        let began = Instant::now();
        let silent = Scripts::new([&[Step::Hang]]);
        let good = |_: Result<&_, &&str>| Verdict::from(Class::Success);
        let open = || silent.open();
        let opened = bench.client.run_stream_with(due(), good, open).await;
        opened.unwrap_err();
        assert_eq!((silent.opened(), began.elapsed()), (4, ms(1_500)));
        bench.finish().await;
    });
}

const THREE: [Step; 3] = [Step::Item(1), Step::Item(2), Step::Item(3)];

#[test]
fn item_84_a_stall_is_an_error_that_takes_nothing_back_and_is_not_retried() {
    run_paused(async || {
        let bench = Bench::start(retrying(5)).await;
        let stalls = Scripts::new([&[&THREE[..], &[Step::Hang]].concat()]);
        let began = Instant::now();
        let good = |_: Result<&_, &&str>| Verdict::from(Class::Success);
        let open = || stalls.open();
        let opened = bench.client.run_stream_with(due(), good, open).await;
        let stream = opened.unwrap().long_lived();
        assert_eq!(bench.status().in_flight, 1);
        let (items, error) = read(stream).await;
        let error = error.unwrap();
        assert_eq!(items, [1, 2, 3]);
        assert!(
            matches!(error, CallError::Stalled { after, .. } if after == ms(400)),
            "{error}"
        );
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!(
            error.to_string(),
            "dep sent nothing for 400 ms in the middle of its answer (timeout.idle)"
        );
        assert_eq!((began.elapsed(), stalls.opened()), (ms(400), 1));
        let status = bench.status();
        assert_eq!((status.tally.failures, status.tally.recorded), (1, 1));
        assert_eq!((status.totals.failed, status.totals.attempts), (1, 1));
        assert_eq!((status.in_flight, status.totals.in_flight()), (0, 0));
        bench.finish().await;
    });
}

#[test]
fn item_84_the_total_time_ends_even_a_stream_that_goes_on() {
    run_paused(async || {
        let bench = Bench::start(limits).await;
        let events = Scripts::new([&[Step::Item(1), Step::Wait(200)].repeat(100)]);
        let good = |_: Result<&_, &&str>| Verdict::from(Class::Success);
        let open = || events.open();
        let opened = bench.client.run_stream_with(due(), good, open).await;
        let began = Instant::now();
        let (items, error) = read(opened.unwrap().long_lived()).await;
        let error = error.unwrap();
        assert!(
            matches!(error, CallError::TimedOut { after, .. } if after == ms(1_500)),
            "{error}"
        );
        assert_eq!((items.len(), began.elapsed()), (8, ms(1_500)));
        bench.finish().await;
    });
}

#[test]
fn item_84_what_fails_before_its_first_item_is_tried_again() {
    run_paused(async || {
        let bench = Bench::start(retrying(4)).await;
        let good = [&THREE[..], &[Step::Fail]].concat();
        let scripts = Scripts::new([&[Step::Fail], &[Step::Hang], &good]);
        let classify = |result: Result<&_, &&str>| {
            Verdict::from(result.map_or(Class::Failure, |_| Class::Success))
        };
        let open = || scripts.open();
        let opened = bench.client.run_stream_with(due(), classify, open).await;
        let (items, error) = read(opened.unwrap()).await;
        assert_eq!(items, [1, 2, 3]);
        assert!(matches!(error, Some(CallError::Failed { error, .. }) if error == LOST));
        assert_eq!(scripts.opened(), 3, "not again after the first item");
        assert_eq!(bench.status().tally.failures, 3);

        let scripts = Scripts::new([&[Step::Fail], &THREE]);
        bench
            .client
            .run_stream(|| scripts.open())
            .await
            .unwrap_err();
        assert_eq!(scripts.opened(), 1, "it was not declared idempotent");
        bench.finish().await;
    });
}

#[test]
fn item_84_a_dropped_stream_is_cancelled_and_gives_its_place_back() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            limits(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 0;
        })
        .await;
        let endless = Scripts::new([&[Step::Item(1), Step::Hang]]);
        let stream = bench.client.run_stream(|| endless.open()).await.unwrap();
        let refused = bench.client.run_stream(|| endless.open()).await;
        assert!(matches!(refused, Err(CallError::Overloaded { .. })));
        drop(stream);
        let_others_run().await;
        let status = bench.status();
        assert_eq!((status.totals.cancelled, status.totals.in_flight()), (1, 0));
        assert_eq!((status.tally.cancelled, status.tally.recorded), (1, 0));
        assert_eq!(status.in_flight, 0);
        bench.client.run_stream(|| endless.open()).await.unwrap();
        bench.finish().await;
    });
}

/// Rule BRK-5: a probe's caller cannot keep the breaker half-open for ever, however it uses its
/// stream.
#[test]
fn item_84_an_idle_stream_keeps_no_probe_beyond_its_lease() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            opens_after(1, ms(100))(settings);
            settings.breaker.half_open.probe_lease = ms(2_000);
            settings.timeout.total = None;
        })
        .await;
        bench.fail_until_open().await;
        pass(100).await;
        let good = Scripts::new([&THREE]);
        let stream = bench.client.run_stream(|| good.open()).await.unwrap();
        assert_eq!(bench.state(), State::HalfOpen);
        pass(1_999).await;
        assert_eq!(bench.state(), State::HalfOpen);
        pass(2).await;
        let status = bench.status();
        assert_eq!((status.state, status.tally.lost_probes), (State::Open, 1));
        let (items, error) = read(stream).await;
        assert_eq!((items.len(), error), (3, None));
        let status = bench.status();
        assert_eq!((status.state, status.tally.late), (State::Open, 1));
        assert_eq!((status.totals.primary, status.in_flight), (1, 0));
        bench.finish().await;
    });
}

#[test]
fn item_84_a_probe_that_lives_long_is_good_by_its_first_item() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            opens_after(1, ms(100))(settings);
            settings.breaker.half_open.probe_lease = ms(2_000);
        })
        .await;
        bench.fail_until_open().await;
        pass(100).await;
        let events = Scripts::new([&[Step::Item(1), Step::Wait(3_000)].repeat(3)]);
        let stream = bench.client.run_stream(|| events.open()).await.unwrap();
        assert_eq!(bench.state(), State::HalfOpen);
        let stream = stream.long_lived();
        let_others_run().await;
        let status = bench.status();
        assert_eq!((status.state, status.in_flight), (State::Closed, 1));
        assert_eq!(status.totals.in_flight(), 1);
        let (items, error) = read(stream).await;
        assert_eq!((items.len(), error), (3, None));
        let status = bench.status();
        assert_eq!((status.tally.lost_probes, status.tally.late), (0, 0));
        assert_eq!((status.totals.primary, status.in_flight), (1, 0));
        bench.finish().await;
    });
}
