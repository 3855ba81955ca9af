//! Several MCP servers behind one endpoint: their tools and prompts under prefixes, their resources
//! by their addresses.
//!
//! A group makes no call of its own. Each request goes to the endpoint of the member that it is for,
//! with that member's breaker, limits and table of tools. A member that is down is missing from the
//! lists, and the others answer all the same.

mod description;
mod lists;
mod routing;
mod session_requests;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::body_reader::{self, MessageLimits, MessageRoom};
use super::call_headers::call_options;
use super::caller_session::CallerSession;
use super::caller_stream::CallerStream;
use super::dispatch::CallerRequest;
use super::endpoint::McpEndpoint;
use super::exchange::{check_head, read_message, unread};
use super::request_check::{CallerDialect, NAME, SESSION, check_request, refuse_cursor};
use super::rpc_reply::{error_response, finished, message_response, refused, status_of};
use super::session_response::session_of;
use crate::Health;
use crate::buffer_budget::BufferBudget;
use crate::config::{GatewayConfig, GroupMember};
use crate::mcp::json_text::joined;
use crate::mcp::message::{
    LARGE, MessageId, ParamsHead, RawMessage, RawReply, RpcError, answer, code,
};
use crate::mcp::{GroupStatus, JsonText, MemberStatus};
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::http::caller_body::CallerBody;
use description::MemberDescriptions;
use lists::{ListKind, MemberList};
use routing::{ResourceMap, RoutedRequest};
pub(crate) use sessions::GroupSessions;

/// Time that a list waits for a slow member.
const LIST_WAIT: Duration = Duration::from_secs(1);
/// Maximum number of pages of a member's list.
const MAX_PAGES: usize = 50;

/// Returns the endpoint of a dependency, while there is one: members come and go.
type FindMember = dyn Fn(&str) -> Option<Arc<McpEndpoint>> + Send + Sync;

/// The endpoint of a group.
pub(crate) struct McpGroup {
    name: Arc<str>,
    members: Vec<GroupMember>,
    find: Box<FindMember>,
    resources: Arc<ResourceMap>,
    pub(crate) sessions: Arc<GroupSessions>,
}

/// A member that can be reached.
struct PresentMember<'a> {
    member: &'a GroupMember,
    endpoint: Arc<McpEndpoint>,
}

/// A request of a caller, with what was read of it.
struct GroupRequest<'a> {
    head: &'a Parts,
    id: MessageId,
    method: Box<str>,
    params: Option<JsonText>,
    read: ParamsHead,
    is_newer: bool,
    session: Option<Arc<CallerSession>>,
}

impl McpGroup {
    pub(crate) fn new(
        name: &str,
        members: &[GroupMember],
        find: impl Fn(&str) -> Option<Arc<McpEndpoint>> + Send + Sync + 'static,
        sessions: Arc<GroupSessions>,
    ) -> Self {
        Self {
            name: Arc::from(name),
            members: members.to_vec(),
            find: Box::new(find),
            resources: Arc::default(),
            sessions,
        }
    }

    /// Returns true if it was made of these members.
    pub(crate) fn is_of(&self, members: &[GroupMember]) -> bool {
        self.members == members
    }

