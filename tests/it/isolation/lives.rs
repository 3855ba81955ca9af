//! The life of a runtime: where it can be started, its end, and what is called while it drains.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use breakerbox_actors::{
    CallContext, CallError, Client, Dependency, NotExecutedReason, Runtime, RuntimeSettings,
};

use crate::scripted::ms;

fn plain<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

async fn runtime() -> Runtime {
    Runtime::start(RuntimeSettings::default()).await.unwrap()
}

/// Answers after a millisecond.
#[derive(Clone)]
struct Inner;

impl Dependency for Inner {
    type Request = u32;
    type Response = u32;
    type Error = String;

    async fn call(&self, request: u32, _: &CallContext) -> Result<u32, String> {
        tokio::time::sleep(ms(1)).await;
        Ok(request + 1)
    }
}

async fn inner(runtime: &Runtime, name: &str) -> Client<Inner> {
    let built = runtime.dependency(name).workers(|| Inner);
    built.start().await.unwrap()
}

/// Asks another dependency, by its name, after a while.
struct Later(Runtime);

impl Dependency for Later {
    type Request = u32;
    type Response = u32;
    type Error = String;

    async fn call(&self, request: u32, _: &CallContext) -> Result<u32, String> {
        tokio::time::sleep(ms(200)).await;
        let inner = self.0.client::<Inner>("inner").ok_or("no inner")?;
        let answer = inner.ask(request).await;
        answer
            .map(|answer| answer.value)
            .map_err(|error| error.to_string())
    }
}

#[test]
fn call_10_what_accepted_work_asks_for_in_a_drain_is_answered() {
    for inner_first in [true, false] {
        plain(async {
            let runtime = runtime().await;
            if inner_first {
                inner(&runtime, "inner").await;
            }
            let value = runtime.clone();
            let outer = runtime
                .dependency("outer")
                .workers(move || Later(value.clone()));
            let outer = outer.start().await.unwrap();
            if !inner_first {
                inner(&runtime, "inner").await;
            }
            let other = runtime.client::<Inner>("inner").unwrap();
            let caller = outer.clone();
            let accepted = tokio::spawn(async move { caller.ask(1).await });
            while outer.status().totals.attempts == 0 {
                tokio::task::yield_now().await;
            }
            let ending = runtime.clone();
            let ending = tokio::spawn(async move { ending.shutdown().await });
            let refused = loop {
                // Calls from outside are served until the drain begins.
                match other.ask(1).await {
                    Ok(_) => tokio::task::yield_now().await,
                    Err(refused) => break refused,
                }
            };
            assert!(
                matches!(
                    refused,
                    breakerbox_actors::CallError::NotExecuted {
                        reason: NotExecutedReason::ShuttingDown,
                        ..
                    }
                ),
                "from outside: {refused}"
            );
            assert_eq!(accepted.await.unwrap().unwrap().value, 2, "{inner_first}");
            ending.await.unwrap();
        });
    }
}

#[test]
fn sup_7_a_runtime_starts_on_a_thread_that_once_had_an_actix_system() {
    actix::System::new().block_on(async {});
    let waiting = actix::System::new();
    plain(async {
        let runtime = runtime().await;
        let client = inner(&runtime, "inner").await;
        assert_eq!(client.ask(1).await.unwrap().value, 2);
        runtime.shutdown().await;
    });
    drop(waiting);
}

#[test]
fn call_9_a_thread_without_tokio_can_ask() {
    let (runtime, client) = plain(async {
        let runtime = runtime().await;
        let client = inner(&runtime, "inner").await;
        (runtime, client)
    });
    assert_eq!(futures_executor(client.ask(1)).unwrap().value, 2);
    plain(runtime.shutdown());
}

#[test]
fn call_9_a_thread_without_tokio_can_start_a_runtime() {
    let runtime = futures_executor(async {
        let runtime = runtime().await;
        let client = inner(&runtime, "inner").await;
        assert_eq!(client.ask(1).await.unwrap().value, 2);
        assert_eq!(client.run(async || Ok::<_, String>(3)).await, Ok(3));
        runtime
    });
    plain(runtime.shutdown());
}

/// The timers of a call on a thread without tokio are not those of the runtime, which ends before it.
#[test]
fn call_1_a_call_on_a_thread_without_tokio_outlives_its_runtime() {
    for is_shut_down in [true, false] {
        let (runtime, client) = plain(async {
            let runtime = runtime().await;
            let builder = runtime.dependency("d").configure(|settings| {
                settings.workers.drain = ms(50);
                settings.timeout.total = Some(ms(500));
            });
            (runtime.clone(), builder.start().await.unwrap())
        });
        let (tell, begun) = mpsc::channel();
        let caller = std::thread::spawn(move || {
            let work = || {
                tell.send(()).unwrap();
                std::future::pending::<Result<(), String>>()
            };
            futures_executor(client.run(work))
        });
        begun.recv().unwrap();
        match is_shut_down {
            true => futures_executor(runtime.shutdown()),
            false => drop(runtime),
        }
        let error = caller.join().expect("no panic").unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    }
}

/// Polls a future on this thread, without a runtime.
fn futures_executor<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[test]
fn ops_1_a_listener_that_was_ended_hears_nothing_and_lets_go_of_the_runtime() {
    plain(async {
        let runtime = runtime().await;
        let client = inner(&runtime, "inner").await;
        let heard = Arc::new(AtomicUsize::new(0));
        let (held, counter) = (runtime.clone(), Arc::clone(&heard));
        let listener = runtime.on_event(move |_| {
            let _ = held.statuses();
            counter.fetch_add(1, Ordering::SeqCst);
        });
        client.set_chaos(None, "a test");
        while heard.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        listener.end();
        while Arc::strong_count(&heard) > 1 {
            client.set_chaos(None, "a test");
            tokio::task::yield_now().await;
        }
        let before = heard.load(Ordering::SeqCst);
        client.set_chaos(None, "a test");
        runtime.shutdown().await;
        assert_eq!(heard.load(Ordering::SeqCst), before);
    });
}

#[test]
fn ops_1_a_listener_has_heard_all_when_the_shutdown_ends() {
    plain(async {
        let runtime = runtime().await;
        let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = Arc::clone(&ids);
        runtime.on_event(move |event| heard.lock().unwrap().push(event.id));
        let client = inner(&runtime, "inner").await;
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || {
                    for _ in 0..200 {
                        client.set_chaos(None, "a test");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        runtime.shutdown().await;
        let ids = ids.lock().unwrap();
        assert!(ids.len() > 800 && ids.is_sorted(), "{} events", ids.len());
    });
}

#[test]
fn sup_7_a_shutdown_awaited_on_the_runtimes_own_thread_ends_it() {
    struct Ends(Runtime, mpsc::Sender<()>);
    impl Dependency for Ends {
        type Request = ();
        type Response = ();
        type Error = String;
        async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
            let (runtime, done) = (self.0.clone(), self.1.clone());
            actix::spawn(async move {
                runtime.shutdown().await;
                let _ = done.send(());
            });
            Ok(())
        }
    }
    let (done, ended) = mpsc::channel();
    plain(async {
        let runtime = runtime().await;
        let value = (runtime.clone(), std::sync::Mutex::new(done));
        let built = runtime.dependency("ends").workers(move || {
            let done = value.1.lock().unwrap().clone();
            Ends(value.0.clone(), done)
        });
        built.start().await.unwrap().ask(()).await.unwrap();
        runtime.ended().await;
    });
    ended
        .recv_timeout(std::time::Duration::from_secs(5))
        .unwrap();
}
