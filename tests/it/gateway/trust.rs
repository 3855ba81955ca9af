//! Trust at the edge: which hosts, pages, headers and paths are served, and what a dependency is
//! told.

use super::*;

/// An upstream that answers with the head that it received.
async fn echo() -> Upstream {
    Upstream::of(|request: Request| async move {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        text
    })
    .await
}

/// Sends bytes on a connection of their own; returns the answer up to the end of the connection.
async fn raw(bed: &Bed, head: &str) -> String {
    let mut caller = bed.connect().await;
    let request = format!("{head}connection: close\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut caller).await
}

fn is(answer: &str, status: u16, code: &str) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status} "))
        && answer.contains(&format!("\"urn:breakerbox:{code}\""))
}

#[tokio::test]
async fn edge_5_e7a_a_foreign_host_is_refused_however_it_is_named() {
    let upstream = echo().await;
    let url = upstream.url();
    let text = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n");
    let bed = Bed::of(&text).await;
    for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
        for host in [
            "evil.example",
            "evil.example:7070",
            "localhost.evil.example",
        ] {
            for head in [
                format!("{method} /web/x HTTP/1.1\r\nhost: {host}\r\n"),
                format!("{method} /web/x HTTP/1.0\r\nhost: {host}\r\n"),
                format!("{method} http://{host}/web/x HTTP/1.1\r\nhost: localhost\r\n"),
                format!("{method} / HTTP/1.1\r\nhost: {host}\r\n"),
                format!("{method} /nobody HTTP/1.1\r\nhost: {host}\r\n"),
            ] {
                let answer = raw(&bed, &head).await;
                let status = answer.split(' ').nth(1);
                assert_eq!(status, Some("421"), "{head}: {answer}");
                assert!(method == "HEAD" || answer.contains("urn:breakerbox:foreign-host"));
            }
        }
    }
    assert_eq!(upstream.hits(), 0);
    let port = bed.gateway.address().port();
    for host in [
        "localhost",
        "LocalHost:1",
        "127.0.0.1",
        "[::1]:7070",
        "a",
        "localhost.",
    ] {
        let answer = raw(&bed, &format!("GET /web/x HTTP/1.1\r\nhost: {host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    // The target of a request counts more than its host header.
    let head = format!("GET http://localhost:{port}/web/x HTTP/1.1\r\nhost: other.example\r\n");
    let answer = raw(&bed, &head).await;
    assert!(
        answer.contains(&format!("host=\"localhost:{port}\"")),
        "{answer}"
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7a_an_mcp_server_is_guarded_like_any_other() {
    let bed = Bed::new("http://127.0.0.1:9", "").await;
    let text = "[dependencies.mem]\nkind = \"mcp_http\"\nurl = \"http://127.0.0.1:9\"\n";
    let settings = Settings::loader().bare().toml(text).load().unwrap();
    let one = &settings.dependencies["mem"];
    let put = bed.gateway.put("mem", one, "http://127.0.0.1:9", "test");
    // It is not reachable; its endpoint need not be there for a refusal.
    drop(put.await);
    for (line, status, code) in [
        // The protocol has 403 for both.
        ("host: evil.example\r\n", 403, "foreign-host"),
        (
            "host: localhost\r\norigin: http://evil.example\r\n",
            403,
            "foreign-origin",
        ),
        (
            "host: localhost\r\nsec-fetch-site: cross-site\r\n",
            403,
            "foreign-origin",
        ),
    ] {
        let head = format!(
            "POST /mem/mcp HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n{line}"
        );
        let answer = raw(&bed, &head).await;
        assert!(is(&answer, status, code), "{answer}");
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7a_elsewhere_the_listed_hosts_are_served() {
    let upstream = echo().await;
    let url = upstream.url();
    let web = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n");
    let wide = |hosts: &str| {
        let text = format!("[gateway]\nbind = \"0.0.0.0:0\"\n{hosts}{web}");
        Settings::loader().bare().toml(text).load().unwrap()
    };
    for (hosts, known) in [("", true), ("hosts = [\"gw.example\"]\n", false)] {
        let settings = wide(hosts);
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
        let one = &settings.dependencies["web"];
        gateway.put("web", one, &url, "test").await.unwrap();
        for (host, is_served) in [("gw.example:80", true), ("other.example", known)] {
            let address = ("127.0.0.1", gateway.address().port());
            let mut caller = TcpStream::connect(address).await.unwrap();
            let head = format!("GET /web/a HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            caller.write_all(head.as_bytes()).await.unwrap();
            let answer = read_to_end(&mut caller).await;
            let status = if is_served { "200" } else { "421" };
            assert_eq!(answer.split(' ').nth(1), Some(status), "{host}: {answer}");
        }
        gateway.shutdown().await;
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn edge_5_e7a_a_page_of_another_site_changes_and_reads_nothing() {
    let upstream = echo().await;
    let bed = Bed::new(&upstream.url(), "").await;
    let own = bed.gateway.address();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        for lines in [
            "origin: http://evil.example\r\n".to_owned(),
            "origin: null\r\n".to_owned(),
            "sec-fetch-site: cross-site\r\n".to_owned(),
            "sec-fetch-site: same-site\r\nsec-fetch-mode: no-cors\r\n".to_owned(),
            format!("origin: http://{own}\r\nsec-fetch-site: cross-site\r\n"),
            "origin: http://localhost:3000\r\nsec-fetch-site: same-site\r\n".to_owned(),
        ] {
            // The kind of body that a page may send without being asked.
            let body = if method == "POST" {
                "content-type: text/plain\r\ncontent-length: 2\r\n"
            } else {
                ""
            };
            let head = format!("{method} /web/x HTTP/1.1\r\nhost: {own}\r\n{body}{lines}");
            let answer = raw(&bed, &head).await;
            assert!(is(&answer, 403, "foreign-origin"), "{head}: {answer}");
            assert!(!answer.contains("access-control"), "{answer}");
        }
    }
    assert_eq!(upstream.hits(), 0);
    let link =
        "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n";
    for (method, lines, status) in [
        ("GET", link.to_owned(), "200"),
        ("POST", link.to_owned(), "403"),
        (
            "DELETE",
            format!("origin: http://{own}\r\nsec-fetch-site: same-origin\r\n"),
            "200",
        ),
        ("POST", "sec-fetch-site: none\r\n".to_owned(), "200"),
    ] {
        let answer = raw(
            &bed,
            &format!("{method} /web/x HTTP/1.1\r\nhost: {own}\r\n{lines}"),
        )
        .await;
        assert_eq!(
            answer.split(' ').nth(1),
            Some(status),
            "{method} {lines}: {answer}"
        );
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7a_a_listed_origin_is_served() {
    let upstream = echo().await;
    let url = upstream.url();
    let text = format!(
        "[gateway]\norigins = [\"https://app.example\", \"tauri://localhost\"]\n\
         [dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n"
    );
    let bed = Bed::of(&text).await;
    for (origin, status) in [
        ("https://app.example", "200"),
        ("tauri://localhost", "200"),
        ("http://app.example", "403"),
        ("https://app.example:8443", "403"),
    ] {
        let lines = format!("origin: {origin}\r\nsec-fetch-site: cross-site\r\n");
        let head =
            format!("POST /web/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{lines}");
        let answer = raw(&bed, &head).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{origin}: {answer}");
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7b_what_is_not_trusted_is_neither_obeyed_nor_passed_on() {
    let upstream = echo().await;
    let url = upstream.url();
    let bed = async |trust: &str| {
        let web = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n");
        Bed::of(&format!("[gateway]\ntrust = {trust}\n{web}")).await
    };
    let all = "breakerbox-deadline-ms: 0\r\nbreakerbox-priority: urgent\r\nbreakerbox-key: k\r\n";
    let head = format!("GET /web/x HTTP/1.1\r\nhost: localhost\r\n{all}");
    let closed = bed("[]").await;
    let answer = raw(&closed, &head).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for gone in [
        "breakerbox-priority",
        "breakerbox-key",
        "breakerbox-deadline-ms: 0\n",
    ] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
    assert!(closed.status().keys.is_empty());
    closed.end().await;
    let one = bed("[\"key\"]").await;
    let answer = raw(&one, &head).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(one.status().keys.len(), 1);
    one.end().await;
    let open = bed("[\"deadline\", \"priority\", \"key\"]").await;
    let answer = raw(&open, &head).await;
    assert!(is(&answer, 400, "bad-request"), "{answer}");
    open.end().await;
}

#[test]
fn edge_5_e7b_other_machines_are_not_obeyed_unless_told() {
    let trust = |text: &str| {
        let text = format!("[gateway]\n{text}");
        let settings = Settings::loader().bare().toml(text).load().unwrap();
        settings.gateway.trust.len()
    };
    assert_eq!(trust("bind = \"127.0.0.1:1\""), 3);
    assert_eq!(trust("bind = \"[::1]:1\""), 3);
    assert_eq!(trust("bind = \"[::ffff:127.0.0.1]:1\""), 3);
    assert_eq!(trust("bind = \"0.0.0.0:1\""), 0);
    assert_eq!(trust("bind = \"[::]:1\""), 0);
    assert_eq!(trust("bind = \"0.0.0.0:1\"\ntrust = [\"key\"]"), 1);
    assert_eq!(trust("trust = []"), 0);
    assert_eq!(trust("trust = \"off\""), 0);
}

#[tokio::test]
async fn edge_5_e7c_a_path_that_any_server_reads_as_leading_out_is_refused() {
    let upstream = echo().await;
    let bed = Bed::new(&format!("{}/inner", upstream.url()), "").await;
    for path in [
        "/..%2fadmin",
        "/..%5Cadmin",
        "/%252e%252e%252fadmin",
        "/..;a=b/admin",
        "/..;",
        "/%c0%ae%c0%ae/admin",
        "/a/..%00/b",
        "/a%2F%2E/b",
    ] {
        let answer = raw(&bed, &format!("GET /web{path} HTTP/1.1\r\nhost: a\r\n")).await;
        assert!(is(&answer, 400, "bad-request"), "{path}: {answer}");
    }
    assert_eq!(upstream.hits(), 0);
    for path in [
        "/a%2Fb%2f%5c",
        "/v1..2/x",
        "/a;v=1.0/b",
        "/%2520",
        "/.well-known/x",
        "//a",
    ] {
        let answer = raw(
            &bed,
            &format!("GET /web{path}?q=../.. HTTP/1.1\r\nhost: a\r\n"),
        )
        .await;
        assert!(
            answer.contains(&format!("GET /inner{path}?q=../..\n")),
            "{path}: {answer}"
        );
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7e_via_is_appended_and_a_loop_is_told() {
    let upstream = Upstream::of(|request: Request| async move {
        let lines = request.headers().get_all("via").iter();
        let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap()).collect();
        ([("via", "1.1 inner")], lines.join(", "))
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let asked = bed.http.get(bed.url("/web/a")).header("via", "1.0 outer");
    let response = asked.send().await.unwrap();
    let back: Vec<_> = response.headers().get_all("via").iter().cloned().collect();
    assert_eq!(back[0], "1.1 inner");
    let text = response.text().await.unwrap();
    let own = text.strip_prefix("1.0 outer, 1.1 ").unwrap().to_owned();
    assert!(own.starts_with("breakerbox-") && own.len() == 19, "{own}");
    assert_eq!(back[1].to_str().unwrap(), format!("1.1 {own}"));
    let old = raw(&bed, "GET /web/a HTTP/1.0\r\nhost: localhost\r\n").await;
    assert!(old.ends_with(&format!("1.0 {own}")), "{old}");
    for via in [format!("1.1 {own}"), format!("1.1 a, 2 {own} (x), 1.1 b")] {
        let asked = bed.http.get(bed.url("/web/a")).header("via", via);
        problem(asked.send().await.unwrap(), 508, "loop-detected").await;
    }
    let other = bed
        .http
        .get(bed.url("/web/a"))
        .header("via", "1.1 breakerbox-00");
    assert_eq!(other.send().await.unwrap().status(), 200);
    assert_eq!(upstream.hits(), 3);
    // Its own problems have passed no gateway.
    assert!(bed.get("/nobody").await.headers().get("via").is_none());
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7e_a_dependency_that_is_the_gateway_ends_at_once() {
    let bed = Bed::new("http://127.0.0.1:9", "").await;
    let url = bed.url("/me");
    let text = format!("[dependencies.me]\nkind = \"http\"\nurl = \"{url}\"\n");
    let settings = Settings::loader().bare().toml(text).load().unwrap();
    let put = bed
        .gateway
        .put("me", &settings.dependencies["me"], &url, "test");
    put.await.unwrap();
    let response = bed.get("/me/x").await;
    assert_eq!(response.status(), 508);
    // FBK-3: the answer is the gateway's own, and no service's.
    assert_eq!(header(&response, "breakerbox-source"), "gateway");
    assert_eq!(bed.runtime.status("me").unwrap().totals.submitted, 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7f_headers_of_one_dependency_go_to_no_other() {
    let first = Upstream::of(|request: Request| async move {
        let key = request.headers().get("x-api-key");
        let is_known = key.is_some_and(|key| key == "first secret");
        answer(if is_known { 503 } else { 401 }, "first")
    })
    .await;
    let second = echo().await;
    let (one, two) = (first.url(), second.url());
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{one}\"\n\
         headers = {{ x-api-key = \"first secret\", authorization = \"Bearer first\" }}\n\
         fallback = [{{ kind = \"dependency\", name = \"other\" }}]\n\
         [dependencies.other]\nkind = \"http\"\nurl = \"{two}\"\nforwarded = false\n\
         headers = {{ x-tenant = \"second\" }}\nremove_headers = [\"cookie\", \"X-Person\"]\n"
    );
    let bed = Bed::of(&text).await;
    let asked = bed.http.get(bed.url("/web/x"));
    let asked = asked
        .header("x-api-key", "caller's")
        .header("cookie", "a=b")
        .header("x-person", "7")
        .header("x-forwarded-for", "192.0.2.7")
        .header("x-real-ip", "192.0.2.7")
        .header("forwarded", "for=192.0.2.7")
        .header("x-kept", "yes");
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(first.hits(), 1);
    let text = response.text().await.unwrap();
    assert!(
        text.contains("x-tenant: second\n") && text.contains("x-kept: yes\n"),
        "{text}"
    );
    assert!(text.contains("via: 1.1 breakerbox-"), "{text}");
    for gone in [
        "first",
        "cookie",
        "x-person",
        "forwarded",
        "192.0.2.7",
        "x-real-ip",
        "deadline",
        "127.0.0.1;",
    ] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    // A TRACE would show them to the caller.
    let answer = raw(&bed, "TRACE /web/x HTTP/1.1\r\nhost: localhost\r\n").await;
    assert!(is(&answer, 405, "method-not-allowed"), "{answer}");
    assert_eq!(first.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_5_no_way_shows_the_credentials_of_ours_by_trace() {
    let keyed = Upstream::of(async |_| "shown").await;
    let text = format!(
        "fallback = [{{ kind = \"dependency\", name = \"keyed\" }}]\n\
         [dependencies.keyed]\nkind = \"http\"\nurl = \"{}\"\n\
         headers = {{ authorization = \"Bearer ours\" }}\n\
         [dependencies.many]\nkind = \"pool\"\nmembers = [\"keyed\"]\n",
        keyed.url()
    );
    let bed = Bed::new("http://127.0.0.1:1", &text).await;
    let answer = raw(&bed, "GET /web/x HTTP/1.1\r\nhost: localhost\r\n").await;
    assert!(answer.ends_with("shown"), "{answer}");
    for (path, status) in [("/keyed/x", "405"), ("/many/x", "405"), ("/web/x", "502")] {
        let head = format!("TRACE {path} HTTP/1.1\r\nhost: localhost\r\n");
        let answer = raw(&bed, &head).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    assert_eq!(keyed.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7f_a_change_of_headers_keeps_the_dependency() {
    let upstream = echo().await;
    let url = upstream.url();
    let with = |key: &str| {
        let headers = format!("headers = {{ x-api-key = \"{key}\" }}");
        let text = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n{headers}\n");
        Settings::loader().bare().toml(text).load().unwrap()
    };
    let bed = Bed::new(&url, "headers = { x-api-key = \"old\" }").await;
    assert!(
        bed.get("/web/x")
            .await
            .text()
            .await
            .unwrap()
            .contains("x-api-key: old\n")
    );
    let next = with("new");
    let put = bed
        .gateway
        .put("web", &next.dependencies["web"], &url, "test");
    assert_eq!(put.await.unwrap(), breakerbox::gateway::AddOutcome::Kept);
    assert!(
        bed.get("/web/x")
            .await
            .text()
            .await
            .unwrap()
            .contains("x-api-key: new\n")
    );
    assert_eq!(bed.status().totals.submitted, 2);
    bed.end().await;
}

#[test]
fn edge_5_e7f_headers_are_checked_and_never_shown() {
    let load = |text: &str| {
        let text =
            format!("[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n{text}");
        Settings::loader().bare().toml(text).load()
    };
    let settings = load("headers = { authorization = \"Bearer hidden-word\" }").unwrap();
    assert!(!format!("{settings:?}").contains("hidden-word"));
    for (text, key) in [
        ("headers = { host = \"hidden-word\" }", "headers.host"),
        ("headers = { \"a b\" = \"hidden-word\" }", "headers.a b"),
        (
            "headers = { a = \"hidden\\nword hidden-word\" }",
            "headers.a",
        ),
        ("headers = { a = 3 }", "headers.a"),
        ("remove_headers = [\"transfer-encoding\"]", "remove_headers"),
        ("forwarded = \"maybe\"", "forwarded"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(
            error.contains(&format!("dependencies.web.{key}")),
            "{error}"
        );
        assert!(!error.contains("hidden-word"), "{error}");
    }
    let text = "[dependencies.web]\nforwarded = false\n";
    assert!(Settings::loader().bare().toml(text).load().is_err());
    for text in [
        "trust = [\"all\"]",
        "hosts = [\"a:1\"]",
        "hosts = [\"*\"]",
        "origins = [\"app.example\"]",
        "origins = [\"https://app.example/\"]",
        "origins = [\"null\"]",
    ] {
        let text = format!("[gateway]\n{text}\n");
        assert!(
            Settings::loader().bare().toml(&text).load().is_err(),
            "{text}"
        );
    }
}

#[tokio::test]
async fn edge_5_e7d_hops_are_counted_down() {
    let upstream = echo().await;
    let bed = Bed::new(&upstream.url(), "").await;
    let ask = async |head: &str| raw(&bed, &format!("{head}host: localhost\r\n")).await;
    for (method, given, there) in [
        ("OPTIONS", "5", "max-forwards: 4\n"),
        ("TRACE", "1", "max-forwards: 0\n"),
        (
            "OPTIONS",
            "99999999999999999999",
            "max-forwards: 4294967294\n",
        ),
        ("GET", "0", "max-forwards: 0\n"),
        ("GET", "many", "max-forwards: many\n"),
    ] {
        let head = format!("{method} /web/x HTTP/1.1\r\nmax-forwards: {given}\r\n");
        let answer = ask(&head).await;
        assert!(answer.contains(there), "{head}: {answer}");
    }
    let hits = upstream.hits();
    let last = ask("OPTIONS /web/x HTTP/1.1\r\nmax-forwards: 0\r\n").await;
    assert!(
        last.starts_with("HTTP/1.1 204 ") && last.contains("allow: GET, "),
        "{last}"
    );
    let last = ask("TRACE /web/x HTTP/1.1\r\nmax-forwards: 0\r\n").await;
    assert!(
        is(&last, 405, "method-not-allowed") && last.contains("allow: GET, "),
        "{last}"
    );
    for bad in [
        "max-forwards: -1\r\n",
        "max-forwards: \r\n",
        "max-forwards: 1\r\nmax-forwards: 1\r\n",
    ] {
        let answer = ask(&format!("OPTIONS /web/x HTTP/1.1\r\n{bad}")).await;
        assert!(is(&answer, 400, "bad-request"), "{bad}: {answer}");
    }
    assert_eq!(upstream.hits(), hits);
    bed.end().await;
}
