//! A new configuration for the running sidecar, without a gap for callers (rule EDGE-6).
//!
//! The order of the changes matters: a fallback is there before it is used, and is used no more
//! before it goes.

use std::collections::HashMap;

use breakerbox_policy::DependencySettings;
use futures_util::future::join_all;

use super::Sidecar;
use super::changed_settings::{ChangedSettings, secrets_of_dependencies};
use crate::config::{DependencyConfig, FallbackKind, Settings, Warning};
use crate::sidecar::gateway::{AddError, AddOutcome, Gateway};
use crate::{AppliedReload, RuntimeSettings, StartError};

/// A dependency to run: its name, its configuration and its address.
type WantedDependency<'a> = (&'a str, &'a DependencyConfig, &'a str);

impl Sidecar {
    /// Reads the configuration again and applies it: dependencies are added, changed, replaced and
    /// removed. One that cannot be applied changes nothing (rule CFG-2).
    ///
    /// # Cancel safety   Dropped, some dependencies may have the new configuration and others the
    /// old one.
    pub(super) async fn reload(&mut self, by: &str) {
        let settings = match self.source.read() {
            Ok(settings) if settings == self.settings && !self.is_incomplete => {
                // The files that it names may hold something else by now.
                if let Err(problem) = self.gateway.renew_certificates() {
                    return self.refuse(by, &problem);
                }
                if self.admin.accept_files() {
                    // CFG-2: files that were refused, and are as before again, are told too.
                    let mut report = AppliedReload::default();
                    report.kept = self.gateway.names();
                    self.runtime.note_reload(by, report);
                }
                return;
            }
            Ok(settings) => settings,
            // CFG-2: an invalid configuration changes nothing, and is told as an event.
            Err(error) => return self.refuse(by, &error.to_string()),
        };
        let running = self.gateway.names();
        if let Some(problem) = self.leaves_nothing(&settings, &running) {
            return self.refuse(by, &problem);
        }
        if let Err(problem) = self.plan.make(&settings).await {
            return self.refuse(by, &problem.to_string());
        }
        self.admin.accept_files();
        // EDGE-7: a reload warns as `check` and the start do.
        for warning in new_warnings(&self.settings, &settings) {
            tracing::warn!(by, "{warning}");
        }
        self.tell_of_own(&settings, by);
        self.gateway.configure(&settings.gateway);
        let wanted = self.plan.wanted(&settings);
        // EDGE-6: one with a new version that may fail to start goes on as it is until the swap.
        let replaced = self.gateway.settings_until_swap(&wanted);
        self.reload_runtime(&settings, &replaced, by).await;
        let (mut report, problems) = apply(&self.gateway, &self.settings, wanted, by).await;
        let is_failed = |(name, _): &(String, _)| report.failed.contains(name);
        let (failed, started): (Vec<_>, Vec<_>) = replaced.into_iter().partition(is_failed);
        self.reload_runtime(&settings, &failed, by).await;
        self.tell_of_swaps(&settings, &started, &report.failed, by);
        self.admin.note_not_started(&problems);
        #[cfg(feature = "fleet")]
        let has_consumers = {
            let followed = self
                .consumers
                .follow(&settings, &self.runtime, &self.gateway);
            let has_consumers = followed.await;
            // Before their dependencies go.
            self.consumers.remove_others(&settings, &self.runtime);
            has_consumers
        };
        #[cfg(not(feature = "fleet"))]
        let has_consumers = true;
        for name in running {
            let is_wanted = settings.dependencies.contains_key(&name);
            if !is_wanted && self.gateway.remove(&name, by).await {
                report.removed.push(name);
            }
        }
        self.is_incomplete = !report.failed.is_empty() || !has_consumers;
        self.admin.follow_started(&settings, &report.failed);
        self.runtime.note_reload(by, report);
        self.plan.forget_others(&self.settings, &settings);
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &self.fleet {
            fleet.follow(&settings);
        }
        self.settings = settings;
    }

