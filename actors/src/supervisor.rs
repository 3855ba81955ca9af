//! The supervisor actor: starts, watches, restarts and stops children by OTP's rules.
//!
//! The rules are the kernel's [`Supervision`] machine. This actor executes the machine's actions
//! and reports events to it. No call queues here, and it never waits: every delay is a timer.

mod addition;

mod alarm;

mod announcement;

mod driver;

mod health;

mod incarnation;

mod threads;

mod child;

mod group;

mod refusal;

mod tree;

mod watch;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use addition::AdditionNumber;
use alarm::TimerQueue;
use breakerbox_policy::supervision::{
    ChildId, ChildSpec, CommandError, CommandId, StopCause, Supervision, SupervisorAction,
    SupervisorEvent,
};
use breakerbox_policy::{RoundedDuration, Time};
use futures_channel::mpsc;
use tokio::sync::oneshot;

use crate::clock::{Clock, random};
use crate::event::{EventBus, EventKind};

pub(crate) use child::{ActorBody, DriverPlacement};
pub use child::{Child, ChildRef};
pub(crate) use child::{ChildBody, ChildHooks};
pub(crate) use driver::{DriverCommand, DriverNews, DriverQueue, PollHook, StableMailbox, Tell};
pub use group::{ChildStatus, Group, GroupRef};
pub(crate) use health::Condition;
pub(crate) use incarnation::{Incarnation, Readiness, caught, panic_report, remember_panics};
pub(crate) use refusal::{MailboxIdentity, RefusalWatch};
pub(crate) use threads::{HomeThread, ThreadHandle, Threads, on_runtime_thread};
pub use tree::TreeNode;
pub(crate) use watch::Watchers;
pub use watch::{DeathWatch, Terminated};

thread_local! {
    /// The cause that the actor being polled declared for its own end.
    static DECLARED: RefCell<Option<StopCause>> = const { RefCell::new(None) };
}

/// Ends the supervised actor of this context with this cause.
///
/// `ctx.stop()` alone is a normal end. With [`StopCause::Failed`] an actor declares that it cannot
/// go on, and a transient child is restarted.
pub fn end_with<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>, cause: StopCause) {
    DECLARED.with(|declared| *declared.borrow_mut() = Some(cause));
    ctx.stop();
}

fn take_declared_end() -> Option<StopCause> {
    DECLARED.with(|declared| declared.borrow_mut().take())
}

/// Joins the path of the groups around a child and its name.
fn join(path: &str, name: &str) -> Arc<str> {
    if path.is_empty() {
        Arc::from(name)
    } else {
        Arc::from(format!("{path}/{name}"))
    }
}

/// The context that all supervisors of a runtime share.
#[derive(Clone)]
pub(crate) struct SupervisorContext {
    pub(crate) clock: Clock,
    pub(crate) events: EventBus,
    pub(crate) threads: Threads,
    pub(crate) watchers: Watchers,
}

/// One incarnation of a supervisor.
pub(crate) struct Supervisor {
    name: Arc<str>,
    around: SupervisorContext,
    life: Rc<Incarnation>,
    machine: Supervision,
    children: HashMap<ChildId, ChildEntry>,
    /// Children that were requested and that the machine has not started yet. The machine may
    /// postpone or refuse a request; the command id in its reply identifies it.
    arriving: Vec<PendingStart>,
    tickets: HashMap<CommandId, oneshot::Sender<Result<Option<ChildId>, CommandError>>>,
    last_ticket: u64,
    stop_told: bool,
    /// Children with a start that may still be given up.
    added: HashMap<AdditionNumber, ChildId>,
    /// Children with an end that is not announced yet.
    ended: BTreeSet<ChildId>,
    /// True once the consequences of its own end for all children are announced.
    end_told: bool,
    timers: TimerQueue,
}

/// A child that was requested and not started yet.
struct PendingStart {
    ticket: CommandId,
    number: AdditionNumber,
    name: String,
    body: Arc<dyn ChildBody>,
}

struct ChildEntry {
    subject: Arc<str>,
    /// The name under which it is watched: that of its start, which a child in its place may have too.
    watched_as: Arc<str>,
    body: Arc<dyn ChildBody>,
    commands: Option<mpsc::UnboundedSender<DriverCommand>>,
    incarnation: u64,
    /// The announced start of its next incarnation.
    waits_until: Option<Time>,
    /// Cause of its latest end, until its watchers have been notified.
    last_end: Option<StopCause>,
    /// Its number in [`Supervisor::added`].
    number: Option<AdditionNumber>,
}

/// A report from a child's driver.
#[derive(Message)]
#[rtype(result = "()")]
struct DriverReport {
    child: ChildId,
    incarnation: u64,
    news: DriverNews,
}

