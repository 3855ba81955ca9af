//! Facts about actix 0.13.5 that the runtime relies on, one test each.
//!
//! If an update of actix breaks a test, the design decision after "Basis of" has to be
//! reconsidered. Breakerbox itself is not tested here.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "facts about do_send need do_send; helpers of tests may unwrap"
)]

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use actix::dev::{ContextFut, EnvelopeProxy as _};
use actix::prelude::*;
use futures_util::{StreamExt as _, future::join_all, poll};

/// A log of events in order, shared by actors, messages and the test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Logs its own drop, and whether the thread was unwinding.
struct Guard(&'static str, Log);

impl Drop for Guard {
    fn drop(&mut self) {
        let unwinding = if std::thread::panicking() {
            " while unwinding"
        } else {
            ""
        };
        self.1.note(format!("{} dropped{unwinding}", self.0));
    }
}

#[derive(Default)]
struct Worker {
    log: Log,
    /// Number of messages after which it yields; 0 for never.
    burst: usize,
    handled: usize,
    _guard: Option<Guard>,
}

impl Worker {
    fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            ..Self::default()
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.log.note("started");
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.log.note("stopping");
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.log.note("stopped");
    }
}

impl Supervised for Worker {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.log.note("restarting");
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Number(u32);

impl Handler<Number> for Worker {
    type Result = u32;

    fn handle(&mut self, Number(number): Number, ctx: &mut Self::Context) -> u32 {
        self.log.note(number.to_string());
        self.handled += 1;
        if self.burst > 0 && self.handled.is_multiple_of(self.burst) {
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
        number
    }
}

/// A message that panics in the named place.
#[derive(Message)]
#[rtype(result = "()")]
enum Boom {
    Handler,
    PlainFuture,
    Spawned,
}

impl Handler<Boom> for Worker {
    type Result = Response<()>;

    fn handle(&mut self, boom: Boom, ctx: &mut Self::Context) -> Response<()> {
        match boom {
            Boom::Handler => panic!("boom in the handler"),
            Boom::PlainFuture => Response::fut(async { panic!("boom in a plain future") }),
            Boom::Spawned => {
                let boom = async { panic!("boom in a spawned future") };
                ctx.spawn(boom.into_actor(self));
                Response::reply(())
            }
        }
    }
}

/// A message that panics in the future of its response.
#[derive(Message)]
#[rtype(result = "()")]
struct BoomInAnswer;

impl Handler<BoomInAnswer> for Worker {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: BoomInAnswer, _: &mut Self::Context) -> Self::Result {
        Box::pin(async { panic!("boom in the answer") }.into_actor(self))
    }
}

/// A message that takes an hour, in a future of the actor.
#[derive(Message)]
#[rtype(result = "()")]
struct Slow(Option<Guard>);

impl Handler<Slow> for Worker {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Slow(guard): Slow, _: &mut Self::Context) -> Self::Result {
        let hour = async move {
            let _guard = guard;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        };
        let done = |(), worker: &mut Self, _: &mut _| worker.log.note("slow done");
        Box::pin(hour.into_actor(self).map(done))
    }
}

/// Runs a test on one arbiter with a paused clock.
fn on_one_arbiter<F: Future>(test: F) -> F::Output {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    System::with_tokio_rt(runtime).block_on(test)
}

/// Lets every other task run until it waits.
async fn let_others_run() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// Polls once, and catches a panic as the driver does.
fn poll_by_hand<F: Future + Unpin>(future: &mut F) -> std::thread::Result<Poll<F::Output>> {
    let mut task = TaskContext::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(&mut task)))
}

/// An actor that is not polled yet.
fn incarnation(worker: Worker) -> (Addr<Worker>, ContextFut<Worker, Context<Worker>>) {
    let ctx = Context::<Worker>::new();
    let addr = ctx.address();
    (addr, ctx.into_future(worker))
}

fn is_closed<T>(answer: &Result<T, MailboxError>) -> bool {
    matches!(answer, Err(MailboxError::Closed))
}

// Basis of the reply guard with a phase: `Closed` does not tell if a call ran, so we reply
// ourselves.
#[test]
fn a_panic_in_a_handler_closes_every_queued_caller_alike() {
    on_one_arbiter(async {
        let worker = Worker::default().start();
        let (poison, queued, last) = tokio::join!(
            worker.send(Boom::Handler),
            worker.send(Number(1)),
            worker.send(Number(2))
        );
        assert!(is_closed(&poison) && is_closed(&queued) && is_closed(&last));
        assert!(!worker.connected());
    });
}

