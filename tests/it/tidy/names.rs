//! Names of types: two words that say what the type is, unique in the package.

use std::collections::{BTreeMap, BTreeSet};

use super::expect_none;
use super::source::{PACKAGES, all_production, inline_tests, is_word_letter, line_at, words};

/// One-word names that two files of a package define: room for a module and its twin that stands
/// in where a feature is left out.
const MAX_DOUBLES: usize = 2;

/// Percent of the type names that are one word.
const MAX_ONE_WORD: f64 = 40.0;

/// Percent of the type names that two or more files define.
const MAX_TWICE: f64 = 5.0;

/// Names that were replaced and must not come back. Old names that are ordinary words of Rust or
/// of the field are left out: the limits above hold for them.
const OLD_TYPES: &str = "
    Absence Arriving Blow Books Circuit Debt Deeper Desk Division Door Drill Duty Ears Fallen Found
    Given Hands Homes Keeping Keyring Lane LastManner Leave Ledger Lent MadeOf Mailslot Manner
    Meaning NoPlace Nobody OneTurn Otherwise Owed Passage Pauses Purse Said SaidBody Seat
    Seen Shut Signs Soil Stamps StandIn Surroundings Survey Tries Wanted Watchful Way
    What Where Which Why
";

/// Functions, fields and modules that were replaced, for the same reason.
const OLD_FUNCTIONS: &str = "
    are_free bury call_in depart exhume forsake get_up greet is_overtaken is_solvent land lend
    most_telling mourn overtaken purse run_to_stand_in set_off sit_down solvent stand_in take_back
    turn_to_renew weightier wreck
";

/// Modules whose files were renamed for what they hold.
const OLD_FILES: &str = "
    ambient crew door doors flight hands home kept keyring notice plot seat signs site stamp
    stand_in terms untraced word words
";

#[test]
fn a_type_name_says_what_it_is() {
    let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut offences = Vec::new();
    for file in all_production() {
        let cut = inline_tests(&file.text).unwrap_or(file.text.len());
        for name in file.text[..cut].lines().filter_map(type_name) {
            types
                .entry(name.to_owned())
                .or_default()
                .insert(file.path.clone());
        }
        offences.extend(old_names(&file.path, &file.code));
    }
    let doubles = doubles(&types);
    let share = |part: usize| 100.0 * part as f64 / types.len().max(1) as f64;
    let one_word = share(types.keys().filter(|name| is_one_word(name)).count());
    let twice = share(types.values().filter(|files| files.len() > 1).count());
    let figures = format!(
        "of {} type names {one_word:.1} % are one word (at most {MAX_ONE_WORD} %), {twice:.1} % \
         stand in two or more files (at most {MAX_TWICE} %), {} one-word names stand twice in a \
         package (at most {MAX_DOUBLES}); {} old names in files (at most 0)",
        types.len(),
        doubles.len(),
        offences.len(),
    );
    if doubles.len() > MAX_DOUBLES {
        offences.extend(doubles);
    }
    if one_word > MAX_ONE_WORD {
        let names = types.keys().filter(|name| is_one_word(name));
        offences.push(format!("one word: {}", join(names)));
    }
    if twice > MAX_TWICE {
        let names = types.iter().filter(|(_, files)| files.len() > 1);
        let names = names.map(|(name, files)| format!("in {} files: {name}", files.len()));
        offences.extend(names);
    }
    expect_none(&figures, &offences);
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Returns the one-word names that two files of a package define, once for each package.
fn doubles(types: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let one_word = types.iter().filter(|(name, _)| is_one_word(name));
    one_word
        .flat_map(|(name, files)| {
            PACKAGES.into_iter().filter_map(move |package| {
                let folder = format!("{package}/");
                let own = files.iter().filter(|path| path.starts_with(&folder));
                let own: Vec<_> = own.map(String::as_str).collect();
                (own.len() > 1).then(|| format!("twice: {name}: {}", own.join(" ")))
            })
        })
        .collect()
}

fn is_one_word(name: &str) -> bool {
    name.matches(|letter: char| letter.is_ascii_uppercase())
        .count()
        == 1
}

/// Returns the name of the type that a line defines at the top level of its file.
fn type_name(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) => skip_visibility(rest).trim_start(),
        None => line,
    };
    let (_, rest) = ["struct", "enum", "trait", "union"]
        .into_iter()
        .find_map(|keyword| Some((keyword, line.strip_prefix(keyword)?)))?;
    if !rest.starts_with(char::is_whitespace) {
        return None;
    }
    let name = rest.trim_start();
    let end = name.find(|letter| !is_word_letter(letter));
    let name = &name[..end.unwrap_or(name.len())];
    (!name.is_empty()).then_some(name)
}

fn skip_visibility(text: &str) -> &str {
    let inside = text
        .strip_prefix('(')
        .and_then(|inside| inside.split_once(')'));
    inside.map_or(text, |(_, rest)| rest)
}

/// Returns the old names that the code of a file uses, and the file's own name if it is one.
fn old_names(path: &str, code: &str) -> Vec<String> {
    let old: BTreeSet<&str> = OLD_TYPES
        .split_whitespace()
        .chain(OLD_FUNCTIONS.split_whitespace())
        .collect();
    let mut uses: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (at, word) in words(code).filter(|(_, word)| old.contains(word)) {
        let line = line_at(code, at).to_string();
        uses.entry(word).or_default().push(line);
    }
    let uses = uses.into_iter();
    let mut found: Vec<String> = uses
        .map(|(name, lines)| format!("{path}: {name} in line {}", lines.join(", ")))
        .collect();
    let mut names = path.trim_end_matches(".rs").split('/');
    let old_file = names.find(|name| OLD_FILES.split_whitespace().any(|old| old == *name));
    found.extend(old_file.map(|name| format!("{path}: a file named {name}")));
    found
}