    /// Responds to a request to the endpoint. Returns true too if the whole request was read.
    pub(crate) async fn answer(
        &self,
        head: Parts,
        body: CallerBody,
        (config, budget): (&GatewayConfig, &BufferBudget),
    ) -> (Response<ReplyBody>, bool) {
        if head.method != Method::POST {
            let is_empty = hyper::body::Body::is_end_stream(&body);
            return (self.answer_empty(&head), is_empty);
        }
        if let Err((status, error)) = check_head(&head.headers) {
            return (error_response(status, None, &error), false);
        }
        let max_line = self.max_line();
        let max_body = usize::try_from(config.max_body).unwrap_or(usize::MAX);
        let limits = MessageLimits {
            size: max_line.min(max_body),
            pause: config.body_timeout,
        };
        let read = match body_reader::read(body, limits, budget).await {
            Ok(read) => read,
            Err(fault) => return (unread(fault, limits, (&self.name, max_line)), false),
        };
        let body_reader::ReadMessage { text, room } = read;
        let outcome = if text.len() > LARGE {
            // MCP-2: a thread of the gateway serves other callers too.
            let read = spawn_blocking(move || read_message(&text)).await;
            read.unwrap_or_else(|_| Err((None, RpcError::new(code::INTERNAL_ERROR, "not read"))))
        } else {
            read_message(&text)
        };
        let (message, params) = match outcome {
            Ok(read) => read,
            Err((id, error)) => {
                let id = id.as_ref().map(MessageId::as_json);
                return (error_response(StatusCode::BAD_REQUEST, id, &error), true);
            }
        };
        let (id, method, text) = match message {
            RawMessage::Request { id, method, params } => (id, method, params),
            message => return (self.take_other(&head, message, &params).await, true),
        };
        let dialect = match check_request(&head.headers, &method, &params) {
            Ok(dialect) => dialect,
            Err((status, error)) => {
                return (error_response(status, Some(id.as_json()), &error), true);
            }
        };
        let is_newer = matches!(dialect, CallerDialect::Newer { .. });
        let begins = &*method == "initialize";
        let session = match session_of(&self.sessions.table, &head) {
            _ if is_newer || begins => None,
            Ok(session) => session,
            Err(response) => return (*response, true),
        };
        if let Some(session) = &session {
            self.attach(session);
        }
        let request = GroupRequest {
            head: &head,
            id,
            method,
            params: text,
            read: params,
            is_newer,
            session,
        };
        (self.respond(request, room).await, true)
    }

    async fn respond(&self, request: GroupRequest<'_>, room: MessageRoom) -> Response<ReplyBody> {
        let is_newer = request.is_newer;
        let result = match (&*request.method, is_newer) {
            ("ping", false) => Ok("{}".to_owned()),
            ("initialize", false) => return self.initialize(&request).await,
            ("server/discover", true) => {
                let members = self.descriptions().await;
                Ok(description::discovered(&members, &self.name))
            }
            ("logging/setLevel", false) => self.set_level(&request),
            (method, _) => match ListKind::of(method) {
                Some(kind) => match refuse_cursor(request.params.as_ref()) {
                    Ok(()) => Ok(self.list(kind, request.head).await),
                    Err(error) => Err(error),
                },
                None => match self.route(&request).await {
                    Ok((endpoint, routed)) => {
                        return self.pass(request, routed, &endpoint, room).await;
                    }
                    Err(error) => Err(error),
                },
            },
        };
        let id = request.id.as_json();
        match result {
            Ok(text) => {
                let reply = RawReply::of(JsonText::checked(text.into()));
                let pieces = finished(&reply, (&request.method, is_newer), None);
                message_response(StatusCode::OK, answer(id, Ok(pieces)))
            }
            Err(error) => error_response(status_of(Some(&error), is_newer), Some(id), &error),
        }
    }

    /// Passes a request on to the member that it is for.
    async fn pass(
        &self,
        request: GroupRequest<'_>,
        routed: RoutedRequest,
        endpoint: &Arc<McpEndpoint>,
        room: MessageRoom,
    ) -> Response<ReplyBody> {
        let mut head = request.head.clone();
        // The members know neither the sessions of the group nor its names.
        head.headers.remove(SESSION);
        let session = request.session.as_ref();
        let part = match session.map(|session| self.sessions.part(session, endpoint)) {
            None => None,
            Some(Ok(part)) => part,
            Some(Err(full)) => {
                let id = Some(request.id.as_json());
                return refused(id, full.problem(&endpoint.name));
            }
        };
        if let Some(name) = &routed.name
            && head.headers.contains_key(NAME)
        {
            match HeaderValue::try_from(crate::mcp::http_headers::encoded(name)) {
                Ok(name) => drop(head.headers.insert(NAME, name)),
                Err(_) => drop(head.headers.remove(NAME)),
            }
        }
        let params = routed.params.or(request.params);
        let read = params.as_ref().and_then(ParamsHead::read);
        let own = (request.id, request.method, params);
        endpoint
            .take_request(&head, own, (read.unwrap_or_default(), room, part))
            .await
    }

