//! Local embeddings and a local index: the fallbacks of vector search, which need no service.
//!
//! A local embedding counts words, it does not understand them. It is never sent to an index of a
//! model's embeddings, and never compared with a model's embedding.

use std::collections::HashMap;
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
    // In single precision, as in the first version: the values stay the same to the last bit.
    let length = dot(&values, &values).sqrt();
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

/// Returns the dot product of two vectors: the cosine, if both have the norm one.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// A flat index: a search compares every text. Below about 50,000 texts nothing is faster. Cheap to
/// clone; all clones share one index.
#[derive(Debug, Clone, Default)]
pub struct LocalIndex {
    entries: Arc<RwLock<HashMap<String, LocalEntry>>>,
}

/// The local embedding of a text, and its vector of a model, each where known.
#[derive(Debug, Clone, Default)]
struct LocalEntry {
    words: Option<Embedding>,
    vector: Option<Embedding>,
}

impl LocalIndex {
    /// Stores a text under an id, in place of an earlier one. A vector of the earlier text is
    /// removed with it.
    pub fn put(&self, id: &str, text: &str) {
        let entry = LocalEntry {
            words: Some(local_embedding(text)),
            vector: None,
        };
        self.entries.acquire_write().insert(id.to_owned(), entry);
    }

    /// Stores a vector of a model under an id, beside its text.
    pub fn put_vector(&self, id: &str, vector: Embedding) {
        let mut entries = self.entries.acquire_write();
        entries.entry(id.to_owned()).or_default().vector = Some(vector);
    }

    /// Removes the text and the vector of an id.
    pub fn remove(&self, id: &str) {
        self.entries.acquire_write().remove(id);
    }

    /// Returns the ids of the texts that have most in common with this one, the best first. Texts
    /// with nothing in common are left out.
    #[must_use]
    pub fn nearest(&self, text: &str, count: u32) -> Vec<Neighbor> {
        let wanted = local_embedding(text);
        let entries = self.entries.acquire_read();
        let words = entries
            .iter()
            .filter_map(|(id, entry)| Some((id, entry.words.as_ref()?)));
        let scored = words.map(|(id, words)| {
            let score = dot(&wanted.values, &words.values);
            Neighbor::new(id.clone(), f64::from(score))
        });
        best(scored.filter(|one| one.score > 0.0).collect(), count)
    }

    /// Returns the ids with the vectors that are nearest to this one by their cosine, the best
    /// first. Only vectors of the same model and length are compared.
    #[must_use]
    pub fn nearest_vector(&self, wanted: &Embedding, count: u32) -> Vec<Neighbor> {
        let norm = |values: &[f32]| dot(values, values).sqrt();
        let own = norm(&wanted.values);
        let entries = self.entries.acquire_read();
        let vectors = entries
            .iter()
            .filter_map(|(id, entry)| Some((id, entry.comparable(wanted)?)));
        let scored = vectors.map(|(id, vector)| {
            let norms = own * norm(&vector.values);
            let cosine = dot(&wanted.values, &vector.values) / norms.max(f32::MIN_POSITIVE);
            Neighbor::new(id.clone(), f64::from(cosine))
        });
        best(scored.collect(), count)
    }

    /// Returns true if it has entries, and each has a vector that is comparable with this one.
    pub(super) fn covers(&self, wanted: &Embedding) -> bool {
        let entries = self.entries.acquire_read();
        let mut all = entries.values();
        !entries.is_empty() && all.all(|entry| entry.comparable(wanted).is_some())
    }
}

impl LocalEntry {
    fn comparable(&self, wanted: &Embedding) -> Option<&Embedding> {
        let vector = self.vector.as_ref();
        vector.filter(|one| one.model == wanted.model && one.values.len() == wanted.values.len())
    }
}

/// Sorts by score, the best first. Equal scores are sorted by id, so that the same query has the
/// same result.
fn best(mut scored: Vec<Neighbor>, count: u32) -> Vec<Neighbor> {
    scored.sort_by(|one, other| {
        let by_score = other.score.total_cmp(&one.score);
        by_score.then_with(|| one.id.cmp(&other.id))
    });
    scored.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    scored
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

    #[test]
    fn agents_the_local_index_is_searched_by_vector_too() {
        let index = LocalIndex::default();
        let vector = |values: [f32; 2], model: &str| Embedding {
            values: Arc::from(values),
            model: Arc::from(model),
            truncated: false,
        };
        index.put("a", "pasta");
        index.put_vector("a", vector([2.0, 0.0], "m"));
        index.put_vector("b", vector([1.0, 1.0], "m"));
        let wanted = vector([1.0, 0.2], "m");
        let found = index.nearest_vector(&wanted, 5);
        let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(
            found[0].score > 0.98 && found[0].score <= 1.0,
            "{}",
            found[0].score
        );
        assert!(index.covers(&wanted));
        assert_eq!(index.nearest_vector(&vector([1.0, 0.2], "other"), 5), []);
        index.put("a", "another text");
        assert!(!index.covers(&wanted), "the vector was of the earlier text");
        index.remove("a");
        assert_eq!(index.nearest("text", 5), []);
    }
}
