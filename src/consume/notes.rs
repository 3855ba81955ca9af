//! The notes of messages as they are kept in a bucket.

use breakerbox_policy::MessageNotes;

/// Version of the format.
const VERSION: &str = "1";

/// Writes notes: version, returns, failures, and 1 for a mark.
pub(super) fn write(notes: MessageNotes) -> String {
    let MessageNotes {
        returns,
        failures,
        is_marked,
    } = notes;
    let mark = u8::from(is_marked);
    format!("{VERSION} {returns} {failures} {mark}")
}

/// Reads notes. `None`: of another version, or no notes at all.
pub(super) fn read(text: &[u8]) -> Option<MessageNotes> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split(' ');
    if words.next() != Some(VERSION) {
        return None;
    }
    Some(MessageNotes {
        returns: words.next()?.parse().ok()?,
        failures: words.next()?.parse().ok()?,
        is_marked: words.next()? != "0",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_5_notes_are_read_as_they_were_written() {
        let notes = MessageNotes {
            returns: 7,
            failures: 2,
            is_marked: true,
        };
        assert_eq!(read(write(notes).as_bytes()), Some(notes));
        for other in ["", "1", "2 7 2 1", "1 x 2 1", "1 7 2"] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
