//! Consumers of messages, for operators.

use std::io::{self, Write};

use breakerbox::policy::CountedNoun;
use serde_json::Value;

use super::Status;
use super::client::RemoteAdmin;
use super::table::{plain, text};

/// Shows the consumers below all dependencies, or those of the one that is asked for. They are not in
/// the JSON of these.
pub(super) async fn show(
    status: &Status,
    remote: &RemoteAdmin,
    out: &mut dyn Write,
) -> io::Result<()> {
    if status.json {
        return Ok(());
    }
    // A server of an earlier version has none to tell of.
    let Ok(Value::Array(consumers)) = remote.get(&["api", "consumers"]).await else {
        return Ok(());
    };
    let name = status.name.as_deref();
    let own = |one: &&Value| name.is_none_or(|name| one["dependency"] == name);
    let own: Vec<&Value> = consumers.iter().filter(own).collect();
    if !own.is_empty() {
        writeln!(out)?;
    }
    own.into_iter()
        .try_for_each(|one| writeln!(out, "{}", line(one)))
}

/// Returns a consumer in a line: its state, then its messages.
fn line(one: &Value) -> String {
    let state = match (one["problem"].as_str(), one["paused"].as_str()) {
        (Some(problem), _) => format!("its queue has a problem: {}", plain(problem)),
        (None, Some("breaker")) => "waits for the breaker".to_owned(),
        (None, Some("pause")) => "waits for the end of a pause".to_owned(),
        (None, Some("actor")) => "waits for its actor, which has ended".to_owned(),
        (None, Some("bulkhead")) => "waits for a place".to_owned(),
        (None, Some(other)) => plain(other),
        (None, None) => "fetches".to_owned(),
    };
    let dead = one["dead_letters"].as_object().into_iter().flatten();
    let dead = dead.filter_map(|(reason, count)| Some((reason, count.as_u64()?)));
    let dead: Vec<(&String, u64)> = dead.filter(|(_, count)| *count > 0).collect();
    let reasons = dead.iter();
    let reasons = reasons.map(|(reason, count)| format!("{count} {}", plain(reason)));
    let reasons: Vec<String> = reasons.collect();
    let mut told =
        CountedNoun(dead.iter().map(|(_, count)| count).sum(), "dead letter").to_string();
    if !reasons.is_empty() {
        told = format!("{told} ({})", reasons.join(", "));
    }
    format!(
        "consumer {} of {}: {state}; {} wait, {} in flight, {} answered, {told}",
        text(&one["name"]),
        text(&one["dependency"]),
        text(&one["pending"]),
        text(&one["in_flight"]),
        text(&one["answered"]),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_consumer_is_told_in_a_line() {
        let mut one = json!({
            "name": "jobs", "dependency": "web", "paused": "breaker", "problem": null, "pending": 12,
            "in_flight": 0, "answered": 7, "dead_letters": {"failures": 2, "maybe": 0},
        });
        assert_eq!(
            line(&one),
            "consumer jobs of web: waits for the breaker; 12 wait, 0 in flight, 7 answered, \
             2 dead letters (2 failures)"
        );
        one["paused"] = Value::Null;
        one["dead_letters"] = json!({});
        assert_eq!(
            line(&one),
            "consumer jobs of web: fetches; 12 wait, 0 in flight, 7 answered, 0 dead letters"
        );
    }
}
