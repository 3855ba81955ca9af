//! Credentials of every kind that Google's tools write.

use std::path::PathBuf;

use breakerbox::agents::fakes::{FakeFault, FakeRequest, Operation};
use breakerbox::agents::health::CheckStatus;
use breakerbox::agents::{Credentials, VectorSearch};
use serde_json::{Value, json};

use super::{Rig, run, service_error};

const SECRET: &str = "GOCSPX-q81Zr7";
const REFRESH: &str = "1//0gLq-77Zk4R";
const SUBJECT: &str = "eyJhbGciOi.Qx7Kp";

/// Writes a file with these credentials, and starts a search with it.
async fn search(rig: &Rig, file: &Value) -> (tempfile::TempDir, VectorSearch) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("application_default_credentials.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let vector = rig.vector(|config| {
        config.credentials = Credentials::KeyFile(path);
        config.auto_fallback = false;
    });
    let vector = vector.await;
    (folder, vector)
}

fn form(seen: &FakeRequest) -> Vec<&str> {
    seen.body.as_str().unwrap().split('&').collect()
}

fn login(rig: &Rig) -> Value {
    json!({
        "type": "authorized_user", "client_id": "764086051850-x.apps.googleusercontent.com",
        "client_secret": SECRET, "refresh_token": REFRESH, "token_uri": rig.fakes.token_url(),
        "quota_project_id": "billing-1",
    })
}

#[test]
fn agents_the_login_of_a_user_is_refreshed_and_names_its_quota_project() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let (_folder, vector) = search(&rig, &login(&rig)).await;
        assert!(vector.search("breakers", 1).await.unwrap().is_primary());
        let asked = &rig.fakes.seen(Operation::Token)[0];
        assert_eq!(
            form(asked),
            [
                "grant_type=refresh_token",
                "client_id=764086051850-x.apps.googleusercontent.com",
                "client_secret=GOCSPX-q81Zr7",
                "refresh_token=1%2F%2F0gLq-77Zk4R"
            ]
        );
        let embed = &rig.fakes.seen(Operation::Embed)[0];
        assert_eq!(embed.headers["x-goog-user-project"], "billing-1");
        let report = vector.check_health(rig.runtime.clock()).await;
        assert_eq!(report.overall, CheckStatus::Ok, "{report:?}");
        rig.finish().await;
    });
}

#[test]
fn agents_a_revoked_login_is_misconfigured_and_its_secrets_are_not_told() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes.set(
            Operation::Token,
            Some(FakeFault::Google(400, "X", "invalid_grant")),
        );
        let (_folder, vector) = search(&rig, &login(&rig)).await;
        let error = service_error(vector.search("breakers", 1).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        let shown = format!("{error:?} {vector:?}");
        assert!(
            !shown.contains("GOCSP") && !shown.contains("0gLq"),
            "{shown}"
        );
        rig.finish().await;
    });
}

/// Returns the credentials of a workload outside of Google Cloud.
fn federated(rig: &Rig, source: Value) -> Value {
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": rig.fakes.token_url(),
        "credential_source": source,
    })
}

#[test]
fn agents_a_federated_identity_exchanges_the_token_in_a_file() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("{SUBJECT}\n")).unwrap();
        let file = federated(&rig, json!({ "file": path }));
        let (_folder, vector) = search(&rig, &file).await;
        assert!(vector.search("breakers", 1).await.unwrap().is_primary());
        let seen = rig.fakes.seen(Operation::Token);
        let fields = form(&seen[0]);
        for field in [
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
            "requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token",
            "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt",
            "subject_token=eyJhbGciOi.Qx7Kp",
            "scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform",
        ] {
            assert!(fields.contains(&field), "{field}: {fields:?}");
        }
        assert_eq!(seen.len(), 1);
        rig.finish().await;
    });
}

#[test]
fn agents_a_federated_identity_may_come_from_a_url_and_act_as_an_account() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes.serve("/oidc", |seen| {
            let allowed = seen
                .headers
                .get("authorization")
                .is_some_and(|one| one == "Bearer gh");
            let status = if allowed { 200 } else { 401 };
            (status, json!({ "value": SUBJECT, "count": 1 }))
        });
        let mut file = federated(
            &rig,
            json!({
                "url": format!("{}/oidc?audience=x", rig.fakes.base()),
                "headers": { "Authorization": "Bearer gh" },
                "format": { "type": "json", "subject_token_field_name": "value" },
            }),
        );
        let account =
            "v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken";
        let url = format!("{}/{account}", rig.fakes.base());
        file["service_account_impersonation_url"] = Value::from(url);
        file["service_account_impersonation"] = json!({ "token_lifetime_seconds": 1200 });
        let (_folder, vector) = search(&rig, &file).await;
        assert!(vector.search("breakers", 1).await.unwrap().is_primary());
        let seen = rig.fakes.seen(Operation::Token);
        assert_eq!(seen.len(), 2);
        assert!(form(&seen[0]).contains(&"subject_token=eyJhbGciOi.Qx7Kp"));
        assert_eq!(seen[1].target, format!("/{account}"));
        assert_eq!(seen[1].headers["authorization"], "Bearer ya29.Kq7xZt4-1");
        assert_eq!(seen[1].body["lifetime"], "1200s");
        let embed = &rig.fakes.seen(Operation::Embed)[0];
        assert_eq!(embed.headers["authorization"], "Bearer ya29.Kq7xZt4-2");
        rig.finish().await;
    });
}

#[test]
fn agents_a_user_may_act_as_an_account() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let url = format!("{}/v1/a:generateAccessToken", rig.fakes.base());
        let file = json!({
            "type": "impersonated_service_account", "source_credentials": login(&rig),
            "service_account_impersonation_url": url, "delegates": ["d"],
        });
        let (_folder, vector) = search(&rig, &file).await;
        assert!(vector.search("breakers", 1).await.unwrap().is_primary());
        let seen = rig.fakes.seen(Operation::Token);
        assert_eq!(form(&seen[0])[0], "grant_type=refresh_token");
        assert_eq!(seen[1].body["delegates"], json!(["d"]));
        rig.finish().await;
    });
}

#[test]
fn agents_credentials_that_cannot_be_used_are_named_before_any_request() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let aws = json!({ "environment_id": "aws1", "url": "http://169.254.169.254/" });
        let mut incomplete = login(&rig);
        incomplete["refresh_token"] = Value::from("");
        for (file, problem) in [
            (
                json!({ "type": "gdch_service_account" }),
                "its type is unknown, allowed is",
            ),
            (incomplete, "it lacks refresh_token"),
            (
                federated(&rig, aws),
                "its credential_source is of an unknown kind, allowed are file and url",
            ),
            (
                json!({ "type": "impersonated_service_account" }),
                "its type is unknown",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("credentials.json");
            std::fs::write(&path, file.to_string()).unwrap();
            let refused = rig.try_vector(|config| {
                config.credentials = Credentials::KeyFile(path);
                config.auto_fallback = false;
            });
            let error = refused.await.unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(
                error.contains("(GOOGLE_APPLICATION_CREDENTIALS)"),
                "{error}"
            );
        }
        assert_eq!(rig.calls(), 0);
        rig.finish().await;
    });
}
