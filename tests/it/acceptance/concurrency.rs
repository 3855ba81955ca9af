//! Item 24: concurrent callers on several threads, on the real clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use breakerbox_actors::{
    CallContext, CallError, Client, Dependency, EventKind, Runtime, RuntimeSettings,
};
use breakerbox_policy::{BreakerEvent, State};

use crate::scripted::{ms, nonzero, opens_after};

const CALLERS: u64 = 32;
const CALLS: u64 = 10_000;
const PROBES: u32 = 2;

/// Dependency that fails at random and counts its concurrent probes.
#[derive(Clone, Default)]
struct Flaky {
    client: Arc<OnceLock<Client<Flaky>>>,
    calls: Arc<AtomicU64>,
    /// By generation: the probes in flight, and their maximum.
    probes: Arc<Mutex<BTreeMap<u64, (u32, u32)>>>,
}

impl Dependency for Flaky {
    type Request = (bool, bool);
    type Response = ();
    type Error = String;

    async fn call(&self, (good, yields): (bool, bool), _: &CallContext) -> Result<(), String> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let status = self.client.get().map(Client::status);
        // The breaker runs on this thread too, so its status holds until the next await.
        let probe = status.filter(|status| status.state == State::HalfOpen);
        if let Some(status) = &probe {
            let mut probes = self.probes.lock().unwrap();
            let (now, most) = probes.entry(status.generation).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        if yields {
            tokio::task::yield_now().await;
        }
        if let Some(status) = &probe {
            let mut probes = self.probes.lock().unwrap();
            probes.entry(status.generation).or_default().0 -= 1;
        }
        if good { Ok(()) } else { Err("no".to_owned()) }
    }
}

async fn start(flaky: &Flaky) -> (Runtime, Client<Flaky>) {
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let worker = flaky.clone();
    let client = runtime
        .dependency("flaky")
        .configure(|settings| {
            opens_after(3, ms(1))(settings);
            settings.breaker.half_open.max_calls = nonzero(PROBES);
        })
        .workers(move || worker.clone())
        .start()
        .await
        .unwrap();
    flaky.client.set(client.clone()).unwrap();
    (runtime, client)
}

/// Makes one caller's share of the calls; returns its counts of good, failed and refused calls.
async fn call_on(client: Client<Flaky>, caller: u64) -> [u64; 3] {
    let mut random = fastrand::Rng::with_seed(caller);
    let mut seen = [0; 3];
    let share = CALLS / CALLERS + u64::from(caller < CALLS % CALLERS);
    for _ in 0..share {
        let request = (random.u8(..10) < 6, random.bool());
        match client.ask(request).await {
            Ok(_) => seen[0] += 1,
            Err(CallError::Failed { .. }) => seen[1] += 1,
            Err(CallError::Open(_)) => {
                seen[2] += 1;
                tokio::time::sleep(ms(1)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    seen
}

fn is_legal(from: State, to: State) -> bool {
    matches!(
        (from, to),
        (State::Closed, State::Open)
            | (State::Open, State::HalfOpen)
            | (State::HalfOpen, State::Closed | State::Open)
    )
}

/// Records every transition in order.
fn note_moves(runtime: &Runtime) -> Arc<Mutex<Vec<(State, State)>>> {
    let moves = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&moves);
    runtime.on_event(move |event| {
        if let EventKind::Breaker(BreakerEvent::Transition { from, to, .. }) = &event.kind {
            noted.lock().unwrap().push((*from, *to));
        }
    });
    moves
}

#[test]
fn item_24_many_callers_at_once_and_the_books_balance() {
    let callers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    callers.block_on(async {
        let flaky = Flaky::default();
        let (runtime, client) = start(&flaky).await;
        let moves = note_moves(&runtime);
        let calling = (0..CALLERS).map(|caller| tokio::spawn(call_on(client.clone(), caller)));
        let mut seen = [0; 3];
        for caller in futures_util::future::join_all(calling).await {
            let one = caller.unwrap();
            seen = std::array::from_fn(|index| seen[index] + one[index]);
        }
        let totals = client.status().totals;
        assert_eq!(totals.submitted, CALLS);
        assert_eq!([totals.primary, totals.failed, totals.refused], seen);
        assert_eq!(totals.ended(), CALLS);
        let calls = flaky.calls.load(Ordering::Relaxed);
        assert_eq!(calls, totals.primary + totals.failed);
        let tally = client.status().tally;
        assert_eq!(tally.recorded + tally.late, calls, "each outcome once");
        let mut last = State::Closed;
        for (from, to) in moves.lock().unwrap().iter().copied() {
            assert!(is_legal(from, to) && from == last, "{from} to {to}");
            last = to;
        }
        assert!(totals.trips > 0, "it never opened: nothing was tested");
        for (generation, (_, most)) in flaky.probes.lock().unwrap().iter() {
            assert!(*most <= PROBES, "{most} probes at once in {generation}");
        }
        runtime.shutdown().await;
    });
}
