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
        ErrorKind::InvalidSubcommand => {
            let given = given(error, ContextKind::InvalidSubcommand)?;
            match is_of(error, "alerts") {
                true => Some(format!(
                    "breakerbox alerts shows those of all dependencies, breakerbox status {} one dependency",
                    plain_name(&given)
                )),
                false => command(&given),
            }
        }
        ErrorKind::UnknownArgument => {
            let given = given(error, ContextKind::InvalidArg)?;
            match given.as_str() {
                // As `tail -f`.
                "-f" if is_of(error, "events") => {
                    Some("new events are followed by --follow".to_owned())
                }
                "--name" if takes_name(error) => {
                    Some("the name stands by itself, without an option".to_owned())
                }
                word if !word.starts_with('-') => bare_word(error, word),
                // The other commands know it.
                "--config" | "--env" | "--admin" | "--json" => Some(format!(
                    "{given} stands behind a command that knows it, as in breakerbox check --config DIR"
                )),
                _ => option(&given),
            }
        }
        _ => None,
    }
}

fn given(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Returns true for a mistake in the arguments of a command.
fn is_of(error: &clap::Error, command: &str) -> bool {
    usage_has(error, |word| word == command)
}

/// Returns true for a mistake in the arguments of a command that takes the name of a dependency.
fn takes_name(error: &clap::Error) -> bool {
    usage_has(error, |word| ["<NAME>", "[NAME]"].contains(&word))
}

fn usage_has(error: &clap::Error, is_it: impl Fn(&str) -> bool) -> bool {
    match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string().split_whitespace().any(is_it),
        _ => false,
    }
}

/// Returns the advice about a word where a command takes options only.
fn bare_word(error: &clap::Error, word: &str) -> Option<String> {
    if is_of(error, "init") {
        Some("name and address have options: breakerbox init --name NAME --url URL".to_owned())
    } else if is_of(error, "serve") {
        Some("a folder with a file default.toml is given by --config DIR".to_owned())
    } else if is_of(error, "events") {
        let name = plain_name(word);
        Some(format!(
            "those of one dependency: breakerbox events | grep {name}"
        ))
    } else {
        None
    }
}

