//! What ships beside the program: each metric that a dashboard or an alert names exists, and each
//! configuration that a manifest contains can be used.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{expect_none, files, read, root};

#[cfg(feature = "cli")]
mod manifests;

const RULES: &str = "packaging/prometheus/breakerbox.rules.yml";
const RULE_TESTS: &str = "packaging/prometheus/breakerbox.tests.yml";
const BOARD: &str = "packaging/grafana/breakerbox.json";

/// Labels that Prometheus adds, and the one of a histogram's buckets.
const ADDED_LABELS: [&str; 3] = ["instance", "job", "le"];

/// The values of a label; `None` if they are not a closed list.
type Values = Option<BTreeSet<String>>;

/// A row of the table of metrics. Another test compares that table with a scrape.
struct Metric {
    kind: String,
    labels: BTreeMap<String, Values>,
}

fn text(path: &str) -> String {
    read(&root().join(path))
}

fn metrics() -> BTreeMap<String, Metric> {
    let page = text("docs/operations.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `breakerbox_")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        let kind = cells.next()?.to_owned();
        let labels = labels(cells.next()?);
        Some((format!("breakerbox_{name}"), Metric { kind, labels }))
    });
    let found: BTreeMap<_, _> = rows.collect();
    assert!(found.len() > 30, "the table of metrics has moved");
    found
}

/// Reads a cell such as `dependency, state (closed, open, half_open)`.
fn labels(cell: &str) -> BTreeMap<String, Values> {
    let mut found = BTreeMap::new();
    let mut rest = cell.trim();
    while !rest.is_empty() {
        let end = rest.find([',', '(']).unwrap_or(rest.len());
        let name = rest[..end].trim().to_owned();
        rest = &rest[end..];
        let mut values = None;
        if let Some(inside) = rest.strip_prefix('(') {
            let (list, after) = inside.split_once(')').expect("a closed bracket");
            let words: BTreeSet<String> = list.split(", ").map(str::to_owned).collect();
            // Prose, such as "empty for those of none", is no list.
            values = words
                .iter()
                .all(|word| !word.contains(' '))
                .then_some(words);
            rest = after;
        }
        found.insert(name, values);
        rest = rest.trim_start_matches([',', ' ']);
    }
    found
}

/// Returns each metric of ours that a text names, with its matchers: label and value.
fn selectors(text: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("breakerbox_") {
        let rest = &text[at..];
        let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        let list = rest[end..].strip_prefix('{').and_then(|list| {
            let (list, _) = list.split_once('}')?;
            Some(list)
        });
        let matchers = list.unwrap_or_default().split(", ").filter_map(|matcher| {
            let (label, value) = matcher.split_once('=')?;
            let value = value.trim_start_matches('~').trim_matches('"');
            Some((label.trim_end_matches('!'), value))
        });
        found.push((&rest[..end], matchers.collect()));
    }
    found
}

/// Returns what a text names and the table of metrics does not.
fn unknown(place: &str, text: &str, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let mut offences = Vec::new();
    for (name, matchers) in selectors(text) {
        let series = ["_bucket", "_sum", "_count"].iter();
        let of_histogram = series.filter_map(|end| name.strip_suffix(end));
        let metric = metrics.get(name).or_else(|| {
            of_histogram
                .filter_map(|name| metrics.get(name))
                .find(|metric| metric.kind == "histogram")
        });
        let Some(metric) = metric else {
            offences.push(format!("{place}: there is no metric {name}"));
            continue;
        };
        for (label, value) in matchers {
            let Some(values) = metric.labels.get(label) else {
                if !ADDED_LABELS.contains(&label) {
                    offences.push(format!("{place}: {name} has no label {label}"));
                }
                continue;
            };
            let Some(values) = values else { continue };
            let words = value.split('|').filter(|word| !word.contains('$'));
            let odd = words.filter(|word| !values.contains(*word));
            offences.extend(odd.map(|word| format!("{place}: {label} of {name} is never {word}")));
        }
    }
    offences
}

/// Calls a function for each text below a value.
fn each_text<'v>(value: &'v Value, visit: &mut dyn FnMut(&'v str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(all) => all.iter().for_each(|one| each_text(one, visit)),
        Value::Object(all) => all.values().for_each(|one| each_text(one, visit)),
        _ => (),
    }
}

#[test]
fn a_metric_label_or_value_that_does_not_exist_is_found() {
    let metrics = metrics();
    let fine = r#"sum(breakerbox_breaker_state{job=~"$job", state="open"})"#;
    assert_eq!(unknown("it", fine, &metrics), Vec::<String>::new());
    let odd = [
        r#"breakerbox_breaker_states{state="open"}"#,
        r#"breakerbox_breaker_state{mode="open"}"#,
        r#"breakerbox_breaker_state{state="open|ajar"}"#,
        "breakerbox_in_flight_bucket",
    ];
    for text in odd {
        assert_eq!(unknown("it", text, &metrics).len(), 1, "{text}");
    }
}

#[test]
fn alerts_name_metrics_that_exist() {
    let metrics = metrics();
    let offences = [RULES, RULE_TESTS].map(|path| unknown(path, &text(path), &metrics));
    expect_none("metrics that do not exist", &offences.concat());
}

