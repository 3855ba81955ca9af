//! The figures of each path, and the file in which they are stored.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// The cost of one operation of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathFigures {
    pub(crate) name: String,
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
    pub(crate) clock_reads: u64,
}

impl fmt::Display for PathFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            instructions,
            allocations,
            clock_reads,
        } = self;
        write!(
            f,
            "{name:<12}{instructions:>14}{allocations:>14}{clock_reads:>14}"
        )
    }
}

impl PathFigures {
    /// Returns a sentence if the cost that was seen differs from this one, the stored one.
    /// Instructions may differ by the tolerance, in percent. The others are exact up to nine, and may
    /// differ by a tenth above: how often threads wake each other up depends on the machine.
    pub(crate) fn judge(&self, seen: &Self, tolerance: f64) -> Option<String> {
        let (now, stored) = (seen.instructions as f64, self.instructions as f64);
        let is_same = (now - stored).abs() <= stored * tolerance / 100.0;
        let counts = [
            (
                is_same,
                "instructions",
                seen.instructions,
                self.instructions,
            ),
            (
                is_near(seen.allocations, self.allocations),
                "allocations",
                seen.allocations,
                self.allocations,
            ),
            (
                is_near(seen.clock_reads, self.clock_reads),
                "clock reads",
                seen.clock_reads,
                self.clock_reads,
            ),
        ];
        let mut told = Vec::new();
        for (is_same, what, seen, stored) in counts {
            if !is_same {
                told.push(format!("{seen} {what}, stored {stored}"));
            }
        }
        (!told.is_empty()).then(|| format!("{}: {}", self.name, told.join("; ")))
    }
}

fn is_near(seen: u64, stored: u64) -> bool {
    seen.abs_diff(stored) <= stored / 10
}

/// The stored figures of all paths.
pub(crate) struct StoredFigures {
    pub(crate) compiler: String,
    pub(crate) paths: Vec<PathFigures>,
}

impl StoredFigures {
    fn file() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/instructions/figures.txt")
    }

    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(Self::file()).unwrap();
        let mut lines = text.lines();
        let compiler = lines.next().unwrap_or_default().to_owned();
        let paths = lines.skip(1).map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap().to_owned();
            let mut number = || words.next().unwrap().parse().unwrap();
            PathFigures {
                name,
                instructions: number(),
                allocations: number(),
                clock_reads: number(),
            }
        });
        Self {
            compiler,
            paths: paths.collect(),
        }
    }

    pub(crate) fn write(&self) {
        let head = "path          instructions   allocations   clock reads";
        let mut text = format!("{}\n{head}\n", self.compiler);
        for path in &self.paths {
            text.push_str(&format!("{path}\n"));
        }
        std::fs::write(Self::file(), text).unwrap();
    }

    /// Returns the figures of a path.
    pub(crate) fn path(&self, name: &str) -> &PathFigures {
        let found = self.paths.iter().find(|path| path.name == name);
        found.unwrap_or_else(|| panic!("no figures of {name} are stored"))
    }
}

/// Returns the version of the compiler, and its platform.
pub(crate) fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("-vV").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let line = |key: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(key));
        found.unwrap_or_default().trim().to_owned()
    };
    format!("rustc {} {}", line("release:"), line("host:"))
}