    /// Gives the runtime the settings of the dependencies: in place of its own, each of `kept` has the
    /// settings that stand there.
    async fn reload_runtime(
        &self,
        settings: &Settings,
        kept: &[(String, DependencySettings)],
        by: &str,
    ) {
        let mut given = RuntimeSettings::from(settings.clone());
        given.dependencies.extend(kept.iter().cloned());
        self.runtime.reload(given, by).await;
    }

    /// Tells the changes of the settings of dependencies that have taken the place of others, and the
    /// changed secrets of all but those that `failed`. `former`: the settings before.
    fn tell_of_swaps(
        &self,
        new: &Settings,
        former: &[(String, DependencySettings)],
        failed: &[String],
        by: &str,
    ) {
        let changed = former.iter().flat_map(|(name, former)| {
            let new = new.dependencies.get(name).map(|config| &config.settings);
            let lines = new.map_or_else(Vec::new, |new| former.changes(new));
            let named = move |line| format!("dependencies.{name}.{line}");
            lines.into_iter().map(named)
        });
        let secrets = secrets_of_dependencies(&self.settings, new, failed);
        let changed: Vec<String> = changed.chain(secrets).collect();
        if !changed.is_empty() {
            self.runtime.note_changes(by, changed, Vec::new());
        }
    }

    /// Goes on with the former configuration. The note stands until the files are good again.
    fn refuse(&self, by: &str, problems: &str) {
        self.admin.refuse_files(problems);
        self.runtime.refuse_reload(by, problems);
    }

    /// Returns the reason to refuse a configuration that would remove everything that runs and
    /// configures nothing else.
    fn leaves_nothing(&self, settings: &Settings, running: &[String]) -> Option<String> {
        // Without files the embedded file holds, which is only meant for a start without any.
        let has_lost_files = !self.settings.files().is_empty() && settings.files().is_empty();
        let is_empty = settings.dependencies.is_empty();
        // EDGE-6: a file may be empty or absent for a moment.
        if settings.reload.allow_empty || running.is_empty() || !(is_empty || has_lost_files) {
            return None;
        }
        let what = if has_lost_files {
            "no file of the configuration is found any more"
        } else {
            "there is no dependency in it"
        };
        let count = running.len();
        Some(format!(
            "dependencies: {what}, and {count} of them run; allowed: a configuration with a \
             dependency, or reload.allow_empty = true"
        ))
    }

    /// Tells the changes of the settings of the process itself.
    fn tell_of_own(&self, new: &Settings, by: &str) {
        let waits = ChangedSettings::between(&self.started_with, new).waits;
        self.admin.note_waits(&waits);
        let changed = ChangedSettings::between(&self.settings, new);
        if !changed.at_once.is_empty() || !waits.is_empty() && !changed.waits.is_empty() {
            self.runtime.note_changes(by, changed.at_once, waits);
        }
    }
}

/// Returns the warnings of a configuration that the `old` one did not have.
fn new_warnings<'a>(old: &Settings, new: &'a Settings) -> Vec<&'a Warning> {
    let is_same = |one: &Warning, other: &Warning| {
        // A line above it may have moved the place of a key; a variable has no other name.
        let is_there = !one.key.is_empty() || one.origin == other.origin;
        (&one.key, &one.text) == (&other.key, &other.text) && is_there
    };
    let all = new.warnings().iter();
    let is_known = |one: &Warning| old.warnings().iter().any(|other| is_same(one, other));
    all.filter(|one| !is_known(one)).collect()
}

/// Adds and changes dependencies. Returns the problems of those that could not be started, too.
async fn apply(
    gateway: &Gateway,
    old: &Settings,
    mut wanted: Vec<WantedDependency<'_>>,
    by: &str,
) -> (AppliedReload, Vec<String>) {
    // New ones first: others may fall back on them from now on. Then those that fall back on others
    // before these others: in this order no circle of fallbacks arises on the way.
    let order = callers_first(old);
    wanted.sort_by_key(|(name, ..)| order.get(name).map_or(0, |place| place + 1));
    let mut results = (AppliedReload::default(), Vec::new());
    let mut again = Vec::new();
    // Servers that take their time to start do not hold up the others.
    let (slow, quick): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|one| one.1.mcp.is_some());
    for one in quick {
        let put = gateway.put(one.0, one.1, one.2, by).await;
        note(&mut results, one, put, by, Some(&mut again));
    }
    let starting = slow.into_iter().map(async |one| {
        let put = gateway.put(one.0, one.1, one.2, by).await;
        (one, put)
    });
    for (one, put) in join_all(starting).await {
        note(&mut results, one, put, by, Some(&mut again));
    }
    for one in again {
        let put = gateway.put(one.0, one.1, one.2, by).await;
        note(&mut results, one, put, by, None);
    }
    results
}

