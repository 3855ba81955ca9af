//! Cases that run in rounds, so that noise of the machine affects all of them alike.

use std::time::Duration;

const ROUNDS: usize = 11;
const SAMPLE: Duration = Duration::from_millis(40);

/// Runs so many operations and returns their duration.
pub(crate) type Case = Box<dyn Fn(u64) -> Duration>;

/// One path, and its cost in each round.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    case: Case,
    /// Nanoseconds per operation, by round.
    pub(crate) nanos: Vec<f64>,
    operations: u64,
}

pub(crate) fn line(name: &'static str, case: impl Fn(u64) -> Duration + 'static) -> Line {
    Line {
        name,
        case: Box::new(case),
        nanos: Vec::new(),
        operations: 1,
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Line {
    /// Finds the number of operations that fills a sample.
    fn calibrate(&mut self) {
        let mut operations = 2_048;
        loop {
            let took = (self.case)(operations);
            if took * 2 >= SAMPLE || operations >= 1 << 24 {
                let fit = SAMPLE.as_secs_f64() / took.as_secs_f64().max(1e-9);
                self.operations = ((operations as f64 * fit) as u64).max(1_024);
                return;
            }
            operations *= 4;
        }
    }

    fn sample(&mut self) {
        let took = (self.case)(self.operations);
        self.nanos
            .push(took.as_nanos() as f64 / self.operations as f64);
    }
}

/// Runs every case in every round, and prints the costs. An argument leaves only the cases that have it in
/// their names.
pub(crate) fn run(lines: &mut Vec<Line>) {
    if let Some(part) = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
    {
        lines.retain(|line| line.name.contains(&part));
    }
    for line in lines.iter_mut() {
        line.calibrate();
    }
    for _ in 0..ROUNDS {
        for line in lines.iter_mut() {
            line.sample();
        }
    }
    println!("{:<36} {:>10} {:>22}", "path", "ns (median)", "min .. max");
    for line in lines.iter() {
        let (low, high) = line
            .nanos
            .iter()
            .fold((f64::MAX, 0_f64), |(low, high), now| {
                (low.min(*now), high.max(*now))
            });
        let middle = median(line.nanos.clone());
        println!(
            "{:<36} {middle:>10.1} {low:>10.1} .. {high:>8.1}",
            line.name
        );
    }
}
