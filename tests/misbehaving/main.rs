//! Fifty callers of one gateway, ten of whom misbehave in every way at once: the others must not
//! notice (EDGE-1, EDGE-4).
//!
//! Three phases: the good callers alone; with the bad ones at another sidecar, which takes from the
//! machine what they take; and with the bad ones at the same sidecar. What the last phase adds to the
//! second is what bad callers do to others through the gateway.
//!
//! `BREAKERBOX_MISBEHAVING_SECONDS` sets the duration of each phase, 3 by default. From 30 seconds on
//! the latencies of the good callers are compared too; a shorter run only prints them.
//! `BREAKERBOX_MISBEHAVING_BINARY` names an optimized binary, in place of the one of this build.

mod callers;
mod upstream;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callers::{Ledger, MISBEHAVIORS, good_caller, misbehave};

const CALLERS: u8 = 50;
const MAX_BUFFERED_MB: u64 = 16;
/// Memory of the process besides what it buffers: of an optimized binary, and of any other, whose
/// code and futures are larger.
const OWN_MIB: [u64; 2] = [40, 60];
/// Number of seconds from which the latencies are compared.
const LONG: u64 = 30;
/// Difference between two percentiles that says nothing on a machine with two cores.
const NOISE: Duration = Duration::from_micros(300);

/// The binary, and the memory that it may need itself, in MiB.
fn program() -> (String, u64) {
    match std::env::var("BREAKERBOX_MISBEHAVING_BINARY") {
        Ok(program) => (program, OWN_MIB[0]),
        Err(_) => {
            let own = OWN_MIB[usize::from(cfg!(debug_assertions))];
            (env!("CARGO_BIN_EXE_breakerbox").to_owned(), own)
        }
    }
}

/// A running sidecar; killed on drop.
struct Sidecar {
    child: Child,
    gateway: SocketAddr,
}

impl Sidecar {
    fn start(folder: &std::path::Path, upstream: SocketAddr) -> Self {
        let config = format!(
            "[gateway]\nbind = \"127.0.0.1:0\"\nmax_buffered = \"{MAX_BUFFERED_MB}MB\"\n\
             max_body = \"2MB\"\nbody_timeout = \"500ms\"\nheader_timeout = \"500ms\"\n\
             send_timeout = \"1s\"\nper_caller = {{ places = 8, keys = 5, connections = 16 }}\n\
             [admin]\nbind = \"127.0.0.1:0\"\n\
             [dependencies.a]\nkind = \"http\"\nurl = \"http://{upstream}\"\n\
             retry = {{ max_attempts = 2 }}\ntimeout = {{ total = \"10s\" }}\n\
             bulkhead = {{ max_concurrent = 128, max_queue = 128 }}\n\
             [[dependencies.a.fallback]]\nkind = \"stale_cache\"\nmax_age = \"1h\"\n"
        );
        std::fs::create_dir_all(folder.join("config")).expect("a folder");
        std::fs::write(folder.join("config/default.toml"), config).expect("its file");
        let mut command = Command::new(program().0);
        command
            .arg("serve")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("the sidecar starts");
        let out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        let mut lines = std::io::BufRead::lines(out);
        let gateway = lines.find_map(|line| {
            let line = line.expect("a line");
            let url = line.strip_prefix("gateway ")?.to_owned();
            url.strip_prefix("http://")?
                .trim_end_matches('/')
                .parse()
                .ok()
        });
        let gateway = gateway.expect("its address");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, gateway }
    }

    /// The largest resident memory so far, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a running process");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number")
            * 1024
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs all callers for a while, the bad ones only if there is a gateway for them, and returns what
/// the good ones saw.
async fn phase(gateway: SocketAddr, seconds: u64, bad_at: Option<SocketAddr>) -> Ledger {
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let bad = u8::try_from(MISBEHAVIORS.len()).expect("few");
    let good = (1..=CALLERS - bad).map(|number| {
        let from = [127, 0, 1, number].into();
        tokio::spawn(good_caller(gateway, from, end))
    });
    let good: Vec<_> = good.collect();
    let mut bad = Vec::new();
    for (name, number) in MISBEHAVIORS.iter().zip(1..) {
        let from = [127, 0, 2, number].into();
        let tasks = bad_at.into_iter().flat_map(|gateway| [gateway; 4]);
        bad.extend(tasks.map(|gateway| tokio::spawn(misbehave(name, gateway, from, end))));
    }
    let mut ledger = Ledger::default();
    for caller in good {
        ledger.add(caller.await.expect("a good caller does not panic"));
    }
    for caller in bad {
        caller.await.expect("a bad caller does not panic");
    }
    ledger
}

#[cfg(target_os = "linux")]
#[test]
fn edge_4_callers_who_misbehave_hurt_no_other_caller() {
    let seconds = std::env::var("BREAKERBOX_MISBEHAVING_SECONDS");
    let seconds = seconds.map_or(3, |seconds| seconds.parse().expect("a number of seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let upstream = upstream::start().await;
        let sidecar = Sidecar::start(folder.path(), upstream);
        let other = Sidecar::start(folder.path(), upstream);
        phase(sidecar.gateway, 1, None).await;
        let alone = phase(sidecar.gateway, seconds, None).await;
        let apart = phase(sidecar.gateway, seconds, Some(other.gateway)).await;
        let beside = phase(sidecar.gateway, seconds, Some(sidecar.gateway)).await;
        let peak = sidecar.peak();
        println!("good callers alone:                  {alone}");
        println!("the bad ones at another sidecar:     {apart}");
        println!("the bad ones at the same sidecar:    {beside}");
        println!("peak memory: {:.1} MiB", peak as f64 / f64::from(1 << 20));
        assert!(alone.calls > 100 && beside.calls > 100, "both phases ran");
        assert!(
            beside.error_share() <= alone.error_share() * 1.1,
            "errors: {alone}; {beside}"
        );
        assert!(
            peak <= MAX_BUFFERED_MB * 1_000_000 + (program().1 << 20),
            "memory: {peak} bytes"
        );
        if seconds >= LONG {
            let (before, after) = (apart.percentile(0.99), beside.percentile(0.99));
            assert!(
                after <= before.mul_f64(1.1) + NOISE,
                "latency: {apart}; {beside}"
            );
        }
    });
}