// Basis of sharing an arbiter between several workers and breakers.
#[test]
fn a_panic_leaves_the_neighbours_alone() {
    on_one_arbiter(async {
        let (sick, healthy) = (Worker::default().start(), Worker::default().start());
        assert!(is_closed(&sick.send(Boom::Handler).await));
        assert_eq!(healthy.send(Number(7)).await.unwrap(), 7);
    });
}

// Basis of our own driver instead of `actix::Supervisor`.
#[test]
fn the_supervisor_of_actix_does_not_restart_after_a_panic() {
    on_one_arbiter(async {
        let log = Log::default();
        let kept = log.clone();
        let worker = Supervisor::start(move |_| Worker::new(&kept));
        assert!(is_closed(&worker.send(Boom::Handler).await));
        assert!(is_closed(&worker.send(Number(1)).await));
        assert!(!log.take().contains(&"restarting".to_owned()));
    });
}

// Basis of running calls as our own tasks, with panics passed to the driver; no `ResponseFuture`.
#[test]
fn a_panic_in_a_plain_response_future_is_invisible_to_the_actor() {
    on_one_arbiter(async {
        let log = Log::default();
        let worker = Worker::new(&log).start();
        assert!(is_closed(&worker.send(Boom::PlainFuture).await));
        assert_eq!(worker.send(Number(1)).await.unwrap(), 1);
        assert_eq!(log.take(), ["started", "1"]);
    });
}

// Basis of the driver's single `catch_unwind`, which covers everything that the context polls.
#[test]
fn a_panic_in_a_future_of_the_actor_kills_it() {
    on_one_arbiter(async {
        let (one, other) = (Worker::default().start(), Worker::default().start());
        assert!(is_closed(&one.send(BoomInAnswer).await));
        assert!(other.send(Boom::Spawned).await.is_ok());
        let_others_run().await;
        assert!(!one.connected() && !other.connected());
    });
}

// Basis of our own bound in front of every mailbox (CALL-6).
#[test]
fn the_capacity_of_a_mailbox_binds_one_address_only() {
    on_one_arbiter(async {
        let worker = Worker::default().start();
        let by_one = (0..40).filter(|n| worker.try_send(Number(*n)).is_ok());
        assert_eq!(by_one.count(), 16);
        let by_clones = (0..40).filter(|n| worker.clone().try_send(Number(*n)).is_ok());
        assert_eq!(by_clones.count(), 40);
    });
}

// Basis of the same bound: neither `do_send` nor many `send`s are held back.
#[test]
fn a_full_mailbox_takes_every_do_send_and_every_polled_send() {
    on_one_arbiter(async {
        let log = Log::default();
        let worker = Worker::new(&log).start();
        (0..1000).for_each(|n| worker.do_send(Number(n)));
        let mut sends: Vec<_> = (0..200).map(|n| Box::pin(worker.send(Number(n)))).collect();
        for send in &mut sends {
            assert!(poll!(send).is_pending());
        }
        let_others_run().await;
        assert_eq!(log.take().len(), 1 + 1000 + 200);
        assert!(join_all(sends).await.iter().all(Result::is_ok));
    });
}

// Basis of ordering by our own queue, not by the mailbox.
#[test]
fn sends_that_were_not_polled_are_overtaken() {
    on_one_arbiter(async {
        let log = Log::default();
        let worker = Worker::new(&log).start();
        let sends: Vec<_> = (0..20).map(|n| worker.send(Number(n))).collect();
        (100..103).for_each(|n| worker.do_send(Number(n)));
        join_all(sends).await;
        let lines = log.take();
        let order: Vec<u32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
        let expected: Vec<u32> = (0..16).chain(100..103).chain(16..20).collect();
        assert_eq!(order, expected);
    });
}

/// Returns the number of flood messages that one worker handles before its neighbour answers.
fn handled_before_the_neighbour(burst: usize) -> usize {
    on_one_arbiter(async {
        let (flood, neighbour) = (Log::default(), Log::default());
        let worker = Worker::new(&flood);
        let flooded = Worker { burst, ..worker }.start();
        let calm = Worker::new(&neighbour).start();
        (0..10_000).for_each(|n| flooded.do_send(Number(n)));
        calm.send(Number(0)).await.unwrap();
        flood.take().len() - 1
    })
}

