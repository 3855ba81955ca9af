//! The general kind of a transport's error, found in the chain of its sources.
//!
//! A kind alone never proves that nothing was sent: only the library that made the error knows that.

use std::error::Error;
use std::io::{self, ErrorKind};

use breakerbox_policy::{Class, Executed, Symptom};

use crate::Verdict;

/// Maximum number of sources that are looked at.
const MAX_DEPTH: usize = 16;

/// Returns an error and its sources, the outermost first.
pub(super) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source()).take(MAX_DEPTH)
}

/// Returns the verdict on an error of a transport: a failure, with a symptom if the chain has one.
pub(super) fn verdict_on(error: &(dyn Error + 'static)) -> Verdict {
    let io = sources(error).filter_map(|error| error.downcast_ref::<io::Error>());
    match io.filter_map(|error| symptom_of(error.kind())).last() {
        // CALL-2: the error may be of another connection than the call's own.
        Some(symptom) => Verdict::from(symptom).executed(Executed::Maybe),
        None => Verdict::from(Class::Failure),
    }
}

fn symptom_of(kind: ErrorKind) -> Option<Symptom> {
    Some(match kind {
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::AddrNotAvailable => Symptom::Connect,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Symptom::Reset,
        ErrorKind::TimedOut => Symptom::Timeout,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_2_a_kind_of_error_does_not_prove_that_nothing_was_sent() {
        let refused = io::Error::from(ErrorKind::ConnectionRefused);
        let verdict = verdict_on(&io::Error::other(refused));
        assert_eq!(verdict.symptom, Some(Symptom::Connect));
        assert_eq!(verdict.executed, Executed::Maybe);
        let verdict = verdict_on(&io::Error::other("it did not work"));
        assert_eq!((verdict.class, verdict.symptom), (Class::Failure, None));
    }
}
