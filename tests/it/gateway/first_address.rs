//! EDGE-3: a name with several addresses, of which the first does not answer.

use std::process::Command;

use super::serve::{Sidecar, command, configured, http};
use super::*;

/// Returns true if this process may give a child a hosts file of its own.
#[expect(clippy::print_stderr, reason = "a test that passes by says so")]
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).output();
    let may = tried.is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("passed by: only root may give a process a hosts file of its own");
    }
    may
}

/// A port that accepts no connection and refuses none: its backlog is full.
pub(crate) async fn silent(address: SocketAddr) -> (socket2::Socket, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (socket, waiting)
}

#[tokio::test]
async fn edge_3_e12a_a_silent_first_address_leaves_time_for_the_next() {
    if !may_mount() {
        return;
    }
    let answering = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = answering.local_addr().unwrap().port();
    let router = Router::new().fallback(async || "the second one");
    let server = tokio::spawn(async move { axum::serve(answering, router).await });
    let _silent = silent(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let folder = serve::folder();
    let text = format!(
        "[dependencies.two]\nkind = \"http\"\nurl = \"http://two.test:{port}\"\n\
         timeout = {{ connect = \"off\" }}\n"
    );
    configured(folder.path(), &text);
    let hosts = folder.path().join("hosts");
    let names = "127.0.0.1 localhost\n127.0.0.1 two.test\n127.0.0.2 two.test\n";
    std::fs::write(&hosts, names).unwrap();
    let usual = command(folder.path());
    let mut own = Command::new("unshare");
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    own.args(["--mount", "sh", "-c", mount])
        .arg(&hosts)
        .arg(usual.get_program())
        .args(usual.get_args())
        .current_dir(folder.path())
        .stdin(std::process::Stdio::null());
    for (name, value) in usual.get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    let sidecar = Sidecar::start(own, 1);
    for _ in 0..3 {
        let answer = http().get(sidecar.url("/two/x")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), "the second one");
    }
    server.abort();
}
