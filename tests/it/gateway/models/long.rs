//! Long streams, many streams, and a bad minute with two providers.

use tokio::time::{Instant, sleep};

use super::*;

#[tokio::test]
async fn llm_item_11_llm_9_no_other_limit_cuts_a_stream_with_content() {
    let pieces = futures_util::stream::unfold(0, |number| async move {
        let piece = match number {
            0 => OPENING.to_owned(),
            1..=12 => {
                sleep(Duration::from_millis(50)).await;
                chunk("a")
            }
            13 => END.to_owned(),
            _ => return None,
        };
        Some((Ok::<_, std::io::Error>(piece), number + 1))
    });
    let body = Arc::new(Mutex::new(Some(Body::from_stream(pieces))));
    let upstream = Upstream::of(move |_| {
        let mut response = Response::new(body.lock().unwrap().take().unwrap());
        let media = "text/event-stream".parse().unwrap();
        response.headers_mut().insert("content-type", media);
        async move { response }
    })
    .await;
    let first = Provider {
        upstream,
        seen: Arc::default(),
    };
    // The stream takes more than twice as long as an attempt may.
    let bed = bed(&first, None, "timeout.attempt = \"250ms\"").await;
    let (body, is_whole) = read_all(bed.ask("gpt", true).await).await;
    assert!(is_whole && body.ends_with(END), "{body}");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_11_the_defaults_leave_room_for_long_and_for_many_streams() {
    let hang = Act::Hang(vec![OPENING.to_owned(), chunk("a")]);
    let first = Provider::of([hang]).await;
    let bed = Bed::of(&model("gpt", &first, "")).await;
    let asked = (0..200).map(|_| bed.ask("gpt", true));
    let streams = futures_util::future::join_all(asked).await;
    assert!(streams.iter().all(|stream| stream.status() == 200));
    assert_eq!(bed.of_name("gpt").in_flight, 200);
    drop(streams);
    let text =
        "[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\nurl = \"http://127.0.0.1:9/v1\"\n";
    let settings = Settings::loader().bare().toml(text).load().unwrap();
    let gpt = &settings.dependencies["gpt"];
    let timeout = gpt.settings.timeout;
    let minutes = |count: u64| Some(Duration::from_secs(60 * count));
    assert_eq!(
        (timeout.total, timeout.idle, timeout.first_byte),
        (None, None, None)
    );
    assert_eq!(timeout.attempt, minutes(10));
    assert_eq!((timeout.first_token, timeout.gap), (minutes(2), minutes(1)));
    assert_eq!(
        gpt.settings.breaker.half_open.probe_lease,
        Duration::from_secs(600)
    );
    bed.end().await;
}

/// The first provider's part in the bad minute, at one moment.
fn part(elapsed: Duration, phase: Duration) -> Act {
    let limited = json!({"error": {"message": "slow down", "type": "requests", "param": null,
        "code": "rate_limit_exceeded"}});
    match elapsed.as_nanos() / phase.as_nanos() {
        0 => Act::good("first"),
        1 | 2 => Act::error(429, limited),
        3 | 4 => Act::error(500, OVERLOADED),
        5 | 6 => Act::Hang(vec![OPENING.to_owned(), chunk("a")]),
        _ => Act::good("first"),
    }
}

/// Ten phases of well, limited, failing, stalling and well again, far shorter than in real life.
#[tokio::test]
async fn llm_item_30_a_bad_minute_costs_few_streams() {
    const PHASE: Duration = Duration::from_millis(400);
    let began = Instant::now();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let upstream = Upstream::of(move |_| {
        let elapsed = began.elapsed();
        if (1..=6).contains(&(elapsed.as_nanos() / PHASE.as_nanos())) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        async move { part(elapsed, PHASE).into_response() }
    })
    .await;
    let first = Provider {
        upstream,
        seen: Arc::default(),
    };
    let spare = Provider::good("second").await;
    let more = "retry.max_attempts = 1\nbreaker.recovery_timeout = \"200ms\"\n\
                timeout.gap = \"100ms\"\nthrottle.backoff.base = \"200ms\"\n";
    let bed = bed(&first, Some(&spare), more).await;
    let agent = async || {
        let (mut whole, mut cut) = (0_u32, 0_u32);
        while began.elapsed() < 9 * PHASE {
            let (body, is_whole) = read_all(bed.ask("gpt", true).await).await;
            match is_whole && body.ends_with(END) {
                true => whole += 1,
                false => cut += 1,
            }
            sleep(Duration::from_millis(5)).await;
        }
        (whole, cut)
    };
    let agents = futures_util::future::join_all((0..6).map(|_| agent())).await;
    let whole: u32 = agents.iter().map(|(whole, _)| whole).sum();
    let cut: u32 = agents.iter().map(|(_, cut)| cut).sum();
    // Those that stall after their content cannot be saved: at most the five that open the breaker
    // with those in flight beside them, and one for each open time.
    assert!(cut <= 6 + 5 + 8, "{whole} whole, {cut} cut");
    assert!(whole >= 10 * cut, "{whole} whole, {cut} cut");
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked <= 60, "{asked} requests while it was out");
    bed.end().await;
}
