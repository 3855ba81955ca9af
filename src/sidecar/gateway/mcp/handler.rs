//! Messages of a supervised MCP server to gateway callers: the server's own where it has any, else
//! the runtime's.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Priority;
use http::request::Parts;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, ErrorData,
    GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, MetaObject,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ResultType,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::{Peer, RequestContext, RoleClient, RoleServer, ServiceError};
use serde_json::{Value, json};

use crate::mcp::{McpClient, McpError, ToolResult};
use crate::sidecar::gateway::headers::{DEADLINE, KEY, PRIORITY};
use crate::sidecar::gateway::problem::GatewayProblem;
use crate::{Answer, AnswerSource, CallError, CallOptions};

/// Code of every error that the runtime raises. Its `data` names the kind, as `type`.
const OURS: ErrorCode = ErrorCode(-32050);
/// Key in a result's metadata for the source of the answer.
const SOURCE: &str = "breakerbox/source";
/// Key in a result's metadata for the age of the answer.
const AGE: &str = "breakerbox/age_ms";

/// The MCP handler of one server.
#[derive(Debug, Clone)]
pub(super) struct McpHandler {
    client: McpClient,
}

impl McpHandler {
    pub(super) fn new(client: McpClient) -> Self {
        Self { client }
    }

    /// Passes on a request that is not a tool call, under the same breaker and limits. Such
    /// requests change nothing.
    async fn pass<T, F>(
        &self,
        context: &RequestContext<RoleServer>,
        ask: impl Fn(Peer<RoleClient>) -> F,
    ) -> Result<T, ErrorData>
    where
        F: Future<Output = Result<T, ServiceError>>,
    {
        let options = CallOptions {
            idempotent: Some(true),
            ..options(context)
        };
        let passed = self.client.pass(options, ask).await;
        passed.map_err(|error| self.own(&error))
    }

    /// Converts an error for the caller.
    fn own(&self, error: &CallError<McpError>) -> ErrorData {
        let name = self.client.client().name();
        let problem = GatewayProblem::of_mcp(error, name);
        let problem = match error {
            CallError::Open(refused) => problem.state(refused.state),
            _ => problem.state(self.client.client().state()),
        };
        let (code, message) = match error {
            CallError::Failed {
                error: McpError::Server { code, message },
                ..
            } => (ErrorCode(*code), message.clone()),
            error => (OURS, error.to_string()),
        };
        ErrorData::new(code, message, Some(problem.into_data()))
    }
}

/// Reads the caller's call options from the headers of its request.
fn options(context: &RequestContext<RoleServer>) -> CallOptions {
    let head = context.extensions.get::<Parts>();
    let text = |name| {
        let value = head.and_then(|head| head.headers.get(name))?;
        value.to_str().ok().map(str::trim)
    };
    CallOptions {
        timeout: text(DEADLINE)
            .and_then(|text| text.parse().ok())
            .map(Duration::from_millis),
        priority: match text(PRIORITY) {
            Some("low") => Priority::Low,
            Some("high") => Priority::High,
            _ => Priority::Normal,
        },
        key: text(KEY).filter(|key| !key.is_empty()).map(Arc::from),
        ..CallOptions::default()
    }
}

impl ServerHandler for McpHandler {
    fn get_info(&self) -> ServerConfig {
        let known = self.client.info();
        let own = known.as_ref().map(|info| &info.capabilities);
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        capabilities.resources = own.and_then(|own| own.resources.clone());
        capabilities.prompts = own.and_then(|own| own.prompts.clone());
        // Callers get no change notifications: these would need a session.
        if let Some(resources) = &mut capabilities.resources {
            resources.subscribe = None;
            resources.list_changed = None;
        }
        if let Some(prompts) = &mut capabilities.prompts {
            prompts.list_changed = None;
        }
        let mut config = ServerConfig::new(capabilities);
        let named = known.as_ref().and_then(|info| info.server_info.clone());
        config.server_info = named.unwrap_or_else(|| {
            Implementation::new(self.client.client().name(), env!("CARGO_PKG_VERSION"))
        });
        config.instructions = known.as_ref().and_then(|info| info.instructions.clone());
        config
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if let Some(listed) = self.client.listed() {
            return Ok(ListToolsResult::with_all_items(listed));
        }
        // The server was never reached so far.
        let listed = self.pass(&context, async |peer| peer.list_all_tools().await);
        Ok(ListToolsResult::with_all_items(listed.await?))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let calling = self
            .client
            .call_with(request.name, arguments, options(&context));
        match calling.await {
            Ok(answer) => Ok(CallToolResponse::Complete(labelled(answer))),
            Err(error) => Err(self.own(&error)),
        }
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let ask = |peer: Peer<RoleClient>| {
            let request = request.clone();
            async move { peer.list_resources(request).await }
        };
        let mut passed = self.pass(&context, ask).await?;
        passed.result_type.get_or_insert(ResultType::COMPLETE);
        Ok(passed)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let ask = |peer: Peer<RoleClient>| {
            let request = request.clone();
            async move { peer.list_resource_templates(request).await }
        };
        let mut passed = self.pass(&context, ask).await?;
        passed.result_type.get_or_insert(ResultType::COMPLETE);
        Ok(passed)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let ask = |peer: Peer<RoleClient>| {
            let mut request = request.clone();
            request.meta = None;
            async move { peer.read_resource_once(request).await }
        };
        let mut passed = self.pass(&context, ask).await?;
        if let ReadResourceResponse::Complete(result) = &mut passed {
            result.result_type.get_or_insert(ResultType::COMPLETE);
        }
        Ok(passed)
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let ask = |peer: Peer<RoleClient>| {
            let request = request.clone();
            async move { peer.list_prompts(request).await }
        };
        let mut passed = self.pass(&context, ask).await?;
        passed.result_type.get_or_insert(ResultType::COMPLETE);
        Ok(passed)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let ask = |peer: Peer<RoleClient>| {
            let mut request = request.clone();
            request.meta = None;
            async move { peer.get_prompt_once(request).await }
        };
        let mut passed = self.pass(&context, ask).await?;
        if let GetPromptResponse::Complete(result) = &mut passed {
            result.result_type.get_or_insert(ResultType::COMPLETE);
        }
        Ok(passed)
    }
}

/// Returns the result, labelled if it is not the server's own.
fn labelled(answer: Answer<ToolResult>) -> CallToolResult {
    let Answer {
        value, source, age, ..
    } = answer;
    let ToolResult { raw, content, .. } = value;
    let result = serde_json::from_value(raw);
    let mut result: CallToolResult =
        result.unwrap_or_else(|_| CallToolResult::success(vec![ContentBlock::text(content)]));
    // Servers of the older protocol version omit it; callers of the newer one require it.
    result.result_type.get_or_insert(ResultType::COMPLETE);
    if source != AnswerSource::Primary {
        let meta = result.meta.get_or_insert_with(MetaObject::default);
        meta.insert(SOURCE.to_owned(), Value::from(source.to_string()));
        if let Some(age) = age {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            meta.insert(AGE.to_owned(), json!(age));
        }
    }
    result
}
