//! The supervised child `fleet`: one actor, which hears the board and the runtime, and carries out
//! the decisions of the model.
//!
//! It is on the way of no call. After a crash it begins anew: joins, reads, then speaks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, fut};
use breakerbox_actors::{Event, EventListener, RateLink, WeakRuntime};
use breakerbox_policy::Time;
use breakerbox_policy::fleet::{RateAnswer, RateInput, RateRequest, Revision};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::board::{Board, BoardNews, MAX_NEWS, OpenBoard, SwapAnswer};
use super::board_word::{
    self as word, BoardKey, BoardWord, FleetOrder, FleetRate, ReplicaMessage, SharedLimitName,
};
use super::model::events::is_heard;
use super::model::keys::OwnBreaker;
use super::model::{Effect, FleetModel, LeaseSwap};
use crate::lock::LockExt as _;
use crate::{Clock, Runtime};

/// Reason of a loss by which a test crashes the child.
#[cfg(test)]
pub(super) const CRASH: &str = "crash";

/// Makes the model of one incarnation.
pub(crate) type MakeModel = dyn Fn(Time) -> FleetModel + Send + Sync;

/// The state that the handle and the child share.
pub(crate) struct FleetState {
    pub(crate) runtime: WeakRuntime,
    pub(crate) open: Box<OpenBoard>,
    pub(crate) make: Box<MakeModel>,
    /// The model of the present incarnation.
    pub(crate) model: Mutex<FleetModel>,
    /// Questions to the present incarnation.
    pub(crate) requests: Mutex<Option<mpsc::Sender<FleetRequest>>>,
    /// Listener to the dependencies that were closed for the whole fleet elsewhere.
    pub(crate) taken_back: Mutex<Option<Arc<TakenBack>>>,
    /// Longest wait for the board.
    pub(crate) timeout: Duration,
}

/// Listener to the names of dependencies.
type TakenBack = dyn Fn(&str) + Send + Sync;

/// A request of a limit that all replicas have together.
type RateQuestion = (SharedLimitName, RateRequest);

/// A question of an operator, or of the program.
pub(crate) enum FleetRequest {
    /// An operator's command for the fleet; answered with true once the board has it.
    Operate {
        dependency: String,
        command: String,
        reason: String,
        by: String,
        for_: Option<Duration>,
        done: oneshot::Sender<bool>,
    },
    /// The program ends.
    Goodbye(oneshot::Sender<()>),
}

/// The answer of the board to a question.
enum Answered {
    Lease(LeaseSwap, SwapAnswer),
    Order(GivenOrder, SwapAnswer),
    Rate(RateQuestion, SwapAnswer),
    /// That of a word that may stand there by now.
    First,
    Left(oneshot::Sender<()>),
}

/// An override that was given to the board, or the end of one.
struct GivenOrder {
    dependency: String,
    order: Option<FleetOrder>,
    /// The effects that follow once the board has it.
    then: Vec<Effect>,
    done: oneshot::Sender<bool>,
}

/// The child.
pub(crate) struct FleetChild(pub(crate) Arc<FleetState>);

impl Actor for FleetChild {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let state = Arc::clone(&self.0);
        context.spawn(fut::wrap_future::<_, Self>(run(state)));
    }
}

/// Ends a listener with its incarnation.
struct ListenerGuard(EventListener);

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn run(state: Arc<FleetState>) {
    let Some(runtime) = state.runtime.upgrade() else {
        return;
    };
    let clock = runtime.clock().clone();
    let (tell, news) = mpsc::channel(MAX_NEWS);
    let (hear, events) = mpsc::channel(MAX_NEWS);
    let (ask, requests) = mpsc::channel(64);
    let (ask_rate, rates) = mpsc::channel(MAX_NEWS);
    *state.model.acquire() = (state.make)(clock.now());
    *state.requests.acquire() = Some(ask);
    let listener = runtime.listen_for_fleet(move |event| {
        // An event that finds no room is made good at the next heartbeat.
        if is_heard(event) && hear.try_send(event.clone()).is_err() {
            tracing::debug!("an event found no room with the fleet's child");
        }
    });
    drop(runtime);
    let mut incarnation = Incarnation {
        board: (state.open)(tell),
        state,
        clock,
        asked: FuturesUnordered::new(),
        ask_rate,
        links: BTreeMap::new(),
        _listener: ListenerGuard(listener),
    };
    incarnation.work(news, events, (requests, rates)).await;
}

