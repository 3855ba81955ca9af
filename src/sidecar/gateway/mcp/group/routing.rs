//! The member of a group that a request is for.

use std::collections::HashMap;
use std::sync::Mutex;

use super::lists::{ListKind, MemberList};
use crate::config::GroupMember;
use crate::lock::LockExt as _;
use crate::mcp::JsonText;
use crate::mcp::json_text::{MemberEdit, edited, joined, quoted};
use crate::mcp::message::{ParamsHead, RpcError, code};
use crate::sidecar::gateway::mcp::raw_object::RawObject;

/// Maximum number of addresses of resources that a group remembers.
const MAX_RESOURCES: usize = 10_000;

/// Target of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestTarget {
    /// A tool or a prompt, by its name with a prefix.
    Named { what: &'static str, name: String },
    /// A resource, or a template of resources.
    Resource(String),
}

/// Returns what a request is for.
///
/// # Errors  It is for nothing that a group has.
pub(super) fn target_of(
    method: &str,
    read: &ParamsHead,
    params: Option<&JsonText>,
) -> Result<RequestTarget, RpcError> {
    let missing = |what: &str| {
        RpcError::new(
            code::INVALID_PARAMS,
            format!("{what} is missing; a text is allowed"),
        )
    };
    let named = |what| {
        let name = read.name.clone().ok_or_else(|| missing("name"))?;
        Ok(RequestTarget::Named { what, name })
    };
    match method {
        "tools/call" => named("tool"),
        "prompts/get" => named("prompt"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            let uri = read.uri.clone().ok_or_else(|| missing("uri"))?;
            Ok(RequestTarget::Resource(uri))
        }
        "completion/complete" => {
            let params = params.and_then(|params| RawObject::read(params.as_str()));
            let reference = params.as_ref().and_then(|params| params.get("ref"));
            let reference = reference.and_then(RawObject::read);
            let reference = reference.ok_or_else(|| missing("ref"))?;
            if let Some(uri) = reference.string("uri") {
                return Ok(RequestTarget::Resource(uri));
            }
            let name = reference
                .string("name")
                .ok_or_else(|| missing("ref.name"))?;
            Ok(RequestTarget::Named {
                what: "prompt",
                name,
            })
        }
        _ => Err(RpcError::method_not_found(method)),
    }
}

/// Splits a name into the member of its prefix and the member's own name. No prefix begins another
/// one, so there is one member at most.
pub(super) fn split<'a>(
    members: &'a [GroupMember],
    name: &'a str,
) -> Option<(&'a GroupMember, &'a str)> {
    members.iter().find_map(|member| {
        let rest = name.strip_prefix(member.prefix.as_str())?;
        Some((member, rest.strip_prefix('_')?))
    })
}

/// A request as its member gets it.
#[derive(Debug, Default)]
pub(super) struct RoutedRequest {
    /// The member's own name of what is called, if it is another one.
    pub(super) name: Option<String>,
    /// The parameters, if they are changed.
    pub(super) params: Option<JsonText>,
}

impl RoutedRequest {
    /// Replaces the name in the parameters of a request, or in the reference of a completion.
    pub(super) fn renamed(params: Option<&JsonText>, read: &ParamsHead, own: &str) -> Self {
        let Some(params) = params else {
            return Self::default();
        };
        if let Some(present) = &read.name_text {
            // MCP-2: a large text is not read for its name.
            let edit = MemberEdit {
                name: "name",
                present: Some(present),
                value: quoted(own),
            };
            let params = JsonText::checked(joined(&edited(params, vec![edit])));
            return Self {
                name: Some(own.to_owned()),
                params: Some(params),
            };
        }
        let Some(mut object) = RawObject::read(params.as_str()) else {
            return Self::default();
        };
        let reference = object.get("ref").and_then(RawObject::read);
        let Some(mut reference) = reference else {
            return Self::default();
        };
        reference.set_string("name", own);
        let reference = reference.write();
        object.set("ref", reference);
        Self {
            name: None,
            params: Some(JsonText::checked(object.write().into())),
        }
    }
}

/// The members of resources, by the addresses that they have listed.
#[derive(Debug, Default)]
pub(super) struct ResourceMap {
    known: Mutex<KnownResources>,
}

#[derive(Debug, Default)]
struct KnownResources {
    /// Members by address.
    addresses: HashMap<String, String>,
    /// Members by template.
    templates: HashMap<String, String>,
}