/// Returns a word that could be the name of a dependency, else a word for one.
fn plain_name(word: &str) -> &str {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    match word.chars().all(is_plain) {
        true => word,
        false => "NAME",
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
    let name = given.trim_start_matches('-').split('=').next()?;
    let short = match name.replace('-', "_").as_str() {
        "port" | "listen" | "address" | "host" | "bind" => "gateway.bind".to_owned(),
        "timeout" => "dependencies.timeout.attempt".to_owned(),
        "log_level" | "verbose" | "v" | "debug" | "log" => {
            return Some(
                "log output is set by the variable RUST_LOG, such as RUST_LOG=debug".to_owned(),
            );
        }
        "config_file" | "c" | "f" | "file" | "conf" => {
            return Some("a folder with a file default.toml is given by --config DIR".to_owned());
        }
        other => other.to_owned(),
    };
    let key = key_of(&short)?;
    let variable = key
        .to_ascii_uppercase()
        .replace('-', "_")
        .replace('.', "__");
    Some(format!(
        "{key} is a key of the configuration: set it in a file, or by the variable \
         BREAKERBOX__{variable}"
    ))
}

/// Returns the key that an option is called after: by its whole path, without the name of a dependency
/// or with one, by its path within a dependency, or by its last part.
fn key_of(option: &str) -> Option<String> {
    fn whole(key: &str) -> &str {
        key
    }
    fn within(key: &str) -> &str {
        key.strip_prefix("dependencies.*.").unwrap_or(key)
    }
    fn last(key: &str) -> &str {
        key.rsplit('.').next().unwrap_or(key)
    }
    let keys = Settings::keys();
    let keys = keys.iter().filter(|key| !key.contains('['));
    let keys: Vec<&str> = keys.map(String::as_str).collect();
    let find = |given: &str, of: fn(&str) -> &str| {
        let given = folded(given);
        let is_it = |key: &&&str| folded(of(key)) == given && !given.is_empty();
        let found = keys.iter().filter(is_it).min_by_key(|key| {
            let is_of_dependency = key.starts_with("dependencies.");
            (is_of_dependency, key.matches('.').count())
        });
        found.map(|key| key.replace('*', "NAME"))
    };
    let named = || {
        let (owner, rest) = option.split_once('.')?;
        let (name, rest) = rest.split_once('.')?;
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let found = find(&format!("{owner}.{rest}"), whole)?;
        let is_named = found.contains(".NAME.") && name.chars().all(is_name);
        is_named.then(|| found.replacen("NAME", name, 1))
    };
    find(option, whole)
        .or_else(named)
        .or_else(|| find(option, within))
        .or_else(|| find(option, last))
}

/// Returns a name without its separators, in small letters.
fn folded(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the advice about a command line, of commands with the arguments of ours.
    fn advice_about(line: &str) -> String {
        let command = |name: &'static str| clap::Command::new(name);
        let ack = command("ack");
        let all = command("breakerbox")
            .subcommand(command("init"))
            .subcommand(command("serve"))
            .subcommand(command("events"))
            .subcommand(command("status").arg(clap::Arg::new("name").value_name("NAME")))
            .subcommand(command("alerts").subcommand(ack));
        let words = std::iter::once("breakerbox").chain(line.split(' '));
        let refused = all.try_get_matches_from(words).unwrap_err();
        about(&refused).unwrap_or_default()
    }

    #[test]
    fn ops_1_options_that_are_keys_and_commands_of_others_get_advice() {
        let said = |given| option(given).unwrap_or_default();
        assert!(said("--gateway.bind").contains("BREAKERBOX__GATEWAY__BIND"));
        assert!(said("--port").contains("gateway.bind is a key"));
        assert!(
            said("--failure-threshold=3").contains("dependencies.NAME.breaker.failure_threshold")
        );
        assert!(said("--verbose").contains("RUST_LOG"));
        for (given, key) in [
            ("--timeout", "dependencies.NAME.timeout.attempt is"),
            ("--bind", "gateway.bind is"),
            ("--gateway-bind", "gateway.bind is"),
            ("--admin-token", "admin.token is"),
            ("--token", "admin.token is"),
            (
                "--breaker.failure_threshold",
                "dependencies.NAME.breaker.failure_threshold is",
            ),
            ("--dependencies.api.url", "dependencies.api.url is"),
            ("--fleet.timeout", "fleet.timeout is"),
        ] {
            assert!(said(given).starts_with(key), "{given}: {}", said(given));
        }
        let early = clap::Command::new("breakerbox")
            .subcommand(clap::Command::new("check"))
            .try_get_matches_from(["breakerbox", "--config", "a", "check"]);
        let advice = about(&early.unwrap_err()).unwrap_or_default();
        assert!(advice.contains("behind a command"), "{advice}");
        let refused = clap::Command::new("breakerbox")
            .subcommand(clap::Command::new("events"))
            .try_get_matches_from(["breakerbox", "events", "-f"]);
        let advice = about(&refused.unwrap_err()).unwrap_or_default();
        assert!(advice.contains("--follow"), "{advice}");
        for (line, expected) in [
            ("init web http://a", "init --name NAME --url URL"),
            ("serve own", "--config DIR"),
            ("events web", "breakerbox events | grep web"),
            ("events a;b", "grep NAME"),
            ("status --name web", "the name stands by itself"),
            ("alerts web", "breakerbox status web"),
        ] {
            let advice = advice_about(line);
            assert!(advice.contains(expected), "{line}: {advice}");
        }
        assert_eq!(option("--qqq"), None);
        assert_eq!(
            command("validate").unwrap(),
            "here that is: breakerbox check"
        );
        assert_eq!(command("version").unwrap(), "here that is: --version");
        assert_eq!(command("qqq"), None);
    }
}