/// A request to a supervisor.
pub(crate) enum SupervisorRequest {
    Add(ChildSpec, Arc<dyn ChildBody>, AdditionNumber),
    Terminate(String),
    Restart(String),
    /// Starts a child anew, in any state.
    Renew(String),
    Delete(String),
    /// Gives a child another name.
    Rename(String, String),
}

/// A request, with the sender for its reply.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RequestMessage {
    pub(crate) request: SupervisorRequest,
    pub(crate) reply: oneshot::Sender<Result<Option<ChildId>, CommandError>>,
}

/// Asks for the status of the children.
#[derive(Message)]
#[rtype(result = "Vec<ChildStatus>")]
pub(crate) struct ListChildren;

impl Supervisor {
    pub(crate) fn new(
        name: Arc<str>,
        around: SupervisorContext,
        machine: Supervision,
        bodies: impl IntoIterator<Item = (String, Arc<dyn ChildBody>)>,
        life: &Rc<Incarnation>,
    ) -> Self {
        life.set_readiness(Readiness::Starting);
        let mut supervisor = Self {
            name,
            around,
            life: Rc::clone(life),
            machine,
            children: HashMap::new(),
            arriving: Vec::new(),
            tickets: HashMap::new(),
            last_ticket: 0,
            stop_told: false,
            added: HashMap::new(),
            ended: BTreeSet::new(),
            end_told: false,
            timers: TimerQueue::default(),
        };
        for (name, body) in bodies {
            if let Some(id) = supervisor.machine.child_id(&name) {
                supervisor.enter(id, &name, body);
            }
        }
        supervisor
    }

    /// Registers a child that the machine starts for the first time. Requests for the same name are
    /// answered in order, so the first remaining one is the one that was granted.
    fn start_pending(&mut self, id: ChildId) {
        if self.children.contains_key(&id) {
            return;
        }
        let Some(name) = self.machine.child(id).map(|child| child.name.to_owned()) else {
            return;
        };
        if let Some(at) = self.arriving.iter().position(|one| one.name == name) {
            let arrival = self.arriving.remove(at);
            self.enter(id, &name, arrival.body);
            self.added.insert(arrival.number, id);
            if let Some(entry) = self.children.get_mut(&id) {
                entry.number = Some(arrival.number);
            }
        }
    }

    /// Gives a child another name, under which it is reported from then on.
    fn rename(&mut self, child: &str, name: &str) -> Result<ChildId, CommandError> {
        let id = self.machine.child_id(child);
        let id = id.ok_or(CommandError::NotFound)?;
        self.machine.rename(child, name)?;
        if let Some(entry) = self.children.get_mut(&id) {
            entry.subject = join(&self.name, name);
        }
        Ok(id)
    }

    fn enter(&mut self, id: ChildId, name: &str, body: Arc<dyn ChildBody>) {
        let subject = join(&self.name, name);
        let entry = ChildEntry {
            watched_as: Arc::clone(&subject),
            subject,
            body,
            commands: None,
            incarnation: 0,
            waits_until: None,
            last_end: None,
            number: None,
        };
        self.children.insert(id, entry);
    }

    /// Reports an event to the machine and executes the resulting actions.
    fn on(&mut self, event: SupervisorEvent, ctx: &mut Context<Self>) {
        let actions = self
            .machine
            .on(self.around.clock.now(), event, &mut random());
        for action in actions {
            self.carry_out(action, ctx);
        }
        self.announce();
    }

    fn carry_out(&mut self, action: SupervisorAction, ctx: &mut Context<Self>) {
        match action {
            SupervisorAction::Start { child, incarnation } => self.start(child, incarnation, ctx),
            SupervisorAction::Stop { child, incarnation } => {
                self.command(child, DriverCommand::Stop { incarnation });
            }
            SupervisorAction::Kill { child, incarnation } => {
                self.command(child, DriverCommand::Kill { incarnation });
            }
            SupervisorAction::SetTimer { timer, at } => self.timers.set(timer, at),
            SupervisorAction::Park { child, cause } => {
                if let Some(entry) = self.children.get(&child) {
                    let kind = EventKind::Parked {
                        cause: cause.clone(),
                        is_retried: false,
                    };
                    self.around.events.emit(&entry.subject, kind);
                    entry.body.hooks().parked(&cause);
                }
            }
            SupervisorAction::Exhausted {
                child,
                cause,
                first,
            } => self.note_exhausted(child, &cause, first),
            SupervisorAction::Forget { child } => {
                if let Some(mut entry) = self.children.remove(&child) {
                    if let Some(number) = entry.number {
                        self.added.remove(&number);
                    }
                    entry.body.hooks().gone();
                    entry.notify_watchers(&self.around.watchers);
                    // SUP-4: its mailbox lives on with the specification of its group.
                    entry.body.refuse();
                }
            }
            SupervisorAction::Reply { ticket, result } => {
                self.arriving.retain(|arrival| arrival.ticket != ticket);
                if let Some(reply) = self.tickets.remove(&ticket) {
                    // The requester may be gone.
                    let _ = reply.send(result);
                }
            }
            SupervisorAction::Up => self.life.set_readiness(Readiness::Ready),
            SupervisorAction::Down(end) => self.down(end.cause(), ctx),
        }
    }

