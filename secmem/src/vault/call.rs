//! Calls under way, and the plaintexts that they lend.

use std::collections::HashMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::error::Error;
use super::event::{Event, Side, Why};
use super::frame::{FrameError, Kind};
use super::{Counts, Over};
use crate::arena::Doom;
use crate::deadline::Listener;
use crate::error::Error as MemoryError;
use crate::manager::Audience;
use crate::secret::{Options, Secret};
use crate::sys;

/// What comes back: the kind of answer, and its body.
pub(super) type Answer = (Kind, Secret);

/// Those who are told, and what is counted, whichever worker it is.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) audience: Audience<Event>,
    slots: AtomicU64,
    lent: AtomicU64,
    wiped: AtomicU64,
    worker_wiped: AtomicU64,
    overdue: AtomicU64,
    started: AtomicU64,
    calls: AtomicU64,
}

impl Ledger {
    pub(super) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        Counts {
            lent: of(&self.lent),
            wiped: of(&self.wiped),
            worker_wiped: of(&self.worker_wiped),
            overdue: of(&self.overdue),
            workers: of(&self.started),
        }
    }

    pub(super) fn started(&self, pid: u32) {
        self.started.fetch_add(1, Ordering::AcqRel);
        self.audience.tell(|| Event::Started { pid });
    }

    pub(super) fn worker_wiped(&self, call: u64, slot: u64) {
        self.worker_wiped.fetch_add(1, Ordering::AcqRel);
        self.audience.tell(|| Event::Wiped { side: Side::Worker, call, slot, why: Why::Over });
    }

    /// A number that no other call has.
    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::AcqRel)
    }
}

/// One call, from its request to its end.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: u64,
    span: Duration,
    /// When it has to be over; `None` where the clock cannot count that far.
    end: Option<Instant>,
    state: Mutex<State>,
    changed: Condvar,
    ledger: Arc<Ledger>,
}

#[derive(Debug)]
struct State {
    answer: Option<Result<Answer, Error>>,
    /// The time was over while the plaintext was there.
    overdue: bool,
    waker: Option<Waker>,
    lent: Weak<Lent>,
}

