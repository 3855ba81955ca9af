//! Files with credentials of every kind that Google's tools write: the key of a service account, the
//! login of a user, a federated identity, an impersonation.
//!
//! A federated identity is a workload outside of Google Cloud: it exchanges a token of its own
//! provider, which stands in a file or comes from a URL, for one of Google's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::sources::{by_claim, http, misconfigured, read, refused, token};
use super::{SCOPE, Token, TokenSource};
use crate::agents::ServiceError;
use crate::agents::http::{ServicePort, ServiceRequest};
use crate::config::Secret;
use crate::config::credentials::{self, CredentialsError};

/// The endpoint that exchanges the refresh token of a user.
const USER_TOKENS: &str = "https://oauth2.googleapis.com/token";
/// Lifetime of the token of an impersonated account, in seconds, unless the file sets another.
const LIFETIME: u64 = 3600;

/// A file with credentials of any kind. It is read again for each token, so that it may be replaced
/// while the program runs.
#[derive(Debug)]
pub struct CredentialFile {
    path: PathBuf,
    http: ServicePort,
    quota_project: Option<String>,
}

impl CredentialFile {
    /// Creates a source for this file.
    ///
    /// # Errors  The file is missing, or its credentials cannot be used; or TLS cannot be set up.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, ServiceError> {
        let path = path.into();
        if let Ok(Some(exposed)) = credentials::check(&path) {
            tracing::warn!("the credentials can be read by others: {exposed}");
        }
        let file = parsed(&path)?;
        Ok(Self {
            quota_project: text(&file, "quota_project_id").ok().map(str::to_owned),
            path,
            http: http()?,
        })
    }
}

impl TokenSource for CredentialFile {
    fn fetch(&self) -> BoxFuture<'_, Result<Token, ServiceError>> {
        async move { fetch(&parsed(&self.path)?, &self.http).await }.boxed()
    }

    fn quota_project(&self) -> Option<String> {
        self.quota_project.clone()
    }
}

/// Returns the problem of a file with credentials; `None` if it can be used.
pub(super) fn problem(path: &Path) -> Option<String> {
    parsed(path).err().map(|error| {
        let text = error.to_string();
        let text = text.strip_prefix("the credentials cannot be used: ");
        text.map_or_else(|| error.to_string(), str::to_owned)
    })
}

/// Reads a file and checks that it has the fields of its kind.
fn parsed(path: &Path) -> Result<Value, ServiceError> {
    match credentials::check(path) {
        Ok(_) | Err(CredentialsError::NotAServiceAccount(_)) => {}
        Err(error) => return Err(misconfigured(error)),
    }
    let file: Value = serde_json::from_str(&read(path)?).map_err(|_| misconfigured("no JSON"))?;
    check(&file)?;
    Ok(file)
}

fn check(file: &Value) -> Result<(), ServiceError> {
    let needed: &[&str] = match file.get("type").and_then(Value::as_str) {
        Some("service_account") => &["client_email", "private_key", "token_uri"],
        Some("authorized_user") => &["client_id", "client_secret", "refresh_token"],
        Some("external_account") => {
            subject_source(file)?;
            &["audience", "subject_token_type", "token_url"]
        }
        Some("impersonated_service_account") => {
            check(file.get("source_credentials").unwrap_or(&Value::Null))?;
            &["service_account_impersonation_url"]
        }
        _ => {
            let allowed = "service_account, authorized_user, external_account or \
                           impersonated_service_account";
            return Err(misconfigured(format!(
                "its type is unknown, allowed is {allowed}"
            )));
        }
    };
    needed
        .iter()
        .try_for_each(|name| text(file, name).map(|_| ()))
}

fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str, ServiceError> {
    let found = value.get(name).and_then(Value::as_str);
    let found = found.filter(|text| !text.trim().is_empty());
    found.ok_or_else(|| misconfigured(format!("it lacks {name}")))
}

/// Requests a token with checked credentials.
fn fetch<'a>(file: &'a Value, http: &'a ServicePort) -> BoxFuture<'a, Result<Token, ServiceError>> {
    async move {
        match text(file, "type")? {
            "service_account" => by_claim(&file.to_string(), http).await,
            "authorized_user" => refresh(file, http).await,
            "external_account" => {
                let token = exchange(file, http).await?;
                if file.get("service_account_impersonation_url").is_none() {
                    return Ok(token);
                }
                impersonate(file, &token, http).await
            }
            _ => {
                let source = file.get("source_credentials").unwrap_or(&Value::Null);
                let token = fetch(source, http).await?;
                impersonate(file, &token, http).await
            }
        }
    }
    .boxed()
}

/// Requests a token with the refresh token of a user.
async fn refresh(file: &Value, http: &ServicePort) -> Result<Token, ServiceError> {
    let url = text(file, "token_uri").unwrap_or(USER_TOKENS);
    let secrets = [text(file, "client_secret")?, text(file, "refresh_token")?];
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", text(file, "client_id")?),
        ("client_secret", secrets[0]),
        ("refresh_token", secrets[1]),
    ];
    let answer = http
        .send_alone(ServiceRequest::post_form(url, &fields))
        .await?;
    token(&answer).map_err(|error| hidden(error, &secrets))
}

