//! `breakerbox init`: a first configuration of about ten lines, from arguments or questions.
//!
//! It overwrites nothing, and writes only what `check` accepts.

use std::fs::OpenOptions;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use breakerbox::Settings;
use breakerbox::config::{Problem, schema};
use breakerbox_actors::printable;

use crate::cli::{ExitReason, path};

/// Name of the file with the schema, beside the configuration.
const SCHEMA: &str = "breakerbox.schema.json";

/// Arguments of `breakerbox init`.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Directory to write to; it is created
    #[arg(long, value_name = "DIR", default_value = "config", value_parser = path())]
    config: PathBuf,
    /// Name of the dependency, a part of the path that callers use [default: asked for on a terminal,
    /// else from the address]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Address of the HTTP service to protect [default: asked for on a terminal]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Writes the configuration, and prints how to start and to call it.
pub(crate) fn run(
    arguments: &InitArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let path = arguments.config.join("default.toml");
    if std::fs::symlink_metadata(&path).is_ok() {
        writeln!(
            err,
            "breakerbox: {} is there already and stays as it is, allowed: another folder with \
             --config, or a section [dependencies.NAME] added by hand{}",
            shown(&path),
            section_to_add(arguments)
        )?;
        return Ok(ExitReason::WrongUse);
    }
    let given = (arguments.name.clone(), arguments.url.clone());
    let (name, url) = match given {
        (name, Some(url)) => (name.unwrap_or_else(|| name_of(&url)), url),
        given if io::stdin().is_terminal() => match ask(given, &mut io::stdin().lock(), err)? {
            Some(answers) => answers,
            None => return Ok(ExitReason::Interrupted),
        },
        _ => {
            writeln!(
                err,
                "breakerbox: the address of the service is missing, and there is no terminal to ask, \
                 allowed: breakerbox init --name NAME --url URL"
            )?;
            return Ok(ExitReason::WrongUse);
        }
    };
    let text = text(&name, &url);
    if let Err(error) = Settings::loader().bare().toml(&text).load() {
        writeln!(
            err,
            "breakerbox: nothing was written: {}",
            told(&error, (name.as_str(), url.as_str()))
        )?;
        return Ok(ExitReason::WrongUse);
    }
    if let Err(error) = write_files(&arguments.config, &path, &text) {
        writeln!(
            err,
            "breakerbox: {} cannot be written: {error}",
            shown(&path)
        )?;
        return Ok(ExitReason::Failed);
    }
    show_next(arguments, &path, &name, out)?;
    Ok(ExitReason::Done)
}

/// Returns the section for one more service, if its address is given and can be used.
fn section_to_add(arguments: &InitArgs) -> String {
    let Some(url) = &arguments.url else {
        return String::new();
    };
    let name = arguments.name.clone().unwrap_or_else(|| name_of(url));
    let whole = text(&name, url);
    match Settings::loader().bare().toml(&whole).load() {
        Ok(_) => format!(":\n\n{}", section(&name, url).trim_end()),
        Err(_) => String::new(),
    }
}