    /// Tells its callers that it has other members than the group before it.
    pub(crate) fn tell_members_changed(&self) {
        let is_member = |name: &str| self.members.iter().any(|member| member.name == name);
        self.sessions.members_changed(is_member);
    }

    /// Ends the streams of callers, which would not end by themselves.
    pub(crate) fn end_streams(&self) {
        self.sessions.table.end_streams();
    }

    /// Returns its state, for operators.
    pub(crate) fn status(&self) -> GroupStatus {
        let members = self.members.iter().map(|member| MemberStatus {
            prefix: member.prefix.clone(),
            name: member.name.clone(),
            health: match self.endpoint(&member.name) {
                Some(endpoint) => endpoint.client.client().status().health,
                None => Health::Down {
                    reason: "there is no such server at present".to_owned(),
                },
            },
        });
        GroupStatus {
            name: self.name.to_string(),
            members: members.collect(),
            sessions: self.sessions.table.all().len(),
        }
    }

    /// Returns the longest message that any member takes.
    fn max_line(&self) -> usize {
        let members = self.all();
        let sizes = members
            .iter()
            .map(|one| one.endpoint.client.server_settings().max_line);
        sizes.max().unwrap_or(1 << 20)
    }

    /// Returns all members that have a route.
    fn all(&self) -> Vec<PresentMember<'_>> {
        let members = self.members.iter();
        let present = members.filter_map(|member| {
            Some(PresentMember {
                member,
                endpoint: self.endpoint(&member.name)?,
            })
        });
        present.collect()
    }

    fn endpoint(&self, member: &str) -> Option<Arc<McpEndpoint>> {
        (self.find)(member)
    }

    /// Lists what all members that are well have.
    async fn list(&self, kind: ListKind, head: &Parts) -> String {
        let members = self.all();
        let asking = members.iter().filter(|one| one.is_well()).map(async |one| {
            // MCP-6: a slow member is missing, and delays the others for no longer.
            let listed = timeout(LIST_WAIT, one.list(kind, head)).await;
            let pages = listed.ok().flatten()?;
            Some(MemberList {
                prefix: &one.member.prefix,
                name: &one.member.name,
                pages,
            })
        });
        let lists: Vec<MemberList<'_>> = join_all(asking).await.into_iter().flatten().collect();
        let pages = lists.iter().flat_map(|list| &list.pages);
        let size: usize = pages.map(|page| page.bytes().len()).sum();
        if size <= LARGE {
            return merged(kind, &lists, &self.resources);
        }
        let own = lists.into_iter().map(|list| {
            let names = (list.prefix.to_owned(), list.name.to_owned());
            (names, list.pages)
        });
        let own: Vec<_> = own.collect();
        let resources = Arc::clone(&self.resources);
        // MCP-2: a thread of the gateway serves other callers too.
        let merging = spawn_blocking(move || {
            let lists = own.iter().map(|((prefix, name), pages)| MemberList {
                prefix,
                name,
                pages: pages.clone(),
            });
            merged(kind, &lists.collect::<Vec<_>>(), &resources)
        });
        merging.await.unwrap_or_else(|_| lists::merged(kind, &[]))
    }

    /// Returns the members' descriptions of themselves.
    async fn descriptions(&self) -> MemberDescriptions<'_> {
        let members = self.all();
        let can_be_known = members
            .iter()
            .filter(|one| !one.endpoint.is_fallback_only());
        let asking = can_be_known.map(async |one| {
            (
                one.member,
                one.endpoint.client.known_within(LIST_WAIT).await,
            )
        });
        join_all(asking).await
    }

    /// Finds the member that a request is for, and its parameters as the member knows them.
    async fn route(
        &self,
        request: &GroupRequest<'_>,
    ) -> Result<(Arc<McpEndpoint>, RoutedRequest), RpcError> {
        let (method, read) = (&*request.method, &request.read);
        let unknown = |what: &str, name: &str| {
            let name: String = name.chars().take(200).collect();
            RpcError::new(code::INVALID_PARAMS, format!("unknown {what}: {name}"))
        };
        let target = routing::target_of(method, read, request.params.as_ref())?;
        let (member, routed) = match target {
            routing::RequestTarget::Named { what, name } => {
                let found = routing::split(&self.members, &name);
                let (member, own) = found.ok_or_else(|| unknown(what, &name))?;
                let routed = RoutedRequest::renamed(request.params.as_ref(), read, own);
                (member.name.clone(), routed)
            }
            routing::RequestTarget::Resource(uri) => {
                let mut found = self.resources.find(&uri);
                if found.is_none() {
                    // Nothing was listed so far, or it is new.
                    self.list(ListKind::Resources, request.head).await;
                    self.list(ListKind::Templates, request.head).await;
                    found = self.resources.find(&uri);
                }
                let error = || match request.is_newer {
                    true => unknown("resource", &uri),
                    false => RpcError {
                        code: code::RESOURCE_NOT_FOUND,
                        ..unknown("resource", &uri)
                    },
                };
                (found.ok_or_else(error)?, RoutedRequest::default())
            }
        };
        let endpoint = self.endpoint(&member);
        let endpoint = endpoint.ok_or_else(|| unknown("member of the group", &member))?;
        Ok((endpoint, routed))
    }
}

