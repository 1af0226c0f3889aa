//! A variable of the environment: taken into a slot, wiped where it stood, removed.
#![allow(unsafe_code)] // the environment in place, for which this thread must be the only one

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::InputError;
use crate::bytes::Bytes;
use crate::deadline;
use crate::error::Error;
use crate::secret::Options;
use crate::sys::environment;
use crate::wipe;

impl Options {
    /// Takes a variable out of the environment: its value moves into protected memory, and is wiped in the strings that the
    /// program's environment is made of and in the block that execve(2) laid out, which `/proc/PID/environ` shows. Then the
    /// variable is removed, so that no child gets it.
    ///
    /// A value that setenv(3) has replaced before stays where the C library keeps it; so does a copy that somebody has made, as
    /// the parent has one. A child forked before has the block, too.
    ///
    /// # Errors
    ///
    /// [`InputError::Threads`] if this process has other threads, who could be reading the environment: the call belongs at
    /// the beginning of `main`. [`InputError::NoVariable`]; [`InputError::TooLong`] if the value has more than `limit` bytes;
    /// [`InputError::Environment`] if `/proc` does not tell where the block is. The variable stays where it was then. As
    /// [`zeroed`](Self::zeroed).
    pub fn take_variable(self, name: impl AsRef<OsStr>, limit: usize) -> Result<Bytes, Error> {
        let name = name.as_ref();
        let failed = |source| Error::Input(InputError::Environment { source });
        if name.is_empty() || name.as_bytes().iter().any(|byte| matches!(byte, b'=' | 0)) {
            return Err(Error::Input(InputError::NoVariable));
        }
        // The watcher of deadlines does not use the environment.
        let watcher = deadline::watcher().map(|number| number.to_string());
        let mut count = 0;
        for thread in std::fs::read_dir("/proc/self/task").map_err(failed)? {
            let number = thread.map_err(failed)?.file_name();
            count += usize::from(watcher.as_ref().is_none_or(|watcher| number != **watcher));
        }
        if count != 1 {
            return Err(Error::Input(InputError::Threads { count }));
        }

        let mut len = None;
        // SAFETY: this thread is the only one that uses the environment, and starts no other meanwhile. It holds no reference into the environment: it
        // came here from outside, where std gives copies alone.
        unsafe { environment::each_value(name.as_bytes(), &mut |value| len = len.or(Some(value.len()))) };
        let len = len.ok_or(Error::Input(InputError::NoVariable))?;
        if len > limit {
            return Err(Error::Input(InputError::TooLong { limit }));
        }
        // SAFETY: as above. A first look, to see that it can be done: nothing is changed.
        unsafe { environment::each_value_in_block(name.as_bytes(), &mut |_| ()) }.map_err(failed)?;
        let mut taken = self.bytes(len)?;
        let mut first = Some(&mut taken);
        let mut copied = Ok(());
        // SAFETY: as above; the watcher of deadlines is all that a line before may have started.
        unsafe {
            environment::each_value(name.as_bytes(), &mut |value| {
                if let Some(taken) = first.take() {
                    copied = taken.extend(value);
                }
            });
        }
        copied?;
        if !cfg!(secmem_ablate = "environment-wipe") {
            // SAFETY: as above.
            unsafe { environment::each_value(name.as_bytes(), &mut wipe::wipe) };
            // SAFETY: as above.
            unsafe { environment::each_value_in_block(name.as_bytes(), &mut wipe::wipe) }.map_err(failed)?;
        }
        // SAFETY: as above.
        unsafe { environment::remove(name) };
        Ok(taken)
    }
}
