//! Access to locks that a panic has poisoned: the value is used as it is.
//!
//! The crate holds no lock while it runs the code of others, and leaves no value half changed, so
//! a poisoned lock tells nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
#[cfg(feature = "agents")]
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks a [`Mutex`], poisoned or not.
pub(crate) trait LockExt<T> {
    /// Waits for the lock.
    fn acquire(&self) -> MutexGuard<'_, T>;
}

impl<T> LockExt<T> for Mutex<T> {
    fn acquire(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks an [`RwLock`], poisoned or not.
#[cfg(feature = "agents")]
pub(crate) trait RwLockExt<T> {
    /// Waits until there is no writer.
    fn acquire_read(&self) -> RwLockReadGuard<'_, T>;

    /// Waits until there is neither a reader nor another writer.
    fn acquire_write(&self) -> RwLockWriteGuard<'_, T>;
}

#[cfg(feature = "agents")]
impl<T> RwLockExt<T> for RwLock<T> {
    fn acquire_read(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn acquire_write(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
