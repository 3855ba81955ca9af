//! Types of values: parsing, display, and the text of allowed values.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use breakerbox_policy::Rate;
use bytesize::ByteSize;
use config::{Value, ValueKind};
use serde_json::{Value as Json, json};

use super::masking::{self, MASK};
use super::number_text;
use super::span_text;

// One place for what files and code may set.
pub(super) use breakerbox_policy::judgement::{TICK, YEAR};

/// A duration in a text, as a pattern of JSON Schema.
const SPAN: &str = "^\\s*([0-9]+(\\.[0-9]+)?\\s*[a-zA-Zµ]*\\s*)+$";

type ParseFn<'a, T> = Box<dyn Fn(&Value) -> Option<T> + 'a>;
type ShowFn<'a, T> = Box<dyn Fn(&T) -> String + 'a>;

/// The type of a value.
pub(super) struct ValueType<'a, T> {
    pub(super) allowed: String,
    pub(super) parse: ParseFn<'a, T>,
    /// Formats a default, such that parsing it again gives the same value.
    pub(super) show: ShowFn<'a, T>,
    /// Formats a given value, without secrets.
    pub(super) given: fn(&Value) -> String,
    /// Says what is wrong with a value that cannot be used, where more can be said than its type.
    pub(super) mistake: fn(&Value) -> Option<String>,
    /// True for a duration, of which a number without a unit is in seconds.
    pub(super) is_span: bool,
    /// True for a secret, and for a text with one in it.
    pub(super) is_secret: bool,
    /// The allowed values in a file, as a JSON Schema.
    pub(super) schema: Json,
}

impl<'a, T: 'a> ValueType<'a, T> {
    pub(super) fn new(
        allowed: impl Into<String>,
        parse: impl Fn(&Value) -> Option<T> + 'a,
        show: impl Fn(&T) -> String + 'a,
    ) -> Self {
        Self {
            allowed: allowed.into(),
            parse: Box::new(parse),
            show: Box::new(show),
            given: masking::show,
            mistake: |_| None,
            is_span: false,
            is_secret: false,
            schema: json!({}),
        }
    }

    /// Accepts the word `"off"` too, as `None`.
    pub(super) fn or_off(self) -> ValueType<'a, Option<T>> {
        self.or_word("off")
    }

    /// Accepts a word too, as `None`.
    pub(super) fn or_word(self, word: &'static str) -> ValueType<'a, Option<T>> {
        let (parse, show, given) = (self.parse, self.show, self.given);
        let mistake = self.mistake;
        let or_word = ValueType::new(
            format!("{}, or \"{word}\"", self.allowed),
            move |value| {
                if text(value) == Some(word) {
                    Some(None)
                } else {
                    parse(value).map(Some)
                }
            },
            move |value| value.as_ref().map_or(format!("\"{word}\""), &show),
        );
        ValueType {
            is_span: self.is_span,
            mistake,
            ..or_word.shown_by(given)
        }
        .schema(any_of([self.schema, json!({ "const": word })]))
    }

    /// Formats given values in another way.
    pub(super) fn shown_by(mut self, given: fn(&Value) -> String) -> Self {
        self.given = given;
        self
    }

    /// Says more about a value that cannot be used.
    pub(super) fn mistaken_by(mut self, mistake: fn(&Value) -> Option<String>) -> Self {
        self.mistake = mistake;
        self
    }

    /// Sets the JSON Schema.
    pub(super) fn schema(mut self, schema: Json) -> Self {
        self.schema = schema;
        self
    }

    /// Never shows a given value.
    pub(super) fn secret(self) -> Self {
        self.shown_by(|_| MASK.to_owned()).with_secret()
    }

    /// Notes that a secret is in the value, which is shown without it.
    pub(super) fn with_secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// Replaces the text of allowed values.
    pub(super) fn described_as(mut self, allowed: &str) -> Self {
        allowed.clone_into(&mut self.allowed);
        self
    }

    /// Mentions in the text of allowed values that a table is accepted too.
    pub(super) fn or_table(mut self, example: &str) -> Self {
        self.allowed = format!("{}, or {example}", self.allowed);
        self
    }

    /// Converts the value to another type; `back` converts it for display.
    pub(super) fn map<U: 'a>(
        self,
        map: impl Fn(T) -> Option<U> + 'a,
        back: impl Fn(&U) -> T + 'a,
    ) -> ValueType<'a, U> {
        let (parse, show) = (self.parse, self.show);
        // Said of the value as it was given.
        let mistake = self.mistake;
        let mapped = ValueType::new(
            self.allowed,
            move |value| parse(value).and_then(&map),
            move |value| show(&back(value)),
        );
        mapped.mistaken_by(mistake).schema(self.schema)
    }

    /// Accepts a list: an array, or one string with commas, as in variables.
    pub(super) fn list(self) -> ValueType<'a, Vec<T>> {
        let (parse, show) = (self.parse, self.show);
        // Several in one text, with commas, are for variables.
        let schema = json!({ "type": "array", "items": self.schema });
        let list = ValueType::new(
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
        );
        list.schema(schema)
    }
}

