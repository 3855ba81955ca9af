//! `breakerbox events --follow`: reads the event stream, and reconnects when it breaks.

use std::io::{self, Write};
use std::time::Duration;

use breakerbox_actors::printable_json;
use breakerbox_policy::CountedNoun;
use reqwest::Response;
use serde_json::Value;

use super::client::{ClientError, RemoteAdmin};
use super::table::plain;
use crate::cli::ExitReason;

/// Pause before reconnecting.
const AGAIN: Duration = Duration::from_secs(1);
/// Silence after which the connection is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Number of events that are shown first.
const LAST: usize = 10;
/// Maximum length of a line; the list of all dependencies is one line.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Writes one event.
pub(super) fn write(event: &Value, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", printable_json(&event.to_string()));
    }
    let text = |field: &str| plain(event[field].as_str().unwrap_or_default());
    let (time, subject, message) = (text("time"), text("subject"), text("message"));
    let id = plain(&event["id"].to_string());
    // HLT-2: the repeated probes of an outage are one line.
    let message = match event["folded"].as_u64() {
        Some(folded) => {
            let folded = CountedNoun(folded, "probe event");
            format!("{message} (and {folded} before it)")
        }
        None => message,
    };
    writeln!(out, "{time}  {id:>5}  {subject:<20}  {message}")
}

/// Writes events as they arrive, until interrupted: those after `since`, or else after the last ten.
pub(super) async fn follow(
    remote: &RemoteAdmin,
    since: Option<u64>,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let mut last = since;
    let mut met = false;
    if since.is_none() {
        // As `tail -f`: the first lines say where one is.
        let limit = LAST.to_string();
        match remote
            .object(&["api", "events"], &[("limit", &limit)], "events")
            .await
        {
            Ok(page) => {
                for event in page["events"].as_array().into_iter().flatten() {
                    write(event, json, out)?;
                }
                out.flush()?;
                last = page["last_id"].as_u64();
                met = true;
            }
            Err(failure) => return super::tell(&failure, err),
        }
    }
    loop {
        let read = async {
            match remote.stream(last).await {
                Ok(response) => {
                    met = true;
                    read(response, &mut last, json, out, err).await
                }
                Err(failure) => Ok(Some(failure)),
            }
        };
        let ended = tokio::select! {
            ended = read => ended?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitReason::Interrupted),
        };
        match ended {
            // At first the address is wrong; later the server may be restarting.
            Some(failure) if !met || !failure.is_away() => return super::tell(&failure, err),
            _ => writeln!(err, "breakerbox: the stream has ended; trying again")?,
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitReason::Interrupted),
        }
    }
}

/// Reads one stream to its end.
async fn read(
    mut response: Response,
    last: &mut Option<u64>,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Option<ClientError>> {
    let mut lines = Vec::new();
    let mut message = StreamMessage::default();
    // The server says something every ten seconds.
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE, response.chunk()).await {
        lines.extend_from_slice(&chunk);
        if lines.len() > MAX_LINE {
            let why = "the stream holds a line that is too long".to_owned();
            return Ok(Some(ClientError::Refused(why)));
        }
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            if message.data.len() + line.len() > MAX_LINE {
                let why = "the stream holds an event that is too long".to_owned();
                return Ok(Some(ClientError::Refused(why)));
            }
            let line = String::from_utf8_lossy(&line);
            let Some(message) = message.take(line.trim_end_matches(['\r', '\n'])) else {
                continue;
            };
            let data: Value = serde_json::from_str(&message.data).unwrap_or_default();
            match &*message.event {
                "event" => {
                    *last = data["id"].as_u64().or(*last);
                    write(&data, json, out)?;
                    out.flush()?;
                }
                "lagged" => {
                    let missed = data["missed"].as_u64().unwrap_or_default();
                    let missed = CountedNoun(missed, "event");
                    writeln!(err, "breakerbox: {missed} missed")?;
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

/// A server-sent event, partially received.
#[derive(Debug, Default)]
struct StreamMessage {
    event: String,
    data: String,
}

impl StreamMessage {
    /// Adds a line; returns the message once it is complete.
    fn take(&mut self, line: &str) -> Option<Self> {
        if line.is_empty() {
            let whole = std::mem::take(self);
            return (!whole.data.is_empty()).then_some(whole);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}