/// Notes a result. A circle of fallbacks that includes former ones is tried `again`.
fn note<'a>(
    (report, problems): &mut (AppliedReload, Vec<String>),
    one: WantedDependency<'a>,
    put: Result<AddOutcome, AddError>,
    by: &str,
    again: Option<&mut Vec<WantedDependency<'a>>>,
) {
    let name = one.0.to_owned();
    match (put, again) {
        (Ok(AddOutcome::Kept), _) => report.kept.push(name),
        (Ok(AddOutcome::Restarted), _) => report.restarted.push(name),
        (Ok(_), _) => report.added.push(name),
        (Err(AddError::Start(StartError::FallbackCycle { .. })), Some(again)) => again.push(one),
        (Err(error), _) => {
            tracing::error!(dependency = name, by, %error, "it cannot be started");
            problems.push(format!("{name}: {error}"));
            report.failed.push(name);
        }
    }
}

/// Returns the place of each dependency in an order in which those that fall back on others come
/// before these others.
fn callers_first(settings: &Settings) -> HashMap<&str, usize> {
    let mut places = HashMap::new();
    for name in settings.dependencies.keys() {
        place(settings, name, &mut places);
    }
    let count = places.len();
    places
        .values_mut()
        .for_each(|place| *place = count - *place);
    places
}

/// Counts a dependency after those on which it falls back. There is no circle of them.
fn place<'a>(settings: &'a Settings, name: &'a str, places: &mut HashMap<&'a str, usize>) {
    if places.contains_key(name) {
        return;
    }
    let fallbacks = settings.dependencies.get(name).map(|one| &one.fallbacks);
    for fallback in fallbacks.into_iter().flatten() {
        if let FallbackKind::Dependency { name, .. } = &fallback.kind {
            place(settings, name, places);
        }
    }
    places.insert(name, places.len() + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_6_the_order_of_a_reload_puts_callers_before_their_fallbacks() {
        let text = "[dependencies.a]\n\
                    [[dependencies.c.fallback]]\nkind = \"dependency\"\nname = \"b\"\n\
                    [[dependencies.b.fallback]]\nkind = \"dependency\"\nname = \"a\"\n";
        let settings = Settings::loader().bare().toml(text).load().unwrap();
        let places = callers_first(&settings);
        assert!(places["c"] < places["b"], "{places:?}");
        assert!(places["b"] < places["a"], "{places:?}");
    }

    #[test]
    fn edge_7_a_reload_warns_of_what_the_configuration_before_it_did_not_have() {
        let load = |text: &str, variable: &str| {
            let text = format!("{text}[dependencies.a]\ntimeout.attempt = 5000\n");
            let loader = Settings::loader().bare().toml(text);
            loader.env_vars([(variable, "1s")]).load().unwrap()
        };
        let old = load("", "BREAKERBOX_SOMETHING");
        // The key has another line, and the same value.
        let moved = load("[gateway]\n", "BREAKERBOX_SOMETHING");
        assert!(new_warnings(&old, &moved).is_empty());
        let other = load("", "BREAKERBOX_ANOTHER");
        let told: Vec<String> = new_warnings(&old, &other)
            .into_iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("BREAKERBOX_ANOTHER"), "{told:?}");
        let from_none = new_warnings(&Settings::default(), &old);
        let keys: Vec<&str> = from_none.iter().map(|one| one.key.as_str()).collect();
        assert!(keys.contains(&"dependencies.a.timeout.attempt"), "{keys:?}");
    }
}
