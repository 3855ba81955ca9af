//! Supervised actor that caches a token before a call needs it.
//!
//! It fetches once and ends on failure; the supervisor decides when to restart it. Calls never wait
//! for it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::Tokens;
use crate::policy::supervision::{RestartBackoff, StopCause};
use crate::policy::{BackoffSettings, Intensity, RetryJitter};
use crate::{Child, Group, Runtime, StartError, end_with};

/// Restart intensity that never escalates: the endpoint may be down for hours.
const INTENSITY: Intensity = Intensity {
    max: u32::MAX,
    within: Duration::from_secs(60),
};

/// Starts a supervised keeper for the tokens, under this name.
pub(in crate::agents) async fn keep(
    runtime: &Runtime,
    name: &str,
    tokens: &Arc<Tokens>,
) -> Result<(), StartError> {
    let backoff = RestartBackoff {
        first: Duration::from_millis(500),
        delay: BackoffSettings {
            base: Duration::from_millis(500),
            factor: 2.0,
            max: Duration::from_secs(30),
            jitter: RetryJitter::Added(0.2),
        },
        reset_after: Duration::from_secs(60),
        max_in_a_row: None,
    };
    let tokens = Arc::clone(tokens);
    let keeper = Child::permanent("keeper", move || TokenKeeper {
        tokens: Arc::clone(&tokens),
    });
    let group = Group::new(name).intensity(INTENSITY).backoff(backoff);
    runtime.supervise_group(group.child(keeper)).await?;
    Ok(())
}

struct TokenKeeper {
    tokens: Arc<Tokens>,
}

impl TokenKeeper {
    fn tend(&mut self, context: &mut Context<Self>) {
        let tokens = Arc::clone(&self.tokens);
        let tending = async move { tokens.tend().await }.into_actor(self);
        let tended = tending.map(|tended, _, context| match tended {
            Ok(rest) => {
                // Close to the expiry a caller may be fetching already, and a token may last no time.
                let rest = rest.max(Duration::from_secs(1));
                context.run_later(rest, Self::tend);
            }
            Err(error) => end_with(context, StopCause::Failed(error.to_string())),
        });
        context.spawn(tended);
    }
}

impl Actor for TokenKeeper {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.tend(context);
    }
}
