//! Calls of a session with a stream of events that can be taken up again after it broke off.
//!
//! MCP-5: in the dialect with sessions a lost connection is no cancellation. The call goes on for a
//! while, and its messages are kept within the bounds of a session's stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::caller_message::CallerMessage;
use super::message_history::MessageHistory;
use super::session_stream::SessionStream;

/// Time for which a call goes on after its stream broke off, until its caller comes back.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks whether a caller reads.
const LOOK: Duration = Duration::from_millis(500);

/// Time for which the messages of a call are kept after its end.
const KEPT: Duration = Duration::from_secs(30);

/// Pause for a caller that reads slowly.
const PAUSE: Duration = Duration::from_millis(20);

/// A call with the messages of its stream.
pub(super) struct KeptCall {
    /// Its number within its session.
    pub(super) number: u64,
    pub(super) stream: SessionStream,
}

/// The answer of a call; `None` if the caller has cancelled it.
pub(super) type KeptAnswer = Pin<Box<dyn Future<Output = Option<CallerMessage>> + Send>>;

impl KeptCall {
    pub(super) fn new(number: u64, history: &Arc<MessageHistory>) -> Arc<Self> {
        let stream = SessionStream::new(history);
        Arc::new(Self { number, stream })
    }

    /// Makes the call, and keeps its messages. Ends it if no caller reads for a while.
    pub(super) async fn run(
        self: Arc<Self>,
        mut messages: mpsc::Receiver<CallerMessage>,
        mut call: KeptAnswer,
    ) {
        let mut unread = Box::pin(unread(&self.stream));
        loop {
            // A slow caller misses messages before its answer, as in every call.
            let is_full = self.stream.is_full();
            tokio::select! {
                biased;
                Some(message) = messages.recv(), if !is_full => {
                    self.stream.tell(message);
                }
                answer = &mut call, if !is_full => {
                    // Earlier messages of the server come before its answer.
                    while let Ok(message) = messages.try_recv() {
                        self.stream.tell(message);
                    }
                    if let Some(answer) = answer {
                        self.stream.tell(answer);
                    }
                    break;
                }
                // Its end cancels the call.
                () = &mut unread => break,
                () = sleep(PAUSE), if is_full => {}
            }
        }
        self.stream.finish();
        // EDGE-4: they take memory from the bodies of others.
        let kept = Arc::clone(&self);
        drop(tokio::spawn(async move {
            sleep(KEPT).await;
            kept.stream.forget();
        }));
    }
}

/// Waits until no caller has read a stream for a while.
async fn unread(stream: &SessionStream) {
    let mut since = Instant::now();
    while since.elapsed() < PATIENCE {
        sleep(LOOK).await;
        if stream.is_open() {
            since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer_budget::BufferBudget;

    fn message(text: &'static str) -> CallerMessage {
        vec![bytes::Bytes::from_static(text.as_bytes())]
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_5_a_call_goes_on_for_a_while_without_its_caller() {
        let kept = KeptCall::new(1, &MessageHistory::new(&BufferBudget::new(1 << 20)));
        let opened = kept.stream.open(None).unwrap();
        let (said, messages) = mpsc::channel(4);
        let (sender, answer) = tokio::sync::oneshot::channel();
        let call = Box::pin(async move { answer.await.ok() });
        let running = tokio::spawn(Arc::clone(&kept).run(messages, call));
        said.send(message("1")).await.unwrap();
        drop(opened);
        sleep(PATIENCE / 2).await;
        let mut again = kept.stream.open(Some(0)).unwrap();
        assert_eq!(again.messages.recv().await.unwrap().number, 1);
        sleep(2 * PATIENCE).await;
        sender.send(message("2")).unwrap();
        running.await.unwrap();
        assert_eq!(again.messages.recv().await.unwrap().message, message("2"));
        assert!(
            again.messages.recv().await.is_none(),
            "the stream ends with the call"
        );
        // It can be asked for once more.
        let mut late = kept.stream.open(Some(1)).unwrap();
        assert_eq!(late.messages.recv().await.unwrap().number, 2);
        assert!(late.messages.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_5_a_call_that_nobody_takes_up_again_is_cancelled() {
        let kept = KeptCall::new(1, &MessageHistory::new(&BufferBudget::new(1 << 20)));
        drop(kept.stream.open(None).unwrap());
        let (_said, messages) = mpsc::channel(4);
        let (dropped, mut is_dropped) = mpsc::channel::<()>(1);
        let call = Box::pin(async move {
            let _dropped = dropped;
            std::future::pending().await
        });
        let began = Instant::now();
        Arc::clone(&kept).run(messages, call).await;
        assert!(is_dropped.recv().await.is_none());
        assert!((PATIENCE..PATIENCE + 2 * LOOK).contains(&began.elapsed()));
    }
}
