//! The operations that take long, for programs on tokio: as futures that leave nothing when they are dropped.
//!
//! What is handed over is in its buffer, and wiped where it stood, when the call returns: a future that waits, or is never polled,
//! has its data in an arena. The operation runs on a thread that tokio keeps for what blocks, from the first poll on.
//!
//! Nothing stops code that runs. What a dropped future does is this:
//!
//! | the operation | its data | what it was to use and return |
//! |---|---|---|
//! | has not begun | wiped at once; it never begins | dropped at once |
//! | runs | wiped as soon as it ends | the result is dropped by its thread then |
//! | has ended | wiped before | the result is dropped at once |
//!
//! The same holds where a runtime is shut down. A cleanup that runs goes to its end, and one that has not begun does not begin.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::biometric::{Template, TemplateView, viewed};
use super::error::Error;
use super::hash::{Digest, Hash};
use super::id::{Id, Token};
use super::input::Input;
use super::{Cleaned, Leased, Manager, worked};
#[cfg(feature = "journal")]
use crate::journal;

type Work<R> = Box<dyn FnOnce() -> Result<R, Error> + Send>;

/// Work that either a thread of the runtime takes, or who drops the future.
type Place<R> = Arc<Mutex<Option<Work<R>>>>;

fn taken<R>(place: &Place<R>) -> Option<Work<R>> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// An operation of a [`Manager`] that is waited for. Dropped, it leaves nothing: see the methods that give one.
///
/// It counts as a handle of its manager. Each thread on which one runs keeps a protected stack as long as it lives, which counts
/// against the lock budget (`ulimit -l`): a runtime's `max_blocking_threads` limits how many there are.
#[must_use = "it begins when it is polled first"]
pub struct Operation<R> {
    state: State<R>,
    /// Its data: ended with the future, whatever the operation does.
    _data: Option<Leased>,
}

enum State<R> {
    Refused(Error),
    Waiting(Place<R>),
    Begun(Place<R>, JoinHandle<Option<Result<R, Error>>>),
    Over,
}

impl<R: Send + 'static> Operation<R> {
    fn new(data: Option<Leased>, work: impl FnOnce() -> Result<R, Error> + Send + 'static) -> Self {
        #[cfg(feature = "journal")]
        let work = {
            let actor = journal::current();
            move || journal::during(actor, work)
        };
        Self { state: State::Waiting(Arc::new(Mutex::new(Some(Box::new(work))))), _data: data }
    }

    fn refused(error: Error) -> Self {
        Self { state: State::Refused(error), _data: None }
    }

    /// An operation on data that is in its buffer.
    fn on(data: Leased, work: impl FnOnce(&Leased) -> Result<R, Error> + Send + 'static) -> Self {
        let theirs = data.twin();
        // The thread's own hold on the data ends with the work, whenever the future is polled next.
        Self::new(Some(data), move || work(&theirs))
    }
}

impl<R: Send + 'static> Future for Operation<R> {
    type Output = Result<R, Error>;

    /// # Panics
    ///
    /// If it was over before; where tokio does, for want of a thread.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let begun = match std::mem::replace(&mut self.state, State::Over) {
            State::Refused(error) => return Poll::Ready(Err(error)),
            State::Over => panic!("an operation was polled after it was over"),
            State::Begun(place, task) => (place, task),
            State::Waiting(place) => {
                let Ok(runtime) = Handle::try_current() else { return Poll::Ready(Err(Error::Runtime)) };
                let theirs = Arc::clone(&place);
                (place, runtime.spawn_blocking(move || taken(&theirs).map(|work| work())))
            }
        };
        let (place, mut task) = begun;
        let result = match Pin::new(&mut task).poll(context) {
            Poll::Pending => {
                self.state = State::Begun(place, task);
                return Poll::Pending;
            }
            Poll::Ready(result) => result,
        };
        drop(taken(&place)); // of a runtime that has not begun it, and that may keep it
        Poll::Ready(match result {
            Ok(Some(result)) => result,
            Ok(None) => Err(Error::Runtime),
            Err(ended) if ended.is_panic() => Err(Error::Panicked),
            Err(_) => Err(Error::Runtime),
        })
    }
}

