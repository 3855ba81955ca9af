//! Plain English in comments: docs that begin with a noun or a verb, and actors with names.
//!
//! The counts are those of a fixed set of patterns. They include the comments of inline tests.

use super::expect_none;
use super::source::{all_production, words};

/// Words that no documentation begins with.
const OPENINGS: [&str; 6] = ["what", "who", "whose", "whom", "how", "whether"];

/// Pronouns that hide the actor.
const PERSONS: [&str; 10] = [
    "whoever",
    "whomever",
    "whatever",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "everyone",
    "whom",
    "whose",
];

/// Words that make a bare clause after "what" or "who": "what it keeps", "who waits".
const CLAUSES: [&str; 21] = [
    "is", "was", "has", "have", "had", "comes", "came", "waits", "asks", "stands", "it", "they",
    "a", "the", "one", "nobody", "all", "few", "each", "every", "such",
];

/// Bare clauses for each 1000 words of comments.
const MAX_CLAUSES: f64 = 1.0;

#[test]
fn docs_begin_with_a_noun_or_a_verb() {
    let mut offences = Vec::new();
    for file in all_production() {
        let found = openings(&file.text);
        offences.extend(found.map(|(line, text)| format!("{}:{line}: {text}", file.path)));
    }
    expect_none("documentation begins with a pronoun", &offences);
}

/// Returns the first lines of the doc comments that begin with a pronoun, with their numbers.
fn openings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(str::trim);
    let before = std::iter::once("").chain(lines.clone());
    let numbered = (1..).zip(lines.zip(before));
    numbered.filter_map(|(number, (line, before))| {
        let mut marks = ["///", "//!"].into_iter();
        let mark = marks.find(|mark| line.starts_with(mark) && !before.starts_with(mark))?;
        let text = line[mark.len()..].trim_start();
        let (at, first) = words(text).next()?;
        let first = first.to_lowercase();
        (at == 0 && OPENINGS.contains(&first.as_str())).then_some((number, line))
    })
}

#[test]
fn comments_name_their_actors() {
    let (mut count, mut persons, mut clauses) = (0, Vec::new(), Vec::new());
    for file in all_production() {
        let prose = Prose::new(&file.text);
        count += prose.text.split_whitespace().count();
        let place = |at: usize| format!("{}:{}", file.path, prose.line(at));
        let found = words(&prose.text).filter(|(_, word)| is_one_of(word, &PERSONS));
        persons.extend(found.map(|(at, word)| format!("{}: {word}", place(at))));
        let found = bare_clauses(&prose.text);
        clauses.extend(found.map(|(at, clause)| format!("{}: {clause}", place(at))));
    }
    let rate = |found: &[String]| 1000.0 * found.len() as f64 / count.max(1) as f64;
    let figures = format!(
        "{} indefinite persons ({:.1} per 1000 of {count} comment words, at most 0); \
         {} bare clauses ({:.1} per 1000, at most {MAX_CLAUSES})",
        persons.len(),
        rate(&persons),
        clauses.len(),
        rate(&clauses),
    );
    let mut offences = persons;
    if rate(&clauses) > MAX_CLAUSES {
        offences.append(&mut clauses);
    }
    expect_none(&figures, &offences);
}

/// The comments of a file, joined by spaces.
struct Prose {
    text: String,
    /// The offset at which each comment begins, and its line.
    starts: Vec<(usize, usize)>,
}

impl Prose {
    fn new(text: &str) -> Self {
        let (mut joined, mut starts) = (String::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            let Some(comment) = line.strip_prefix("//") else {
                continue;
            };
            let comment = comment.strip_prefix(['/', '!']).unwrap_or(comment);
            let comment = comment.strip_prefix(char::is_whitespace).unwrap_or(comment);
            if !starts.is_empty() {
                joined.push(' ');
            }
            starts.push((joined.len(), number));
            joined.push_str(comment);
        }
        Self {
            text: joined,
            starts,
        }
    }

    /// Returns the line of the file that an offset stands in.
    fn line(&self, at: usize) -> usize {
        let next = self.starts.partition_point(|(start, _)| *start <= at);
        next.checked_sub(1).map_or(0, |index| self.starts[index].1)
    }
}

/// Returns each "what" or "who" that begins a bare clause, with the word after it.
fn bare_clauses(prose: &str) -> impl Iterator<Item = (usize, &str)> {
    words(prose).filter_map(|(at, word)| {
        if !is_one_of(word, &["what", "who"]) {
            return None;
        }
        let end = at + word.len();
        let rest = prose[end..].strip_prefix(' ')?;
        let (gap, next) = words(rest).next()?;
        let bare = gap == 0 && is_one_of(next, &CLAUSES);
        bare.then(|| (at, &prose[at..=end + next.len()]))
    })
}

fn is_one_of(word: &str, list: &[&str]) -> bool {
    list.iter().any(|known| known.eq_ignore_ascii_case(word))
}
