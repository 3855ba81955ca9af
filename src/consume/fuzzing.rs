//! Target for fuzzers: the notes of messages, and headers of publications.

use breakerbox_actors::OutgoingMessage;

use super::{notes, queue_server};

/// Reads notes, and makes the headers of a publication.
pub(crate) fn notes_and_headers(data: &[u8], headers: &[(String, String)]) {
    if let Some(read) = notes::read(data) {
        assert_eq!(notes::read(notes::write(read, "").as_bytes()), Some(read));
    }
    let id = String::from_utf8_lossy(data).into_owned();
    let message = OutgoingMessage::new(id, "answers.a", headers.to_vec(), data);
    if let Some(made) = queue_server::headers_of(&message) {
        for (name, _) in made.iter() {
            let name = name.to_string().to_ascii_lowercase();
            let is_order = name.starts_with("nats-") && name != "nats-msg-id";
            assert!(!is_order, "{name} is an order to the server");
        }
    }
}
