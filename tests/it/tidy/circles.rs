//! The direction of imports: modules of a crate that import each other are counted and limited.

use std::collections::BTreeSet;

use super::expect_none;
use super::imports::{Graph, Modules};
use super::source::PACKAGES;

/// Limits of one crate.
struct Limits {
    /// Modules directly below the root that stand in circles.
    max_modules: usize,
    /// Modules in the largest circle.
    max_circle: usize,
}

/// Modules in the largest circle inside of any folder. The folder's own module does not count: it
/// and its children use each other.
const MAX_INSIDE: usize = 4;

fn limits(package: &str) -> Limits {
    let (max_modules, max_circle) = match package {
        "actors/src" => (12, 4),
        _ => (0, 0),
    };
    Limits {
        max_modules,
        max_circle,
    }
}

#[test]
fn modules_import_one_way() {
    let (mut figures, mut offences) = (Vec::new(), Vec::new());
    for package in PACKAGES {
        let crate_modules = Modules::read(package);
        let graph = crate_modules.arrows(&[]);
        let found = circles(&graph);
        let inside: usize = found.iter().map(BTreeSet::len).sum();
        let largest = found.first().map_or(0, BTreeSet::len);
        let arrows: usize = graph.values().map(BTreeSet::len).sum();
        let limits = limits(package);
        figures.push(format!(
            "{package}: {} modules, {arrows} arrows, {inside} in circles (at most {}), the \
             largest {largest} (at most {})",
            graph.len(),
            limits.max_modules,
            limits.max_circle,
        ));
        if inside > limits.max_modules || largest > limits.max_circle {
            offences.extend(found.iter().map(|circle| row(package, circle)));
        }
        for top in crate_modules.known.iter().filter(|top| !top.is_empty()) {
            let circles = circles(&crate_modules.arrows(top)).into_iter();
            let large = circles.filter(|circle| circle.len() > MAX_INSIDE);
            let folder = format!("{package}/{}", top.join("/"));
            offences.extend(large.map(|circle| row(&folder, &circle)));
        }
    }
    let figures = format!(
        "modules import each other in a circle (inside of a folder at most {MAX_INSIDE}):\n{}",
        figures.join("\n")
    );
    expect_none(&figures, &offences);
}

fn row(place: &str, circle: &BTreeSet<String>) -> String {
    let names: Vec<&str> = circle.iter().map(String::as_str).collect();
    format!("{place}: a circle of {}: {}", names.len(), names.join(" "))
}

/// Returns the circles of a graph, the largest first: sets of modules that reach each other.
fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reached = |start: &str| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![start]);
        while let Some(module) = todo.pop() {
            let onward = graph.get(module).into_iter().flatten();
            todo.extend(
                onward
                    .filter(|next| seen.insert((*next).clone()))
                    .map(String::as_str),
            );
        }
        seen
    };
    let all: Vec<_> = graph.keys().map(|start| (start, reached(start))).collect();
    let found: BTreeSet<BTreeSet<String>> = all
        .iter()
        .filter(|(start, seen)| seen.contains(*start))
        .map(|(start, seen)| {
            let back = all
                .iter()
                .filter(|(other, onward)| seen.contains(*other) && onward.contains(*start));
            back.map(|(other, _)| (*other).clone()).collect()
        })
        .collect();
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}
