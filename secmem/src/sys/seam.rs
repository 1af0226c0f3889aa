//! The test seam: a unit test makes the next call of a kind fail.
//!
//! Per thread, so that tests beside each other do not meet. Outside unit tests [`ask`] is empty.

use std::io;

use super::Call;

#[cfg(not(test))]
pub(super) fn ask(_: Call) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) fn ask(call: Call) -> io::Result<()> {
    // What a thread gives back as it ends may come after its plans are gone.
    let _ = MADE.try_with(|made| made.borrow_mut().push(call));
    let meanwhile = MEANWHILE.try_with(|planned| take(&mut planned.borrow_mut(), call)).ok().flatten();
    if let Some(happens) = meanwhile {
        happens();
    }
    match PLANNED.try_with(|planned| take(&mut planned.borrow_mut(), call)).ok().flatten() {
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Ok(()),
    }
}

/// The first that is planned for such a call.
#[cfg(test)]
fn take<T>(planned: &mut Vec<(Call, T)>, call: Call) -> Option<T> {
    let at = planned.iter().position(|(of, _)| *of == call)?;
    Some(planned.remove(at).1)
}

#[cfg(test)]
type Event = Box<dyn FnOnce()>;

#[cfg(test)]
thread_local! {
    static MEANWHILE: std::cell::RefCell<Vec<(Call, Event)>> = const { std::cell::RefCell::new(Vec::new()) };
    static MADE: std::cell::RefCell<Vec<Call>> = const { std::cell::RefCell::new(Vec::new()) };
    static PLANNED: std::cell::RefCell<Vec<(Call, i32)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Lets the next call of this kind in this thread fail with `errno`. Further plans for the same kind queue up.
#[cfg(test)]
pub(crate) fn fail_next(call: Call, errno: i32) {
    PLANNED.with_borrow_mut(|planned| planned.push((call, errno)));
}

/// Lets `happens` run right before the next call of this kind in this thread: what another thread might do just then.
#[cfg(test)]
pub(crate) fn before_next(call: Call, happens: impl FnOnce() + 'static) {
    MEANWHILE.with_borrow_mut(|planned| planned.push((call, Box::new(happens))));
}

/// How many planned failures have not happened: a test that ends above 0 did not test what it says.
#[cfg(test)]
pub(crate) fn left() -> usize {
    PLANNED.with_borrow(Vec::len)
}

/// How many calls of this kind this thread has made.
#[cfg(test)]
pub(crate) fn calls(call: Call) -> usize {
    MADE.with_borrow(|made| made.iter().filter(|of| **of == call).count())
}

/// Runs `body` in a process of its own, where it may purge: this test program again, with the one test selected, whose name with
/// its modules `test` is. Must be the first thing in that test.
#[cfg(test)]
pub(crate) fn in_child(test: &str, body: impl FnOnce()) -> std::process::Output {
    const CHILD: &str = "SECMEM_UNIT_TEST_CHILD";
    if std::env::var(CHILD).as_deref() == Ok(test) {
        body();
        std::process::exit(0);
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, test);
    child.stdin(std::process::Stdio::null()).output().unwrap()
}
