//! Signatures permitted under the attribute: each part of the function is preserved.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use breakerbox::protected;
use breakerbox_actors::CallError;
use breakerbox_actors::testing::{TestRuntime, run_paused};
use tokio::task::yield_now;

use super::start;

/// A doc comment, which the attribute preserves.
#[must_use]
#[protected("dep", idempotent, fallback = whole_of)]
pub(crate) async fn whole<'a, T, const N: usize>(
    text: &'a str,
    items: [T; N],
    shown: impl Display + Clone,
) -> Result<(&'a str, usize, String), String>
where
    T: Clone + Into<u64>,
{
    let sum: u64 = items.map(Into::into).iter().sum();
    let shown = format!("{shown}{sum}");
    yield_now().await;
    if text.is_empty() {
        return Err(shown);
    }
    Ok((text, N, shown))
}

async fn whole_of<T, const N: usize, S>(
    _: &str,
    _: [T; N],
    _: S,
) -> Result<(&str, usize, String), String> {
    Ok(("fallback", N, String::new()))
}

#[derive(Default)]
struct Notes {
    kept: Vec<String>,
}

struct Point {
    x: u32,
    y: u32,
}

impl Notes {
    #[protected("dep")]
    async fn add(&mut self, note: &mut String, more: Box<dyn Display + Send>) -> io::Result<usize> {
        note.push_str(&more.to_string());
        self.kept.push(std::mem::take(note));
        Ok(self.kept.len())
    }

    #[protected("dep")]
    async fn into_all(self: Box<Self>) -> Result<Vec<String>, io::Error> {
        Ok(self.kept)
    }

    #[protected("dep")]
    async fn first(&self) -> Result<&str, io::Error> {
        let first = self.kept.first();
        Ok(first.ok_or_else(|| io::Error::other("none"))?)
    }

    #[protected("dep")]
    async fn of(mut self, Point { x, y: _ }: Point, mut count: u32) -> Result<String, io::Error> {
        count += x;
        self.kept.push(count.to_string());
        Ok(self.kept.concat())
    }

    #[protected("dep", idempotent)]
    async fn sum(Point { x, y }: &Point, _: u8) -> Result<u32, String> {
        Ok(x + y)
    }

    #[protected("dep")]
    async fn letters(&self) -> Result<impl Iterator<Item = char>, String> {
        Ok("abc".chars())
    }

    #[protected("dep")]
    #[tracing::instrument(skip_all, fields(length = text.len()))]
    async fn traced(&self, text: &str) -> Result<usize, String> {
        tracing::warn!("in the body");
        Ok(text.len())
    }
}

trait Search {
    /// Declares the type that callers get.
    async fn search(&self, query: &str) -> Result<String, CallError<io::Error>>;

    #[protected("dep")]
    async fn given(&self) -> Result<u32, io::Error> {
        Ok(7)
    }
}

struct Web;

impl Search for Web {
    #[protected("dep", idempotent)]
    async fn search(&self, query: &str) -> Result<String, io::Error> {
        Ok(query.to_owned())
    }
}

type Shared<T> = Result<T, Arc<io::Error>>;

#[protected("dep")]
async fn aliased(fails: bool) -> Shared<u32> {
    if fails {
        Err(io::Error::other("no"))?;
    }
    Ok(1)
}

/// The body's own error type may be a `CallError`.
#[protected("dep")]
async fn nested() -> Result<u32, CallError<Arc<io::Error>>> {
    aliased(true).await
}

/// Names that the expansion could use for items of its own.
const SITE: &str = "of the module";

fn apply(text: &str) -> String {
    text.to_uppercase()
}

#[protected("dep", fallback = |text| { let said = apply(text); async move { Ok::<_, String>(said) } })]
async fn own_items(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(SITE.to_owned())
    } else {
        Err(apply(text))
    }
}

#[protected("dep", fallback = |apply, function| async move { Ok::<u32, String>(apply - function) })]
async fn own_arguments(apply: u32, function: u32) -> Result<u32, String> {
    Err(format!("{}", apply + function))
}

#[protected("dep")]
async fn never_ends() -> Result<u32, String> {
    panic!("told to")
}

#[test]
fn a_function_under_the_attribute_keeps_its_shape() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let _client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        let answer = whole("a", [1_u32, 2], 'x').await;
        assert_eq!(answer, Ok(("a", 2, "x3".to_owned())));
        let answer = whole("", [1_u32, 2, 3], 'x').await;
        assert_eq!(answer, Ok(("fallback", 3, String::new())));

        let mut notes = Notes::default();
        let mut note = "a".to_owned();
        assert_eq!(notes.add(&mut note, Box::new(1)).await.unwrap(), 1);
        assert_eq!(note, "");
        assert_eq!(notes.first().await.unwrap(), "a1");
        assert_eq!(notes.letters().await.unwrap().count(), 3);
        assert_eq!(Box::new(notes).into_all().await.unwrap(), ["a1"]);
        let point = Point { x: 2, y: 3 };
        assert_eq!(Notes::sum(&point, 0).await, Ok(5));
        assert_eq!(Notes::default().of(point, 1).await.unwrap(), "3");
        assert_eq!(Web.search("q").await.unwrap(), "q");
        assert_eq!(Web.given().await.unwrap(), 7);
        assert_eq!(aliased(false).await.unwrap(), 1);
        let error = nested().await.unwrap_err().into_failed();
        let error = error.unwrap().into_failed();
        assert_eq!(error.unwrap().to_string(), "no");
        runtime.finish().await;
    });
}

#[test]
fn the_attribute_goes_together_with_others() {
    let log = crate::log::Log::capture();
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let _client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        assert_eq!(Notes::default().traced("abc").await, Ok(3));
        runtime.finish().await;
    });
    let line = log.lines("in the body").concat();
    assert!(line.contains("length"), "no span around it: {line}");
}

#[test]
fn a_panic_in_the_body_is_the_callers_and_counts_as_a_failure() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        let panicked = {
            use futures_util::FutureExt;
            std::panic::AssertUnwindSafe(never_ends())
                .catch_unwind()
                .await
        };
        panicked.unwrap_err();
        crate::scripted::let_others_run().await;
        assert_eq!(client.status().tally.failures, 1);
        runtime.finish().await;
    });
}

#[test]
fn names_of_the_module_and_of_arguments_stay_its_own() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let _client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        assert_eq!(own_items("").await.unwrap(), SITE);
        assert_eq!(own_items("a").await.unwrap(), "A");
        assert_eq!(own_arguments(3, 1).await.unwrap(), 2);
        runtime.finish().await;
    });
}

/// A compile-time check: if the body's future is `Send`, so is the protected one.
#[test]
fn a_future_under_the_attribute_may_change_threads_where_its_body_may() {
    fn may_change_threads(_: impl Future + Send) {}

    #[derive(Debug)]
    struct Alone(#[expect(dead_code, reason = "it is here for its type")] std::cell::Cell<u8>);

    impl Display for Alone {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Ok(())
        }
    }

    /// The error is `Send`, but not `Sync`.
    #[protected("dep", fallback = without, timeout = 1.5)]
    async fn with(text: &str) -> Result<usize, Alone> {
        yield_now().await;
        Ok(text.len())
    }

    async fn without(text: &str) -> Result<usize, String> {
        yield_now().await;
        Ok(text.len())
    }

    may_change_threads(whole("a", [1_u32], 'x'));
    may_change_threads(aliased(true));
    may_change_threads(Notes::default().of(Point { x: 1, y: 1 }, 1));
    may_change_threads(Web.search("q"));
    may_change_threads(with("a"));
}