/// Joins the lists to one result, and notes the addresses of resources.
fn merged(kind: ListKind, lists: &[MemberList<'_>], resources: &ResourceMap) -> String {
    if kind.is_of_resources() {
        resources.learn(kind, lists);
    }
    lists::merged(kind, lists)
}

impl PresentMember<'_> {
    /// Returns true unless its callers get errors at present. A server that is being started for the
    /// first time is waited for.
    fn is_well(&self) -> bool {
        let status = self.endpoint.client.client().status();
        let is_down = matches!(status.health, Health::Down { .. });
        let mut workers = status.workers.iter();
        // MCP-6: one that starts may be there within the wait.
        self.endpoint.client.is_starting()
            || !is_down && workers.any(|worker| worker.running || worker.last_exit.is_none())
    }

    /// Lists what the member has, page by page; `None` if it does not answer.
    async fn list(&self, kind: ListKind, head: &Parts) -> Option<Vec<JsonText>> {
        let mut pages = Vec::new();
        let mut cursor: Option<serde_json::Value> = None;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..MAX_PAGES {
            let params = cursor.map(|cursor| JsonText::of(&json!({ "cursor": cursor })));
            let (stream, _) = CallerStream::new((None, None), None, false);
            let request = CallerRequest {
                id: MessageId::of_text("group"),
                method: kind.method().into(),
                head: params
                    .as_ref()
                    .and_then(ParamsHead::read)
                    .unwrap_or_default(),
                params,
                dialect: CallerDialect::Older,
                session: None,
                options: call_options(&head.headers).unwrap_or_default(),
                renamed: None,
                forwarded: self.endpoint.hooks.forwarded(head),
                end: Arc::default(),
                cancelled: None,
                _room: None,
            };
            let answered = Arc::clone(&self.endpoint).respond(request, stream).await;
            let Ok(answered) = answered else {
                // Its list has changed since the page before.
                return (!pages.is_empty()).then_some(pages);
            };
            let page = JsonText::checked(joined(&answered));
            // A cursor that comes again would list the same for ever.
            cursor = lists::next_cursor(&page).filter(|next| seen.insert(next.to_string()));
            pages.push(page);
            if cursor.is_none() {
                break;
            }
        }
        Some(pages)
    }
}
