//! The dialects of language models, by their names in a configuration.

use std::fmt;
#[cfg(feature = "model")]
use std::str::FromStr;

/// A dialect: the shape of an interface, not the company behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Api {
    /// OpenAI's Chat Completions and Responses, as many providers serve them.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's `generateContent` and `streamGenerateContent`.
    Google,
}

impl Api {
    /// All dialects.
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Anthropic, Self::Google];

    /// Returns the name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A name that no dialect has.
#[cfg(feature = "model")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("api: given {0:?}, allowed openai, anthropic, google")]
pub struct UnknownApi(String);

#[cfg(feature = "model")]
impl FromStr for Api {
    type Err = UnknownApi;

    fn from_str(text: &str) -> Result<Self, UnknownApi> {
        let known = Self::ALL.into_iter().find(|api| api.name() == text);
        known.ok_or_else(|| UnknownApi(text.to_owned()))
    }
}
