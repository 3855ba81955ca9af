//! The lists of a group's members, joined to one.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::mcp::JsonText;
use crate::sidecar::gateway::mcp::raw_object::RawObject;

/// Kind of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl ListKind {
    /// Returns the kind of list that a method asks for.
    pub(super) fn of(method: &str) -> Option<Self> {
        let all = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];
        all.into_iter().find(|kind| kind.method() == method)
    }

    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// Name of the member of a result that is the list.
    fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// Name of the member by which an entry is asked for.
    fn name(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    pub(super) fn is_of_resources(self) -> bool {
        matches!(self, Self::Resources | Self::Templates)
    }
}

/// The list of one member.
pub(super) struct MemberList<'a> {
    pub(super) prefix: &'a str,
    /// The member.
    pub(super) name: &'a str,
    /// The results of its pages.
    pub(super) pages: Vec<JsonText>,
}

impl MemberList<'_> {
    /// Calls a function with each entry and what it is asked for by.
    pub(super) fn each<'a>(&'a self, kind: ListKind, mut take: impl FnMut(&'a str, Cow<'a, str>)) {
        for page in &self.pages {
            let Some(result) = RawObject::read(page.as_str()) else {
                continue;
            };
            result.each_item(kind.key(), |item| {
                let entry = RawObject::read(item);
                // An entry without a name cannot be asked for.
                if let Some(name) = entry.and_then(|entry| entry.part(kind.name())) {
                    take(item, name);
                }
            });
        }
    }
}

/// Joins the lists to one result. Tools and prompts get their member's prefix; of resources with the
/// same address, that of the first member stays.
///
/// MCP-2: entries go from their pages into the result, one by one.
pub(super) fn merged(kind: ListKind, lists: &[MemberList<'_>]) -> String {
    let pages = lists.iter().flat_map(|list| &list.pages);
    let length: usize = pages.map(|page| page.bytes().len()).sum();
    let mut text = String::with_capacity(length + 64);
    text.push_str("{\"");
    text.push_str(kind.key());
    text.push_str("\":[");
    let begin = text.len();
    let mut taken = HashSet::new();
    for list in lists {
        if !kind.is_of_resources() {
            // No prefix begins another one: names of two members are never the same.
            taken.clear();
        }
        list.each(kind, |item, name| {
            if taken.contains(&name) {
                return;
            }
            let mut renamed = None;
            if !kind.is_of_resources() {
                let Some(mut entry) = RawObject::read(item) else {
                    return;
                };
                entry.set_string(kind.name(), &format!("{}_{name}", list.prefix));
                renamed = Some(entry.write());
            }
            taken.insert(name);
            if text.len() > begin {
                text.push(',');
            }
            text.push_str(renamed.as_deref().unwrap_or(item));
        });
    }
    text.push_str("]}");
    text
}

/// Returns the cursor of the page after this one.
pub(super) fn next_cursor(page: &JsonText) -> Option<serde_json::Value> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PageEnd {
        next_cursor: Option<serde_json::Value>,
    }
    page.read::<PageEnd>()?.next_cursor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &'static str) -> JsonText {
        JsonText::checked(text.into())
    }

    #[test]
    fn mcp_6_m12_lists_are_joined_under_prefixes() {
        let lists = [
            MemberList {
                prefix: "a",
                name: "one",
                pages: vec![
                    page(r#"{"tools":[{"name":"x","n":1.0}],"nextCursor":"2"}"#),
                    page(r#"{"tools":[{"nameless":1},{"inputSchema":{}, "name":"y"}]}"#),
                ],
            },
            MemberList {
                prefix: "b",
                name: "two",
                pages: vec![page(r#"{"tools":[{"name":"x"}]}"#)],
            },
        ];
        let expected =
            r#"{"tools":[{"name":"a_x","n":1.0},{"inputSchema":{},"name":"a_y"},{"name":"b_x"}]}"#;
        assert_eq!(merged(ListKind::Tools, &lists), expected);
        let next = next_cursor(&lists[0].pages[0]);
        assert_eq!(next, Some(serde_json::Value::from("2")));
        assert_eq!(next_cursor(&lists[0].pages[1]), None);
        assert_eq!(merged(ListKind::Tools, &[]), r#"{"tools":[]}"#);
    }

    #[test]
    fn mcp_2_m14_an_entry_is_a_part_of_its_page_and_counts_once() {
        let page = page(r#"{"prompts":[{"name":"x"},{"name":"\u0078","n":2},{"name":"y\n"},7]}"#);
        let list = MemberList {
            prefix: "a",
            name: "one",
            pages: vec![page.clone()],
        };
        let mut names = Vec::new();
        list.each(ListKind::Prompts, |item, name| {
            let whole = page.bytes().as_ptr_range();
            assert!(whole.contains(&item.as_ptr()));
            names.push((matches!(name, Cow::Borrowed(_)), name.into_owned()));
        });
        let expected = [(true, "x"), (false, "x"), (false, "y\n")];
        assert_eq!(names, expected.map(|(part, name)| (part, name.to_owned())));
        let expected = r#"{"prompts":[{"name":"a_x"},{"name":"a_y\n"}]}"#;
        assert_eq!(merged(ListKind::Prompts, &[list]), expected);
    }

    #[test]
    fn mcp_6_m12_resources_keep_their_addresses_and_the_first_wins() {
        let list = |prefix, text| MemberList {
            prefix,
            name: prefix,
            pages: vec![page(text)],
        };
        let lists = [
            list("a", r#"{"resources":[{"uri":"x://1","name":"a"}]}"#),
            list(
                "b",
                r#"{"resources":[{"uri":"x://1","name":"b"},{"uri":"y://1"}]}"#,
            ),
        ];
        let expected = r#"{"resources":[{"uri":"x://1","name":"a"},{"uri":"y://1"}]}"#;
        assert_eq!(merged(ListKind::Resources, &lists), expected);
    }
}