    /// Reports a child that is down after too many failures, and is tried again. The event tells
    /// its first such failure only.
    fn note_exhausted(&self, child: ChildId, cause: &StopCause, first: bool) {
        let Some(entry) = self.children.get(&child) else {
            return;
        };
        if first {
            let kind = EventKind::Parked {
                cause: cause.clone(),
                is_retried: true,
            };
            self.around.events.emit(&entry.subject, kind);
        }
        entry.body.hooks().exhausted(cause);
    }

    fn start(&mut self, child: ChildId, incarnation: u64, ctx: &mut Context<Self>) {
        self.start_pending(child);
        let restarts = self.machine.child(child).map(|child| child.restarts);
        let Some(entry) = self.children.get_mut(&child) else {
            return;
        };
        entry.body.health().set_restarts(restarts.unwrap_or(0));
        entry.incarnation = incarnation;
        self.around
            .watchers
            .mark_alive(&entry.watched_as, &entry.body);
        let alive = entry
            .commands
            .as_ref()
            .is_some_and(|commands| !commands.is_closed());
        if !alive {
            match spawn_driver(&self.around.threads, entry, child, ctx) {
                Ok(commands) => entry.commands = Some(commands),
                Err(why) => {
                    let news = DriverNews::StartFailed(StopCause::Failed(why));
                    ctx.notify(DriverReport {
                        child,
                        incarnation,
                        news,
                    });
                    return;
                }
            }
        }
        self.command(child, DriverCommand::Start { incarnation });
    }

    fn command(&self, child: ChildId, command: DriverCommand) {
        let commands = self
            .children
            .get(&child)
            .and_then(|one| one.commands.as_ref());
        if let Some(commands) = commands {
            // A driver that is gone has reported its end already.
            let _ = commands.unbounded_send(command);
        }
    }

    fn down(&mut self, cause: StopCause, ctx: &mut Context<Self>) {
        if let StopCause::GaveUp { .. } = cause {
            let kind = EventKind::GaveUp {
                cause: cause.clone(),
            };
            self.around.events.emit(&self.name, kind);
        }
        for entry in self.children.values_mut() {
            entry.body.hooks().gone();
            entry.notify_watchers(&self.around.watchers);
        }
        if self.life.readiness() == Readiness::Starting && !cause.is_normal() {
            self.life.set_readiness(Readiness::Failed(cause));
        } else {
            end_with(ctx, cause);
        }
    }

    /// Checks for a child that blocks its thread, and gives its queue to a new driver.
    fn look_for_stuck(&mut self, child: ChildId, ctx: &mut Context<Self>) {
        let Some(entry) = self.children.get_mut(&child) else {
            return;
        };
        let Some(patience) = entry.body.stuck_after() else {
            return;
        };
        let busy = entry.body.health().busy_for(self.around.clock.now());
        let Some(for_) = busy.filter(|busy| *busy >= patience) else {
            schedule_watchdog(child, patience, ctx);
            return;
        };
        // The next driver gets a watchdog of its own.
        let incarnation = entry.incarnation;
        let kind = EventKind::Stuck { incarnation, for_ };
        self.around.events.emit(&entry.subject, kind);
        entry.commands = None;
        entry.body.abandon(&self.around.threads);
        self.ended.insert(child);
        let span = RoundedDuration(for_);
        let cause = StopCause::Failed(format!("it blocked its thread for {span}"));
        let event = SupervisorEvent::Ended {
            child,
            incarnation,
            cause,
        };
        self.on(event, ctx);
    }
}

/// Spawns a child's driver on the child's thread.
fn spawn_driver(
    threads: &Threads,
    entry: &ChildEntry,
    child: ChildId,
    ctx: &mut Context<Supervisor>,
) -> Result<mpsc::UnboundedSender<DriverCommand>, String> {
    let (commands, inbox) = mpsc::unbounded();
    // The address of this incarnation, not the stable one: the next incarnation of this supervisor
    // numbers its children anew.
    let me = ctx.address();
    let tell: Tell = Box::new(move |incarnation, news| {
        me.do_send(DriverReport {
            child,
            incarnation,
            news,
        });
    });
    entry.body.spawn(threads, inbox, tell)?;
    if let Some(patience) = entry.body.stuck_after() {
        schedule_watchdog(child, patience, ctx);
    }
    Ok(commands)
}

