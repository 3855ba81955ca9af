//! Addresses of HTTP dependencies.

use super::masking::is_key_content;

/// Allowed addresses.
pub(super) const URL: &str = "an address such as \"http://127.0.0.1:9001\", without user and query";
/// Allowed addresses of HTTP dependencies.
pub(super) const URL_OR_SOCKET: &str = "an address such as \"http://127.0.0.1:9001\", without user \
                                        and query, or a socket such as \"unix:///run/app.sock\"";
/// Maximum length of a socket's path, in bytes; the shortest of the systems in use.
const MAX_SOCKET: usize = 103;

/// Splits the address of a Unix domain socket into its path and the prefix of every request's path:
/// `unix:///run/app.sock`, or `unix:///run/app.sock:/base`. `None` for other addresses.
pub(crate) fn unix_socket(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("unix:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    // As nginx writes it: the prefix follows a colon.
    Some(match rest.find(":/") {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, ""),
    })
}

/// Returns true if the address is allowed by [`URL_OR_SOCKET`].
pub(super) fn is_dependency_url(url: &str) -> bool {
    let Some((path, prefix)) = unix_socket(url) else {
        return is_http_url(url);
    };
    let is_path = path.starts_with('/') && path.len() > 1 && path.len() <= MAX_SOCKET;
    let is_prefix = prefix.is_empty() || is_http_url(&format!("http://a{prefix}"));
    cfg!(unix) && is_path && !path.contains(|letter: char| letter.is_control()) && is_prefix
}

/// Returns true if the address is allowed by [`URL`].
pub(super) fn is_http_url(url: &str) -> bool {
    let Some(("http" | "https", host, port)) = place(url) else {
        return false;
    };
    let plain = |letter: char| letter.is_ascii_graphic() && !"@\"<>\\^`{|}".contains(letter);
    let sound = |text: &str| {
        text.chars()
            .all(|letter| plain(letter) && !"?#".contains(letter))
    };
    !host.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok()) && sound(url)
}

/// Returns the scheme, the host and the port of an address, as they stand there.
pub(super) fn place(url: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (scheme, host, Some(port)),
        _ => (scheme, authority, None),
    })
}

/// Returns the fault of an address that cannot be used.
pub(super) fn mistake(value: &config::Value) -> Option<String> {
    let config::ValueKind::String(text) = &value.kind else {
        return None;
    };
    // SEC-1: a token has dots too.
    if is_key_content(text) {
        return None;
    }
    if text.contains("${") || text.starts_with('$') {
        let words = "variables are not put in: set the key by a variable of BREAKERBOX__";
        return Some(words.to_owned());
    }
    if text.trim() != text && is_dependency_url(text.trim()) {
        return Some("a blank stands before or behind it".to_owned());
    }
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some("no user stands in it, `headers` can send an authorization".to_owned());
    }
    match place(text) {
        Some(("http" | "https", _, Some(port))) if port.parse::<u16>().is_err() => {
            Some("its port is no number from 1 to 65535".to_owned())
        }
        Some(("http" | "https" | "unix", ..)) => None,
        Some((scheme, ..)) => {
            let meant = match scheme.to_ascii_lowercase().as_str() {
                "http" | "ws" | "grpc" | "h2c" => "http",
                "https" | "wss" | "grpcs" => "https",
                _ => return Some("it is called by HTTP alone".to_owned()),
            };
            Some(format!("did you mean {meant}://?"))
        }
        None => without_scheme(text),
    }
}

/// Returns the fault of an address that has no scheme.
fn without_scheme(text: &str) -> Option<String> {
    let host = text.split(['/', ':']).next().unwrap_or_default();
    let is_near = host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok();
    let scheme = if is_near { "http" } else { "https" };
    let meant = format!("{scheme}://{text}");
    let is_bare = !text.contains("://") && (is_near || host.contains('.'));
    let is_plain = is_bare && !text.contains('@') && is_http_url(&meant);
    is_plain.then(|| format!("it has no scheme, did you mean {meant:?}?"))
}

/// Returns the part `.` or `..` of a path, if it has one.
pub(super) fn dots(path: &str) -> Option<&str> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let is_dots = |part: &&str| {
        let plain = part.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    path.split('/').find(is_dots)
}

/// Returns a warning of an address that works otherwise than it looks.
pub(super) fn warning(url: &str) -> Option<String> {
    let base = match unix_socket(url) {
        Some((_, prefix)) => prefix,
        None => {
            let (_, rest) = url.split_once("://")?;
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let (_, port) = authority.rsplit_once(':').unwrap_or_default();
            if !port.is_empty() && port.bytes().all(|digit| digit == b'0') {
                return Some("no server listens on port 0".to_owned());
            }
            if let Some(other) = other_scheme(url, port) {
                return Some(format!(
                    "port {port} is usually that of {other}, did you mean {other}://?"
                ));
            }
            &rest[authority.len()..]
        }
    };
    let part = dots(base)?;
    Some(format!(
        "its path has a part {part}, which goes out as it is; give the path that is meant"
    ))
}