fn hidden(error: ServiceError, secrets: &[&str]) -> ServiceError {
    secrets
        .iter()
        .fold(error, |error, secret| error.without(&Secret::new(*secret)))
}

/// Source of the token of another identity provider.
enum SubjectSource<'v> {
    File(&'v str),
    Url(&'v str),
}

fn subject_source(file: &Value) -> Result<SubjectSource<'_>, ServiceError> {
    let source = file.get("credential_source").unwrap_or(&Value::Null);
    if source.get("environment_id").is_none() {
        if let Ok(path) = text(source, "file") {
            return Ok(SubjectSource::File(path));
        }
        if let Ok(url) = text(source, "url") {
            return Ok(SubjectSource::Url(url));
        }
    }
    let problem = "its credential_source is of an unknown kind, allowed are file and url";
    Err(misconfigured(problem))
}

/// Returns the token of the other identity provider.
async fn subject_token(file: &Value, http: &ServicePort) -> Result<Secret, ServiceError> {
    let source = file.get("credential_source").unwrap_or(&Value::Null);
    let given = match subject_source(file)? {
        SubjectSource::File(path) => std::fs::read_to_string(path).map_err(|error| {
            misconfigured(format!("the file of credential_source: {}", error.kind()))
        })?,
        SubjectSource::Url(url) => {
            let mut asked = ServiceRequest::get(url);
            let headers = source.get("headers").and_then(Value::as_object);
            for (name, value) in headers.into_iter().flatten() {
                asked = asked.secret_header(name.as_str(), value.as_str().unwrap_or_default())?;
            }
            let answer = http.send_alone(asked).await?;
            if answer.status != 200 {
                return Err(refused(&answer));
            }
            String::from_utf8_lossy(&answer.body).into_owned()
        }
    };
    let format = source.get("format").unwrap_or(&Value::Null);
    if format.get("type").and_then(Value::as_str) != Some("json") {
        return Ok(Secret::new(given.trim()));
    }
    let field = text(format, "subject_token_field_name")?;
    let given: Value = serde_json::from_str(&given).unwrap_or_default();
    let missing = |_| misconfigured(format!("its subject token lacks the field {field}"));
    text(&given, field).map(Secret::new).map_err(missing)
}

/// Exchanges the token of another identity provider for one of Google's.
///
/// # Source  RFC 8693, as Google's Security Token Service implements it.
async fn exchange(file: &Value, http: &ServicePort) -> Result<Token, ServiceError> {
    let subject = subject_token(file, http).await?;
    let mut fields = vec![
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("audience", text(file, "audience")?),
        ("scope", SCOPE),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("subject_token_type", text(file, "subject_token_type")?),
        ("subject_token", subject.expose()),
    ];
    let project = text(file, "workforce_pool_user_project").ok();
    let options = project.map(|project| json!({ "userProject": project }).to_string());
    if let Some(options) = &options {
        fields.push(("options", options));
    }
    let mut asked = ServiceRequest::post_form(text(file, "token_url")?, &fields);
    let secret = text(file, "client_secret").unwrap_or_default();
    if let Ok(client) = text(file, "client_id") {
        let pair = STANDARD.encode(format!("{client}:{secret}"));
        asked = asked.secret_header(AUTHORIZATION, &format!("Basic {pair}"))?;
    }
    let answer = http.send_alone(asked).await?;
    token(&answer).map_err(|error| hidden(error, &[subject.expose(), secret]))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImpersonatedToken {
    access_token: String,
    /// Date and time of RFC 3339.
    expire_time: String,
}

/// Requests the token of a service account with the token of an identity that may act as it.
async fn impersonate(file: &Value, own: &Token, http: &ServicePort) -> Result<Token, ServiceError> {
    let lifetime = file.pointer("/service_account_impersonation/token_lifetime_seconds");
    let lifetime = lifetime.and_then(Value::as_u64).unwrap_or(LIFETIME);
    let body = json!({
        "scope": [SCOPE], "lifetime": format!("{lifetime}s"),
        "delegates": file.get("delegates").filter(|list| list.is_array()).unwrap_or(&json!([])),
    });
    let url = text(file, "service_account_impersonation_url")?;
    let asked = ServiceRequest::post_json(url, &body).bearer(&own.text)?;
    let answer = http.send_alone(asked).await?;
    if answer.status != 200 {
        return Err(refused(&answer).without(&own.text));
    }
    let given: ImpersonatedToken = answer.json()?;
    let end: Timestamp = given
        .expire_time
        .parse()
        .map_err(|_| ServiceError::malformed("its answer holds no date"))?;
    let left = end.duration_since(Timestamp::now());
    Ok(Token {
        text: Secret::new(given.access_token),
        lasts: Duration::try_from(left).unwrap_or_default(),
    })
}
