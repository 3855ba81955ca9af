//! A NATS server of a test, on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server that can be killed and started again at the same address.
pub(crate) struct NatsServer {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    config: String,
    child: Option<Child>,
}

/// The server's program. Prints a note and returns `None` if there is none, so that the test passes by.
#[expect(clippy::print_stderr, reason = "a test that passes by says so")]
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BREAKERBOX_TEST_NATS") {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian has it where only the administrator looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut files = folders.map(|folder| folder.join("nats-server"));
    let found = files.find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var("BREAKERBOX_TEST_REQUIRE_ALL");
        assert_ne!(required.as_deref(), Ok("1"), "nats-server is not installed");
        eprintln!("passed by: nats-server is not installed");
    }
    found
}

/// Returns ports that were free a moment ago; this process asks for no other ones meanwhile.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|one| one.local_addr().unwrap().port())
}

impl NatsServer {
    /// Starts one that lets everything in.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(|_| String::new()).await
    }

    /// Starts one with more lines in its configuration, which may name files in its folder.
    pub(crate) async fn with(config: impl FnOnce(&Path) -> String) -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        let [port] = free_ports();
        let config = config(folder.path());
        let mut server = Self {
            program,
            folder,
            port,
            config,
            child: None,
        };
        server.begin().await;
        Some(server)
    }

    /// Starts it, or starts it again, and waits until it listens.
    pub(crate) async fn begin(&mut self) {
        let folder = self.folder.path();
        let (port, own) = (self.port, &self.config);
        let store = folder.join("store");
        let store = store.display();
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream: {{ store_dir: \"{store}\" }}\n{own}\n"
        );
        let file = folder.join("server.conf");
        std::fs::write(&file, text).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let listens = tokio::time::timeout(PATIENCE, listens).await;
        listens
            .unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(folder.join("log")).unwrap()));
    }

    /// Kills it, as a crash of its host does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A file in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three servers that keep three copies of a bucket.
pub(crate) struct NatsCluster {
    nodes: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts them, and waits until they have a leader.
    pub(crate) async fn start() -> Option<Self> {
        program()?;
        let ports: [u16; 3] = free_ports();
        let routes: Vec<String> = ports
            .iter()
            .map(|port| format!("\"nats-route://127.0.0.1:{port}\""))
            .collect();
        let routes = routes.join(", ");
        let mut nodes = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let config = format!(
                "server_name: \"node-{index}\"\n\
                 cluster {{ name: \"fleet\", listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
            );
            nodes.push(NatsServer::with(|_| config).await?);
        }
        let cluster = Self { nodes };
        let ready = async {
            loop {
                let context = cluster.context().await;
                let three = async_nats::jetstream::stream::Config {
                    name: "ready".to_owned(),
                    num_replicas: 3,
                    ..Default::default()
                };
                if context.create_stream(three).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        ready.expect("three nodes find each other");
        Some(cluster)
    }

    async fn context(&self) -> async_nats::jetstream::Context {
        let urls: Vec<async_nats::ServerAddr> =
            self.urls().map(|url| url.parse().unwrap()).collect();
        let client = async_nats::connect(urls).await.unwrap();
        async_nats::jetstream::new(client)
    }

    pub(crate) fn urls(&self) -> impl Iterator<Item = String> {
        self.nodes.iter().map(NatsServer::url)
    }

    /// Kills the node that leads a stream. Returns its number.
    pub(crate) async fn kill_leader(&mut self, stream: &str) -> usize {
        let context = self.context().await;
        let info = context.get_stream(stream).await.unwrap();
        let cluster = info.cached_info().cluster.clone().unwrap();
        let leader = cluster.leader.unwrap();
        let number: usize = leader.strip_prefix("node-").unwrap().parse().unwrap();
        self.nodes[number].kill();
        number
    }

    /// Returns a future of the moment at which a bucket takes words again, for another client than the replicas.
    pub(crate) async fn takes_words(
        &self,
        bucket: &str,
    ) -> impl Future<Output = tokio::time::Instant> + use<> {
        let context = self.context().await;
        let subject = format!("$KV.{bucket}.of_the_test");
        async move {
            loop {
                if let Ok(sent) = context.publish(subject.clone(), "1".into()).await
                    && let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(100), sent).await
                {
                    return tokio::time::Instant::now();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Starts a node again.
    pub(crate) async fn begin(&mut self, number: usize) {
        self.nodes[number].begin().await;
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}