// Basis of workers that yield after a burst: otherwise one dependency starves the others.
#[test]
fn a_flooded_mailbox_is_emptied_before_a_neighbour_gets_its_turn() {
    assert_eq!(handled_before_the_neighbour(0), 10_000);
}

// Basis of `ctx.wait(yield_now())` as the remedy.
#[test]
fn a_wait_for_a_yield_lets_the_neighbour_in() {
    assert!(handled_before_the_neighbour(16) <= 64);
}

// Basis of CALL-4, for callers that use an address.
#[test]
fn a_send_that_is_dropped_before_its_turn_is_skipped() {
    on_one_arbiter(async {
        let log = Log::default();
        let worker = Worker::new(&log).start();
        drop(worker.send(Number(1)));
        assert_eq!(worker.send(Number(2)).await.unwrap(), 2);
        assert_eq!(log.take(), ["started", "2"]);
    });
}

// Basis of permits held to the end of a started call, even if its caller goes away.
#[test]
fn a_send_that_is_dropped_after_its_start_runs_to_the_end() {
    on_one_arbiter(async {
        let log = Log::default();
        let worker = Worker::new(&log).start();
        let mut call = Box::pin(worker.send(Slow(None)));
        assert!(poll!(&mut call).is_pending());
        let_others_run().await;
        drop(call);
        tokio::time::sleep(Duration::from_secs(3601)).await;
        assert_eq!(log.take(), ["started", "slow done"]);
    });
}

// Basis of restart in place: the address stays, and the next incarnation serves the queue.
#[test]
fn a_restart_by_hand_keeps_the_queue_and_calls_restarting() {
    on_one_arbiter(async {
        let log = Log::default();
        let (worker, mut fut) = incarnation(Worker::new(&log));
        let (poison, queued) = (worker.send(Boom::Handler), worker.send(Number(5)));
        assert!(poll_by_hand(&mut fut).is_err());
        assert!(fut.restart());
        assert!(poll_by_hand(&mut fut).unwrap().is_pending());
        assert!(is_closed(&poison.await));
        assert_eq!(queued.await.unwrap(), 5);
        assert_eq!(log.take(), ["started", "restarting", "started", "5"]);
    });
}

// Basis of the address kept by the driver: a crash without callers would end the child for good.
#[test]
fn a_restart_fails_when_no_address_is_left() {
    on_one_arbiter(async {
        let (worker, mut fut) = incarnation(Worker::default());
        worker.do_send(Boom::Handler);
        drop(worker);
        assert!(poll_by_hand(&mut fut).is_err());
        assert!(!fut.restart());
    });
}

// Basis of marking a child down before callers are notified: they learn of it at the restart.
#[test]
fn calls_in_flight_hear_of_a_caught_panic_only_at_the_restart() {
    on_one_arbiter(async {
        let (worker, mut fut) = incarnation(Worker::default());
        let mut in_flight = Box::pin(worker.send(Slow(None)));
        assert!(poll_by_hand(&mut fut).unwrap().is_pending());
        worker.do_send(Boom::Handler);
        assert!(poll_by_hand(&mut fut).is_err());
        assert!(poll!(&mut in_flight).is_pending());
        assert!(fut.restart());
        assert!(is_closed(&in_flight.await));
    });
}

// Basis of rebuilding the worker at a restart, so that no handle of an earlier incarnation
// survives.
#[test]
fn a_restart_gives_out_the_same_spawn_handles_again() {
    on_one_arbiter(async {
        let (_keep, mut fut) = incarnation(Worker::default());
        assert!(poll_by_hand(&mut fut).unwrap().is_pending());
        let first = fut.ctx().run_later(Duration::from_secs(1), |_, _| ());
        assert!(fut.restart());
        let second = fut.ctx().run_later(Duration::from_secs(1), |_, _| ());
        assert_eq!(first, second);
    });
}

// Basis of `terminate` before an incarnation is dropped: otherwise its hooks run in our `drop`.
#[test]
fn dropping_an_incarnation_runs_its_hooks() {
    on_one_arbiter(async {
        let log = Log::default();
        let (_keep, mut fut) = incarnation(Worker::new(&log));
        assert!(poll_by_hand(&mut fut).unwrap().is_pending());
        drop(fut);
        assert_eq!(log.take(), ["started", "stopping", "stopped"]);
    });
}

