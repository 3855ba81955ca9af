//! Limits of a model's tokens: what an attempt may take is set aside before it, and settled after it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{MeterRefusal, MeterSettings};

use crate::config::{TokenLimitConfig, TokensOf};
use crate::model::{AnswerFigures, Api, TokenEstimate, TokenKind};
use crate::{MeteredCall, MeteredLimit, MeteredShare, Runtime};

/// The limits of one model.
pub(super) struct TokenLimits {
    config: Vec<TokenLimitConfig>,
    api: Api,
    limits: Vec<MeteredLimit>,
}

/// Tokens at one limit of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReservedTokens {
    /// The dependency.
    pub dependency: Arc<str>,
    /// The tokens that count.
    pub of: TokensOf,
    /// Tokens that attempts hold.
    pub reserved: u64,
    /// Tokens that another attempt could have at once.
    pub available: u64,
    /// Maximum of tokens that are available.
    pub burst: u64,
    /// True for a limit of all replicas of a fleet; `reserved` is of this replica then.
    pub shared: bool,
}

/// The reservations of one call.
pub(super) struct CallTokens {
    limits: Arc<TokenLimits>,
    estimates: Vec<TokenEstimate>,
    pub(super) metered: MeteredCall,
}

/// Tokens that are set aside for one attempt. Dropped, they are given back.
pub(super) struct TokenHold {
    limits: Arc<TokenLimits>,
    shares: Vec<MeteredShare>,
    estimates: Vec<TokenEstimate>,
}

/// The tokens of one attempt, taken out by the part that knows its end.
pub(super) type HeldTokens = Cell<Option<TokenHold>>;

/// The tokens of an attempt that is under way. Dropped, as its caller has left, they are settled: its
/// prompt may have been read.
#[derive(Default)]
pub(super) struct AttemptTokens(HeldTokens);

impl AttemptTokens {
    pub(super) fn new(hold: Option<TokenHold>) -> Self {
        Self(Cell::new(hold))
    }

    /// Returns the tokens, to be taken out by the part that knows the end.
    pub(super) fn held(&self) -> &HeldTokens {
        &self.0
    }

    /// Gives back what is left: the attempt was not executed.
    pub(super) fn give_back(self) {
        drop(self.0.take());
    }
}

impl Drop for AttemptTokens {
    fn drop(&mut self) {
        if let Some(hold) = self.0.take() {
            // LLM-23: what it cost until then.
            hold.settle(&AnswerFigures::default());
        }
    }
}

fn settings(limit: &TokenLimitConfig) -> MeterSettings {
    MeterSettings {
        rate: limit.rate,
        per: limit.per,
        burst: limit.burst,
    }
}

/// Returns the tokens that a limit counts.
pub(super) fn kind(limit: &TokenLimitConfig) -> TokenKind {
    match limit.of {
        TokensOf::Input => TokenKind::Input,
        TokensOf::Output => TokenKind::Output,
        _ => TokenKind::Total,
    }
}

/// Returns the former limit that goes on as each of the configured ones: one of the same tokens,
/// and of the same period where there is one. Their order says nothing. A limit of the fleet is none of
/// them: the runtime keeps it.
fn kept(former: Option<&TokenLimits>, config: &[TokenLimitConfig]) -> Vec<Option<MeteredLimit>> {
    let mut left: Vec<_> = former.map_or_else(Vec::new, |former| {
        let all = former.config.iter().zip(&former.limits);
        all.filter(|(limit, _)| !limit.shared).collect()
    });
    let mut take = |is_same: &dyn Fn(&TokenLimitConfig) -> bool| {
        let at = left.iter().position(|(limit, _)| is_same(limit))?;
        Some(left.remove(at).1.clone())
    };
    let exact = config.iter();
    let exact = exact.map(|limit| {
        if limit.shared {
            return None;
        }
        let is_same = |one: &TokenLimitConfig| (one.of, one.per) == (limit.of, limit.per);
        take(&is_same)
    });
    let mut kept: Vec<_> = exact.collect();
    for (kept, limit) in kept.iter_mut().zip(config) {
        if kept.is_none() && !limit.shared {
            *kept = take(&|one| one.of == limit.of);
        }
    }
    kept
}

/// Returns the name that a limit of the fleet has at its dependency. Those of the same tokens and period
/// are told apart by their order.
fn shared_name(config: &[TokenLimitConfig], at: usize) -> String {
    let limit = &config[at];
    let alike = config[..at].iter().filter(|one| is_alike(one, limit));
    let name = format!("{}.{}", limit.of.word(), limit.per.as_millis());
    match alike.count() {
        0 => name,
        before => format!("{name}-{}", before + 1),
    }
}