/// Asks for the missing values, until an answer can be used. Returns `None` at the end of the input.
fn ask(
    (mut name, mut url): (Option<String>, Option<String>),
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> io::Result<Option<(String, String)>> {
    loop {
        if url.is_none() {
            let question =
                "Address of the HTTP service to protect, such as http://127.0.0.1:9001: ";
            let Some(answer) = question_of(question, input, out)? else {
                return Ok(None);
            };
            url = Some(answer).filter(|answer| !answer.is_empty());
            continue;
        }
        let address = url.clone().unwrap_or_default();
        if name.is_none() {
            let usual = name_of(&address);
            let question =
                format!("Name for it, the first part of the path that callers use [{usual}]: ");
            let Some(answer) = question_of(&question, input, out)? else {
                return Ok(None);
            };
            name = Some(if answer.is_empty() { usual } else { answer });
        }
        let own = name.clone().unwrap_or_default();
        match Settings::loader().bare().toml(text(&own, &address)).load() {
            Ok(_) => return Ok(Some((own, address))),
            Err(error) => {
                writeln!(out, "{}", told(&error, (own.as_str(), address.as_str())))?;
                let is_name = !is_name(&own);
                if is_name {
                    name = None;
                } else {
                    (name, url) = (None, None);
                }
            }
        }
    }
}

fn question_of(
    question: &str,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> io::Result<Option<String>> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut line = String::new();
    let read = input.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

/// Returns the problems, of the values that were given and not of a file that is not there.
fn told(error: &breakerbox::config::ConfigError, (name, url): (&str, &str)) -> String {
    if !is_name(name) {
        return format!(
            "the name {:?} cannot be used{}, allowed: a name of at most 64 lower-case letters, digits, \
             _ and -, a letter first",
            printable(name),
            meant_name(name)
        );
    }
    let all = error.problems().iter();
    let of_url = all.clone().find(|problem| problem.key.ends_with(".url"));
    match of_url {
        Some(problem) => format!(
            "the address {} cannot be used{}, allowed: {}",
            problem.given.as_deref().map_or_else(
                || format!("{:?}", printable(url)),
                |given| printable(given).into_owned()
            ),
            reason_of(problem),
            problem.allowed
        ),
        None => error.to_string(),
    }
}

/// Returns the reason of a problem behind a colon, with the value that was probably meant.
fn reason_of(problem: &Problem) -> String {
    let reason = problem.reason.as_deref().map(printable);
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

/// Returns the name that was probably meant, as `check` tells it.
fn meant_name(name: &str) -> String {
    let table = format!("[dependencies.{}]\n", toml_text(name));
    let refused = Settings::loader().bare().toml(table).load().err();
    let problems = refused.iter().flat_map(|error| error.problems());
    let told = problems.filter_map(|problem| problem.reason.as_deref());
    let meant = told.filter_map(|reason| reason.split_once("did you mean "));
    let meant = meant.map(|(_, rest)| format!(": did you mean {}", printable(rest)));
    meant.take(1).collect()
}

fn is_name(name: &str) -> bool {
    let plain = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(letter)
    };
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.len() <= 64
        && name.chars().all(plain)
}

/// Returns a name for a service, from its host: `https://api.weather.example` is `weather`.
fn name_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', ':', '?', '#']).next().unwrap_or_default();
    let host = host.to_ascii_lowercase();
    let labels = host
        .split('.')
        .filter(|label| !["api", "www"].contains(label));
    let plain = |label: &str| {
        let kept = label
            .chars()
            .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-');
        kept.take(64).collect::<String>()
    };
    let mut labels = labels.map(plain);
    let first = labels.next().unwrap_or_default();
    match is_name(&first) && first != "localhost" {
        true => first,
        false => "service".to_owned(),
    }
}

/// Returns the configuration.
fn text(name: &str, url: &str) -> String {
    let section = section(name, url);
    format!(
        "#:schema ./{SCHEMA}\n\
         # Callers of {name} use the gateway's address with /{name} in place of the service's own:\n\
         # `breakerbox serve` prints it. `breakerbox check --all` shows every key and its default.\n\
         \n\
         {section}"
    )
}

/// Returns the section of one service.
fn section(name: &str, url: &str) -> String {
    let quoted = toml_text(url);
    format!(
        "[dependencies.{name}]\n\
         kind = \"http\"\n\
         url = {quoted}\n\
         timeout.attempt = \"10s\"            # one attempt takes at most so long\n\
         retry.max_attempts = 2             # a GET that failed is tried once more\n\
         breaker.failure_threshold = 5      # so many failures in a row open the breaker,\n\
         breaker.recovery_timeout = \"30s\"   # which lets a call try the service again after this\n"
    )
}

/// Returns a text as a basic string of TOML.
fn toml_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes the configuration, and the schema that it names unless there is one.
fn write_files(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    write_new(path, text)?;
    match write_new(&folder.join(SCHEMA), &schema()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written,
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn show_next(arguments: &InitArgs, path: &Path, name: &str, out: &mut dyn Write) -> io::Result<()> {
    let folder = &arguments.config;
    let place = match folder == Path::new("config") {
        true => String::new(),
        false => format!(" --config {}", shown(folder)),
    };
    // The address that serve will have, with the variables of this shell.
    let settings = Settings::loader().dir(folder).load();
    let bind = settings.as_ref().map_or_else(
        |_| breakerbox::config::GatewayConfig::default().bind,
        |settings| settings.gateway.bind,
    );
    let address = match bind.port() {
        0 => "GATEWAY".to_owned(),
        _ => format!("http://{bind}"),
    };
    writeln!(out, "wrote {}", shown(path))?;
    writeln!(out, "start:  breakerbox serve{place}")?;
    writeln!(out, "call:   curl -i {address}/{name}/")?;
    if bind.port() == 0 {
        writeln!(out, "where GATEWAY is the address that serve prints")?;
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    printable(&path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answers: &str) -> (Option<(String, String)>, String) {
        let mut told = Vec::new();
        let found = ask((None, None), &mut answers.as_bytes(), &mut told).unwrap();
        (found, String::from_utf8(told).unwrap())
    }

    #[test]
    fn ops_1_questions_are_asked_until_the_answers_can_be_used() {
        let answers = "not an address\n\nhttp://127.0.0.1:9001\nBad Name\nweather\n";
        let (found, told) = answered(answers);
        let expected = ("weather".to_owned(), "http://127.0.0.1:9001".to_owned());
        assert_eq!(found, Some(expected));
        assert!(
            told.contains("the address \"not an address\" cannot be used"),
            "{told}"
        );
        assert!(
            told.contains("the name \"Bad Name\" cannot be used"),
            "{told}"
        );
        let (found, told) = answered("https://api.weather.example/v1\n\n");
        assert_eq!(found.unwrap().0, "weather");
        assert!(told.contains("[weather]"), "{told}");
        assert_eq!(answered("http://127.0.0.1:1\n").0, None);
    }

    #[test]
    fn ops_1_a_refused_answer_comes_with_what_was_meant() {
        let refused = |name: &str, url: &str| {
            let error = Settings::loader().bare().toml(text(name, url)).load();
            told(&error.unwrap_err(), (name, url))
        };
        let said = refused("web", "localhost:9001");
        assert!(
            said.contains("did you mean \"http://localhost:9001\"?"),
            "{said}"
        );
        let said = refused("My Service", "http://a");
        assert!(said.contains("did you mean my-service?"), "{said}");
        let said = refused("", "http://a");
        assert!(!said.contains("did you mean"), "{said}");
    }

    #[test]
    fn ops_1_a_name_is_found_in_an_address() {
        for (url, name) in [
            ("https://api.weather.example", "weather"),
            ("http://payments:8080/x", "payments"),
            ("http://localhost:9001", "service"),
            ("http://127.0.0.1:9001", "service"),
            ("", "service"),
        ] {
            assert_eq!(name_of(url), name, "{url}");
        }
    }

    #[test]
    fn ops_1_the_text_is_valid_whatever_the_address_has() {
        let odd = text("web", "http://127.0.0.1:9001/a\"b\\c\u{7}");
        assert!(toml::de::DeTable::parse(&odd).is_ok(), "{odd}");
        let lines = text("web", "http://127.0.0.1:9001");
        assert!(lines.lines().count() <= 12, "{lines}");
        let settings = Settings::loader().bare().toml(lines).load().unwrap();
        assert!(settings.warnings().is_empty(), "{:?}", settings.warnings());
    }
}
