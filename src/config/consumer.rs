//! The sections `consumers.*`: calls that come as messages.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_actors::did_you_mean;
use breakerbox_policy::MessageRules;

use super::dependency::DependencyConfig;
use super::kind::DependencyKind;
use super::section::Section;
use super::value_type::{ValueType, count, duration, one_of, string};

/// A consumer: it turns the messages of a stream into calls of one dependency.
///
/// # Source  Rules MSG-1 to MSG-11 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// The dependency that is called.
    pub dependency: String,
    /// The stream of the messages.
    pub stream: String,
    /// The subject of the messages.
    pub subject: String,
    /// The durable consumer, shared by all replicas.
    pub durable: String,
    /// Maximum number of its messages in flight; `None` for the limit of the dependency.
    pub max_in_flight: Option<NonZeroU32>,
    /// Time after which a message is delivered again of which nothing was heard.
    pub ack_wait: Duration,
    /// Rules for its messages.
    pub rules: MessageRules,
    /// The subject of the dead letters.
    pub dead_letters: String,
    /// The subject of answers, where a message names no other; `None` for none.
    pub answers: Option<String>,
    /// The subjects that a message may name for its answer.
    pub answer_subjects: Vec<String>,
    /// Number of partitions within which messages of one key keep their order; `None` without order.
    pub partitions: Option<NonZeroU32>,
}

const SUBJECT: &str = "a subject such as \"calls.web\": words without spaces, with dots between";
const PATTERN: &str = "a subject such as \"calls.web.>\": * stands for one word, > for the rest";
const NAME: &str = "a name of at most 64 letters, digits, _ and -";

/// Reads `consumers`. `has_fleet`: there is a section `fleet`.
pub(super) fn read_all(
    table: &Section<'_>,
    dependencies: &BTreeMap<String, DependencyConfig>,
    has_fleet: bool,
) -> BTreeMap<String, ConsumerConfig> {
    let mut consumers = BTreeMap::new();
    for name in table.names() {
        if name != "*" && !is_name(&name) {
            table.conflict(&name, "this name is not allowed", NAME);
        }
        let section = table.named(&name);
        if !has_fleet && name != "*" {
            let reason = "there is no section fleet, which names the servers";
            section.conflict_here(reason, "fleet.servers too, or no consumers");
        }
        if let Some(consumer) = read(section, &name, dependencies) {
            consumers.insert(name, consumer);
        }
    }
    check_each_other(&consumers, table);
    consumers
}

/// Reads one consumer. `None`: a key that it needs is missing.
fn read(
    mut section: Section<'_>,
    name: &str,
    dependencies: &BTreeMap<String, DependencyConfig>,
) -> Option<ConsumerConfig> {
    const MAYBE: &[(&str, bool)] = &[("dead_letter", false), ("repeat", true)];
    const ORDER: &[(&str, bool)] = &[("none", false), ("key", true)];
    const PARTITIONS: NonZeroU32 = NonZeroU32::new(8).expect("eight is not zero");
    let default = MessageRules::default();
    let hour = Duration::from_secs(3600);
    let dependency = needed(
        &mut section,
        "dependency",
        &string("a dependency", |_| true),
    );
    let stream = needed(&mut section, "stream", &string(NAME, is_name));
    let subject = needed(&mut section, "subject", &string(PATTERN, is_pattern));
    let places = count(10_000).or_word("bulkhead");
    let durable = section.get_or(
        "durable",
        &string(NAME, is_name),
        format!("breakerbox_{name}"),
    );
    let rules = MessageRules {
        max_failures: section.get_or("max_failures", &count(1000), default.max_failures),
        max_crashes: section.get_or("max_crashes", &count(1000), default.max_crashes),
        max_delay: section.get_or(
            "max_delay",
            &duration(Duration::from_millis(100)..=hour),
            default.max_delay,
        ),
        repeats_maybe: section.get_or("on_maybe", &one_of(MAYBE), default.repeats_maybe),
    };
    let plain = string(SUBJECT, is_subject);
    let answer_subjects = string(PATTERN, is_pattern).list();
    let has_order = section.get_or("order", &one_of(ORDER), false);
    let partitions = section.get_or("partitions", &count(256), PARTITIONS);
    let consumer = ConsumerConfig {
        partitions: has_order.then_some(partitions),
        max_in_flight: section.get_or("max_in_flight", &places, None),
        ack_wait: section.get_or(
            "ack_wait",
            &duration(Duration::from_secs(1)..=hour),
            Duration::from_secs(30),
        ),
        rules,
        dead_letters: section.get_or("dead_letters", &plain, format!("dead.{name}")),
        answers: section.get_if_set("answers", &plain),
        answer_subjects: section.get_or("answer_subjects", &answer_subjects, Vec::new()),
        dependency: dependency.unwrap_or_default(),
        stream: stream.unwrap_or_default(),
        subject: subject.unwrap_or_default(),
        durable,
    };
    check(&section, &consumer, dependencies);
    section.finish();
    let is_whole = ![&consumer.dependency, &consumer.stream, &consumer.subject]
        .into_iter()
        .any(String::is_empty);
    is_whole.then_some(consumer)
}

