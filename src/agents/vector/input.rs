//! Validation of inputs before any call: an error here is the caller's mistake, and no call.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::provider::{EmbeddingBatch, EmbeddingModel, EmbeddingTask};
use crate::agents::InvalidInput;

/// Maximum number of neighbours in one search.
const MAX_COUNT: u32 = 1_000;

impl EmbeddingBatch {
    /// Creates one request for these texts, if they are within the limits of the model.
    ///
    /// # Errors  A text is empty, or the texts have more tokens than one request may have.
    pub fn of(
        model: &EmbeddingModel,
        texts: &[String],
        task: EmbeddingTask,
    ) -> Result<Self, InvalidInput> {
        if texts.iter().any(|text| text.trim().is_empty()) {
            let allowed = "a text that is not empty";
            return Err(InvalidInput::new("the text", "none", allowed));
        }
        let tokens = texts.iter().map(|text| tokens_of(text));
        let tokens = tokens.fold(0, u32::saturating_add);
        if tokens > model.max_tokens {
            let given = format!("about {tokens} tokens");
            let allowed = format!("{} in one request", model.max_tokens);
            return Err(InvalidInput::new("the text", given, allowed));
        }
        Ok(Self {
            texts: Arc::from(texts),
            task,
            tokens: NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN),
        })
    }

    /// Splits these texts into requests within the limits of the model.
    pub(super) fn split(
        model: &EmbeddingModel,
        texts: &[String],
        task: EmbeddingTask,
    ) -> Result<Vec<Self>, InvalidInput> {
        let max_texts = model.max_texts.max(1);
        let (mut batches, mut begin, mut tokens) = (Vec::new(), 0, 0_u32);
        for (at, text) in texts.iter().enumerate() {
            let more = tokens_of(text);
            let with = tokens.saturating_add(more);
            let full = at - begin == max_texts || with > model.max_tokens;
            if full && at > begin {
                batches.push(Self::of(model, &texts[begin..at], task)?);
                (begin, tokens) = (at, more);
            } else {
                tokens = with;
            }
        }
        if begin < texts.len() {
            batches.push(Self::of(model, &texts[begin..], task)?);
        }
        Ok(batches)
    }
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
    fn item_87_a_batch_has_as_many_texts_as_its_model_takes() {
        let texts = ["a".to_owned(), "b".to_owned()];
        let split = |model: &EmbeddingModel| {
            EmbeddingBatch::split(model, &texts, EmbeddingTask::Document)
                .unwrap()
                .len()
        };
        let one = EmbeddingModel::new("m", 3);
        assert_eq!((split(&one), split(&one.clone().max_texts(2))), (2, 1));
    }
}
