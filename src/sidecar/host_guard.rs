//! The hosts and the web pages that a listener serves, the gateway's and the admin side's.
//!
//! A page of another site can make a browser send requests to this machine, and can point its own
//! host name here (DNS rebinding). The checks read the head of a request only: they know neither
//! sockets nor configuration files, and never build a response.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Uri, Version};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Hosts and origins that a listener serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedSites<'a> {
    /// Host names without ports.
    pub(crate) hosts: &'a [String],
    /// Origins of pages of other sites.
    pub(crate) origins: &'a [String],
    /// Hosts that are served beside the listed ones.
    pub(crate) unlisted: UnlistedHosts,
}

/// Hosts that are served although they are not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnlistedHosts {
    /// Addresses, which cannot be rebound, and `localhost`.
    Local,
    /// All of them, if none is listed: names of a deployment are unknown here.
    #[cfg_attr(
        not(feature = "gateway"),
        expect(dead_code, reason = "for the gateway")
    )]
    AllIfNoneListed,
}

/// Hosts that the head of a request names, each with its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamedHosts<'h> {
    /// The host that counts; `None` if the request is so old that it names none.
    pub(crate) host: Option<&'h str>,
    /// The host header, where an absolute target counts more.
    pub(crate) header: Option<&'h str>,
}

/// Reason why a request is not for this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SiteRefusal<'h> {
    /// The host is not served. RFC 9110, section 7.4.
    OtherHost(&'h str),
    /// A browser made the request for a page of another site.
    OtherPage,
}

impl ServedSites<'_> {
    /// Checks the hosts and the page of a request, of a read as well as of a change. `has_body`: it
    /// has one.
    ///
    /// # Errors  [`SiteRefusal`]; the request is not to be carried out.
    pub(crate) fn check<'h>(
        &self,
        named: NamedHosts<'h>,
        (method, headers): (&Method, &HeaderMap),
        has_body: bool,
    ) -> Result<(), SiteRefusal<'h>> {
        // EDGE-5: the listed hosts and origins hold for every request.
        let mut hosts = [named.host, named.header].into_iter().flatten();
        if let Some(other) = hosts.find(|host| !self.serves_host(host)) {
            return Err(SiteRefusal::OtherHost(other));
        }
        if self.serves_page(method, headers, named.host, has_body) {
            Ok(())
        } else {
            Err(SiteRefusal::OtherPage)
        }
    }

    /// Returns true if requests for this host are served.
    pub(crate) fn serves_host(&self, authority: &str) -> bool {
        let host = split_port(authority).0;
        let is_listed = || self.hosts.iter().any(|listed| is_same_host(listed, host));
        match self.unlisted {
            UnlistedHosts::Local => {
                is_address(host) || is_same_host("localhost", host) || is_listed()
            }
            UnlistedHosts::AllIfNoneListed => self.hosts.is_empty() || is_listed(),
        }
    }

    /// Returns true unless a browser says that a page of another site made the request. Such a page
    /// may still lead a person here, with a plain read that it cannot see.
    ///
    /// `host`: the host that the request names.
    ///
    /// # Source  RFC 6454, section 7; Fetch Metadata Request Headers.
    fn serves_page(
        &self,
        method: &Method,
        headers: &HeaderMap,
        host: Option<&str>,
        has_body: bool,
    ) -> bool {
        let text = |name: HeaderName| {
            let lines = headers.get_all(name).iter();
            lines.map(|line| line.to_str().unwrap_or_default().trim())
        };
        let mut origins = text(ORIGIN);
        if let Some(origin) = origins.next() {
            if origins.next().is_some() {
                return false;
            }
            let mut listed = self.origins.iter();
            if listed.any(|listed| listed.eq_ignore_ascii_case(origin)) {
                return true;
            }
            if !host.is_some_and(|host| is_origin_of(origin, host)) {
                return false;
            }
        }
        let mut sites = text(FETCH_SITE);
        if sites.all(|site| site == "same-origin" || site == "none") {
            return true;
        }
        let is_read = (method == Method::GET || method == Method::HEAD) && !has_body;
        let is_navigation = text(FETCH_MODE).eq(["navigate"]);
        is_read && is_navigation && text(FETCH_DEST).all(|dest| dest == "document")
    }
}

