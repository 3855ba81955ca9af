//! Servers that ask for a token, for credentials, for TLS; and what is told of them.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::replicas::{Replica, settings, stop};
use crate::server::{NatsServer, until};

const TOKEN: &str = "a-very-secret-word";

#[tokio::test]
async fn sec_1_a_token_lets_in_and_a_wrong_one_is_told_without_it() {
    let Some(server) =
        NatsServer::with(|_| format!("authorization {{ token: \"{TOKEN}\" }}")).await
    else {
        return;
    };
    let target = Arc::default();
    let right = settings(&server.url(), "right", &format!("token = \"{TOKEN}\""));
    assert!(!format!("{right:?}").contains(TOKEN));
    let right = Replica::start(right, &target).await;
    let wrong = settings(&server.url(), "wrong", "token = \"another-secret-word\"");
    let wrong = Replica::start(wrong, &target).await;
    until("the right one is in", || right.status().connected).await;
    assert!(wrong.call().await.0, "the other one decides alone");
    assert!(!wrong.status().connected);
    assert_eq!(right.status().replicas.len(), 1);
    stop(vec![right, wrong]).await;
}

#[tokio::test]
async fn sec_1_tls_with_certificates_of_both_sides() {
    let Some(server) = NatsServer::with(|folder| {
        certificates(folder);
        let at = |name: &str| folder.join(name).display().to_string();
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
            at("server.pem"),
            at("server.key"),
            at("ca.pem")
        )
    })
    .await
    else {
        return;
    };
    let at = |name: &str| server.file(name).display().to_string();
    let target = Arc::default();
    let (ca, cert, key) = (at("ca.pem"), at("client.pem"), at("client.key"));
    let both = format!("tls = {{ ca = \"{ca}\", cert = \"{cert}\", key = \"{key}\" }}");
    let known = Replica::start(settings(&server.url(), "known", &both), &target).await;
    let unknown = format!("tls = {{ ca = \"{ca}\" }}");
    let unknown = Replica::start(settings(&server.url(), "unknown", &unknown), &target).await;
    until("it is in", || known.status().connected).await;
    assert!(
        !unknown.status().connected,
        "without a certificate of its own"
    );
    stop(vec![known, unknown]).await;
}

#[tokio::test]
async fn sec_1_credentials_of_a_user_let_in() {
    let mut users = None;
    let Some(server) = NatsServer::with(|folder| {
        let (config, creds) = signed_accounts();
        std::fs::write(folder.join("user.creds"), &creds).unwrap();
        users = Some(creds);
        config
    })
    .await
    else {
        return;
    };
    let file = server.file("user.creds").display().to_string();
    let target = Arc::default();
    let own = settings(
        &server.url(),
        "signed",
        &format!("credentials = \"{file}\""),
    );
    let signed = Replica::start(own, &target).await;
    let stranger = Replica::start(settings(&server.url(), "stranger", ""), &target).await;
    until("it is in", || signed.status().connected).await;
    assert!(!stranger.status().connected);
    let told = format!("{:?} {:?}", signed.status(), stranger.status());
    let seed = users.unwrap();
    let seed = seed.lines().find(|line| line.starts_with("SU")).unwrap();
    assert!(!told.contains(seed));
    stop(vec![signed, stranger]).await;
}

/// Returns the configuration of a server that knows one account by an operator's signature, and the
/// credentials of a user of it.
fn signed_accounts() -> (String, String) {
    use nkeys::KeyPair as Nkey;
    let (operator, account, system, user) = (
        Nkey::new_operator(),
        Nkey::new_account(),
        Nkey::new_account(),
        Nkey::new_user(),
    );
    let all = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_account = serde_json::json!({ "limits": all, "type": "account", "version": 2 });
    let mut of_system = of_account.clone();
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        of_system["limits"].as_object_mut().unwrap().remove(limit);
    }
    let of_user = serde_json::json!({
        "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2,
    });
    let of_operator = serde_json::json!({ "type": "operator", "version": 2 });
    let operators = token(&operator, &operator, &of_operator);
    let accounts = token(&operator, &account, &of_account);
    let systems = token(&operator, &system, &of_system);
    let users = token(&account, &user, &of_user);
    let (account, system) = (account.public_key(), system.public_key());
    let config = format!(
        "operator: \"{operators}\"\nsystem_account: \"{system}\"\nresolver: MEMORY\n\
         resolver_preload: {{\n{account}: \"{accounts}\"\n{system}: \"{systems}\"\n}}"
    );
    let seed = user.seed().unwrap();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{users}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    (config, creds)
}

/// Returns a token of `subject`, signed by `issuer`.
fn token(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, nats: &serde_json::Value) -> String {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let claims = serde_json::json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(),
        "name": "a test", "sub": subject.public_key(), "nats": nats,
    });
    let head = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let body = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let signature = issuer.sign(body.as_bytes()).unwrap();
    format!("{body}.{}", encode(&signature))
}

/// Writes an authority, and a certificate of the server and of a client.
fn certificates(folder: &std::path::Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let signed = params.signed_by(&key, &ca).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), signed.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
