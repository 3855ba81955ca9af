//! Functions called by the expansion of `#[protected]`. Not part of the public interface: they may
//! change with any version of the attribute.

pub(crate) mod call_site;

use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::call;
use crate::error::CallError;
use crate::runtime::closures::AnyClient;
use crate::verdict::Verdict;

pub use crate::call::{Patience, Unanswered};
pub use crate::call_options::CallOptions;
pub use breakerbox_policy::Priority;
pub use call_site::{CallSite, CollectedSite};
pub use inventory;

/// The return type of a function, and the type that its callers get.
#[diagnostic::on_unimplemented(
    message = "a function under `protected` must return a `Result`, and `{Self}` is none",
    label = "not a `Result`"
)]
pub trait ProtectedReturn {
    /// The same result, with the other ways in which a call can end.
    type Protected;
}

impl<T, E> ProtectedReturn for Result<T, E> {
    type Protected = Result<T, CallError<E>>;
}

/// Wraps work that can run only once. Without `idempotent` it is never started twice.
pub fn once<F>(work: F) -> impl FnMut() -> F {
    let mut work = Some(work);
    move || {
        let work = work.take();
        work.expect("by rule CALL-7 only idempotent work is begun again")
    }
}

/// An argument that each attempt, and the fallback, gets a copy of.
#[diagnostic::on_unimplemented(
    message = "an argument of type `{Self}` cannot be copied for another attempt or for the fallback",
    label = "`{Self}` is not `Clone`",
    note = "derive `Clone` for it, put it behind an `Arc`, or take it as `&{Self}` or \
            `&mut {Self}`; without `idempotent` and `fallback` no copy is needed"
)]
pub trait CopiedArgument: Sized {
    /// Returns a copy.
    fn copied(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Clone> CopiedArgument for T {
    fn copied(&self) -> Self {
        self.clone()
    }
}

/// Clones an argument for one more attempt, or for the fallback.
pub fn copy<T: CopiedArgument>(argument: &T) -> T {
    argument.copied()
}

/// Converts the key of a call.
pub fn key(key: &(impl AsRef<str> + ?Sized)) -> Option<Arc<str>> {
    Some(Arc::from(key.as_ref()))
}

/// Converts the weight of a call; the minimum is 1.
#[must_use]
pub fn weight(weight: u32) -> Option<NonZeroU32> {
    Some(NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN))
}

/// Classifies a result without a classifier of the function's own.
pub fn by_result<T, E>(result: &Result<T, E>) -> Verdict {
    Verdict::by_result(result)
}

/// Adapts the function's own classifier; `R` gives a closure its parameter type.
pub fn judge<R, V: Into<Verdict>>(
    _: PhantomData<R>,
    judge: impl Fn(&R) -> V,
) -> impl Fn(&R) -> Verdict {
    move |result| judge(result).into()
}

/// Runs the work. Without an answer, the caller asks the fallback next.
///
/// # Errors  There is no answer, and the end of the call is not counted yet.
pub fn run_with_fallback<T, E, F>(
    client: &AnyClient,
    options: CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    work: impl FnMut() -> F,
) -> impl Future<Output = Result<T, Unanswered<'_, T, E>>>
where
    F: Future<Output = Result<T, E>>,
{
    call::run_with_fallback(&client.shared, options, classify, work)
}

/// Runs work that lends its state to each attempt, as [`run_with_fallback`] does.
///
/// # Errors  As [`run_with_fallback`].
pub fn run_mut_with_fallback<T, E>(
    client: &AnyClient,
    options: CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    work: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = Result<T, Unanswered<'_, T, E>>> {
    call::run_mut_with_fallback(&client.shared, options, classify, work)
}

/// A fallback that takes only the arguments.
#[derive(Debug)]
pub struct ArgumentsOnly;

/// A fallback that takes the arguments and the reason for the call.
#[derive(Debug)]
pub struct WithWhy;

/// A function that can serve as the fallback of one with the arguments `A`; `Kind` is its further
/// parameters.
#[diagnostic::on_unimplemented(
    message = "this fallback does not take the arguments of the function it stands in for",
    label = "must take the same arguments, and `&CallError<_>` after them if it wants to know why"
)]
pub trait FallbackFn<A, W, Kind> {
    /// The fallback's future.
    type Answer;
    /// Starts the fallback.
    fn ask(self, arguments: A, why: W) -> Self::Answer;
}

/// Calls a fallback.
pub fn call_fallback<F, A, W, Kind>(fallback: F, arguments: A, why: W) -> F::Answer
where
    F: FallbackFn<A, W, Kind>,
{
    fallback.ask(arguments, why)
}

macro_rules! stand_ins {
    ($(($($argument:ident $value:ident),*))*) => {$(
        impl<F, R, W, $($argument),*> FallbackFn<($($argument,)*), W, ArgumentsOnly> for F
        where
            F: FnOnce($($argument),*) -> R,
        {
            type Answer = R;
            fn ask(self, ($($value,)*): ($($argument,)*), _: W) -> R {
                self($($value),*)
            }
        }

        impl<F, R, W, $($argument),*> FallbackFn<($($argument,)*), W, WithWhy> for F
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
