//! The keeper: a supervised actor that has a token ready before anybody needs it.
//!
//! It asks once and ends when that fails; when it asks again is the supervisor's business. Calls
//! do not wait for it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::Tokens;
use crate::policy::supervision::{RestartBackoff, StopCause};
use crate::policy::{BackoffSettings, Intensity, RetryJitter};
use crate::{Child, Group, Runtime, StartError, end_with};

/// It never gives up: the endpoint may be away for hours, and comes back.
const INTENSITY: Intensity = Intensity {
    max: u32::MAX,
    within: Duration::from_secs(60),
};

/// Has a supervised keeper look after the tokens, under this name.
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
    let keeper = Child::permanent("keeper", move || Keeper {
        tokens: Arc::clone(&tokens),
    });
    let group = Group::new(name).intensity(INTENSITY).backoff(backoff);
    runtime.supervise_group(group.child(keeper)).await?;
    Ok(())
}

struct Keeper {
    tokens: Arc<Tokens>,
}

impl Keeper {
    fn tend(&mut self, context: &mut Context<Self>) {
        let tokens = Arc::clone(&self.tokens);
        let tending = async move { tokens.tend().await }.into_actor(self);
        let tended = tending.map(|tended, _, context| match tended {
            Ok(rest) => {
                // Not at the very end: then somebody else may have asked already.
                let rest = rest.max(Duration::from_millis(10));
                context.run_later(rest, Self::tend);
            }
            Err(error) => end_with(context, StopCause::Failed(error.to_string())),
        });
        context.spawn(tended);
    }
}

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.tend(context);
    }
}
