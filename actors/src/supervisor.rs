//! The supervisor actor: starts, watches, restarts and stops children by OTP's rules.
//!
//! The rules are the kernel's [`Supervision`] machine; this actor carries its actions out and
//! tells it what happened. No call queues here, and it never waits: every delay is a timer.

mod driver;

mod health;

mod life;

mod home;

mod child;

mod group;

mod tree;

mod watch;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, WrapFuture};
use breakerbox_policy::Time;
use breakerbox_policy::supervision::{
    Action, ChildId, ChildSpec, ChildState, CommandError, Event, StopCause, Supervision, Ticket,
    TimerId,
};
use futures_channel::mpsc;
use tokio::sync::oneshot;

use crate::clock::{Clock, random};
use crate::event::{EventBus, EventKind};
use crate::record::Record;

pub(crate) use child::{ActorBody, Place};
pub(crate) use child::{Body, ChildHooks};
pub use child::{Child, ChildRef};
pub(crate) use driver::{DriverCommand, DriverNews, DriverQueue, Mailslot, Manner, Plain, Tell};
pub use group::{ChildStatus, Group, GroupRef};
pub(crate) use health::Condition;
pub(crate) use home::Homes;
pub(crate) use life::{Life, Readiness, caught, panic_report, remember_panics};
pub use tree::TreeNode;
pub(crate) use watch::Watchers;
pub use watch::{Terminated, Watch};

thread_local! {
    /// The cause that the actor being polled declared for its own end.
    static DECLARED: RefCell<Option<StopCause>> = const { RefCell::new(None) };
}

/// Ends the supervised actor of this context, for this cause.
///
/// `ctx.stop()` alone is a normal end. With [`StopCause::Failed`] an actor that cannot go on says
/// so, and a transient child is restarted.
pub fn end_with<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>, cause: StopCause) {
    DECLARED.with(|declared| *declared.borrow_mut() = Some(cause));
    ctx.stop();
}

fn take_declared_end() -> Option<StopCause> {
    DECLARED.with(|declared| declared.borrow_mut().take())
}

/// A child's name under those of the groups around it.
fn join(path: &str, name: &str) -> Arc<str> {
    if path.is_empty() {
        Arc::from(name)
    } else {
        Arc::from(format!("{path}/{name}"))
    }
}

/// What every supervisor of a runtime needs.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) events: EventBus,
    pub(crate) homes: Homes,
    pub(crate) watchers: Watchers,
    pub(crate) recorder: Option<Arc<dyn Record>>,
}

/// One incarnation of a supervisor.
pub(crate) struct Supervisor {
    name: Arc<str>,
    around: Surroundings,
    life: Rc<Life>,
    machine: Supervision,
    children: HashMap<ChildId, Entry>,
    /// Children that were asked for and that the machine has not started yet. It may put them
    /// off, and it may refuse them: the ticket says which is which.
    arriving: Vec<Arrival>,
    tickets: HashMap<Ticket, oneshot::Sender<Result<Option<ChildId>, CommandError>>>,
    last_ticket: u64,
    stop_told: bool,
}

/// A child on its way in.
struct Arrival {
    ticket: Ticket,
    name: String,
    body: Arc<dyn Body>,
}

struct Entry {
    subject: Arc<str>,
    body: Arc<dyn Body>,
    commands: Option<mpsc::UnboundedSender<DriverCommand>>,
    incarnation: u64,
    /// When its next life begins, once that has been made known.
    waits_until: Option<Time>,
    /// How its latest life ended, until those who watch it have been told.
    last_end: Option<StopCause>,
}

/// Something a driver of a child tells.
#[derive(Message)]
#[rtype(result = "()")]
struct Told {
    child: ChildId,
    incarnation: u64,
    news: DriverNews,
}

/// What may be asked of a supervisor.
pub(crate) enum Request {
    Add(ChildSpec, Arc<dyn Body>),
    Terminate(String),
    Restart(String),
    Delete(String),
}

/// A request with a way to answer it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Option<ChildId>, CommandError>>,
}

/// Asks how the children are.
#[derive(Message)]
#[rtype(result = "Vec<ChildStatus>")]
pub(crate) struct Survey;

