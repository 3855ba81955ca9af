//! The overview on a terminal: it fits the width, and the health has a colour.
//!
//! Columns are left out from the least important one on, and long texts are cut. Nothing here is used
//! for a pipe, which gets whole rows.

use std::io::{self, IsTerminal as _, Write, stdout};

use clap::builder::styling::{AnsiColor, Style};
use terminal_size::{Height, Width};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::overview::{Column, HealthRank, Overview, OverviewRow};

/// The columns that are left out, the first one first. Those that are not here always stay.
const DISPENSABLE: [Column; 11] = [
    Column::Primary,
    Column::Fallback,
    Column::Queued,
    Column::Refused,
    Column::Calls,
    Column::P99,
    Column::InFlight,
    Column::Failed,
    Column::Rate,
    Column::Errors,
    Column::State,
];
/// Space between two columns.
const GAP: usize = 2;
/// Longest name that is shown whole while there is little room.
const MAX_NAME: usize = 32;
/// Least room for the reason.
const MIN_WHY: usize = 24;

/// A terminal as standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terminal {
    pub(super) width: usize,
    pub(super) height: usize,
    has_colours: bool,
}

impl Terminal {
    /// Returns the terminal that standard output is; `None` if it is none.
    pub(super) fn of_stdout() -> Option<Self> {
        if !stdout().is_terminal() {
            return None;
        }
        let size = terminal_size::terminal_size_of(stdout());
        let (Width(width), Height(height)) = size.unwrap_or((Width(80), Height(24)));
        Some(Self {
            // A terminal that does not know its size says zero.
            width: if width == 0 { 80 } else { width.into() },
            height: if height == 0 { 24 } else { height.into() },
            has_colours: has_colours(),
        })
    }

    /// Returns the overview in lines that fit the width.
    pub(super) fn lines(self, overview: &Overview) -> Vec<String> {
        let columns = self.columns(overview);
        let titles = columns.iter().map(|(column, width)| {
            let title = cut(column.title(), *width);
            (title, *width, None)
        });
        let mut lines = Vec::new();
        if let Some(head) = &overview.head {
            lines.extend([cut(head, self.width), String::new()]);
        }
        lines.push(joined(titles));
        for row in &overview.rows {
            let cells = columns.iter().map(|(column, width)| {
                let style = self.style(*column, row);
                (cut(row.cell(*column), *width), *width, style)
            });
            lines.push(joined(cells));
        }
        lines
    }

