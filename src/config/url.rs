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
