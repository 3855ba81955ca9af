//! The modules of a crate and the paths that lead from one to another.
//!
//! Read from `use` lines and from paths in code. Arrows made by method calls, macros and
//! inference are not seen.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{SourceFile, is_word_letter, production, words};

/// The names from the crate's root to a module; empty for the root.
pub(super) type ModulePath = Vec<String>;

/// The modules of one crate.
pub(super) struct Modules {
    /// Each module that has a file, with the paths that its code names.
    paths: BTreeMap<ModulePath, Vec<Vec<String>>>,
    /// The names that each module imports or exports, with the paths behind them.
    imports: BTreeMap<ModulePath, BTreeMap<String, Vec<String>>>,
    /// All modules and the folders above them.
    pub(super) known: BTreeSet<ModulePath>,
}

/// A graph of modules: the names that each leads to.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

impl Modules {
    pub(super) fn read(folder: &str) -> Self {
        let mut modules = Self {
            paths: BTreeMap::new(),
            imports: BTreeMap::new(),
            known: BTreeSet::new(),
        };
        for file in production(folder) {
            // main.rs is the root of another crate.
            let module = module_of(&file, folder);
            if !module.iter().any(|name| name == "main") {
                modules.add(module, &file.code);
            }
        }
        modules
    }

    fn add(&mut self, module: ModulePath, code: &str) {
        let (mut paths, mut names) = (Vec::new(), BTreeMap::new());
        let (uses, rest) = use_trees(code);
        for (tree, is_inner) in uses {
            for leaf in leaves("", tree) {
                // A `use` inside of a function names nothing for other modules.
                if !is_inner {
                    names.insert(leaf.name, leaf.path.clone());
                }
                paths.push(leaf.path);
            }
        }
        paths.extend(written_paths(&rest));
        for length in 0..=module.len() {
            self.known.insert(module[..length].to_vec());
        }
        self.imports.insert(module.clone(), names);
        self.paths.insert(module, paths);
    }

    /// Returns the modules below one with all paths that each of them names.
    pub(super) fn below(
        &self,
        top: &[String],
    ) -> impl Iterator<Item = (&ModulePath, &Vec<Vec<String>>)> {
        let top = top.to_vec();
        let below = move |module: &ModulePath| module.len() > top.len() && module.starts_with(&top);
        self.paths.iter().filter(move |(module, _)| below(module))
    }

    /// Returns the module that a path leads to; `None` for one that leads out of the crate.
    pub(super) fn resolve(&self, module: &[String], path: &[String]) -> Option<ModulePath> {
        self.follow(module, path, 0)
    }

    fn follow(&self, module: &[String], path: &[String], depth: u32) -> Option<ModulePath> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => {
                let mut at = parent(module);
                while let Some(("super", onward)) = rest.split_first().map(|(s, r)| (s.as_str(), r))
                {
                    (at, rest) = (parent(&at), onward);
                }
                at
            }
            _ => Some(child(module, first)).filter(|child| self.known.contains(child))?,
        };
        for (number, name) in rest.iter().enumerate() {
            let next = child(&at, name);
            if self.known.contains(&next) {
                at = next;
                continue;
            }
            let onward = self.imports.get(&at).and_then(|names| names.get(name));
            if let Some(onward) = onward.filter(|_| depth < 8) {
                let path = [onward, &rest[number + 1..]].concat();
                return self.follow(&at, &path, depth + 1);
            }
            break;
        }
        Some(at)
    }

    /// Returns the graph of the modules directly below one; a folder and its file are one module.
    pub(super) fn arrows(&self, top: &[String]) -> Graph {
        let is_below = |module: &[String]| module.len() > top.len() && module.starts_with(top);
        let below = self.known.iter().filter(|module| is_below(module));
        let mut graph: Graph = below
            .map(|module| (module[top.len()].clone(), BTreeSet::new()))
            .collect();
        for (module, paths) in self.below(top) {
            let here = &module[top.len()];
            let targets = paths.iter().filter_map(|path| self.resolve(module, path));
            let targets = targets
                .filter(|target| is_below(target))
                .map(|target| target[top.len()].clone())
                .filter(|target| target != here);
            graph.entry(here.clone()).or_default().extend(targets);
        }
        graph
    }
}

fn parent(module: &[String]) -> ModulePath {
    module[..module.len().saturating_sub(1)].to_vec()
}

fn child(module: &[String], name: &str) -> ModulePath {
    let mut path = module.to_vec();
    path.push(name.to_owned());
    path
}

fn module_of(file: &SourceFile, folder: &str) -> ModulePath {
    let below = &file.path[folder.len() + 1..];
    let below = below.strip_suffix(".rs").unwrap_or(below);
    if below == "lib" {
        return Vec::new();
    }
    below.split('/').map(str::to_owned).collect()
}

/// Returns the trees of all `use` items, true for those that are indented, and the code without
/// them.
fn use_trees(code: &str) -> (Vec<(&str, bool)>, String) {
    let (mut trees, mut rest, mut done) = (Vec::new(), String::new(), 0);
    for (at, word) in words(code) {
        let tree = &code[at + word.len()..];
        if word != "use" || at < done || !tree.starts_with(char::is_whitespace) {
            continue;
        }
        let Some(length) = tree.find(';') else {
            break;
        };
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        trees.push((&tree[..length], code[line..at].starts_with(' ')));
        rest.push_str(&code[done..at]);
        done = at + word.len() + length + 1;
    }
    rest.push_str(&code[done..]);
    (trees, rest)
}

/// Returns the paths in code that begin with `crate`, `super` or `self`.
fn written_paths(code: &str) -> Vec<Vec<String>> {
    let (mut paths, mut done) = (Vec::new(), 0);
    for (at, word) in words(code) {
        if at < done || !["crate", "super", "self"].contains(&word) {
            continue;
        }
        let mut path = vec![word.to_owned()];
        done = at + word.len();
        while let Some(rest) = code[done..].strip_prefix("::") {
            let name = rest.find(|letter| !is_word_letter(letter));
            let name = &rest[..name.unwrap_or(rest.len())];
            if name.is_empty() {
                break;
            }
            path.push(name.to_owned());
            done += 2 + name.len();
        }
        if path.len() > 1 {
            paths.push(path);
        }
    }
    paths
}

/// One path of a `use` tree, and the name that it gets.
pub(super) struct UseLeaf {
    pub(super) path: Vec<String>,
    pub(super) name: String,
}

/// Returns the paths of a `use` tree.
pub(super) fn leaves(prefix: &str, tree: &str) -> Vec<UseLeaf> {
    let mut found = Vec::new();
    for part in parts(tree) {
        if let Some((before, inside)) = part.split_once('{') {
            let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
            found.extend(leaves(&format!("{prefix}{before}"), inside));
            continue;
        }
        let whole = format!("{prefix}{part}");
        let (path, alias) = whole.split_once(" as ").unwrap_or((&whole, ""));
        let path = path.split("::").map(str::trim);
        let mut path: Vec<String> = path
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let name = Some(alias.trim())
            .filter(|alias| !alias.is_empty())
            .map(str::to_owned);
        if let Some(name) = name.or_else(|| path.last().cloned()) {
            found.push(UseLeaf { path, name });
        }
    }
    found
}

/// Splits a `use` tree at the commas outside of braces.
fn parts(tree: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let parts = tree.split(move |letter| {
        depth += match letter {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        letter == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}
