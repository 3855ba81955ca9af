//! What became of a scenario, and how it is printed.

/// The end of one replay.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Everything was as expected.
    Ok,
    /// Something was not.
    Fail {
        /// The step, from 1; 0 where no step is to blame.
        step: usize,
        /// What the scenario asks for.
        expected: String,
        /// What happened.
        got: String,
    },
    /// A word of its configuration has no counterpart; says which.
    Skip(String),
    /// It is prose: a test of its own, named by its id, stands for it.
    Prose,
}

impl Verdict {
    /// A failure at `step`.
    pub(crate) fn fail(step: usize, expected: impl ToString, got: impl ToString) -> Self {
        Self::Fail {
            step,
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// The same verdict, which says that it is about real actors.
    pub(crate) fn among_actors(self) -> Self {
        match self {
            Self::Fail {
                step,
                expected,
                got,
            } => Self::Fail {
                step,
                expected,
                got: format!("{got} (on real actors)"),
            },
            other => other,
        }
    }
}

/// Counts of one file.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u32,
    pub(crate) failed: u32,
    skipped: u32,
    /// Ids of the scenarios of which a word has no counterpart.
    pub(crate) without_counterpart: Vec<String>,
}

impl Tally {
    /// Prints and counts one verdict.
    pub(crate) fn note(&mut self, id: &str, verdict: &Verdict) {
        match verdict {
            Verdict::Ok => {
                self.passed += 1;
                println!("ok {id}");
            }
            Verdict::Fail {
                step,
                expected,
                got,
            } => {
                self.failed += 1;
                println!("FAIL {id} step {step}: expected {expected}, got {got}");
            }
            Verdict::Skip(reason) => {
                self.skipped += 1;
                self.without_counterpart.push(id.to_owned());
                println!("skip {id} {reason}");
            }
            Verdict::Prose => {
                self.skipped += 1;
                println!("skip {id} prose: stands as a test of its own, named by its id");
            }
        }
    }

    /// The file's closing line.
    pub(crate) fn line(&self, name: &str) -> String {
        format!(
            "{name}: {} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}
