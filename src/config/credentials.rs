//! Validation of a service-account key file at load time, before any use.
//!
//! Each problem has its own message. Messages never show contents of the file: they name missing
//! fields, not the values of other fields (rule SEC-1).

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

/// Allowed file, for error messages.
pub(super) const ALLOWED: &str = "the JSON key file of a service account";

/// Fields that a service-account key needs for signing.
const FIELDS: [&str; 5] = [
    "project_id",
    "private_key_id",
    "private_key",
    "client_email",
    "token_uri",
];

/// Other types of key files, and their descriptions.
const OTHERS: [(&str, &str); 3] = [
    ("authorized_user", "the login of a user"),
    ("external_account", "a federated identity"),
    ("impersonated_service_account", "an impersonation"),
];

/// Key files have about 2400 bytes; a longer one is another file.
const MAX_BYTES: u64 = 64 * 1024;

/// Reason why a file cannot be used as a service-account key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// There is no file.
    #[error("there is no such file")]
    Missing,
    /// It is a directory, a device or a pipe.
    #[error("it is not a file")]
    NotAFile,
    /// This process may not read it.
    #[error("it may not be read by this process")]
    Forbidden,
    /// Reading failed for another reason.
    #[error("it cannot be read: {0}")]
    Unreadable(ErrorKind),
    /// It is far longer than any key.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not text; it may be a key in the binary format P12.
    #[error("it is not text in UTF-8")]
    NotText,
    /// It is not JSON.
    #[error("it is not JSON (line {line}, column {column})")]
    NotJson {
        /// Line where parsing stopped.
        line: usize,
        /// Column where parsing stopped.
        column: usize,
    },
    /// It is JSON of another type.
    #[error("it is not the key of a service account{}", .0.map(|what| format!(" but {what}")).unwrap_or_default())]
    NotAServiceAccount(Option<&'static str>),
    /// Fields are missing or empty.
    #[error("it lacks {}", .0.join(", "))]
    MissingFields(Vec<&'static str>),
    /// The private key is not in PEM format.
    #[error("its private_key is not in the format PEM")]
    NotPem,
}

/// A key file that is readable by users other than its owner; it works all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("others than its owner may read it, its mode is {mode:03o} where 600 is enough")]
#[non_exhaustive]
pub struct Exposed {
    /// The Unix permission bits.
    pub mode: u32,
}

/// Checks a key file. Returns `Some` if it is usable, but readable by other users.
///
/// # Errors  [`CredentialsError`], with one variant for each problem.
pub fn check(path: &Path) -> Result<Option<Exposed>, CredentialsError> {
    let found = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => CredentialsError::Missing,
        ErrorKind::PermissionDenied => CredentialsError::Forbidden,
        other => CredentialsError::Unreadable(other),
    };
    let metadata = fs::metadata(path).map_err(found)?;
    // Checked before opening: opening a pipe would block until there is a writer.
    if !metadata.is_file() {
        return Err(CredentialsError::NotAFile);
    }
    if metadata.len() > MAX_BYTES {
        return Err(CredentialsError::TooLong);
    }
    let bytes = fs::read(path).map_err(found)?;
    let text = String::from_utf8(bytes).map_err(|_| CredentialsError::NotText)?;
    check_key(&text)?;
    Ok(exposed(&metadata))
}

fn check_key(text: &str) -> Result<(), CredentialsError> {
    let key: Value = serde_json::from_str(text).map_err(|error| CredentialsError::NotJson {
        line: error.line(),
        column: error.column(),
    })?;
    let Value::Object(key) = key else {
        return Err(CredentialsError::NotAServiceAccount(None));
    };
    match field(&key, "type") {
        None => {}
        Some("service_account") => {}
        Some(kind) => {
            let known = OTHERS.iter().find(|(other, _)| *other == kind);
            let what = known.map(|(_, what)| *what);
            return Err(CredentialsError::NotAServiceAccount(what));
        }
    }
    let wanted = ["type"].into_iter().chain(FIELDS);
    let missing: Vec<&str> = wanted.filter(|name| field(&key, name).is_none()).collect();
    if !missing.is_empty() {
        return Err(CredentialsError::MissingFields(missing));
    }
    let private_key = field(&key, "private_key").unwrap_or_default();
    if !private_key.starts_with("-----BEGIN ") {
        return Err(CredentialsError::NotPem);
    }
    Ok(())
}

/// Returns a non-empty string field.
fn field<'k>(key: &'k Map<String, Value>, name: &str) -> Option<&'k str> {
    let text = key.get(name)?.as_str()?.trim();
    (!text.is_empty()).then_some(text)
}

#[cfg(unix)]
fn exposed(metadata: &Metadata) -> Option<Exposed> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(Exposed { mode })
}

/// Other systems have no Unix permission bits.
#[cfg(not(unix))]
fn exposed(_: &Metadata) -> Option<Exposed> {
    None
}
