//! Figures of language models: tokens, the times of their content, and the ends of their streams.
//!
//! They are counted by dependency and by the model as its provider names it, never by what callers
//! ask for: callers cannot make up series.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_actors::LatencyBuckets;

use crate::lock::LockExt as _;
use crate::model::AnswerFigures;

/// Maximum number of models that are counted by name; all further ones are `other`.
const MAX_MODELS: usize = 100;

/// Maximum number of characters of a model's name.
const MAX_NAME: usize = 128;

/// Upper bounds of the buckets of times.
const BOUNDS: [Duration; 12] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
];

/// The end of a stream of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ContentEnd {
    /// It has ended as its API ends.
    Good,
    /// An error event has come.
    ErrorEvent,
    /// It ended without the mark of its end.
    Truncated,
    /// No further content came in time.
    Gap,
    /// Its connection broke.
    Cut,
    /// Its caller has left, or a limit of the call was over.
    Cancelled,
}

impl ContentEnd {
    /// All ends.
    pub const ALL: [Self; 6] = [
        Self::Good,
        Self::ErrorEvent,
        Self::Truncated,
        Self::Gap,
        Self::Cut,
        Self::Cancelled,
    ];

    /// The word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::ErrorEvent => "error_event",
            Self::Truncated => "truncated",
            Self::Gap => "gap",
            Self::Cut => "cut",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Figures of one model of a dependency.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelFigures {
    /// The dependency.
    pub dependency: Arc<str>,
    /// The model, as its provider names it; `unknown` where it names none, and `other` above 100.
    pub model: String,
    /// Tokens of prompts, cached ones included.
    pub input: u64,
    /// Tokens of prompts that came from the provider's cache.
    pub cached_input: u64,
    /// Tokens of answers.
    pub output: u64,
    /// Number of streams by their end.
    pub streams: BTreeMap<ContentEnd, u64>,
    /// Times from the start of an attempt to the first content of its stream.
    pub first_token: LatencyBuckets,
    /// The longest wait for content of each stream.
    pub gaps: LatencyBuckets,
}

impl ModelFigures {
    fn of(dependency: &Arc<str>, model: &str) -> Self {
        let buckets = || LatencyBuckets {
            buckets: BOUNDS.iter().map(|bound| (*bound, 0)).collect(),
            ..LatencyBuckets::default()
        };
        Self {
            dependency: Arc::clone(dependency),
            model: model.to_owned(),
            input: 0,
            cached_input: 0,
            output: 0,
            streams: ContentEnd::ALL.map(|end| (end, 0)).into(),
            first_token: buckets(),
            gaps: buckets(),
        }
    }
}

fn take(buckets: &mut LatencyBuckets, span: Duration) {
    for (bound, count) in &mut buckets.buckets {
        *count += u64::from(span <= *bound);
    }
    buckets.count += 1;
    buckets.sum += span;
}

/// Times of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamTimes {
    pub(super) end: ContentEnd,
    /// `None` for a stream without content.
    pub(super) first_token: Option<Duration>,
    pub(super) longest_gap: Duration,
}

/// Figures by dependency and model.
type FigureMap = BTreeMap<(Arc<str>, String), ModelFigures>;

/// The figures of all models of a gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ModelFigureTable(Arc<Mutex<FigureMap>>);

impl ModelFigureTable {
    /// Counts an answer. `stream`: its times, if it was a stream.
    pub(super) fn count(
        &self,
        dependency: &Arc<str>,
        answer: &AnswerFigures,
        stream: Option<StreamTimes>,
    ) {
        let mut table = self.0.acquire();
        let model = answer.model.as_deref().unwrap_or("unknown");
        // LLM-24: nor for the length of a label.
        let model = model.chars().take(MAX_NAME).collect();
        let mut key = (Arc::clone(dependency), model);
        // LLM-24: a provider's names are no limit for the number of series.
        if table.len() >= MAX_MODELS && !table.contains_key(&key) {
            key.1 = "other".to_owned();
        }
        let new = || ModelFigures::of(dependency, &key.1);
        let figures = table.entry(key.clone()).or_insert_with(new);
        let usage = &answer.usage;
        // A provider may say any number.
        figures.input = figures
            .input
            .saturating_add(usage.input.unwrap_or_default());
        figures.cached_input = figures.cached_input.saturating_add(usage.cached_input);
        figures.output = figures
            .output
            .saturating_add(usage.output.unwrap_or_default());
        let Some(times) = stream else {
            return;
        };
        *figures.streams.entry(times.end).or_default() += 1;
        if let Some(first) = times.first_token {
            take(&mut figures.first_token, first);
            take(&mut figures.gaps, times.longest_gap);
        }
    }

    /// Returns all figures, by dependency and model.
    pub(super) fn all(&self) -> Vec<ModelFigures> {
        self.0.acquire().values().cloned().collect()
    }
}
