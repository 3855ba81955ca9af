//! Names of credentials: of headers, of parameters, and of variables alike.
//!
//! They are told by patterns: each service has names of its own, and a list of the known ones would
//! always lack the next.

/// Parts of names that carry credentials, without separators.
const SECRET_PARTS: [&str; 22] = [
    "accesskey",
    "accesspat",
    "apikey",
    "assertion",
    "bearer",
    "codeverifier",
    "cookie",
    "credential",
    "csrf",
    "devicecode",
    "dpop",
    "jwt",
    "keyid",
    "passcode",
    "passphrase",
    "passw",
    "saml",
    "secret",
    // PHPSESSID; the whole word has a place in others.
    "sessid",
    "session",
    "signature",
    "xsrf",
];

/// Words that are credentials as a whole part of a name, between its separators.
const SECRET_WORDS: [&str; 23] = [
    "2fa", "basic", "cred", "creds", "crumb", "hmac", "mfa", "otp", "pass", "pat", "pin", "psw",
    "pswd", "pw", "pwd", "sess", "sid", "sig", "sign", "sso", "ticket", "totp", "verifier",
];

/// Returns true for a name of a header, a parameter or a variable that says that its value is a
/// credential.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut bare = String::with_capacity(name.len());
    for word in name.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        // EDGE-2: one list decides in headers, in addresses and in texts for people.
        if SECRET_WORDS.contains(&word) {
            return true;
        }
        bare.push_str(word);
    }
    SECRET_PARTS.iter().any(|part| bare.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_2_e2e_a_name_says_that_its_value_is_a_credential() {
        for name in [
            "x-pat",
            "PHPSESSID",
            "code_verifier",
            "user[password]",
            "2FA",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["", "path", "design", "process_id", "country_code", "tenant"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
