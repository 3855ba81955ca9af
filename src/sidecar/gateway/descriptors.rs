//! The process's file descriptors, shared out between callers and dependencies.

/// Descriptors for everything but callers and the calls that they make: the runtime, the admin
/// side, files, and servers that are processes.
const OWN: u64 = 48;

/// Raises the limit as far as the system allows, and returns how many connections of callers leave
/// one descriptor for the call of each. At most `wanted`.
pub(super) fn connections(wanted: usize) -> usize {
    // EDGE-1: our own lack of descriptors must not look like a failure of a dependency.
    let Some(limit) = raised_limit() else {
        return wanted;
    };
    let most = limit.saturating_sub(OWN) / 2;
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
    if most < wanted {
        tracing::info!(
            descriptors = limit,
            connections = most,
            "the limit of open files allows fewer connections than gateway.max_connections"
        );
    }
    most.min(wanted)
}

/// Raises the soft limit to the hard one, and returns it; `None` if it is unknown.
#[cfg(unix)]
fn raised_limit() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return Some(hard);
    }
    Some(soft)
}

#[cfg(not(unix))]
fn raised_limit() -> Option<u64> {
    None
}