impl Call {
    pub(super) fn new(id: u64, span: Duration, ledger: &Arc<Ledger>) -> Arc<Self> {
        let state = State { answer: None, overdue: false, waker: None, lent: Weak::new() };
        Arc::new(Self {
            id,
            span,
            end: Instant::now().checked_add(span),
            state: Mutex::new(state),
            changed: Condvar::new(),
            ledger: Arc::clone(ledger),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is half done where the lock is held and something could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn too_late(&self) -> Error {
        Error::Deadline { after: self.span }
    }

    /// Time that is left; `None` for more than can be counted.
    pub(super) fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// A place for a plaintext, which ends with the call's time, whatever is done with it then.
    pub(super) fn place(self: &Arc<Self>, options: Options, len: usize) -> Result<Secret, MemoryError> {
        let told = Box::new(Overdue(Arc::downgrade(self)));
        match self.left() {
            Some(left) => options.expires_in(left).watched(len, sys::steady_time(), told),
            None => options.zeroed(len),
        }
    }

    /// The answer is there, or will not come. Whoever polls is to be woken when the caller holds no lock: it is somebody else's code.
    #[must_use]
    pub(super) fn settle(&self, answer: Result<Answer, Error>) -> Option<Waker> {
        let mut state = self.lock();
        if state.answer.is_none() {
            state.answer = Some(answer);
        }
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        waker
    }

    /// Its time is over while there is a plaintext: the bytes go, also under a callback that still runs.
    fn expire(&self) {
        let mut state = self.lock();
        let first = !std::mem::replace(&mut state.overdue, true); // the plaintext's own time, or the alarm's
        let (waker, lent) = (state.waker.take(), state.lent.upgrade());
        drop(state);
        if let Some(lent) = lent {
            self.ledger.overdue.fetch_add(u64::from(first), Ordering::AcqRel);
            if !cfg!(secmem_ablate = "vault-deadline") && !lent.is_text() {
                lent.secret.slot.overwrite_in_use();
            }
            lent.end(Why::Deadline);
        }
        if let Some(waker) = waker {
            wake_elsewhere(waker);
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.lock().answer.is_some()
    }

    /// Waits for the answer, which somebody else reads.
    pub(super) fn wait(&self) -> Result<Answer, Error> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state = match self.left() {
                Some(Duration::ZERO) => return Err(self.too_late()),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// [`wait`](Self::wait) for whoever is polled. Something else has to wake it when the time is over: see [`Alarm`].
    pub(super) async fn answered(&self) -> Result<Answer, Error> {
        poll_fn(|context| {
            let mut state = self.lock();
            if let Some(answer) = state.answer.take() {
                return Poll::Ready(answer);
            }
            if state.overdue || self.left() == Some(Duration::ZERO) {
                return Poll::Ready(Err(self.too_late()));
            }
            note(&mut state.waker, context);
            Poll::Pending
        })
        .await
    }

    /// Ready when the plaintext's time is over; else whoever polls is woken then.
    pub(super) fn poll_overdue(&self, context: &Context<'_>) -> Poll<Error> {
        let mut state = self.lock();
        if state.overdue {
            return Poll::Ready(self.too_late());
        }
        note(&mut state.waker, context);
        Poll::Pending
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.lock().overdue { Err(self.too_late()) } else { Ok(()) }
    }
}

/// A waker is somebody else's code, and the threads that wake are everybody's: its panic is nobody's end but its own.
pub(super) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// [`wake`], for the thread that ends secrets in time: it has others.
fn wake_elsewhere(waker: Waker) {
    let waker = Arc::new(Mutex::new(Some(waker)));
    let there = Arc::clone(&waker);
    let take = |place: &Mutex<Option<Waker>>| place.lock().unwrap_or_else(PoisonError::into_inner).take();
    if sys::quiet_thread("secmem-wake", move || take(&there).into_iter().for_each(wake)).is_err() {
        take(&waker).into_iter().for_each(wake);
    }
}

fn note(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}

/// Tells a call that the time of its plaintext is over.
#[derive(Debug)]
struct Overdue(Weak<Call>);

impl Listener for Overdue {
    fn expired(&self) {
        if let Some(call) = self.0.upgrade() {
            call.expire();
        }
    }
}

/// Wakes a call at its deadline although no plaintext has come: a byte that ends then.
#[derive(Debug)]
pub(super) struct Alarm(#[expect(dead_code, reason = "for its end")] Secret);

impl Alarm {
    pub(super) fn set(call: &Arc<Call>, options: Options) -> Result<Self, MemoryError> {
        call.place(options, 1).map(Self)
    }
}

/// A plaintext in a slot of the caller's, for the time of a callback.
///
/// It is lent: nothing of it can be kept.
///
/// ```compile_fail
/// # fn keep(vault: &secmem::vault::Vault) {
/// let mut kept: Option<&[u8]> = None;
/// let _ = vault.with_password(|bytes| kept = Some(bytes));
/// drop(kept);
/// # }
/// ```
/// ```compile_fail
/// # async fn keep(vault: &secmem::vault::Vault) {
/// let mut kept: Option<&secmem::vault::Lent> = None;
/// let _ = vault.with_password_async(async |lent| kept = Some(lent)).await;
/// drop(kept);
/// # }
/// ```
/// ```compile_fail,E0599
/// # fn show(lent: &secmem::vault::Lent) {
/// lent.to_string();
/// # }
/// ```
/// ```compile_fail,E0308
/// # fn copy(lent: &secmem::vault::Lent) {
/// let kept: secmem::vault::Lent = lent.clone();
/// # }
/// ```
/// ```compile_fail,E0599
/// # fn turn(lent: &secmem::vault::Lent) {
/// let bytes: &[u8] = lent.as_ref();
/// # }
/// ```
pub struct Lent {
    secret: Secret,
    slot: u64,
    call: u64,
    ledger: Arc<Ledger>,
    ended: Mutex<bool>,
    /// Callbacks that have it as text.
    text: AtomicUsize,
}

impl Lent {
    fn new(secret: Secret, call: &Arc<Call>) -> Arc<Self> {
        let ledger = Arc::clone(&call.ledger);
        let slot = ledger.slots.fetch_add(1, Ordering::AcqRel);
        ledger.lent.fetch_add(1, Ordering::AcqRel);
        ledger.audience.tell(|| Event::Lent { call: call.id, slot });
        Arc::new(Self { secret, slot, call: call.id, ledger, ended: Mutex::new(false), text: AtomicUsize::new(0) })
    }

    /// Lets `f` read the bytes. What `f` copies, it copies out of the protection.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] with [`MemoryError::Expired`](crate::Error::Expired) once the call's time is over, and as
    /// [`Secret::with`].
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        Ok(self.secret.with(f)?)
    }

    /// Lets `f` read the bytes as text, without a copy. At the call's deadline they are left to `f` until it returns: text may not change
    /// under whoever reads it.
    ///
    /// # Errors
    ///
    /// [`Error::Utf8`]; as [`with`](Self::with).
    pub fn with_text<R>(&self, f: impl FnOnce(&str) -> R) -> Result<R, Error> {
        let _text = AsText::begin(&self.text);
        self.secret.with(|bytes| as_text(bytes).map(f))?
    }

    fn is_text(&self) -> bool {
        self.text.load(Ordering::SeqCst) > 0
    }

    /// Bytes of plaintext.
    #[must_use]
    pub fn len(&self) -> usize {
        self.secret.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.secret.is_empty()
    }

    /// Wipes the slot, and tells so, once.
    fn end(&self, why: Why) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *ended, true) {
            return;
        }
        drop(ended);
        // At the deadline an access may run, over zeros: its end wipes once more. An error is a fork, and the slot the parent's.
        if !cfg!(secmem_ablate = "vault-lent") && self.secret.slot.doom(Doom::Expired).is_err() {
            return;
        }
        self.ledger.wiped.fetch_add(1, Ordering::AcqRel);
        let (call, slot) = (self.call, self.slot);
        self.ledger.audience.tell(|| Event::Wiped { side: Side::Caller, call, slot, why });
    }
}

/// What must not be: a way to make text of it.
#[cfg(secmem_ablate = "vault-display")]
impl std::fmt::Display for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with_text(|text| f.write_str(text)).unwrap_or(Err(std::fmt::Error))
    }
}

impl std::fmt::Debug for Lent {
    /// Its length; never content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A callback that has it as text. Ends when dropped.
struct AsText<'a>(&'a AtomicUsize);

impl<'a> AsText<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for AsText<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn as_text(bytes: &[u8]) -> Result<&str, Error> {
    str::from_utf8(bytes).map_err(|error| Error::Utf8 { at: error.valid_up_to() })
}

