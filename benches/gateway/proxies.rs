//! The proxies under comparison, each a process on a core of its own, and their resource use.
//!
//! All of them have timeouts, keep connections to the upstream alive and write no access log.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The core of both ends of the wire, and the core of the proxies.
pub(crate) const CORES: [&str; 2] = ["0", "1"];

/// A running proxy; killed on drop.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The status of a refusal, without a request to the dead upstream.
    pub(crate) refusal: u16,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds this process to its core, including threads started later.
pub(crate) fn pin_self() -> io::Result<()> {
    let me = std::process::id().to_string();
    let pinned = Command::new("taskset")
        .args(["-acp", CORES[0], &me])
        .stdout(Stdio::null())
        .status()?;
    if pinned.success() {
        return Ok(());
    }
    Err(io::Error::other("taskset failed: two cores are needed"))
}

/// An address without a listener.
pub(crate) fn unused() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn start(
    (name, refusal): (&'static str, u16),
    address: SocketAddr,
    program: &str,
    arguments: &[&str],
) -> io::Result<Proxy> {
    let mut command = Command::new("taskset");
    command.args(["-c", CORES[1], program]).args(arguments);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("BREAKERBOX_") {
            command.env_remove(variable);
        }
    }
    let silent = command.env_remove("RUST_LOG").stdin(Stdio::null());
    let child = silent.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(Proxy {
        name,
        address,
        refusal,
        child,
    })
}

/// `breakerbox serve` with every layer and its metrics. `program`: the one of this build, or an
/// earlier one.
pub(crate) fn ours(
    (name, program): (&'static str, &str),
    folder: &Path,
    upstream: SocketAddr,
    dead: SocketAddr,
) -> io::Result<Proxy> {
    let (address, admin) = (unused()?, unused()?);
    let text = format!(
        r#"
        [gateway]
        bind = "{address}"
        threads = 1
        [admin]
        bind = "{admin}"

        [dependencies.web]
        kind = "http"
        url = "http://{upstream}"
        idempotent = ["GET"]
        rate_limit = {{ rate = 10_000_000, per = "1s", burst = 10_000_000 }}
        [dependencies.web.breaker]
        window = {{ kind = "count", size = 100 }}
        failure_rate = 0.5
        slow_call = "2s"
        slow_rate = 0.8
        [dependencies.web.timeout]
        connect = "5s"
        attempt = "5s"
        first_byte = "5s"
        idle = "30s"
        total = "15s"
        [dependencies.web.retry]
        max_attempts = 3
        [dependencies.web.bulkhead]
        max_concurrent = 2048

        [dependencies.dead]
        kind = "http"
        url = "http://{dead}"
        breaker.recovery_timeout = "1h"
        "#
    );
    let config = folder.join(name);
    fs::create_dir_all(&config)?;
    fs::write(config.join("default.toml"), text)?;
    let arguments = ["serve", "--config", &config.to_string_lossy()];
    start((name, 503), address, program, &arguments)
}

pub(crate) fn nginx(folder: &Path, upstream: SocketAddr, dead: SocketAddr) -> io::Result<Proxy> {
    let address = unused()?;
    let own = folder.display();
    // nginx never stops using a lone server, so the dead one is listed twice.
    let text = format!(
        r#"
        daemon off;
        master_process off;
        worker_processes 1;
        pid {own}/nginx.pid;
        error_log /dev/null;
        events {{ worker_connections 8192; }}
        http {{
            access_log off;
            client_body_temp_path {own}/body;
            proxy_temp_path {own}/proxy;
            fastcgi_temp_path {own}/fastcgi;
            uwsgi_temp_path {own}/uwsgi;
            scgi_temp_path {own}/scgi;
            keepalive_requests 1000000000;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 5s;
            proxy_read_timeout 5s;
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 2;
            upstream web {{
                server {upstream} max_fails=5 fail_timeout=30s;
                keepalive 2048;
                keepalive_requests 1000000000;
            }}
            upstream dead {{
                server {dead} max_fails=1 fail_timeout=1h;
                server {dead} max_fails=1 fail_timeout=1h;
            }}
            server {{
                listen {address};
                location /web/ {{ proxy_pass http://web/; }}
                location /dead/ {{ proxy_pass http://dead/; }}
            }}
        }}
        "#
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let program = found("nginx")?;
    let arguments = ["-p", &own.to_string(), "-c", &file.to_string_lossy()];
    start(("nginx", 502), address, &program, &arguments)
}

pub(crate) fn haproxy(folder: &Path, upstream: SocketAddr, dead: SocketAddr) -> io::Result<Proxy> {
    let address = unused()?;
    let text = format!(
        r"
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 5s
    timeout queue 500ms
    timeout http-keep-alive 75s
    retries 1
frontend in
    bind {address}
    use_backend dead if {{ path_beg /dead/ }}
    default_backend web
backend web
    http-reuse always
    server web {upstream} maxconn 2048
backend dead
    server dead {dead} disabled
"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let arguments = ["-db", "-q", "-f", &file.to_string_lossy()];
    start(("haproxy", 503), address, &found("haproxy")?, &arguments)
}

/// The path of a program; Debian's folder for servers is in the search path of root only.
fn found(program: &str) -> io::Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let full = folders.find_map(|folder| {
        let full = Path::new(folder).join(program);
        full.is_file().then(|| full.to_string_lossy().into_owned())
    });
    full.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is not installed"))
}

impl Proxy {
    /// The CPU time of its threads.
    ///
    /// # Units   Nanoseconds.
    pub(crate) fn cpu(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let tasks = tasks.into_iter().flatten().flatten();
        tasks
            .filter_map(|task| {
                let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<u64>().ok()
            })
            .sum()
    }

    /// The resident memory.
    ///
    /// # Units   MiB.
    pub(crate) fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.map_or(f64::NAN, |kib| kib / 1024.0)
    }
}
