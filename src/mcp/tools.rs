//! Tools of a server as it lists them, and their hints.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::call::ToolTraits;
use super::http_headers::{HeaderParam, header_params};
use super::json_text::JsonText;

/// Maximum size of the schemas of all tools that are read, in bytes. Beyond it they pass as text
/// only.
const MAX_SCHEMAS: usize = 1 << 20;

/// The member of a schema that names a header.
const HEADER_MARK: &str = "\"x-mcp-header\"";

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
    name: NamePlace,
    pub(crate) text: JsonText,
}

/// Place of a tool's name.
///
/// MCP-2: a list may have a tool for each forty bytes, so a name is kept apart from the text only if it
/// is written with escapes.
#[derive(Debug, Clone, PartialEq)]
enum NamePlace {
    InText { start: u32, length: u32 },
    Apart(Box<str>),
}

impl RawTool {
    pub(crate) fn new(name: &str, text: JsonText) -> Self {
        let name = NamePlace::of(name, &text);
        Self { name, text }
    }

    /// Reads a tool; `None` for one without a name, which cannot be called.
    pub(super) fn read(text: JsonText) -> Option<Self> {
        #[derive(Deserialize)]
        struct ToolName<'a> {
            #[serde(borrow)]
            name: Cow<'a, str>,
        }
        let ToolName { name } = serde_json::from_slice(text.bytes()).ok()?;
        let name = NamePlace::of(&name, &text);
        Some(Self { name, text })
    }

    pub(crate) fn name(&self) -> &str {
        match &self.name {
            NamePlace::InText { start, length } => {
                let (start, length) = (*start as usize, *length as usize);
                let part = self.text.bytes().get(start..start + length);
                // It was read as a text.
                std::str::from_utf8(part.unwrap_or_default()).unwrap_or_default()
            }
            NamePlace::Apart(name) => name,
        }
    }
}

impl NamePlace {
    fn of(name: &str, text: &JsonText) -> Self {
        let whole = text.bytes();
        // A name from elsewhere is not within the text.
        let start = (name.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        let end = start.checked_add(name.len());
        let is_within = end.is_some_and(|end| end <= whole.len());
        match (u32::try_from(start), u32::try_from(name.len())) {
            (Ok(start), Ok(length)) if is_within => Self::InText { start, length },
            _ => Self::Apart(name.into()),
        }
    }
}

/// All tools of a server, with their traits.
///
/// MCP-2: the tools stay texts. Their traits are kept, and all else is read when a program asks for it.
#[derive(Debug, Default)]
pub(super) struct ToolTable {
    /// The tools in the server's own form.
    pub(super) listed: Arc<[RawTool]>,
    /// The traits of each.
    traits: Box<[ToolTraits]>,
    /// The places of the tools, in the order of their names.
    by_name: Box<[u32]>,
    header_params: HashMap<String, Vec<HeaderParam>>,
    tools: OnceLock<Arc<[Tool]>>,
}

impl ToolTable {
    /// Creates a toolbox. `idempotent`: the tools named in the settings.
    pub(super) fn new(listed: Arc<[RawTool]>, idempotent: &[String]) -> Self {
        let mut room = MAX_SCHEMAS;
        let mut params = HashMap::new();
        let traits = listed.iter().map(|tool| {
            let fields = ToolFields::read(tool);
            let schema = fields.schema(&mut room);
            if let Some(schema) = schema.filter(|schema| schema.contains(HEADER_MARK)) {
                let found = header_params(&serde_json::from_str(schema).unwrap_or(Value::Null));
                if !found.is_empty() {
                    params.insert(tool.name().to_owned(), found);
                }
            }
            fields.traits(tool.name(), idempotent)
        });
        let traits = traits.collect();
        let mut by_name: Vec<u32> = (0..).take(listed.len()).collect();
        // Stable: of several tools of one name the last one counts.
        by_name.sort_by(|one, other| name_at(&listed, *one).cmp(name_at(&listed, *other)));
        Self {
            traits,
            by_name: by_name.into(),
            header_params: params,
            tools: OnceLock::new(),
            listed,
        }
    }

    pub(super) fn nature(&self, tool: &str) -> Option<ToolTraits> {
        let name = |place: &u32| name_at(&self.listed, *place);
        let end = self.by_name.partition_point(|place| name(place) <= tool);
        let place = self.by_name.get(end.checked_sub(1)?)?;
        let is_found = name(place) == tool;
        let place = usize::try_from(*place).ok().filter(|_| is_found)?;
        self.traits.get(place).copied()
    }

    /// Returns the arguments of a tool that go into headers too.
    pub(super) fn header_params(&self, tool: &str) -> &[HeaderParam] {
        self.header_params.get(tool).map_or(&[], Vec::as_slice)
    }

