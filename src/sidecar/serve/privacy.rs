//! Privacy of the process: its memory and its environment hold secrets.

/// Closes the memory and the environment of this process to other processes of its user, and to
/// core files: a server that it starts runs as the same user, and could read them in `/proc`.
///
/// Call it before the first child is started. The superuser can read them all the same. Children
/// are not affected, and inherit none of our variables anyway.
///
/// # Source  Rule EDGE-7 in docs/rules.md.
#[cfg(target_os = "linux")]
pub fn forbid_inspection() {
    // EDGE-7: no child finds a secret of its parent.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "other processes of this user can read the memory of this one");
    }
}

/// Does nothing: other systems have no such switch.
#[cfg(not(target_os = "linux"))]
pub fn forbid_inspection() {}
