//! The known word that an unknown one probably stands for.

/// Returns the most similar word, if one is similar enough: one edit, and one more for every four
/// bytes of the given word.
pub fn nearest_word<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let limit = 1 + given.len() / 4;
    let near = words.map(|word| (strsim::levenshtein(given, word), word));
    let (distance, word) = near.min()?;
    (distance <= limit).then_some(word)
}
