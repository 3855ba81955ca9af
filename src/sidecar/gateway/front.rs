//! Admission of a request between the checks of its head and its dependency: the credentials of its
//! caller, and the questions that browsers and authorization clients ask beforehand.

use http::request::Parts;
use http::{Method, Response};

use super::caller_auth::{AuthTable, PendingCheck, RemovedDependency, WELL_KNOWN};
use super::cors::{PageOrigin, is_preflight};
use super::http::body::ReplyBody;
use super::problem::{GatewayProblem, ProblemKind};
use super::route::{RouteKind, ThreadContext};

/// Admits a request. `found`: its route, and the length of its name in the path. Returns the page
/// that made it, if that is to read the response of an endpoint.
///
/// # Errors  The response to a request that goes no further.
pub(super) async fn admit(
    lane: &ThreadContext,
    head: &mut Parts,
    found: Option<&(RouteKind, usize)>,
) -> Result<Option<PageOrigin>, Response<ReplyBody>> {
    let path = head.uri.path();
    let resource = path.strip_prefix(WELL_KNOWN);
    let is_endpoint = found.is_some_and(|(route, _)| route.is_mcp());
    let page = PageOrigin::of(&head.headers, &lane.config.load().origins);
    let asking = page.as_ref().filter(|_| is_preflight(head));
    if let Some(page) = asking.filter(|_| is_endpoint || resource.is_some()) {
        return Err(page.preflight(head));
    }
    if let Some(resource) = resource {
        return Err(metadata(lane, head, resource));
    }
    let name = found.map(|(_, length)| &path[1..=*length]);
    let check = check_of(&lane.auth.load(), name).map_err(|RemovedDependency| {
        let detail = "it has just been removed";
        GatewayProblem::of(ProblemKind::UNKNOWN, name, detail).into_response()
    })?;
    if let Some(check) = check {
        if let Some(page) = asking.filter(|_| found.is_some()) {
            // EDGE-5: browsers send it without credentials, so the dependency must not see it. Without
            // a check, the dependency itself decides on pages.
            return Err(page.preflight_of_service(head));
        }
        let name = name.map(str::to_owned);
        let resource = match &name {
            Some(name) if is_endpoint => format!("/{name}/mcp"),
            Some(name) => format!("/{name}"),
            None => String::new(),
        };
        Box::pin(check.admit(name.as_deref(), &resource, head)).await?;
    }
    Ok(page.filter(|_| is_endpoint))
}

/// Returns the check of a request to a dependency to which a route was found, or to the gateway's own
/// pages.
///
/// # Errors  The dependency was removed meanwhile.
fn check_of(
    table: &AuthTable,
    name: Option<&str>,
) -> Result<Option<PendingCheck>, RemovedDependency> {
    // MCP-6: nothing goes past the check of a dependency that is just being removed.
    name.map_or_else(|| Ok(table.of(None)), |name| table.of_route(name))
}

/// Returns the document about a resource (RFC 9728). `resource`: its path.
fn metadata(lane: &ThreadContext, head: &Parts, resource: &str) -> Response<ReplyBody> {
    let name = resource.strip_prefix('/').unwrap_or_default();
    let name = name.split('/').next().unwrap_or_default();
    let routes = lane.routes.load();
    let path = match routes.get(name) {
        Some(route) if route.is_mcp() => Some(format!("/{name}/mcp")),
        Some(_) => Some(format!("/{name}")),
        None => None,
    };
    let is_read = head.method == Method::GET || head.method == Method::HEAD;
    let document = path
        .filter(|path| is_read && path == resource)
        .and_then(|path| {
            let check = lane.auth.load().of(Some(name))?;
            check.metadata(head, &path)
        });
    document.unwrap_or_else(|| {
        let detail = "no authorization server stands before a resource of this path";
        GatewayProblem::of(ProblemKind::NO_PATH, None, detail).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DependencyConfig;

    #[test]
    fn mcp_6_a_request_does_not_go_past_the_check_that_was_removed_with_its_dependency() {
        let table = AuthTable::default().with("web", &DependencyConfig::default());
        let is_open = |name| check_of(&table, name).is_ok_and(|check| check.is_none());
        // Without `gateway.auth`, callers present nothing.
        assert!(is_open(Some("web")) && is_open(None));
        let table = table.without("web");
        // Its route was found before.
        assert!(check_of(&table, Some("web")).is_err());
    }
}