impl<R> Drop for Operation<R> {
    fn drop(&mut self) {
        if cfg!(secmem_ablate = "future-drop") {
            std::mem::forget((std::mem::replace(&mut self.state, State::Over), self._data.take()));
            return;
        }
        if let State::Waiting(place) | State::Begun(place, _) = &self.state {
            // The runtime would keep what it has not begun until a thread has time for it.
            drop(taken(place));
        }
    }
}

impl<R> fmt::Debug for Operation<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Refused(_) => "refused",
            State::Waiting(_) => "waiting",
            State::Begun(..) => "begun",
            State::Over => "over",
        };
        f.debug_struct("Operation").field("state", &state).finish_non_exhaustive()
    }
}

impl Manager {
    /// [`execute_with_secure_data`](Self::execute_with_secure_data), on a thread for what blocks. `data` is in its buffer, and wiped
    /// where it stood, when this returns.
    ///
    /// A future that is dropped before `operation` has begun wipes the data at once, and `operation` never runs; dropped while it
    /// runs, the data is wiped as soon as it ends, and its result is dropped. Until it begins, the buffer can expire, be
    /// evicted or be cleaned up like any other.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] without a runtime of tokio, or if it was shut down before `operation` had begun; as the other else.
    pub fn execute_with_secure_data_async<'a, R: Send + 'static>(
        &self,
        owner: &Token,
        data: impl Into<Input<'a>>,
        operation: impl FnOnce(&mut [u8]) -> R + Send + 'static,
    ) -> Operation<R> {
        match self.taken_in(owner, data.into()) {
            Ok(leased) => Operation::on(leased, |leased| worked(leased, operation)),
            Err(error) => Operation::refused(error),
        }
    }

    /// [`process_secure_biometric`](Self::process_secure_biometric), on a thread for what blocks. The template is in its buffer,
    /// and wiped where it stood, when this returns; a dropped future does as that of
    /// [`execute_with_secure_data_async`](Self::execute_with_secure_data_async).
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`]; as the other else.
    pub fn process_secure_biometric_async<R: Send + 'static>(
        &self,
        owner: &Token,
        mut template: Template,
        operation: impl FnOnce(TemplateView<'_>) -> R + Send + 'static,
    ) -> Operation<R> {
        match self.0.open().and_then(|_| self.written(owner, &mut template, None)) {
            Ok(leased) => Operation::on(leased, |leased| {
                leased.read(|slot, len| viewed(&slot[..len], &leased.store.config, operation))?
            }),
            Err(error) => Operation::refused(error),
        }
    }

    /// [`create_secure_hash`](Self::create_secure_hash), on a thread for what blocks. Whatever becomes of the future, the buffer
    /// stays as it is, and nothing of its data stays anywhere else.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`]; as the other else.
    pub fn create_secure_hash_async(&self, owner: &Token, id: &Id, hash: Hash) -> Operation<Digest> {
        let (manager, owner, id) = (self.clone(), owner.clone(), id.clone());
        Operation::new(None, move || manager.create_secure_hash(&owner, &id, hash))
    }

    /// [`cleanup_expired`](Self::cleanup_expired), on a thread for what blocks. Once begun it goes to its end.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`]; as the other else.
    pub fn cleanup_expired_async(&self) -> Operation<Cleaned> {
        let manager = self.clone();
        Operation::new(None, move || manager.cleanup_expired())
    }

    /// [`cleanup_forced`](Self::cleanup_forced), on a thread for what blocks. Once begun it goes to its end.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`]; as the other else.
    pub fn cleanup_forced_async(&self) -> Operation<Cleaned> {
        let manager = self.clone();
        Operation::new(None, move || manager.cleanup_forced())
    }
}
