//! Embeddings and an index that need nobody: what search falls back on.
//!
//! A local embedding counts words, it does not understand them. It is never sent to an index of a
//! model's embeddings, and no model's embedding is compared with it.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Embedding, Neighbor};

/// The model's name that local embeddings bear.
pub const LOCAL_MODEL: &str = "local";
/// How long local embeddings are, as those of the models that they stand in for.
const DIMENSIONS: usize = 768;

/// The local embedding of a text: its words and pairs of neighbouring words, hashed into 768
/// sums, of length one. The same text has the same one on every machine and in every version.
///
/// Words are runs of letters and digits, in lower case. Each is hashed by FNV-1a (64 bit); the
/// remainder by 768 says where it counts, the highest bit whether up or down. A pair counts half.
/// A text without words has only zeros.
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

/// The cosine of two local embeddings: both are of length one.
fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// A flat index: every text is compared. Below some 50,000 texts nothing is faster than that.
/// Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct LocalIndex {
    texts: Arc<RwLock<Vec<(String, Embedding)>>>,
}

impl LocalIndex {
    /// Puts a text under an id, in place of the one that was there.
    pub fn put(&self, id: &str, text: &str) {
        let embedding = local_embedding(text);
        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        match texts.iter_mut().find(|(known, _)| known == id) {
            Some((_, old)) => *old = embedding,
            None => texts.push((id.to_owned(), embedding)),
        }
    }

    /// The ids of the texts that have most in common with this one, the best first; those that
    /// have nothing in common are left out.
    #[must_use]
    pub fn nearest(&self, text: &str, count: u32) -> Vec<Neighbor> {
        let wanted = local_embedding(text);
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        let scored = texts.iter().map(|(id, embedding)| {
            let score = cosine(&wanted.values, &embedding.values);
            Neighbor::bare(id.clone(), f64::from(score))
        });
        let mut scored: Vec<Neighbor> = scored.filter(|one| one.score > 0.0).collect();
        // Equal scores by id, so that the same question has the same answer.
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
        // Fixed by the first version: kept embeddings of others must stay comparable.
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
