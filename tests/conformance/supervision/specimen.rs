//! The actor that a scenario's child is in the replay on real actors: it behaves as its node
//! says, and writes the trace by its own callbacks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Running,
    WrapFuture,
};
use breakerbox_actors::{Child, end_with};
use breakerbox_policy::RestartType;
use breakerbox_policy::supervision::StopCause;

use super::scenario::{End, Node};

/// The time that a failing start takes at least, so that a loop of them takes time too.
const FAILING: Duration = Duration::from_micros(100);

/// What all actors of a scenario write down.
#[derive(Clone, Default)]
pub(super) struct Notebook(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    trace: Vec<String>,
    /// Attempts to start, by name, over the whole scenario.
    attempts: HashMap<String, u64>,
    alive: HashMap<String, Alive>,
}

struct Alive {
    attempt: u64,
    addr: Addr<Specimen>,
}

impl Notebook {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, line: String) {
        self.lock().trace.push(line);
    }

    pub(super) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().trace)
    }

    /// The number of this name's next attempt to start.
    fn count(&self, name: &str) -> u64 {
        let mut notes = self.lock();
        let attempt = notes.attempts.entry(name.to_owned()).or_default();
        *attempt += 1;
        *attempt
    }

    /// The live attempt of this name.
    pub(super) fn alive(&self, name: &str) -> Option<u64> {
        self.lock().alive.get(name).map(|alive| alive.attempt)
    }

    pub(super) fn all_alive(&self) -> Vec<(String, u64)> {
        let notes = self.lock();
        let alive = notes.alive.iter();
        alive
            .map(|(name, alive)| (name.clone(), alive.attempt))
            .collect()
    }

    /// Lets the live child of this name end by itself.
    pub(super) fn end(&self, name: &str, how: End) {
        let found = self.lock();
        if let Some(Alive { attempt, addr }) = found.alive.get(name) {
            let (attempt, addr) = (*attempt, addr.clone());
            drop(found);
            addr.try_send(EndNow { attempt, how })
                .expect("room in the queue");
        }
    }

    /// A child that behaves as this node says.
    pub(super) fn child(&self, node: &Node) -> Child<Specimen> {
        let name = node.spec.name.clone();
        let (notebook, behaviour) = (self.clone(), node.clone());
        // The factory needs the address of the child that it is the factory of.
        let own: Arc<Mutex<Option<Addr<Specimen>>>> = Arc::default();
        let known = Arc::clone(&own);
        let factory = move || {
            let addr = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let addr = addr.expect("entered below");
            Specimen::born(&notebook, &behaviour, addr)
        };
        let mut child = match node.spec.restart {
            RestartType::Permanent => Child::permanent(name, factory),
            RestartType::Transient => Child::transient(name, factory),
            RestartType::Temporary => Child::temporary(name, factory),
        };
        *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(child.addr());
        child = child.shutdown(node.spec.shutdown);
        if node.spec.significant {
            child = child.significant();
        }
        child
    }

    /// A first child for the supervisor of this node that writes the supervisor's own line, and
    /// is gone before its siblings start: a supervisor logs only its start.
    pub(super) fn herald(&self, node: &Node) -> Child<Herald> {
        let (notebook, node) = (self.clone(), node.clone());
        Child::temporary("herald", move || Herald {
            notebook: notebook.clone(),
            node: node.clone(),
        })
    }
}

/// One incarnation of a child.
pub(super) struct Specimen {
    notebook: Notebook,
    node: Node,
    attempt: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    /// Asked to stop before it was up: as in OTP, the start comes to its end first.
    StopsWhenUp,
    Up,
    /// Takes its time.
    CleaningUp,
    /// Has cleaned up.
    Ready,
    /// Ends by itself, or did not come up.
    Leaving,
}

/// Ends the child by itself, if this is still the attempt that was meant.
#[derive(Message)]
#[rtype(result = "()")]
struct EndNow {
    attempt: u64,
    how: End,
}

