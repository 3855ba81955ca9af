//! Target for fuzzers: the words of other replicas.

use super::board_word::{self as word, BoardKey, BoardWord, ReplicaMessage, UnknownWord};

/// Reads a key and a word: the first line, and the rest.
pub(crate) fn fleet_words(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (key, told) = data.split_at(end.unwrap_or(0));
    let told = told.strip_prefix(b"\n").unwrap_or(told);
    if let Ok(key) = std::str::from_utf8(key)
        && let Some(read) = BoardKey::of(key)
    {
        // A word is taken off under the key that is written: there is one for each meaning.
        assert_eq!(read.text(), key);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=.".contains(&byte);
        assert!(key.bytes().all(is_plain), "{key:?}");
    }
    match word::read::<BoardWord>(told) {
        Ok(read) => assert_eq!(word::read(&word::write(&read)), Ok(read)),
        Err(unknown) => check(&unknown),
    }
    match word::read::<ReplicaMessage>(told) {
        Ok(read) => assert_eq!(word::read(&word::write(&read)), Ok(read)),
        Err(unknown) => check(&unknown),
    }
}

/// Checks that a word that is told to people is short and plain.
fn check(unknown: &UnknownWord) {
    let shown = unknown.to_string();
    assert!(shown.chars().count() < 500, "{shown}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
}
