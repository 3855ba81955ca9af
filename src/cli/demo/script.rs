//! The demo's script: three scenes, each an outage and a recovery.
//!
//! It waits for events, with deadlines that a slow machine meets too. It assumes no durations.

use std::io;
use std::time::Duration;

use breakerbox::policy::{State, Time};
use breakerbox::prelude::*;

use super::timeline::Timeline;
use breakerbox::simulated::{SimulatedFault, Site};

/// Time limit for expected effects, far above their usual duration.
const PATIENCE: Duration = Duration::from_secs(20);
/// Number of primary answers that prove a recovery.
const PROOF: u64 = 5;

/// Durations of the script's fixed parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) calm: Duration,
    pub(crate) outage: Duration,
    /// Recovery timeout of the breakers, if not the configured one.
    pub(crate) recovery_timeout: Option<&'static str>,
    pub(crate) about: &'static str,
}

/// One outage.
#[derive(Debug, Clone, Copy)]
struct OutageScene {
    fault: SimulatedFault,
    /// True if the dependency's workers are expected to crash.
    crashes: bool,
}

/// The scenes, in the order of the sites.
const SCENES: [OutageScene; 3] = [
    OutageScene {
        fault: SimulatedFault::Fails,
        crashes: false,
    },
    OutageScene {
        fault: SimulatedFault::Hangs,
        crashes: false,
    },
    OutageScene {
        fault: SimulatedFault::Garbles,
        crashes: true,
    },
];

/// Breaks one site after the other. Returns expectations that were not met.
pub(crate) async fn play(
    runtime: &Runtime,
    sites: &[Site],
    pace: Pace,
    timeline: &mut Timeline<'_>,
) -> io::Result<Vec<String>> {
    timeline.say("demo", "everything works; the agents begin")?;
    let settled = |_: &Timeline<'_>| {
        let mut sites = sites.iter();
        sites.all(|site| answers(runtime, &site.name) >= 4 * PROOF)
    };
    if !timeline.until(PATIENCE, settled).await? {
        return Ok(vec![missed(
            "the agents",
            "got answers of every dependency",
        )]);
    }
    timeline.pass(pace.calm).await?;
    let mut complaints = Vec::new();
    for (site, scene) in sites.iter().zip(SCENES) {
        complaints.extend(outage(runtime, site, scene, pace, timeline).await?);
        timeline.pass(pace.calm).await?;
    }
    Ok(complaints)
}

async fn outage(
    runtime: &Runtime,
    site: &Site,
    scene: OutageScene,
    pace: Pace,
    timeline: &mut Timeline<'_>,
) -> io::Result<Option<String>> {
    let name = site.name.as_str();
    let (begin, crashes) = (timeline.now(), timeline.crashes(name));
    let breaks = scene.fault.to_string();
    timeline.say(name, &format!("*** {breaks} ***"))?;
    site.set(scene.fault);
    let broken = |timeline: &Timeline<'_>| {
        let crashed = timeline.crashes(name) > crashes;
        timeline.moved(name, begin, State::Open).is_some() && (crashed || !scene.crashes)
    };
    let opened = timeline.until(PATIENCE, broken).await?;
    if opened {
        timeline.pass(pace.outage).await?;
    }
    timeline.say(name, &format!("*** {} ***", SimulatedFault::None))?;
    site.set(SimulatedFault::None);
    if !opened {
        return Ok(Some(missed(name, "opened its breaker while it was broken")));
    }
    let before = answers(runtime, name);
    let recovered = |timeline: &Timeline<'_>| {
        let now_answers = answers(runtime, name) >= before + PROOF;
        now_answers && is_back(runtime, timeline, name, begin)
    };
    let back = timeline.until(PATIENCE, recovered).await?;
    Ok((!back).then(|| missed(name, "recovered after it was healed")))
}

/// Returns true if the breaker opened, closed after that, is closed, and all workers run.
fn is_back(runtime: &Runtime, timeline: &Timeline<'_>, name: &str, begin: Time) -> bool {
    let opened = timeline.moved(name, begin, State::Open);
    let closed = opened.and_then(|opened| timeline.moved(name, opened, State::Closed));
    let healthy = runtime.status(name).is_some_and(|status| {
        status.state == State::Closed && status.workers.iter().all(|worker| worker.running)
    });
    closed.is_some() && healthy
}

fn answers(runtime: &Runtime, name: &str) -> u64 {
    runtime
        .status(name)
        .map_or(0, |status| status.totals.primary)
}

fn missed(who: &str, what: &str) -> String {
    format!("{who} should have {what}, allowed: {PATIENCE:?}")
}
