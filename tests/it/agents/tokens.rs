//! Items 52 and 53: sources of tokens, and the behaviour without a token.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use breakerbox::agents::Credentials;
use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::{EventKind, Health};
use breakerbox_policy::State;
use serde_json::{Value, json};

use super::{Rig, jump, run, service_error, until};
use crate::tools;

const KEEPER: &str = "vector_token/keeper";

/// Returns the delays of the keeper's restarts, in order.
fn waits(rig: &Rig) -> Vec<Duration> {
    let events = rig.runtime.events_since(0).into_iter();
    events
        .filter(|event| &*event.subject == KEEPER)
        .filter_map(|event| match event.kind {
            EventKind::RestartScheduled { after } => Some(after),
            _ => None,
        })
        .collect()
}

#[test]
fn item_52_a_token_endpoint_that_is_down_is_tried_again_by_the_supervisor() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let down = FakeFault::Google(503, "UNAVAILABLE", "The service is down.");
        rig.fakes.set(Operation::Token, Some(down));
        let vector = rig.vector(|_| {}).await;
        let web = rig.web(vec![rig.brave()]).await;
        let found = vector.search("breakers", 3).await.unwrap();
        assert_eq!(found.source.to_string(), "fallback:local_index");
        let health = rig.status("vector_embed").health;
        assert!(matches!(health, Health::Degraded { .. }), "{health}");
        assert!(
            web.search("breakers", 3).await.unwrap().is_primary(),
            "others serve"
        );
        // Without a caller, the keeper still retries, with growing delays.
        for number in 1..=4 {
            until(|| waits(&rig).len() >= number).await;
            jump(Duration::from_secs(10)).await;
        }
        let waits = waits(&rig);
        // Half a second twice, then twice as long each time; a little may have passed already.
        let least = [490, 490, 990, 1_990].map(Duration::from_millis);
        let slower = waits.iter().zip(least).all(|(wait, least)| *wait >= least);
        assert!(slower, "{waits:?}");
        assert!(rig.fakes.calls(Operation::Token) >= 4);
        rig.fakes.set(Operation::Token, None);
        let before = rig.fakes.calls(Operation::Token);
        jump(Duration::from_secs(60)).await;
        until(|| rig.fakes.calls(Operation::Token) > before).await;
        let found = vector.search("breakers", 3).await.unwrap();
        assert!(found.is_primary(), "{}", found.source);
        rig.finish().await;
    });
}

#[test]
fn item_53_a_refused_token_is_renewed_once_and_the_request_repeated_once() {
    run(async || {
        let rig = Rig::start(|settings| {
            settings.retry.max_attempts = crate::scripted::nonzero(3);
        })
        .await;
        let vector = rig.vector(|config| config.auto_fallback = false).await;
        vector.search("breakers", 3).await.unwrap();
        assert_eq!(rig.fakes.calls(Operation::Token), 1);
        rig.fakes.revoke_tokens();
        let found = vector.search("breakers", 3).await.unwrap();
        assert!(found.is_primary());
        let bearers: Vec<String> = rig
            .fakes
            .seen(Operation::Embed)
            .iter()
            .map(|seen| seen.headers["authorization"].to_str().unwrap().to_owned())
            .collect();
        let bearer = |number| format!("Bearer ya29.Kq7xZt4-{number}");
        assert_eq!(bearers, [bearer(1), bearer(1), bearer(2)]);
        assert_eq!(rig.fakes.calls(Operation::Token), 2);
        assert_eq!(rig.fakes.calls(Operation::Find), 2, "the new one at once");
        let status = rig.status("vector_embed");
        assert_eq!((status.counts.misconfigured, status.counts.failure), (0, 0));

        // The service refuses every token.
        let refused = FakeFault::Google(401, "UNAUTHENTICATED", "Invalid credentials.");
        rig.fakes.set(Operation::Embed, Some(refused));
        let error = service_error(vector.search("breakers", 3).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        assert_eq!(rig.fakes.calls(Operation::Embed), 3 + 2);
        assert_eq!(rig.fakes.calls(Operation::Token), 3);
        let status = rig.status("vector_embed");
        assert_eq!(
            (status.state, status.counts.misconfigured),
            (State::Closed, 1)
        );
        rig.finish().await;
    });
}

#[test]
fn item_53_what_the_token_endpoint_refuses_is_misconfigured_too() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let gone = FakeFault::Google(400, "INVALID_ARGUMENT", "invalid_grant");
        rig.fakes.set(Operation::Token, Some(gone));
        let vector = rig.vector(|config| config.auto_fallback = false).await;
        let error = service_error(vector.search("breakers", 3).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        let words = "no access token: the token endpoint answered 400";
        assert!(error.to_string().starts_with(words), "{error}");
        rig.finish().await;
    });
}

/// Decodes one part of a signed claim.
fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn item_53_a_service_account_signs_a_claim_for_its_token() {
    let Some(openssl) = tools::find(&["openssl"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new(&openssl);
        let output = command
            .current_dir(folder.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    openssl(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        "key.pem",
    ]);
    openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let url = rig.fakes.token_url();
        let key = json!({
            "type": "service_account", "project_id": "p", "private_key_id": "k1",
            "private_key": std::fs::read_to_string(at("key.pem")).unwrap(),
            "client_email": "agent@p.iam.gserviceaccount.com", "token_uri": url,
        });
        std::fs::write(at("account.json"), key.to_string()).unwrap();
        let account = Credentials::KeyFile(at("account.json"));
        let vector = rig.vector(|config| config.credentials = account).await;
        assert!(vector.search("breakers", 3).await.unwrap().is_primary());
        let seen = &rig.fakes.seen(Operation::Token)[0];
        let form = seen.body.as_str().unwrap();
        let (_, assertion) = form.split_once("assertion=").unwrap();
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        assert_eq!(
            decoded(header),
            json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" })
        );
        let claims = decoded(claims);
        assert_eq!(claims["iss"], "agent@p.iam.gserviceaccount.com");
        assert_eq!(claims["aud"], url);
        assert_eq!(
            claims["scope"],
            "https://www.googleapis.com/auth/cloud-platform"
        );
        let lasts = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(lasts, 3600);
        std::fs::write(at("signed"), signed).unwrap();
        std::fs::write(at("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let verify = [
            "dgst",
            "-sha256",
            "-verify",
            "public.pem",
            "-signature",
            "signature",
            "signed",
        ];
        assert!(openssl(&verify).contains("Verified OK"));
        rig.finish().await;
    });
}
