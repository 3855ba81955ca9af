//! Metrics of language models. No prompt, answer or key is a label.

use super::series::SeriesFamily;
use crate::gateway::{ModelFigures, ReservedTokens};

/// Returns the families of all models.
pub(super) fn families(models: &[ModelFigures], limits: &[ReservedTokens]) -> [SeriesFamily; 5] {
    let mut tokens = SeriesFamily::counter(
        "breakerbox_model_tokens_total",
        "Tokens of models, as their providers count them.",
    );
    let mut first = SeriesFamily::histogram(
        "breakerbox_model_time_to_first_token_seconds",
        "Time from the start of an attempt to the first content of its stream.",
    );
    let mut gaps = SeriesFamily::histogram(
        "breakerbox_model_gap_seconds",
        "Longest wait for content of each stream.",
    );
    let mut streams = SeriesFamily::counter(
        "breakerbox_model_streams_total",
        "Streams of models, by their end.",
    );
    for one in models {
        let name = [("dependency", &*one.dependency), ("model", &*one.model)];
        let [dependency, model] = name;
        let kinds = [
            ("input", one.input),
            ("cached_input", one.cached_input),
            ("output", one.output),
        ];
        for (kind, count) in kinds {
            tokens.add(&[dependency, model, ("kind", kind)], count);
        }
        for (end, count) in &one.streams {
            streams.add(&[dependency, model, ("end", end.word())], *count);
        }
        if one.first_token.count > 0 {
            first.add_histogram(&name, &one.first_token);
            gaps.add_histogram(&name, &one.gaps);
        }
    }
    let mut reserved = SeriesFamily::gauge(
        "breakerbox_token_limit_reserved",
        "Tokens that attempts hold at a limit, until they are settled.",
    );
    for limit in limits {
        let labels = [("dependency", &*limit.dependency), ("of", limit.of.word())];
        reserved.add(&labels, limit.reserved);
    }
    [tokens, first, gaps, streams, reserved]
}