/// A plaintext while its callback runs. Dropping it wipes.
pub(super) struct Lending {
    call: Arc<Call>,
    lent: Arc<Lent>,
    over: bool,
}

impl Lending {
    /// From the answer of a call.
    pub(super) fn begin(call: Arc<Call>, answer: Answer) -> Result<Self, Error> {
        let (Kind::Secret, secret) = answer else { return Err(FrameError::Unexpected.into()) };
        let lent = Lent::new(secret, &call);
        let mut state = call.lock();
        state.lent = Arc::downgrade(&lent);
        let overdue = state.overdue;
        drop(state);
        let lending = Self { call, lent, over: false };
        if overdue { Err(lending.call.too_late()) } else { Ok(lending) }
    }

    pub(super) fn lent(&self) -> &Lent {
        &self.lent
    }

    pub(super) fn call(&self) -> &Call {
        &self.call
    }

    /// The callback has returned; what it returned is a result if the bytes were there until then.
    pub(super) fn finish<R>(mut self, result: Result<R, Error>) -> Result<R, Error> {
        self.over = true;
        self.call.check()?; // before the slot's own "expired", which it explains
        match result {
            // The slot's time came, and nobody has told the call yet.
            Err(Error::Memory(MemoryError::Expired)) => Err(self.call.too_late()),
            result => result,
        }
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        let why = match self.over {
            _ if self.call.lock().overdue => Why::Deadline,
            true => Why::Over,
            false if std::thread::panicking() => Why::Panicked,
            false => Why::Dropped,
        };
        if cfg!(secmem_ablate = "vault-lent") {
            std::mem::forget(Arc::clone(&self.lent)); // nobody drops it, then
        }
        self.lent.end(why);
    }
}

/// The calls of one session that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<u64, Arc<Call>>,
    /// Why no more are taken.
    over: Option<Over>,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, call: &Arc<Call>) -> Result<(), Error> {
        let mut waiting = self.lock();
        if let Some(over) = waiting.over {
            return Err(over.into());
        }
        waiting.calls.insert(call.id, Arc::clone(call));
        Ok(())
    }

    /// The call is answered, or given up.
    pub(super) fn take(&self, id: u64) -> Option<Arc<Call>> {
        self.lock().calls.remove(&id)
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Call>> {
        self.lock().calls.get(&id).cloned()
    }

    pub(super) fn over(&self) -> Option<Over> {
        self.lock().over
    }

    /// Takes no more calls, and fails those that wait. The first reason counts.
    pub(super) fn end(&self, why: Over) {
        let mut waiting = self.lock();
        let why = *waiting.over.get_or_insert(why);
        let calls = std::mem::take(&mut waiting.calls);
        drop(waiting);
        for call in calls.into_values() {
            call.settle(Err(why.into())).into_iter().for_each(wake);
        }
    }
}