/// Returns true if a limit goes on as another one by the name that it has at the fleet.
fn is_alike(one: &TokenLimitConfig, other: &TokenLimitConfig) -> bool {
    (one.shared, one.of, one.per) == (other.shared, other.of, other.per)
}

/// Returns what is owed at the former limits that a new one stands in place of, where one of them is the
/// fleet's and the other is not, or it has another period there.
fn debt_of(limit: &TokenLimitConfig, config: &[TokenLimitConfig], former: &TokenLimits) -> u64 {
    if former.config.iter().any(|one| is_alike(one, limit)) {
        return 0;
    }
    let all = former.config.iter().zip(&former.limits);
    let gone = all.filter(|(one, _)| {
        let is_kept = config.iter().any(|new| is_alike(new, one));
        one.of == limit.of && (one.shared || limit.shared) && !is_kept
    });
    gone.map(|(_, limit)| limit.owed()).max().unwrap_or(0)
}

impl TokenLimits {
    /// Creates the limits; `None` if there are none. `former`: the limits before a reload, which go on
    /// where they count the same tokens.
    pub(super) fn of(
        config: &[TokenLimitConfig],
        api: Api,
        former: Option<&Arc<Self>>,
        (runtime, dependency): (&Runtime, &str),
    ) -> Option<Arc<Self>> {
        if config.is_empty() {
            return None;
        }
        if let Some(former) = former.filter(|former| former.config == config) {
            return Some(Arc::clone(former));
        }
        let limits = kept(former.map(Arc::as_ref), config)
            .into_iter()
            .zip(config);
        let limits = limits.enumerate().map(|(at, (kept, limit))| {
            let (settings, max_wait) = (settings(limit), limit.max_wait);
            // LLM-19: no reload forgives a debt.
            if let Some(kept) = kept {
                kept.change(settings, max_wait);
                return kept;
            }
            let new = match limit.shared {
                // FLT-13: one limit of all replicas.
                true => {
                    let name = (dependency, &*shared_name(config, at));
                    runtime.shared_meter(name, settings, max_wait)
                }
                false => MeteredLimit::new(settings, max_wait, runtime.clock().clone()),
            };
            new.owe(former.map_or(0, |former| debt_of(limit, config, former)));
            new
        });
        Some(Arc::new(Self {
            limits: limits.collect(),
            config: config.to_vec(),
            api,
        }))
    }

    /// Returns the reservations of a call. `estimate`: of an attempt, by the estimate of its answer.
    pub(super) fn of_call(self: &Arc<Self>, estimate: impl Fn(u64) -> TokenEstimate) -> CallTokens {
        let limits = self.config.iter();
        let estimates = limits.map(|limit| estimate(limit.output_estimate));
        let estimates: Vec<TokenEstimate> = estimates.collect();
        let amounts = self.config.iter().zip(&estimates);
        let amounts = amounts.map(|(limit, estimate)| estimate.reserved(kind(limit)));
        CallTokens {
            metered: MeteredCall::new(self.limits.iter().cloned().zip(amounts)),
            limits: Arc::clone(self),
            estimates,
        }
    }

    /// Returns the tokens that attempts hold, at each limit.
    pub(super) fn reserved(&self, dependency: &Arc<str>) -> Vec<ReservedTokens> {
        let limits = self.config.iter().zip(&self.limits);
        let held = limits.map(|(limit, meter)| ReservedTokens {
            dependency: Arc::clone(dependency),
            of: limit.of,
            reserved: meter.reserved(),
            available: meter.available(),
            burst: limit.burst.get(),
            shared: limit.shared,
        });
        held.collect()
    }
}

impl CallTokens {
    /// Returns the longest wait of the call at any of the limits; `None` if it would be refused for
    /// ever.
    pub(super) fn wait(&self) -> Option<Duration> {
        let limits = self.limits.config.iter().zip(&self.limits.limits);
        let waits = limits
            .zip(&self.estimates)
            .map(|((limit, meter), estimate)| {
                match meter.wait_for(estimate.reserved(kind(limit))) {
                    Ok(wait) | Err(MeterRefusal::NotBefore(wait)) => Some(wait),
                    Err(MeterRefusal::TooMuch { .. }) => None,
                }
            });
        waits.max_by_key(|wait| wait.map_or(Duration::MAX, |wait| wait))?
    }

    /// Takes out the tokens of an attempt that goes out now.
    pub(super) fn take(&self) -> TokenHold {
        TokenHold {
            limits: Arc::clone(&self.limits),
            shares: self.metered.take(),
            estimates: self.estimates.clone(),
        }
    }
}

