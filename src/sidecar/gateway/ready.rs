//! The question whether a call could begin, for consumers of queues: they ask before they fetch a
//! message, so that an outage leaves the messages where they are.

use std::time::Duration;

use breakerbox_actors::did_you_mean;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response};

use super::headers::KEY;
use super::http::body::ReplyBody;
use super::problem::{GatewayProblem, ProblemKind};
use super::route::{RouteKind, ThreadContext};
use crate::Readiness;

/// First part of the paths that concern the gateway itself. No dependency can have this name.
const OWN: &str = "/.breakerbox/";

/// Maximum wait for an answer.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Returns the dependency that a path asks about.
pub(super) fn dependency_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix(OWN)?.strip_suffix("/ready")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Answers once a call could begin, or after the wait that the request names.
pub(super) async fn answer(
    lane: &ThreadContext,
    head: &mut Parts,
    name: &str,
) -> Response<ReplyBody> {
    let check = lane.auth.load().of(Some(name));
    if let Some(check) = check
        && let Err(refusal) = Box::pin(check.admit(Some(name), &format!("/{name}"), head)).await
    {
        return refusal;
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        let problem = GatewayProblem::of(ProblemKind::METHOD, Some(name), "ask by GET");
        let mut response = problem.into_response();
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let wait = match wait_of(head.uri.query().unwrap_or_default()) {
        Ok(wait) => wait,
        Err(detail) => {
            let problem = GatewayProblem::of(ProblemKind::BAD_REQUEST, Some(name), detail);
            return problem.into_response();
        }
    };
    let route = lane.routes.load().get(name).cloned();
    let Some(route) = route else {
        let routes = lane.routes.load();
        let near = did_you_mean(name, routes.keys().map(|name| &**name));
        let detail =
            format!("the second part of the path is the name of a dependency; / lists them{near}");
        return GatewayProblem::of(ProblemKind::UNKNOWN, Some(name), detail).into_response();
    };
    let key = head.headers.get(KEY).and_then(|key| key.to_str().ok());
    let mut stopping = lane.stopping.clone();
    let ready = tokio::select! {
        ready = ready_of(lane, &route, (key.map(str::trim), wait)) => ready,
        // A wait must not hold up the end of the process.
        _ = stopping.wait_for(|stopping| *stopping) => {
            return GatewayProblem::not_ready(name, None, "the gateway ends").into_response();
        }
    };
    match ready {
        Some(ready) if ready.available > 0 => {
            let body = format!("{{\"available\":{}}}\n", ready.available);
            let mut response = Response::new(ReplyBody::whole(Bytes::from(body)));
            let media = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, media);
            response
        }
        Some(ready) => {
            let obstacle = ready.kept_back_by;
            let why = obstacle.map_or_else(String::new, |obstacle| obstacle.to_string());
            GatewayProblem::not_ready(name, ready.retry_after, &why).into_response()
        }
        None => {
            let detail = "this is a group; ask each member by its own name";
            GatewayProblem::of(ProblemKind::NO_PATH, Some(name), detail).into_response()
        }
    }
}

/// Waits until a call could begin. Returns `None` for a group.
async fn ready_of(
    lane: &ThreadContext,
    route: &RouteKind,
    (key, wait): (Option<&str>, Duration),
) -> Option<Readiness> {
    match route {
        RouteKind::Pool(pool) => Some(pool.ready(&lane.routes, key, wait).await),
        route => route.ready(key, wait).await,
    }
}

/// Returns the wait that a query names; none if it names none.
pub(super) fn wait_of(query: &str) -> Result<Duration, String> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let mut wait = Duration::ZERO;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name != "wait" {
            return Err(format!("{name} is no parameter of this path; wait is one"));
        }
        let given = humantime::parse_duration(value);
        wait = given.map_err(|_| {
            format!("wait is {value:?}, which is no span; give one such as 30s, at most 60s")
        })?;
    }
    Ok(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_10_a_path_names_the_dependency_that_it_asks_about() {
        assert_eq!(dependency_of("/.breakerbox/a/ready"), Some("a"));
        for path in [
            "/a/ready",
            "/.breakerbox/ready",
            "/.breakerbox//ready",
            "/.breakerbox/a/b/ready",
            "/.breakerbox/a/ready/",
            "/x/.breakerbox/a/ready",
        ] {
            assert_eq!(dependency_of(path), None, "{path}");
        }
    }

    #[test]
    fn msg_10_a_wait_is_a_span_of_at_most_a_minute() {
        assert_eq!(wait_of(""), Ok(Duration::ZERO));
        assert_eq!(wait_of("wait=250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(wait_of("wait=5m"), Ok(LONGEST));
        for query in ["wait", "wait=", "wait=30", "wait=-1s", "waits=1s"] {
            assert!(wait_of(query).is_err(), "{query}");
        }
    }
}
