//! The measured paths.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use breakerbox::gateway::Gateway;
use breakerbox::policy::{
    BreakerCommand, BreakerSettings, Class, DependencySettings, Outcome, RateLimitSettings, Time,
};
use breakerbox::{CallContext, Client, Dependency, Runtime, RuntimeSettings, Settings};
use breakerbox_policy::Breaker;

use crate::callgrind::{counting_begins, counting_ends};
use crate::gate::{Gate, GateMode, GateWord, SuccessCounter};

/// The answer of the service behind the gateway.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nanswer";

/// Paths that one process takes, one after the other.
pub(crate) struct MeasuredPaths {
    pub(crate) names: &'static [&'static str],
    /// Operations of each path that are counted; before them, as many are not.
    pub(crate) operations: u64,
    /// True if the work of all threads is counted; else that of the calling thread alone.
    pub(crate) are_all_threads: bool,
    pub(crate) run: fn(),
}

/// All paths.
pub(crate) const PATHS: [MeasuredPaths; 2] = [
    MeasuredPaths {
        names: &["kernel", "gate", "run", "ask", "refusal"],
        operations: 1_000,
        are_all_threads: false,
        run: inside,
    },
    // Both ends of the connections are counted too; they take less than a hundredth.
    MeasuredPaths {
        names: &["gateway"],
        operations: 200,
        are_all_threads: true,
        run: gateway,
    },
];

/// The paths within the library.
fn inside() {
    let operations = PATHS[0].operations;
    kernel(operations);
    gate(operations);
    actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    })
    .block_on(async move {
        // As in a program: the future of `block_on` itself is woken in another way than tasks.
        tokio::task::spawn_local(calls(operations)).await.unwrap();
    });
}

/// Runs operations uncounted, then as many between the markers.
fn counted(operations: u64, mut operation: impl FnMut(u64)) {
    for at in 0..operations {
        operation(at);
    }
    counting_begins();
    for at in operations..2 * operations {
        operation(at);
    }
    counting_ends();
}

/// The same for operations that are awaited.
async fn counted_calls(operations: u64, mut operation: impl AsyncFnMut(u64)) {
    for at in 0..operations {
        operation(at).await;
    }
    counting_begins();
    for at in operations..2 * operations {
        operation(at).await;
    }
    counting_ends();
}

/// The kernel's decision on a call, and the record of its outcome.
fn kernel(operations: u64) {
    let mut breaker = Breaker::new(BreakerSettings::default(), Time::ZERO);
    let outcome = Outcome::new(Class::Success, Duration::from_micros(5));
    counted(operations, |at| {
        let now = Time::from_nanos(at * 1_000);
        let permit = breaker.admit(black_box(now)).unwrap();
        black_box(breaker.record(now, permit, &outcome, &mut || 0.0));
    });
}

/// The word that a breaker publishes, read, and a success counted for it.
fn gate(operations: u64) {
    let gate = Gate::new(GateWord::new(GateMode::Closed, 1, 0));
    let successes = SuccessCounter::new();
    counted(operations, |_| {
        let word = black_box(&gate).read();
        if word.mode() == GateMode::Closed {
            black_box(successes.count(word.tag(), 0));
        }
    });
}

struct Echo;

impl Dependency for Echo {
    type Request = u64;
    type Response = u64;
    type Error = &'static str;

    async fn call(&self, request: u64, _: &CallContext) -> Result<u64, &'static str> {
        Ok(black_box(request))
    }
}

/// Returns a dependency with every layer that is on by default, and a rate limit.
async fn echo(runtime: &Runtime) -> Client<Echo> {
    let settings = DependencySettings {
        rate_limit: Some(RateLimitSettings {
            rate: 1e9,
            per: Duration::from_secs(1),
            burst: u32::MAX.try_into().unwrap(),
            max_wait: Duration::ZERO,
        }),
        ..DependencySettings::default()
    };
    let starting = runtime.dependency("echo").settings(settings);
    starting.workers(|| Echo).start().await.unwrap()
}

/// `run`, `ask` and a refusal, on the thread of the worker.
async fn calls(operations: u64) {
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let client = echo(&runtime).await;
    counted_calls(operations, async |at| {
        let answer = client.run(|| async move { Ok::<_, &str>(black_box(at)) });
        black_box(answer.await).unwrap();
    })
    .await;
    counted_calls(operations, async |at| {
        black_box(client.ask(at).await).unwrap();
    })
    .await;
    let reason = "measured".to_owned();
    let until = None;
    let command = BreakerCommand::Open { reason, until };
    client.operate(command).await.unwrap();
    counted_calls(operations, async |at| {
        let refused = client.run(|| async move { Ok::<_, &str>(at) }).await;
        assert!(black_box(&refused).is_err());
    })
    .await;
    runtime.shutdown().await;
}

/// Answers each request of one connection.
fn answer_as_service(listener: &TcpListener) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut buffer, mut length) = ([0; 4096], 0);
    while let Ok(more @ 1..) = socket.read(&mut buffer[length..]) {
        length += more;
        if buffer[..length].ends_with(b"\r\n\r\n") {
            length = 0;
            socket.write_all(ANSWER).unwrap();
        }
    }
}

/// A request to an HTTP dependency through the gateway, on one connection to each side.
fn gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = std::thread::spawn(move || answer_as_service(&listener));
    let text = format!(
        "[gateway]\nbind = \"127.0.0.1:0\"\nthreads = 1\n\
         [dependencies.web]\nkind = \"http\"\nurl = \"http://{address}\"\n"
    );
    let settings = Settings::loader().bare().toml(&text).load().unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (runtime, gateway) = tokio.block_on(async {
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
        let (name, one) = settings.dependencies.iter().next().unwrap();
        let url = one.url.as_deref().unwrap();
        gateway.put(name, one, url, "test").await.unwrap();
        (runtime, gateway)
    });
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    counted(PATHS[1].operations, |_| {
        let request = b"GET /web/a/path HTTP/1.1\r\nhost: localhost\r\n\r\n";
        socket.write_all(request).unwrap();
        let mut length = 0;
        while !buffer[..length].ends_with(b"answer") {
            length += socket.read(&mut buffer[length..]).unwrap();
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"));
    });
    drop(socket);
    tokio.block_on(async {
        gateway.shutdown().await;
        runtime.shutdown().await;
    });
    drop(gateway);
    service.join().unwrap();
}
