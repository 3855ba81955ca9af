//! The state of one stream in its shape, and the reader of its events.

use super::event_facts::EventFacts;
use super::event_splitter::EventData;
use super::{AnswerFigures, ApiShape, anthropic, google, openai};

/// State of a stream.
#[derive(Debug)]
pub(super) struct ShapeState {
    shape: ApiShape,
    choices: ChoiceProgress,
    next_sequence: u64,
}

/// The choices of an answer: those that have begun, and those that have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ChoiceProgress {
    begun: u128,
    ended: u128,
    /// True if the prompt was blocked.
    is_blocked: bool,
}

impl ChoiceProgress {
    /// Records a part of a choice, and its end.
    pub(super) fn record(&mut self, index: u64, is_end: bool) {
        let bit = 1 << index.min(127);
        self.begun |= bit;
        if is_end {
            self.ended |= bit;
        }
    }

    /// Records that there will be none.
    pub(super) fn block(&mut self) {
        self.is_blocked = true;
    }

    /// Returns true if there is a choice, and all have ended.
    pub(super) const fn is_done(&self) -> bool {
        self.begun != 0 && self.begun & !self.ended == 0
    }
}

impl ShapeState {
    pub(super) const fn new(shape: ApiShape) -> Self {
        Self {
            shape,
            choices: ChoiceProgress {
                begun: 0,
                ended: 0,
                is_blocked: false,
            },
            next_sequence: 0,
        }
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.choices.is_blocked
    }

    pub(super) const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Reads an event.
    pub(super) fn read(&mut self, data: EventData<'_>, figures: &mut AnswerFigures) -> EventFacts {
        match self.shape {
            ApiShape::Chat => openai::chat::read(data, &mut self.choices, figures),
            ApiShape::Responses => openai::responses::read(data, &mut self.next_sequence, figures),
            ApiShape::Messages => anthropic::read(data, figures),
            ApiShape::Content | ApiShape::ContentArray => {
                google::read(data, &mut self.choices, figures)
            }
            // No unknown event is held back.
            ApiShape::Other(_) => EventFacts::part(true),
        }
    }
}

/// Returns true if a text has this part.
pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
