//! A group of children under a supervisor of their own.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, Context};
use breakerbox_policy::supervision::{
    AutoShutdown, ChildId, ChildSpec, ChildState, ChildView, CommandError, OtpRules,
    RestartBackoff, Strategy, Supervision, SupervisorSpec,
};
use breakerbox_policy::{GiveUp, Intensity, RestartType};
use tokio::sync::oneshot;

use super::addition::{AdditionNumber, WithdrawAddition};
use super::child::{ActorBody, Child, ChildBody, ChildHooks, ChildRef};
use super::driver::{Make, StableMailbox};
use super::incarnation::Incarnation;
use super::{
    ListChildren, RequestMessage, Supervisor, SupervisorContext, SupervisorPollHook,
    SupervisorRequest,
};
use crate::clock::Clock;
use crate::error::StartError;

/// Children that are supervised together: a supervisor's specification.
///
/// A group can be a child of another group: when it gives up, that is the end of one child there.
pub struct Group {
    pub(crate) spec: SupervisorSpec,
    pub(crate) own: ChildSpec,
    pub(crate) slot: StableMailbox<Supervisor>,
    children: Vec<ChildSpec>,
    bodies: Vec<Part>,
    pub(crate) hooks: Option<Box<dyn ChildHooks>>,
    /// The error of a nested group.
    bad: Option<StartError>,
}

/// A child and the function that makes its body.
type Part = (String, MakeBody);

/// Makes a body from the supervisor context and the path of the group around it.
pub(crate) type MakeBody = Box<dyn FnOnce(&SupervisorContext, &str) -> Arc<dyn ChildBody> + Send>;

impl Group {
    /// An empty group: one-for-one, permanent, five restarts in thirty seconds.
    pub fn new(name: impl Into<String>) -> Self {
        let mut own = ChildSpec::supervisor(name);
        own.restart = RestartType::Permanent;
        own.give_up = GiveUp::Escalate;
        Self {
            spec: SupervisorSpec::default(),
            own,
            slot: StableMailbox::new(),
            children: Vec::new(),
            bodies: Vec::new(),
            hooks: None,
            bad: None,
        }
    }

    /// Sets which other children are restarted when one crashes.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.spec.strategy = strategy;
        self
    }

    /// Sets the restart intensity: with more restarts than this, the group gives up.
    #[must_use]
    pub fn intensity(mut self, intensity: Intensity) -> Self {
        self.spec.intensity = intensity;
        self
    }

    /// Sets the wait before a restart; none by default.
    #[must_use]
    pub fn backoff(mut self, backoff: RestartBackoff) -> Self {
        self.spec.backoff = Some(backoff);
        self
    }

    /// Sets whether the group ends with its significant children.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.spec.auto_shutdown = auto_shutdown;
        self
    }

    /// Follows OTP where this runtime deviates from it.
    #[must_use]
    pub fn otp_rules(mut self, rules: OtpRules) -> Self {
        self.spec.otp = rules;
        self
    }

    /// Sets the restart type of the group itself.
    #[must_use]
    pub fn restart(mut self, restart: RestartType) -> Self {
        self.own.restart = restart;
        self
    }

    /// Marks the group significant for the auto-shutdown of the group around it.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.own.significant = true;
        self
    }

    /// Sets the way the group is stopped; by default it gets the time that its children need.
    #[must_use]
    pub fn shutdown(mut self, shutdown: breakerbox_policy::supervision::Shutdown) -> Self {
        self.own.shutdown = shutdown;
        self
    }

    /// Adds a child after the others.
    #[must_use]
    pub fn child<A: Actor<Context = Context<A>>>(mut self, child: Child<A>) -> Self {
        let spec = child.spec.clone();
        let make = move |around: &SupervisorContext, _: &str| child.into_parts(&around.clock).1;
        self.push(spec, Box::new(make));
        self
    }

    /// Adds a group after the others.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.bad = self.bad.or(group.check().err());
        let spec = group.own.clone();
        let make = move |around: &SupervisorContext, path: &str| group.into_body(path, around);
        self.push(spec, Box::new(make));
        self
    }

    pub(crate) fn push(&mut self, spec: ChildSpec, make: MakeBody) {
        self.bodies.push((spec.name.clone(), make));
        self.children.push(spec);
    }

    /// Checks the specification.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if let Some(bad) = &self.bad {
            return Err(bad.clone());
        }
        Supervision::new(self.spec.clone(), self.children.clone())
            .map(drop)
            .map_err(|reason| StartError::BadSpec {
                name: self.own.name.clone(),
                reason: reason.to_string(),
            })
    }

    /// Makes the body, under the path of the groups around it.
    pub(crate) fn into_body(self, path: &str, around: &SupervisorContext) -> Arc<dyn ChildBody> {
        let name = super::join(path, &self.own.name);
        let bodies: Vec<(String, Arc<dyn ChildBody>)> = self
            .bodies
            .into_iter()
            .map(|(child, make)| (child, make(around, &name)))
            .collect();
        let below = bodies.iter().map(|(_, body)| Arc::clone(body)).collect();
        let (spec, children, supervisor_context) = (self.spec, self.children, around.clone());
        let make: Make<Supervisor> = Arc::new(move |life: &Rc<Incarnation>| {
            let machine = Supervision::new(spec.clone(), children.clone())
                .expect("the specification was checked when the group was accepted");
            let bodies = bodies.clone();
            Supervisor::new(
                Arc::clone(&name),
                supervisor_context.clone(),
                machine,
                bodies,
                life,
            )
        });
        let mut body = ActorBody::<Supervisor, SupervisorPollHook>::beside(
            self.slot,
            make,
            around.clock.clone(),
        );
        body.below = below;
        if let Some(hooks) = self.hooks {
            body.hooks = hooks;
        }
        body.manner = PhantomData;
        Arc::new(body)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Group")
            .field("spec", &self.spec)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

/// The status of a child.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// Its present state.
    pub state: ChildState,
    /// Number of its incarnation, from 1; 0 before the first.
    pub incarnation: u64,
    /// Number of its restarts.
    pub restarts: u64,
    /// Cause of its latest end.
    pub last_exit: Option<breakerbox_policy::supervision::StopCause>,
}

