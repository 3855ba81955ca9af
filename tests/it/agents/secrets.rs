//! Item 62: no key, no token, and no part of one is visible anywhere.

use std::net::TcpListener;
use std::time::Duration;

use breakerbox::admin::{Admin, Phase};
use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::config::Settings;
use breakerbox_policy::BreakerCommand;
use serde_json::Value;

use super::{BRAVE_KEY, KEY, Rig, run};
use crate::log::Log;

/// Common prefix of the fakes' tokens; their numbers are not secret.
const TOKEN: &str = "ya29.Kq7xZt4-";

/// Returns a part of one of the secrets, five characters long, that the text contains.
fn leak(text: &str) -> Option<String> {
    [KEY, BRAVE_KEY, TOKEN].into_iter().find_map(|secret| {
        let mut parts = (0..=secret.len() - 5).map(|at| &secret[at..at + 5]);
        parts.find(|part| text.contains(part)).map(str::to_owned)
    })
}

fn every_fault() -> Vec<FakeFault> {
    vec![
        FakeFault::internal(),
        FakeFault::Google(
            400,
            "INVALID_ARGUMENT",
            "Request contains an invalid argument.",
        ),
        FakeFault::Google(401, "UNAUTHENTICATED", "Invalid credentials."),
        FakeFault::Google(403, "PERMISSION_DENIED", "The caller has no permission."),
        FakeFault::Google(404, "NOT_FOUND", "Not found."),
        FakeFault::Html(502),
        FakeFault::Throttled {
            retry_after: Some(7),
            retry_info: None,
        },
        FakeFault::QuotaOfTheDay,
        FakeFault::QuotaOfTheDayOlder,
        FakeFault::Malformed,
        FakeFault::OtherShape,
        FakeFault::CutOff,
        FakeFault::Hang,
        FakeFault::Echo(500),
        FakeFault::Echo(400),
        FakeFault::Echo(403),
    ]
}

/// Provokes every error, and collects the texts that callers receive and see.
async fn gather(rig: &Rig) -> Vec<String> {
    let vector = rig.vector(|config| config.auto_fallback = false).await;
    let google = rig.web(vec![rig.google(), rig.brave()]).await;
    let mut told = vec![format!(
        "{vector:?} {google:?} {:?}",
        rig.fakes.vector_config()
    )];
    let operations = [
        Operation::Embed,
        Operation::Find,
        Operation::CustomSearch,
        Operation::Brave,
        Operation::Token,
    ];
    for operation in operations {
        for fault in every_fault() {
            for name in ["vector_embed", "vector_find", "web_google", "web_brave"] {
                let reason = "the next fault".to_owned();
                rig.runtime
                    .operate(name, BreakerCommand::Reset { reason })
                    .await
                    .unwrap()
                    .unwrap();
            }
            if operation == Operation::Brave {
                rig.fakes
                    .set(Operation::CustomSearch, Some(FakeFault::internal()));
            }
            if operation == Operation::Token {
                rig.fakes.revoke_tokens();
            }
            rig.fakes.set(operation, Some(fault));
            if let Err(error) = vector.search("breakers", 3).await {
                told.push(format!("{error} {error:?}"));
            }
            match google.search("breakers", 3).await {
                Ok(answer) => told.push(format!("{answer:?}")),
                Err(error) => told.push(format!("{error} {error:?}")),
            }
            told.push(format!(
                "{:?}",
                vector.check_health(rig.runtime.clock()).await
            ));
            rig.fakes.set(operation, None);
            rig.fakes.set(Operation::CustomSearch, None);
        }
    }
    told
}

#[test]
fn item_62_no_key_is_to_be_seen_whatever_goes_wrong() {
    run(async || {
        let log = Log::capture_all();
        let rig = Rig::start(|settings| {
            settings.timeout.attempt = Some(Duration::from_millis(40));
            settings.breaker.failure_threshold = Some(crate::scripted::nonzero(1));
        })
        .await;
        let admin = Admin::new(
            (*rig.runtime).clone(),
            &Settings::loader().bare().load().unwrap(),
        );
        admin.set_phase(Phase::Ready);
        let server = admin
            .serve(TcpListener::bind("127.0.0.1:0").unwrap())
            .unwrap();
        let mut shown = gather(&rig).await;
        let errors = shown.len();
        assert!(errors > 150, "{errors}");
        // The services did receive the secrets, so there was something to hide.
        let asked = &rig.fakes.seen(Operation::CustomSearch)[0];
        assert!(asked.target.contains(KEY));
        let withheld = shown
            .iter()
            .filter(|one| one.contains("part of the API key"))
            .count();
        assert!(withheld > 4, "{withheld}");

        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = |path: &str| format!("http://{}{path}", server.address());
        let get = async |path: &str| {
            let answer = http.get(url(path)).send().await.unwrap();
            answer.text().await.unwrap()
        };
        let document: Value = serde_json::from_str(&get("/api/openapi.json").await).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            if operations.get("get").is_some() && !path.ends_with("/stream") {
                shown.push(get(&path.replace("{name}", "web_google")).await);
            }
        }
        shown.push(format!("{:?}", rig.runtime.events_since(0)));
        shown.push(format!("{:?}", rig.runtime.statuses()));
        let lines = log.lines("");
        assert!(lines.len() > 20, "{}", lines.len());
        shown.extend(lines);
        for text in &shown {
            assert_eq!(leak(text), None, "{text}");
        }
        server.stop();
        drop(admin);
        rig.finish().await;
    });
}
