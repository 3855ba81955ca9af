//! Faults of an answer, told from the bytes that came and from the error of the connection.

use std::error::Error;
use std::io;

use http::{Method, StatusCode};

/// A mark of answers that say only that the server does not know the request's method.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeclinedMethod;

impl DeclinedMethod {
    /// Returns the mark of an answer that has this status. A server has to know GET and HEAD (RFC 9110,
    /// section 9.1), and POST is what services are called by.
    pub(super) fn of(method: &Method, status: StatusCode) -> Option<Self> {
        let is_known = matches!(*method, Method::GET | Method::HEAD | Method::POST);
        (status == StatusCode::NOT_IMPLEMENTED && !is_known).then_some(Self)
    }
}

/// The fault of an answer that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerFault {
    /// The server closed the connection before any byte of an answer.
    Closed,
    /// The answer ended within its head.
    HeadCut,
    /// The first bytes belong to TLS.
    Tls,
    /// The server speaks HTTP/2 where HTTP/1.1 was spoken.
    Http2,
    /// The server speaks HTTP/1.1 where HTTP/2 was spoken.
    Http1,
    /// The first bytes are no HTTP.
    NotHttp,
    /// The head is no valid HTTP.
    BadHead,
    /// The head has too many lines, or is too long.
    LongHead,
    /// The head by HTTP/2 is too long, or not valid.
    Http2Head,
    /// The lengths in the head are not one number.
    Lengths,
    /// The transfer coding is not known.
    Coding,
    /// The body ended before its end.
    BodyCut,
    /// The chunks of the body are not valid.
    Chunks,
    /// The protocol was changed without being asked for.
    Upgrade,
}

/// The protocol of the first bytes that a server has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstBytes {
    /// None came.
    None,
    Http1,
    Http2,
    Tls,
    Other,
}

impl FirstBytes {
    /// Tells the protocol by the first bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::None,
            [b'H', ..] => Self::Http1,
            // A handshake or an alert, of any version.
            [0x15 | 0x16, 3, ..] | [0x15 | 0x16] => Self::Tls,
            // The settings of a server come first, if it does not leave at once. A read may bring a part.
            [0, _, _, 4 | 7, ..] | [0] | [0, _] | [0, _, _] => Self::Http2,
            _ => Self::Other,
        }
    }
}

impl AnswerFault {
    /// Returns the fault of a request over HTTP/1.1 without an answer; `None` if the connection was
    /// reset.
    pub(super) fn of(first: FirstBytes, error: &(dyn Error + 'static)) -> Option<Self> {
        // EDGE-8: what came says more than the error does.
        match first {
            FirstBytes::Tls => return Some(Self::Tls),
            FirstBytes::Http2 => return Some(Self::Http2),
            FirstBytes::Other => return Some(Self::NotHttp),
            FirstBytes::None | FirstBytes::Http1 => {}
        }
        if is_reset(error) {
            return None;
        }
        let hyper = find::<hyper::Error>(error);
        match hyper {
            Some(hyper) if hyper.is_parse_too_large() => Some(Self::LongHead),
            Some(hyper) if hyper.is_parse() => {
                // No other interface tells them apart.
                let is_length = hyper.to_string().contains("content-length");
                Some(if is_length {
                    Self::Lengths
                } else {
                    Self::BadHead
                })
            }
            _ if first == FirstBytes::None => Some(Self::Closed),
            _ => Some(Self::HeadCut),
        }
    }

    /// Returns the fault of first bytes that are not HTTP/2, on a connection on which that was spoken.
    pub(super) fn in_place_of_http2(first: FirstBytes) -> Option<Self> {
        match first {
            FirstBytes::Http1 => Some(Self::Http1),
            FirstBytes::Tls => Some(Self::Tls),
            FirstBytes::Other => Some(Self::NotHttp),
            FirstBytes::None | FirstBytes::Http2 => None,
        }
    }

    /// Returns the fault of a body that broke off; `None` if the connection was reset.
    pub(crate) fn of_body(error: &(dyn Error + 'static)) -> Option<Self> {
        if is_reset(error) {
            return None;
        }
        match find::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Some(Self::Chunks),
            Some(io::ErrorKind::UnexpectedEof) => Some(Self::BodyCut),
            Some(_) => None,
            None => {
                let hyper = find::<hyper::Error>(error);
                hyper
                    .is_some_and(hyper::Error::is_incomplete_message)
                    .then_some(Self::BodyCut)
            }
        }
    }

    /// The cause in a few words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Closed => "closed without an answer",
            Self::HeadCut => "response cut off within its head",
            Self::Tls => "TLS where HTTP was expected, see https:// in the url",
            Self::Http2 => "HTTP/2 where HTTP/1.1 was expected, see http_version",
            Self::Http1 => "HTTP/1.1 where HTTP/2 was expected, see http_version",
            Self::NotHttp => "not HTTP",
            Self::BadHead => "response head not valid HTTP",
            Self::LongHead => "response head with too many lines or too long",
            Self::Http2Head => "response head too long or not valid HTTP/2",
            Self::Lengths => "response with a content-length that is not one number",
            Self::Coding => "response in an unknown transfer coding",
            Self::BodyCut => "response body cut off",
            Self::Chunks => "response body with invalid chunks",
            Self::Upgrade => "protocol changed unasked",
        }
    }
}

fn is_reset(error: &(dyn Error + 'static)) -> bool {
    find::<io::Error>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        )
    })
}

/// Finds an error of a type among an error and its sources.
pub(super) fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_8_f6_the_first_bytes_tell_the_protocol() {
        for (bytes, first) in [
            (&b""[..], FirstBytes::None),
            (b"HTTP/1.1 200", FirstBytes::Http1),
            (&[0x15, 3, 1, 0, 2], FirstBytes::Tls),
            (&[0, 0, 18, 4, 0], FirstBytes::Http2),
            (&[0, 0], FirstBytes::Http2),
            (b"SSH-2.0", FirstBytes::Other),
        ] {
            assert_eq!(FirstBytes::of(bytes), first, "{bytes:?}");
        }
    }

    #[test]
    fn edge_8_f6_a_reset_is_told_apart_from_an_end() {
        let of = |kind: io::ErrorKind| AnswerFault::of_body(&io::Error::from(kind));
        assert_eq!(of(io::ErrorKind::ConnectionReset), None);
        assert_eq!(of(io::ErrorKind::UnexpectedEof), Some(AnswerFault::BodyCut));
        assert_eq!(of(io::ErrorKind::InvalidInput), Some(AnswerFault::Chunks));
        let end = io::Error::from(io::ErrorKind::UnexpectedEof);
        let of = |first| AnswerFault::of(first, &end);
        assert_eq!(of(FirstBytes::None), Some(AnswerFault::Closed));
        assert_eq!(of(FirstBytes::Http1), Some(AnswerFault::HeadCut));
        assert_eq!(of(FirstBytes::Tls), Some(AnswerFault::Tls));
    }
}