impl TokenHold {
    /// Settles an attempt of unknown usage: all of it counts as used.
    pub(super) fn used(mut self) {
        // A share that is dropped is not given back.
        self.shares.clear();
    }

    /// Settles the attempt by what its answer says.
    pub(super) fn settle(mut self, figures: &AnswerFigures) {
        let shares = std::mem::take(&mut self.shares);
        let limits = self.limits.config.iter().zip(shares);
        for ((limit, share), estimate) in limits.zip(&self.estimates) {
            // LLM-19: too large a reservation is given back in part, the lack of too small a one is owed.
            share.settle(estimate.settled(self.limits.api, figures, kind(limit)));
        }
    }
}

impl Drop for TokenHold {
    fn drop(&mut self) {
        self.shares.drain(..).for_each(MeteredShare::give_back);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::config::Settings;

    const BURST: NonZeroU64 = NonZeroU64::new(10).unwrap();

    fn limit(of: TokensOf, per: u64) -> TokenLimitConfig {
        TokenLimitConfig {
            of,
            rate: BURST,
            per: Duration::from_secs(per),
            burst: BURST,
            output_estimate: 1,
            max_wait: Duration::ZERO,
            shared: false,
        }
    }

    #[tokio::test]
    async fn llm_19_each_limit_goes_on_wherever_it_stands_after_a_reload() {
        let runtime = Runtime::start(Settings::default()).await.unwrap();
        let of = |config: &[TokenLimitConfig], former: Option<&Arc<TokenLimits>>| {
            TokenLimits::of(config, Api::OpenAi, former, (&runtime, "gpt")).unwrap()
        };
        let (input, minute, day) = (
            limit(TokensOf::Input, 60),
            limit(TokensOf::Total, 60),
            limit(TokensOf::Total, 86_400),
        );
        let former = of(&[input.clone(), minute.clone(), day.clone()], None);
        let debts = |limits: &TokenLimits| -> Vec<u64> {
            limits.limits.iter().map(MeteredLimit::reserved).collect()
        };
        let mut held = Vec::new();
        for (limit, amount) in former.limits.iter().zip(1..) {
            held.push(limit.reserve(amount, None).await.unwrap());
        }
        assert_eq!(debts(&former), [1, 2, 3]);
        let turned = of(
            &[day.clone(), limit(TokensOf::Output, 60), minute],
            Some(&former),
        );
        assert_eq!(debts(&turned), [3, 0, 2]);
        let hour = limit(TokensOf::Total, 3_600);
        let changed = of(&[hour, day, input], Some(&former));
        assert_eq!(debts(&changed), [2, 3, 1]);
    }

    #[tokio::test]
    async fn flt_13_a_limit_of_the_fleet_goes_on_and_no_change_of_it_forgives_a_debt() {
        let runtime = Runtime::start(Settings::default()).await.unwrap();
        let of = |config: &[TokenLimitConfig], former: Option<&Arc<TokenLimits>>| {
            TokenLimits::of(config, Api::OpenAi, former, (&runtime, "gpt")).unwrap()
        };
        let owed = |limits: &TokenLimits| -> Vec<u64> {
            limits.limits.iter().map(MeteredLimit::owed).collect()
        };
        let shared = |of: TokensOf, per: u64| TokenLimitConfig {
            shared: true,
            ..limit(of, per)
        };
        let (total, input) = (shared(TokensOf::Total, 60), shared(TokensOf::Input, 60));
        let former = of(&[total.clone(), input.clone(), input.clone()], None);
        former.limits[0].owe(40);
        former.limits[2].owe(7);
        let names = runtime.shared_limits("gpt").into_iter();
        let names: Vec<String> = names.map(|(name, _)| name).collect();
        assert_eq!(names, ["input.60000", "input.60000-2", "total.60000"]);
        assert_eq!(owed(&former), [40, 0, 7]);
        // The order of different ones says nothing.
        let turned = of(&[input.clone(), total, input], Some(&former));
        assert_eq!(owed(&turned), [0, 40, 7]);
        let own = of(&[limit(TokensOf::Total, 60)], Some(&former));
        assert_eq!(
            owed(&own),
            [30],
            "of this replica alone, after a burst of ten"
        );
        let again = of(&[shared(TokensOf::Total, 120)], Some(&own));
        assert_eq!(owed(&again), [30]);
        let longer = of(&[shared(TokensOf::Total, 180)], Some(&again));
        assert_eq!(owed(&longer), [30]);
        runtime.shutdown().await;
    }
}