#[test]
fn the_grafana_dashboard_names_metrics_that_exist() {
    let metrics = metrics();
    let board: Value = serde_json::from_str(&text(BOARD)).expect("JSON");
    let (mut offences, mut queries) = (Vec::new(), 0);
    each_text(&board, &mut |text| {
        queries += usize::from(text.contains("breakerbox_"));
        offences.extend(unknown(BOARD, text, &metrics));
    });
    assert!(queries > 20, "only {queries} queries");
    expect_none("metrics that do not exist", &offences);
}

#[test]
fn the_grafana_dashboard_is_whole() {
    let board: Value = serde_json::from_str(&text(BOARD)).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        let part = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        let (x, y) = (part("x"), part("y"));
        assert!(x + part("w") <= 24, "{title} is too wide");
        for column in x..x + part("w") {
            for line in y..y + part("h") {
                assert!(taken.insert((column, line)), "{title} covers another one");
            }
        }
        let targets = panel["targets"].as_array();
        let is_row = panel["type"] == "row";
        assert_eq!(targets.is_none_or(Vec::is_empty), is_row, "{title}");
    }
    let variables = board["templating"]["list"].as_array().expect("variables");
    let known: BTreeSet<&str> = variables
        .iter()
        .filter_map(|v| v["name"].as_str())
        .collect();
    each_text(&board, &mut |text| {
        let names = text.split('$').skip(1);
        for name in names.map(|name| name.trim_start_matches('{')) {
            let end = name.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let name = &name[..end.unwrap_or(name.len())];
            let is_own = name.starts_with("__");
            assert!(is_own || known.contains(name), "{text}: ${name}");
        }
    });
}

#[test]
fn every_alert_is_in_the_runbook_and_has_a_test() {
    let (rules, tests, page) = (text(RULES), text(RULE_TESTS), text("docs/operations.md"));
    let alerts = rules.lines().filter_map(|line| {
        let (_, name) = line.split_once("- alert: ")?;
        Some(name.trim())
    });
    let (mut offences, mut count) = (Vec::new(), 0);
    for alert in alerts {
        count += 1;
        if !page.contains(&format!("**{alert}**")) {
            offences.push(format!("{alert} is not in docs/operations.md"));
        }
        if !tests.contains(&format!("alertname: {alert}\n")) {
            offences.push(format!("{alert} is not in {RULE_TESTS}"));
        }
    }
    assert!(count > 5, "the rules have moved");
    expect_none("alerts that are not explained or tested", &offences);
}

#[test]
fn every_file_of_packaging_is_on_its_page() {
    let page = text("packaging/README.md");
    let all = files("packaging", "").into_iter().filter_map(|path| {
        let below = path.strip_prefix("packaging").ok()?;
        let name = below.to_str()?;
        let is_known = name == "README.md" || page.contains(&format!("]({name})"));
        (!is_known).then(|| name.to_owned())
    });
    expect_none("not in packaging/README.md", &all.collect::<Vec<_>>());
}

#[test]
fn images_are_of_this_version() {
    let (version, mut offences) = (env!("CARGO_PKG_VERSION"), Vec::new());
    for path in files("packaging", "") {
        for line in read(&root().join(&path)).lines() {
            let tags = line.split("breakerbox:").skip(1);
            let tags = tags.filter(|tag| tag.starts_with(|letter: char| letter.is_ascii_digit()));
            let old = tags.filter(|tag| !tag.starts_with(version));
            offences.extend(old.map(|tag| format!("{}: breakerbox:{tag}", path.display())));
        }
    }
    // A port behind the name of a host is no tag.
    offences.retain(|offence| {
        !offence.contains("breakerbox:7070") && !offence.contains("breakerbox:7071")
    });
    expect_none(&format!("not of version {version}"), &offences);
}

#[test]
fn every_package_carries_its_licences_and_its_page() {
    for package in ["policy", "actors", "macros"] {
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            let own = text(&format!("{package}/{licence}"));
            assert_eq!(own, text(licence), "{package}/{licence}");
        }
        let manifest = text(&format!("{package}/Cargo.toml"));
        for key in ["readme", "keywords", "categories", "license.workspace"] {
            assert!(
                manifest.contains(&format!("\n{key} = ")),
                "{package}: {key}"
            );
        }
        assert!(
            text(&format!("{package}/README.md")).starts_with(&format!("# breakerbox-{package}"))
        );
    }
}

#[test]
fn the_readme_names_the_commands_to_run_and_to_test() {
    let (readme, gate) = (text("README.md"), text(".ci/run"));
    for command in ["cargo run -- demo", "cargo run -- serve"] {
        assert!(readme.contains(&format!("\n{command} ")), "{command}");
    }
    // The gate calls the test command of the README.
    let test = readme.lines().find(|line| line.starts_with("cargo test"));
    let test = test.expect("a line that begins with it");
    let test = test.split(" #").next().unwrap_or_default().trim();
    let step = format!("\nstep {test}\n");
    assert!(gate.contains(&step), "{test} is no step of the gate");
}
