//! What the expansion of `#[protected]` calls. Not part of the public interface: it may change
//! with any version of the attribute.

use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::call;
use crate::closures::AnyClient;
use crate::dependency::Verdict;
use crate::error::CallError;

pub use crate::call::{CallOptions, Patience, Unanswered};
pub use crate::site::{Collected, Site};
pub use breakerbox_policy::Priority;
pub use inventory;

/// What a function returns, and what its callers get.
#[diagnostic::on_unimplemented(
    message = "a function under `protected` must return a `Result`, and `{Self}` is none",
    label = "not a `Result`"
)]
pub trait Outcome {
    /// The same with the ways in which a call can end besides.
    type Protected;
}

impl<T, E> Outcome for Result<T, E> {
    type Protected = Result<T, CallError<E>>;
}

/// Work that is there once. Without `idempotent` nothing asks for it twice.
pub fn once<F>(work: F) -> impl FnMut() -> F {
    let mut work = Some(work);
    move || {
        let work = work.take();
        work.expect("by rule CALL-7 only idempotent work is begun again")
    }
}

/// An argument for one more attempt, or for the fallback.
pub fn copy<T: Clone>(argument: &T) -> T {
    argument.clone()
}

/// The key of a call.
pub fn key(key: &(impl AsRef<str> + ?Sized)) -> Option<Arc<str>> {
    Some(Arc::from(key.as_ref()))
}

/// The weight of a call; it has one at least.
#[must_use]
pub fn weight(weight: u32) -> Option<NonZeroU32> {
    Some(NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN))
}

/// What a result counts for that nobody judges.
pub fn by_result<T, E>(result: &Result<T, E>) -> Verdict {
    Verdict::by_result(result)
}

/// The function's own judge of its results; `R` tells a closure what it is given.
pub fn judge<R, V: Into<Verdict>>(
    _: PhantomData<R>,
    judge: impl Fn(&R) -> V,
) -> impl Fn(&R) -> Verdict {
    move |result| judge(result).into()
}

/// Runs the work; without an answer its fallback is asked next.
///
/// # Errors  No answer, and no ending in the books yet.
pub fn run_to_stand_in<T, E, F>(
    client: &AnyClient,
    options: CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    work: impl FnMut() -> F,
) -> impl Future<Output = Result<T, Unanswered<'_, E>>>
where
    F: Future<Output = Result<T, E>>,
{
    call::run_to_stand_in(&client.shared, options, classify, work)
}

/// A fallback that takes the arguments alone.
#[derive(Debug)]
pub struct Alone;

/// A fallback that takes the arguments, and why it is asked.
#[derive(Debug)]
pub struct WithWhy;

/// A function that can stand in for one with the arguments `A`; `Kind` says what else it takes.
#[diagnostic::on_unimplemented(
    message = "this fallback does not take the arguments of the function it stands in for",
    label = "must take the same arguments, and `&CallError<_>` after them if it wants to know why"
)]
pub trait StandIn<A, W, Kind> {
    /// Its future.
    type Answer;
    /// Has it begin.
    fn ask(self, arguments: A, why: W) -> Self::Answer;
}

/// Asks a fallback.
pub fn stand_in<F, A, W, Kind>(fallback: F, arguments: A, why: W) -> F::Answer
where
    F: StandIn<A, W, Kind>,
{
    fallback.ask(arguments, why)
}

macro_rules! stand_ins {
    ($(($($argument:ident $value:ident),*))*) => {$(
        impl<F, R, W, $($argument),*> StandIn<($($argument,)*), W, Alone> for F
        where
            F: FnOnce($($argument),*) -> R,
        {
            type Answer = R;
            fn ask(self, ($($value,)*): ($($argument,)*), _: W) -> R {
                self($($value),*)
            }
        }

        impl<F, R, W, $($argument),*> StandIn<($($argument,)*), W, WithWhy> for F
        where
            F: FnOnce($($argument,)* W) -> R,
        {
            type Answer = R;
            fn ask(self, ($($value,)*): ($($argument,)*), why: W) -> R {
                self($($value,)* why)
            }
        }
    )*};
}

stand_ins! {
    ()
    (A a)
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, G g)
    (A a, B b, C c, D d, E e, G g, H h)
    (A a, B b, C c, D d, E e, G g, H h, I i)
}
