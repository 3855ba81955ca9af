//! What a value may look like: how it is parsed, and the words for what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use breakerbox_policy::Rate;
use bytesize::ByteSize;
use config::{Value, ValueKind};

/// The longest duration that makes sense anywhere.
pub(super) const YEAR: Duration = Duration::from_secs(31_557_600);
/// The shortest duration where zero would mean nothing.
pub(super) const TICK: Duration = Duration::from_millis(1);

type Parse<'a, T> = Box<dyn Fn(&Value) -> Option<T> + 'a>;
type Show<'a, T> = Box<dyn Fn(&T) -> String + 'a>;

/// A kind of value.
pub(super) struct Shape<'a, T> {
    pub(super) allowed: String,
    pub(super) parse: Parse<'a, T>,
    /// How a default is written, so that reading it again gives the same value.
    pub(super) show: Show<'a, T>,
    /// Whether the value may be shown.
    pub(super) secret: bool,
}

impl<'a, T: 'a> Shape<'a, T> {
    pub(super) fn new(
        allowed: impl Into<String>,
        parse: impl Fn(&Value) -> Option<T> + 'a,
        show: impl Fn(&T) -> String + 'a,
    ) -> Self {
        Self {
            allowed: allowed.into(),
            parse: Box::new(parse),
            show: Box::new(show),
            secret: false,
        }
    }

    /// The same value, or the word `"off"`.
    pub(super) fn or_off(self) -> Shape<'a, Option<T>> {
        self.or_word("off")
    }

    /// The same value, or a word that stands for none.
    pub(super) fn or_word(self, word: &'static str) -> Shape<'a, Option<T>> {
        let (parse, show) = (self.parse, self.show);
        Shape::new(
            format!("{}, or \"{word}\"", self.allowed),
            move |value| {
                if text(value) == Some(word) {
                    Some(None)
                } else {
                    parse(value).map(Some)
                }
            },
            move |value| value.as_ref().map_or(format!("\"{word}\""), &show),
        )
    }

    /// The same value, in other words.
    pub(super) fn called(mut self, allowed: &str) -> Self {
        allowed.clone_into(&mut self.allowed);
        self
    }

    /// The same value where a table is allowed too, as this one.
    pub(super) fn or_table(mut self, example: &str) -> Self {
        self.allowed = format!("{}, or {example}", self.allowed);
        self
    }

    /// The value as another type; `back` is for showing it.
    pub(super) fn map<U: 'a>(
        self,
        map: impl Fn(T) -> Option<U> + 'a,
        back: impl Fn(&U) -> T + 'a,
    ) -> Shape<'a, U> {
        let (parse, show) = (self.parse, self.show);
        Shape::new(
            self.allowed,
            move |value| parse(value).and_then(&map),
            move |value| show(&back(value)),
        )
    }

    /// Any number of them: an array, or one text with commas as variables have it.
    pub(super) fn list(self) -> Shape<'a, Vec<T>> {
        let (parse, show) = (self.parse, self.show);
        Shape::new(
            format!("a list of: {}", self.allowed),
            move |value| match &value.kind {
                ValueKind::Array(values) => values.iter().map(&parse).collect(),
                ValueKind::String(line) if line.trim().is_empty() => Some(Vec::new()),
                ValueKind::String(line) => {
                    let parts = line.split(',').map(|part| Value::new(None, part.trim()));
                    parts.map(|part| parse(&part)).collect()
                }
                _ => None,
            },
            move |values| {
                let values: Vec<String> = values.iter().map(&show).collect();
                format!("[{}]", values.join(", "))
            },
        )
    }
}

fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text.trim()),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "such large numbers are out of every range"
    )]
    let number = match &value.kind {
        ValueKind::Float(number) => *number,
        ValueKind::I64(number) => *number as f64,
        ValueKind::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// A whole number.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> Shape<'static, T>
where
    T: TryFrom<i64> + PartialOrd + Display + Copy + 'static,
{
    let allowed = format!("a whole number from {} to {}", range.start(), range.end());
    let parse = move |value: &Value| {
        let number = match &value.kind {
            ValueKind::I64(number) => *number,
            ValueKind::String(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        T::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
    };
    Shape::new(allowed, parse, T::to_string)
}

/// A number with a fraction.
pub(super) fn number(range: RangeInclusive<f64>) -> Shape<'static, f64> {
    let allowed = format!("a number from {} to {}", range.start(), range.end());
    let parse = move |value: &Value| float(value).filter(|number| range.contains(number));
    Shape::new(allowed, parse, |number| format!("{number:?}"))
}

/// A fraction.
pub(super) fn rate() -> Shape<'static, Rate> {
    number(0.0..=1.0).map(|fraction| Rate::new(fraction).ok(), |rate| rate.as_f64())
}

/// A duration: `"250ms"`, or a plain number of seconds.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Shape<'static, Duration> {
    let show = humantime::format_duration;
    let (least, most) = (show(*range.start()), show(*range.end()));
    let allowed =
        format!("a duration such as \"250ms\", or a number of seconds, from {least} to {most}");
    let parse = move |value: &Value| {
        let duration = match float(value) {
            Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            None => humantime::parse_duration(text(value)?).ok(),
        };
        duration.filter(|duration| range.contains(duration))
    };
    Shape::new(allowed, parse, move |value| format!("\"{}\"", show(*value)))
}

