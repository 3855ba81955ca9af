//! The facts of one event of a stream, the same in all dialects.

/// The facts of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventFacts {
    /// A ping, or an event that cannot be read.
    Nothing,
    /// A part of the answer.
    Part {
        /// True if it brings content.
        has_content: bool,
        /// True if the answer has ended as its shape ends.
        is_end: bool,
    },
    /// The mark of the stream's end before the answer has ended.
    CutOff,
    /// The provider's error.
    Failed,
}

impl EventFacts {
    /// A part without content.
    pub(super) const OPENING: Self = Self::part(false);

    /// The good end.
    pub(super) const END: Self = Self::Part {
        has_content: false,
        is_end: true,
    };

    pub(super) const fn part(has_content: bool) -> Self {
        Self::Part {
            has_content,
            is_end: false,
        }
    }
}
