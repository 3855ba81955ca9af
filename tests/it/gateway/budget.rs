//! The budget of bytes (`gateway.max_buffered`) and the share of one caller
//! (`gateway.per_caller`), rule EDGE-4.

use super::*;

/// Answers `/hang` once the test lets it, every other request with its body, or with 20 KB.
async fn patient() -> (tokio::sync::watch::Sender<bool>, Upstream) {
    let (let_go, gone) = tokio::sync::watch::channel(false);
    let upstream = Upstream::of(move |request: Request| {
        let mut gone = gone.clone();
        async move {
            let hangs = request.uri().path() == "/hang";
            let has_body = request.method() != "GET";
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            if hangs {
                gone.wait_for(|gone| *gone).await.unwrap();
            }
            match has_body {
                true => body.unwrap().into_response(),
                false => vec![b'k'; 20_000].into_response(),
            }
        }
    })
    .await;
    (let_go, upstream)
}

const KEEPS: &str = "idempotent = [\"PUT\"]\nretry = { max_attempts = 2 }";

async fn put(bed: &Bed, path: &str, length: usize) -> reqwest::Response {
    let request = bed.http.put(bed.url(path)).body(vec![b'x'; length]);
    request.send().await.unwrap()
}

async fn until_used(bed: &Bed, what: &str, is_so: impl Fn(u64) -> bool) {
    let look = async {
        while !is_so(bed.gateway.buffered().used) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, look).await;
    assert!(seen.is_ok(), "{what}: {:?}", bed.gateway.buffered());
}

#[tokio::test]
async fn edge_4_e6c_above_the_budget_a_body_is_refused_or_passed_on() {
    let (let_go, upstream) = patient().await;
    let text = format!("{KEEPS}\n[gateway]\nmax_buffered = \"1MB\"");
    let bed = Arc::new(Bed::new(&upstream.url(), &text).await);
    let first = Arc::clone(&bed);
    let first = tokio::spawn(async move { put(&first, "/web/hang", 980_000).await });
    until_used(&bed, "the first is kept", |used| used == 980_000).await;
    // It would have to be kept, to be sent again.
    let refused = put(&bed, "/web/a", 50_000).await;
    assert_eq!(header(&refused, "retry-after"), "1");
    let told = problem(refused, 503, "overloaded").await;
    assert_eq!(told["cause"], "gateway.max_buffered");
    assert_eq!(told["executed"], "no");
    // It need not be kept.
    let passed = bed.post("/web/a", vec![b'y'; 50_000]).await;
    assert_eq!(passed.bytes().await.unwrap(), vec![b'y'; 50_000]);
    let status = bed.status();
    assert_eq!((status.window.failures, status.tally.failures), (0, 0));
    let buffered = bed.gateway.buffered();
    assert_eq!(buffered.limit, 1_000_000);
    assert!(buffered.refused >= 2, "{buffered:?}");
    // A reload gives room.
    let mut more = Settings::default().gateway;
    more.max_buffered = 2_000_000;
    bed.gateway.configure(&more);
    assert_eq!(put(&bed, "/web/a", 50_000).await.status(), 200);
    let_go.send_replace(true);
    assert_eq!(first.await.unwrap().status(), 200);
    until_used(&bed, "all is given back", |used| used == 0).await;
}

#[tokio::test]
async fn edge_4_e6c_kept_answers_count_and_give_way() {
    let (_let_go, upstream) = patient().await;
    let text = format!(
        "{KEEPS}\nfallback = [{{ kind = \"stale_cache\" }}]\n[gateway]\nmax_buffered = \"1MB\""
    );
    let bed = Bed::new(&upstream.url(), &text).await;
    for number in 0..100 {
        let response = bed.get(&format!("/web/{number}")).await;
        assert_eq!(response.bytes().await.unwrap().len(), 20_000);
    }
    let full = bed.gateway.buffered();
    assert!((600_000..=1_000_000).contains(&full.used), "{full:?}");
    let response = put(&bed, "/web/a", 900_000).await;
    assert_eq!(response.bytes().await.unwrap().len(), 900_000);
    let left = bed.gateway.buffered().used;
    assert!(left < 200_000, "{left}");
    bed.end().await;
}

/// A GET from another address of this machine than the other callers have.
#[cfg(target_os = "linux")]
async fn from_elsewhere(bed: &Bed, path: &str) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut caller = socket.connect(bed.gateway.address()).await.unwrap();
    let text = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    caller.write_all(text.as_bytes()).await.unwrap();
    read_to_end(&mut caller).await
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn edge_4_e6f_a_caller_that_reads_nothing_takes_its_own_places_only() {
    let upstream = Upstream::of(async |request: Request| {
        if request.uri().path() == "/short" {
            return answer(200, "short");
        }
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 65_536]));
        Body::from_stream(pieces).into_response()
    })
    .await;
    let text = "[gateway]\nper_caller = { places = 2 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut stuck = Vec::new();
    for _ in 0..2 {
        let mut caller = bed.connect().await;
        let endless = b"GET /web/endless HTTP/1.1\r\nhost: a\r\n\r\n";
        caller.write_all(endless).await.unwrap();
        stuck.push(caller);
    }
    bed.until("they are served", |one| one.in_flight == 2).await;
    let refused = bed.get("/web/short").await;
    assert_eq!(header(&refused, "retry-after"), "1");
    let told = problem(refused, 429, "rate-limited").await;
    assert_eq!(told["cause"], "gateway.per_caller.places");
    let other = from_elsewhere(&bed, "/web/short").await;
    assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    assert_eq!(bed.status().window.failures, 0);
    drop(stuck);
    bed.until("the places are free", |one| one.in_flight == 0)
        .await;
    let look = async { while bed.get("/web/short").await.status() != 200 {} };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6f_new_keys_of_a_caller_are_limited() {
    let (_let_go, upstream) = patient().await;
    let text = "[gateway]\nper_caller = { keys = 3 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let with_key = async |key: String| {
        let request = bed.http.get(bed.url("/web/a"));
        request.header("breakerbox-key", key).send().await.unwrap()
    };
    assert_eq!(with_key("known".to_owned()).await.status(), 200);
    // They take less than ten seconds, and then are too many for the limit.
    let mut refused = 0;
    for number in 0..200 {
        let response = with_key(format!("key-{number}")).await;
        if response.status() == 429 {
            refused += 1;
            let told = problem(response, 429, "rate-limited").await;
            assert_eq!(told["cause"], "gateway.per_caller.keys");
            assert_eq!(with_key("known".to_owned()).await.status(), 200);
        }
    }
    assert!(refused > 100, "{refused}");
    assert!(bed.status().keys.len() < 100);
    bed.end().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn edge_4_e6f_connections_of_a_caller_are_limited() {
    let (_let_go, upstream) = patient().await;
    let text = "[gateway]\nper_caller = { connections = 2 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let request = b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut caller = bed.connect().await;
        caller.write_all(request).await.unwrap();
        read_until(&mut caller, "HTTP/1.1 200 ").await;
        open.push(caller);
    }
    let mut third = bed.connect().await;
    // The gateway may have closed it by now.
    let _ = third.write_all(request).await;
    assert_eq!(read_to_end(&mut third).await, "");
    let other = from_elsewhere(&bed, "/web/a").await;
    assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    drop(open);
    let look = async {
        loop {
            let mut caller = bed.connect().await;
            let _ = caller.write_all(request).await;
            let mut byte = [0];
            if matches!(caller.read(&mut byte).await, Ok(1)) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    bed.end().await;
}
