//! The files of a configuration: which there are, and why one cannot be read. Nothing here parses them.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use breakerbox_actors::nearest_word;

use super::problem::{Problem, Warning};
use super::variable_names::ENVIRONMENT;

/// Maximum number of files that a message names.
const MAX_NAMES: usize = 8;
/// Maximum size of a file, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Returns true if nothing has this name. A name that may not be looked up is not missing.
pub(super) fn is_missing(path: &Path) -> bool {
    use ErrorKind::{NotADirectory, NotFound};
    let found = std::fs::symlink_metadata(path);
    found.is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
}

/// Returns true if the name is a valid file name within the directory.
pub(super) fn is_environment(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    !name.is_empty() && name.chars().all(plain)
}

/// Reads a file; `None` if it is missing.
///
/// # Errors  Anything else of that name: its reason names the path.
pub(super) fn read(path: &Path) -> Result<Option<String>, Box<Problem>> {
    if is_missing(path) {
        return Ok(None);
    }
    let allowed = "a file that can be read";
    let (reason, allowed) = match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => ("it is not a file".to_owned(), allowed),
        // EDGE-8: bounded before memory is taken by it.
        Ok(found) if found.len() > MAX_BYTES => {
            let megabytes = found.len() >> 20;
            let reason = format!("it has {megabytes} MB, which no configuration has");
            return Err(Box::new(Problem::of_layer(
                reason,
                "a file of at most 16 MB",
                &path.display().to_string(),
            )));
        }
        Ok(_) => match read_bounded(path).map(String::from_utf8) {
            Ok(Ok(text)) => return Ok(Some(text)),
            Ok(Err(error)) if is_utf_16(error.as_bytes()) => (
                // As the shell of Windows writes it with `>`.
                "it is text in UTF-16: save it as UTF-8".to_owned(),
                "TOML in UTF-8",
            ),
            Ok(Err(error)) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
                (format!("line {line} is not text in UTF-8"), "TOML in UTF-8")
            }
            Err(error) => (error.to_string(), allowed),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            ("it is a link to nothing".to_owned(), allowed)
        }
        Err(error) => (error.to_string(), allowed),
    };
    let place = path.display().to_string();
    Err(Box::new(Problem::of_layer(reason, allowed, &place)))
}

/// Returns true if a text begins with the mark of UTF-16.
fn is_utf_16(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])
}

/// Reads what a file had when its size was asked, even if it grows meanwhile.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the warning about a file that other users can change: it decides where calls go, with
/// which credentials, and which programs are started.
#[cfg(unix)]
pub(super) fn foreign(path: &Path) -> Option<Warning> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let found = std::fs::metadata(path).ok()?;
    let us = nix::unistd::geteuid().as_raw();
    let mode = found.permissions().mode() & 0o777;
    // A group of the owner alone, which has the owner's number, is the owner.
    let by_group = mode & 0o020 != 0 && found.gid() != found.uid();
    let text = if found.uid() != us && found.uid() != 0 {
        "another user owns it, and can change what is configured: use a file of the user that runs \
         this, or of root"
            .to_owned()
    } else if mode & 0o002 != 0 || by_group {
        format!(
            "others than its owner can change what is configured, its mode is {mode:03o}: 644 is \
             enough"
        )
    } else {
        return None;
    };
    Some(Warning {
        key: String::new(),
        text,
        origin: path.display().to_string(),
    })
}

/// Other systems have no owner and mode of this kind.
#[cfg(not(unix))]
pub(super) fn foreign(_: &Path) -> Option<Warning> {
    None
}

/// Describes why a path that was named is no folder of a configuration.
pub(super) fn no_folder(dir: &Path) -> Problem {
    let place = dir.display().to_string();
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if dir.is_file() {
        let allowed = format!("the folder that it is in: {}", parent.display());
        return Problem::of_layer("it is a file, not a folder", &allowed, &place);
    }
    let name = dir.file_name().map(|name| name.to_string_lossy());
    let folders = names(parent, |path| path.is_dir());
    let near = name.and_then(|name| {
        let near = nearest_word(&name, folders.iter().map(String::as_str));
        near.map(str::to_owned)
    });
    let reason = match near {
        Some(near) => format!("there is no such folder, did you mean {near}?"),
        None => "there is no such folder".to_owned(),
    };
    Problem::of_layer(reason, "a folder", &place)
}

/// Describes that a folder has no `default.toml`. `path`: of that file.
pub(super) fn no_default(path: &Path) -> Problem {
    // EDGE-7: a folder that was named has a configuration, or it is the wrong folder.
    let folder = path.parent().unwrap_or(path);
    let others = names(folder, |path| {
        let kind = path.extension().unwrap_or_default();
        let is_known = ["toml", "yaml", "yml", "json"]
            .iter()
            .any(|known| kind == *known);
        // Such as default.tml, or default.toml.txt.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        is_known || name.to_ascii_lowercase().starts_with("default")
    });
    let reason = match others.is_empty() {
        true => "there is no such file".to_owned(),
        false => format!(
            "there is no such file, the folder has {}",
            others.join(", ")
        ),
    };
    let allowed = "a folder with a file default.toml";
    Problem::of_layer(reason, allowed, &path.display().to_string())
}

