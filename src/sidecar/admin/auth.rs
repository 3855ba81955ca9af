//! Admission of requests, authorization of changes, and security headers of every response.
//!
//! Reads need no authentication. Requests for another host, and those that a browser sends for
//! another site's page, are refused. Changes need the token.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::Response;
use breakerbox_policy::Time;
use subtle::ConstantTimeEq as _;

use super::Admin;
use super::problem::AdminProblem;
use crate::lock::LockExt as _;
use crate::sidecar::host_guard::{ServedSites, SiteRefusal, UnlistedHosts, named_hosts};

/// Maximum body size of a change, in bytes.
pub(super) const MAX_BODY: usize = 4 * 1024;

/// The remote address of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// Names the operator in the audit record.
pub(super) fn author(peer: Option<PeerAddress>) -> String {
    match peer {
        Some(PeerAddress(address)) => format!("token holder at {}", address.ip()),
        None => "token holder".to_owned(),
    }
}

/// Refuses requests for other hosts, and requests of other sites' pages (rule EDGE-5).
pub(super) async fn guard(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Result<Response, AdminProblem> {
    let Err(refused) = check_site(&admin, &request) else {
        return Ok(next.run(request).await);
    };
    let (problem, reason) = *refused;
    if let Some(others) = admin.inner.refused_hosts.note(admin.inner.stamps.now()) {
        let (peer, path) = (peer_of(&request), request.uri().path());
        tracing::warn!(%peer, path, reason, others, "a request was not allowed");
    }
    Err(problem)
}

/// A problem, and the reason for the log.
type SiteProblem = (AdminProblem, &'static str);

/// Checks the host and the page of a request.
fn check_site(admin: &Admin, request: &Request) -> Result<(), Box<SiteProblem>> {
    const HOST: &str = "one host: an address, localhost, or a name of admin.hosts";
    let problem = |(status, code), reason| (AdminProblem::new(status, code, reason), reason);
    let headers = request.headers();
    let sites = ServedSites {
        hosts: &admin.inner.hosts,
        origins: &admin.inner.origins,
        unlisted: UnlistedHosts::Local,
    };
    let target = request.uri().authority().map(Authority::as_str);
    let checked = match target.filter(|host| !sites.serves_host(host)) {
        // It counts more than any other fault of the head.
        Some(host) => Err(SiteRefusal::OtherHost(host)),
        None => {
            let named = named_hosts(request.version(), request.uri(), headers);
            let named = named.map_err(|reason| {
                let (refused, reason) = problem((400, "bad-host"), reason);
                Box::new((refused.allowed(HOST), reason))
            })?;
            sites.check(named, (request.method(), headers), false)
        }
    };
    checked.map_err(|refusal| {
        Box::new(match refusal {
            SiteRefusal::OtherHost(host) => {
                let reason = "the request was made for another host";
                let (refused, reason) = problem((421, "foreign-host"), reason);
                (refused.given(host).allowed(HOST), reason)
            }
            SiteRefusal::OtherPage => {
                let reason = "the request comes from a page of another site";
                let (refused, reason) = problem((403, "foreign-origin"), reason);
                (refused.allowed("pages of this server"), reason)
            }
        })
    })
}

/// Returns the origins of pages under these host names. A proxy may put another `Host` in front.
pub(super) fn origins_of(hosts: &[String]) -> Vec<String> {
    let hosts = hosts.iter().map(|host| host.trim_end_matches('.'));
    hosts
        .flat_map(|host| ["http", "https"].map(|scheme| format!("{scheme}://{host}")))
        .collect()
}

/// Admits a change that carries the token.
///
/// # Source  Rule SEC-1 in docs/rules.md.
pub(super) async fn authorise(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Result<Response, AdminProblem> {
    if let Err(problem) = check_token(&admin, request.headers()) {
        if let Some(others) = admin.inner.refused_changes.note(admin.inner.stamps.now()) {
            let (peer, path) = (peer_of(&request), request.uri().path());
            tracing::warn!(%peer, path, others, "a change was not allowed");
        }
        return Err(problem);
    }
    Ok(next.run(request).await)
}

/// Returns the address of a caller, in words.
fn peer_of(request: &Request) -> String {
    let peer = request.extensions().get::<PeerAddress>();
    peer.map_or_else(|| "unknown".to_owned(), |peer| peer.0.to_string())
}

/// Interval of log lines about refused requests of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Decides which refused requests get a log line, so that refused callers cannot fill the log.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<LoggedRefusals>);

#[derive(Debug, Default)]
struct LoggedRefusals {
    last: Option<Time>,
    /// Refusals since the last line.
    silent: u64,
}

impl RefusalLog {
    /// Counts a refusal. If a line is due, returns the number of refusals without one before it.
    pub(super) fn note(&self, now: Time) -> Option<u64> {
        let mut logged = self.0.acquire();
        let is_due = logged
            .last
            .is_none_or(|last| now >= last.after(LOG_INTERVAL));
        if !is_due {
            logged.silent += 1;
            return None;
        }
        logged.last = Some(now);
        Some(std::mem::take(&mut logged.silent))
    }
}

fn check_token(admin: &Admin, headers: &HeaderMap) -> Result<(), AdminProblem> {
    let Some(token) = &admin.inner.token else {
        let detail = "nothing can be changed, since no token is configured";
        return Err(AdminProblem::new(403, "no-token", detail).allowed(
            "to set BREAKERBOX__ADMIN__TOKEN for breakerbox serve, and to start it again",
        ));
    };
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let (scheme, given) = match given.and_then(|given| given.split_at_checked(7)) {
        Some((scheme, given)) => (scheme, given),
        None => (&b""[..], &b""[..]),
    };
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    // Constant time: the duration reveals only the length.
    // SEC-1: tokens are compared in constant time.
    let is_equal = bool::from(given.ct_eq(token.expose().as_bytes()));
    if is_bearer && is_equal {
        return Ok(());
    }
    let detail = match headers.contains_key(AUTHORIZATION) {
        true if is_bearer => "a change needs the admin token, and another one was given",
        _ => "a change needs the admin token",
    };
    Err(AdminProblem::new(401, "unauthorized", detail)
        .allowed("the header authorization: Bearer <token>, with admin.token of this Breakerbox"))
}

/// Adds headers that make the browser cache nothing, sniff no types, and load nothing.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ];
    let mut response = next.run(request).await;
    for (name, value) in headers {
        // A page sets its own policy.
        let entry = response.headers_mut().entry(name);
        entry.or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_4_e6e_refused_requests_get_one_log_line_a_minute() {
        let log = RefusalLog::default();
        let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
        assert_eq!(log.note(at(5)), Some(0));
        for second in 5..65 {
            assert_eq!(log.note(at(second)), None);
        }
        assert_eq!(log.note(at(65)), Some(60));
        assert_eq!(log.note(at(200)), Some(0));
    }
}
