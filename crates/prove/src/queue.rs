//! A System V queue of the host, for sandboxes to look for.

use crate::facts::Facts;
use crate::sys;
use crate::vectors::serve::queue_key;

/// A queue that everybody of the host may use. It goes when this is dropped.
#[derive(Debug)]
pub struct Queue {
    key: i32,
}

impl Queue {
    /// Makes one whose key follows from the name.
    ///
    /// # Errors
    /// The kernel has none, or one with this key is there.
    pub fn make(name: &str) -> std::io::Result<Self> {
        let key = queue_key(name);
        sys::queue_make(key, true).map_err(std::io::Error::from_raw_os_error)?;
        Ok(Self { key })
    }

    /// The key, for [`Facts::queue`].
    #[must_use]
    pub fn key(&self) -> i32 {
        self.key
    }

    /// Tells it to the program.
    pub fn tell(&self, facts: &mut Facts) {
        facts.queue = Some(self.key);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = sys::queue_make(self.key, false);
    }
}