impl Supervisor {
    pub(crate) fn new(
        name: Arc<str>,
        around: Surroundings,
        machine: Supervision,
        bodies: impl IntoIterator<Item = (String, Arc<dyn Body>)>,
        life: &Rc<Life>,
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
        };
        for (name, body) in bodies {
            if let Some(id) = supervisor.machine.child_id(&name) {
                supervisor.enter(id, &name, body);
            }
        }
        supervisor
    }

    /// Enters a child that the machine starts for the first time. Requests for one name are
    /// answered in their order, so the first that is left is the one that was granted.
    fn enter_arrival(&mut self, id: ChildId) {
        if self.children.contains_key(&id) {
            return;
        }
        let Some(name) = self.machine.child(id).map(|child| child.name.to_owned()) else {
            return;
        };
        if let Some(at) = self.arriving.iter().position(|one| one.name == name) {
            let arrival = self.arriving.remove(at);
            self.enter(id, &name, arrival.body);
        }
    }

    fn enter(&mut self, id: ChildId, name: &str, body: Arc<dyn Body>) {
        let entry = Entry {
            subject: join(&self.name, name),
            body,
            commands: None,
            incarnation: 0,
            waits_until: None,
            last_end: None,
        };
        self.children.insert(id, entry);
    }

    /// Tells the machine and carries out what it answers.
    fn on(&mut self, event: Event, ctx: &mut Context<Self>) {
        let actions = self
            .machine
            .on(self.around.clock.now(), event, &mut random());
        for action in actions {
            self.carry_out(action, ctx);
        }
        self.announce();
    }

    fn carry_out(&mut self, action: Action, ctx: &mut Context<Self>) {
        match action {
            Action::Start { child, incarnation } => self.start(child, incarnation, ctx),
            Action::Stop { child, incarnation } => {
                self.command(child, DriverCommand::Stop { incarnation });
            }
            Action::Kill { child, incarnation } => {
                self.command(child, DriverCommand::Kill { incarnation });
            }
            Action::SetTimer { timer, at } => self.set_timer(timer, at, ctx),
            Action::Park { child, cause } => {
                if let Some(entry) = self.children.get(&child) {
                    let kind = EventKind::Parked {
                        cause: cause.clone(),
                    };
                    self.around.events.emit(&entry.subject, kind);
                    entry.body.hooks().parked(&cause);
                }
            }
            Action::Forget { child } => {
                if let Some(mut entry) = self.children.remove(&child) {
                    entry.body.hooks().gone();
                    entry.mourn(&self.around.watchers);
                }
            }
            Action::Reply { ticket, result } => {
                self.arriving.retain(|arrival| arrival.ticket != ticket);
                if let Some(reply) = self.tickets.remove(&ticket) {
                    // Who asked may be gone.
                    let _ = reply.send(result);
                }
            }
            Action::Up => self.life.set_readiness(Readiness::Ready),
            Action::Down(end) => self.down(end.cause(), ctx),
        }
    }

    fn start(&mut self, child: ChildId, incarnation: u64, ctx: &mut Context<Self>) {
        self.enter_arrival(child);
        let Some(entry) = self.children.get_mut(&child) else {
            return;
        };
        entry.incarnation = incarnation;
        self.around.watchers.greet(&entry.subject);
        let alive = entry
            .commands
            .as_ref()
            .is_some_and(|commands| !commands.is_closed());
        if !alive {
            match spawn_driver(&self.around.homes, entry, child, ctx) {
                Ok(commands) => entry.commands = Some(commands),
                Err(why) => {
                    let news = DriverNews::StartFailed(StopCause::Failed(why));
                    ctx.notify(Told {
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
            // A driver that is gone has told its end already.
            let _ = commands.unbounded_send(command);
        }
    }

    fn set_timer(&self, timer: TimerId, at: Time, ctx: &mut Context<Self>) {
        use actix::ActorFutureExt as _;
        let sleep = self.around.clock.sleep_until(at);
        let fire = sleep.into_actor(self).map(move |(), supervisor, ctx| {
            supervisor.on(Event::Timer(timer), ctx);
        });
        ctx.spawn(fire);
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
            entry.mourn(&self.around.watchers);
        }
        if self.life.readiness() == Readiness::Starting && !cause.is_normal() {
            self.life.set_readiness(Readiness::Failed(cause));
        } else {
            end_with(ctx, cause);
        }
    }

    /// Tells those who watch a child that has ended for good (rule SUP-5), and everyone when a
    /// child will be back.
    fn announce(&mut self) {
        let now = self.around.clock.now();
        for child in self.machine.children() {
            let Some(entry) = self.children.get_mut(&child.id) else {
                continue;
            };
            entry.body.health().set_restarts(child.restarts);
            match child.state {
                ChildState::Stopped | ChildState::Parked => {
                    if child.state == ChildState::Stopped && entry.last_end.is_some() {
                        entry.body.hooks().stopped();
                    }
                    entry.mourn(&self.around.watchers);
                }
                ChildState::Waiting { until } if entry.waits_until != Some(until) => {
                    entry.waits_until = Some(until);
                    entry.body.hooks().waits(until);
                    let after = until.since(now);
                    let kind = EventKind::RestartScheduled { after };
                    self.around.events.emit(&entry.subject, kind);
                }
                _ => {}
            }
        }
    }

    /// Looks for a child that blocks its thread, and gives its queue to a new driver.
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
        entry.body.abandon(&self.around.homes);
        let cause = StopCause::Failed(format!("it blocked its thread for {for_:?}"));
        let event = Event::Ended {
            child,
            incarnation,
            cause,
        };
        self.on(event, ctx);
    }
}

/// Puts a child's driver where the child lives.
fn spawn_driver(
    homes: &Homes,
    entry: &Entry,
    child: ChildId,
    ctx: &mut Context<Supervisor>,
) -> Result<mpsc::UnboundedSender<DriverCommand>, String> {
    let (commands, inbox) = mpsc::unbounded();
    // The address of this incarnation, not the stable one: the next incarnation of this
    // supervisor numbers its children anew.
    let me = ctx.address();
    let tell: Tell = Box::new(move |incarnation, news| {
        me.do_send(Told {
            child,
            incarnation,
            news,
        });
    });
    entry.body.spawn(homes, inbox, tell)?;
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
        self.on(Event::Start, ctx);
    }
}