/// Returns the hosts that a request names.
///
/// # Errors  The head names no host, several, or an invalid one, where the protocol forbids it.
/// # Source  RFC 9112, section 3.2; RFC 9113, section 8.3.1; RFC 9110, sections 4.2.4 and 7.2.
pub(crate) fn named_hosts<'h>(
    version: Version,
    uri: &'h Uri,
    headers: &'h HeaderMap,
) -> Result<NamedHosts<'h>, &'static str> {
    let mut lines = headers.get_all(HOST).iter();
    let field = match lines.next() {
        Some(line) => Some(line.to_str().map_err(|_| INVALID)?),
        None => None,
    };
    if lines.next().is_some() {
        return Err("there is more than one host header; one is allowed");
    }
    let target = uri.authority().map(Authority::as_str);
    if [field, target]
        .into_iter()
        .flatten()
        .any(|one| !is_valid(one))
    {
        return Err(INVALID);
    }
    match (version, target, field) {
        (Version::HTTP_2, Some(target), Some(field)) if !is_same(target, field, "") => {
            Err("the host header and :authority differ; send one of them")
        }
        (Version::HTTP_2, None, None) => Err("there is neither :authority nor a host header"),
        (Version::HTTP_11, _, None) => Err("there is no host header; HTTP/1.1 requires one"),
        // The target of a request counts more than its host header.
        (_, target, field) => Ok(NamedHosts {
            host: target.or(field),
            header: field.filter(|_| target.is_some()),
        }),
    }
}

const INVALID: &str = "the host is invalid; a name or an address is allowed, with a port if needed";

/// Returns true for a host with an optional port. Characters that no name in use has are refused,
/// although RFC 3986 has room for them: two hosts may have been joined to one.
fn is_valid(authority: &str) -> bool {
    let (host, port) = split_port(authority);
    let is_port = |port: &str| {
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        is_number && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_host = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !host.trim_end_matches('.').is_empty() && host.bytes().all(plain)
        }
    };
    is_host && port.is_none_or(is_port)
}

/// Splits a host from its port, if there is one.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The last colon may be part of an address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_address(host: &str) -> bool {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host).parse::<IpAddr>().is_ok()
}