/// Reads a text without which there is no consumer.
fn needed(
    section: &mut Section<'_>,
    key: &'static str,
    shape: &ValueType<'_, String>,
) -> Option<String> {
    let given = section.get(key, shape);
    if section.present && !section.has(key) {
        section.conflict(key, "it is missing", &shape.allowed);
    }
    given
}

/// Checks the relations between the keys, and to the dependencies.
fn check(
    section: &Section<'_>,
    consumer: &ConsumerConfig,
    dependencies: &BTreeMap<String, DependencyConfig>,
) {
    let names = || {
        let kinds = dependencies.iter();
        let http = kinds.filter(|(_, one)| is_http(one.kind));
        let names: Vec<&str> = http.map(|(name, _)| name.as_str()).collect();
        match names.is_empty() {
            true => "an HTTP dependency, and there is none".to_owned(),
            false => format!("an HTTP dependency: {}", names.join(", ")),
        }
    };
    if !consumer.dependency.is_empty() {
        match dependencies.get(&consumer.dependency) {
            None => {
                let known = dependencies.keys().map(String::as_str);
                let near = did_you_mean(&consumer.dependency, known);
                let reason = format!("there is no such dependency{near}");
                section.conflict("dependency", reason, &names());
            }
            Some(one) if !is_http(one.kind) => {
                let reason = "a message is an HTTP request, and this is another kind";
                section.conflict("dependency", reason, &names());
            }
            Some(_) => {}
        }
    }
    if consumer.partitions.is_none() && section.has("partitions") {
        let reason = "without order there are no partitions";
        section.conflict(
            "partitions",
            reason,
            "order = \"key\" too, or no partitions",
        );
    }
    // The messages are moved to subjects of this kind.
    if consumer.partitions.is_some() && matches(&consumer.subject, "breakerbox_order.a.b.0.0.c") {
        let reason = "with order = \"key\" it takes the subjects of its own partitions";
        section.conflict(
            "subject",
            reason,
            "a subject that does not begin with a wildcard",
        );
    }
    let own = [Some(&consumer.dead_letters), consumer.answers.as_ref()];
    let keys = ["dead_letters", "answers"];
    for (key, subject) in keys.into_iter().zip(own) {
        // It would consume its own messages.
        if subject.is_some_and(|subject| matches(&consumer.subject, subject)) {
            let reason = format!("the consumer's own subject {} takes it", consumer.subject);
            section.conflict(key, reason, "a subject that it does not consume");
        }
    }
    let own = &consumer.subject;
    let mut named = consumer.answer_subjects.iter();
    if let Some(pattern) = named.find(|pattern| overlap(own, pattern)) {
        // MSG-11: an answer that is a request again would be answered for ever.
        let reason = format!("the consumer's own subject {own} takes answers to {pattern}");
        section.conflict(
            "answer_subjects",
            reason,
            "subjects that it does not consume",
        );
    }
}

/// Returns true for a dependency to which requests can be sent. One without a kind is the program's.
fn is_http(kind: Option<DependencyKind>) -> bool {
    matches!(
        kind,
        None | Some(DependencyKind::Http | DependencyKind::Simulated)
    )
}

/// Reports consumers that would take the messages of each other.
fn check_each_other(consumers: &BTreeMap<String, ConsumerConfig>, table: &Section<'_>) {
    for (index, (name, consumer)) in consumers.iter().enumerate() {
        let section = table.named(name);
        for (other, earlier) in consumers.iter().take(index) {
            if consumer.stream == earlier.stream && consumer.durable == earlier.durable {
                let reason = format!("consumers.{other} has this one on the same stream");
                section.conflict("durable", reason, "another name");
            } else if overlap(&consumer.subject, &earlier.subject) {
                let taken = &earlier.subject;
                let reason = format!("consumers.{other} takes messages of {taken} too");
                if consumer.stream == earlier.stream {
                    // A stream that others have made may keep a message for several consumers.
                    let text =
                        format!("{reason}: each does all of them, and a work queue refuses it");
                    section.warn("subject", text);
                } else {
                    // A server refuses a second stream of a subject.
                    section.conflict("subject", reason, "subjects of which no message is in both");
                }
            }
        }
    }
}

