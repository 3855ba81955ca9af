//! Pages of `gateway.origins` that use an HTTP dependency from a browser.

use super::*;

const PAGE: &str = "https://app.example";
const TOKEN: &str = "0123456789abcdef";

/// A gateway that asks for a token, in front of a service that serves [`PAGE`].
async fn bed() -> (Upstream, Bed) {
    let upstream = Upstream::of(async |request: Request| {
        let token = request.headers().contains_key("authorization");
        let text = format!("{} {token}", request.method());
        ([("access-control-allow-origin", PAGE)], text)
    })
    .await;
    let url = upstream.url();
    let bed = Bed::of(&format!(
        "[gateway]\norigins = [\"{PAGE}\"]\nauth = {{ tokens = [\"{TOKEN}\"] }}\n\
         [dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n\
         [dependencies.gone]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
         [dependencies.fixed]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
         fallback = [{{ kind = \"fixed\", body = \"[]\" }}]\n"
    ))
    .await;
    (upstream, bed)
}

/// Asks as a browser does before a page of an origin may post.
async fn preflight(bed: &Bed, origin: &str, more: &[(&str, &str)]) -> reqwest::Response {
    let mut asked = bed
        .http
        .request(reqwest::Method::OPTIONS, bed.url("/web/a"));
    for (name, value) in [&[("origin", origin)], more].concat() {
        asked = asked.header(name, value);
    }
    asked.send().await.unwrap()
}

#[tokio::test]
async fn edge_5_a_preflight_of_a_listed_page_is_answered_without_the_dependency() {
    let (upstream, bed) = bed().await;
    let method = ("access-control-request-method", "POST");
    let headers = ("access-control-request-headers", "authorization,x-own");
    let asked = preflight(&bed, PAGE, &[method, headers]).await;
    assert_eq!(asked.status(), 204);
    assert_eq!(header(&asked, "access-control-allow-origin"), PAGE);
    assert_eq!(header(&asked, "access-control-allow-methods"), "POST");
    assert_eq!(header(&asked, "access-control-allow-headers"), headers.1);
    assert_eq!(header(&asked, "access-control-allow-credentials"), "true");
    // None of these is one, or not of a page that is listed.
    let credential = ("authorization", "Bearer other");
    for (origin, more, status) in [
        (PAGE, &[][..], 401),
        (PAGE, &[method, credential], 401),
        ("https://evil.example", &[method], 403),
    ] {
        assert_eq!(preflight(&bed, origin, more).await.status(), status);
    }
    assert_eq!(upstream.hits(), 0, "it would see our credentials");
    bed.end().await;
}

#[tokio::test]
async fn edge_5_a_listed_page_reads_the_gateways_own_answers() {
    let (_upstream, bed) = bed().await;
    let bearer = format!("Bearer {TOKEN}");
    for (path, credential, status) in [
        ("/web/a", "", 401),
        ("/nobody/a", &bearer, 404),
        ("/gone/a", &bearer, 502),
        ("/fixed/a", &bearer, 200),
        ("/web/a", &bearer, 200),
    ] {
        let ask = |origin: Option<&str>| {
            let asked = bed.http.get(bed.url(path));
            let asked = asked.header("authorization", credential);
            match origin {
                Some(origin) => asked.header("origin", origin).send(),
                None => asked.send(),
            }
        };
        let response = ask(Some(PAGE)).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let allowed = response.headers().get_all("access-control-allow-origin");
        let allowed: Vec<_> = allowed.iter().collect();
        assert_eq!(allowed, [PAGE], "{path}");
        // Without a page nothing is added.
        let plain = ask(None).await.unwrap();
        let is_own = header(&plain, "breakerbox-source") != "primary";
        let allowed = plain.headers().contains_key("access-control-allow-origin");
        assert_eq!(allowed, !is_own, "{path}");
    }
    bed.end().await;
}
