//! Credentials of callers: static tokens, and tokens that an issuer has signed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::fake_server::{FakeServer, FrontBed};
use crate::gateway::serve::http;
use crate::tools;

const KG: &str = "/kg/mcp";
const TOKEN: &str = "a-static-token-of-32-characters!";
const ISSUER: &str = "https://idp.example";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap()
}

/// A private key of an issuer.
enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn ec() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap())
    }

    /// `None` without the program that makes such keys.
    fn rsa() -> Option<Self> {
        let mut command = std::process::Command::new(tools::find(&["openssl"])?);
        command.args(["genpkey", "-algorithm", "RSA", "-outform", "DER"]);
        command.args(["-pkeyopt", "rsa_keygen_bits:2048"]);
        let made = command.output().unwrap();
        // Its versions write one form or the other.
        let read = RsaKeyPair::from_pkcs8(&made.stdout);
        let read = read.or_else(|_| RsaKeyPair::from_der(&made.stdout));
        Some(Self::Rsa(read.unwrap()))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed(_) => "EdDSA",
            Self::Ec(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Ed(key) => json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig",
                "x": b64(key.public_key()) }),
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": b64(&point[1..33]),
                    "y": b64(&point[33..]) })
            }
            Self::Rsa(key) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "kid": id, "alg": "RS256", "n": b64(public.n),
                    "e": b64(public.e) })
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm(), "kid": id, "typ": "JWT" });
        self.token_with(&header, claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let begin = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = self.sign(begin.as_bytes());
        format!("{begin}.{}", b64(signature))
    }
}