/// Returns true if there are subjects that both patterns take.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Returns true if a pattern of subjects takes a subject.
pub(crate) fn matches(pattern: &str, subject: &str) -> bool {
    let mut words = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, words.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (wanted, Some(word)) if wanted == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

/// Returns true if a text is a subject without wildcards.
pub(crate) fn is_subject(text: &str) -> bool {
    is_pattern(text) && !text.contains(['*', '>'])
}

fn is_pattern(text: &str) -> bool {
    let words: Vec<&str> = text.split('.').collect();
    let plain = |word: &str| {
        let any = |letter: char| letter.is_ascii_graphic() && !"*>".contains(letter);
        !word.is_empty() && (word == "*" || word.chars().all(any))
    };
    let last = words.len() - 1;
    let good = |(at, word): (usize, &&str)| plain(word) || (at == last && *word == ">");
    text.len() <= 255 && !text.starts_with('$') && words.iter().enumerate().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_11_an_answer_goes_only_to_subjects_that_a_pattern_takes() {
        for (pattern, subject, is) in [
            ("answers.>", "answers.me.17", true),
            ("answers.>", "answers", false),
            ("answers.*", "answers.me", true),
            ("answers.*", "answers.me.17", false),
            ("answers.me", "answers.me", true),
            ("answers.me", "answers.you", false),
            ("*.me", "answers.me", true),
            (">", "anything.at.all", true),
        ] {
            assert_eq!(matches(pattern, subject), is, "{pattern} {subject}");
        }
    }

    #[test]
    fn cfg_1_ops_a_an_unknown_dependency_of_a_consumer_gets_the_nearest_one() {
        let text = "[dependencies.payments]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
                    [consumers.c]\ndependency = \"paymets\"\nstream = \"S\"\nsubject = \"x\"\n";
        let error = crate::config::Settings::loader().bare().toml(text).load();
        let said = error.unwrap_err().to_string();
        assert!(said.contains("did you mean payments?"), "{said}");
    }

    #[test]
    fn msg_3_patterns_overlap_where_a_subject_is_in_both() {
        for (one, other, do_they) in [
            ("calls.web", "calls.web", true),
            ("calls.web", "calls.kg", false),
            ("calls.>", "calls.web.find", true),
            ("calls.>", "calls", false),
            ("calls.*", "calls.web.find", false),
            ("calls.*.find", "calls.web.*", true),
            ("*.web", "calls.>", true),
            (">", "calls", true),
            ("calls.web", "calls.web.find", false),
        ] {
            assert_eq!(overlap(one, other), do_they, "{one} {other}");
            assert_eq!(overlap(other, one), do_they, "{other} {one}");
        }
    }

    #[test]
    fn a_subject_has_words_and_a_pattern_wildcards_as_words_of_their_own() {
        for good in ["a", "a.b", "calls.web_search.find"] {
            assert!(is_subject(good) && is_pattern(good), "{good}");
        }
        for good in ["a.>", "*", "a.*.b"] {
            assert!(is_pattern(good) && !is_subject(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a b", "a.>.b", "a*", "$JS.API", "a\n"] {
            assert!(!is_pattern(bad), "{bad:?}");
        }
    }

    #[test]
    fn msg_11_a_consumer_takes_no_answers_of_its_own() {
        let load = |answers: &str| {
            let text = format!(
                "[fleet]\nservers = [\"nats://127.0.0.1:1\"]\n\
                 [dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
                 [consumers.jobs]\ndependency = \"web\"\nstream = \"CALLS\"\n\
                 subject = \"calls.web.>\"\nanswer_subjects = [\"answers.>\", \"{answers}\"]\n"
            );
            crate::config::Settings::loader().bare().toml(&text).load()
        };
        for answers in ["calls.web.>", "calls.web.y", "calls.>", ">", "*.web.*"] {
            let error = load(answers).unwrap_err().to_string();
            assert!(error.contains("takes answers to"), "{answers}: {error}");
        }
        assert!(load("calls.other.>").is_ok());
    }
}