/// A number of bytes: plain, or with a unit. `example` gives one, and the range.
pub(super) fn bytes(example: &str, range: RangeInclusive<u64>) -> Shape<'static, u64> {
    let allowed = format!("a number of bytes, or a text such as {example}");
    let parse = move |value: &Value| {
        let bytes = match &value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok()?,
            ValueKind::String(text) => text.trim().parse::<ByteSize>().ok()?.as_u64(),
            _ => return None,
        };
        range.contains(&bytes).then_some(bytes)
    };
    Shape::new(allowed, parse, u64::to_string)
}

/// Yes or no.
pub(super) fn truth() -> Shape<'static, bool> {
    let parse = |value: &Value| match &value.kind {
        ValueKind::Boolean(truth) => Some(*truth),
        _ => text(value)?.parse().ok(),
    };
    Shape::new("true or false", parse, bool::to_string)
}

/// One of some words.
pub(super) fn word<T>(words: &'static [(&'static str, T)]) -> Shape<'static, T>
where
    T: Clone + PartialEq + 'static,
{
    let names: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let parse = |value: &Value| {
        let given = text(value)?;
        words
            .iter()
            .find(|(word, _)| *word == given)
            .map(|(_, meaning)| meaning.clone())
    };
    Shape::new(names.join(" or "), parse, |meaning| {
        let named = words.iter().find(|(_, other)| other == meaning);
        format!("\"{}\"", named.map_or("", |(word, _)| word))
    })
}

/// Any text for which `good` holds.
pub(super) fn line(allowed: &str, good: fn(&str) -> bool) -> Shape<'static, String> {
    let parse = move |value: &Value| match &value.kind {
        ValueKind::String(text) if good(text) => Some(text.clone()),
        _ => None,
    };
    Shape::new(allowed, parse, |text| format!("{text:?}"))
}

/// One of two shapes: the first that fits, told apart by `split` when it is shown.
pub(super) fn either<'a, A: 'a, B: 'a, T: 'a>(
    first: Shape<'a, A>,
    second: Shape<'a, B>,
    join: impl Fn(Either<A, B>) -> T + 'a,
    split: impl Fn(&T) -> Either<A, B> + 'a,
) -> Shape<'a, T> {
    let allowed = format!("{} or {}", first.allowed, second.allowed);
    Shape::new(
        allowed,
        move |value| {
            let found = (first.parse)(value).map(Either::First);
            found
                .or_else(|| (second.parse)(value).map(Either::Second))
                .map(&join)
        },
        move |value| match split(value) {
            Either::First(value) => (first.show)(&value),
            Either::Second(value) => (second.show)(&value),
        },
    )
}

/// A value of one of two shapes.
pub(super) enum Either<A, B> {
    First(A),
    Second(B),
}

/// The value as its author wrote it, more or less.
pub(super) fn show(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("{:?}", without_credentials(text)),
        ValueKind::Array(values) => {
            let values: Vec<String> = values.iter().map(show).collect();
            format!("[{}]", values.join(", "))
        }
        ValueKind::Table(table) => {
            let mut entries: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{key} = {}", show(value)))
                .collect();
            entries.sort();
            format!("{{ {} }}", entries.join(", "))
        }
        ValueKind::Nil => "nothing".to_owned(),
        _ => value.to_string(),
    }
}

/// An address without what may be a secret in it: the user, the query.
fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text
        .split_once("://")
        .filter(|(scheme, _)| scheme.len() < 16)
    else {
        return text.to_owned();
    };
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, ""), |(rest, _)| (rest, "?***"));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{query}"),
        None => format!("{scheme}://{rest}{query}"),
    }
}
