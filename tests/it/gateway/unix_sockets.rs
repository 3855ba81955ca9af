//! Dependencies behind Unix domain sockets.

use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::serve::folder;
use super::*;

/// A server on a socket, that answers with the head of the request.
async fn server(path: &Path) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    let app = Router::new().fallback(async |request: Request| {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 100_000).await.unwrap();
        format!("{:?} {} {host} {}", parts.version, parts.uri, body.len())
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
}

fn socket(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

#[tokio::test]
async fn edge_5_a_dependency_behind_a_socket_is_reached() {
    let folder = folder();
    let path = socket(&folder, "app.sock");
    let server = server(&path).await;
    let path = path.display();
    let mut text = String::new();
    for (name, url, more) in [
        ("plain", format!("unix://{path}"), ""),
        ("short", format!("unix:{path}"), ""),
        (
            "based",
            format!("unix://{path}:/base/"),
            "host = \"app.internal\"\n",
        ),
    ] {
        text.push_str(&format!(
            "[dependencies.{name}]\nkind = \"http\"\nurl = \"{url}\"\n{more}"
        ));
    }
    let bed = Bed::of(&text).await;
    let body = "x".repeat(50_000);
    for (name, told) in [
        ("plain", "HTTP/1.1 /a?b localhost 50000"),
        ("short", "HTTP/1.1 /a?b localhost 50000"),
        ("based", "HTTP/1.1 /base/a?b app.internal 50000"),
    ] {
        for _ in 0..2 {
            let response = bed.post(&format!("/{name}/a?b"), body.clone()).await;
            assert_eq!(response.text().await.unwrap(), told, "{name}");
        }
    }
    server.abort();
    bed.end().await;
}

#[tokio::test]
async fn edge_5_a_socket_that_is_not_reached_says_why() {
    let folder = folder();
    let (gone, left, file) = (
        socket(&folder, "gone"),
        socket(&folder, "left"),
        socket(&folder, "file"),
    );
    drop(UnixListener::bind(&left).unwrap());
    std::fs::write(&file, "").unwrap();
    let mut text = String::new();
    for (name, path) in [("gone", gone), ("left", left), ("file", file)] {
        text.push_str(&format!(
            "[dependencies.{name}]\nkind = \"http\"\nurl = \"unix://{}\"\n",
            path.display()
        ));
    }
    let bed = Bed::of(&text).await;
    for (name, cause) in [
        ("gone", "socket not found"),
        ("left", "connection refused"),
        ("file", "connection refused"),
    ] {
        let refused = problem(bed.get(&format!("/{name}/a")).await, 502, "upstream-failed").await;
        assert_eq!(refused["executed"], "no");
        assert!(
            refused["detail"].as_str().unwrap().contains(cause),
            "{refused}"
        );
        assert!(
            !refused
                .to_string()
                .contains(&*folder.path().to_string_lossy())
        );
    }
    // A server that comes later is reached.
    let server = server(&socket(&folder, "gone")).await;
    assert_eq!(bed.get("/gone/a").await.status(), 200);
    server.abort();
    bed.end().await;
}

#[tokio::test]
async fn edge_5_a_reload_leads_from_a_socket_to_another() {
    let folder = folder();
    let (one, two) = (socket(&folder, "one"), socket(&folder, "two"));
    let servers = [server(&one).await, server(&two).await];
    let bed = Bed::new(&format!("unix://{}", one.display()), "").await;
    assert_eq!(bed.get("/web/a").await.status(), 200);
    servers[0].abort();
    let url = format!("unix://{}:/two", two.display());
    let text = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n");
    let settings = Settings::loader().bare().toml(text).load().unwrap();
    let web = &settings.dependencies["web"];
    bed.gateway.put("web", web, &url, "test").await.unwrap();
    let text = bed.get("/web/a").await.text().await.unwrap();
    assert_eq!(text, "HTTP/1.1 /two/a localhost 0");
    bed.end().await;
}
