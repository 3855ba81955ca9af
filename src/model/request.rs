//! A request to a model: the members that matter for its call, and the replacement of its model.
//!
//! Nothing else of a body is read or changed, so that prompt caches go on hitting.

use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use super::json_walk::members;
use super::{Api, ApiShape, TokenEstimate};

/// The members that are read, by their places in this list.
const NAMES: [&str; 13] = [
    "model",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "background",
    "tools",
    "mcp_servers",
    "web_search_options",
    "generationConfig",
    "n",
    "generation_config",
    "conversation",
];

/// Ends of the paths of operations that compute an answer and change nothing: vectors, counts, ranks,
/// and the judgement of texts.
const COMPUTING: [&str; 9] = [
    "/embeddings",
    "/moderations",
    "/rerank",
    "/messages/count_tokens",
    "/responses/input_tokens",
    ":embedContent",
    ":batchEmbedContents",
    ":countTokens",
    ":computeTokens",
];

/// Shortest run of base64 that is taken for a picture or a file, in bytes. No word is so long.
const MIN_BASE64: usize = 1_024;
/// Tokens that are taken for a picture or a file.
const TOKENS_PER_FILE: u64 = 1_600;

/// A request, as far as it matters for its call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelRequest {
    /// The shape of the answer.
    pub shape: ApiShape,
    /// The model, as asked.
    pub model: Option<String>,
    /// True if the answer is to be streamed.
    pub is_streamed: bool,
    /// The maximum of tokens that the answer may have: of all choices together.
    pub max_output: Option<u64>,
    /// True if the provider goes on with the work when the caller has left.
    pub is_background: bool,
    /// True if the provider runs a tool itself: searches, code, MCP servers.
    pub has_provider_tools: bool,
    /// True if the provider appends the request and its answer to a conversation that it keeps.
    pub has_conversation: bool,
    /// True if the operation only computes something, such as embeddings, and generates nothing.
    pub is_computing: bool,
    /// Size of the body, in bytes.
    pub body_bytes: u64,
    /// Bytes of the body that count as text of the prompt: base64 is none.
    text_bytes: u64,
    /// Number of pictures and files in the body.
    files: u64,
}

impl ModelRequest {
    /// Reads a request. `target`: the path with its query. A body that is no JSON object is one
    /// without members.
    #[must_use]
    pub fn read(api: Api, target: &str, body: &[u8]) -> Self {
        let found = members(body, &NAMES).unwrap_or_default();
        let raw = |name: &str| {
            let found = found.iter().rev().find(|(at, _)| NAMES[*at] == name);
            found.map(|(_, raw)| raw.get())
        };
        let number = |name: &str| raw(name)?.parse::<u64>().ok();
        let shape = ApiShape::of(api, target);
        let is_true = |name: &str| raw(name) == Some("true");
        let (model, is_streamed, max_output) = match api {
            Api::Google => {
                let config = raw("generationConfig").or_else(|| raw("generation_config"));
                let path = target.split('?').next().unwrap_or(target);
                let operation = path.trim_end_matches('/').rsplit_once(':');
                let streamed = operation.is_some_and(|(_, name)| name == "streamGenerateContent");
                (model_in_path(target), streamed, google_maximum(config))
            }
            Api::OpenAi | Api::Anthropic => {
                let model = raw("model").and_then(|raw| serde_json::from_str(raw).ok());
                let each = number("max_completion_tokens")
                    .or_else(|| number("max_output_tokens"))
                    .or_else(|| number("max_tokens"));
                let choices = number("n").filter(|_| api == Api::OpenAi).unwrap_or(1);
                let all = each.map(|each| each.saturating_mul(choices.max(1)));
                (model, is_true("stream"), all)
            }
        };
        let tools = raw("tools").and_then(|raw| serde_json::from_str(raw).ok());
        let tools = tools.is_some_and(|tools| has_provider_tools(api, &tools));
        let (base64, files) = base64_in(body);
        let is_some = |name: &str| {
            raw(name).is_some_and(|raw| !matches!(raw.trim(), "null" | "[]" | "false"))
        };
        Self {
            shape,
            model,
            is_streamed,
            max_output,
            is_background: is_true("background"),
            has_provider_tools: tools || is_some("mcp_servers") || is_some("web_search_options"),
            has_conversation: is_some("conversation"),
            is_computing: is_computing(target),
            body_bytes: body.len() as u64,
            text_bytes: body.len() as u64 - base64,
            files,
        }
    }