impl Handler<Told> for Supervisor {
    type Result = ();

    fn handle(&mut self, told: Told, ctx: &mut Context<Self>) {
        let Told {
            child,
            incarnation,
            news,
        } = told;
        if let Some(entry) = self.children.get_mut(&child) {
            entry.note(&self.around.events, incarnation, &news);
        }
        let event = match news {
            DriverNews::Started => Event::Started { child, incarnation },
            DriverNews::StartFailed(cause) => Event::StartFailed {
                child,
                incarnation,
                cause,
            },
            DriverNews::Ended(cause) => Event::Ended {
                child,
                incarnation,
                cause,
            },
        };
        self.on(event, ctx);
    }
}

impl Entry {
    /// Tells those who watch this child of its end, if it has not been told.
    fn mourn(&mut self, watchers: &Watchers) {
        if let Some(cause) = self.last_end.take() {
            let notice = Terminated {
                name: self.subject.to_string(),
                incarnation: self.incarnation,
                cause,
            };
            watchers.tell(&self.subject, notice);
        }
    }

    /// Makes events of what a driver told.
    fn note(&mut self, events: &EventBus, incarnation: u64, news: &DriverNews) {
        match news {
            DriverNews::Started => {
                self.last_end = None;
                self.body.hooks().running(incarnation);
                events.emit(&self.subject, EventKind::Started { incarnation });
            }
            DriverNews::StartFailed(cause) | DriverNews::Ended(cause) => {
                let cause = cause.clone();
                self.last_end = Some(cause.clone());
                self.body.health().note_exit(cause.clone());
                events.emit(&self.subject, EventKind::Ended { incarnation, cause });
            }
        }
    }
}

impl Handler<Ask> for Supervisor {
    type Result = ();

    fn handle(&mut self, ask: Ask, ctx: &mut Context<Self>) {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.tickets.insert(ticket, ask.reply);
        let event = match ask.request {
            Request::Add(spec, body) => {
                self.arriving.push(Arrival {
                    ticket,
                    name: spec.name.clone(),
                    body,
                });
                Event::Add { spec, ticket }
            }
            Request::Terminate(child) => Event::Terminate { child, ticket },
            Request::Restart(child) => Event::Restart { child, ticket },
            Request::Delete(child) => Event::Delete { child, ticket },
        };
        self.on(event, ctx);
    }
}

impl Handler<Survey> for Supervisor {
    type Result = actix::MessageResult<Survey>;

    fn handle(&mut self, _: Survey, _: &mut Context<Self>) -> Self::Result {
        let status = self.machine.children().map(ChildStatus::from).collect();
        actix::MessageResult(status)
    }
}

/// How a supervisor is driven: it stops its children before it stops.
#[derive(Debug)]
pub(crate) struct SupervisorManner;

impl Manner<Supervisor> for SupervisorManner {
    const DRAINS: bool = true;

    fn poll(
        supervisor: &mut Supervisor,
        ctx: &mut Context<Supervisor>,
        _: &mut std::task::Context<'_>,
    ) {
        if supervisor.life.is_stopping() && !supervisor.stop_told {
            supervisor.stop_told = true;
            supervisor.on(Event::Stop, ctx);
        }
    }
}
