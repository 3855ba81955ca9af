//! Language models and pools, as API clients see them.
//!
//! A pool is no dependency: it has no breaker, no workers and no figures of its own.

#![cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "without a gateway there are no models")
)]

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
#[cfg(feature = "gateway")]
use breakerbox_actors::LatencyBuckets;
use serde::Serialize;

use super::Admin;
#[cfg(feature = "gateway")]
use crate::gateway::{ModelFigures, PoolStatus, ReservedTokens, Servers};
#[cfg(feature = "gateway")]
use crate::rounded::millis;
#[cfg(feature = "gateway")]
use crate::sidecar::names::health_name;

/// All models and pools.
#[derive(Debug, Default, Serialize)]
pub(super) struct ModelsView {
    pools: Vec<PoolView>,
    models: Vec<ModelView>,
    token_limits: Vec<TokenLimitView>,
}

/// A pool.
#[derive(Debug, Serialize)]
struct PoolView {
    name: String,
    health: &'static str,
    health_reason: Option<String>,
    /// The member that would be asked now.
    next: Option<String>,
    members: Vec<PoolMemberView>,
}

#[derive(Debug, Serialize)]
struct PoolMemberView {
    name: String,
    health: &'static str,
    health_reason: Option<String>,
    retry_after_ms: Option<f64>,
    in_flight: u32,
}

/// The figures of one model of a dependency.
#[derive(Debug, Serialize)]
struct ModelView {
    dependency: String,
    model: String,
    tokens: TokensView,
    /// Number of streams by their end.
    streams: BTreeMap<&'static str, u64>,
    first_token: SpansView,
    longest_gap: SpansView,
}

#[derive(Debug, Serialize)]
struct TokensView {
    input: u64,
    cached_input: u64,
    output: u64,
}

/// Times of streams: their mean, and the bounds below which half and 95 % of them lie.
#[derive(Debug, Serialize)]
struct SpansView {
    count: u64,
    mean_ms: Option<f64>,
    p50_below_ms: Option<f64>,
    p95_below_ms: Option<f64>,
}

/// The tokens at one limit.
#[derive(Debug, Serialize)]
struct TokenLimitView {
    dependency: String,
    of: &'static str,
    reserved: u64,
    available: u64,
    burst: u64,
    /// True for a limit of all replicas of a fleet; `reserved` is of this one then.
    shared: bool,
}

/// Handles `GET /api/models`.
pub(super) async fn show(State(admin): State<Admin>) -> Json<ModelsView> {
    Json(all(&admin))
}

#[cfg(feature = "gateway")]
fn all(admin: &Admin) -> ModelsView {
    admin.models().map(view).unwrap_or_default()
}

#[cfg(not(feature = "gateway"))]
fn all(_: &Admin) -> ModelsView {
    ModelsView::default()
}

#[cfg(feature = "gateway")]
fn view(servers: &Servers) -> ModelsView {
    let limit = |one: ReservedTokens| TokenLimitView {
        dependency: one.dependency.to_string(),
        of: one.of.word(),
        reserved: one.reserved,
        available: one.available,
        burst: one.burst,
        shared: one.shared,
    };
    ModelsView {
        pools: servers.pools().into_iter().map(pool).collect(),
        models: servers.models().iter().map(model).collect(),
        token_limits: servers.reserved_tokens().into_iter().map(limit).collect(),
    }
}

#[cfg(feature = "gateway")]
fn pool(pool: PoolStatus) -> PoolView {
    let health = pool.health();
    let next = pool.next().map(|member| member.name.clone());
    let members = pool.members.into_iter().map(|member| PoolMemberView {
        name: member.name,
        health: health_name(&member.health),
        health_reason: super::dependencies::reason_of(&member.health),
        retry_after_ms: member.retry_after.map(millis),
        in_flight: member.in_flight,
    });
    PoolView {
        name: pool.name,
        health: health_name(&health),
        health_reason: super::dependencies::reason_of(&health),
        next,
        members: members.collect(),
    }
}

#[cfg(feature = "gateway")]
fn model(one: &ModelFigures) -> ModelView {
    let streams = one.streams.iter();
    ModelView {
        dependency: one.dependency.to_string(),
        model: one.model.clone(),
        tokens: TokensView {
            input: one.input,
            cached_input: one.cached_input,
            output: one.output,
        },
        streams: streams.map(|(end, count)| (end.word(), *count)).collect(),
        first_token: spans(&one.first_token),
        longest_gap: spans(&one.gaps),
    }
}

#[cfg(feature = "gateway")]
fn spans(buckets: &LatencyBuckets) -> SpansView {
    let below = |percent: u64| {
        let wanted = (buckets.count * percent).div_ceil(100);
        let reached = |(_, count): &&(std::time::Duration, u64)| *count >= wanted && wanted > 0;
        let bucket = buckets.buckets.iter().find(reached);
        bucket.map(|(bound, _)| millis(*bound))
    };
    let mean = u32::try_from(buckets.count).ok().filter(|count| *count > 0);
    SpansView {
        count: buckets.count,
        mean_ms: mean.map(|count| millis(buckets.sum / count)),
        p50_below_ms: below(50),
        p95_below_ms: below(95),
    }
}