/// Returns the schema of a value that fits one of two.
fn any_of(ways: [Json; 2]) -> Json {
    json!({ "anyOf": ways })
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
        reason = "larger numbers are outside of every allowed range"
    )]
    let number = match &value.kind {
        ValueKind::Float(number) => *number,
        ValueKind::I64(number) => *number as f64,
        ValueKind::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// An integer.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> ValueType<'static, T>
where
    T: TryFrom<i64> + PartialOrd + Display + Copy + 'static,
{
    let allowed = format!("a whole number from {} to {}", range.start(), range.end());
    let bound = |number: &T| number.to_string().parse::<i64>().unwrap_or(i64::MAX);
    let (least, most) = (bound(range.start()), bound(range.end()));
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
    let schema = json!({ "type": "integer", "minimum": least, "maximum": most });
    let integer = ValueType::new(allowed, parse, T::to_string).schema(schema);
    integer.mistaken_by(number_text::with_point)
}

/// An integer from 1 to `most`.
pub(super) fn count(most: u32) -> ValueType<'static, NonZeroU32> {
    integer(1..=most).map(NonZeroU32::new, |count| count.get())
}

/// A number with a fraction.
pub(super) fn number(range: RangeInclusive<f64>) -> ValueType<'static, f64> {
    let allowed = format!("a number from {} to {}", range.start(), range.end());
    let schema = json!({ "type": "number", "minimum": range.start(), "maximum": range.end() });
    let parse = move |value: &Value| float(value).filter(|number| range.contains(number));
    ValueType::new(allowed, parse, |number| format!("{number:?}")).schema(schema)
}

/// A fraction.
pub(super) fn rate() -> ValueType<'static, Rate> {
    let rate = number(0.0..=1.0).map(|fraction| Rate::new(fraction).ok(), |rate| rate.as_f64());
    rate.mistaken_by(|value| {
        let percent = match text(value).and_then(|text| text.strip_suffix('%')) {
            Some(percent) => percent.trim().parse().ok()?,
            // One below 2 is hardly meant as a percentage.
            None => float(value).filter(|number| *number >= 2.0)?,
        };
        let is_percent = (0.0..=100.0).contains(&percent);
        let share = (percent * 100.0).round() / 10_000.0;
        is_percent.then(|| format!("it is a share of 1, did you mean {share}?"))
    })
}

/// A duration: `"250ms"`, or a plain number of seconds.
pub(super) fn duration(range: RangeInclusive<Duration>) -> ValueType<'static, Duration> {
    let show = humantime::format_duration;
    let (least, most) = (show(*range.start()), show(*range.end()));
    let allowed =
        format!("a duration such as \"250ms\", or a number of seconds, from {least} to {most}");
    let schema = any_of([
        json!({ "type": "number", "minimum": 0 }),
        json!({ "type": "string", "pattern": SPAN }),
    ]);
    let parse = move |value: &Value| {
        let duration = match float(value) {
            Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            None => span_text::parse_duration(text(value)?).ok(),
        };
        duration.filter(|duration| range.contains(duration))
    };
    let span = ValueType::new(allowed, parse, move |value| format!("\"{}\"", show(*value)));
    ValueType {
        is_span: true,
        mistake: |value| {
            let text = text(value)?;
            let month = || {
                let month = Some(text).filter(|text| text.contains('M'))?;
                span_text::parse_duration(month).err()
            };
            number_text::with_comma(text).or_else(month)
        },
        ..span.shown_by(show_span).schema(schema)
    }
}

