//! Validation of inputs before any call: an error here is the caller's mistake, and no call.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::config::VectorConfig;
use super::service::Texts;
use crate::agents::InvalidInput;

/// Maximum number of neighbours in one search.
const MAX_COUNT: u32 = 1_000;

impl Texts {
    /// Creates one request for these texts, if they are within its limits.
    pub(super) fn of(
        config: &VectorConfig,
        texts: &[String],
        task: &'static str,
    ) -> Result<Self, InvalidInput> {
        if texts.iter().any(|text| text.trim().is_empty()) {
            let allowed = "a text that is not empty";
            return Err(InvalidInput::new("the text", "none", allowed));
        }
        let tokens = texts.iter().map(|text| tokens_of(text));
        let tokens = tokens.fold(0, u32::saturating_add);
        if tokens > config.max_tokens {
            let given = format!("about {tokens} tokens");
            let allowed = format!("{} in one request", config.max_tokens);
            return Err(InvalidInput::new("the text", given, allowed));
        }
        Ok(Self {
            texts: Arc::from(texts),
            task,
            tokens: NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN),
        })
    }

    /// Splits these texts into requests within the limits.
    pub(super) fn batches(
        config: &VectorConfig,
        texts: &[String],
        task: &'static str,
    ) -> Result<Vec<Self>, InvalidInput> {
        let max_texts = max_texts(config);
        let (mut batches, mut begin, mut tokens) = (Vec::new(), 0, 0_u32);
        for (at, text) in texts.iter().enumerate() {
            let more = tokens_of(text);
            let with = tokens.saturating_add(more);
            let full = at - begin == max_texts || with > config.max_tokens;
            if full && at > begin {
                batches.push(Self::of(config, &texts[begin..at], task)?);
                (begin, tokens) = (at, more);
            } else {
                tokens = with;
            }
        }
        if begin < texts.len() {
            batches.push(Self::of(config, &texts[begin..], task)?);
        }
        Ok(batches)
    }
}

/// Returns the maximum number of texts in one request. Google's pages disagree on the number for
/// `gemini-` models; it is one.
fn max_texts(config: &VectorConfig) -> usize {
    if config.model.starts_with("gemini-") {
        return 1;
    }
    config.max_texts.max(1)
}

/// Estimates the tokens of a text: one per four ASCII characters, one per other character.
fn tokens_of(text: &str) -> u32 {
    let ascii = text.chars().filter(char::is_ascii).count();
    let others = text.chars().count() - ascii;
    let tokens = u32::try_from(ascii.div_ceil(4) + others);
    tokens.unwrap_or(u32::MAX).max(1)
}

pub(super) fn check_count(count: u32) -> Result<u32, InvalidInput> {
    if count == 0 || count > MAX_COUNT {
        let allowed = format!("1 to {MAX_COUNT}");
        let what = "the number of neighbours";
        return Err(InvalidInput::new(what, count.to_string(), allowed));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_87_a_token_is_four_letters_of_ascii_or_one_other_letter() {
        let cases = [("", 1), ("abcd", 1), ("abcde", 2), ("日本語", 3), ("aé", 2)];
        for (text, tokens) in cases {
            assert_eq!(tokens_of(text), tokens, "{text}");
        }
    }

    #[test]
    fn item_87_a_gemini_model_takes_one_text() {
        let config = VectorConfig {
            model: "gemini-embedding-001".to_owned(),
            ..VectorConfig::default()
        };
        let texts = ["a".to_owned(), "b".to_owned()];
        assert_eq!(Texts::batches(&config, &texts, "TASK").unwrap().len(), 2);
        let usual = VectorConfig::default();
        assert_eq!(Texts::batches(&usual, &texts, "TASK").unwrap().len(), 1);
    }
}