    /// Returns the tools as values, which are read the first time.
    pub(super) fn tools(&self) -> Arc<[Tool]> {
        let tools = self.tools.get_or_init(|| {
            let mut room = MAX_SCHEMAS;
            let tools = self.listed.iter().zip(&self.traits);
            tools
                .map(|(tool, traits)| read(tool, *traits, &mut room))
                .collect()
        });
        Arc::clone(tools)
    }
}

/// Returns the name of the tool at a place.
fn name_at(listed: &[RawTool], place: u32) -> &str {
    let tool = usize::try_from(place).ok().and_then(|at| listed.get(at));
    tool.map_or("", RawTool::name)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ToolFields<'a> {
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
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

impl<'a> ToolFields<'a> {
    fn read(tool: &'a RawTool) -> Self {
        serde_json::from_slice(tool.text.bytes()).unwrap_or_default()
    }

    /// Returns the schema, if it fits into the room.
    fn schema(&self, room: &mut usize) -> Option<&'a str> {
        let schema = self.input_schema?.get();
        let fits = schema.len() <= *room;
        *room = room.saturating_sub(schema.len());
        fits.then_some(schema)
    }

    fn traits(&self, name: &str, idempotent: &[String]) -> ToolTraits {
        let hints = self.annotations.as_ref();
        let is_reader = hints.and_then(|hints| hints.read_only_hint) == Some(true);
        let says_so = hints.and_then(|hints| hints.idempotent_hint) == Some(true);
        let is_named = || idempotent.iter().any(|own| own == name);
        ToolTraits {
            write: !is_reader,
            idempotent: is_reader || says_so || is_named(),
        }
    }
}

fn read(tool: &RawTool, traits: ToolTraits, room: &mut usize) -> Tool {
    let fields = ToolFields::read(tool);
    let schema = fields.schema(room);
    let description = fields.description.map(RawValue::get);
    Tool {
        name: tool.name().to_owned(),
        description: description.and_then(|text| serde_json::from_str(text).ok()),
        input_schema: schema
            .and_then(|schema| serde_json::from_str(schema).ok())
            .unwrap_or(Value::Null),
        read_only: !traits.write,
        idempotent: traits.idempotent,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(name: &str, annotations: Value) -> RawTool {
        let tool = json!({ "name": name, "inputSchema": {}, "annotations": annotations });
        RawTool::new(name, JsonText::of(&tool))
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

    #[test]
    fn mcp_2_m14_a_list_of_tools_stays_one_text() {
        let text =
            (0..1000).map(|n| format!(r#"{{"name":"t{n}","inputSchema":{{"type":"object"}}}}"#));
        let text = bytes::Bytes::from(text.collect::<Vec<_>>().join(","));
        let values = serde_json::Deserializer::from_slice(&text);
        let mut values = values.into_iter::<&RawValue>();
        let first = values.next().unwrap().unwrap().get().as_bytes();
        let first = RawTool::read(JsonText::checked(text.slice_ref(first))).unwrap();
        assert_eq!(first.name(), "t0");
        assert!(text.as_ptr_range().contains(&first.name().as_ptr()));
        assert!(size_of::<RawTool>() <= 48, "{}", size_of::<RawTool>());
        let read = |text: &'static str| RawTool::read(JsonText::checked(text.into()));
        let other = read(r#"{"name":"\u0061\"b","description":"d"}"#).unwrap();
        assert_eq!(other.name(), "a\"b");
        assert!(read(r#"{"title":"x"}"#).is_none());
        let listed = vec![first, other, RawTool::new("t0", JsonText::of(&json!({})))];
        let table = ToolTable::new(listed.into(), &["a\"b".to_owned()]);
        assert!(table.nature("a\"b").is_some_and(|nature| nature.idempotent));
        assert_eq!(table.nature("t"), None);
        assert!(
            table.tools.get().is_none(),
            "no values are kept for the gateway"
        );
        let tools = table.tools();
        assert_eq!(tools[0].input_schema, json!({ "type": "object" }));
        assert_eq!(tools[1].description.as_deref(), Some("d"));
        assert!(Arc::ptr_eq(&tools, &table.tools()));
    }

    #[test]
    fn mcp_6_of_several_tools_of_one_name_the_last_one_counts() {
        let all = vec![
            listed("a", json!({ "readOnlyHint": true })),
            listed("b", json!({})),
            listed("a", json!({ "readOnlyHint": false })),
        ];
        let toolbox = ToolTable::new(all.into(), &[]);
        assert!(toolbox.nature("a").is_some_and(|nature| nature.write));
    }
}