/// Formats a given duration. A number without a unit gets the one that it is read in.
fn show_span(value: &Value) -> String {
    let given = masking::show(value);
    let Some(seconds) = float(value) else {
        return given;
    };
    let number = given.trim_matches('"');
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if seconds >= 60.0 => {
            format!("{number} s ({})", humantime::format_duration(span))
        }
        _ => format!("{number} s"),
    }
}

/// Warns of a duration that is implausibly long where the default is short, or of a number that is far
/// above any default: another unit was meant. `default`: as it is shown.
pub(super) fn long_span(value: &Value, default: &str) -> Option<String> {
    /// Of a number without a unit.
    const LONG: Duration = Duration::from_secs(3_600);
    /// Of a text with its unit.
    const LONG_TEXT: Duration = Duration::from_secs(6 * 3_600);
    const SHORT: Duration = Duration::from_secs(60);
    /// Of milliseconds that were meant, a thousand times as many are read.
    const MANY: u32 = 200;
    let usual = humantime::parse_duration(default.trim_matches('"'));
    // Without a limit by default, an hour is long too.
    let usual = usual.ok().filter(|usual| *usual >= SHORT);
    if let Some(seconds) = float(value) {
        let least = usual.map_or(LONG, |usual| LONG.max(usual.saturating_mul(MANY)));
        let span = Duration::try_from_secs_f64(seconds).ok();
        let span = humantime::format_duration(span.filter(|span| *span >= least)?);
        return Some(format!(
            "{seconds} without a unit is in seconds, {span} in all: did you mean \"{seconds}ms\"?"
        ));
    }
    let given = text(value).filter(|_| usual.is_none())?;
    let span = span_text::parse_duration(given).ok();
    let span = span.filter(|span| *span >= LONG_TEXT)?;
    let number = given.strip_suffix('m').map(str::trim_end);
    let number = number.filter(|number| number.parse::<f64>().is_ok());
    let advice = match number {
        Some(number) => format!("did you mean \"{number}ms\"?"),
        None => "is the unit right?".to_owned(),
    };
    let span = humantime::format_duration(span);
    Some(format!(
        "{given:?} is {span}, far above what is usual: {advice}"
    ))
}

/// A number of bytes: plain, or with a unit. `example`: an example, and the range.
pub(super) fn bytes(example: &str, range: RangeInclusive<u64>) -> ValueType<'static, u64> {
    let allowed = format!("a number of bytes, or a text such as {example}");
    let (least, most) = (*range.start(), *range.end());
    let parse = move |value: &Value| {
        let bytes = match &value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok()?,
            ValueKind::String(text) => text.trim().parse::<ByteSize>().ok()?.as_u64(),
            _ => return None,
        };
        range.contains(&bytes).then_some(bytes)
    };
    let schema = any_of([
        json!({ "type": "integer", "minimum": least, "maximum": most }),
        json!({ "type": "string", "pattern": "^\\s*[0-9.]+\\s*([kKmMgGtT]?[iI]?[bB]?)\\s*$" }),
    ]);
    ValueType::new(allowed, parse, u64::to_string).schema(schema)
}

/// A boolean.
pub(super) fn boolean() -> ValueType<'static, bool> {
    let parse = |value: &Value| match &value.kind {
        ValueKind::Boolean(truth) => Some(*truth),
        _ => text(value)?.parse().ok(),
    };
    let schema = json!({ "type": "boolean" });
    let boolean = ValueType::new("true or false", parse, bool::to_string);
    boolean.schema(schema).mistaken_by(|value| {
        let given = match &value.kind {
            ValueKind::I64(number) => number.to_string(),
            _ => text(value)?.to_ascii_lowercase(),
        };
        let truth = match given.as_str() {
            "true" | "yes" | "y" | "on" | "1" | "enabled" => true,
            "false" | "no" | "n" | "off" | "0" | "disabled" => false,
            _ => return None,
        };
        Some(format!("did you mean {truth}?"))
    })
}

