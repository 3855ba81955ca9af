//! Input that a server of the newer dialect wants of the user of an older caller, who is asked by requests
//! of their own.
//!
//! It calls nothing: it returns the parameters with which the call goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::caller_stream::CallerStream;
use super::dispatch::CallerRequest;
use super::endpoint::McpEndpoint;
use super::rpc_reply::{UNANSWERED, of_end};
use crate::mcp::audience::{CallListener as _, ServerQuestion, unanswered};
use crate::mcp::json_text::{JsonText, MemberEdit, edited, joined, part_of, without_member};
use crate::mcp::message::{LARGE, ParamsHead, RpcError};

/// Maximum number of questions that a server asks at once.
const MAX_QUESTIONS: usize = 100;
/// The input that a server wants. Its parts share the text of the result.
struct WantedInput {
    /// The questions, by key.
    questions: Vec<(String, ServerQuestion)>,
    state: Option<JsonText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputFields<'a> {
    #[serde(borrow, default)]
    input_requests: QuestionMap<'a>,
    #[serde(borrow, default)]
    request_state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct QuestionParts<'a> {
    method: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Default)]
struct QuestionMap<'a>(BTreeMap<String, QuestionParts<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for QuestionMap<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Questions;

        impl<'de> Visitor<'de> for Questions {
            type Value = QuestionMap<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut questions = BTreeMap::new();
                while let Some((key, question)) = map.next_entry()? {
                    questions.insert(key, question);
                    if questions.len() > MAX_QUESTIONS {
                        // CALL-6: a user is asked one question after the other.
                        return Err(A::Error::custom("too many questions"));
                    }
                }
                Ok(QuestionMap(questions))
            }
        }

        from.deserialize_map(Questions)
    }
}

impl WantedInput {
    /// Reads a result; `None` if it is not understood.
    fn read(result: &JsonText) -> Option<Self> {
        let text = result.bytes();
        let fields: InputFields<'_> = serde_json::from_slice(text).ok()?;
        let QuestionMap(questions) = fields.input_requests;
        let questions = questions.into_iter().map(|(key, question)| {
            let params = question.params.map(|raw| part_of(text, raw));
            (key, ServerQuestion::new(question.method, params))
        });
        Some(Self {
            questions: questions.collect(),
            state: fields.request_state.map(|raw| part_of(text, raw)),
        })
    }

    /// Returns the parameters with which the call goes on. `responses`: the answers, by key.
    fn continued(&self, request: &CallerRequest, responses: String) -> JsonText {
        let empty = JsonText::of(&json!({}));
        let mut params = request.params.clone().unwrap_or(empty);
        let former = request.head.request_state.as_ref();
        if let (None, Some(former)) = (&self.state, former) {
            // MCP-5: a state is of one round.
            params = without_member(&params, former);
        }
        let head = ParamsHead::read(&params).unwrap_or_default();
        let mut edits = vec![MemberEdit {
            name: "inputResponses",
            present: head.input_responses.as_ref(),
            value: Bytes::from(responses),
        }];
        if let Some(state) = &self.state {
            edits.push(MemberEdit {
                name: "requestState",
                present: head.request_state.as_ref(),
                value: state.bytes().clone(),
            });
        }
        JsonText::checked(joined(&edited(&params, edits)))
    }
}

impl McpEndpoint {
    /// Asks the user of an older caller for what the server wants, and returns the parameters with
    /// which the call goes on.
    ///
    /// # Errors  The caller cannot be asked, or its user does not answer.
    pub(super) async fn asked_for_input(
        &self,
        request: &CallerRequest,
        result: JsonText,
        (stream, patience): (&Arc<CallerStream>, &mut Duration),
    ) -> Result<JsonText, RpcError> {
        let wanted = if result.bytes().len() > LARGE {
            // MCP-2: a thread of the gateway serves other callers too.
            let read = spawn_blocking(move || WantedInput::read(&result)).await;
            read.ok().flatten()
        } else {
            WantedInput::read(&result)
        };
        let unusable = || {
            let text = format!(
                "the server's questions cannot be read; an object of up to {MAX_QUESTIONS} is allowed"
            );
            of_end(&self.client, UNANSWERED, text)
        };
        let mut wanted = wanted.ok_or_else(unusable)?;
        // MCP-5: no user answers questions of a call that cannot go on.
        let mut refused = wanted.questions.iter();
        if let Some((_, question)) = refused.find(|(_, one)| stream.question_refusal(one).is_some())
        {
            let what = match &question.needs {
                Some(needed) => needed.to_string(),
                None => question.method.chars().take(100).collect(),
            };
            let text =
                format!("the server asks its user ({what}), and this caller cannot be asked");
            return Err(of_end(&self.client, UNANSWERED, text));
        }
        let limit = self.client.server_settings().question_timeout;
        let mut responses = String::from("{");
        for (key, question) in std::mem::take(&mut wanted.questions) {
            // The call at the server is over: its limits bound no user.
            let began = Instant::now();
            let answer = timeout(*patience, stream.ask(question)).await;
            *patience = patience.saturating_sub(began.elapsed());
            let answer = answer.unwrap_or_else(|_| Err(unanswered(limit)))?;
            if responses.len() > 1 {
                responses.push(',');
            }
            responses.push_str(&Value::from(key).to_string());
            responses.push(':');
            responses.push_str(answer.as_str());
        }
        responses.push('}');
        Ok(wanted.continued(request, responses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(questions: usize) -> JsonText {
        let questions = (0..questions).map(|n| format!("\"k{n}\":{{\"method\":\"roots/list\"}}"));
        let questions = questions.collect::<Vec<_>>().join(",");
        let text = format!("{{\"requestState\":\"s\",\"inputRequests\":{{{questions}}}}}");
        JsonText::checked(text.into())
    }

    #[test]
    fn mcp_2_the_questions_of_a_server_are_bounded_and_its_state_is_not_copied() {
        assert!(WantedInput::read(&result(MAX_QUESTIONS + 1)).is_none());
        let asked = result(MAX_QUESTIONS);
        let wanted = WantedInput::read(&asked).unwrap();
        assert_eq!(wanted.questions.len(), MAX_QUESTIONS);
        let state = wanted.state.unwrap();
        assert_eq!(state.as_str(), "\"s\"");
        let whole = asked.bytes().as_ptr_range();
        assert!(whole.contains(&state.bytes().as_ptr()));
    }
}
