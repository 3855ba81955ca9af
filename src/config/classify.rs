//! The section `classify`, and the names of symptoms of an attempt.

use breakerbox_policy::{ClassifySettings, Symptom, Symptoms};

use super::section::Section;
use super::value_type::{OneOfTwo, ValueType, either, integer, one_of};

type Words = &'static [(&'static str, Symptom)];

/// Symptoms that can be classified; a crash is always a failure.
const ANSWERS: Words = &[
    ("connect", Symptom::Connect),
    ("timeout", Symptom::Timeout),
    ("reset", Symptom::Reset),
    ("4xx", Symptom::StatusClass(4)),
    ("5xx", Symptom::StatusClass(5)),
];

const ALL: Words = &[
    ("connect", Symptom::Connect),
    ("timeout", Symptom::Timeout),
    ("reset", Symptom::Reset),
    ("crash", Symptom::Crash),
    ("4xx", Symptom::StatusClass(4)),
    ("5xx", Symptom::StatusClass(5)),
];

/// Returns the type of a list of any symptoms.
pub(super) fn symptoms() -> ValueType<'static, Symptoms> {
    list_of(ALL)
}

fn list_of(words: Words) -> ValueType<'static, Symptoms> {
    let join = |given| match given {
        OneOfTwo::First(word) => word,
        OneOfTwo::Second(status) => Symptom::Status(status),
    };
    let status = integer(400..=599_u16).described_as("a status from 400 to 599");
    let symptom = either(one_of(words), status, join, |symptom| match symptom {
        Symptom::Status(status) => OneOfTwo::Second(*status),
        word => OneOfTwo::First(*word),
    });
    let list = symptom.list();
    list.map(|list| Some(Symptoms(list)), |symptoms| symptoms.0.clone())
}

/// Reads `classify`. `has_credentials`: the calls carry credentials of our own.
pub(super) fn read(mut section: Section<'_>, has_credentials: bool) -> ClassifySettings {
    let mut default = ClassifySettings::default();
    if !has_credentials {
        // EDGE-1: callers bring their own credentials, and a refused one is the caller's mistake.
        default.misconfigured = Symptoms(Vec::new());
    }
    let answers = list_of(ANSWERS);
    let settings = ClassifySettings {
        failure: section.get_or("failure", &answers, default.failure),
        throttled: section.get_or("throttled", &answers, default.throttled),
        rejected: section.get_or("rejected", &answers, default.rejected),
        misconfigured: section.get_or("misconfigured", &answers, default.misconfigured),
    };
    let classes = [
        ("failure", &settings.failure.0),
        ("throttled", &settings.throttled.0),
        ("rejected", &settings.rejected.0),
        ("misconfigured", &settings.misconfigured.0),
    ];
    for (index, (class, symptoms)) in classes.iter().enumerate() {
        for (other, others) in &classes[index + 1..] {
            if let Some(both) = symptoms.iter().find(|symptom| others.contains(symptom)) {
                let key = if section.has(other) { other } else { class };
                let reason = format!("{both} stands in {class} and in {other}");
                section.conflict(key, reason, "each symptom in one class");
            }
        }
    }
    section.finish();
    settings
}
