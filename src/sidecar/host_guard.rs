//! The hosts and origins that a server answers for: a pure check of a request's head.
//!
//! A page of another site can send requests to servers on this machine and in this network: from
//! its own origin (CSRF), or under its own host name after pointing it here (DNS rebinding). The
//! browser names the host in both cases, and an address cannot be rebound. This module never
//! resolves a name, and knows neither tokens nor paths.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri, Version};

const SEC_FETCH_SITE: &str = "sec-fetch-site";
const SEC_FETCH_MODE: &str = "sec-fetch-mode";
const SEC_FETCH_DEST: &str = "sec-fetch-dest";

/// The host names that a server answers for, beside addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllowedHosts {
    names: Vec<String>,
}

/// Reason why a request's host or origin is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostRefusal {
    /// The request names no host. RFC 9112, section 3.2.
    MissingHost,
    /// The request has several `Host` fields. RFC 9112, section 3.2.
    SeveralHosts,
    /// The host is no host of RFC 3986, section 3.2.2, with an optional port.
    MalformedHost(String),
    /// The host is neither an address, nor `localhost`, nor in the list. RFC 9110, section 7.4.
    UnknownHost(String),
    /// The browser says that the request comes from another site.
    OtherSite(String),
}

impl HostRefusal {
    /// Returns the status of the response.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::MissingHost | Self::SeveralHosts | Self::MalformedHost(_) => 400,
            Self::UnknownHost(_) => 421,
            Self::OtherSite(_) => 403,
        }
    }

    /// Returns the last part of the problem's type.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::MissingHost | Self::SeveralHosts | Self::MalformedHost(_) => "bad-host",
            Self::UnknownHost(_) => "foreign-host",
            Self::OtherSite(_) => "foreign-origin",
        }
    }

    /// Returns the problem in a sentence.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::MissingHost => "the request names no host",
            Self::SeveralHosts => "the request has more than one host field",
            Self::MalformedHost(_) => "the request's host is malformed",
            Self::UnknownHost(_) => "the request was made for another host",
            Self::OtherSite(_) => "the request comes from a page of another site",
        }
    }

    /// Returns the value that the caller gave.
    pub(crate) fn given(&self) -> Option<&str> {
        match self {
            Self::MissingHost | Self::SeveralHosts => None,
            Self::MalformedHost(given) | Self::UnknownHost(given) | Self::OtherSite(given) => {
                Some(given)
            }
        }
    }
}

impl AllowedHosts {
    /// Creates a list of names without ports.
    pub(crate) fn new(names: &[String]) -> Self {
        let names = names.iter().map(|name| without_root(name).to_owned());
        Self {
            names: names.collect(),
        }
    }

