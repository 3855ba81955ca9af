//! Tests of one connection, without a server.

use super::super::audience::CredentialDigest;
use super::super::settings::McpSettings;
use super::*;

/// A caller that notes the notifications that it gets.
struct NotingCaller(u64, Mutex<Vec<String>>);

impl CallListener for NotingCaller {
    fn caller(&self) -> u64 {
        self.0
    }

    fn credentials(&self) -> Option<CredentialDigest> {
        None
    }

    fn heard(&self, notice: ServerNotice) {
        self.1.acquire().push(notice.method.to_string());
    }

    fn ask(&self, _: ServerQuestion) -> AnswerFuture {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn mcp_5_messages_of_a_call_that_its_caller_has_left_reach_no_other_caller() {
    let (lines, mut waiting) = mpsc::channel(32);
    let link = Link::Pipe(Mutex::new(Some(lines)));
    let state = Arc::new(ServerState::new(McpSettings::stdio("none", [""; 0])));
    let connection = Connection::new(link, Arc::default(), &state, None);
    let begin = |number: u64| {
        let caller = Arc::new(NotingCaller(number, Mutex::default()));
        let side = CallSide {
            listener: Some(Arc::clone(&caller) as Arc<dyn CallListener>),
            ..CallSide::default()
        };
        let own = Arc::clone(&connection);
        let asking = tokio::spawn(async move { own.ask("tools/call", None, side).await });
        (caller, asking)
    };
    let (_, first) = begin(1);
    let (other, second) = begin(2);
    for _ in 0..2 {
        assert!(waiting.recv().await.is_some());
    }
    first.abort();
    assert!(first.await.is_err());
    let notice = || {
        let notice = ServerNotice::new("notifications/message", None);
        connection.take(IncomingMessage::Notification(notice), None);
        std::mem::take(&mut *other.1.acquire()).len()
    };
    assert_eq!(notice(), 0);
    // A question is answered in the name of no caller.
    let question = ServerQuestion::new("roots/list", None);
    let id = MessageId::of_text("roots");
    connection.take(IncomingMessage::Request { id, question }, None);
    let refused = loop {
        let line = String::from_utf8(waiting.recv().await.unwrap().concat()).unwrap();
        if line.contains("\"roots\"") {
            break line;
        }
    };
    assert!(refused.contains("several callers"), "{refused}");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(notice(), 1);
    second.abort();
}

#[tokio::test]
async fn mcp_2_m14_answers_that_a_server_does_not_read_are_bounded() {
    let (lines, mut waiting) = mpsc::channel(32);
    let link = Link::Pipe(Mutex::new(Some(lines)));
    let state = Arc::new(ServerState::new(McpSettings::stdio("none", [""; 0])));
    let connection = Connection::new(link, Arc::default(), &state, None);
    let ask = |id: String| {
        let question = ServerQuestion::new("ping", None);
        let id = MessageId::of_text(&id);
        connection.take(IncomingMessage::Request { id, question }, None);
    };
    for number in 0..10_000 {
        ask(number.to_string());
        if number % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let kept = connection.asked.acquire().len() + connection.unsent.load(Ordering::Relaxed);
    assert_eq!(kept, MAX_UNSENT);
    // One that reads again is answered again.
    for _ in 0..MAX_UNSENT {
        assert!(waiting.recv().await.is_some());
    }
    ask("last".to_owned());
    loop {
        let line = waiting.recv().await.unwrap().concat();
        if String::from_utf8(line).unwrap().contains("\"last\"") {
            break;
        }
    }
}

#[tokio::test]
async fn mcp_5_a_question_before_the_first_call_is_answered_at_once() {
    let (lines, mut waiting) = mpsc::channel(32);
    let link = Link::Pipe(Mutex::new(Some(lines)));
    let state = Arc::new(ServerState::new(McpSettings::stdio("none", [""; 0])));
    let connection = Connection::new(link, Arc::default(), &state, None);
    // The handshake is under way.
    let asking = Arc::clone(&connection);
    let asking = tokio::spawn(async move {
        let side = CallSide::default();
        asking.ask_plain("initialize", None, side).await
    });
    assert!(waiting.recv().await.is_some());
    let question = ServerQuestion::new("roots/list", None);
    let id = MessageId::of_text("roots");
    connection.take(IncomingMessage::Request { id, question }, None);
    let line = String::from_utf8(waiting.recv().await.unwrap().concat()).unwrap();
    assert!(
        line.contains("\"roots\"") && line.contains("-32601"),
        "{line}"
    );
    asking.abort();
}

#[tokio::test]
async fn mcp_5_a_server_gets_the_reason_for_which_its_caller_cancels() {
    let (lines, mut waiting) = mpsc::channel(32);
    let link = Link::Pipe(Mutex::new(Some(lines)));
    let state = Arc::new(ServerState::new(McpSettings::stdio("none", [""; 0])));
    let connection = Connection::new(link, Arc::default(), &state, None);
    let told = Arc::new(OnceLock::new());
    let side = CallSide {
        cancelled: Some(Arc::clone(&told)),
        ..CallSide::default()
    };
    let asking = Arc::clone(&connection);
    let asking = tokio::spawn(async move { asking.ask("tools/call", None, side).await });
    assert!(waiting.recv().await.is_some());
    let text = Bytes::from_static(b"{\"requestId\":5,\"reason\":\"stop\"}");
    told.set(JsonText::checked(text)).unwrap();
    asking.abort();
    let line = String::from_utf8(waiting.recv().await.unwrap().concat()).unwrap();
    let expected = "\"params\":{\"requestId\":1,\"reason\":\"stop\"}";
    assert!(line.contains(expected), "{line}");
}
