//! A supervision scenario, read from its JSON. Shared by every replay; it runs nothing.

use std::time::Duration;

use breakerbox_policy::supervision::{
    AutoShutdown, ChildSpec, OtpRules, Shutdown, Strategy, SupervisorSpec,
};
use breakerbox_policy::{GiveUp, Intensity, RestartType};
use serde_json::Value;

/// How long the harness waits after every event.
pub(crate) const PAUSE: Duration = Duration::from_millis(60);

/// A whole scenario.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) tree: Tree,
    pub(crate) steps: Vec<Step>,
    pub(crate) expect: Expect,
}

/// A supervisor and its children.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) spec: SupervisorSpec,
    pub(crate) children: Vec<Node>,
    /// What [`Step::Add`] makes an instance of.
    pub(crate) template: Option<Box<Node>>,
}

/// A child and how it behaves.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) spec: ChildSpec,
    /// Attempts, counted from 1 over the whole scenario, that fail.
    pub(crate) start_fails: Vec<u64>,
    /// From this attempt on all fail.
    pub(crate) start_fails_from: Option<u64>,
    pub(crate) start_delay: Duration,
    pub(crate) stop_delay: Duration,
    /// The tree below a supervisor.
    pub(crate) below: Option<Tree>,
}

impl Node {
    /// Whether this attempt to start fails.
    pub(crate) fn fails(&self, attempt: u64) -> bool {
        self.start_fails.contains(&attempt)
            || self.start_fails_from.is_some_and(|from| attempt >= from)
    }
}

/// One event.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A child ends by itself.
    End {
        child: String,
        how: End,
        wait: bool,
    },
    Wait(Duration),
    StopSupervisor,
    Terminate(String),
    Restart(String),
    Delete(String),
    StartChild(Box<Node>),
    /// An instance of the template; its name is the template's and this.
    Add(String),
}

/// How a child ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Crash,
    Normal,
    Shutdown,
}

/// What must have happened.
#[derive(Debug, Clone)]
pub(crate) struct Expect {
    pub(crate) trace: Vec<String>,
    pub(crate) order: Order,
    pub(crate) supervisor: String,
    /// Name and state; `None` when the scenario says nothing about them.
    pub(crate) children: Option<Vec<(String, String)>>,
    /// The shortest and the longest time that the orderly stop may take, in ms.
    pub(crate) stop_ms: Option<(u64, u64)>,
}

/// How strictly the trace is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Exact,
    UnorderedTail,
    /// Repeated attempts may be more or fewer.
    Tolerant,
    Invariant,
}

/// Reads a scenario.
///
/// # Errors  The word that has no counterpart here.
pub(crate) fn read(scenario: &Value) -> Result<Scenario, String> {
    let decision = scenario["decision"].as_str().unwrap_or_default();
    let deviates = decision.starts_with("deviate");
    let rules = OtpRules {
        gave_up_is_normal: deviates,
        rounds_revive_stopped: deviates,
    };
    let steps = scenario["events"].as_array().into_iter().flatten();
    Ok(Scenario {
        tree: tree(&scenario["tree"], rules)?,
        steps: steps.map(step).collect::<Result<_, _>>()?,
        expect: expect(&scenario["expect"], scenario["tolerant"] == true)?,
    })
}

fn tree(value: &Value, rules: OtpRules) -> Result<Tree, String> {
    known(
        value,
        &[
            "strategy",
            "intensity",
            "period_s",
            "auto_shutdown",
            "children",
            "template",
        ],
    )?;
    let children = value["children"].as_array().into_iter().flatten();
    let template = value.get("template").filter(|template| !template.is_null());
    Ok(Tree {
        spec: SupervisorSpec {
            strategy: match word(value, "strategy", "one_for_one") {
                "one_for_one" => Strategy::OneForOne,
                "one_for_all" => Strategy::OneForAll,
                "rest_for_one" => Strategy::RestForOne,
                "simple_one_for_one" | "dynamic" => Strategy::Dynamic,
                other => return Err(format!("strategy {other}")),
            },
            intensity: Intensity {
                max: u32::try_from(value["intensity"].as_u64().unwrap_or(1)).unwrap_or(u32::MAX),
                within: Duration::from_secs_f64(value["period_s"].as_f64().unwrap_or(5.0)),
            },
            auto_shutdown: match word(value, "auto_shutdown", "never") {
                "never" => AutoShutdown::Never,
                "any_significant" => AutoShutdown::AnySignificant,
                "all_significant" => AutoShutdown::AllSignificant,
                other => return Err(format!("auto_shutdown {other}")),
            },
            backoff: None,
            otp: rules,
        },
        children: children
            .map(|child| node(child, rules))
            .collect::<Result<_, _>>()?,
        template: template
            .map(|child| node(child, rules).map(Box::new))
            .transpose()?,
    })
}