    /// Checks the host and the origin of a request, reads as well as changes.
    ///
    /// # Errors  [`HostRefusal`]; the request is not to be carried out.
    /// # Source  Rule EDGE-5 in docs/rules.md.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), HostRefusal> {
        // EDGE-5: every way of naming a host and a site counts, for reads as for changes.
        self.check_host(request.version(), request.uri(), request.headers())?;
        self.check_site(request.method(), request.uri(), request.headers())
    }

    /// Checks each host that a request names: in the target, in `:authority` and in `Host`.
    ///
    /// # Errors  As [`AllowedHosts::check`].
    pub(crate) fn check_host(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), HostRefusal> {
        let target = uri.authority().map(Authority::as_str);
        if let Some(target) = target {
            self.check_name(target)?;
        }
        let mut fields = headers.get_all(HOST).iter();
        match (fields.next(), fields.next()) {
            (_, Some(_)) => Err(HostRefusal::SeveralHosts),
            (Some(host), None) => {
                let text = host.to_str();
                self.check_name(text.map_err(|_| HostRefusal::MalformedHost(lossy(host)))?)
            }
            // HTTP/1.0 has no such field. No browser speaks it, but probes of load balancers do.
            (None, None) if version < Version::HTTP_11 => Ok(()),
            // HTTP/2 has the target's instead; HTTP/1.1 needs the field in any case.
            (None, None) if target.is_some() && version > Version::HTTP_11 => Ok(()),
            (None, None) => Err(HostRefusal::MissingHost),
        }
    }

    /// Checks that the browser, if it is one, names no other site. Opening a page by a link from
    /// another site is allowed: the other site cannot read it.
    ///
    /// # Errors  As [`AllowedHosts::check`].
    pub(crate) fn check_site(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), HostRefusal> {
        if is_page_opened(method, headers) {
            return Ok(());
        }
        for site in headers.get_all(SEC_FETCH_SITE) {
            if !matches!(site.as_bytes(), b"same-origin" | b"none") {
                return Err(HostRefusal::OtherSite(lossy(site)));
            }
        }
        let target = uri.authority().map(Authority::as_str);
        let field = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = target.or(field).unwrap_or_default();
        for origin in headers.get_all(ORIGIN) {
            if !origin
                .to_str()
                .is_ok_and(|origin| self.is_own(origin, host))
            {
                return Err(HostRefusal::OtherSite(lossy(origin)));
            }
        }
        Ok(())
    }

    fn check_name(&self, host: &str) -> Result<(), HostRefusal> {
        match HostName::parse(host) {
            None => Err(HostRefusal::MalformedHost(host.to_owned())),
            Some(HostName::Address) => Ok(()),
            Some(HostName::Name(name)) if self.lists(name) => Ok(()),
            Some(HostName::Name(name)) if name.eq_ignore_ascii_case("localhost") => Ok(()),
            Some(HostName::Name(_)) => Err(HostRefusal::UnknownHost(host.to_owned())),
        }
    }

    /// Returns true if an origin is the host of the request, or a listed name. The latter is for
    /// proxies that put another `Host` in front of this server.
    fn is_own(&self, origin: &str, host: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let is_web = ["http", "https"]
            .iter()
            .any(|web| scheme.eq_ignore_ascii_case(web));
        let is_same = !host.is_empty() && authority.eq_ignore_ascii_case(host);
        is_web && (is_same || self.lists(without_root(authority)))
    }

    fn lists(&self, name: &str) -> bool {
        let mut names = self.names.iter();
        names.any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// A host without its port.
enum HostName<'a> {
    Address,
    Name(&'a str),
}

impl<'a> HostName<'a> {
    /// Parses a host with an optional port. `None`: it is malformed, or has user information.
    fn parse(host: &'a str) -> Option<Self> {
        let is_port = |port: &str| {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            port.is_empty() || (is_number && port.parse::<u16>().is_ok())
        };
        if let Some(literal) = host.strip_prefix('[') {
            let (address, rest) = literal.split_once(']')?;
            let is_good = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
            return (is_good && address.parse::<Ipv6Addr>().is_ok()).then_some(Self::Address);
        }
        let (name, port) = host.split_once(':').unwrap_or((host, ""));
        let name = without_root(name);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
        if name.is_empty() || !is_port(port) || !name.bytes().all(plain) {
            return None;
        }
        let is_address = name.parse::<Ipv4Addr>().is_ok();
        Some(if is_address {
            Self::Address
        } else {
            Self::Name(name)
        })
    }
}

/// Returns true if a browser opens a page, as it does for a link, with a method that only reads.
/// Frames and other embedded content are not pages of their own.
fn is_page_opened(method: &Method, headers: &HeaderMap) -> bool {
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let first = values.next();
        first.filter(|_| values.next().is_none())
    };
    let is_read = method == Method::GET || method == Method::HEAD;
    let is_page = !headers.contains_key(SEC_FETCH_DEST)
        || only(SEC_FETCH_DEST).is_some_and(|dest| dest == "document");
    is_read && is_page && only(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
}

/// Returns a name without the dot of the root at its end.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap_or_default()
    }

    fn listed() -> AllowedHosts {
        AllowedHosts::new(&["Box.internal".to_owned()])
    }

    #[test]
    fn edge_5_e7a_addresses_localhost_and_listed_names_are_served() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:7071",
            "192.0.2.7:80",
            "[::1]",
            "[::1]:7071",
            "[2001:db8::1]:",
            "localhost",
            "LocalHost:7071",
            "localhost.:7071",
            "box.internal",
            "BOX.INTERNAL.:443",
        ] {
            assert_eq!(listed().check(&head("/", &[("host", host)])), Ok(()));
            let target = format!("http://{host}/");
            let own = [("host", "localhost")];
            assert_eq!(listed().check(&head(&target, &own)), Ok(()), "{host}");
        }
    }

    #[test]
    fn edge_5_e7a_other_names_are_refused_however_they_are_given() {
        for host in [
            "evil.example",
            "evil.example:7071",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.localhost",
            "0x7f000001",
            "127.1",
            "2130706433",
            "localhost,evil.example",
            "xbox.internal",
        ] {
            let unknown = Err(HostRefusal::UnknownHost(host.to_owned()));
            assert_eq!(listed().check(&head("/", &[("host", host)])), unknown);
        }
        let unknown = Err(HostRefusal::UnknownHost("evil.example".to_owned()));
        let request = head("http://evil.example/livez", &[("host", "localhost")]);
        assert_eq!(listed().check(&request), unknown);
        let request = head("http://localhost/livez", &[("host", "evil.example")]);
        assert_eq!(listed().check(&request), unknown);
    }

    #[test]
    fn edge_5_e7a_ambiguous_and_malformed_hosts_are_refused() {
        for host in [
            "",
            ":7071",
            ".",
            "localhost:x",
            "localhost:70000",
            "localhost:+80",
            "localhost:1:2",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "[localhost]",
            "[::1].evil.example",
            "me@localhost",
            "localhost, evil.example",
            "localhost/",
        ] {
            let bad = Err(HostRefusal::MalformedHost(host.to_owned()));
            assert_eq!(listed().check(&head("/", &[("host", host)])), bad);
        }
        let twice = [("host", "localhost"), ("host", "localhost")];
        let several = Err(HostRefusal::SeveralHosts);
        assert_eq!(listed().check(&head("/", &twice)), several);
        for (version, wanted) in [
            (Version::HTTP_10, Ok(())),
            (Version::HTTP_11, Err(HostRefusal::MissingHost)),
            (Version::HTTP_2, Err(HostRefusal::MissingHost)),
        ] {
            let mut request = head("/", &[]);
            *request.version_mut() = version;
            assert_eq!(listed().check(&request), wanted, "{version:?}");
        }
        let mut request = head("http://localhost/", &[]);
        assert_eq!(listed().check(&request), Err(HostRefusal::MissingHost));
        *request.version_mut() = Version::HTTP_2;
        assert_eq!(listed().check(&request), Ok(()));
    }

    #[test]
    fn edge_5_e7a_requests_of_other_sites_are_refused_but_not_links() {
        let host = ("host", "localhost:7071");
        let (site, mode, dest) = (SEC_FETCH_SITE, SEC_FETCH_MODE, SEC_FETCH_DEST);
        let ok: [&[(&'static str, &'static str)]; 6] = [
            &[],
            &[("origin", "http://localhost:7071")],
            &[("origin", "https://box.internal")],
            &[(site, "same-origin"), (mode, "cors")],
            &[(site, "none"), (mode, "navigate"), (dest, "document")],
            &[(site, "cross-site"), (mode, "navigate"), (dest, "document")],
        ];
        for fields in ok {
            let request = head("/", &[&[host], fields].concat());
            assert_eq!(listed().check(&request), Ok(()), "{fields:?}");
        }
        let refused: [&[(&'static str, &'static str)]; 9] = [
            &[("origin", "http://evil.example")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://localhost")],
            &[("origin", "ftp://localhost:7071")],
            &[("origin", "http://localhost:7071"), ("origin", "null")],
            &[(site, "cross-site"), (mode, "no-cors")],
            &[(site, "same-site"), (mode, "cors")],
            &[(site, "cross-site"), (mode, "navigate"), (dest, "iframe")],
        ];
        for fields in refused {
            let request = head("/", &[&[host], fields].concat());
            let answer = listed().check(&request);
            assert!(
                matches!(answer, Err(HostRefusal::OtherSite(_))),
                "{fields:?}"
            );
        }
        let link = [host, (site, "cross-site"), (mode, "navigate")];
        let mut request = head("/", &link);
        *request.method_mut() = Method::POST;
        assert_eq!(
            listed().check(&request),
            Err(HostRefusal::OtherSite("cross-site".to_owned()))
        );
    }
}
