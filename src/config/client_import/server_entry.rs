//! One server of a client's file, read as far as a dependency has a key for it.

use serde_json::{Map, Value};

use crate::config::masking::{is_sensitive, looks_secret, show_arguments};
use crate::config::url::is_http_url;

/// A server as it is to be written.
pub(super) struct ServerEntry {
    /// Name of the dependency.
    pub(super) name: String,
    /// Name in the client's file.
    pub(super) title: String,
    pub(super) place: ServerPlace,
    /// Reasons why it cannot be started as it is.
    pub(super) obstacles: Vec<String>,
    /// Members that were left out, and other remarks.
    pub(super) remarks: Vec<String>,
}

/// Location of a server.
pub(super) enum ServerPlace {
    Process {
        command: String,
        args: Vec<String>,
        cwd: Option<String>,
        env: Vec<NamedValue>,
    },
    Http {
        url: String,
        headers: Vec<NamedValue>,
    },
    Unknown,
}

/// A variable or a header.
pub(super) struct NamedValue {
    pub(super) name: String,
    pub(super) value: GivenValue,
}

/// The value of a variable or a header.
pub(super) enum GivenValue {
    /// A text.
    Plain(String),
    /// A secret that stands in the client's file.
    Secret(String),
    /// A text with references to variables of the client.
    Reference(String),
}

/// Members that every client has for its own use, or that are read elsewhere.
const KNOWN: [&str; 12] = [
    "type",
    "transport",
    "command",
    "args",
    "env",
    "cwd",
    "url",
    "serverUrl",
    "httpUrl",
    "headers",
    "disabled",
    "enabled",
];

impl ServerEntry {
    /// Reads a server. `name`: of the dependency.
    pub(super) fn read(name: &str, title: &str, entry: &Value) -> Self {
        let mut own = Self {
            name: name.to_owned(),
            title: title.to_owned(),
            place: ServerPlace::Unknown,
            obstacles: Vec::new(),
            remarks: Vec::new(),
        };
        let Some(entry) = entry.as_object() else {
            own.obstacles.push("it is no object".to_owned());
            return own;
        };
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let kind = text("type")
            .or_else(|| text("transport"))
            .unwrap_or_default();
        let url = ["url", "serverUrl", "httpUrl"]
            .iter()
            .find_map(|key| text(key));
        if let Some(command) = text("command") {
            own.read_process(command, entry);
        } else if let Some(url) = url {
            own.read_http(kind, url, entry);
        } else {
            let reason = "it has neither a command nor a url";
            own.obstacles.push(reason.to_owned());
        }
        if entry.get("disabled") == Some(&Value::Bool(true))
            || entry.get("enabled") == Some(&Value::Bool(false))
        {
            own.obstacles
                .push("it is disabled in the client".to_owned());
        }
        for key in entry.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
            let key = Value::from(key.as_str());
            own.remarks.push(format!("{key} is not taken over"));
        }
        own
    }

    fn read_process(&mut self, command: &str, entry: &Map<String, Value>) {
        let texts = entry.get("args").and_then(Value::as_array);
        let texts = texts.into_iter().flatten();
        let args: Vec<String> = texts
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .map(|one| resolved(&one))
            .collect();
        let command = resolved(command);
        let cwd = entry.get("cwd").and_then(Value::as_str).map(resolved);
        for (key, has) in [
            ("command", has_reference(&command)),
            ("args", args.iter().any(|one| has_reference(one))),
            ("cwd", cwd.as_deref().is_some_and(has_reference)),
        ] {
            if has {
                self.obstacles.push(format!(
                    "{key} has a reference such as ${{NAME}}, which this configuration does not \
                     resolve: write its value"
                ));
            }
        }
        if has_secrets(&args) {
            self.remarks.push(
                "args seem to contain a secret in plain text, which every user of this machine can \
                 see: use env if the server can"
                    .to_owned(),
            );
        }
        self.place = ServerPlace::Process {
            command,
            args,
            cwd,
            env: named_values(entry.get("env")),
        };
    }

    fn read_http(&mut self, kind: &str, url: &str, entry: &Map<String, Value>) {
        let url = resolved(url);
        let is_old = kind.eq_ignore_ascii_case("sse")
            || (kind.is_empty() && url.trim_end_matches('/').ends_with("/sse"));
        if is_old {
            let reason = "it uses the older transport HTTP+SSE; most such servers have an address \
                          for streamable HTTP too, often ending with /mcp";
            self.obstacles.push(reason.to_owned());
        }
        if has_reference(&url) {
            let reason = "url has a reference such as ${NAME}, which this configuration does not \
                          resolve: write its value";
            self.obstacles.push(reason.to_owned());
        } else if !is_http_url(&url) {
            let reason = "url is none that is allowed: http or https, without a user and a query; \
                          send keys as headers";
            self.obstacles.push(reason.to_owned());
        }
        self.place = ServerPlace::Http {
            url,
            headers: named_values(entry.get("headers")),
        };
    }
}

fn named_values(table: Option<&Value>) -> Vec<NamedValue> {
    let entries = table.and_then(Value::as_object).into_iter().flatten();
    let values = entries.map(|(name, value)| {
        let text = match value {
            Value::String(text) => resolved(text),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let value = if has_reference(&text) {
            GivenValue::Reference(text)
        } else if !text.is_empty() && (is_sensitive(name) || looks_secret(&text)) {
            GivenValue::Secret(text)
        } else {
            GivenValue::Plain(text)
        };
        NamedValue {
            name: name.clone(),
            value,
        }
    });
    values.collect()
}

/// Returns true if a text refers to a variable, an input or a folder of the client.
fn has_reference(text: &str) -> bool {
    text.split("${").skip(1).any(|rest| rest.contains('}'))
}

/// Replaces references with a default (`${NAME:-value}`) by the default.
fn resolved(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let Some(length) = rest[at..].find('}') else {
            break;
        };
        let (before, reference) = (&rest[..at], &rest[at + 2..at + length]);
        out.push_str(before);
        match reference.split_once(":-") {
            Some((_, default)) => out.push_str(default),
            None => out.push_str(&rest[at..=at + length]),
        }
        rest = &rest[at + length + 1..];
    }
    out.push_str(rest);
    out
}

/// Returns true if an argument seems to be a secret: by its form, or by the option before it.
fn has_secrets(args: &[String]) -> bool {
    let values: Vec<config::Value> = args
        .iter()
        .map(|text| config::Value::new(None, text.as_str()))
        .collect();
    let shown = show_arguments(&config::Value::new(None, values));
    shown.contains(super::super::masking::MASK)
}