/// One of some words.
pub(super) fn one_of<T>(words: &'static [(&'static str, T)]) -> ValueType<'static, T>
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
    let texts: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let one_of = ValueType::new(names.join(" or "), parse, |meaning| {
        let named = words.iter().find(|(_, other)| other == meaning);
        format!("\"{}\"", named.map_or("", |(word, _)| word))
    });
    one_of.schema(json!({ "enum": texts }))
}

/// A string that fulfils `good`.
pub(super) fn string(allowed: &str, good: fn(&str) -> bool) -> ValueType<'static, String> {
    let parse = move |value: &Value| match &value.kind {
        ValueKind::String(text) if good(text) => Some(text.clone()),
        _ => None,
    };
    let schema = json!({ "type": "string" });
    ValueType::new(allowed, parse, |text| format!("{text:?}")).schema(schema)
}

/// A path that fulfils `good`.
pub(super) fn path(allowed: &str, good: fn(&str) -> bool) -> ValueType<'static, String> {
    let text = string(allowed, good);
    text.map(
        |path| foreign_path(&path).is_none().then_some(path),
        String::clone,
    )
    .mistaken_by(mistaken_path)
}

/// Returns true for a path that begins with a home, `~/x` or `~user/x`: only a shell knows it.
pub(super) fn is_in_home(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('~') else {
        return false;
    };
    let user = rest.split('/').next().unwrap_or_default();
    let is_user = user
        .chars()
        .all(|one| one.is_ascii_alphanumeric() || "_-".contains(one));
    rest.is_empty() || rest.contains('/') && is_user
}

/// Returns true for a text in one line that begins or ends as paths do. Folders of containers have long
/// names of hexadecimal digits.
fn is_plainly_path(text: &str) -> bool {
    let begins = ["/", "./", "../"].iter().any(|one| text.starts_with(one));
    let ends = text.rsplit_once('.').is_some_and(|(name, kind)| {
        !name.is_empty()
            && (1..=5).contains(&kind.len())
            && kind.bytes().all(|one| one.is_ascii_alphanumeric())
    });
    (begins || ends) && !text.contains(['\n', '\r'])
}

/// Returns the mistake of a path that only a shell or a browser understands, or that is the content of a
/// file with a key. A file that is really called so has a path that begins with `./`.
fn foreign_path(path: &str) -> Option<&'static str> {
    let variable = path.strip_prefix('$');
    // SEC-1: it would go on as a path, and be shown as one by each error of the file.
    if masking::is_key_content(path) && !is_plainly_path(path) {
        return Some(
            "it looks like the content of a file, did you mean its path? One that looks so begins with ./",
        );
    }
    let is_variable = variable
        .is_some_and(|name| name.starts_with(|one: char| one.is_ascii_uppercase()))
        || path
            .split_once("${")
            .is_some_and(|(_, rest)| rest.contains('}'));
    if is_in_home(path) {
        Some("~ is not your home here, did you mean the whole path?")
    } else if is_variable {
        Some("variables are not put in here, did you mean the whole path?")
    } else if path.starts_with("file:") {
        Some("it is an address, did you mean the path in it?")
    } else {
        None
    }
}

/// Says why a path cannot be used.
pub(super) fn mistaken_path(value: &Value) -> Option<String> {
    foreign_path(text(value)?).map(str::to_owned)
}

/// A secret in one line that fulfils `good`, without the blanks and line ends around it: those come
/// from files and shells, and cannot be sent.
pub(super) fn secret_text(allowed: &str, good: fn(&str) -> bool) -> ValueType<'static, String> {
    let parse = move |value: &Value| {
        let text = text(value)?;
        let is_line = !text.chars().any(char::is_control);
        (is_line && good(text)).then(|| text.to_owned())
    };
    let mistake = |value: &Value| {
        let has_control = text(value)?.chars().any(char::is_control);
        has_control.then(|| "it has a line end or a control character within".to_owned())
    };
    let secret = ValueType::new(allowed, parse, |text| format!("{text:?}"));
    ValueType {
        mistake,
        ..secret.secret().schema(json!({ "type": "string" }))
    }
}

