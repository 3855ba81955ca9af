//! Limits of a model's tokens: what an attempt may take is set aside before it, and settled after it.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::{Meter, MeterRefusal, MeterSettings, Reservation, Time};
use tokio::time::{Instant, sleep};

use crate::config::{TokenLimitConfig, TokensOf};
use crate::lock::LockExt as _;
use crate::model::{AnswerFigures, Api, TokenEstimate, TokenKind};

/// The limits of one model.
pub(super) struct TokenLimits {
    config: Vec<TokenLimitConfig>,
    api: Api,
    /// The time from which the meters count.
    began: Instant,
    meters: Vec<Mutex<Meter>>,
}

/// Tokens that are set aside for one attempt. Dropped, the rest is given back.
pub(super) struct TokenHold {
    limits: Arc<TokenLimits>,
    reserved: Vec<Reservation>,
    estimates: Vec<TokenEstimate>,
}

/// The tokens of one attempt, taken out by the part that knows its end.
pub(super) type HeldTokens = Cell<Option<TokenHold>>;

impl TokenLimits {
    /// Creates the limits; `None` if there are none.
    pub(super) fn of(config: &[TokenLimitConfig], api: Api) -> Option<Arc<Self>> {
        if config.is_empty() {
            return None;
        }
        let settings = config.iter().map(|limit| MeterSettings {
            rate: limit.rate,
            per: limit.per,
            burst: limit.burst,
        });
        let meters = settings.map(|settings| Mutex::new(Meter::new(settings, Time::default())));
        Some(Arc::new(Self {
            meters: meters.collect(),
            config: config.to_vec(),
            api,
            began: Instant::now(),
        }))
    }

    /// Returns true if they are made of this configuration.
    pub(super) fn is_of(&self, config: &[TokenLimitConfig]) -> bool {
        self.config == config
    }

    fn now(&self) -> Time {
        Time::default().after(self.began.elapsed())
    }

    fn kind(limit: &TokenLimitConfig) -> TokenKind {
        match limit.of {
            TokensOf::Input => TokenKind::Input,
            TokensOf::Output => TokenKind::Output,
            _ => TokenKind::Total,
        }
    }

    /// Sets tokens aside in each limit, and waits for them as long as the limits allow. `estimate`:
    /// of an attempt, by the estimate of its answer.
    ///
    /// # Errors  They are not there in time, or never.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        estimate: impl Fn(u64) -> TokenEstimate,
    ) -> Result<TokenHold, MeterRefusal> {
        let began = Instant::now();
        let estimates = self
            .config
            .iter()
            .map(|limit| estimate(limit.output_estimate));
        let estimates: Vec<TokenEstimate> = estimates.collect();
        loop {
            let (wait, limit) = match self.try_reserve(&estimates) {
                Ok(reserved) => {
                    return Ok(TokenHold {
                        limits: Arc::clone(self),
                        reserved,
                        estimates,
                    });
                }
                Err((MeterRefusal::NotBefore(wait), limit)) => (wait, limit),
                Err((refusal, _)) => return Err(refusal),
            };
            if began.elapsed() + wait > limit.max_wait {
                return Err(MeterRefusal::NotBefore(wait));
            }
            sleep(wait.max(Duration::from_millis(1))).await;
        }
    }

    /// Sets tokens aside in all limits, or in none.
    fn try_reserve(
        &self,
        estimates: &[TokenEstimate],
    ) -> Result<Vec<Reservation>, (MeterRefusal, &TokenLimitConfig)> {
        let now = self.now();
        let mut reserved = Vec::with_capacity(self.meters.len());
        for ((limit, meter), estimate) in self.config.iter().zip(&self.meters).zip(estimates) {
            // LLM-19: the prompt, and the maximum that is asked for.
            let amount = estimate.reserved(Self::kind(limit));
            match meter.acquire().try_reserve(now, amount) {
                Ok(one) => reserved.push(one),
                Err(refusal) => {
                    for (one, meter) in reserved.into_iter().zip(&self.meters) {
                        meter.acquire().give_back(now, one);
                    }
                    return Err((refusal, limit));
                }
            }
        }
        Ok(reserved)
    }
}

impl TokenHold {
    /// Settles the attempt by what its answer says.
    pub(super) fn settle(mut self, figures: &AnswerFigures) {
        let now = self.limits.now();
        let reserved = std::mem::take(&mut self.reserved);
        let limits = self.limits.config.iter().zip(&self.limits.meters);
        for (((limit, meter), one), estimate) in limits.zip(reserved).zip(&self.estimates) {
            let kind = TokenLimits::kind(limit);
            let used = estimate.settled(self.limits.api, figures, kind);
            // LLM-19: too large a reservation is given back in part, the lack of too small a one is owed.
            meter.acquire().settle(now, one, used);
        }
    }
}

impl Drop for TokenHold {
    fn drop(&mut self) {
        let now = self.limits.now();
        for (one, meter) in self.reserved.drain(..).zip(&self.limits.meters) {
            meter.acquire().give_back(now, one);
        }
    }
}
