//! Variables that are set and empty: none of them sets a key, and none is passed over in silence.

use super::credential_names::is_credential_name;
use super::problem::{Problem, Warning};
use super::variable_names::PREFIX;

/// Last parts of keys that hold a secret, or a part of TLS.
const SECRETS: [&str; 5] = ["token", "tokens", "key", "credentials", "password"];
/// Sections without which callers or servers are not checked.
const GUARDS: [&str; 2] = ["auth", "tls"];

/// Variables with their values, and the description of one.
type Variables<'v> = (&'v [(String, String)], &'v dyn Fn(&str) -> String);

/// Reports the empty variables of `.env` and of the process environment, which is above it.
///
/// An empty secret is most often one that was not filled in: the gateway would be open, or a call
/// would go out without its key. It is a problem. Programs such as compose pass other variables on as
/// empty if they are not set, so that these are warned of.
///
/// # Source  Rule EDGE-7 in docs/rules.md.
pub(super) fn report(
    dotenv: Variables<'_>,
    process: Variables<'_>,
    mut found: (&mut Vec<Problem>, &mut Vec<Warning>),
) {
    let is_set = |name: &str| process.0.iter().any(|(other, _)| other == name);
    report_layer(dotenv, is_set, &mut found);
    report_layer(process, |_| false, &mut found);
}

fn report_layer(
    (variables, place): Variables<'_>,
    is_overridden: impl Fn(&str) -> bool,
    (problems, warnings): &mut (&mut Vec<Problem>, &mut Vec<Warning>),
) {
    let mut empty: Vec<&str> = variables
        .iter()
        .filter(|(name, value)| value.is_empty() && !is_overridden(name))
        .map(|(name, _)| &**name)
        .collect();
    empty.sort_unstable();
    empty.dedup();
    for name in empty {
        let Some(key) = name.strip_prefix(PREFIX).filter(|key| !key.is_empty()) else {
            continue;
        };
        let key = key.to_lowercase().replace("__", ".");
        if guards(&key) {
            problems.push(Problem {
                key,
                given: Some("\"\"".to_owned()),
                reason: Some(
                    "the variable is set and empty, so it would protect nothing".to_owned(),
                ),
                allowed: "a value, or to leave the variable out".to_owned(),
                origin: place(name),
                excerpt: None,
            });
        } else {
            warnings.push(Warning {
                key,
                text: "the variable is set and empty, which counts as not set".to_owned(),
                origin: place(name),
            });
        }
    }
}

/// Returns true for a key that is a secret, or that decides whether callers and servers are checked.
fn guards(key: &str) -> bool {
    let mut parts: Vec<&str> = key.split('.').collect();
    // The name of a dependency says nothing about the key.
    if matches!(parts.first(), Some(&("dependencies" | "consumers"))) && parts.len() > 1 {
        parts.remove(1);
    }
    let last = parts.last().copied().unwrap_or_default();
    let last = last.split('[').next().unwrap_or(last);
    let is_header = parts.len() > 1 && parts[parts.len() - 2] == "headers";
    SECRETS.contains(&last)
        || is_header && is_credential_name(&last.replace('_', "-"))
        || parts.iter().any(|part| GUARDS.contains(part))
}

#[cfg(test)]
mod tests {
    use super::guards;

    #[test]
    fn edge_7_keys_of_secrets_and_of_auth_are_known() {
        for key in [
            "admin.token",
            "gateway.auth",
            "gateway.auth.tokens",
            "gateway.auth.tokens[0]",
            "gateway.auth.jwt.audience",
            "gateway.tls.client_ca",
            "dependencies.web.key",
            "dependencies.web.headers.x-api-key",
            "dependencies.web.headers.x_api_key",
            "otel.headers.authorization",
            "dependencies.web.auth.tokens",
            "fleet.token",
        ] {
            assert!(guards(key), "{key}");
        }
        for key in [
            "gateway.bind",
            "dependencies.auth.url",
            "dependencies.web.key_header",
            "dependencies.web.headers.accept_language",
            "otel.headers",
            "dependencies.key",
            "dependencies.tls.timeout.attempt",
            "consumers.tokens.stream",
        ] {
            assert!(!guards(key), "{key}");
        }
    }
}
