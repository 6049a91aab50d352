//! The life of a network: it ends with the last handle of a user, whatever its own tasks still hold.

use crate::core::Shared;
use std::sync::Arc;

/// Held by every handle that users have.
#[derive(Debug)]
pub(crate) struct Life(pub(crate) Arc<Shared>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.with(|core| core.stop());
    }
}
