//! The supervised child of a consumer: the loop that fetches, and its end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::ActorContext as _;
use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Running};
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use super::carry::{MessageCarrier, Stage};
use super::message::QueueMessage;
use super::source::SourceError;
use super::state::ConsumerState;
use crate::clock::Clock;
use crate::consumer_pause::ConsumerPause;

/// Longest wait of one question for messages: the breaker may open meanwhile.
const POLL: Duration = Duration::from_secs(1);

/// Wait after a question that the queue could not answer.
const AGAIN: Duration = Duration::from_millis(250);

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

type Fetched = Result<Vec<QueueMessage>, SourceError>;

/// Fetches messages and carries them to their ends, until it is drained.
async fn consume(state: Arc<ConsumerState>) {
    let mut carried = FuturesUnordered::new();
    let mut fetching: Option<LocalBoxFuture<'static, Fetched>> = None;
    let mut counting = std::pin::pin!(count(&state));
    let clock = Clock::tokio();
    let mut not_before = clock.now();
    let mut draining = state.draining.subscribe();
    let begun = Rc::new(Stage::default());
    loop {
        let mut look = None;
        if fetching.is_none() {
            let in_flight = u32::try_from(carried.len()).unwrap_or(u32::MAX);
            match state.room(in_flight, begun.waiting()) {
                Err((ConsumerPause::Draining, _)) if carried.is_empty() => return,
                Err((pause, wait)) => {
                    state.show(Some(pause), false);
                    look = Some(clock.now().after(wait));
                }
                Ok(_) if clock.now() < not_before => look = Some(not_before),
                Ok(most) => {
                    state.show(None, state.work.readiness().is_trial);
                    let source = Arc::clone(&state.source);
                    let fetch = async move { source.fetch(most, POLL).await };
                    fetching = Some(Box::pin(fetch));
                }
            }
        }
        let is_fetching = fetching.is_some();
        tokio::select! {
            // A fetch is never dropped: its messages would count as lost by a crash.
            fetched = async { match fetching.as_mut() {
                Some(fetch) => fetch.await,
                None => std::future::pending().await,
            } } => {
                fetching = None;
                match fetched {
                    Ok(messages) => {
                        state.note(None);
                        for message in messages {
                            let carrier = MessageCarrier::new(&state, &begun, message);
                            carried.push(carrier.carry());
                        }
                    }
                    Err(error) => {
                        state.note(Some(error.to_string()));
                        not_before = clock.now().after(AGAIN);
                    }
                }
            }
            Some(()) = carried.next(), if !carried.is_empty() => {}
            () = clock.sleep_until(look.unwrap_or_else(|| clock.now())),
                if look.is_some() => {}
            Ok(()) = draining.changed(), if !is_fetching => {}
            () = &mut counting => {}
        }
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
