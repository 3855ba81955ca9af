//! Lines of a trace: header, settings, outcomes. Each is one JSON object.

use std::borrow::Cow;
use std::time::Duration;

use breakerbox_policy::{BreakerSettings, Class};
use serde::{Deserialize, Serialize};

use super::millis::{self, optional};
use super::settings;

/// The format that this version writes and reads.
pub(super) const FORMAT: u32 = 1;

/// Example of an outcome line, for error messages.
pub(super) const EXAMPLE: &str = r#"{"at_ms":12.345,"dependency":"web_search","duration_ms":3.2,"class":"success","retry_after_ms":null}"#;

/// An attempt that has ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutcomeLine<'a> {
    /// The time of its end, since the runtime's start.
    #[serde(rename = "at_ms", with = "millis")]
    pub(super) at: Duration,
    #[serde(borrow)]
    pub(super) dependency: Cow<'a, str>,
    #[serde(rename = "duration_ms", with = "millis")]
    pub(super) duration: Duration,
    #[serde(with = "ClassName")]
    pub(super) class: Class,
    #[serde(rename = "retry_after_ms", with = "optional", default)]
    pub(super) retry_after: Option<Duration>,
    /// Written only if true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) probe: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Class", rename_all = "snake_case")]
enum ClassName {
    Success,
    Failure,
    Throttled,
    Rejected,
    Misconfigured,
    Cancelled,
}

/// All other lines, tagged by their only key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OtherLine<'a> {
    Header(HeaderLine<'a>),
    #[serde(borrow)]
    Settings(Box<SettingsLine<'a>>),
}

/// The first line of each file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderLine<'a> {
    pub(super) format: u32,
    /// The version of the crate that wrote it.
    #[serde(borrow)]
    pub(super) version: Cow<'a, str>,
    /// Wall-clock time of the recorder's creation, equal in all files of one recorder.
    #[serde(borrow)]
    pub(super) started: Cow<'a, str>,
}

/// The breaker's settings from this time on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsLine<'a> {
    #[serde(rename = "at_ms", with = "millis")]
    pub(super) at: Duration,
    #[serde(borrow)]
    pub(super) dependency: Cow<'a, str>,
    #[serde(with = "settings::BreakerLine")]
    pub(super) breaker: BreakerSettings,
}

/// Appends a line.
///
/// # Errors  Never in practice: every field has a form in JSON.
pub(super) fn append(buffer: &mut Vec<u8>, line: &impl Serialize) -> serde_json::Result<()> {
    let before = buffer.len();
    let written = serde_json::to_writer(&mut *buffer, line);
    match written {
        Ok(()) => buffer.push(b'\n'),
        Err(_) => buffer.truncate(before),
    }
    written
}
