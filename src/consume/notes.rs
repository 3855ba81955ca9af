//! The notes of messages as they are kept in a bucket.

use breakerbox_policy::{DeadReason, Executed, MessageNotes, NotedWork};

/// Version of the format.
const VERSION: &str = "1";

/// Writes notes: version, returns, failures, how far the work has come, and who wrote them.
pub(super) fn write(notes: MessageNotes, holder: &str) -> String {
    let MessageNotes {
        returns,
        failures,
        work,
    } = notes;
    // An older version takes all but 0 for work that may have been done.
    let work = match work {
        NotedWork::NotBegun => "0".to_owned(),
        NotedWork::Begun => "1".to_owned(),
        NotedWork::Answered => "2".to_owned(),
        NotedWork::Dead(reason, executed) => format!("3:{reason}:{executed}"),
    };
    format!("{VERSION} {returns} {failures} {work} {holder}")
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
        work: match words.next()? {
            "0" => NotedWork::NotBegun,
            "2" => NotedWork::Answered,
            word => dead(word).unwrap_or(NotedWork::Begun),
        },
    })
}

/// Reads the end of a message without a dead letter.
fn dead(word: &str) -> Option<NotedWork> {
    let (reason, executed) = word.strip_prefix("3:")?.split_once(':')?;
    let reason = DeadReason::ALL
        .into_iter()
        .find(|one| one.as_str() == reason)?;
    let all = [Executed::No, Executed::Maybe, Executed::Yes];
    let executed = all.into_iter().find(|one| one.to_string() == executed)?;
    Some(NotedWork::Dead(reason, executed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_5_notes_are_read_as_they_were_written() {
        let dead = DeadReason::ALL.map(|reason| NotedWork::Dead(reason, Executed::Yes));
        let others = [NotedWork::NotBegun, NotedWork::Begun, NotedWork::Answered];
        for work in dead.into_iter().chain(others) {
            let notes = MessageNotes {
                returns: 7,
                failures: 2,
                work,
            };
            let text = write(notes, "here");
            assert_eq!(read(text.as_bytes()), Some(notes));
        }
        let earlier = read(b"1 0 0 1").unwrap();
        assert_eq!(
            earlier.work,
            NotedWork::Begun,
            "as an earlier version wrote it"
        );
        for other in ["", "1", "2 7 2 1", "1 x 2 1", "1 7 2"] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