impl ResourceMap {
    /// Notes the addresses of lists. Members that are missing keep theirs.
    pub(super) fn learn(&self, kind: ListKind, lists: &[MemberList<'_>]) {
        let mut known = self.known.acquire();
        let table = match kind {
            ListKind::Templates => &mut known.templates,
            _ => &mut known.addresses,
        };
        let present: Vec<&str> = lists.iter().map(|list| list.name).collect();
        table.retain(|_, member| !present.contains(&member.as_str()));
        for list in lists {
            list.each(kind, |_, address| {
                // CALL-6: nothing is unbounded.
                if table.len() < MAX_RESOURCES {
                    let own = table.entry(address.into_owned());
                    own.or_insert_with(|| list.name.to_owned());
                }
            });
        }
    }

    /// Returns the member that has a resource: by its address, else by the template with the longest
    /// beginning in common.
    pub(super) fn find(&self, uri: &str) -> Option<String> {
        let known = self.known.acquire();
        let exact = known
            .addresses
            .get(uri)
            .or_else(|| known.templates.get(uri));
        if let Some(member) = exact {
            return Some(member.clone());
        }
        let fits = known.templates.iter().filter_map(|(template, member)| {
            let begin = template.split('{').next().unwrap_or_default();
            let fits = begin.len() < template.len() && uri.starts_with(begin);
            fits.then_some((begin.len(), member))
        });
        let found = fits.filter(|(length, _)| *length > 0);
        found.max().map(|(_, member)| member.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mcp_6_m12_a_name_leads_to_one_member() {
        let member = |prefix: &str, name: &str| GroupMember {
            prefix: prefix.to_owned(),
            name: name.to_owned(),
        };
        let members = [
            member("a", "one"),
            member("a-b", "two"),
            member("web", "three"),
        ];
        let found = |name| split(&members, name).map(|(member, own)| (member.name.as_str(), own));
        assert_eq!(found("a_x"), Some(("one", "x")));
        assert_eq!(found("a-b_x_y"), Some(("two", "x_y")));
        assert_eq!(found("web__x"), Some(("three", "_x")));
        for name in ["a", "ax", "b_x", "", "_x"] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn mcp_6_m12_only_the_name_of_a_request_is_changed() {
        let renamed = |value: serde_json::Value| {
            let params = JsonText::of(&value);
            let read = ParamsHead::read(&params).unwrap();
            let routed = RoutedRequest::renamed(Some(&params), &read, "x");
            (routed.name, routed.params.unwrap().to_value())
        };
        let call = json!({ "name": "a_x", "arguments": { "name": "a_x" } });
        let expected = json!({ "name": "x", "arguments": { "name": "a_x" } });
        assert_eq!(renamed(call), (Some("x".to_owned()), expected));
        let asked = json!({ "ref": { "type": "ref/prompt", "name": "a_x" }, "argument": {} });
        let expected = json!({ "ref": { "type": "ref/prompt", "name": "x" }, "argument": {} });
        assert_eq!(renamed(asked), (None, expected));
    }

    #[test]
    fn mcp_6_m12_resources_are_found_by_address_and_by_template() {
        let map = ResourceMap::default();
        let list = |name, text: &'static str| MemberList {
            prefix: "p",
            name,
            pages: vec![JsonText::checked(text.into())],
        };
        let one = || list("one", r#"{"resources":[{"uri":"x://1"}]}"#);
        let two = || list("two", r#"{"resources":[{"uri":"x://1"},{"uri":"y://1"}]}"#);
        map.learn(ListKind::Resources, &[one(), two()]);
        assert_eq!(map.find("x://1").as_deref(), Some("one"));
        assert_eq!(map.find("y://1").as_deref(), Some("two"));
        assert_eq!(map.find("y://2"), None);
        // A member that is missing keeps its own.
        map.learn(ListKind::Resources, &[two()]);
        assert_eq!(map.find("x://1").as_deref(), Some("one"));
        let templates = [
            list(
                "one",
                r#"{"resourceTemplates":[{"uriTemplate":"y://{id}"}]}"#,
            ),
            list(
                "two",
                r#"{"resourceTemplates":[{"uriTemplate":"y://in/{id}"},{"uriTemplate":"{any}"}]}"#,
            ),
        ];
        map.learn(ListKind::Templates, &templates);
        assert_eq!(map.find("y://2").as_deref(), Some("one"));
        assert_eq!(map.find("y://in/2").as_deref(), Some("two"));
        assert_eq!(map.find("y://{id}").as_deref(), Some("one"));
        assert_eq!(map.find("z://2"), None);
    }
}
