//! Scratch memory that concurrent runs don't share and later runs reuse.

use std::sync::{Mutex, PoisonError};

/// Workspaces that no call is using at the moment.
pub struct Pool<W>(Mutex<Vec<W>>);

impl<W> Default for Pool<W> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<W: Default> Pool<W> {
    /// Lends `call` a workspace: the one returned last, or a new one if all are in use.
    pub fn lend<R>(&self, call: impl FnOnce(&mut W) -> R) -> R {
        // A panic can't leave the list half changed, so that a poisoned lock is still good.
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = free().pop().unwrap_or_default();
        let result = call(&mut workspace);
        free().push(workspace);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_is_reused_but_never_shared() {
        let pool = Pool::<Vec<u8>>::default();
        pool.lend(|first| {
            first.push(1);
            pool.lend(|second| assert!(second.is_empty()));
        });
        pool.lend(|first| assert_eq!(*first, [1]));
    }
}