    /// Returns true if the request changes nothing but the bill, so that an attempt without an
    /// answer may be repeated.
    #[must_use]
    pub const fn is_repeatable(&self) -> bool {
        // LLM-11: a provider that works on, runs tools, or notes what was said may have done something.
        let is_harmless = !self.is_background && !self.has_provider_tools && !self.has_conversation;
        self.is_computing || self.shape.is_generating() && is_harmless
    }

    /// Estimates the tokens. `output_estimate`: taken if the request names no maximum.
    #[must_use]
    pub fn estimate(&self, output_estimate: u64) -> TokenEstimate {
        let estimate = TokenEstimate::new(self.text_bytes, self.max_output, output_estimate);
        // LLM-19: a picture takes tokens by its size on a screen, and not by its bytes.
        let of_files = self.files.saturating_mul(TOKENS_PER_FILE);
        TokenEstimate {
            input: estimate.input.saturating_add(of_files),
            ..estimate
        }
    }
}

/// Returns true if the path is that of an operation that only computes.
fn is_computing(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or(target);
    let path = path.trim_end_matches('/');
    COMPUTING.iter().any(|end| path.ends_with(end))
}

/// Returns true if a run has letters of both cases and digits, as all of base64 that is so long.
fn is_mixed(run: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| run.iter().any(is);
    has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit)
}

/// Returns the bytes and the number of the long runs of base64 in a body.
fn base64_in(body: &[u8]) -> (u64, u64) {
    // JSON may escape a slash.
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte);
    let runs = body.split(|byte| !is_base64(byte));
    // A language without spaces may be escaped letter by letter; in a file only `+` and `=` are.
    let is_escaped = |run: &[u8]| {
        let escapes = run.windows(2).filter(|pair| pair == b"\\u").count();
        12 * escapes > run.len()
    };
    let is_file = |run: &&[u8]| run.len() >= MIN_BASE64 && is_mixed(run) && !is_escaped(run);
    let long = runs.filter(is_file);
    long.fold((0, 0), |(bytes, files), run| {
        (bytes + run.len() as u64, files + 1)
    })
}

fn google_maximum(config: Option<&str>) -> Option<u64> {
    let config: Value = serde_json::from_str(config?).ok()?;
    let count = |camel: &str, snake: &str| {
        let found = config.get(camel).or_else(|| config.get(snake));
        found.and_then(Value::as_u64)
    };
    let each = count("maxOutputTokens", "max_output_tokens")?;
    let candidates = count("candidateCount", "candidate_count").unwrap_or(1);
    Some(each.saturating_mul(candidates.max(1)))
}

/// Tools that a program of the caller runs: the beginnings of their types.
const OPENAI_CALLER_TOOLS: [&str; 5] = [
    "function",
    "custom",
    "computer",
    "local_shell",
    "apply_patch",
];
const ANTHROPIC_CALLER_TOOLS: [&str; 5] = ["custom", "bash", "text_editor", "computer", "memory"];
/// The same by the names of members.
const GOOGLE_CALLER_TOOLS: [&str; 4] = [
    "functionDeclarations",
    "function_declarations",
    "computerUse",
    "computer_use",
];

