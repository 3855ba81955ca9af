//! The supervised child of a consumer: the loop that fetches, and its end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::ActorContext as _;
use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Running};

use super::fetch_round::{FetchRound, NextLook};
use super::state::ConsumerState;
use crate::clock::Clock;

/// Interval at which the number of waiting messages is read.
const COUNT: Duration = Duration::from_secs(2);

/// One incarnation of a consumer.
pub(crate) struct ConsumerActor {
    state: Arc<ConsumerState>,
    is_over: Rc<Cell<bool>>,
}

impl ConsumerActor {
    pub(crate) fn new(state: Arc<ConsumerState>) -> Self {
        Self {
            state,
            is_over: Rc::default(),
        }
    }
}

impl Actor for ConsumerActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let looping = consume(Arc::clone(&self.state));
        let looping = wrap_future::<_, Self>(looping).map(|(), own, context| {
            own.is_over.set(true);
            context.stop();
        });
        context.spawn(looping);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        // SUP-7: fetched messages may end before it stops.
        self.state.draining.send_replace(true);
        match self.is_over.get() {
            true => Running::Stop,
            false => Running::Continue,
        }
    }
}

/// Fetches messages and carries them to their ends, until it is drained.
async fn consume(state: Arc<ConsumerState>) {
    let mut counting = std::pin::pin!(count(&state));
    let mut draining = state.draining.subscribe();
    let clock = Clock::tokio();
    let mut fetching = FetchRound::new(&state, clock.clone());
    loop {
        let look = match fetching.ask() {
            NextLook::Over => break,
            NextLook::At(time) => Some(time),
            NextLook::AtChange => None,
        };
        let is_asking = fetching.is_asking();
        tokio::select! {
            () = fetching.next() => {}
            () = clock.sleep_until(look.unwrap_or_else(|| clock.now())), if look.is_some() => {}
            Ok(()) = draining.changed(), if !is_asking => {}
            () = &mut counting => {}
        }
    }
    if let Err(error) = state.source.close().await {
        tracing::debug!(%error, "the queue is left open");
    }
}

/// Reads the number of waiting messages from time to time, for ever.
async fn count(state: &ConsumerState) {
    loop {
        if let Ok(pending) = state.source.pending().await {
            state.set_pending(pending);
        }
        tokio::time::sleep(COUNT).await;
    }
}