/// Compares host names. A dot at the end changes nothing.
fn is_same_host(one: &str, other: &str) -> bool {
    let plain = |host| str::strip_suffix(host, ".").unwrap_or(host);
    let bare = |host: &str| {
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    plain(one).eq_ignore_ascii_case(plain(other))
        || (one.contains(':') && bare(one).eq_ignore_ascii_case(&bare(other)))
}

/// Compares hosts with their ports. `default`: the port that need not be written.
fn is_same(one: &str, other: &str, default: &str) -> bool {
    let parts = |authority| {
        let (host, port) = split_port(authority);
        (
            host,
            port.filter(|port| !port.is_empty() && *port != default),
        )
    };
    let (one, other) = (parts(one), parts(other));
    is_same_host(one.0, other.0) && one.1 == other.1
}

/// Returns true if a page of this origin was served under this host.
fn is_origin_of(origin: &str, host: &str) -> bool {
    match origin.split_once("://") {
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("http") => {
            is_same(authority, host, "80")
        }
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("https") => {
            is_same(authority, host, "443")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn edge_5_e7a_hosts_are_told_apart() {
        let listed = ["box.internal".to_owned(), "2001:db8::1".to_owned()];
        let served = |hosts, is_loopback, host: &str| {
            let sites = ServedSites {
                hosts,
                origins: &[],
                unlisted: match is_loopback {
                    true => UnlistedHosts::Local,
                    false => UnlistedHosts::AllIfNoneListed,
                },
            };
            sites.serves_host(host)
        };
        for host in [
            "localhost",
            "LOCALHOST.:7070",
            "127.0.0.1:1",
            "[::1]:7070",
            "10.0.0.1",
            "[::1]",
        ] {
            assert!(served(&[], true, host), "{host}");
            assert!(served(&[], false, host), "{host}");
            assert!(!served(&listed, false, host), "{host}");
        }
        for host in [
            "box.internal",
            "BOX.internal:80",
            "box.internal.",
            "[2001:DB8::1]:80",
        ] {
            assert!(served(&listed, true, host), "{host}");
            assert!(served(&listed, false, host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7070",
            "box.internal.evil",
            "xbox.internal",
            "0x7f.1",
            "127.1",
            "2130706433",
            "evil.localhost",
            "a",
            "",
        ] {
            assert!(!served(&listed, true, host), "{host}");
            assert!(!served(&listed, false, host), "{host}");
            assert!(served(&[], false, host), "{host}");
        }
    }

    #[test]
    fn edge_5_e7d_a_request_names_one_valid_host() {
        let named = |version, uri: &str, hosts: &[&str]| {
            let lines: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let (uri, headers) = (uri.parse::<Uri>().unwrap(), map(&lines));
            let named = named_hosts(version, &uri, &headers);
            named.map(|named| named.host.map(str::to_owned)).ok()
        };
        let some = |host: &str| Some(Some(host.to_owned()));
        let (old, one, two) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        assert_eq!(named(old, "/a", &[]), Some(None));
        assert_eq!(named(one, "/a", &[]), None);
        assert_eq!(named(one, "http://a/b", &[]), None);
        assert_eq!(named(two, "/a", &[]), None);
        for version in [old, one, two] {
            assert_eq!(named(version, "/a", &["a", "a"]), None);
            assert_eq!(named(version, "/a", &["a:1"]), some("a:1"));
        }
        assert_eq!(named(one, "http://b:2/a", &["c"]), some("b:2"));
        assert_eq!(named(two, "http://b:2/a", &["c"]), None);
        assert_eq!(named(two, "http://b:2/a", &["B:2"]), some("b:2"));
        assert_eq!(named(one, "http://me@b/a", &["b"]), None);
        for bad in [
            "",
            " ",
            ".",
            ":1",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "a:b",
            "a:65536",
            "a:+80",
            "a:1:2",
            "[::1",
            "::1",
            "[a]",
            "[::1]x",
            "[127.0.0.1]",
            "[::1].evil",
            "a%2eb",
        ] {
            assert_eq!(named(one, "/a", &[bad]), None, "{bad:?}");
        }
        for good in [
            "a_b.c",
            "a:",
            "[::1]:7070",
            "127.0.0.1:7070",
            "a-b.example.:80",
        ] {
            assert_eq!(named(one, "/a", &[good]), some(good), "{good:?}");
        }
    }

    #[test]
    fn edge_5_e7a_pages_of_other_sites_are_told_apart() {
        let origins = ["https://app.example".to_owned()];
        let sites = ServedSites {
            hosts: &[],
            origins: &origins,
            unlisted: UnlistedHosts::Local,
        };
        let served = |method, lines: &[(&'static str, &str)], has_body| {
            sites.serves_page(&method, &map(lines), Some("localhost:7070"), has_body)
        };
        for lines in [
            &[][..],
            &[("sec-fetch-site", "none")],
            &[
                ("sec-fetch-site", "same-origin"),
                ("origin", "http://localhost:7070"),
            ],
            &[("origin", "HTTP://LOCALHOST:7070")],
            &[
                ("origin", "https://app.example"),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            assert!(served(Method::POST, lines, true), "{lines:?}");
            assert!(served(Method::GET, lines, false), "{lines:?}");
        }
        for lines in [
            &[("origin", "null")][..],
            &[("origin", "")],
            &[("origin", "http://localhost")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://evil.example")],
            &[("origin", "http://localhost:7070.evil.example")],
            &[
                ("origin", "http://localhost:7070"),
                ("origin", "http://evil.example"),
            ],
            &[
                ("origin", "http://localhost:7070"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[
                ("origin", "https://evil.example"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "no-cors"),
            ],
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "iframe"),
            ],
        ] {
            for method in [Method::GET, Method::POST, Method::OPTIONS] {
                assert!(!served(method, lines, false), "{lines:?}");
            }
        }
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(served(Method::GET, &link, false));
        assert!(!served(Method::GET, &link, true));
        assert!(!served(Method::POST, &link, false));
    }

    #[test]
    fn edge_5_e7a_each_named_host_is_checked_where_the_header_counts() {
        let sites = ServedSites {
            hosts: &[],
            origins: &[],
            unlisted: UnlistedHosts::Local,
        };
        let checked = |target: &'static str, host, header_counts: bool| {
            let (uri, headers) = (Uri::from_static(target), map(&[("host", host)]));
            let mut named = named_hosts(Version::HTTP_11, &uri, &headers).unwrap();
            named.header = named.header.filter(|_| header_counts);
            let checked = sites.check(named, (&Method::GET, &headers), false);
            checked.map_err(|refusal| format!("{refusal:?}"))
        };
        let other = Err("OtherHost(\"evil.example\")".to_owned());
        for header_counts in [true, false] {
            assert_eq!(checked("/a", "evil.example", header_counts), other);
            assert_eq!(
                checked("http://evil.example/a", "[::1]", header_counts),
                other
            );
            assert_eq!(
                checked("http://[::1]/a", "localhost", header_counts),
                Ok(())
            );
        }
        assert_eq!(checked("http://localhost/a", "evil.example", true), other);
        assert_eq!(checked("http://localhost/a", "evil.example", false), Ok(()));
    }
}
