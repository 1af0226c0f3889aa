//! Messages of panics, without the secrets.
//!
//! A purge on panic ends all secrets, and with them what a redactor knows. So the message is looked through before: by the purge's
//! hook ([`prepare`]), where that comes first, and else by the filter's, which purges itself.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};

use super::{Error, Redactor};
use crate::{arena, purge};

/// The filter that was installed last.
static FILTER: Mutex<Option<Redactor>> = Mutex::new(None);

thread_local! {
    /// What may be shown of the panic that this thread is in, while the purge's hook runs before the filter's.
    static PREPARED: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl Redactor {
    /// Puts a hook in place of the panic hooks: it writes the message to standard error as std's does, without the secrets.
    ///
    /// The hooks before it are not called any more, for they would write the message as it is. But secrets are purged as
    /// [`purge::install`] has planned, whichever of the two was installed first, and after the message has been looked
    /// through. A hook that the application sets later takes the place of this one.
    ///
    /// The message stands where the panic has put it, in a `String` mostly, until the panic is over; that is not this filter's to
    /// wipe.
    ///
    /// # Errors
    ///
    /// [`Error::Panicking`] in a thread that is panicking, which can set no hook.
    pub fn install_panic_filter(&self) -> Result<(), Error> {
        if std::thread::panicking() {
            return Err(Error::Panicking);
        }
        *FILTER.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clone());
        let redactor = self.clone();
        std::panic::set_hook(Box::new(move |info| {
            let prepared = PREPARED.try_with(|prepared| prepared.try_borrow_mut().ok()?.take()).ok().flatten();
            let message = prepared.unwrap_or_else(|| message(&redactor, info));
            purge::as_planned();
            // Who could be told that it cannot be written?
            let _ = std::io::stderr().lock().write_all(message.as_bytes());
        }));
        Ok(())
    }
}

/// Looks through the message of a panic, before all secrets end.
pub(crate) fn prepare(info: &PanicHookInfo<'_>) {
    if arena::in_child() || cfg!(secmem_ablate = "redact-panic") {
        return; // the lock may be held by a thread that is not there
    }
    let filter = FILTER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(redactor) = filter {
        let prepared = message(&redactor, info);
        let _ = PREPARED.try_with(|place| place.try_borrow_mut().map(|mut place| *place = Some(prepared)));
    }
}

/// The panic's hooks have run, whether or not the filter's was among them.
pub(crate) fn forget() {
    let _ = PREPARED.try_with(|place| place.try_borrow_mut().map(|mut place| *place = None));
}

fn message(redactor: &Redactor, info: &PanicHookInfo<'_>) -> String {
    let current = std::thread::current();
    let thread = redactor.text(current.name().unwrap_or("<unnamed>"));
    let what = info.payload_as_str().map_or_else(|| "Box<dyn Any>".to_owned(), |what| redactor.text(what));
    let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("stack backtrace:\n{}", redactor.text(backtrace)),
        _ => String::new(),
    };
    format!("\nthread '{thread}' panicked{place}:\n{what}\n{backtrace}")
}