fn schedule_watchdog(child: ChildId, patience: Duration, ctx: &mut Context<Supervisor>) {
    ctx.run_later(patience / 4, move |supervisor, ctx| {
        supervisor.look_for_stuck(child, ctx);
    });
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.on(SupervisorEvent::Start, ctx);
    }
}

impl Handler<DriverReport> for Supervisor {
    type Result = ();

    fn handle(&mut self, told: DriverReport, ctx: &mut Context<Self>) {
        let DriverReport {
            child,
            incarnation,
            news,
        } = told;
        if let Some(entry) = self.children.get_mut(&child) {
            entry.note(&self.around.events, incarnation, &news);
        }
        if !matches!(news, DriverNews::Started) {
            self.ended.insert(child);
        }
        let event = match news {
            DriverNews::Started => SupervisorEvent::Started { child, incarnation },
            DriverNews::StartFailed(cause) => SupervisorEvent::StartFailed {
                child,
                incarnation,
                cause,
            },
            DriverNews::Ended(cause) => SupervisorEvent::Ended {
                child,
                incarnation,
                cause,
            },
        };
        self.on(event, ctx);
    }
}

impl ChildEntry {
    /// Notifies the watchers of this child's end, if not done yet.
    fn notify_watchers(&mut self, watchers: &Watchers) {
        if let Some(cause) = self.last_end.take() {
            let notice = Terminated {
                name: self.watched_as.to_string(),
                incarnation: self.incarnation,
                cause,
            };
            // SUP-5: one notice for each end, with its true cause; `take` above makes it the only one.
            watchers.tell(&self.body, notice);
        }
    }

    /// Emits the events of a driver's report.
    fn note(&mut self, events: &EventBus, incarnation: u64, news: &DriverNews) {
        match news {
            DriverNews::Started => {
                self.last_end = None;
                self.body.hooks().running(incarnation);
                events.emit(&self.subject, EventKind::Started { incarnation });
            }
            DriverNews::StartFailed(cause) | DriverNews::Ended(cause) => {
                let cause = cause.clone();
                if let DriverNews::StartFailed(_) = news {
                    self.body.hooks().not_started(&cause);
                }
                self.last_end = Some(cause.clone());
                self.body.health().note_exit(cause.clone());
                events.emit(&self.subject, EventKind::Ended { incarnation, cause });
            }
        }
    }
}

impl Handler<RequestMessage> for Supervisor {
    type Result = ();

    fn handle(&mut self, ask: RequestMessage, ctx: &mut Context<Self>) {
        if let SupervisorRequest::Rename(child, name) = &ask.request {
            // The requester may be gone.
            let _ = ask.reply.send(self.rename(child, name).map(Some));
            return;
        }
        self.last_ticket += 1;
        let ticket = CommandId(self.last_ticket);
        self.tickets.insert(ticket, ask.reply);
        let event = match ask.request {
            SupervisorRequest::Add(spec, body, number) => {
                self.arriving.push(PendingStart {
                    ticket,
                    number,
                    name: spec.name.clone(),
                    body,
                });
                SupervisorEvent::Add { spec, ticket }
            }
            SupervisorRequest::Terminate(child) => {
                // One that waits for its restart is stopped without a further report.
                self.ended.extend(self.machine.child_id(&child));
                SupervisorEvent::Terminate { child, ticket }
            }
            SupervisorRequest::Restart(child) => SupervisorEvent::Restart { child, ticket },
            SupervisorRequest::Renew(child) => SupervisorEvent::Renew { child, ticket },
            SupervisorRequest::Delete(child) => SupervisorEvent::Delete { child, ticket },
            SupervisorRequest::Rename(..) => return,
        };
        self.on(event, ctx);
    }
}

impl Handler<ListChildren> for Supervisor {
    type Result = actix::MessageResult<ListChildren>;

    fn handle(&mut self, _: ListChildren, _: &mut Context<Self>) -> Self::Result {
        let status = self.machine.children().map(ChildStatus::from).collect();
        actix::MessageResult(status)
    }
}

/// The poll hook of a supervisor: it stops its children before it stops.
#[derive(Debug)]
pub(crate) struct SupervisorPollHook;

impl PollHook<Supervisor> for SupervisorPollHook {
    const DRAINS: bool = true;

    fn poll(
        supervisor: &mut Supervisor,
        ctx: &mut Context<Supervisor>,
        cx: &mut std::task::Context<'_>,
    ) {
        while let Some(timer) = supervisor.timers.poll_due(&supervisor.around.clock, cx) {
            supervisor.on(SupervisorEvent::Timer(timer), ctx);
        }
        if supervisor.life.is_stopping() && !supervisor.stop_told {
            supervisor.stop_told = true;
            supervisor.on(SupervisorEvent::Stop, ctx);
        }
    }
}
