//! The section `classify`, and the words for what can go wrong with an attempt.

use breakerbox_policy::{ClassifySettings, Symptom, Symptoms};

use super::section::Section;
use super::shape::{Either, Shape, either, whole, word};

type Words = &'static [(&'static str, Symptom)];

/// What may be classified; a crash always is a failure.
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

/// A list of anything that can go wrong.
pub(super) fn symptoms() -> Shape<'static, Symptoms> {
    list_of(ALL)
}

fn list_of(words: Words) -> Shape<'static, Symptoms> {
    let join = |given| match given {
        Either::First(word) => word,
        Either::Second(status) => Symptom::Status(status),
    };
    let status = whole(400..=599_u16).called("a status from 400 to 599");
    let symptom = either(word(words), status, join, |symptom| match symptom {
        Symptom::Status(status) => Either::Second(*status),
        word => Either::First(*word),
    });
    let list = symptom.list();
    list.map(|list| Some(Symptoms(list)), |symptoms| symptoms.0.clone())
}

/// Reads `classify`.
pub(super) fn read(mut section: Section<'_>) -> ClassifySettings {
    let default = ClassifySettings::default();
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
