//! Token sources: a service account's key file, or an endpoint on the same machine.

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
use crate::agents::ServiceError;
use crate::agents::failure::said;
use crate::agents::http::{HttpConnections, ServiceRequest, ServiceResponse, malformed};
use crate::config::Secret;
use crate::config::credentials;
use crate::policy::{Class, Symptom};
use crate::{Verdict, retry_after, tls};

/// Maximum lifetime of a claim that Google allows.
const CLAIM: Duration = Duration::from_secs(3600);

/// An endpoint that gives tokens to every client that reaches it, as the metadata server of a
/// machine in Google Cloud does.
#[derive(Debug)]
pub struct TokenEndpoint {
    url: String,
    http: HttpConnections,
}

/// A service account: its key signs a claim, and the claim is exchanged for a token.
#[derive(Debug)]
pub struct ServiceAccount {
    path: PathBuf,
    http: HttpConnections,
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
        async move { token(&self.http.send(asked, None).await?) }.boxed()
    }
}

impl TokenSource for ServiceAccount {
    fn fetch(&self) -> BoxFuture<'_, Result<Token, ServiceError>> {
        async move {
            let (assertion, url) = claim(&self.path)?;
            // Only the colons need escaping in a form; they are escaped here.
            let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
            let form = format!("grant_type={grant}&assertion={}", assertion.expose());
            let asked = ServiceRequest::post(url, "application/x-www-form-urlencoded", form);
            let answer = self.http.send(asked, None).await?;
            token(&answer).map_err(|error| error.without(&assertion))
        }
        .boxed()
    }
}

fn http() -> Result<HttpConnections, ServiceError> {
    let tls = tls::client().map_err(misconfigured)?;
    Ok(HttpConnections::new(tls, Some(Duration::from_secs(3))))
}

fn misconfigured(error: impl std::fmt::Display) -> ServiceError {
    let text = format!("the credentials cannot be used: {error}");
    ServiceError::new(Verdict::from(Class::Misconfigured), text)
}

/// Returns a signed claim and the URL of its exchange. `gcp_auth` reads the key and signs; its own
/// exchange is not used, since it tries four times and hides the status (rule LIM-4).
fn claim(path: &Path) -> Result<(Secret, String), ServiceError> {
    credentials::check(path).map_err(misconfigured)?;
    let text = std::fs::read_to_string(path).map_err(|error| misconfigured(error.kind()))?;
    let key: Value = serde_json::from_str(&text).map_err(|_| misconfigured("no JSON"))?;
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
    let account = CustomServiceAccount::from_json(&text).map_err(unusable)?;
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

fn token(answer: &ServiceResponse) -> Result<Token, ServiceError> {
    let status = answer.status;
    if status == 200 {
        let given: TokenResponse = answer.json()?;
        if given.access_token.is_empty() {
            return Err(malformed("its answer holds no token"));
        }
        return Ok(Token {
            text: Secret::new(given.access_token),
            lasts: Duration::from_secs(given.expires_in),
        });
    }
    let symptom = Symptom::Status(status);
    let verdict = match status {
        429 => Verdict::from(Class::Throttled).symptom(symptom),
        // A deleted key or a wrong clock fails every request.
        400..=499 => Verdict::from(Class::Misconfigured).symptom(symptom),
        _ => Verdict::from(symptom),
    };
    let verdict = match retry_after::read(status, &answer.headers, Some(&answer.body)) {
        Some(wait) => verdict.retry_after(wait),
        None => verdict,
    };
    let why = serde_json::from_slice(&answer.body).map_or_else(
        |_| String::new(),
        |TokenRefusal {
             error,
             error_description,
         }| { format!(": {} {}", said(&error), said(&error_description)) },
    );
    let text = format!("the token endpoint answered {status}{}", why.trim_end());
    Err(ServiceError::new(verdict, text))
}