/// Returns the scheme that a port usually stands for, if it is not that of the address.
fn other_scheme(url: &str, port: &str) -> Option<&'static str> {
    match (url.starts_with("https://"), port) {
        (true, "80") => Some("http"),
        (false, "443") => Some("https"),
        _ => None,
    }
}

/// Returns the origin of an address: scheme, host and port.
pub(super) fn origin(url: &str) -> String {
    if let Some((path, _)) = unix_socket(url) {
        return format!("unix:{path}");
    }
    let url = url.to_ascii_lowercase();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
    let authority = authority.trim_end_matches(':');
    match (has_port, scheme) {
        (true, _) => format!("{scheme}://{authority}"),
        (false, "https") => format!("https://{authority}:443"),
        (false, _) => format!("{scheme}://{authority}:80"),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_dependency_url, mistake, origin, unix_socket, warning};

    #[test]
    fn cfg_1_an_address_that_cannot_be_used_says_why() {
        let said = |text: &str| mistake(&config::Value::new(None, text)).unwrap_or_default();
        for (given, words) in [
            ("${URL}", "variables are not put in"),
            (" http://a", "a blank stands before"),
            ("http://a:99999", "its port is no number"),
            ("ws://a/b", "did you mean http://?"),
            ("grpcs://a", "did you mean https://?"),
            ("ftp://a", "by HTTP alone"),
            ("HTTP://a", "did you mean http://?"),
            ("localhost:9000", "it has no scheme"),
            ("http://user:pass@example.com", "no user stands in it"),
        ] {
            assert!(said(given).contains(words), "{given}: {}", said(given));
        }
        for given in ["http://a/?q", "unix://a"] {
            assert_eq!(said(given), "", "{given}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn edge_5_sockets_are_addresses() {
        for (url, path, prefix) in [
            ("unix:///run/app.sock", "/run/app.sock", ""),
            ("unix:/run/app.sock", "/run/app.sock", ""),
            ("unix:///run/app.sock:/", "/run/app.sock", "/"),
            ("unix:/run/a:b.sock:/v1/x", "/run/a:b.sock", "/v1/x"),
        ] {
            assert_eq!(unix_socket(url), Some((path, prefix)));
            assert!(is_dependency_url(url), "{url}");
        }
        let long = format!("unix:///{}", "a".repeat(103));
        for bad in [
            "unix:",
            "unix:///",
            "unix:app.sock",
            "unix://host/app.sock",
            "unix:///run/app.sock:/a?b",
            "unix:///run/app.sock:/a b",
            &long,
        ] {
            assert!(!is_dependency_url(bad), "{bad}");
        }
        assert_eq!(origin("unix:/a:/b"), origin("unix:///a"));
        assert_ne!(origin("unix:/a"), origin("unix:/b"));
    }

    #[test]
    fn edge_7_an_address_that_leads_nowhere_is_warned_of() {
        for (url, word) in [
            ("http://127.0.0.1:0", "port 0"),
            ("https://[::1]:00/v1", "port 0"),
            ("http://api.example:443/v1", "did you mean https://?"),
            ("https://api.example:80", "did you mean http://?"),
            ("http://a/x/../y", "a part .."),
            ("http://a:80/x/%2E%2e", "a part %2E%2e"),
            ("unix:/run/a.sock:/./x", "a part ."),
        ] {
            let told = warning(url).unwrap_or_default();
            assert!(told.contains(word), "{url}: {told}");
        }
        for url in [
            "http://a",
            "http://a:80/.well-known/x..y",
            "http://[::1]:9001/",
            "http://[::]/x",
            "https://a:443",
            "https://a:8080",
            "unix:/run/../a.sock",
        ] {
            assert_eq!(warning(url), None, "{url}");
        }
    }

    #[test]
    fn edge_2_e2e_an_origin_is_scheme_host_and_port() {
        let same = [
            ("http://A.example", "http://a.example:80/v2?x"),
            ("https://a.example:443/v1", "https://a.example"),
            ("http://[::1]", "http://[::1]:80/"),
        ];
        for (one, other) in same {
            assert_eq!(origin(one), origin(other), "{one} {other}");
        }
        let different = [
            ("http://a.example", "https://a.example"),
            ("http://a.example:80", "http://a.example:81"),
            ("http://a.example", "http://b.a.example"),
        ];
        for (one, other) in different {
            assert_ne!(origin(one), origin(other), "{one} {other}");
        }
    }
}
