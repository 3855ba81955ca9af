//! The check of a signed token: signature, issuer, audience, times and scopes.
//!
//! The key decides which algorithms are possible. What the token says of itself is only compared:
//! otherwise a caller could choose an algorithm for which a public key is a secret.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::challenge::AuthRefusal;
use super::identity::CallerIdentity;
use super::key_cache::{KeyCache, VerificationKey};
use super::ring_provider;
use crate::config::JwtRules;

/// Maximum size of a token, in bytes; a longer one is not looked into.
const MAX_TOKEN: usize = 16 * 1024;
/// Tolerated difference between clocks, in seconds.
const LEEWAY: u64 = 60;

/// Checks tokens of issuers that share their keys.
pub(super) struct TokenVerifier {
    keys: KeyCache,
    validation: Validation,
    scopes: Vec<String>,
}

/// The claims that are not checked by the library.
#[derive(Deserialize)]
struct ScopeClaims {
    scope: Option<Value>,
    scp: Option<Value>,
    iss: Option<Value>,
    sub: Option<Value>,
}

impl ScopeClaims {
    /// The subject of the token; `None` if it names none.
    fn subject(&self) -> Option<CallerIdentity> {
        let subject = self.sub.as_ref()?.as_str()?;
        // MCP-6: equal subjects of two issuers are two callers, in each form of their names.
        let issuer = match &self.iss {
            Some(Value::String(issuer)) => issuer.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        Some(CallerIdentity::of_subject(&issuer, subject))
    }
}

impl TokenVerifier {
    pub(super) fn new(rules: &JwtRules, keys: KeyCache) -> Self {
        ring_provider::install();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&rules.issuers);
        validation.set_audience(&rules.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Self {
            keys,
            validation,
            scopes: rules.scopes.clone(),
        }
    }

    /// Checks a token, and returns its subject; `None` if it names none.
    ///
    /// # Errors  [`AuthRefusal`].
    pub(super) async fn verify(&self, token: &str) -> Result<Option<CallerIdentity>, AuthRefusal> {
        if token.len() > MAX_TOKEN {
            return Err(AuthRefusal::Invalid("the token is too long"));
        }
        let header = decode_header(token);
        let header = header.map_err(|_| AuthRefusal::Invalid("the token is not known"))?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: extensions that are not understood must be refused.
            return Err(AuthRefusal::Invalid(
                "the token has extensions that are not known",
            ));
        }
        let keys = self.keys.find(header.kid.as_deref(), header.alg).await?;
        let mut why = AuthRefusal::Invalid("the token is signed with a key that is not known");
        for key in keys {
            match self.verify_with(token, &key, header.alg) {
                Ok(claims) => {
                    self.check_scopes(&claims)?;
                    return Ok(claims.subject());
                }
                Err(refusal) => why = refusal,
            }
        }
        Err(why)
    }

    fn verify_with(
        &self,
        token: &str,
        key: &VerificationKey,
        claimed: Algorithm,
    ) -> Result<ScopeClaims, AuthRefusal> {
        // MCP-6: the key fixes the algorithm.
        if !key.algorithms.contains(&claimed) {
            return Err(AuthRefusal::Invalid(
                "the token's algorithm does not fit its key",
            ));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![claimed];
        let checked = decode::<ScopeClaims>(token, &key.key, &validation);
        let checked = checked.map_err(|error| AuthRefusal::Invalid(reason(error.kind())))?;
        Ok(checked.claims)
    }

    fn check_scopes(&self, claims: &ScopeClaims) -> Result<(), AuthRefusal> {
        let has = |wanted: &str| {
            [&claims.scope, &claims.scp]
                .into_iter()
                .flatten()
                .any(|claim| holds(claim, wanted))
        };
        if self.scopes.iter().all(|wanted| has(wanted)) {
            Ok(())
        } else {
            Err(AuthRefusal::Scope)
        }
    }
}

/// Returns true if a claim of scopes has this one: a text with spaces, or a list.
fn holds(claim: &Value, wanted: &str) -> bool {
    let in_text = |text: &str| text.split(' ').any(|one| one == wanted);
    match claim {
        Value::String(text) => in_text(text),
        Value::Array(all) => all.iter().filter_map(Value::as_str).any(in_text),
        _ => false,
    }
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of exp, iss and aud",
        _ => "the token is malformed",
    }
}
