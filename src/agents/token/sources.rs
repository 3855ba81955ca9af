//! Token sources: a service account's key file, or an endpoint on the same machine; and the reading
//! of their responses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gcp_auth::CustomServiceAccount;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SCOPE, Token, TokenSource};
use crate::Verdict;
use crate::agents::ServiceError;
use crate::agents::failure::clean_message;
use crate::agents::http::{ServicePort, ServiceRequest, ServiceResponse};
use crate::config::Secret;
use crate::config::credentials;
use crate::policy::{Class, Symptom};

/// Maximum lifetime of a claim that Google allows.
const CLAIM: Duration = Duration::from_secs(3600);

/// An endpoint that gives tokens to every client that reaches it, as the metadata server of a
/// machine in Google Cloud does.
#[derive(Debug)]
pub struct TokenEndpoint {
    url: String,
    http: ServicePort,
}

/// A service account: its key signs a claim, and the claim is exchanged for a token.
#[derive(Debug)]
pub struct ServiceAccount {
    path: PathBuf,
    http: ServicePort,
}

impl TokenEndpoint {
    /// Creates a source for the endpoint at this URL.
    ///
    /// # Errors  TLS cannot be set up.
    pub fn new(url: impl Into<String>) -> Result<Self, ServiceError> {
        Ok(Self {
            url: url.into(),
            http: http()?,
        })
    }
}

impl ServiceAccount {
    /// Creates a source for the account with this key file. The file is read again for each token,
    /// so that a key may be replaced while the program runs.
    ///
    /// # Errors  The file is missing, or is not such a key; or TLS cannot be set up.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, ServiceError> {
        let path = path.into();
        if let Some(exposed) = credentials::check(&path).map_err(misconfigured)? {
            tracing::warn!("the credentials can be read by others: {exposed}");
        }
        Ok(Self {
            path,
            http: http()?,
        })
    }
}

impl TokenSource for TokenEndpoint {
    fn fetch(&self) -> BoxFuture<'_, Result<Token, ServiceError>> {
        let asked = ServiceRequest::get(self.url.clone()).header("metadata-flavor", "Google");
        async move { token(&self.http.send_alone(asked).await?) }.boxed()
    }
}

impl TokenSource for ServiceAccount {
    fn fetch(&self) -> BoxFuture<'_, Result<Token, ServiceError>> {
        async move {
            credentials::check(&self.path).map_err(misconfigured)?;
            let text = read(&self.path)?;
            by_claim(&text, &self.http).await
        }
        .boxed()
    }
}

/// Exchanges a signed claim for a token. `text`: the key file's contents.
pub(super) async fn by_claim(text: &str, http: &ServicePort) -> Result<Token, ServiceError> {
    let (assertion, url) = claim(text)?;
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let fields = [("grant_type", grant), ("assertion", assertion.expose())];
    let answer = http
        .send_alone(ServiceRequest::post_form(url, &fields))
        .await?;
    token(&answer).map_err(|error| error.without(&assertion))
}

/// Returns the contents of a file with credentials.
pub(super) fn read(path: &Path) -> Result<String, ServiceError> {
    std::fs::read_to_string(path).map_err(|error| misconfigured(error.kind()))
}

/// Returns connections for token requests, with a limit of their own.
pub(super) fn http() -> Result<ServicePort, ServiceError> {
    ServicePort::new(Some(Duration::from_secs(3)))
}

pub(super) fn misconfigured(error: impl std::fmt::Display) -> ServiceError {
    ServiceError::misconfigured(format!("the credentials cannot be used: {error}"))
}

/// Returns a signed claim and the URL of its exchange. `gcp_auth` reads the key and signs; its own
/// exchange is not used, since it tries four times and hides the status (rule LIM-4).
fn claim(text: &str) -> Result<(Secret, String), ServiceError> {
    let key: Value = serde_json::from_str(text).map_err(|_| misconfigured("no JSON"))?;
    let field = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
    let url = field("token_uri").to_owned();
    let now = Timestamp::now().as_second();
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": field("private_key_id")});
    let claims = json!({
        "iss": field("client_email"), "scope": SCOPE, "aud": url,
        "iat": now, "exp": now + CLAIM.as_secs().cast_signed(),
    });
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let signed = [header, claims].map(|part| encode(part.to_string().as_bytes()));
    let signed = signed.join(".");
    // The crate's error is not passed on: it may quote the key.
    let unusable = |_| misconfigured("its private_key cannot be used to sign");
    let account = CustomServiceAccount::from_json(text).map_err(unusable)?;
    let signature = account.signer().sign(signed.as_bytes()).map_err(unusable)?;
    let assertion = Secret::new(format!("{signed}.{}", encode(&signature)));
    Ok((assertion, url))
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: u64,
}

/// Error response of an OAuth endpoint.
#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Returns the token of an OAuth endpoint's response.
pub(super) fn token(answer: &ServiceResponse) -> Result<Token, ServiceError> {
    if answer.status == 200 {
        let given: TokenResponse = answer.json()?;
        if given.access_token.is_empty() {
            return Err(ServiceError::malformed("its answer holds no token"));
        }
        return Ok(Token {
            text: Secret::new(given.access_token),
            lasts: Duration::from_secs(given.expires_in),
        });
    }
    Err(refused(answer))
}

/// Returns the error of a token endpoint's response.
pub(super) fn refused(answer: &ServiceResponse) -> ServiceError {
    let status = answer.status;
    let symptom = Symptom::Status(status);
    let verdict = match status {
        429 => Verdict::from(Class::Throttled).symptom(symptom),
        // A deleted key or a wrong clock fails every request.
        400..=499 => Verdict::from(Class::Misconfigured).symptom(symptom),
        _ => Verdict::from(symptom),
    };
    let verdict = match answer.retry_hint() {
        Some(wait) => verdict.retry_after(wait),
        None => verdict,
    };
    let why = serde_json::from_slice(&answer.body).map_or_else(
        |_| String::new(),
        |TokenRefusal {
             error,
             error_description,
         }| {
            format!(
                ": {} {}",
                clean_message(&error),
                clean_message(&error_description)
            )
        },
    );
    let text = format!("the token endpoint answered {status}{}", why.trim_end());
    ServiceError::new(verdict, text)
}