    /// Writes the overview.
    pub(super) fn write(self, overview: &Overview, out: &mut dyn Write) -> io::Result<()> {
        let mut lines = self.lines(overview).into_iter();
        lines.try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Selects the columns, each with its width.
    fn columns(self, overview: &Overview) -> Vec<(Column, usize)> {
        let natural = |column: Column| {
            let cells = overview.rows.iter().map(|row| row.cell(column).width());
            cells.max().unwrap_or(0).max(column.title().width())
        };
        let mut columns: Vec<(Column, usize)> = Column::ALL
            .iter()
            .map(|column| match column {
                Column::Name => (*column, natural(*column).min(MAX_NAME)),
                Column::Reason => (*column, natural(*column).min(MIN_WHY.max(self.width / 3))),
                _ => (*column, natural(*column)),
            })
            // A column without a cell says nothing.
            .filter(|(column, _)| !is_empty(*column, overview))
            .collect();
        let needed = |columns: &[(Column, usize)]| {
            let gaps = GAP * columns.len().saturating_sub(1);
            columns.iter().map(|(_, width)| width).sum::<usize>() + gaps
        };
        for column in DISPENSABLE {
            if needed(&columns) <= self.width {
                break;
            }
            columns.retain(|(one, _)| *one != column);
        }
        if needed(&columns) > self.width {
            let over = needed(&columns) - self.width;
            for (column, width) in &mut columns {
                if *column == Column::Name {
                    *width = width.saturating_sub(over).max(8);
                }
            }
        }
        let others = needed(&columns);
        if let Some((Column::Reason, width)) = columns.last_mut() {
            *width = (*width + self.width).saturating_sub(others);
        }
        columns
    }

    fn style(self, column: Column, row: &OverviewRow) -> Option<Style> {
        let colour = match row.rank {
            HealthRank::Down => AnsiColor::Red.on_default().bold(),
            HealthRank::Degraded => AnsiColor::Yellow.on_default(),
            HealthRank::Ok => AnsiColor::Green.on_default(),
        };
        (self.has_colours && column == Column::Health).then_some(colour)
    }
}

/// Returns true if no row has anything in a column that is not always there.
fn is_empty(column: Column, overview: &Overview) -> bool {
    let mut rows = overview.rows.iter();
    !matches!(column, Column::Name | Column::Health | Column::Reason)
        && rows.all(|row| row.cell(column).is_empty())
}

/// Returns true unless the user's environment asks for none (`NO_COLOR`, a dumb terminal).
fn has_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Joins cells, padded to their widths. The last one is not padded.
fn joined(cells: impl Iterator<Item = (String, usize, Option<Style>)>) -> String {
    let mut line = String::new();
    let mut pending = 0;
    for (text, width, style) in cells {
        line.extend(std::iter::repeat_n(' ', pending));
        match style {
            Some(style) => line.push_str(&format!("{style}{text}{style:#}")),
            None => line.push_str(&text),
        }
        pending = width.saturating_sub(text.width()) + GAP;
    }
    line
}

/// Returns the text, or its beginning with a mark of the cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut taken = String::new();
    let mut room = width.saturating_sub(1);
    for letter in text.chars() {
        let needed = letter.width().unwrap_or(0);
        if needed > room {
            break;
        }
        room -= needed;
        taken.push(letter);
    }
    if width > 0 {
        taken.push('…');
    }
    taken
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer() -> Value {
        let one = |name: &str, health: &str, why: &str| {
            json!({
                "name": name, "health": health, "state": "closed", "override": null,
                "health_reason": why, "in_flight": 3, "queued": 0,
                "limits": {"concurrent": 32, "max_queue": 64},
                "totals": {"submitted": 123_456, "primary": 100_000, "fallback": 0,
                           "refused": 12, "failed": 23_000},
                "latency_ms": {"p99": 12.3},
            })
        };
        let long = "its breaker is open: 5 calls in a row failed, and what the dependency said of \
                    it is longer than any line of a terminal that a person would open";
        json!([
            one("payments", "down", long),
            one(
                "a-dependency-with-a-name-of-sixty-four-letters-which-is-the-most",
                "ok",
                ""
            ),
        ])
    }

    fn terminal(width: usize) -> Terminal {
        Terminal {
            width,
            height: 24,
            has_colours: false,
        }
    }

    #[test]
    fn ops_l_every_line_fits_the_width() {
        let overview = Overview::of(&answer(), false);
        for width in [20, 40, 60, 80, 100, 120, 160, 200, 400] {
            let lines = terminal(width).lines(&overview);
            assert_eq!(lines.len(), 5);
            for line in &lines {
                assert!(line.width() <= width.max(42), "{width}: {line:?}");
            }
            assert!(lines[3].starts_with("payments"), "{}", lines[3]);
            assert!(lines[3].contains("down"), "{}", lines[3]);
        }
    }

    #[test]
    fn ops_l_columns_are_left_out_and_texts_are_cut() {
        let overview = Overview::of(&answer(), false);
        let narrow = terminal(80).lines(&overview);
        assert!(narrow[2].contains("state") && !narrow[2].contains("primary"));
        assert!(narrow[3].ends_with('…'), "{}", narrow[3]);
        assert!(
            narrow[4].contains("a-dependency-with-a-name-of-six…"),
            "{}",
            narrow[4]
        );
        let wide = terminal(400).lines(&overview);
        assert!(
            wide[2].contains("primary") && !wide[3].contains('…'),
            "{wide:?}"
        );
    }

    #[test]
    fn ops_l_the_health_has_a_colour_where_colours_are_wanted() {
        let overview = Overview::of(&answer(), false);
        let plain = terminal(80).lines(&overview);
        assert!(plain.iter().all(|line| !line.contains('\u{1b}')));
        let coloured = Terminal {
            has_colours: true,
            ..terminal(80)
        };
        let coloured = coloured.lines(&overview);
        assert!(
            coloured[3].contains("\u{1b}[1m\u{1b}[31mdown\u{1b}[0m"),
            "{:?}",
            coloured[3]
        );
        assert!(
            coloured[4].contains("\u{1b}[32mok\u{1b}[0m"),
            "{:?}",
            coloured[4]
        );
    }

    #[test]
    fn a_cut_text_has_the_width_it_is_given() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        // Letters of double width.
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 0), "");
    }
}
