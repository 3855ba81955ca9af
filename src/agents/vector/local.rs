//! Local embeddings and a local index: the fallbacks of vector search, which need no service.
//!
//! A local embedding counts words, it does not understand them. It is never sent to an index of a
//! model's embeddings, and never compared with a model's embedding.

use std::sync::{Arc, RwLock};

use super::{Embedding, Neighbor};

use crate::lock::RwLockExt as _;

/// Model name of local embeddings.
pub const LOCAL_MODEL: &str = "local";
/// Length of local embeddings, equal to that of the models that they replace.
const DIMENSIONS: usize = 768;

/// Returns the local embedding of a text: its words and pairs of adjacent words, hashed into 768
/// sums and normalised to length one. A text has the same embedding on every machine and in every
/// version.
///
/// Words are runs of letters and digits, in lower case. Each is hashed by FNV-1a (64 bit); the hash
/// modulo 768 selects the sum, and the highest bit the sign. A pair has weight one half. A text
/// without words gives only zeros.
#[must_use]
pub fn local_embedding(text: &str) -> Embedding {
    let text = text.to_lowercase();
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut values = vec![0.0; DIMENSIONS];
    for word in &words {
        count(&mut values, word.bytes(), 1.0);
    }
    for pair in words.windows(2) {
        let bytes = pair[0].bytes().chain([b' ']).chain(pair[1].bytes());
        count(&mut values, bytes, 0.5);
    }
    let length = values
        .iter()
        .map(|value: &f32| value * value)
        .sum::<f32>()
        .sqrt();
    if length > 0.0 {
        for value in &mut values {
            *value /= length;
        }
    }
    Embedding {
        values: Arc::from(values),
        model: Arc::from(LOCAL_MODEL),
        truncated: false,
    }
}

fn count(values: &mut [f32], bytes: impl Iterator<Item = u8>, weight: f32) {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let place = usize::try_from(hash % (DIMENSIONS as u64)).unwrap_or_default();
    values[place] += if hash >> 63 == 0 { weight } else { -weight };
}

/// Returns the cosine of two local embeddings, both of length one.
fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// A flat index: a search compares every text. Below about 50,000 texts nothing is faster. Cheap to
/// clone; all clones share one index.
#[derive(Debug, Clone, Default)]
pub struct LocalIndex {
    texts: Arc<RwLock<Vec<(String, Embedding)>>>,
}

impl LocalIndex {
    /// Stores a text under an id, in place of an earlier one.
    pub fn put(&self, id: &str, text: &str) {
        let embedding = local_embedding(text);
        let mut texts = self.texts.acquire_write();
        match texts.iter_mut().find(|(known, _)| known == id) {
            Some((_, old)) => *old = embedding,
            None => texts.push((id.to_owned(), embedding)),
        }
    }

    /// Returns the ids of the texts that have most in common with this one, the best first. Texts
    /// with nothing in common are left out.
    #[must_use]
    pub fn nearest(&self, text: &str, count: u32) -> Vec<Neighbor> {
        let wanted = local_embedding(text);
        let texts = self.texts.acquire_read();
        let scored = texts.iter().map(|(id, embedding)| {
            let score = cosine(&wanted.values, &embedding.values);
            Neighbor::bare(id.clone(), f64::from(score))
        });
        let mut scored: Vec<Neighbor> = scored.filter(|one| one.score > 0.0).collect();
        // Equal scores are sorted by id, so that the same query has the same result.
        scored.sort_by(|one, other| {
            let by_score = other.score.total_cmp(&one.score);
            by_score.then_with(|| one.id.cmp(&other.id))
        });
        scored.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        scored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_49_a_local_embedding_is_the_same_everywhere() {
        let one = local_embedding("Rust actors, supervised");
        assert_eq!(one, local_embedding("rust ACTORS supervised!"));
        assert_eq!(one.values.len(), 768);
        // Fixed since the first version: stored embeddings must stay comparable.
        let places: Vec<usize> = (0..768).filter(|at| one.values[*at] != 0.0).collect();
        assert_eq!(places, [295, 299, 319, 667, 747]);
        let length: f32 = one.values.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        assert!(
            local_embedding(" ... ")
                .values
                .iter()
                .all(|value| *value == 0.0)
        );
    }

    #[test]
    fn item_49_the_text_with_most_in_common_comes_first() {
        let index = LocalIndex::default();
        index.put("a", "circuit breakers open after failures");
        index.put("b", "supervisors restart actors after failures");
        index.put("c", "cooking pasta");
        let found = index.nearest("who restarts actors after failures", 10);
        let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids[..2], ["b", "a"]);
        assert!(found.windows(2).all(|two| two[0].score >= two[1].score));
        assert_eq!(index.nearest("actors", 1).len(), 1);
        index.put("b", "pasta");
        assert_eq!(
            index.nearest("pasta", 1)[0].id,
            "b",
            "a shorter text, replaced"
        );
    }
}