/// One life of the child.
struct Incarnation {
    state: Arc<FleetState>,
    board: Box<dyn Board>,
    clock: Clock,
    asked: FuturesUnordered<BoxFuture<'static, Answered>>,
    ask_rate: mpsc::Sender<RateQuestion>,
    /// The ways from the shared limits to this incarnation.
    links: BTreeMap<SharedLimitName, RateLink>,
    _listener: ListenerGuard,
}

impl Incarnation {
    async fn work(
        &mut self,
        mut news: mpsc::Receiver<BoardNews>,
        mut events: mpsc::Receiver<Event>,
        (mut requests, mut rates): (mpsc::Receiver<FleetRequest>, mpsc::Receiver<RateQuestion>),
    ) {
        loop {
            let next = self.state.model.acquire().next_deadline();
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    self.turn(|model, now, runtime| model.event(now, &event, runtime)).await;
                }
                Some(news) = news.recv() => {
                    #[cfg(test)]
                    assert!(news != BoardNews::Lost(CRASH.to_owned()), "the test crashes it");
                    self.turn(|model, now, runtime| model.news(now, news, runtime)).await;
                }
                Some(answered) = self.asked.next(), if !self.asked.is_empty() => {
                    self.answered(answered).await;
                }
                Some(question) = rates.recv() => self.ask_for_rate(question),
                Some(request) = requests.recv() => self.request(request).await,
                () = clock.sleep_until(next) => {
                    self.turn(|model, now, runtime| model.tick(now, runtime)).await;
                }
                else => return,
            }
        }
    }

    /// Lets the model decide, and carries it out.
    async fn turn(&mut self, decide: impl FnOnce(&mut FleetModel, Time, &Runtime) -> Vec<Effect>) {
        let Some(runtime) = self.state.runtime.upgrade() else {
            return;
        };
        let effects = decide(&mut self.state.model.acquire(), self.clock.now(), &runtime);
        for effect in effects {
            self.carry_out(effect, &runtime).await;
        }
    }

    async fn carry_out(&mut self, effect: Effect, runtime: &Runtime) {
        match effect {
            Effect::Put(key, word) => {
                self.count();
                self.board.put(key.text(), word::write(&word));
            }
            Effect::TakeOff(key) => {
                self.count();
                self.board.take_off(key.text());
            }
            Effect::PutFirst(key, word) => {
                self.count();
                let value = Some(word::write(&word));
                let answer = self.board.swap(key.text(), value, Some(0));
                let answered = async move {
                    answer.await;
                    Answered::First
                };
                self.asked.push(Box::pin(answered));
            }
            Effect::Say(said) => {
                self.count();
                self.board.say(word::write(&said));
            }
            Effect::Swap(swap) => {
                self.count();
                let key = BoardKey::Lease(swap.dependency.clone());
                let value = word::write(&swap.word);
                let answer = self
                    .board
                    .swap(key.text(), Some(value), Some(swap.expected));
                let answered = async move { Answered::Lease(swap, answer.await) };
                self.asked.push(Box::pin(answered));
            }
            Effect::Suspect(name, suspicion) => {
                if let Some(of) = self.breaker_of(&name) {
                    runtime.suspect(of.name(), suspicion);
                }
            }
            Effect::Command(name, command) => {
                if let Some(of) = self.breaker_of(&name) {
                    runtime.operate_for_fleet(of.name(), command).await;
                }
            }
            Effect::Pause(name, pause, by) => {
                let of = self.breaker_of(&name);
                if of.is_some_and(|of| runtime.adopt_pause(of.name(), pause, &by)) {
                    self.state.model.acquire().adopted_pause(&name);
                }
            }
            Effect::Tell(name, kind) => {
                if let Some(of) = self.breaker_of(&name) {
                    runtime.tell_of_fleet(&of.subject(), kind);
                }
            }
            Effect::TakenBack(name) => {
                let listener = self.state.taken_back.acquire().clone();
                if let Some(heard) = listener {
                    heard(&name);
                }
            }
            Effect::Rate(name, input) => self.feed_rate(&name, input, runtime),
            Effect::Replicas(count) => runtime.set_replicas(count),
        }
    }

    /// Returns the breaker of a member; `None` for a key that no call has had here.
    fn breaker_of(&self, member: &str) -> Option<OwnBreaker> {
        self.state.model.acquire().breaker_of(member)
    }

    fn feed_rate(&mut self, name: &SharedLimitName, input: RateInput, runtime: &Runtime) {
        if !self.links.contains_key(name) {
            let (ask, limit) = (self.ask_rate.clone(), name.clone());
            let link = RateLink {
                timeout: self.state.timeout,
                ask: Arc::new(move |request| {
                    // Without room the request is given up after its time limit.
                    let _ = ask.try_send((limit.clone(), request));
                }),
            };
            self.links.insert(name.clone(), link);
        }
        if let Some(link) = self.links.get(name) {
            runtime.feed_limit((&name.dependency, &name.limit), input, link);
        }
    }

    /// Moves the number of a shared limit on.
    fn ask_for_rate(&mut self, (name, request): RateQuestion) {
        self.count();
        let me = {
            let model = self.state.model.acquire();
            (word::id_text(model.me), model.name.clone())
        };
        let key = BoardKey::Rate(name.clone());
        let value = word::write(&BoardWord::Rate(FleetRate::of(&request, me)));
        let answer = self
            .board
            .swap(key.text(), Some(value), Some(request.expected.0));
        let answered = async move { Answered::Rate((name, request), answer.await) };
        self.asked.push(Box::pin(answered));
    }

    fn count(&self) {
        self.state.model.acquire().said_words += 1;
    }

    async fn answered(&mut self, answered: Answered) {
        match answered {
            Answered::Lease(swap, answer) => {
                self.turn(|model, now, runtime| model.swapped(now, &swap, answer, runtime))
                    .await;
            }
            Answered::Order(given, answer) => {
                let is_given = matches!(answer, SwapAnswer::Done(_));
                if is_given {
                    // The operator who looks at once sees it; the board's word of it changes nothing.
                    let (name, order) = (given.dependency, given.order);
                    let mut then = given.then;
                    self.turn(|model, now, runtime| {
                        let mut effects = model.ordered(now, &name, order, runtime);
                        effects.append(&mut then);
                        effects
                    })
                    .await;
                }
                let _ = given.done.send(is_given);
            }
            Answered::Rate((name, request), answer) => {
                let answer = match answer {
                    SwapAnswer::Done(revision) => RateAnswer::Done(Revision(revision)),
                    SwapAnswer::Lost => RateAnswer::Lost,
                    SwapAnswer::Unknown => RateAnswer::Unknown,
                };
                let expected = request.expected;
                if let Some(runtime) = self.state.runtime.upgrade() {
                    let answered = RateInput::Answered { expected, answer };
                    self.feed_rate(&name, answered, &runtime);
                }
            }
            // The board's word of it is heard as that of any replica.
            Answered::First => {}
            Answered::Left(done) => {
                let _ = done.send(());
            }
        }
    }

    async fn request(&mut self, request: FleetRequest) {
        match request {
            FleetRequest::Goodbye(done) => {
                let id = word::id_text(self.state.model.acquire().me);
                let left = self.board.leave(word::write(&ReplicaMessage::Bye { id }));
                let left = async move {
                    left.await;
                    Answered::Left(done)
                };
                self.asked.push(Box::pin(left));
            }
            FleetRequest::Operate {
                dependency,
                command,
                reason,
                by,
                for_,
                done,
            } => {
                let words = (reason, by);
                let given = self
                    .state
                    .model
                    .acquire()
                    .operate(&dependency, &command, words, for_);
                match given {
                    Some(effects) => self.give(dependency, effects, done).await,
                    None => drop(done.send(false)),
                }
            }
        }
    }

    /// Gives a command to the fleet: first a word to the board, if there is one.
    async fn give(
        &mut self,
        dependency: String,
        mut effects: Vec<Effect>,
        done: oneshot::Sender<bool>,
    ) {
        let (key, order) = match effects.first() {
            Some(Effect::Put(key, BoardWord::Order(order))) => (key.text(), Some(order.clone())),
            Some(Effect::TakeOff(key)) => (key.text(), None),
            _ => {
                if let Some(runtime) = self.state.runtime.upgrade() {
                    for effect in effects {
                        self.carry_out(effect, &runtime).await;
                    }
                }
                let _ = done.send(true);
                return;
            }
        };
        self.count();
        let value = order.clone().map(BoardWord::Order);
        // FLT-12: done only once the board has it.
        let answer = self.board.swap(key, value.as_ref().map(word::write), None);
        let given = GivenOrder {
            dependency,
            order,
            then: effects.split_off(1),
            done,
        };
        let answered = async move { Answered::Order(given, answer.await) };
        self.asked.push(Box::pin(answered));
    }
}
