//! Runs this program under callgrind, and reads its counts.
//!
//! Callgrind counts from one marker function to the other, so that the start of a runtime takes no
//! part.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::figures::PathFigures;
use crate::paths::MeasuredPaths;

/// The functions of the C library that get memory.
const ALLOCATING: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

/// The counts of callgrind are set to zero before it.
#[inline(never)]
pub(crate) fn counting_begins() {
    black_box(1);
}

/// The counts of callgrind are written before it.
#[inline(never)]
pub(crate) fn counting_ends() {
    black_box(2);
}

/// Returns true if valgrind can be run.
pub(crate) fn is_installed() -> bool {
    let asked = Command::new("valgrind").arg("--version").output();
    asked.is_ok_and(|said| said.status.success())
}

/// Runs the calling test under callgrind, with `variable` set to `value`, and returns the figures
/// of each path, in the order in which the test takes them.
pub(crate) fn measure(variable: &str, value: usize, paths: &MeasuredPaths) -> Vec<PathFigures> {
    let name = format!("instructions-{}-{value}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let out = folder.join("out");
    let test = std::thread::current().name().unwrap().to_owned();
    let separate = if paths.are_all_threads { "no" } else { "yes" };
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no"])
        .arg(format!("--separate-threads={separate}"))
        .args([
            "--zero-before=*counting_begins*",
            "--dump-before=*counting_ends*",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(variable, value.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, error) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(run.status.success(), "{out}\n{error}");
    let parts = (1..).zip(paths.names);
    let figures = parts
        .map(|(part, name)| read(&folder, part, name, paths.operations))
        .collect();
    std::fs::remove_dir_all(&folder).unwrap();
    figures
}

/// Reads the counts of a path, in the file that callgrind wrote at the second marker.
fn read(folder: &Path, part: usize, name: &str, operations: u64) -> PathFigures {
    let file = std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        let name = name.to_str()?.strip_prefix("out.")?;
        let number = name.split('-').next()?;
        (number == part.to_string()).then(|| entry.unwrap().path())
    });
    let file = file.unwrap_or_else(|| panic!("no counts of {name}"));
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let instructions: u64 = totals.unwrap().trim().parse().unwrap();
    let each = |count: u64| (count + operations / 2) / operations;
    PathFigures {
        name: name.to_owned(),
        instructions: each(instructions),
        allocations: each(calls(&text, |name| ALLOCATING.contains(&name))),
        clock_reads: each(calls(&text, is_clock)),
    }
}

/// Returns true for a function that reads a clock: that of the library quanta, or the system's.
fn is_clock(name: &str) -> bool {
    name == "quanta::Clock::raw" || name.starts_with("clock_gettime")
}

/// Returns the number of calls of the functions with such names.
fn calls(text: &str, is_meant: fn(&str) -> bool) -> u64 {
    let mut count = 0;
    let mut called = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("cfn=") {
            called = name;
        } else if let Some(rest) = line.strip_prefix("calls=")
            && is_meant(called)
        {
            let number = rest.split_whitespace().next().unwrap();
            count += number.parse::<u64>().unwrap();
        }
    }
    count
}
