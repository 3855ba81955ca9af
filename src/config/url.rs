//! Addresses of HTTP dependencies.

/// Allowed addresses.
pub(super) const URL: &str = "an address such as \"http://127.0.0.1:9001\", without user and query";

/// Returns true if the address is allowed by [`URL`].
pub(super) fn is_http_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let authority = rest
        .and_then(|rest| rest.split(['/', '?', '#']).next())
        .unwrap_or("");
    let plain = |letter: char| letter.is_ascii_graphic() && !"@\"<>\\^`{|}".contains(letter);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "0"),
    };
    let sound = |text: &str| {
        text.chars()
            .all(|letter| plain(letter) && !"?#".contains(letter))
    };
    !host.is_empty() && port.parse::<u16>().is_ok() && sound(url)
}

/// Returns the origin of an address: scheme, host and port.
pub(super) fn origin(url: &str) -> String {
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
    use super::origin;

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
