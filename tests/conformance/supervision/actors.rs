//! Replays on real actors: a runtime on virtual time, the scenario's tree as a group in it.

use std::time::Duration;

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{DeathWatch, Group, GroupRef, StartError};
use breakerbox_policy::RestartType;
use breakerbox_policy::supervision::{ChildState, CommandError, StopCause, Supervision};

use super::compare::Observed;
use super::machine::{command_error, spec_error};
use super::scenario::{Node, PAUSE, Scenario, Step, Tree};
use super::specimen::Notebook;

/// The scenario's top supervisor, under the runtime's root.
const TOP: &str = "top";

/// Replays a scenario.
///
/// # Errors  The word that has no counterpart among the actors.
pub(super) fn replay(scenario: &Scenario) -> Result<Observed, String> {
    let adds_supervisor = |step: &&Step| match step {
        Step::StartChild(node) => node.below.is_some(),
        _ => false,
    };
    if scenario.steps.iter().any(|step| adds_supervisor(&step)) {
        return Err("start_child of a supervisor".into());
    }
    Ok(run_paused(async || {
        let runtime = TestRuntime::start().await;
        let mut replay = Replay {
            scenario,
            runtime: &runtime,
            notebook: Notebook::default(),
        };
        let seen = replay.run().await;
        runtime.finish().await;
        seen
    }))
}

struct Replay<'a> {
    scenario: &'a Scenario,
    runtime: &'a TestRuntime,
    notebook: Notebook,
}

impl Replay<'_> {
    async fn run(&mut self) -> Observed {
        let tree = &self.scenario.tree;
        let names = tree.children.iter();
        let mut seen = Observed {
            dynamic: tree.template.is_some(),
            names: names.map(|node| node.spec.name.clone()).collect(),
            ..Observed::default()
        };
        let top = group(Group::new(TOP), tree, &self.notebook).restart(RestartType::Temporary);
        let top = match self.runtime.supervise_group(top).await {
            Ok(top) => top,
            Err(error) => {
                seen.supervisor = format!("start_error:{}", start_error(tree, &error));
                seen.trace = self.notebook.take_trace();
                return seen;
            }
        };
        let mut end = self.runtime.watch(TOP);
        for step in &self.scenario.steps {
            let before = self.runtime.clock().now();
            self.step(step, &top).await;
            if matches!(step, Step::StopSupervisor) {
                let took = self.runtime.clock().now().since(before);
                seen.stop_ms = u64::try_from(took.as_millis()).ok();
            }
            if !matches!(step, Step::End { wait: false, .. }) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let patience = if self.scenario.expect.supervisor.starts_with("dead") {
            Duration::from_secs(3600)
        } else {
            Duration::ZERO
        };
        let ended = tokio::time::timeout(patience, &mut end).await;
        self.observe(&mut seen, &top, ended.is_ok()).await;
        seen
    }

    async fn step(&self, step: &Step, top: &GroupRef) {
        match step {
            Step::End { child, how, .. } => self.notebook.end(child, *how),
            Step::Wait(span) => tokio::time::sleep(*span).await,
            Step::StopSupervisor => {
                let end: DeathWatch = self.runtime.watch(TOP);
                // One that is gone already needs no stop.
                let _ = self.runtime.root().terminate(TOP).await;
                end.await;
            }
            Step::Terminate(child) => self.reply("terminate_child", top.terminate(child).await),
            Step::Restart(child) => self.reply("restart_child", top.restart(child).await),
            Step::Delete(child) => self.reply("delete_child", top.delete(child).await),
            Step::StartChild(node) => self.start_child(node, top).await,
            Step::Add(argument) => {
                let template = self.scenario.tree.template.clone();
                let mut node = *template.expect("a template to add an instance of");
                node.spec.name.push_str(argument);
                self.start_child(&node, top).await;
            }
        }
    }

    async fn start_child(&self, node: &Node, top: &GroupRef) {
        let added = top.add(self.notebook.child(node)).await;
        self.reply("start_child", added.map(drop));
    }

    fn reply(&self, command: &str, result: Result<(), CommandError>) {
        self.notebook.write(match result {
            Ok(()) => format!("reply {command} ok"),
            Err(error) => format!("reply {command} error {}", command_error(&error)),
        });
    }

    /// The final state.
    async fn observe(&self, seen: &mut Observed, top: &GroupRef, ended: bool) {
        seen.trace = self.notebook.take_trace();
        if ended {
            seen.supervisor = "dead:shutdown".into();
            return;
        }
        seen.supervisor = "alive".into();
        for child in top.children().await {
            let state = match child.state {
                ChildState::Running => {
                    // A nested supervisor keeps no notes: the tree tells its incarnation.
                    let attempt = self.notebook.alive(&child.name);
                    format!("running#{}", attempt.unwrap_or(child.incarnation))
                }
                ChildState::Stopped | ChildState::Parked => "stopped".into(),
                _ => "restarting".into(),
            };
            seen.children.push((child.name, state));
        }
        let known = |name: &String| seen.children.iter().any(|(other, _)| other == name);
        let below = self.notebook.all_alive().into_iter();
        let below = below.filter(|(name, _)| !known(name));
        seen.below = below
            .map(|(name, attempt)| (name, format!("running#{attempt}")))
            .collect();
    }
}

/// The group of a tree, without its own place in the tree around it.
fn group(mut group: Group, tree: &Tree, notebook: &Notebook) -> Group {
    group = group
        .strategy(tree.spec.strategy)
        .intensity(tree.spec.intensity)
        .auto_shutdown(tree.spec.auto_shutdown)
        .otp_rules(tree.spec.otp);
    for node in &tree.children {
        group = match &node.below {
            None => group.child(notebook.child(node)),
            Some(below) => {
                let heralded = Group::new(&node.spec.name).child(notebook.herald(node));
                let mut inner = self::group(heralded, below, notebook)
                    .restart(node.spec.restart)
                    .shutdown(node.spec.shutdown);
                if node.spec.significant {
                    inner = inner.significant();
                }
                group.group(inner)
            }
        };
    }
    group
}

/// The child that did not start, or what is wrong with the specification.
fn start_error(tree: &Tree, error: &StartError) -> String {
    match error {
        StartError::Failed {
            cause: StopCause::Failed(text),
            ..
        } => {
            let child = text
                .strip_prefix("child ")
                .and_then(|rest| rest.split_once(' '));
            child.map_or(text.clone(), |(child, _)| child.to_owned())
        }
        StartError::BadSpec { reason, .. } => {
            let specs = tree.children.iter().map(|node| node.spec.clone());
            match Supervision::new(tree.spec.clone(), specs.collect()) {
                Err(wrong) if wrong.to_string() == *reason => spec_error(&wrong).into(),
                _ => reason.clone(),
            }
        }
        other => other.to_string(),
    }
}
