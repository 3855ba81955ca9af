//! The access log: a JSON line for every request, with neither a query nor a credential.

use serde_json::Value;

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

/// Waits until a file has so many lines, and returns them.
async fn lines_of(path: &std::path::Path, count: usize) -> Vec<Value> {
    let mut text = String::new();
    let reading = async {
        loop {
            text = std::fs::read_to_string(path).unwrap_or_default();
            if text.ends_with('\n') && text.lines().count() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, reading).await;
    assert!(came.is_ok(), "{count} lines: {text}");
    let parsed = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    parsed.collect()
}

fn by_path<'l>(lines: &'l [Value], path: &str) -> &'l Value {
    let mut found = lines.iter().filter(|line| line["path"] == path);
    let line = found.next().unwrap_or_else(|| panic!("{path}: {lines:#?}"));
    assert!(found.next().is_none(), "{path} is there twice: {lines:#?}");
    line
}

#[tokio::test]
async fn ops_1_every_request_is_one_line_of_the_access_log() {
    let upstream = Upstream::of(async |request: Request| match request.uri().path() {
        "/bad" => answer(404, "not here"),
        _ => answer(200, "hello"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let text = format!(
        "[gateway]\naccess_log = {:?}\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         retry = {{ max_attempts = 3, backoff = {{ base = \"1ms\" }} }}\n\
         [dependencies.gone]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
         retry = {{ max_attempts = 2, backoff = {{ base = \"1ms\" }} }}\n",
        path.to_str().unwrap(),
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = bed.http.get(bed.url("/web/good?key=hunter2"));
    let request = request.header("authorization", "Bearer hunter2");
    let request = request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let response = request.send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    for path in ["/web/bad", "/gone/x", "/nobody/x", "/"] {
        let response = bed.get(path).await;
        let _whole = response.bytes().await.unwrap();
    }
    let head = bed.http.head(bed.url("/web/head")).send().await.unwrap();
    assert_eq!(head.status().as_u16(), 200);
    let posted = bed.post("/web/posted", "a body").await;
    assert_eq!(posted.text().await.unwrap(), "hello");

    let lines = lines_of(&path, 7).await;
    assert_eq!(lines.len(), 7, "{lines:#?}");
    let good = by_path(&lines, "/web/good");
    assert_eq!(
        (&good["dependency"], &good["status"]),
        (&"web".into(), &200.into())
    );
    assert_eq!(
        (&good["source"], &good["attempts"]),
        (&"primary".into(), &1.into())
    );
    assert_eq!(
        (&good["trace_id"], &good["method"]),
        (&trace.into(), &"GET".into())
    );
    assert_eq!(good["complete"], true);
    let millis = good["duration_ms"].as_f64().unwrap();
    assert!(millis > 0.0 && millis < 60_000.0, "{good}");
    assert!(good["time"].as_str().unwrap().ends_with('Z'), "{good}");
    assert_eq!(by_path(&lines, "/web/bad")["status"], 404);
    let gone = by_path(&lines, "/gone/x");
    assert_eq!(
        (&gone["status"], &gone["source"]),
        (&502.into(), &"gateway".into())
    );
    assert_eq!(gone["attempts"], 2, "{gone}");
    let nobody = by_path(&lines, "/nobody/x");
    assert_eq!(
        (&nobody["status"], &nobody["dependency"]),
        (&404.into(), &Value::Null)
    );
    assert_eq!(by_path(&lines, "/")["status"], 200);
    for path in ["/web/head", "/web/posted"] {
        assert_eq!(by_path(&lines, path)["complete"], true, "{path}");
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    bed.end().await;
}

#[tokio::test]
async fn ops_1_a_caller_that_leaves_has_its_line_too() {
    let upstream = Upstream::of(async |_| {
        let waits = futures_util::stream::pending::<Result<&'static str, std::io::Error>>();
        Body::from_stream(waits).into_response()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let text = format!(
        "[gateway]\naccess_log = {:?}\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        path.to_str().unwrap(),
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    let response = bed.get("/web/endless").await;
    assert_eq!(response.status().as_u16(), 200);
    drop(response);
    let lines = lines_of(&path, 1).await;
    assert_eq!(
        (&lines[0]["status"], &lines[0]["complete"]),
        (&200.into(), &false.into())
    );
    bed.end().await;
}

#[tokio::test]
async fn ops_1_no_line_is_lost_at_the_end() {
    let upstream = Upstream::of(async |_| "ok").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let text = format!(
        "[gateway]\naccess_log = {:?}\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        path.to_str().unwrap(),
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    for _ in 0..200 {
        assert_eq!(bed.get("/web/x").await.text().await.unwrap(), "ok");
    }
    // After the shutdown every line is written, without a wait.
    bed.end().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 200);
}

#[tokio::test]
async fn ops_1_the_access_log_goes_to_standard_output_or_is_refused() {
    let folder = folder();
    let text = |log: &str| {
        format!(
            "[gateway]\naccess_log = {log:?}\n[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n"
        )
    };
    configured(folder.path(), &text("stdout"));
    let sidecar = Sidecar::start(command(folder.path()), 1);
    // Its reader is gone: calls go on all the same.
    for _ in 0..3 {
        let response = http().get(sidecar.url("/web/")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 502);
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));

    configured(folder.path(), &text("no/such/folder/access.log"));
    let output = command(folder.path()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(
        err.contains("gateway.access_log: given \"no/such/folder/access.log\", there is no folder"),
        "{err}"
    );

    // A mistaken path must not spoil another file.
    configured(folder.path(), &text("config/default.toml"));
    let output = command(folder.path()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("it exists, and is no access log"), "{err}");
}
