//! Tokens: the usage of an answer, and the estimate before there is one.
//!
//! Four bytes of text are taken for one token. A tokenizer would be exact for one model only.

use super::Api;

/// Bytes of text that are taken for one token.
const BYTES_PER_TOKEN: u64 = 4;

/// The tokens that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TokenKind {
    /// Input and output together.
    #[default]
    Total,
    /// The tokens of the prompt.
    Input,
    /// The tokens of the answer, reasoning included.
    Output,
}

/// The tokens of an answer, as far as its provider has said them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    pub input: Option<u64>,
    /// Tokens of the prompt that came from the provider's cache.
    pub cached_input: u64,
    /// Tokens of the answer, reasoning included.
    pub output: Option<u64>,
}

impl TokenUsage {
    /// Takes over the counts of a later report.
    pub(super) fn update(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.output = later.output.or(self.output);
        self.cached_input = self.cached_input.max(later.cached_input);
    }

    /// Returns true if the provider has said both counts.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }
}

/// The figures of an answer, whole or streamed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnswerFigures {
    /// The tokens that the provider has reported.
    pub usage: TokenUsage,
    /// The model that has answered, by the provider's word.
    pub model: Option<String>,
    /// Bytes of text in the answer: of its content, without the JSON around it.
    pub content_bytes: u64,
}

/// The tokens that an attempt is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenEstimate {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
}

impl TokenEstimate {
    /// Estimates an attempt. `max_output`: the maximum that the request asks for;
    /// `output_estimate`: taken if it asks for none.
    #[must_use]
    pub fn new(prompt_bytes: u64, max_output: Option<u64>, output_estimate: u64) -> Self {
        Self {
            input: prompt_bytes.div_ceil(BYTES_PER_TOKEN),
            output: max_output.unwrap_or(output_estimate),
        }
    }

    /// Returns the number of tokens to reserve at a limit.
    #[must_use]
    pub const fn reserved(&self, kind: TokenKind) -> u64 {
        // LLM-19: the provider judges by the asked maximum, and so does the reservation.
        count(self.input, self.output, kind)
    }

    /// Returns the number of tokens that the attempt has taken from a limit. Counts that the
    /// provider has not said follow from the estimate and from the bytes that were seen.
    #[must_use]
    pub fn settled(&self, api: Api, figures: &AnswerFigures, kind: TokenKind) -> u64 {
        // LLM-19: an attempt without usage is settled by the bytes that were seen of it.
        let seen = figures.content_bytes.div_ceil(BYTES_PER_TOKEN);
        let input = match figures.usage.input {
            // LLM-20: Anthropic's limits do not count input that is read from its cache.
            Some(input) if api == Api::Anthropic => {
                input.saturating_sub(figures.usage.cached_input)
            }
            Some(input) => input,
            None => self.input,
        };
        count(input, figures.usage.output.unwrap_or(seen), kind)
    }
}

const fn count(input: u64, output: u64, kind: TokenKind) -> u64 {
    match kind {
        TokenKind::Total => input.saturating_add(output),
        TokenKind::Input => input,
        TokenKind::Output => output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llm_19_a_reservation_is_the_prompt_and_the_asked_maximum() {
        let asked = TokenEstimate::new(4_001, Some(500), 1_000);
        assert_eq!((asked.input, asked.output), (1_001, 500));
        assert_eq!(asked.reserved(TokenKind::Total), 1_501);
        assert_eq!(asked.reserved(TokenKind::Input), 1_001);
        let unasked = TokenEstimate::new(0, None, 1_000);
        assert_eq!(unasked.reserved(TokenKind::Output), 1_000);
        let endless = TokenEstimate::new(u64::MAX, Some(u64::MAX), 0);
        assert_eq!(endless.reserved(TokenKind::Total), u64::MAX);
    }

    #[test]
    fn llm_19_an_attempt_is_settled_by_usage_or_by_the_bytes_seen() {
        let estimate = TokenEstimate::new(4_000, None, 1_000);
        let mut figures = AnswerFigures {
            content_bytes: 41,
            ..AnswerFigures::default()
        };
        let settled = |figures: &AnswerFigures| {
            [TokenKind::Total, TokenKind::Input, TokenKind::Output]
                .map(|kind| estimate.settled(Api::OpenAi, figures, kind))
        };
        assert_eq!(settled(&figures), [1_011, 1_000, 11]);
        figures.usage.input = Some(900);
        assert_eq!(
            settled(&figures),
            [911, 900, 11],
            "cut off after the opening"
        );
        figures.usage.output = Some(20);
        assert_eq!(settled(&figures), [920, 900, 20]);
        assert!(figures.usage.is_whole());
    }

    #[test]
    fn llm_20_cached_input_counts_as_the_provider_says() {
        let estimate = TokenEstimate::new(0, None, 0);
        let figures = AnswerFigures {
            usage: TokenUsage {
                input: Some(1_000),
                cached_input: 900,
                output: Some(1),
            },
            ..AnswerFigures::default()
        };
        let of = |api| estimate.settled(api, &figures, TokenKind::Input);
        assert_eq!(of(Api::Anthropic), 100);
        assert_eq!(of(Api::OpenAi), 1_000);
    }
}