impl From<ChildView<'_>> for ChildStatus {
    fn from(child: ChildView<'_>) -> Self {
        Self {
            name: child.name.to_owned(),
            state: child.state,
            incarnation: child.incarnation,
            restarts: child.restarts,
            last_exit: child.last_end.cloned(),
        }
    }
}

/// A running group's handle.
#[derive(Clone)]
pub struct GroupRef {
    pub(crate) name: String,
    pub(crate) addr: Addr<Supervisor>,
    pub(crate) clock: Clock,
}

impl GroupRef {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts one more child and waits until it runs.
    ///
    /// # Errors  The name is taken, the start failed, or the group is stopping.
    /// # Cancel safety   Dropped, the child is stopped again, and its name is free.
    pub async fn add<A: Actor<Context = Context<A>>>(
        &self,
        child: Child<A>,
    ) -> Result<ChildRef<A>, CommandError> {
        let (spec, body, handle) = child.into_parts(&self.clock);
        self.start(spec, body).await?;
        Ok(handle)
    }

    pub(crate) async fn add_group(
        &self,
        group: Group,
        around: &SupervisorContext,
        path: &str,
    ) -> Result<GroupRef, CommandError> {
        let handle = GroupRef {
            name: group.own.name.clone(),
            addr: group.slot.addr.clone(),
            clock: self.clock.clone(),
        };
        let spec = group.own.clone();
        let body = group.into_body(path, around);
        self.start(spec, body).await?;
        Ok(handle)
    }

    /// Stops a child and keeps its specification. Stopping a stopped one is no error.
    ///
    /// # Errors  No child has this name.
    pub async fn terminate(&self, child: &str) -> Result<(), CommandError> {
        self.ask(SupervisorRequest::Terminate(child.to_owned()))
            .await
            .map(drop)
    }

    /// Starts a child that is stopped or parked, with a fresh budget.
    ///
    /// # Errors  It runs already, its start failed, or no child has this name.
    pub async fn restart(&self, child: &str) -> Result<(), CommandError> {
        self.ask(SupervisorRequest::Restart(child.to_owned()))
            .await
            .map(drop)
    }

    /// Starts a child anew with a fresh budget, in any state: one that runs is stopped first,
    /// one in backoff is started now. Resolves when it is up.
    ///
    /// # Errors  Its start failed, it is part of a group that is being restarted, or no child has
    /// this name. A child with [`GiveUp::Retry`] is tried on.
    pub async fn renew(&self, child: &str) -> Result<(), CommandError> {
        self.ask(SupervisorRequest::Renew(child.to_owned()))
            .await
            .map(drop)
    }

    /// Asks for a new start as [`GroupRef::renew`] does, without waiting.
    pub(crate) fn begin_renewal(&self, child: String) {
        let (reply, _) = oneshot::channel();
        let request = SupervisorRequest::Renew(child);
        self.addr.do_send(RequestMessage { request, reply });
    }

    /// Removes a child that is stopped.
    ///
    /// # Errors  It runs, or no child has this name.
    pub async fn delete(&self, child: &str) -> Result<(), CommandError> {
        self.ask(SupervisorRequest::Delete(child.to_owned()))
            .await
            .map(drop)
    }

    /// Gives a child another name, so that another child can have its name.
    ///
    /// # Errors  The new name is taken, or no child has the old one.
    pub(crate) async fn rename(&self, child: &str, name: &str) -> Result<(), CommandError> {
        let request = SupervisorRequest::Rename(child.to_owned(), name.to_owned());
        self.ask(request).await.map(drop)
    }

    /// Gives a child another name as [`GroupRef::rename`] does, without waiting.
    pub(crate) fn begin_rename(&self, child: String, name: String) {
        let (reply, _) = oneshot::channel();
        let request = SupervisorRequest::Rename(child, name);
        self.addr.do_send(RequestMessage { request, reply });
    }

    /// Returns the status of the children, in start order; empty if the group is down.
    pub async fn children(&self) -> Vec<ChildStatus> {
        self.addr.send(ListChildren).await.unwrap_or_default()
    }

    /// Starts one more child.
    ///
    /// # Cancel safety   Dropped, the start is taken back.
    async fn start(&self, spec: ChildSpec, body: Arc<dyn ChildBody>) -> Result<(), CommandError> {
        let number = AdditionNumber::next();
        let mut pending = PendingAddition {
            addr: &self.addr,
            number: Some(number),
        };
        let added = self.ask(SupervisorRequest::Add(spec, body, number)).await;
        pending.number = None;
        added.map(drop)
    }

    async fn ask(&self, request: SupervisorRequest) -> Result<Option<ChildId>, CommandError> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| CommandError::StoppingSupervisor;
        self.addr
            .send(RequestMessage { request, reply })
            .await
            .map_err(gone)?;
        answer
            .await
            .unwrap_or(Err(CommandError::StoppingSupervisor))
    }
}

/// A start that is being waited for. Dropped before its end, the start is taken back.
struct PendingAddition<'a> {
    addr: &'a Addr<Supervisor>,
    number: Option<AdditionNumber>,
}

impl Drop for PendingAddition<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.addr.do_send(WithdrawAddition(number));
        }
    }
}

impl fmt::Debug for GroupRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GroupRef")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
