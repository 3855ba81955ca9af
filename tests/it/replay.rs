//! Recording of calls, and their replay by `breakerbox replay`.

mod command;
mod foreign;
mod recorder;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use breakerbox::recorder::{Recorder, RecorderOptions, Recording, Trace};
use breakerbox_actors::testing::{Script, TestRuntime, run_paused};
use breakerbox_actors::{AttemptRecord, Client, EventKind, OutcomeRecorder, RuntimeSettings};
use breakerbox_policy::{
    BreakerEvent, Class, DependencySettings, Outcome, PermitKind, Rate, State, Time, WindowKind,
};

use crate::scripted::{Dep, Do, ms, nonzero, pass, start};

/// A folder for each test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // May remain from a run that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().expect("it is in the folder");
        std::fs::create_dir_all(folder).expect("a folder for the file");
        std::fs::write(&path, text).expect("a file for the test");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover folder only takes space in target/.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn recorder(path: &Path) -> Arc<Recorder> {
    Arc::new(Recorder::create(path, RecorderOptions::default()).expect("it can be written"))
}

/// One transition of a breaker: milliseconds, from, to, cause.
type Moved = (f64, String, String, String);

/// A recording runtime with one dependency `dep` that follows its requests.
struct Live {
    runtime: TestRuntime,
    client: Client<Dep>,
    script: Script<Do, u32>,
}

impl Live {
    async fn start(
        recorder: Arc<dyn OutcomeRecorder>,
        configure: impl FnOnce(&mut DependencySettings),
    ) -> Self {
        let settings = RuntimeSettings {
            recorder: Some(recorder),
            ..RuntimeSettings::default()
        };
        let runtime = TestRuntime::with(settings).await;
        let script = Script::new(|told: Do, _| told.reaction());
        let client = start(&runtime, "dep", &script, configure, Vec::new()).await;
        Self {
            runtime,
            client,
            script,
        }
    }

    fn moves(&self) -> Vec<Moved> {
        let events = self.runtime.events_since(0).into_iter();
        let moved = |kind| match kind {
            EventKind::Breaker(BreakerEvent::Transition {
                from,
                to,
                at,
                cause,
                ..
            }) => Some((
                at.since(Time::ZERO).as_secs_f64() * 1e3,
                from.to_string(),
                to.to_string(),
                cause.to_string(),
            )),
            _ => None,
        };
        events.filter_map(|event| moved(event.kind)).collect()
    }
}

/// The n-th request of a script with every kind of outcome (good, bad, slow, throttled) and two
/// outages.
fn told(number: u32) -> Do {
    match number {
        40..70 | 120..150 => Do::Fail.after(u64::from(number % 3)),
        _ if number.is_multiple_of(17) => Do::End(Class::Throttled).after(2),
        _ if number.is_multiple_of(13) => Do::End(Class::Rejected),
        _ if number.is_multiple_of(7) => Do::Fail.after(1),
        _ if number.is_multiple_of(5) => Do::Answer(number).after(30),
        _ => Do::Answer(number),
    }
}

/// Opens by failure rate, and closes after two of three probes.
fn lively(settings: &mut DependencySettings) {
    let breaker = &mut settings.breaker;
    breaker.window = WindowKind::Time {
        span: ms(400),
        buckets: nonzero(4),
    };
    breaker.failure_threshold = None;
    breaker.failure_rate = Some(Rate::new(0.4).expect("a share"));
    breaker.minimum_calls = 10;
    breaker.open.base = ms(150);
    breaker.open.factor = 2.0;
    breaker.open.max = ms(1_000);
    breaker.half_open.rule = breakerbox_policy::HalfOpenRule::KOfN {
        needed: nonzero(2),
        of: nonzero(3),
    };
}

/// Makes calls until 200 have reached the dependency; returns the breaker's transitions.
fn record_200(path: &Path, configure: impl FnOnce(&mut DependencySettings)) -> Vec<Moved> {
    run_paused(async || {
        let kept = recorder(path);
        let live = Live::start(kept.clone(), configure).await;
        while live.script.calls() < 200 {
            let number = u32::try_from(live.script.calls()).expect("it is small");
            // The result is in the trace.
            let _ = live.client.ask(told(number)).await;
            pass(10).await;
        }
        let moves = live.moves();
        live.runtime.finish().await;
        kept.flush();
        assert_eq!((kept.dropped(), kept.failed()), (0, 0));
        moves
    })
}

fn read(path: &Path) -> Trace {
    Trace::read(path).unwrap_or_else(|error| panic!("{error}"))
}

fn only(trace: &Trace) -> &Recording {
    assert_eq!(trace.recordings.len(), 1, "{trace:?}");
    &trace.recordings[0]
}

fn outcome(class: Class, millis: u64) -> Outcome {
    Outcome::new(class, Duration::from_millis(millis))
}

/// Records an outcome as the runtime does.
fn bring(recorder: &dyn OutcomeRecorder, dependency: &Arc<str>, at: u64, outcome: Outcome) {
    recorder.record(AttemptRecord {
        dependency,
        at: Time::from_millis(at),
        outcome,
        permit: PermitKind::Normal,
    });
}
