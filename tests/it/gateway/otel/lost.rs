//! A slow or unreachable collector: calls go on, and lost spans are counted.

use super::*;

/// Number of spans with this result, from the sidecar's metrics.
async fn count(sidecar: &Sidecar, result: &str) -> u64 {
    let scraped = http().get(sidecar.admin("/metrics")).send().await.unwrap();
    let text = scraped.text().await.unwrap();
    let line = format!("breakerbox_otel_spans_total{{result=\"{result}\"}} ");
    let value = text.lines().find_map(|other| other.strip_prefix(&line));
    value
        .unwrap_or_else(|| panic!("no {line}"))
        .parse()
        .unwrap()
}

async fn calls(sidecar: &Sidecar, many: usize) {
    let http = http();
    for _ in 0..many {
        let response = http.get(sidecar.url("/web/200")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "breakerbox-source"), "primary");
        response.bytes().await.unwrap();
    }
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_no_call_and_costs_no_memory() {
    let upstream = told().await;
    let collector = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let folder = folder();
    let otel = format!(
        "endpoint = \"{}\"\ntimeout = \"1m\"\nmax_queue = 4\ninterval = \"100ms\"",
        collector.url()
    );
    let sidecar = sidecar(&folder, &otel, &http_dependency("web", &upstream, ""));
    calls(&sidecar, 1).await;
    // The first call's two spans are stuck in an export for a minute.
    while collector.hits() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls(&sidecar, 50).await;
    // Two more spans fit into the queue; all others are dropped.
    let all_ended = async {
        while count(&sidecar, "dropped").await < 98 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, all_ended).await;
    assert!(
        ended.is_ok(),
        "{} dropped",
        count(&sidecar, "dropped").await
    );
    assert_eq!(count(&sidecar, "dropped").await, 98);
    assert_eq!(count(&sidecar, "sent").await, 0);
}

#[tokio::test]
async fn a_collector_that_hangs_does_not_keep_the_process_from_ending() {
    let upstream = told().await;
    let collector = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let folder = folder();
    let otel = format!("endpoint = \"{}\"\ntimeout = \"200ms\"", collector.url());
    let sidecar = sidecar(&folder, &otel, &http_dependency("web", &upstream, ""));
    calls(&sidecar, 3).await;
    sidecar.signal("TERM");
    // `ended` has its own time limit, far below that of an export without a timeout.
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_collector_that_is_gone_is_missed_by_no_call() {
    let upstream = told().await;
    // A port without a listener.
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let folder = folder();
    let otel = format!("endpoint = \"http://{address}\"\nmetrics = false");
    let sidecar = sidecar(&folder, &otel, &http_dependency("web", &upstream, ""));
    calls(&sidecar, 20).await;
    let all_failed = async {
        while count(&sidecar, "failed").await < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let failed = tokio::time::timeout(PATIENCE, all_failed).await;
    assert!(failed.is_ok(), "{} failed", count(&sidecar, "failed").await);
    assert_eq!(count(&sidecar, "failed").await, 40);
    calls(&sidecar, 1).await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_collector_behind_tls_gets_what_one_that_nobody_vouches_for_does_not() {
    let (trusted, stranger) = (tls::issuer(), tls::issuer());
    let dependency = told().await;
    for (issuer, result, other) in [(&trusted, "sent", "failed"), (&stranger, "failed", "sent")] {
        let collector = tls::upstream(issuer, &["http/1.1"]).await;
        let folder = folder();
        let port = collector.address.port();
        let otel = format!("[otel]\nendpoint = \"https://localhost:{port}\"\nmetrics = false\n");
        let text = http_dependency("web", &dependency, "");
        configured(folder.path(), &format!("{otel}{text}"));
        let roots = folder.path().join("roots.pem");
        std::fs::write(&roots, trusted.pem()).unwrap();
        let mut command = command(folder.path());
        command
            .env("OTEL_BSP_SCHEDULE_DELAY", "20")
            .env("SSL_CERT_FILE", &roots)
            .env_remove("SSL_CERT_DIR");
        let sidecar = Sidecar::start(command, 1);
        calls(&sidecar, 3).await;
        let all = async {
            while count(&sidecar, result).await < 6 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, all).await;
        assert!(came.is_ok(), "{} {result}", count(&sidecar, result).await);
        assert_eq!(count(&sidecar, other).await, 0);
    }
}
