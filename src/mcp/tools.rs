//! Tools of a server as it lists them, and their hints.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::call::ToolTraits;
use super::http_headers::{HeaderParam, header_params};
use super::json_text::JsonText;

/// Maximum size of the schemas of all tools that are read, in bytes. Beyond it they pass as text
/// only.
const MAX_SCHEMAS: usize = 1 << 20;

/// A tool of a server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// The name.
    pub name: String,
    /// The server's description of the tool.
    pub description: Option<String>,
    /// The JSON schema of its arguments; `null` if the schemas of all tools exceed 1 MiB.
    pub input_schema: Value,
    /// True if it changes nothing, by its own hint.
    pub read_only: bool,
    /// True if it may be repeated: by its own hint, as it is read-only, or by the settings.
    pub idempotent: bool,
}

/// A tool in the server's own form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawTool {
    pub(crate) name: String,
    pub(crate) text: JsonText,
}

/// All tools of a server, with their traits.
#[derive(Debug, Default)]
pub(super) struct ToolTable {
    pub(super) tools: Arc<[Tool]>,
    /// The tools in the server's own form.
    pub(super) listed: Arc<[RawTool]>,
    natures: HashMap<String, ToolTraits>,
    header_params: HashMap<String, Vec<HeaderParam>>,
}

impl ToolTable {
    /// Creates a toolbox. `idempotent`: the tools named in the settings.
    pub(super) fn new(listed: Arc<[RawTool]>, idempotent: &[String]) -> Self {
        let mut room = MAX_SCHEMAS;
        let tools: Arc<[Tool]> = listed
            .iter()
            .map(|tool| read(tool, idempotent, &mut room))
            .collect();
        let natures = tools.iter().map(|tool| {
            let nature = ToolTraits {
                write: !tool.read_only,
                idempotent: tool.idempotent,
            };
            (tool.name.clone(), nature)
        });
        let params = tools.iter().filter_map(|tool| {
            let params = header_params(&tool.input_schema);
            (!params.is_empty()).then(|| (tool.name.clone(), params))
        });
        Self {
            natures: natures.collect(),
            header_params: params.collect(),
            tools,
            listed,
        }
    }

    pub(super) fn nature(&self, tool: &str) -> Option<ToolTraits> {
        self.natures.get(tool).copied()
    }

    /// Returns the arguments of a tool that go into headers too.
    pub(super) fn header_params(&self, tool: &str) -> &[HeaderParam] {
        self.header_params.get(tool).map_or(&[], Vec::as_slice)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolFields<'a> {
    #[serde(default)]
    description: Option<Value>,
    #[serde(borrow, default)]
    input_schema: Option<&'a RawValue>,
    #[serde(default)]
    annotations: Option<ToolHints>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ToolHints {
    read_only_hint: Option<bool>,
    idempotent_hint: Option<bool>,
}

fn read(tool: &RawTool, idempotent: &[String], room: &mut usize) -> Tool {
    let fields: Option<ToolFields<'_>> = serde_json::from_slice(tool.text.bytes()).ok();
    let hints = fields
        .as_ref()
        .and_then(|fields| fields.annotations.as_ref());
    let read_only = hints.and_then(|hints| hints.read_only_hint) == Some(true);
    let says_so = hints.and_then(|hints| hints.idempotent_hint) == Some(true);
    let schema = fields.as_ref().and_then(|fields| fields.input_schema);
    let schema = schema.filter(|schema| {
        let fits = schema.get().len() <= *room;
        *room = room.saturating_sub(schema.get().len());
        fits
    });
    let description = fields
        .as_ref()
        .and_then(|fields| fields.description.as_ref());
    Tool {
        name: tool.name.clone(),
        description: description.and_then(Value::as_str).map(str::to_owned),
        input_schema: schema
            .and_then(|schema| serde_json::from_str(schema.get()).ok())
            .unwrap_or(Value::Null),
        read_only,
        idempotent: read_only || says_so || idempotent.contains(&tool.name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(name: &str, annotations: Value) -> RawTool {
        let tool = json!({ "name": name, "inputSchema": {}, "annotations": annotations });
        RawTool {
            name: name.to_owned(),
            text: JsonText::of(&tool),
        }
    }

    #[test]
    fn call_7_what_nobody_calls_idempotent_is_not() {
        let all = vec![
            listed("read", json!({ "readOnlyHint": true })),
            listed("delete", json!({ "idempotentHint": true })),
            listed(
                "create",
                json!({ "readOnlyHint": false, "idempotentHint": false }),
            ),
            listed("silent", json!({})),
            listed("named", json!({})),
        ];
        let toolbox = ToolTable::new(all.into(), &["named".to_owned()]);
        let nature = |tool| {
            let nature = toolbox.nature(tool);
            nature.map(|nature| (nature.write, nature.idempotent))
        };
        assert_eq!(nature("read"), Some((false, true)));
        assert_eq!(nature("delete"), Some((true, true)));
        assert_eq!(nature("create"), Some((true, false)));
        assert_eq!(nature("silent"), Some((true, false)));
        assert_eq!(nature("named"), Some((true, true)));
        assert_eq!(nature("unknown"), None);
    }
}