/// Returns true if one of the tools is run by the provider. An unknown tool is one.
fn has_provider_tools(api: Api, tools: &Value) -> bool {
    let Some(tools) = tools.as_array() else {
        return !tools.is_null();
    };
    let is_known = |tool: &Value, known: &[&str]| match tool.get("type").and_then(Value::as_str) {
        Some(kind) => known.iter().any(|begin| kind.starts_with(begin)),
        // Anthropic's tools of the caller may have no type.
        None => api == Api::Anthropic,
    };
    tools.iter().any(|tool| match api {
        Api::OpenAi => !is_known(tool, &OPENAI_CALLER_TOOLS),
        Api::Anthropic => !is_known(tool, &ANTHROPIC_CALLER_TOOLS),
        Api::Google => {
            let mut names = tool.as_object().into_iter().flat_map(|tool| tool.keys());
            names.any(|name| !GOOGLE_CALLER_TOOLS.contains(&name.as_str()))
        }
    })
}

/// Returns the model in a path of Google, such as `/v1beta/models/gemini-x:generateContent`.
fn model_in_path(target: &str) -> Option<String> {
    place_in_path(target).map(|place| target[place].to_owned())
}

fn place_in_path(target: &str) -> Option<Range<usize>> {
    let path = target.split('?').next().unwrap_or(target);
    let end = path.rfind(':')?;
    let begin = path[..end].rfind('/')? + 1;
    (begin < end).then_some(begin..end)
}

/// The parts of a request that a replaced model has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ModelReplacement {
    /// The path with its query; `None` if it stays.
    pub target: Option<String>,
    /// The body; `None` if it stays.
    pub body: Option<Vec<u8>>,
}

/// Replaces the model of a request in place. All other bytes stay as they are, and a request that
/// names no model stays as a whole.
#[must_use]
pub fn replace_model(api: Api, target: &str, body: &[u8], model: &str) -> ModelReplacement {
    // LLM-15: only the value of `model`, so that the provider's prompt cache goes on hitting.
    if api == Api::Google {
        let target = place_in_path(target).map(|place| {
            let (before, after) = (&target[..place.start], &target[place.end..]);
            format!("{before}{}{after}", in_path(model))
        });
        return ModelReplacement { target, body: None };
    }
    let found = members(body, &["model"]).unwrap_or_default();
    let is_text = |raw: &RawValue| raw.get().starts_with('"');
    let places = found.iter().filter(|(_, raw)| is_text(raw));
    let places: Vec<Range<usize>> = places.map(|(_, raw)| place_of(body, raw)).collect();
    if places.is_empty() {
        return ModelReplacement::default();
    }
    let quoted = Value::from(model).to_string();
    let mut replaced = Vec::with_capacity(body.len() + quoted.len());
    let mut begin = 0;
    for place in places {
        replaced.extend_from_slice(&body[begin..place.start]);
        replaced.extend_from_slice(quoted.as_bytes());
        begin = place.end;
    }
    replaced.extend_from_slice(&body[begin..]);
    ModelReplacement {
        target: None,
        body: Some(replaced),
    }
}

/// Returns the place of a value that was read from a body without a copy.
fn place_of(body: &[u8], raw: &RawValue) -> Range<usize> {
    let text = raw.get();
    let begin = text.as_ptr() as usize - body.as_ptr() as usize;
    begin..begin + text.len()
}