/// Describes that the folder that is read without a request has no file of the environment, and what it
/// has in place of one.
pub(super) fn no_default_here(folder: &Path, environment: &str) -> Problem {
    let place = folder.display();
    let found = match std::fs::read_dir(folder) {
        Ok(_) => match names(folder, |_| true) {
            none if none.is_empty() => "it is empty".to_owned(),
            some => format!("it has {}", some.join(", ")),
        },
        Err(_) if folder.is_file() => "it is a file, not a folder".to_owned(),
        Err(_) if !folder.exists() => "it is a link to nothing".to_owned(),
        Err(error) => error.to_string(),
    };
    let own = match environment {
        "default" => String::new(),
        other => format!(" and no {other}.toml"),
    };
    let reason = format!("{place} has no default.toml{own}, so nothing is read from it: {found}");
    let allowed = format!(
        "a file {place}/default.toml, another folder with --config, or --simulate to simulate \
         services on purpose"
    );
    Problem::of_layer(reason, &allowed, &place.to_string())
}

/// Describes that an environment has no file. `own`: the path of that file.
pub(super) fn no_environment(environment: &str, own: &Path) -> Problem {
    let folder = own.parent().unwrap_or(own);
    let files = names(folder, |path| {
        path.extension().is_some_and(|kind| kind == "toml")
    });
    let known = files.iter().filter_map(|file| file.strip_suffix(".toml"));
    let known: Vec<&str> = known.filter(|name| *name != "default").collect();
    let lower = environment.to_lowercase();
    let near = match nearest_word(&lower, known.iter().copied()) {
        Some(near) => format!(", did you mean {near}?"),
        None => String::new(),
    };
    let reason = format!("there is no file for the environment {environment:?}{near}");
    let allowed = match known.is_empty() {
        true => "the name of a file in that folder; an empty one is enough".to_owned(),
        false => format!(
            "the name of a file in that folder: {}; an empty {environment}.toml is enough",
            known.join(", ")
        ),
    };
    Problem::of_layer(reason, &allowed, &own.display().to_string())
}

/// Returns the warning about a file with nearly the name of the environment, which has no file of its own.
/// `own`: the path of that file.
pub(super) fn nearly_named(environment: &str, own: &Path) -> Option<Warning> {
    let folder = own.parent()?;
    let files = names(folder, |path| {
        path.extension().is_some_and(|kind| kind == "toml")
    });
    let known = files.iter().filter_map(|file| file.strip_suffix(".toml"));
    let known: Vec<&str> = known.filter(|name| *name != "default").collect();
    let near = nearest_word(environment, known.iter().copied())?;
    Some(Warning {
        key: String::new(),
        text: format!("it is not read: the environment is {environment:?}, and not {near:?}"),
        origin: folder.join(format!("{near}.toml")).display().to_string(),
    })
}

/// Returns the warning about a file of a configuration that is in no folder of one. `path`: of the file.
pub(super) fn unread(path: &Path) -> Option<Warning> {
    let text = read(path).ok()??;
    let is_ours = text.lines().any(|line| {
        ["[dependencies", "[[dependencies"]
            .iter()
            .any(|begin| line.starts_with(begin))
    });
    is_ours.then(|| Warning {
        key: String::new(),
        text:
            "it is not read: without --config the folder config is, and there is none; --config . \
               reads it"
                .to_owned(),
        origin: path.display().to_string(),
    })
}

/// Describes a name that no file can have.
pub(super) fn bad_environment(environment: &str) -> Problem {
    let reason = format!("{environment:?} is not a name of an environment");
    Problem::of_layer(reason, "letters, digits, _ and -", ENVIRONMENT)
}

/// Describes that nothing is configured where simulated services must not stand in.
pub(super) fn no_configuration(environment: &str, folder: &Path) -> Problem {
    // EDGE-7: nothing is simulated in production, unless it is asked for.
    let place = folder.display();
    let reason = format!(
        "there is no configuration, so no dependency to protect: neither {place}/default.toml nor \
         {place}/{environment}.toml is there, and without files, services are simulated in the \
         environment \"development\" only"
    );
    let allowed = format!(
        "a file {place}/default.toml, another folder with --config, or --simulate to simulate \
         services on purpose"
    );
    Problem::of_layer(reason, &allowed, &format!("environment {environment:?}"))
}

/// Returns the first names in a folder, sorted.
fn names(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let found = entries.flatten().map(|entry| entry.path());
    let found = found.filter(|path| is_wanted(path));
    let mut names: Vec<String> = found
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names.truncate(MAX_NAMES);
    names
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    #[test]
    fn cfg_1_a_file_in_another_encoding_or_of_nearly_its_name_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let said = || {
            let loader = Settings::loader().dir(folder.path()).require_default_file();
            loader.load().unwrap_err().to_string()
        };
        std::fs::write(folder.path().join("default.tml"), "").unwrap();
        assert!(said().contains("the folder has default.tml"), "{}", said());
        let path = folder.path().join("default.toml");
        let wide: Vec<u8> = "a = 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
        std::fs::write(&path, [&[0xff, 0xfe], wide.as_slice()].concat()).unwrap();
        assert!(said().contains("UTF-16: save it as UTF-8"), "{}", said());
        std::fs::write(&path, b"# caf\xe9\n").unwrap();
        assert!(said().contains("line 1 is not text in UTF-8"), "{}", said());
    }

    #[test]
    fn edge_7_a_configuration_outside_of_a_folder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("default.toml");
        assert_eq!(super::unread(&path), None, "there is none");
        std::fs::write(&path, "[dependencies.web]\nkind = \"http\"\n").unwrap();
        let warning = super::unread(&path).unwrap();
        assert!(warning.text.contains("--config ."), "{warning}");
        std::fs::write(&path, "[package]\nname = \"a\"\n").unwrap();
        assert_eq!(super::unread(&path), None, "it is of another program");
    }
}
