//! Classification of an attempt's symptoms: which status is a failure, which one a throttle.
//!
//! It knows no protocol; the code that speaks one names the symptom.

use crate::{Class, Symptom};

/// A set of symptoms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Symptoms(pub Vec<Symptom>);

impl Symptoms {
    /// Returns the match of a symptom with the set: by itself, or only by its status class.
    fn names(&self, symptom: Symptom) -> Option<MatchExactness> {
        if self.0.contains(&symptom) {
            return Some(MatchExactness::Itself);
        }
        match symptom {
            Symptom::Status(status) if self.0.contains(&Symptom::StatusClass(status / 100)) => {
                Some(MatchExactness::Hundred)
            }
            _ => None,
        }
    }

    /// Returns true if the set contains this symptom.
    #[must_use]
    pub fn contains(&self, symptom: Symptom) -> bool {
        self.names(symptom).is_some()
    }
}

impl<const N: usize> From<[Symptom; N]> for Symptoms {
    fn from(all: [Symptom; N]) -> Self {
        Self(all.to_vec())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MatchExactness {
    Hundred,
    Itself,
}

/// Symptoms of each class. The more exact pattern wins; a symptom without a match is a failure.
///
/// # Source  Rule BRK-7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassifySettings {
    /// The dependency fails: feeds the breaker.
    pub failure: Symptoms,
    /// The dependency asks for less traffic.
    pub throttled: Symptoms,
    /// The caller's own mistake.
    pub rejected: Symptoms,
    /// The configuration is wrong: a key, a retired model.
    pub misconfigured: Symptoms,
}

impl Default for ClassifySettings {
    fn default() -> Self {
        Self {
            failure: Symptoms::from([
                Symptom::StatusClass(5),
                Symptom::Connect,
                Symptom::Timeout,
                Symptom::Reset,
            ]),
            throttled: Symptoms::from([Symptom::Status(429)]),
            rejected: Symptoms::from([Symptom::StatusClass(4)]),
            misconfigured: Symptoms::from([Symptom::Status(401), Symptom::Status(403)]),
        }
    }
}

impl ClassifySettings {
    /// Returns the class of an attempt with this symptom. A status below 400 is a success.
    #[must_use]
    pub fn class_of(&self, symptom: Symptom) -> Class {
        if matches!(symptom, Symptom::Status(status) if status < 400) {
            return Class::Success;
        }
        let classes = [
            (&self.failure, Class::Failure),
            (&self.throttled, Class::Throttled),
            (&self.rejected, Class::Rejected),
            (&self.misconfigured, Class::Misconfigured),
        ];
        let named = classes
            .into_iter()
            .filter_map(|(symptoms, class)| Some((symptoms.names(symptom)?, class)));
        named
            .max_by_key(|(exactness, _)| *exactness)
            .map_or(Class::Failure, |(_, class)| class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brk_7_the_more_exact_word_about_a_status_wins() {
        let settings = ClassifySettings::default();
        for (symptom, class) in [
            (Symptom::Status(204), Class::Success),
            (Symptom::Status(400), Class::Rejected),
            (Symptom::Status(401), Class::Misconfigured),
            (Symptom::Status(429), Class::Throttled),
            (Symptom::Status(503), Class::Failure),
            (Symptom::Timeout, Class::Failure),
            (Symptom::Crash, Class::Failure),
        ] {
            assert_eq!(settings.class_of(symptom), class, "{symptom}");
        }
    }

    #[test]
    fn brk_7_the_settings_decide_what_a_symptom_counts_for() {
        let settings = ClassifySettings {
            throttled: Symptoms::from([Symptom::Status(503), Symptom::Connect]),
            failure: Symptoms::default(),
            ..ClassifySettings::default()
        };
        assert_eq!(settings.class_of(Symptom::Status(503)), Class::Throttled);
        assert_eq!(settings.class_of(Symptom::Connect), Class::Throttled);
        assert_eq!(
            settings.class_of(Symptom::Status(500)),
            Class::Failure,
            "nobody names it"
        );
    }
}
