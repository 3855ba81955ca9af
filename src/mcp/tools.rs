//! Tools of a server as it lists them, and their hints.

use std::collections::HashMap;
use std::sync::Arc;

use rmcp::model;
use serde_json::Value;

use super::call::ToolTraits;

/// A tool of a server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// The name.
    pub name: String,
    /// The server's description of the tool.
    pub description: Option<String>,
    /// The JSON schema of its arguments.
    pub input_schema: Value,
    /// True if it changes nothing, by its own hint.
    pub read_only: bool,
    /// True if it may be repeated: by its own hint, as it is read-only, or by the settings.
    pub idempotent: bool,
}

/// All tools of a server, with their traits.
#[derive(Debug, Default)]
pub(super) struct ToolTable {
    pub(super) tools: Arc<[Tool]>,
    /// The tools in the server's own form.
    #[cfg_attr(
        not(feature = "gateway"),
        expect(dead_code, reason = "only the gateway uses it")
    )]
    pub(super) listed: Vec<model::Tool>,
    natures: HashMap<String, ToolTraits>,
}

impl ToolTable {
    /// Creates a toolbox. `idempotent`: the tools named in the settings.
    pub(super) fn new(listed: Vec<model::Tool>, idempotent: &[String]) -> Self {
        let tools: Arc<[Tool]> = listed.iter().map(|tool| read(tool, idempotent)).collect();
        let natures = tools.iter().map(|tool| {
            let nature = ToolTraits {
                write: !tool.read_only,
                idempotent: tool.idempotent,
            };
            (tool.name.clone(), nature)
        });
        Self {
            natures: natures.collect(),
            tools,
            listed,
        }
    }

    pub(super) fn nature(&self, tool: &str) -> Option<ToolTraits> {
        self.natures.get(tool).copied()
    }
}

fn read(tool: &model::Tool, idempotent: &[String]) -> Tool {
    let hints = tool.annotations.as_ref();
    let read_only = hints.and_then(|hints| hints.read_only_hint) == Some(true);
    let says_so = hints.and_then(|hints| hints.idempotent_hint) == Some(true);
    Tool {
        name: tool.name.to_string(),
        description: tool.description.as_ref().map(ToString::to_string),
        input_schema: Value::Object((*tool.input_schema).clone()),
        read_only,
        idempotent: read_only || says_so || idempotent.iter().any(|name| *name == tool.name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(name: &str, annotations: Value) -> model::Tool {
        let tool = json!({ "name": name, "inputSchema": {}, "annotations": annotations });
        serde_json::from_value(tool).unwrap()
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
        let toolbox = ToolTable::new(all, &["named".to_owned()]);
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