/// An address to listen on.
pub(super) fn address() -> ValueType<'static, SocketAddr> {
    let allowed = "an address with a port, such as \"127.0.0.1:7070\"";
    let any = string(allowed, |_| true);
    let address = any.map(|text| text.trim().parse().ok(), SocketAddr::to_string);
    address.mistaken_by(|value| {
        let given = match &value.kind {
            ValueKind::I64(port) => port.to_string(),
            _ => text(value)?.to_owned(),
        };
        let (what, port) = match given.strip_prefix("localhost:") {
            Some(port) => ("a name", port),
            None => ("a port alone", given.trim_start_matches(':')),
        };
        let port = port.parse::<u16>().ok()?;
        Some(format!(
            "{what} is no address, did you mean \"127.0.0.1:{port}\"?"
        ))
    })
}

/// One of two types: the first that parses. `split` selects the type for display.
pub(super) fn either<'a, A: 'a, B: 'a, T: 'a>(
    first: ValueType<'a, A>,
    second: ValueType<'a, B>,
    join: impl Fn(OneOfTwo<A, B>) -> T + 'a,
    split: impl Fn(&T) -> OneOfTwo<A, B> + 'a,
) -> ValueType<'a, T> {
    let allowed = format!("{} or {}", first.allowed, second.allowed);
    let schema = any_of([first.schema.clone(), second.schema.clone()]);
    let either = ValueType::new(
        allowed,
        move |value| {
            let found = (first.parse)(value).map(OneOfTwo::First);
            found
                .or_else(|| (second.parse)(value).map(OneOfTwo::Second))
                .map(&join)
        },
        move |value| match split(value) {
            OneOfTwo::First(value) => (first.show)(&value),
            OneOfTwo::Second(value) => (second.show)(&value),
        },
    );
    either.schema(schema)
}

/// A value of one of two types.
pub(super) enum OneOfTwo<A, B> {
    First(A),
    Second(B),
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    #[test]
    fn cfg_1_no_path_of_any_key_is_taken_that_only_a_shell_understands() {
        const WEB: &str = "[dependencies.web]\nkind = \"http\"\nurl = \"https://127.0.0.1:1\"\n";
        const KG: &str = "[dependencies.kg]\nkind = \"mcp_stdio\"\n";
        let keys = [
            ("", "admin.state"),
            ("", "recorder.path"),
            ("", "gateway.access_log"),
            ("", "gateway.tls.cert"),
            ("", "gateway.auth.jwt.jwks_file"),
            ("", "fleet.credentials"),
            ("", "fleet.tls.ca"),
            (WEB, "dependencies.web.credentials"),
            (WEB, "dependencies.web.tls.ca"),
            (KG, "dependencies.kg.command"),
            (KG, "dependencies.kg.cwd"),
        ];
        for (path, reason) in [
            ("~", "~ is not your home here"),
            ("~/x.pem", "~ is not your home here"),
            ("~me/x.pem", "~ is not your home here"),
            ("$HOME/x.pem", "variables are not put in"),
            ("/data/${NAME}.pem", "variables are not put in"),
            ("file:///x.pem", "it is an address"),
        ] {
            for (text, key) in keys {
                let loader = Settings::loader().bare().toml(text).flag(key, path);
                let error = loader.load().expect_err(key);
                // A certificate alone has another one beside it.
                let all = error.problems().iter().filter(|one| one.key == key);
                let told: Vec<_> = all.filter_map(|one| one.reason.as_deref()).collect();
                assert!(
                    told.iter().any(|told| told.starts_with(reason))
                        || path == "~" && key == "gateway.access_log",
                    "{key} = {path}: {told:?}"
                );
            }
        }
        for path in [
            "./~x/$Y",
            "/volumes/0123456789abcdef0123456789abcdef0123456789abcdef/log",
            "aB3dE6gH9jK2mN5pQ8sT1vW4xY7z/trace.jsonl",
        ] {
            let odd = Settings::loader().bare().flag("recorder.path", path);
            assert!(odd.load().is_ok(), "{path}");
        }
    }
}
