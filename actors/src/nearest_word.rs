//! The known word that an unknown one probably stands for.

/// Returns the most similar word, if one is similar enough: one edit, and one more for every four
/// bytes of the given word. Capitals are no difference.
pub fn nearest_word<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let limit = 1 + given.len() / 4;
    let lower = given.to_ascii_lowercase();
    let near = words.map(|word| {
        let distance = strsim::osa_distance(&lower, &word.to_ascii_lowercase());
        (distance, word)
    });
    let (distance, word) = near.min()?;
    (distance <= limit).then_some(word)
}

/// Returns `, did you mean WORD?` with the known word that is most similar to an unknown one; an empty
/// text if none is similar enough.
pub fn did_you_mean<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> String {
    let near = nearest_word(given, words.filter(|word| *word != given));
    near.map_or_else(String::new, |near| format!(", did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_1_an_unknown_word_gets_the_most_similar_one_in_any_letters() {
        let said = |given| did_you_mean(given, ["payments", "search"].into_iter());
        assert_eq!(said("paymets"), ", did you mean payments?");
        assert_eq!(said("PAYMENTS"), ", did you mean payments?");
        assert_eq!(said("Serch"), ", did you mean search?");
        assert_eq!(said("weather"), "");
        // Two letters in the wrong order are one mistake.
        assert_eq!(
            did_you_mean("wbe", ["web"].into_iter()),
            ", did you mean web?"
        );
    }
}
