//! Streams that follow a script.

use std::sync::atomic::{AtomicU32, Ordering};

use breakerbox_actors::{CallError, Streamed};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};

use crate::scripted::pass;

/// One step of a stream. After the last step it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Item(u32),
    Wait(u64),
    Fail,
    Hang,
    Panic,
}

pub(crate) type Items = BoxStream<'static, Result<u32, &'static str>>;
pub(crate) type Error = CallError<&'static str>;

/// The error of [`Step::Fail`].
pub(crate) const LOST: &str = "connection lost";

/// A stream of these steps.
pub(crate) fn play(steps: impl Into<Vec<Step>>) -> Items {
    let steps: Vec<_> = steps.into();
    let next = |mut steps: std::vec::IntoIter<Step>| async {
        loop {
            let item = match steps.next()? {
                Step::Item(item) => Ok(item),
                Step::Fail => Err(LOST),
                Step::Wait(millis) => {
                    pass(millis).await;
                    continue;
                }
                Step::Hang => std::future::pending().await,
                Step::Panic => panic!("told to"),
            };
            return Some((item, steps));
        }
    };
    unfold(steps.into_iter(), next).boxed()
}

/// Scripts for the attempts of a call, in order; the last one is repeated.
pub(crate) struct Scripts {
    scripts: Vec<Vec<Step>>,
    opened: AtomicU32,
}

impl Scripts {
    pub(crate) fn new<const N: usize>(scripts: [&[Step]; N]) -> Self {
        Self {
            scripts: scripts.iter().map(|script| script.to_vec()).collect(),
            opened: AtomicU32::new(0),
        }
    }

    /// Opens a stream of the next script.
    pub(crate) async fn open(&self) -> Result<Items, &'static str> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed) as usize;
        let number = number.min(self.scripts.len() - 1);
        Ok(play(self.scripts[number].clone()))
    }

    pub(crate) fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }
}

/// Reads a stream to its end; returns its items and its error.
pub(crate) async fn read(mut stream: Streamed<Items>) -> (Vec<u32>, Option<Error>) {
    let mut items = Vec::new();
    while let Some(next) = stream.next().await {
        match next {
            Ok(item) => items.push(item),
            Err(error) => {
                assert!(stream.next().await.is_none(), "an error is the last item");
                return (items, Some(error));
            }
        }
    }
    (items, None)
}
