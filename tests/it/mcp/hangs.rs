//! A server that stops answering: item 68.

use std::num::NonZeroU32;

use breakerbox::CallOptions;
use breakerbox::policy::Executed;
use tokio::time::Instant;

use super::scripted::notes;
use super::*;

const SHORT: Duration = Duration::from_millis(300);

fn short(policy: &mut DependencySettings) {
    policy.timeout.attempt = Some(SHORT);
}

async fn in_a_hurry(bed: &Bed, tool: &str) -> Ended {
    let options = CallOptions {
        timeout: Some(SHORT),
        ..CallOptions::default()
    };
    let arguments = object(json!({}));
    bed.server.call_with(tool, arguments, options).await
}

fn is_late(ended: &Ended) -> bool {
    matches!(
        ended,
        Err(CallError::TimedOut {
            executed: Executed::Maybe,
            ..
        })
    )
}

#[tokio::test]
async fn item_68_a_stopped_server_is_killed_and_replaced_without_a_goodbye() {
    let Some(bed) = Bed::scripted(|_| {}, short).await else {
        return;
    };
    let first = bed.process();
    signal(first, "STOP");
    for number in 1..=3 {
        let began = Instant::now();
        let ended = in_a_hurry(&bed, "echo").await;
        let took = began.elapsed();
        assert!(is_late(&ended), "call {number}: {ended:?}");
        assert!(
            took >= SHORT && took < SHORT + Duration::from_millis(500),
            "{took:?}"
        );
    }
    bed.until_life(2).await;
    let answer = bed.call("echo", json!({ "text": "well" })).await.unwrap();
    assert_eq!(answer.value.content, "well");
    gone(&[first]);
    let exit = bed.last_exit();
    assert!(exit.contains("it hung"), "{exit}");
    bed.end().await;
}

#[tokio::test]
async fn sup_6_m16_a_call_by_which_its_server_hangs_twice_is_refused() {
    let Some(bed) = Bed::scripted(|_| {}, short).await else {
        return;
    };
    for life in 1..=2 {
        // As if the call did it. It ends by its time, before the hang shows.
        signal(bed.process(), "STOP");
        let ended = in_a_hurry(&bed, "echo").await;
        assert!(is_late(&ended), "life {life}: {ended:?}");
        bed.until_life(life + 1).await;
    }
    let refused = in_a_hurry(&bed, "echo").await;
    assert!(
        matches!(refused, Err(CallError::Quarantined { .. })),
        "{refused:?}"
    );
    // Another call is not.
    let answer = bed.call("echo", json!({ "text": "well" })).await.unwrap();
    assert_eq!(answer.value.content, "well");
    bed.end().await;
}

#[tokio::test]
async fn mcp_4_m4_deadlines_of_callers_say_nothing_about_a_server_that_answers() {
    let Some(bed) = Bed::scripted(|_| {}, short).await else {
        return;
    };
    let first = bed.process();
    // A call that is never answered owes an answer for ever; the server still gives signs of life.
    for _ in 0..6 {
        in_a_hurry(&bed, "hang").await.unwrap_err();
    }
    bed.call("echo", json!({})).await.unwrap();
    for _ in 0..4 {
        in_a_hurry(&bed, "hang").await.unwrap_err();
    }
    assert_eq!((bed.lives(), bed.process()), (1, first));
    bed.end().await;
}

#[tokio::test]
async fn item_68_the_server_is_told_that_nobody_waits() {
    let Some(bed) = Bed::scripted(|_| {}, |_| {}).await else {
        return;
    };
    let ended = in_a_hurry(&bed, "hang").await;
    assert!(is_late(&ended), "{ended:?}");
    let told = |bed: &Bed| {
        let notes = notes(bed.folder.path());
        notes
            .iter()
            .any(|line| line.starts_with("notifications/cancelled "))
    };
    bed.until("it is told", told).await;
    bed.end().await;
}

#[tokio::test]
async fn item_68_one_that_answers_others_is_slow_and_does_not_hang() {
    let Some(bed) = Bed::scripted(|_| {}, |_| {}).await else {
        return;
    };
    for _ in 0..4 {
        let hung = in_a_hurry(&bed, "hang");
        let (hung, answered) = tokio::join!(hung, bed.call("echo", json!({ "wait": 50 })));
        assert!(is_late(&hung), "{hung:?}");
        answered.unwrap();
    }
    assert_eq!(bed.lives(), 1);
    bed.end().await;
}

#[tokio::test]
async fn item_68_whoever_leaves_early_says_nothing_about_the_server() {
    let Some(bed) = Bed::scripted(|_| {}, |_| {}).await else {
        return;
    };
    signal(bed.process(), "STOP");
    for _ in 0..5 {
        let left = tokio::time::timeout(Duration::from_millis(30), bed.call("hang", json!({})));
        assert!(left.await.is_err());
    }
    signal(bed.process(), "CONT");
    bed.call("echo", json!({})).await.unwrap();
    assert_eq!(bed.lives(), 1);
    bed.end().await;
}

#[tokio::test]
async fn mcp_4_a_busy_server_has_the_time_of_its_longest_call_in_flight() {
    let hurried = |server: &mut McpSettings| server.hang_limit = NonZeroU32::new(2);
    let Some(bed) = Bed::scripted(hurried, short).await else {
        return;
    };
    let options = CallOptions {
        timeout: Some(Duration::from_secs(15)),
        ..CallOptions::default()
    };
    let arguments = object(json!({ "wait": 4000 }));
    let busy = bed.server.call_with("busy", arguments, options);
    // Another caller does not shorten the time by a call of its own.
    let other = async {
        bed.until("the server works", |bed| {
            notes(bed.folder.path()).contains(&"call busy".to_owned())
        })
        .await;
        in_a_hurry(&bed, "echo").await
    };
    let (busy, other) = tokio::join!(busy, other);
    assert_eq!(busy.unwrap().value.content, "done");
    assert!(is_late(&other), "{other:?}");
    assert_eq!(bed.lives(), 1);
    bed.end().await;
}

#[tokio::test]
async fn mcp_4_a_short_limit_of_one_tool_is_not_the_servers() {
    let hurried = |server: &mut McpSettings| server.hang_limit = NonZeroU32::new(2);
    let endless = |policy: &mut DependencySettings| policy.timeout.attempt = None;
    let Some(bed) = Bed::scripted(hurried, endless).await else {
        return;
    };
    let options = CallOptions {
        attempt: Some(SHORT),
        ..CallOptions::default()
    };
    let arguments = object(json!({ "wait": 4000 }));
    let late = bed.server.call_with("busy", arguments, options).await;
    assert!(is_late(&late), "{late:?}");
    // It is answered when the server has done its work.
    bed.call("echo", json!({})).await.unwrap();
    assert_eq!(bed.lives(), 1);
    bed.end().await;
}
