//! The dialects and the shapes of their answers, told by the path of a request.

pub use crate::model_api::{Api, UnknownApi};

/// The shape of an operation's answers and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiShape {
    /// OpenAI's Chat Completions, and the older Completions.
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Google's `generateContent` and `streamGenerateContent?alt=sse`.
    Content,
    /// Google's `streamGenerateContent` without `alt=sse`: one JSON array, sent in parts.
    ContentArray,
    /// An operation that generates nothing, such as a list of models, or an unknown one. Its
    /// answers are judged by their status and error, and nothing is held back.
    Other(Api),
}

impl ApiShape {
    /// Returns the shape of a request's answers. `target`: the path with its query, with or without
    /// the part before the operation.
    #[must_use]
    pub fn of(api: Api, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.trim_end_matches('/');
        match api {
            Api::OpenAi if path.ends_with("/completions") => Self::Chat,
            Api::OpenAi if path.ends_with("/responses") => Self::Responses,
            Api::Anthropic if path.ends_with("/messages") => Self::Messages,
            Api::Google => match path.rsplit_once(':') {
                Some((_, "generateContent")) => Self::Content,
                Some((_, "streamGenerateContent")) => {
                    let is_alt = |part| matches!(part, "alt=sse" | "$alt=sse" | "%24alt=sse");
                    let is_sse = query.split('&').any(is_alt);
                    if is_sse {
                        Self::Content
                    } else {
                        Self::ContentArray
                    }
                }
                _ => Self::Other(api),
            },
            _ => Self::Other(api),
        }
    }

    /// Returns the dialect.
    #[must_use]
    pub const fn api(self) -> Api {
        match self {
            Self::Chat | Self::Responses => Api::OpenAi,
            Self::Messages => Api::Anthropic,
            Self::Content | Self::ContentArray => Api::Google,
            Self::Other(api) => api,
        }
    }

    /// Returns true if the operation generates an answer of a model.
    #[must_use]
    pub const fn is_generating(self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

/// The shape of the dialect's first operation, for programs that know no paths.
impl From<Api> for ApiShape {
    fn from(api: Api) -> Self {
        match api {
            Api::OpenAi => Self::Chat,
            Api::Anthropic => Self::Messages,
            Api::Google => Self::Content,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llm_1_the_path_tells_the_shape() {
        for (api, target, shape) in [
            (Api::OpenAi, "/v1/chat/completions", ApiShape::Chat),
            (Api::OpenAi, "/chat/completions/", ApiShape::Chat),
            (Api::OpenAi, "/openai/v1/responses?a=b", ApiShape::Responses),
            (Api::OpenAi, "/v1/models", ApiShape::Other(Api::OpenAi)),
            (
                Api::OpenAi,
                "/v1/responses/resp_1",
                ApiShape::Other(Api::OpenAi),
            ),
            (Api::Anthropic, "/v1/messages", ApiShape::Messages),
            (
                Api::Anthropic,
                "/v1/messages/count_tokens",
                ApiShape::Other(Api::Anthropic),
            ),
            (
                Api::Google,
                "/v1beta/models/g:generateContent?key=k",
                ApiShape::Content,
            ),
            (
                Api::Google,
                "/v1beta/models/g:streamGenerateContent?alt=sse",
                ApiShape::Content,
            ),
            (
                Api::Google,
                "/v1beta/models/g:streamGenerateContent",
                ApiShape::ContentArray,
            ),
            (Api::Google, "/v1beta/models", ApiShape::Other(Api::Google)),
        ] {
            assert_eq!(ApiShape::of(api, target), shape, "{target}");
            assert_eq!(shape.api(), api);
        }
        for api in Api::ALL {
            assert_eq!(api.name().parse(), Ok(api));
        }
        let unknown = "gpt".parse::<Api>().unwrap_err().to_string();
        assert!(unknown.contains("allowed openai"), "{unknown}");
    }
}