fn node(value: &Value, rules: OtpRules) -> Result<Node, String> {
    known(
        value,
        &[
            "kind",
            "id",
            "restart",
            "shutdown_ms",
            "significant",
            "start_fails",
            "start_fails_from",
            "start_delay_ms",
            "start_ms",
            "start_fail_delay_ms",
            "stop_delay_ms",
            "sup",
        ],
    )?;
    let name = word(value, "id", "child");
    let below = value.get("sup").filter(|below| !below.is_null());
    let kind = word(value, "kind", "worker");
    let spec = match kind {
        "worker" => ChildSpec {
            shutdown: Shutdown::Within(Duration::from_secs(1)),
            ..ChildSpec::worker(name)
        },
        "supervisor" => ChildSpec::supervisor(name),
        other => return Err(format!("kind {other}")),
    };
    let fails = value["start_fails"].as_array().into_iter().flatten();
    Ok(Node {
        spec: ChildSpec {
            restart: match word(value, "restart", "permanent") {
                "permanent" => RestartType::Permanent,
                "transient" => RestartType::Transient,
                "temporary" => RestartType::Temporary,
                other => return Err(format!("restart {other}")),
            },
            shutdown: match &value["shutdown_ms"] {
                Value::Null => spec.shutdown,
                Value::String(text) if text == "brutal_kill" => Shutdown::Kill,
                Value::String(text) if text == "infinity" => Shutdown::Infinity,
                given => Shutdown::Within(Duration::from_millis(
                    given.as_u64().ok_or(format!("shutdown_ms {given}"))?,
                )),
            },
            significant: value["significant"].as_bool().unwrap_or(false),
            give_up: GiveUp::Escalate,
            ..spec
        },
        start_fails: fails.filter_map(Value::as_u64).collect(),
        start_fails_from: value["start_fails_from"].as_u64(),
        start_delay: ["start_delay_ms", "start_ms", "start_fail_delay_ms"]
            .map(|key| millis(value, key))
            .into_iter()
            .sum(),
        stop_delay: millis(value, "stop_delay_ms"),
        below: match (kind, below) {
            ("supervisor", Some(below)) => Some(tree(below, rules)?),
            ("supervisor", None) => return Err("a supervisor without sup".into()),
            _ => None,
        },
    })
}

fn step(value: &Value) -> Result<Step, String> {
    known(value, &["do", "child", "ms", "spec", "arg"])?;
    let child = || word(value, "child", "").to_owned();
    let end = |how, wait| Step::End {
        child: child(),
        how,
        wait,
    };
    Ok(match word(value, "do", "nothing") {
        "crash" => end(End::Crash, true),
        "crash_nowait" => end(End::Crash, false),
        "exit_normal" => end(End::Normal, true),
        "exit_shutdown" => end(End::Shutdown, true),
        "wait" => Step::Wait(millis(value, "ms")),
        "stop_supervisor" => Step::StopSupervisor,
        "terminate_child" => Step::Terminate(child()),
        "restart_child" => Step::Restart(child()),
        "delete_child" => Step::Delete(child()),
        "start_child" if value.get("spec").is_some() => {
            Step::StartChild(Box::new(node(&value["spec"], OtpRules::default())?))
        }
        "add" | "start_child" => Step::Add(match &value["arg"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }),
        other => return Err(format!("event {other}")),
    })
}

fn expect(value: &Value, tolerant: bool) -> Result<Expect, String> {
    let trace = value["trace"].as_array().into_iter().flatten();
    let children = value["children"].as_object().map(|children| {
        let state = |state: &Value| state.as_str().unwrap_or_default().to_owned();
        let each = children.iter();
        each.map(|(name, value)| (name.clone(), state(value)))
            .collect()
    });
    let bounds = value.get("stop_ms").map(|bounds| {
        let longest = bounds["max"].as_u64().unwrap_or(u64::MAX);
        (bounds["min"].as_u64().unwrap_or(0), longest)
    });
    Ok(Expect {
        trace: trace
            .filter_map(|line| line.as_str().map(ToOwned::to_owned))
            .collect(),
        order: match word(value, "trace_order", "exact") {
            "exact" if tolerant || value["tolerant"] == true => Order::Tolerant,
            "exact" => Order::Exact,
            "unordered_tail" => Order::UnorderedTail,
            "tolerant" | "tolerant_repeats" | "loose" | "approximate" => Order::Tolerant,
            "invariant" => Order::Invariant,
            other => return Err(format!("trace_order {other}")),
        },
        supervisor: word(value, "supervisor", "alive").to_owned(),
        children,
        stop_ms: bounds,
    })
}

fn word<'a>(value: &'a Value, key: &str, default: &'a str) -> &'a str {
    value[key].as_str().unwrap_or(default)
}

fn millis(value: &Value, key: &str) -> Duration {
    Duration::from_millis(value[key].as_u64().unwrap_or(0))
}

/// Refuses a word that would otherwise be overlooked.
fn known(value: &Value, words: &[&str]) -> Result<(), String> {
    let keys = value.as_object().into_iter().flatten();
    let mut unknown = keys.map(|(key, _)| key.as_str()).filter(|key| {
        let comment = ["why", "note", "comment", "title"].contains(key);
        !words.contains(key) && !comment
    });
    unknown.next().map_or(Ok(()), |key| Err(key.to_owned()))
}
