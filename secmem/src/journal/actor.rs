//! Who is at work, and what for: said once around what is done, and known to every entry that comes of it.

use std::cell::RefCell;

use super::name::Name;

/// Who does something, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub(super) who: Name,
    pub(super) purpose: Option<Name>,
}

thread_local! {
    static ACTOR: RefCell<Option<Actor>> = const { RefCell::new(None) };
}

impl Actor {
    /// One without a purpose.
    #[must_use]
    pub fn new(who: Name) -> Self {
        Self { who, purpose: None }
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(mut self, purpose: Name) -> Self {
        self.purpose = Some(purpose);
        self
    }
}

/// Runs `f`; what it does in this thread is written as this actor's. What nobody is said to do is the program's own.
///
/// Not for a whole future: another one may run in the thread while it waits. The futures of feature `tokio` are the actor's
/// who was said when they were made.
pub fn acting_as<R>(actor: &Actor, f: impl FnOnce() -> R) -> R {
    during(Some(actor.clone()), f)
}

/// Runs `f` as whoever it is, or as nobody.
pub(crate) fn during<R>(actor: Option<Actor>, f: impl FnOnce() -> R) -> R {
    struct Before(Option<Actor>);
    impl Drop for Before {
        fn drop(&mut self) {
            ACTOR.set(self.0.take());
        }
    }
    let _before = Before(ACTOR.replace(actor));
    f()
}

/// Who is at work in this thread.
pub(crate) fn current() -> Option<Actor> {
    // A thread that is ending is nobody's any more.
    ACTOR.try_with(|actor| actor.borrow().clone()).ok().flatten()
}
