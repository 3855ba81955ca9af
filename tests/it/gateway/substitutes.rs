//! What another dependency sees of a request that it answers as a fallback (rule EDGE-2).

use super::*;

/// A first dependency that is down, and one that answers with what it was asked.
async fn pair(first: &Upstream, second: &Upstream, more: &str) -> Bed {
    Bed::of(&format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         fallback = [{{ kind = \"dependency\", name = \"spare\"{more} }}]\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{}/base\"\n",
        first.url(),
        second.url()
    ))
    .await
}

async fn seen() -> Upstream {
    Upstream::of(async |request: Request| {
        if !request.uri().path().starts_with("/base") {
            return answer(503, "down");
        }
        let mut names: Vec<&str> = request.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        format!("{} {}", request.uri(), names.join(" ")).into_response()
    })
    .await
}

async fn with_credentials(bed: &Bed) -> String {
    let request = bed.http.get(bed.url("/web/a?q=1&api_key=s3cret"));
    let request = request
        .header("authorization", "Bearer a")
        .header("cookie", "id=1")
        .header("x-api-key", "a")
        .header("x-user-id", "a")
        .header("x-plain", "a");
    let response = request.send().await.unwrap();
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    response.text().await.unwrap()
}

#[tokio::test]
async fn edge_2_e2e_another_origin_gets_no_credentials() {
    let (first, second) = (seen().await, seen().await);
    let bed = pair(&first, &second, "").await;
    let text = with_credentials(&bed).await;
    assert!(text.starts_with("/base/a?q=1 "), "{text}");
    assert!(text.contains("x-plain"), "{text}");
    for name in [
        "authorization",
        "cookie",
        "x-api-key",
        "x-user-id",
        "s3cret",
    ] {
        assert!(!text.contains(name), "{text}");
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2e_the_same_origin_or_a_trusted_one_gets_them() {
    let (first, second) = (seen().await, seen().await);
    let trusted = pair(&first, &second, ", credentials = true").await;
    let same = pair(&first, &first, "").await;
    for bed in [trusted, same] {
        let text = with_credentials(&bed).await;
        for name in [
            "authorization",
            "cookie",
            "x-api-key",
            "x-user-id",
            "s3cret",
        ] {
            assert!(text.contains(name), "{text}");
        }
        bed.end().await;
    }
    let never = pair(&first, &first, ", credentials = false").await;
    let text = with_credentials(&never).await;
    assert!(!text.contains("authorization"), "{text}");
    never.end().await;
}

#[tokio::test]
async fn edge_3_e5g_a_long_prompt_is_sent_again_and_reaches_a_substitute() {
    let first = Upstream::of(async |_: Request| answer(503, "down")).await;
    let second = Upstream::of(async |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), 2_000_000).await;
        body.unwrap().len().to_string()
    })
    .await;
    let more = ", writes = true";
    let bed = Bed::of(&format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\nidempotent = [\"POST\"]\n\
         retry = {{ max_attempts = 2, backoff = {{ base = \"1ms\", max = \"2ms\" }} }}\n\
         fallback = [{{ kind = \"dependency\", name = \"spare\"{more} }}]\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{}\"\n",
        first.url(),
        second.url()
    ))
    .await;
    for length in [65_000, 900_000] {
        let before = first.hits();
        let response = bed.post("/web/a", "x".repeat(length)).await;
        assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
        assert_eq!(response.text().await.unwrap(), length.to_string());
        assert_eq!(first.hits() - before, 2);
    }
    bed.end().await;
}
