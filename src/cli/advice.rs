//! Advice for command lines that clap refuses: options that are keys of the configuration, and
//! commands of other tools.

use breakerbox::Settings;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands of other tools, and what does the same here.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &["start", "run", "server", "up", "daemon", "proxy", "sidecar"],
        "serve",
    ),
    (
        &[
            "validate",
            "lint",
            "test",
            "verify",
            "config",
            "configtest",
            "doctor",
        ],
        "check",
    ),
    (
        &[
            "ps", "list", "ls", "get", "show", "health", "stats", "top", "info",
        ],
        "status",
    ),
    (
        &["logs", "log", "tail", "watch", "history"],
        "events --follow",
    ),
    (
        &[
            "trip",
            "block",
            "isolate",
            "force-open",
            "force_open",
            "disconnect",
        ],
        "open NAME --reason TEXT",
    ),
    (
        &["enable", "unblock", "resume", "untrip"],
        "close NAME --reason TEXT",
    ),
    (&["bypass", "off"], "disable NAME --reason TEXT"),
    (
        &["new", "create", "generate", "setup", "add", "bootstrap"],
        "init",
    ),
    (&["completion", "complete"], "completions SHELL"),
    (
        &["reload", "refresh"],
        "serve, which reads changed files by itself, and on SIGHUP",
    ),
    (
        &["stop", "down", "kill"],
        "SIGTERM to the process: calls in flight end first",
    ),
    (&["version"], "--version"),
    (&["example", "sample", "quickstart"], "demo"),
];

/// Returns a line of advice, if there is any.
pub(crate) fn about(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => command(&given(error, ContextKind::InvalidSubcommand)?),
        ErrorKind::UnknownArgument => option(&given(error, ContextKind::InvalidArg)?),
        _ => None,
    }
}

fn given(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn command(given: &str) -> Option<String> {
    let mut all = COMMANDS.iter();
    let (_, ours) = all.find(|(names, _)| names.contains(&given))?;
    let shown = match ours.split(' ').next() {
        Some("SIGTERM" | "--version") => (*ours).to_owned(),
        _ => format!("breakerbox {ours}"),
    };
    Some(format!("here that is: {shown}"))
}

fn option(given: &str) -> Option<String> {
    let name = given
        .trim_start_matches('-')
        .split('=')
        .next()?
        .replace('-', "_");
    let short = match name.as_str() {
        "port" | "listen" | "address" | "host" => "gateway.bind",
        "log_level" | "verbose" | "v" | "debug" | "log" => {
            return Some(
                "log output is set by the variable RUST_LOG, such as RUST_LOG=debug".to_owned(),
            );
        }
        "config_file" | "c" | "f" | "file" | "conf" => {
            return Some("a folder with a file default.toml is given by --config DIR".to_owned());
        }
        other => other,
    };
    let keys = Settings::keys();
    let is_it = |key: &&String| {
        key.as_str() == short || key.split('.').next_back() == Some(short) && !short.is_empty()
    };
    let key = keys.iter().filter(is_it).min_by_key(|key| {
        let is_of_dependency = key.starts_with("dependencies.");
        (is_of_dependency, key.matches('.').count())
    })?;
    let key = key.replace('*', "NAME");
    let variable = key.to_ascii_uppercase().replace('.', "__");
    Some(format!(
        "{key} is a key of the configuration: set it in a file, or by the variable \
         BREAKERBOX__{variable}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_options_that_are_keys_and_commands_of_others_get_advice() {
        let said = |given| option(given).unwrap_or_default();
        assert!(said("--gateway.bind").contains("BREAKERBOX__GATEWAY__BIND"));
        assert!(said("--port").contains("gateway.bind is a key"));
        assert!(
            said("--failure-threshold=3").contains("dependencies.NAME.breaker.failure_threshold")
        );
        assert!(said("--verbose").contains("RUST_LOG"));
        assert_eq!(option("--qqq"), None);
        assert_eq!(
            command("validate").unwrap(),
            "here that is: breakerbox check"
        );
        assert_eq!(command("version").unwrap(), "here that is: --version");
        assert_eq!(command("qqq"), None);
    }
}