impl Specimen {
    fn born(notebook: &Notebook, node: &Node, addr: Addr<Self>) -> Self {
        let name = &node.spec.name;
        let attempt = notebook.count(name);
        // Some failing starts panic in the factory, the others fail in `started`.
        if node.start_fails.contains(&attempt)
            && attempt.is_multiple_of(2)
            && node.start_delay.is_zero()
        {
            notebook.write(format!("start_fail {name}#{attempt}"));
            crash();
        }
        let alive = Alive { attempt, addr };
        let earlier = notebook.lock().alive.insert(name.clone(), alive);
        if let Some(earlier) = earlier {
            notebook.write(format!(
                "two live {name}: #{} and #{attempt}",
                earlier.attempt
            ));
        }
        Self {
            notebook: notebook.clone(),
            node: node.clone(),
            attempt,
            stage: Stage::Starting,
        }
    }

    fn write(&self, what: &str, how: &str) {
        let (name, attempt) = (&self.node.spec.name, self.attempt);
        self.notebook.write(format!("{what} {name}#{attempt}{how}"));
    }

    /// The start has come to its end.
    fn rise(&mut self, ctx: &mut Context<Self>) {
        if self.node.fails(self.attempt) {
            self.write("start_fail", "");
            self.stage = Stage::Leaving;
            return end_with(ctx, StopCause::Failed("start".into()));
        }
        self.write("start", "");
        let stops = self.stage == Stage::StopsWhenUp;
        self.stage = Stage::Up;
        if stops {
            ctx.stop();
        }
    }
}

/// Panics without a word on the console.
fn crash() -> ! {
    std::panic::resume_unwind(Box::new("crash"))
}

impl Actor for Specimen {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let least = if self.node.fails(self.attempt) {
            FAILING
        } else {
            Duration::ZERO
        };
        let delay = self.node.start_delay.max(least);
        if delay.is_zero() {
            return self.rise(ctx);
        }
        let sleep = tokio::time::sleep(delay).into_actor(self);
        ctx.wait(sleep.map(|(), me, ctx| me.rise(ctx)));
    }

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        match self.stage {
            Stage::Starting => self.stage = Stage::StopsWhenUp,
            Stage::Up if self.node.stop_delay.is_zero() => self.stage = Stage::Ready,
            Stage::Up => {
                self.stage = Stage::CleaningUp;
                ctx.run_later(self.node.stop_delay, |me, ctx| {
                    me.stage = Stage::Ready;
                    ctx.stop();
                });
            }
            Stage::StopsWhenUp | Stage::CleaningUp | Stage::Ready | Stage::Leaving => {}
        }
        match self.stage {
            Stage::Ready | Stage::Leaving => Running::Stop,
            _ => Running::Continue,
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if self.stage == Stage::Ready {
            self.write("stop", "");
        }
    }
}

impl Drop for Specimen {
    fn drop(&mut self) {
        let mut notes = self.notebook.lock();
        let own = notes.alive.get(&self.node.spec.name);
        if own.is_some_and(|alive| alive.attempt == self.attempt) {
            notes.alive.remove(&self.node.spec.name);
        }
    }
}

impl Handler<EndNow> for Specimen {
    type Result = ();

    fn handle(&mut self, message: EndNow, ctx: &mut Context<Self>) {
        if message.attempt != self.attempt {
            return;
        }
        self.stage = Stage::Leaving;
        match message.how {
            End::Crash => {
                self.write("crash", "");
                crash();
            }
            End::Normal => {
                self.write("exit", " normal");
                ctx.stop();
            }
            End::Shutdown => {
                self.write("exit", " shutdown");
                end_with(ctx, StopCause::Shutdown);
            }
        }
    }
}

/// Writes a supervisor's line, and is done.
pub(super) struct Herald {
    notebook: Notebook,
    node: Node,
}

impl Actor for Herald {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let name = &self.node.spec.name;
        let attempt = self.notebook.count(name);
        if self.node.fails(attempt) {
            let line = format!("start_fail {name}#{attempt}");
            self.notebook.write(line);
            return end_with(ctx, StopCause::Failed("start".into()));
        }
        self.notebook.write(format!("start {name}#{attempt}"));
        ctx.stop();
    }
}