/// Claims of a good token, some of them replaced.
fn claims(change: Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": ["other", "kg"], "exp": now() + 300,
        "nbf": now() - 10, "scope": "read tools:call", "sub": "ada" });
    let (all, change) = (claims.as_object_mut().unwrap(), change);
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            all.remove(name);
        } else {
            all.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// The keys of an issuer, at an address.
#[derive(Clone)]
struct KeyServer {
    address: SocketAddr,
    keys: Arc<Mutex<Vec<Value>>>,
    hits: Arc<AtomicUsize>,
    server: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl KeyServer {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = Self {
            address: listener.local_addr().unwrap(),
            keys: Arc::new(Mutex::new(keys)),
            hits: Arc::default(),
            server: Arc::default(),
        };
        let app = Router::new().fallback(give).with_state(own.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        *own.server.lock().unwrap() = Some(server);
        own
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn auth(&self, more: &str) -> String {
        let address = self.address;
        format!(
            "auth = {{ jwt = {{ issuer = \"{ISSUER}\", audience = \"kg\", \
             jwks_url = \"http://{address}/keys\"{more} }} }}"
        )
    }
}

async fn give(State(own): State<KeyServer>) -> axum::Json<Value> {
    own.hits.fetch_add(1, Ordering::SeqCst);
    axum::Json(json!({ "keys": *own.keys.lock().unwrap() }))
}

/// Lists the tools with a token, and returns the status and the challenge.
async fn listed(bed: &FrontBed, token: Option<&str>) -> (u16, String) {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let sent: Vec<(&str, &str)> = bearer
        .iter()
        .map(|bearer| ("authorization", bearer.as_str()))
        .collect();
    let (status, headers, text) = bed.send(KG, "tools/list", json!({}), &sent).await;
    if let Some(token) = token.filter(|token| token.len() > 8) {
        assert!(!text.contains(token), "{text}");
    }
    let challenge = headers.get("www-authenticate");
    let challenge = challenge.map(|line| line.to_str().unwrap().to_owned());
    (status, challenge.unwrap_or_default())
}

#[tokio::test]
async fn mcp_6_m12_callers_present_one_of_the_tokens() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let auth = format!("auth = {{ tokens = [\"another-token-of-the-list\", \"{TOKEN}\"] }}");
    let bed = FrontBed::of(&fake.table("kg", &auth)).await;
    assert_eq!(listed(&bed, Some(TOKEN)).await.0, 200);
    let (status, challenge) = listed(&bed, None).await;
    assert_eq!(status, 401);
    assert_eq!(challenge, "Bearer realm=\"breakerbox\"");
    for wrong in ["x", &TOKEN[1..], &format!("{TOKEN}x"), "a.b.c"] {
        let (status, challenge) = listed(&bed, Some(wrong)).await;
        assert_eq!(status, 401, "{wrong}");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    let calls = bed.status("kg").totals.submitted;
    let bearer = format!("Bearer {TOKEN}");
    let sent = [("authorization", bearer.as_str())];
    let read = json!({ "name": "read", "arguments": {} });
    bed.send(KG, "tools/call", read, &sent).await;
    assert_eq!(bed.status("kg").totals.submitted, calls + 1);
    let (headers, _) = fake.seen("tools/call").pop().unwrap();
    assert!(
        !headers.contains_key("authorization"),
        "it is for the gateway"
    );
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_check_for_all_holds_for_every_route_without_its_own() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let text = format!(
        "[gateway.auth]\ntokens = [\"{TOKEN}\"]\n{}{}{}[dependencies.web]\nkind = \"http\"\nurl = \"http://{}\"\n",
        fake.table("kg", ""),
        fake.table("open", "auth = \"off\""),
        fake.table("own", "auth = { tokens = [\"the-token-of-own-alone\"] }"),
        fake.address,
    );
    let bed = FrontBed::of(&text).await;
    let status = async |path: &str, token: Option<&str>| {
        let mut asked = http()
            .post(bed.url(path))
            .body("{\"id\":1,\"method\":\"ping\"}");
        if let Some(token) = token {
            asked = asked.bearer_auth(token);
        }
        asked.send().await.unwrap().status().as_u16()
    };
    for path in ["/kg/mcp", "/web/x", "/own/mcp", "/"] {
        assert_eq!(status(path, None).await, 401, "{path}");
    }
    assert_ne!(status("/open/mcp", None).await, 401);
    assert_eq!(status("/own/mcp", Some(TOKEN)).await, 401);
    assert_ne!(
        status("/own/mcp", Some("the-token-of-own-alone")).await,
        401
    );
    assert_eq!(status("/web/x", Some(TOKEN)).await, 200);
    let (headers, _) = fake.seen("ping").pop().unwrap();
    assert!(
        !headers.contains_key("authorization"),
        "it is for the gateway"
    );
    // A reload takes it away, and brings it back.
    bed.reload(&fake.table("kg", "")).await;
    assert_ne!(status("/kg/mcp", None).await, 401);
    bed.reload(&text).await;
    assert_eq!(status("/kg/mcp", None).await, 401);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_signed_tokens_are_checked_in_every_respect() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let mut signers = vec![("ed", Signer::ed()), ("ec", Signer::ec())];
    signers.extend(Signer::rsa().map(|rsa| ("rsa", rsa)));
    let keys = signers.iter().map(|(id, signer)| signer.jwk(id)).collect();
    let server = KeyServer::start(keys).await;
    let auth = server.auth(", scopes = [\"tools:call\"]");
    let bed = FrontBed::of(&fake.table("kg", &auth)).await;
    let stranger = Signer::ec();
    for (id, signer) in &signers {
        let good = signer.token(id, &claims(json!({})));
        assert_eq!(listed(&bed, Some(&good)).await.0, 200, "{id}");
        let lenient = claims(json!({ "exp": now() - 30, "nbf": now() + 30, "aud": "kg" }));
        let good = signer.token(id, &lenient);
        assert_eq!(listed(&bed, Some(&good)).await.0, 200, "{id}");
        let (begin, _) = good.rsplit_once('.').unwrap();
        let forged = format!("{begin}.{}", b64(stranger.sign(begin.as_bytes())));
        assert_eq!(listed(&bed, Some(&forged)).await.0, 401, "{id}: forged");
    }
    let (id, signer) = &signers[0];
    for (change, why) in [
        (json!({ "exp": now() - 90 }), "the token has expired"),
        (
            json!({ "exp": null }),
            "the token lacks one of exp, iss and aud",
        ),
        (json!({ "exp": "soon" }), "the token"),
        (json!({ "nbf": now() + 90 }), "the token is not valid yet"),
        (
            json!({ "iss": "https://evil.example" }),
            "the token is from another issuer",
        ),
        (
            json!({ "iss": null }),
            "the token lacks one of exp, iss and aud",
        ),
        (
            json!({ "aud": "other" }),
            "the token is for another audience",
        ),
        (
            json!({ "aud": null }),
            "the token lacks one of exp, iss and aud",
        ),
    ] {
        let (status, challenge) = listed(&bed, Some(&signer.token(id, &claims(change)))).await;
        assert_eq!(status, 401, "{why}");
        let said = format!("error=\"invalid_token\", error_description=\"{why}");
        assert!(challenge.contains(&said), "{challenge}");
    }
    for scopes in [
        json!({ "scope": "read" }),
        json!({ "scope": null }),
        json!({ "scope": "tools:caller" }),
    ] {
        let (status, challenge) = listed(&bed, Some(&signer.token(id, &claims(scopes)))).await;
        assert_eq!(status, 403);
        assert!(
            challenge.contains("error=\"insufficient_scope\""),
            "{challenge}"
        );
        assert!(challenge.contains("scope=\"tools:call\""), "{challenge}");
    }
    let listing = claims(json!({ "scope": null, "scp": ["a", "tools:call"] }));
    assert_eq!(listed(&bed, Some(&signer.token(id, &listing))).await.0, 200);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_the_key_fixes_the_algorithm() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let (ed, ec) = (Signer::ed(), Signer::ec());
    let shared = json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": b64("a-shared-secret") });
    let server = KeyServer::start(vec![ed.jwk("ed"), ec.jwk("ec"), shared]).await;
    let bed = FrontBed::of(&fake.table("kg", &server.auth(""))).await;
    let good = ed.token("ed", &claims(json!({})));
    assert_eq!(listed(&bed, Some(&good)).await.0, 200);
    let body = b64(claims(json!({})).to_string());
    let with = |header: Value, signature: String| {
        format!("{}.{body}.{signature}", b64(header.to_string()))
    };
    let hmac = |header: Value, secret: &[u8]| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let begin = format!("{}.{body}", b64(header.to_string()));
        format!("{begin}.{}", b64(ring::hmac::sign(&key, begin.as_bytes())))
    };
    let Signer::Ed(pair) = &ed else {
        unreachable!()
    };
    let public = pair.public_key().as_ref().to_vec();
    let crossed = ec.token_with(&json!({ "alg": "ES256", "kid": "ed" }), &claims(json!({})));
    let critical = json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false });
    for (token, what) in [
        (with(json!({ "alg": "none" }), String::new()), "none"),
        (
            with(json!({ "alg": "None", "kid": "ed" }), String::new()),
            "None",
        ),
        (
            hmac(json!({ "alg": "HS256", "kid": "ed" }), &public),
            "a public key as secret",
        ),
        (
            hmac(json!({ "alg": "HS256", "kid": "oct" }), b"a-shared-secret"),
            "a shared secret",
        ),
        (
            hmac(json!({ "alg": "HS256" }), b"a-shared-secret"),
            "without an id",
        ),
        (crossed, "the key of another algorithm"),
        (
            ed.token_with(&critical, &claims(json!({}))),
            "unknown extensions",
        ),
    ] {
        assert_eq!(listed(&bed, Some(&token)).await.0, 401, "{what}");
    }
    // Without an id, the keys of the algorithm are tried.
    let unnamed = ec.token_with(&json!({ "alg": "ES256" }), &claims(json!({})));
    assert_eq!(listed(&bed, Some(&unnamed)).await.0, 200);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_keys_are_kept_and_read_again_when_one_is_new() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let (one, two) = (Signer::ec(), Signer::ed());
    let server = KeyServer::start(vec![one.jwk("one")]).await;
    let bed = FrontBed::of(&fake.table("kg", &server.auth(""))).await;
    let first = one.token("one", &claims(json!({})));
    let many: Vec<_> = (0..8).map(|_| listed(&bed, Some(&first))).collect();
    for (status, _) in futures_util::future::join_all(many).await {
        assert_eq!(status, 200);
    }
    assert_eq!(server.hits(), 1, "all of them waited for one answer");
    // The issuer has a new key, and the old one is gone.
    *server.keys.lock().unwrap() = vec![two.jwk("two")];
    let second = two.token("two", &claims(json!({})));
    assert_eq!(listed(&bed, Some(&second)).await.0, 200);
    assert_eq!(server.hits(), 2);
    assert_eq!(listed(&bed, Some(&first)).await.0, 401, "it was taken back");
    for number in 0..20 {
        let made_up = two.token(&format!("made-up-{number}"), &claims(json!({})));
        assert_eq!(listed(&bed, Some(&made_up)).await.0, 401);
    }
    assert_eq!(server.hits(), 2, "callers cannot flood the issuer");
    // It is down, and the known key goes on, over a reload too.
    server.server.lock().unwrap().take().unwrap().abort();
    assert_eq!(listed(&bed, Some(&second)).await.0, 200);
    bed.reload(&fake.table(
        "kg",
        &format!("{}\nidempotent = [\"read\"]", server.auth("")),
    ))
    .await;
    assert_eq!(listed(&bed, Some(&second)).await.0, 200);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_without_any_key_a_token_cannot_be_checked() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let signer = Signer::ec();
    let server = KeyServer::start(vec![]).await;
    let bed = FrontBed::of(&fake.table("kg", &server.auth(""))).await;
    let token = signer.token("one", &claims(json!({})));
    for _ in 0..3 {
        assert_eq!(listed(&bed, Some(&token)).await.0, 503);
    }
    assert_eq!(server.hits(), 1);
    assert_eq!(listed(&bed, None).await.0, 401);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_keys_may_stand_in_a_file() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let signer = Signer::ec();
    let folder = super::folder();
    let file = folder.path().join("keys.json");
    let keys = json!({ "keys": [{ "kty": "strange" }, signer.jwk("one")] });
    std::fs::write(&file, keys.to_string()).unwrap();
    let auth = format!(
        "auth = {{ jwt = {{ issuer = \"{ISSUER}\", audience = [\"kg\"], jwks_file = {file:?} }} }}"
    );
    let bed = FrontBed::of(&fake.table("kg", &auth)).await;
    let token = signer.token("one", &claims(json!({})));
    assert_eq!(listed(&bed, Some(&token)).await.0, 200);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_refusal_leads_to_the_authorization_server() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let server = KeyServer::start(vec![Signer::ec().jwk("one")]).await;
    let text = fake.table("kg", &server.auth(", scopes = [\"a\", \"b\"]"))
        + &fake.table("plain", &format!("auth = {{ tokens = [\"{TOKEN}\"] }}"));
    let bed = FrontBed::of(&text).await;
    let (status, challenge) = listed(&bed, None).await;
    assert_eq!(status, 401);
    let link = format!(
        "resource_metadata=\"{}\"",
        bed.url("/.well-known/oauth-protected-resource/kg/mcp")
    );
    assert!(challenge.contains(&link), "{challenge}");
    assert!(challenge.contains("scope=\"a b\""), "{challenge}");
    assert!(
        !challenge.contains("error="),
        "it has just not been asked before: {challenge}"
    );
    let get = async |path: &str| http().get(bed.url(path)).send().await.unwrap();
    let found = get("/.well-known/oauth-protected-resource/kg/mcp").await;
    assert_eq!(found.status(), 200);
    let document: Value = found.json().await.unwrap();
    let expected = json!({ "resource": bed.url(KG), "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"], "scopes_supported": ["a", "b"] });
    assert_eq!(document, expected);
    for path in ["/plain/mcp", "/none/mcp", "/kg", "/kg/mcp/x", ""] {
        let path = format!("/.well-known/oauth-protected-resource{path}");
        assert_eq!(get(&path).await.status(), 404, "{path}");
    }
    // Behind a proxy the gateway has another address.
    let auth = server
        .auth("")
        .replace("auth = {", "auth = { public_url = \"https://gw.example/\",");
    bed.reload(&fake.table("kg", &auth)).await;
    let found = get("/.well-known/oauth-protected-resource/kg/mcp").await;
    let document: Value = found.json().await.unwrap();
    assert_eq!(document["resource"], "https://gw.example/kg/mcp");
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_a22_tokens_of_each_listed_issuer_open_the_door_and_are_of_their_own_callers() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let signer = Signer::ed();
    let server = KeyServer::start(vec![signer.jwk("ed")]).await;
    let several = format!("issuer = [\"{ISSUER}\", \"https://v2.idp.example\"]");
    let auth = server
        .auth("")
        .replace(&format!("issuer = \"{ISSUER}\""), &several);
    let bed = FrontBed::of(&fake.table("kg", &auth)).await;
    let token = |issuer: Value| signer.token("ed", &claims(json!({ "iss": issuer })));
    for (issuer, expected) in [
        (json!(ISSUER), 200),
        (json!("https://v2.idp.example"), 200),
        (json!("https://v3.idp.example"), 401),
        (json!(format!("{ISSUER},https://v2.idp.example")), 401),
    ] {
        let (status, said) = listed(&bed, Some(&token(issuer.clone()))).await;
        assert_eq!(status, expected, "{issuer}: {said}");
    }
    let path = "/.well-known/oauth-protected-resource/kg/mcp";
    let document = http().get(bed.url(path)).send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    let servers = json!([ISSUER, "https://v2.idp.example"]);
    assert_eq!(document["authorization_servers"], servers);
    // The same subject of another issuer is another caller.
    let bearer = |issuer: Value| format!("Bearer {}", token(issuer));
    let first = bearer(json!(ISSUER));
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let sent = [("authorization", first.as_str())];
    let (_, headers, _) = bed.send(KG, "initialize", hello, &sent).await;
    let session = headers["mcp-session-id"].to_str().unwrap();
    for (issuer, expected) in [(json!(ISSUER), 200), (json!("https://v2.idp.example"), 404)] {
        let token = bearer(issuer);
        let sent = [
            ("authorization", token.as_str()),
            ("mcp-session-id", session),
        ];
        let (status, _, text) = bed.send(KG, "ping", json!({}), &sent).await;
        assert_eq!(status, expected, "{text}");
    }
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_a_renewed_token_of_the_same_subject_keeps_its_session() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let signer = Signer::ed();
    let server = KeyServer::start(vec![signer.jwk("ed")]).await;
    let bed = FrontBed::of(&fake.table("kg", &server.auth(""))).await;
    let token = |change: Value| format!("Bearer {}", signer.token("ed", &claims(change)));
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let first = token(json!({}));
    let sent = [("authorization", first.as_str())];
    let (_, headers, _) = bed.send(KG, "initialize", hello, &sent).await;
    let session = headers["mcp-session-id"].to_str().unwrap();
    for (change, expected) in [
        (json!({ "exp": now() + 900 }), 200),
        (json!({ "sub": "bob" }), 404),
        (json!({ "sub": null }), 404),
    ] {
        let renewed = token(change.clone());
        let sent = [
            ("authorization", renewed.as_str()),
            ("mcp-session-id", session),
        ];
        let (status, _, text) = bed.send(KG, "ping", json!({}), &sent).await;
        assert_eq!(status, expected, "{change}: {text}");
    }
    bed.end().await;
}