/// Returns a model's name as a segment of a path.
fn in_path(model: &str) -> String {
    let mut path = String::with_capacity(model.len());
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(api: Api, target: &str, body: &str) -> ModelRequest {
        ModelRequest::read(api, target, body.as_bytes())
    }

    #[test]
    fn llm_19_what_a_request_asks_for_is_read_in_each_dialect() {
        let chat = read(
            Api::OpenAi,
            "/chat/completions",
            r#"{"model":"g","stream":true,"max_tokens":5,"max_completion_tokens":7,"n":2}"#,
        );
        assert_eq!(chat.model.as_deref(), Some("g"));
        assert!(chat.is_streamed);
        assert_eq!(chat.max_output, Some(14));
        let responses = read(
            Api::OpenAi,
            "/responses",
            r#"{"model":"g","max_output_tokens":9}"#,
        );
        assert_eq!(
            (responses.is_streamed, responses.max_output),
            (false, Some(9))
        );
        let messages = read(
            Api::Anthropic,
            "/v1/messages",
            r#"{"max_tokens":8,"stream":false,"model":"c"}"#,
        );
        assert_eq!(
            (messages.is_streamed, messages.max_output),
            (false, Some(8))
        );
        let content = read(
            Api::Google,
            "/v1beta/models/g-1:streamGenerateContent?alt=sse",
            r#"{"generationConfig":{"maxOutputTokens":3,"candidateCount":2}}"#,
        );
        assert_eq!(content.model.as_deref(), Some("g-1"));
        assert_eq!((content.is_streamed, content.max_output), (true, Some(6)));
        // Only the operation says so, as it says the shape.
        for target in [
            "/v1beta/models/g:generateContent?a=:streamGenerateContent",
            "/v1beta/models/a:streamGenerateContent:countTokens",
        ] {
            assert!(!read(Api::Google, target, "{}").is_streamed, "{target}");
        }
        let none = read(Api::OpenAi, "/responses", "no JSON at all");
        assert_eq!((none.model.clone(), none.max_output), (None, None));
        assert_eq!(
            none.estimate(100).reserved(super::super::TokenKind::Total),
            104
        );
    }

    #[test]
    fn llm_11_background_and_provider_tools_are_not_repeated() {
        for (api, body, is_repeatable) in [
            (Api::OpenAi, r#"{"model":"g"}"#, true),
            (Api::OpenAi, r#"{"background":true}"#, false),
            (Api::OpenAi, r#"{"background":false,"tools":[]}"#, true),
            (
                Api::OpenAi,
                r#"{"tools":[{"type":"function","name":"f"}]}"#,
                true,
            ),
            (Api::OpenAi, r#"{"tools":[{"type":"custom"}]}"#, true),
            (
                Api::OpenAi,
                r#"{"tools":[{"type":"function"},{"type":"mcp","server_url":"u"}]}"#,
                false,
            ),
            (Api::OpenAi, r#"{"tools":[{"type":"web_search"}]}"#, false),
            (Api::OpenAi, r#"{"web_search_options":{}}"#, false),
            (
                Api::Anthropic,
                r#"{"tools":[{"name":"f","input_schema":{}}]}"#,
                true,
            ),
            (
                Api::Anthropic,
                r#"{"tools":[{"type":"bash_20250124","name":"bash"}]}"#,
                true,
            ),
            (
                Api::Anthropic,
                r#"{"tools":[{"type":"web_search_20250305"}]}"#,
                false,
            ),
            (Api::Anthropic, r#"{"mcp_servers":[{"url":"u"}]}"#, false),
            (Api::Anthropic, r#"{"mcp_servers":[]}"#, true),
            (
                Api::Google,
                r#"{"tools":[{"functionDeclarations":[]}]}"#,
                true,
            ),
            (Api::Google, r#"{"tools":[{"googleSearch":{}}]}"#, false),
        ] {
            let target = match api {
                Api::OpenAi => "/v1/responses",
                Api::Anthropic => "/v1/messages",
                Api::Google => "/v1beta/models/g:generateContent",
            };
            assert_eq!(
                read(api, target, body).is_repeatable(),
                is_repeatable,
                "{body}"
            );
        }
        let appends = r#"{"model":"g","conversation":"conv_1"}"#;
        assert!(!read(Api::OpenAi, "/v1/responses", appends).is_repeatable());
        for (api, target, is_repeatable) in [
            (Api::OpenAi, "/v1/files", false),
            (Api::OpenAi, "/v1/embeddings", true),
            (Api::OpenAi, "/v1/moderations/?a=b", true),
            (Api::OpenAi, "/v1/rerank", true),
            (Api::OpenAi, "/v1/responses/input_tokens", true),
            (Api::OpenAi, "/v1/images/generations", false),
            (Api::Anthropic, "/v1/messages/count_tokens", true),
            (Api::Anthropic, "/v1/messages/batches", false),
            (Api::Google, "/v1beta/models/g:countTokens", true),
            (Api::Google, "/v1beta/models/g:embedContent", true),
            (Api::Google, "/v1beta/cachedContents", false),
        ] {
            let request = read(api, target, "{}");
            assert_eq!(request.is_repeatable(), is_repeatable, "{target}");
        }
    }

    #[test]
    fn llm_19_a_picture_counts_a_fixed_sum_and_not_by_its_base64() {
        let picture = "iVBORw0KGgo/AAA+".repeat(8_192);
        let body = format!(
            r#"{{"model":"g","max_tokens":100,"messages":[{{"role":"user","content":[
            {{"type":"text","text":"{}"}},
            {{"type":"image_url","image_url":{{"url":"data:image/png;base64,{picture}"}}}},
            {{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]}}]}}"#,
            "some words of a prompt ".repeat(100),
            picture.replace('/', r"\/"),
        );
        let input = read(Api::OpenAi, "/v1/chat/completions", &body)
            .estimate(0)
            .input;
        let text = 2_300 / 4;
        assert!(
            (3_200 + text..3_200 + text + 100).contains(&input),
            "{input}"
        );
        // A long word of a language without spaces is text.
        let body = format!(r#"{{"messages":[{{"content":"{}"}}]}}"#, "文".repeat(2_000));
        let input = read(Api::OpenAi, "/v1/chat/completions", &body)
            .estimate(0)
            .input;
        assert_eq!(input, (body.len() as u64).div_ceil(4));
        let letters = r"\u4f60\u5B8c".repeat(2_000);
        assert_eq!(base64_in(letters.as_bytes()), (0, 0), "letters one by one");
        // Some writers of JSON escape `+` and `=`.
        let file = format!(r"{}\u003d", picture.replace('+', r"\u002B"));
        assert_eq!(base64_in(file.as_bytes()), (file.len() as u64, 1));
    }

    #[test]
    fn llm_15_only_the_value_of_model_is_replaced() {
        let replaced = |body: &str| {
            let replaced = replace_model(Api::OpenAi, "/responses", body.as_bytes(), "gpt \"x\"");
            assert_eq!(replaced.target, None);
            replaced.body.map(|body| String::from_utf8(body).unwrap())
        };
        for (given, left) in [
            (
                "{ \"input\" : {\"model\":\"in\"},\n\t\"model\" :\"a\\u0041\" , \"x\": 1.50 }",
                "{ \"input\" : {\"model\":\"in\"},\n\t\"model\" :\"gpt \\\"x\\\"\" , \"x\": 1.50 }",
            ),
            (
                r#"{"model":"a","model":"b"}"#,
                r#"{"model":"gpt \"x\"","model":"gpt \"x\""}"#,
            ),
        ] {
            assert_eq!(replaced(given).as_deref(), Some(left));
        }
        for unchanged in ["{}", r#"{"model":null}"#, "[1]", "", r#"{"model":"a""#] {
            assert_eq!(replaced(unchanged), None, "{unchanged}");
        }
    }

    #[test]
    fn llm_15_googles_model_is_replaced_in_the_path() {
        for (given, left) in [
            (
                "/v1beta/models/g-1:generateContent?alt=sse",
                Some("/v1beta/models/new%201:generateContent?alt=sse"),
            ),
            (
                "/v1/projects/p/publishers/google/models/g:streamGenerateContent",
                Some("/v1/projects/p/publishers/google/models/new%201:streamGenerateContent"),
            ),
            ("/v1beta/models", None),
        ] {
            let replaced = replace_model(Api::Google, given, b"{}", "new 1");
            assert_eq!(replaced.target.as_deref(), left);
            assert_eq!(replaced.body, None);
        }
    }
}