// Basis of discarding a crashed incarnation without running more of its code.
#[test]
fn a_terminated_incarnation_is_dropped_without_its_hooks() {
    on_one_arbiter(async {
        let log = Log::default();
        let (_keep, mut fut) = incarnation(Worker::new(&log));
        assert!(poll_by_hand(&mut fut).unwrap().is_pending());
        fut.ctx().terminate();
        drop(fut);
        assert_eq!(log.take(), ["started"]);
    });
}

type Queue = Rc<RefCell<actix::dev::channel::AddressReceiver<Worker>>>;

/// Feeds an actor from an external queue.
struct Feed(Queue);

impl ActorFuture<Worker> for Feed {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        worker: &mut Worker,
        ctx: &mut Context<Worker>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        loop {
            let next = self.0.borrow_mut().poll_next_unpin(task);
            match next {
                Poll::Ready(Some(mut envelope)) => envelope.handle(worker, ctx),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn fed_from(queue: &Queue, log: &Log) -> ContextFut<Worker, Context<Worker>> {
    let mut ctx = Context::<Worker>::new();
    ctx.spawn(Feed(Rc::clone(queue)));
    ctx.into_future(Worker::new(log))
}

// Basis of the queue in the driver: outside of the incarnation, it survives the drop.
#[test]
fn a_queue_outside_of_the_context_feeds_one_incarnation_after_another() {
    on_one_arbiter(async {
        let log = Log::default();
        let (sender, receiver) = actix::dev::channel::channel::<Worker>(16);
        let (worker, queue) = (Addr::new(sender), Rc::new(RefCell::new(receiver)));
        let (first, poison) = (worker.send(Number(1)), worker.send(Boom::Handler));
        let last = worker.send(Number(2));

        let mut crashed = fed_from(&queue, &log);
        assert!(poll_by_hand(&mut crashed).is_err());
        crashed.ctx().terminate();
        drop(crashed);
        let mut next = fed_from(&queue, &log);
        assert!(poll_by_hand(&mut next).unwrap().is_pending());

        assert!(is_closed(&poison.await));
        assert_eq!((first.await.unwrap(), last.await.unwrap()), (1, 2));
        assert_eq!(log.take(), ["started", "1", "started", "2"]);
    });
}

// Basis of the testkit's virtual time.
#[test]
fn a_paused_clock_moves_by_itself_and_exactly() {
    on_one_arbiter(async {
        let begin = tokio::time::Instant::now();
        let worker = Worker::default().start();
        worker.send(Slow(None)).await.unwrap();
        assert_eq!(begin.elapsed(), Duration::from_secs(3600));
    });
}

// Basis of reporting the end of a child after joining its task: a drop guard would be too early.
#[test]
fn the_join_result_comes_after_actor_queue_and_futures_are_gone() {
    on_one_arbiter(async {
        let log = Log::default();
        let guard = |name| Some(Guard(name, log.clone()));
        let worker = Worker {
            _guard: guard("actor"),
            ..Worker::new(&log)
        };
        let (addr, fut) = incarnation(worker);
        let task = actix::spawn(fut);
        addr.do_send(Slow(guard("future")));
        let_others_run().await;
        addr.do_send(Boom::Handler);
        addr.do_send(Slow(guard("message")));
        let panic = task.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"boom in the handler"));
        let lines = log.take();
        let gone = |name: &str| lines.iter().position(|line| line.starts_with(name));
        assert!(gone("actor").is_some());
        assert!(gone("actor") < gone("message") && gone("message") < gone("future"));
    });
}

// Basis of catching panics in the driver. Left to tokio, hooks and drops would run while unwinding,
// where a second panic aborts the process.
#[test]
fn an_uncaught_panic_runs_hooks_and_drops_while_unwinding() {
    on_one_arbiter(async {
        let log = Log::default();
        let worker = Worker {
            _guard: Some(Guard("actor", log.clone())),
            ..Worker::new(&log)
        };
        let addr = worker.start();
        addr.do_send(Boom::Handler);
        let_others_run().await;
        let end = [
            "started",
            "stopping",
            "stopped",
            "actor dropped while unwinding",
        ];
        assert_eq!(log.take(), end);
    });
}
