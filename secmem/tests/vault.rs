//! A vault: a worker that keeps a password, and all that can come between.
//!
//! The worker is this test program once more, so it has a main of its own, whose first line is `init`.

mod common;

use std::cell::Cell;
use std::future::Future;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use secmem::input::Prompt;
use secmem::vault::{self, Algorithm, Config, Cost, Ending, Error, Event, Lent, Part, PublicKey, Side, Vault, Why};
use secmem::{Backend, Control, Secret};

const PASSWORD: &[u8] = b"correct horse battery staple";
const LITTLE: Cost = Cost { memory: 64, passes: 1, lanes: 1 };
/// For what must not happen before, and is not waited for.
const LONG: Duration = Duration::from_secs(120);
/// For what is to happen.
const SOON: Duration = Duration::from_millis(300);

macro_rules! trials {
    ($($name:ident,)+) => {
        vec![$(Trial::test(stringify!($name), || catch_unwind($name).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Failed::from(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        }))),+]
    };
}

/// Tells this program that it is to be one that has closed its standard descriptors.
const CLOSED: &str = "SECMEM_TEST_CLOSED";

fn main() -> ExitCode {
    let before = Vault::start(Config::default());
    if vault::init().is_err() {
        return ExitCode::from(71); // started as a worker without being one: a test looks at this
    }
    if std::env::var_os(CLOSED).is_some() {
        return closed();
    }
    let uninitialised = matches!(before, Err(Error::NotInitialised));
    let mut trials = trials![
        a_password_is_lent_and_wiped_on_both_sides,
        a_callback_can_fail_return_a_secret_and_be_text,
        a_callback_that_panics_leaves_nothing_and_the_vault_goes_on,
        a_callback_that_does_not_return_has_zeros_at_its_deadline,
        a_callback_on_a_protected_stack,
        futures_wait_without_a_runtime_and_are_given_up,
        a_future_is_over_at_its_deadline_though_it_never_wakes,
        a_waker_that_panics_keeps_nobody_waiting,
        keys_derive_unwrap_and_sign,
        every_algorithm_works_that_this_build_has,
        passwords_of_all_lengths_and_too_long,
        the_arena_can_be_full,
        a_line_a_pipe_and_a_file_go_to_the_worker,
        a_terminal_asks_in_the_worker,
        without_keys_or_password_there_is_an_error,
        a_dead_worker_fails_every_call_at_once_and_is_restarted,
        a_worker_ends_cleanly_by_each_signal,
        a_stopped_worker_costs_a_deadline_and_is_killed,
        a_worker_that_asks_ends_with_its_caller,
        a_worker_that_is_killed_while_it_asks_leaves_the_terminal_as_it_was,
        stop_fails_what_waits_and_what_comes,
        a_program_that_is_no_worker_is_told_from_one,
        a_worker_without_its_socket_says_so,
        many_calls_at_once_have_slots_of_their_own,
        a_secret_that_has_ended_is_one_call_s_own_error,
        an_answer_that_comes_too_late_ends_nothing_else,
        a_question_that_is_not_answered_in_time_ends_with_its_worker,
        text_stays_as_it_is_until_its_callback_returns,
        a_waker_can_stop_the_vault,
        a_program_without_standard_descriptors_does_not_find_the_vault_s_there,
        a_dead_worker_is_noticed_though_somebody_has_its_end_of_the_socket,
        the_worker_is_closed_up,
        the_kernel_says_where_the_keys_lie,
        a_forked_child_has_no_vault,
        nothing_is_shown,
        nothing_turns_it_into_text_or_a_copy,
        it_works_on_mlock,
    ];
    trials.push(Trial::test("a_vault_needs_init", move || {
        if uninitialised { Ok(()) } else { Err("it started before init".into()) }
    }));
    let mut arguments = Arguments::from_args();
    // Some count processes or descriptors, and all start some.
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn secret(bytes: &[u8]) -> Secret {
    Secret::try_from(bytes.to_vec()).unwrap()
}

fn with_keys(config: Config) -> Vault {
    let vault = Vault::start(config).unwrap();
    vault.generate().unwrap();
    vault
}

fn with_password() -> Vault {
    let vault = with_keys(Config::default());
    vault.store(secret(PASSWORD)).unwrap();
    vault
}

/// Waits until it is so.
fn until(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < end, "it did not come to be");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(pid: u32, signal: i32) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success());
}

/// The letter of a process's state: proc_pid_stat(5).
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn a_password_is_lent_and_wiped_on_both_sides() {
    let vault = with_password();
    let events = vault.events(16);
    for call in 0..3 {
        let same = vault.with_password(|bytes| bytes == PASSWORD).unwrap();
        assert!(same, "{call}");
        let mut seen: Vec<_> = std::iter::from_fn(|| events.wait(LONG)).take(3).collect();
        seen.sort_by_key(|event| matches!(event, Event::Wiped { .. }));
        let [Event::Lent { call, slot }, rest @ ..] = &seen[..] else { panic!("{seen:?}") };
        for side in [Side::Caller, Side::Worker] {
            let of_side = |event: &&Event| matches!(event, Event::Wiped { side: it, .. } if *it == side);
            let Some(Event::Wiped { call: wiped, slot: its, why, .. }) = rest.iter().find(of_side) else {
                panic!("{side:?}: {seen:?}")
            };
            assert_eq!((wiped, *why), (call, Why::Over));
            assert!(side == Side::Worker || its == slot);
        }
    }
    let counts = vault.counts();
    assert_eq!((counts.lent, counts.wiped, counts.worker_wiped, counts.overdue, counts.workers), (3, 3, 3, 0, 1));
}

fn a_callback_can_fail_return_a_secret_and_be_text() {
    let vault = with_password();

    let failed: Result<(), &str> = vault.with_password(|_| Err("no")).unwrap();
    assert_eq!(failed, Err("no"));
    let first = vault.with_password(|bytes| secret(&bytes[..7])).unwrap();
    assert_eq!(first.expose_to_vec().unwrap(), b"correct");
    assert_eq!(vault.with_password_text(|text| text.chars().filter(|it| *it == ' ').count()).unwrap(), 3);
    vault.store(secret(b"abc\xff")).unwrap();
    assert!(matches!(vault.with_password_text(|_| ()), Err(Error::Utf8 { at: 3 })));
    assert_eq!(vault.counts().lent, vault.counts().wiped);
}

fn a_callback_that_panics_leaves_nothing_and_the_vault_goes_on() {
    let vault = with_password();
    let events = vault.events(16);
    let at = Cell::new(std::ptr::null());

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        vault.with_password(|bytes| {
            at.set(bytes.as_ptr());
            std::panic::resume_unwind(Box::new("in the callback"));
        })
    }));

    assert!(panicked.is_err());
    assert_eq!(common::peek(at.get(), PASSWORD.len()), vec![0; PASSWORD.len()]);
    until(|| matches!(events.take(), Some(Event::Wiped { side: Side::Caller, why: Why::Panicked, .. })));
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
}

fn a_callback_that_does_not_return_has_zeros_at_its_deadline() {
    let vault = with_password();
    let events = vault.events(16);
    let start = Instant::now();

    let late = vault.within(SOON).with_password(|bytes| {
        let at = bytes.as_ptr();
        assert_eq!(common::peek(at, bytes.len()), PASSWORD);
        while common::peek(at, bytes.len()).iter().any(|byte| *byte != 0) {
            assert!(start.elapsed() < Duration::from_secs(20), "it stands");
            std::thread::sleep(Duration::from_millis(2));
        }
        "a result of zeros"
    });

    assert!(matches!(late, Err(Error::Deadline { after: SOON })), "{late:?}");
    until(|| matches!(events.take(), Some(Event::Wiped { side: Side::Caller, why: Why::Deadline, .. })));
    let counts = vault.counts();
    assert_eq!((counts.lent, counts.wiped, counts.overdue), (1, 1, 1));
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap(), "the vault itself goes on");
}

fn a_callback_on_a_protected_stack() {
    let vault = with_password();
    let mut sum = 0_u32;
    let mut within = std::ptr::null();

    vault
        .with_password_scrubbed(|bytes| {
            let copy: [u8; 28] = bytes.try_into().unwrap();
            within = std::hint::black_box(&copy).as_ptr();
            sum = copy.iter().map(|byte| u32::from(*byte)).sum();
        })
        .unwrap();

    assert_eq!(sum, PASSWORD.iter().map(|byte| u32::from(*byte)).sum::<u32>());
    assert!(common::peek(within, 28).windows(6).all(|piece| !PASSWORD.windows(6).any(|of| of == piece)));
    let panicked = vault.with_password_scrubbed(|_| std::panic::resume_unwind(Box::new(())));
    assert!(matches!(panicked, Err(Error::Memory(secmem::Error::Panicked))));
}

/// A runtime of the smallest kind: parks the thread.
struct Parked(Mutex<bool>, Condvar);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let parked = Arc::new(Parked(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(Arc::clone(&parked));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let woken = parked.0.lock().unwrap();
        let (mut woken, timeout) = parked.1.wait_timeout_while(woken, LONG, |woken| !*woken).unwrap();
        assert!(!timeout.timed_out(), "nobody woke it");
        *woken = false;
    }
}

/// Waits for another thread, once.
async fn elsewhere() {
    let done = Arc::new(AtomicBool::new(false));
    let mut started = false;
    std::future::poll_fn(move |context| {
        if done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut started, true) {
            let (waker, done) = (context.waker().clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                done.store(true, Ordering::Release);
                waker.wake();
            });
        }
        Poll::Pending
    })
    .await;
}

fn futures_wait_without_a_runtime_and_are_given_up() {
    let vault = with_password();

    let lengths = block_on(vault.with_password_async(async |lent: &Lent| {
        let before = lent.with(<[u8]>::len).unwrap();
        elsewhere().await;
        (before, lent.with_text(str::len).unwrap(), lent.len(), lent.is_empty())
    }));
    assert_eq!(lengths.unwrap(), (28, 28, 28, false));
    assert!(!format!("{:?}", block_on(vault.with_password_async(async |lent| format!("{lent:?}")))).contains("horse"));

    // Dropped before it is polled, while it waits for its answer, and within its callback.
    let events = vault.events(64);
    drop(vault.with_password_async(async |_| ()));
    {
        let mut future = pin!(vault.with_password_async(async |_| ()));
        let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    {
        let mut future = pin!(vault.with_password_async(async |_| std::future::pending::<()>().await));
        until(|| {
            let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            std::iter::from_fn(|| events.take()).any(|event| matches!(event, Event::Lent { .. }))
        });
    }
    until(|| matches!(events.take(), Some(Event::Wiped { side: Side::Caller, why: Why::Dropped, .. })));
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
    assert_eq!(vault.counts().lent, vault.counts().wiped);

    // A panic in it goes to whoever polls.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        block_on(vault.with_password_async(async |_| std::panic::resume_unwind(Box::new(()))))
    }));
    assert!(panicked.is_err());
    assert_eq!(vault.counts().lent, vault.counts().wiped);
}

fn a_future_is_over_at_its_deadline_though_it_never_wakes() {
    let vault = with_password();

    let late = block_on(vault.within(SOON).with_password_async(async |_| std::future::pending::<()>().await));
    assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");

    assert_eq!(vault.counts().overdue, 1, "once, though its time ended twice: its own and its plaintext's");

    // Nor does it wait for ever for a worker that does not answer.
    signal(vault.pid(), libc::SIGSTOP);
    let late = block_on(vault.within(SOON).with_password_async(async |_| ()));
    assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");
    signal(vault.pid(), libc::SIGCONT);
    // What it answers late is nobody's.
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
    assert_eq!(vault.counts().lent, vault.counts().wiped);
}

/// Panics when it wakes.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("in a waker"));
    }
}

fn a_waker_that_panics_keeps_nobody_waiting() {
    let vault = with_password();
    let waker = Waker::from(Arc::new(Panics));
    {
        // With its answer, in the thread that reads.
        signal(vault.pid(), libc::SIGSTOP);
        let mut future = pin!(vault.with_password_async(async |_| ()));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        signal(vault.pid(), libc::SIGCONT);
        assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
        assert!(matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))));
    }
    {
        // At its deadline, in the thread that sees to all of them.
        let late = vault.within(SOON);
        let mut future = pin!(late.with_password_async(async |_| std::future::pending::<()>().await));
        until(|| future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }
    let at = Cell::new(std::ptr::null());
    let late = vault.within(SOON).with_password(|bytes| {
        at.set(bytes.as_ptr());
        until(|| common::peek(at.get(), bytes.len()).iter().all(|byte| *byte == 0));
    });
    assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");

    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(vault.stop()));
    assert!(matches!(told.recv_timeout(LONG), Ok(Ending::Exit(0))));
}

fn keys_derive_unwrap_and_sign() {
    let vault = with_keys(Config::default());
    let keys = vault.generate().unwrap();
    vault.store(secret(PASSWORD)).unwrap();

    let derived = vault.derive(b"some salt", LITTLE, 32).unwrap();
    let expected = argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        argon2::Params::new(LITTLE.memory, LITTLE.passes, LITTLE.lanes, Some(32)).unwrap(),
    );
    let mut twin = [0; 32];
    expected.hash_password_into(PASSWORD, b"some salt", &mut twin).unwrap();
    assert_eq!(derived.expose_to_vec().unwrap(), twin);
    for (salt, cost, len) in [
        (&b"short"[..], LITTLE, 32),
        (b"some salt", LITTLE, 0),
        (b"some salt", LITTLE, 1025),
        (b"some salt", Cost { memory: 1 << 20, ..LITTLE }, 32),
        (b"some salt", Cost { lanes: 0, ..LITTLE }, 32),
    ] {
        assert!(matches!(vault.derive(salt, cost, len), Err(Error::Cost)), "{salt:?} {cost:?} {len}");
    }

    let wrapped = keys.wrapping.wrap(&secret(b"a key of a file")).unwrap();
    assert_eq!(vault.unwrap(&wrapped).unwrap().expose_to_vec().unwrap(), b"a key of a file");
    let mut changed = wrapped.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bad in [&changed[..], &wrapped[1..], &[]] {
        assert!(matches!(vault.unwrap(bad), Err(Error::Envelope)));
    }
    vault.store_wrapped(&keys.wrapping.wrap(&secret(b"sent along")).unwrap()).unwrap();
    assert!(vault.with_password(|bytes| bytes == b"sent along").unwrap());
    assert!(matches!(vault.store_wrapped(&changed), Err(Error::Envelope)));
    assert!(vault.with_password(|bytes| bytes == b"sent along").unwrap());

    let signature = vault.sign(b"a message").unwrap();
    assert_eq!(vault.sign(b"a message").unwrap(), signature);
    assert_ne!(vault.sign(b"a massage").unwrap(), signature);
    let verifier = ed25519_dalek_now::VerifyingKey::from_bytes(&keys.signing).unwrap();
    let signature = ed25519_dalek_now::Signature::from_bytes(&signature);
    assert!(verifier.verify_strict(b"a message", &signature).is_ok());
    assert!(verifier.verify_strict(b"a massage", &signature).is_err());
    assert!(matches!(vault.sign(&vec![0; 1 << 20]), Err(Error::Request { .. })));

    // New keys: what was for the old ones is nobody's.
    let newer = vault.generate().unwrap();
    assert_ne!(newer, keys);
    assert!(matches!(vault.unwrap(&wrapped), Err(Error::Envelope)));
    assert!(matches!(vault.with_password(|_| ()), Err(Error::NoPassword)));
}

fn every_algorithm_works_that_this_build_has() {
    for algorithm in [Algorithm::XWing, Algorithm::MlKem768, Algorithm::MlKem1024, Algorithm::Rsa2048] {
        let vault = Vault::start(Config::default().algorithm(algorithm).deadline(LONG)).unwrap();
        let keys = vault.generate();
        if algorithm == Algorithm::Rsa2048 && cfg!(not(feature = "vault-rsa")) {
            assert!(matches!(keys, Err(Error::Algorithm)), "{keys:?}");
            continue;
        }
        let keys = keys.unwrap().wrapping;
        assert_eq!((keys.algorithm(), PublicKey::from_bytes(&keys.to_bytes())), (algorithm, Some(keys.clone())));
        // Longer than RSA itself wraps.
        for len in [0, 28, 190, 191, 4096] {
            vault.store(secret(&vec![0x5A; len])).unwrap();
            assert!(vault.with_password(|bytes| bytes == vec![0x5A; len]).unwrap(), "{algorithm} {len}");
        }
        let wrapped = keys.wrap(&secret(PASSWORD)).unwrap();
        assert_eq!(vault.unwrap(&wrapped).unwrap().expose_to_vec().unwrap(), PASSWORD);
        for at in [2, wrapped.len() / 2, wrapped.len() - 1] {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(matches!(vault.unwrap(&changed), Err(Error::Envelope)), "{algorithm} {at}");
        }
        let part = |part: Part| vault.verify_allocation().unwrap().into_iter().find(|it| it.part == part);
        assert!(part(Part::WrappingKey).is_some_and(|it| it.has(Control::Lock)));
    }
}

fn passwords_of_all_lengths_and_too_long() {
    let vault = with_keys(Config::default().arena(1 << 20));
    for len in [0, 1, 26, 190, 191, 255, 256, 300, 4096, 64 << 10] {
        vault.store(secret(&vec![0x5A; len])).unwrap();
        assert!(vault.with_password(|bytes| bytes == vec![0x5A; len]).unwrap(), "{len}");
    }
    let most = 64 << 10;
    let refused = vault.store(Secret::new(most + 1).unwrap());
    assert!(matches!(refused, Err(Error::TooLong { most: it }) if it == most));
    assert_eq!(vault.with_password(<[u8]>::len).unwrap(), most, "what was there stays");
}

fn the_arena_can_be_full() {
    let vault = with_keys(Config::default());
    let most = 32 << 10;
    for _ in 0..2 {
        let refused = vault.store(Secret::new(most).unwrap());
        assert!(matches!(refused, Err(Error::ArenaFull { most: it }) if it == most), "{refused:?}");
        vault.store(secret(&vec![7; most - 64])).unwrap();
        assert_eq!(vault.with_password(<[u8]>::len).unwrap(), most - 64);
        let held = vault.protection().unwrap();
        assert_eq!((held.arena, held.held), (most, 64), "two seeds of 32 bytes");
    }
    let keys = vault.generate().unwrap();
    let wrapped = keys.wrapping.wrap(&Secret::new(most).unwrap()).unwrap();
    assert!(matches!(vault.unwrap(&wrapped), Err(Error::ArenaFull { .. })));
}

fn a_line_a_pipe_and_a_file_go_to_the_worker() {
    let vault = with_keys(Config::default());
    let prompt = Prompt::new("unused").limit(40);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    for (line, expected) in
        [("first\n", &b"first"[..]), ("second\r\n", b"second"), ("\n", b""), ("größer\n", "größer".as_bytes())]
    {
        ours.write_all(line.as_bytes()).unwrap();
        vault.read_line(&prompt, theirs.as_fd()).unwrap();
        assert!(vault.with_password(|bytes| bytes == expected).unwrap());
    }
    ours.write_all(&[b'x'; 41]).unwrap();
    ours.write_all(b"\nnext\n").unwrap();
    assert!(matches!(vault.read_line(&prompt, theirs.as_fd()), Err(Error::TooLong { most: 40 })));
    vault.read_line(&prompt, theirs.as_fd()).unwrap();
    assert!(vault.with_password(|bytes| bytes == b"next").unwrap());
    ours.write_all(b"\xff\n").unwrap();
    assert!(matches!(vault.read_line(&prompt, theirs.as_fd()), Err(Error::Utf8 { at: 0 })));
    drop(ours);
    assert!(matches!(vault.read_line(&prompt, theirs.as_fd()), Err(Error::Nothing)));

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"line one\nline two\n").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    vault.read_to_end(&prompt, file.as_fd()).unwrap();
    assert!(vault.with_password(|bytes| bytes == b"line one\nline two\n").unwrap());
    std::io::Seek::rewind(&mut file).unwrap();
    assert!(matches!(vault.read_to_end(&prompt.limit(3), file.as_fd()), Err(Error::TooLong { most: 3 })));
    let directory = std::fs::File::open("/").unwrap();
    assert!(matches!(vault.read_to_end(&prompt, directory.as_fd()), Err(Error::Unread { .. })));
    assert!(vault.with_password(|bytes| bytes == b"line one\nline two\n").unwrap(), "what was there stays");
}

fn a_terminal_asks_in_the_worker() {
    let vault = with_keys(Config::default());
    let pty = common::terminal::Pty::open();
    let (tell, told) = mpsc::channel();
    let asking = vault.clone();
    let terminal: OwnedFd = pty.device();
    let asked = std::thread::spawn(move || {
        tell.send(()).unwrap();
        asking.within(LONG).read_password_at(&Prompt::new("What? ").mask('*'), terminal.as_fd())
    });
    told.recv().unwrap();
    pty.expect("What? ");
    pty.type_in("paß\u{7f}sword\r");
    asked.join().unwrap().unwrap();
    assert!(vault.with_password(|bytes| bytes == b"pasword").unwrap());

    // A terminal is told to hide what is typed; what is none cannot be.
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let refused = vault.read_password_at(&Prompt::new("What? "), theirs.as_fd());
    assert!(matches!(refused, Err(Error::Unread { .. })), "{refused:?}");
}

fn without_keys_or_password_there_is_an_error() {
    let vault = Vault::start(Config::default()).unwrap();
    let key = with_keys(Config::default()).generate().unwrap().wrapping;
    let wrapped = key.wrap(&secret(PASSWORD)).unwrap();
    assert!(matches!(vault.with_password(|_| ()), Err(Error::NoKeys)));
    assert!(matches!(vault.store(secret(PASSWORD)), Err(Error::NoKeys)));
    assert!(matches!(vault.store_wrapped(&wrapped), Err(Error::NoKeys)));
    assert!(matches!(vault.unwrap(&wrapped), Err(Error::NoKeys)));
    assert!(matches!(vault.sign(b""), Err(Error::NoKeys)));
    assert!(matches!(vault.verify_allocation(), Err(Error::NoKeys)));
    let (_ours, theirs) = UnixStream::pair().unwrap();
    assert!(matches!(vault.read_line(&Prompt::new(""), theirs.as_fd()), Err(Error::NoKeys)));
    vault.generate().unwrap();
    assert!(matches!(vault.with_password(|_| ()), Err(Error::NoPassword)));
    assert!(matches!(vault.derive(b"some salt", LITTLE, 32), Err(Error::NoPassword)));
    vault.store(secret(PASSWORD)).unwrap();
    vault.forget().unwrap();
    assert!(matches!(vault.with_password(|_| ()), Err(Error::NoPassword)));
}

fn a_dead_worker_fails_every_call_at_once_and_is_restarted() {
    let vault = with_password();
    let events = vault.events(16);
    let pid = vault.pid();
    // Calls that wait for one that does not answer.
    signal(pid, libc::SIGSTOP);
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let vault = vault.within(LONG);
            std::thread::spawn(move || vault.with_password(|_| ()))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50)); // for some of them to wait

    signal(pid, libc::SIGKILL);

    for call in waiting {
        let failed = call.join().unwrap();
        assert!(matches!(failed, Err(Error::Ended { how: Ending::Signal(libc::SIGKILL) })), "{failed:?}");
    }
    assert!(matches!(vault.with_password(|_| ()), Err(Error::Ended { .. })));
    assert!(matches!(vault.check(), Err(Error::Ended { .. })));
    until(|| matches!(events.take(), Some(Event::Ended { pid: it, how: Ending::Signal(_) }) if it == pid));
    assert_eq!(state(pid), None, "it was reaped");

    vault.restart().unwrap();
    assert!(vault.check().is_ok() && vault.pid() != pid);
    assert!(matches!(vault.with_password(|_| ()), Err(Error::NoKeys)));
    vault.generate().unwrap();
    vault.store(secret(b"another")).unwrap();
    assert!(vault.with_password(|bytes| bytes == b"another").unwrap());
    assert_eq!(vault.counts().workers, 2);
}

fn a_worker_ends_cleanly_by_each_signal() {
    let all = [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGABRT,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGRTMIN() + 1,
    ];
    let vault = Vault::start(Config::default()).unwrap();
    for number in all {
        vault.generate().unwrap();
        signal(vault.pid(), number);
        until(|| vault.check().is_err());
        let ended = vault.check();
        assert!(matches!(ended, Err(Error::Ended { how: Ending::Signal(it) }) if it == number), "{number}: {ended:?}");
        vault.restart().unwrap();
    }
}

fn a_stopped_worker_costs_a_deadline_and_is_killed() {
    let vault = with_keys(Config::default().grace(Duration::from_millis(100)));
    vault.store(secret(PASSWORD)).unwrap();
    signal(vault.pid(), libc::SIGSTOP);
    until(|| state(vault.pid()) == Some('T'));

    let late = vault.within(SOON).with_password(|_| ());
    assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");
    // More than its socket has room for: nobody waits in a write, and what waits is no more than so much.
    let mut refused = 0;
    for _ in 0..100 {
        match vault.within(Duration::from_millis(1)).sign(&vec![7; 60_000]) {
            Err(Error::Deadline { .. }) if refused == 0 => {}
            Err(Error::Busy) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..60).contains(&refused), "{refused}");

    assert_eq!(vault.stop(), Ending::Signal(libc::SIGKILL));
    assert!(matches!(vault.with_password(|_| ()), Err(Error::Stopped)));
}

fn a_worker_that_asks_ends_with_its_caller() {
    let vault = with_keys(Config::default());
    let pty = common::terminal::Pty::open();
    let (asking, terminal) = (vault.clone(), pty.device());
    let asked =
        std::thread::spawn(move || asking.within(LONG).read_password_at(&Prompt::new("Never? "), terminal.as_fd()));
    pty.expect("Never? ");
    let pid = vault.pid();

    let how = vault.stop();

    assert!(matches!(how, Ending::Exit(0) | Ending::Signal(libc::SIGTERM)), "{how:?}");
    assert!(matches!(asked.join().unwrap(), Err(Error::Stopped)));
    assert_eq!(state(pid), None);
    assert!(pty.shows_what_is_typed(), "the terminal is as it was");
}

fn a_worker_that_is_killed_while_it_asks_leaves_the_terminal_as_it_was() {
    let vault = with_keys(Config::default());
    let pty = common::terminal::Pty::open();
    let (asking, terminal) = (vault.clone(), pty.device());
    let asked =
        std::thread::spawn(move || asking.within(LONG).read_password_at(&Prompt::new("Never? "), terminal.as_fd()));
    pty.expect("Never? ");
    assert!(!pty.shows_what_is_typed());

    signal(vault.pid(), libc::SIGKILL);

    assert!(matches!(asked.join().unwrap(), Err(Error::Ended { how: Ending::Signal(libc::SIGKILL) })));
    assert!(pty.shows_what_is_typed());
}

fn stop_fails_what_waits_and_what_comes() {
    let vault = with_password();
    let clone = vault.clone();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let waits = std::thread::spawn(move || clone.within(LONG).read_line(&Prompt::new(""), theirs.as_fd()));
    std::thread::sleep(Duration::from_millis(50)); // for it to wait

    let how = vault.stop();

    assert!(matches!(how, Ending::Exit(0)), "{how:?}");
    assert!(matches!(waits.join().unwrap(), Err(Error::Stopped)));
    assert!(matches!(vault.generate(), Err(Error::Stopped)));
    assert_eq!(vault.stop(), how, "once more is the same");
    vault.restart().unwrap();
    vault.generate().unwrap();
    let pid = vault.pid();
    drop(vault);
    assert_eq!(state(pid), None, "the last handle takes the worker along");
}

fn a_program_that_is_no_worker_is_told_from_one() {
    let missing = Vault::start(Config::default().program("/nowhere/at/all"));
    assert!(matches!(missing, Err(Error::Start { step: "starting its process", .. })), "{missing:?}");
    let other = Vault::start(Config::default().program("/bin/true"));
    assert!(matches!(other, Err(Error::Version { .. } | Error::Start { .. })), "{other:?}");
    let silent = Vault::start(Config::default().program("/usr/bin/yes").patience(SOON));
    assert!(matches!(silent, Err(Error::Start { .. } | Error::Version { .. })), "{silent:?}");
}

fn a_worker_without_its_socket_says_so() {
    for stdin in [Stdio::null(), Stdio::piped()] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env("SECMEM_VAULT_WORKER", env!("CARGO_PKG_VERSION")).stdin(stdin).stdout(Stdio::null());
        assert_eq!(child.status().unwrap().code(), Some(71));
    }
    // A socket of the right kind, and one who says nothing that makes sense.
    for (variable, word, status) in [("0.1.0", &b"no frame"[..], Some(70)), ("0.0.0", b"", Some(0))] {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env("SECMEM_VAULT_WORKER", variable).stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let mut started = child.spawn().unwrap();
        drop(child);
        if word.is_empty() {
            drop(ours);
        } else {
            rustix::net::send(&ours, word, rustix::net::SendFlags::empty()).unwrap();
        }
        assert_eq!(started.wait().unwrap().code(), status, "{word:?}");
    }
}

fn many_calls_at_once_have_slots_of_their_own() {
    let vault = with_password();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let vault = vault.clone();
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let counts = vault.counts();
    assert_eq!((counts.lent, counts.wiped), (400, 400));
    until(|| vault.counts().worker_wiped == 400);

    // Two callbacks at once see two places.
    let outer = vault.with_password(|outer| {
        vault.with_password(|inner| (outer.as_ptr() != inner.as_ptr(), outer == inner)).unwrap()
    });
    assert_eq!(outer.unwrap(), (true, true));
}

fn a_secret_that_has_ended_is_one_call_s_own_error() {
    let vault = with_password();
    let mut wiped = secret(b"gone");
    wiped.wipe().unwrap();
    assert!(matches!(vault.store(wiped), Err(Error::Memory(secmem::Error::Wiped))));
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
}

fn an_answer_that_comes_too_late_ends_nothing_else() {
    let vault = with_password();
    signal(vault.pid(), libc::SIGSTOP);
    let late = vault.within(SOON);
    let mut future = pin!(late.with_password_async(async |_| ()));
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    std::thread::sleep(2 * SOON); // and it is not polled meanwhile
    signal(vault.pid(), libc::SIGCONT);

    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
    let late = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(late, Poll::Ready(Err(Error::Deadline { .. }))), "{late:?}");
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
}

fn a_question_that_is_not_answered_in_time_ends_with_its_worker() {
    let vault = with_keys(Config::default());
    let pty = common::terminal::Pty::open();
    let asked = vault.within(SOON).read_password_at(&Prompt::new("Slow? "), pty.device().as_fd());
    assert!(matches!(asked, Err(Error::Deadline { .. })), "{asked:?}");
    assert!(pty.shows_what_is_typed(), "the terminal is as it was");
    assert!(matches!(vault.check(), Err(Error::Ended { .. })), "and what is typed now goes to nobody");

    // So does one whose worker is stopped and killed.
    let vault = with_keys(Config::default().grace(Duration::from_millis(50)));
    let (asking, terminal) = (vault.clone(), pty.device());
    let asked =
        std::thread::spawn(move || asking.within(LONG).read_password_at(&Prompt::new("Never? "), terminal.as_fd()));
    pty.expect("Never? ");
    signal(vault.pid(), libc::SIGSTOP);
    until(|| state(vault.pid()) == Some('T'));
    assert_eq!(vault.stop(), Ending::Signal(libc::SIGKILL));
    let asked = asked.join().unwrap();
    assert!(matches!(asked, Err(Error::Stopped)), "{asked:?}");
    assert!(pty.shows_what_is_typed());
}

fn text_stays_as_it_is_until_its_callback_returns() {
    let vault = with_password();
    let at = Cell::new(std::ptr::null());
    let late = vault.within(SOON).with_password_text(|text| {
        at.set(text.as_ptr());
        until(|| vault.counts().wiped == 1);
        assert_eq!(text.as_bytes(), PASSWORD);
    });
    assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");
    assert_eq!(common::peek(at.get(), PASSWORD.len()), vec![0; PASSWORD.len()]);
}

/// What the test of that name starts: the exit status says what was found.
fn closed() -> ExitCode {
    common::close_standard();
    let Ok(vault) = Vault::start(Config::default()) else { return ExitCode::from(2) };
    let is_free = |number: i32| std::fs::read_link(format!("/proc/self/fd/{number}")).is_err();
    let free = [0, 1, 2].into_iter().all(is_free);
    let works = vault.generate().is_ok();
    ExitCode::from(u8::from(!(free && works)))
}

fn a_program_without_standard_descriptors_does_not_find_the_vault_s_there() {
    let status = Command::new(std::env::current_exe().unwrap()).env(CLOSED, "").status().unwrap();
    assert_eq!(status.code(), Some(0));
}

fn a_dead_worker_is_noticed_though_somebody_has_its_end_of_the_socket() {
    let vault = with_password();
    let pid = rustix::process::Pid::from_raw(vault.pid().cast_signed()).unwrap();
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let held = rustix::process::pidfd_getfd(&handle, 0, rustix::process::PidfdGetfdFlags::empty());
    let Ok(_held) = held else { return common::skipped("the worker's descriptors can be had by root alone") };
    signal(vault.pid(), libc::SIGSTOP);
    until(|| state(vault.pid()) == Some('T'));
    let calling = vault.within(10 * LONG);
    let waits = std::thread::spawn(move || calling.with_password(|_| ()));
    std::thread::sleep(Duration::from_millis(100)); // for it to wait, and to read for itself
    signal(vault.pid(), libc::SIGKILL);
    until(|| vault.check().is_err());
    assert!(matches!(waits.join().unwrap(), Err(Error::Ended { .. })));
}

/// Stops a vault when it is woken.
struct Stops(Mutex<Option<Vault>>);

impl Wake for Stops {
    fn wake(self: Arc<Self>) {
        if let Some(vault) = self.0.lock().unwrap().take() {
            vault.stop();
        }
    }
}

fn a_waker_can_stop_the_vault() {
    let vault = with_password();
    let waker = Waker::from(Arc::new(Stops(Mutex::new(Some(vault.clone())))));
    signal(vault.pid(), libc::SIGSTOP);
    let mut future = pin!(vault.with_password_async(async |_| ()));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    signal(vault.pid(), libc::SIGCONT);
    until(|| vault.check().is_err());
    assert!(matches!(vault.stop(), Ending::Exit(0)));
}

fn the_worker_is_closed_up() {
    let vault = with_password();
    let protection = vault.protection().unwrap();
    assert!(protection.hardened && protection.filtered && protection.locked && !protection.degraded);
    assert!(!protection.traced);
    let pid = vault.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("NoNewPrivs"), "1");
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n"), "every thread of it");
    }
    if let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) {
        let open: Vec<_> = open.map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap()).collect();
        assert_eq!(u32::try_from(open.len()).unwrap(), protection.descriptors, "{open:?}");
        assert_eq!(open.iter().filter(|to| to.to_string_lossy().starts_with("socket:")).count(), 1);
        let known = |to: &str| {
            ["socket:", "/dev/null", "/proc/", "anon_inode:[pidfd]", "pidfd:"].iter().any(|it| to.starts_with(it))
        };
        assert!(open.iter().all(|to| known(&to.to_string_lossy())), "{open:?}");
    } else {
        common::skipped("the worker's descriptors can be listed by root alone");
    }
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return common::skipped("the worker's environment can be read by root alone");
    };
    let names: Vec<_> =
        environment.split(|byte| *byte == 0).filter_map(|it| it.split(|byte| *byte == b'=').next()).collect();
    assert!(names.contains(&&b"SECMEM_VAULT_WORKER"[..]));
    let known: [&[u8]; 3] = [b"SECMEM_VAULT_WORKER", b"LD_LIBRARY_PATH", b""];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
}

fn the_kernel_says_where_the_keys_lie() {
    let vault = with_keys(Config::default());
    let all = vault.verify_allocation().unwrap();
    assert_eq!(
        all.iter().map(|it| (it.part, it.bytes)).collect::<Vec<_>>(),
        [(Part::WrappingKey, 32), (Part::SigningKey, 32)]
    );
    for allocation in all {
        for control in [Control::Lock, Control::DontDump, Control::DontFork, Control::Guards] {
            assert!(allocation.has(control), "{allocation:?} {control}");
        }
        assert_eq!(allocation.has(Control::MemfdSecret), allocation.backend == Backend::MemfdSecret);
    }
}

fn a_forked_child_has_no_vault() {
    let vault = with_password();
    let status = common::fork(|| {
        let refused = |result: Result<(), Error>| matches!(result, Err(Error::Memory(secmem::Error::Forked)));
        i32::from(!refused(vault.with_password(|_| ())))
    });
    assert_eq!(status, 0);
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap(), "it is the parent's, and stays");
}

fn nothing_is_shown() {
    let vault = with_password();
    let shown = vault.with_password(|_| format!("{vault:?} {:?} {:?}", vault.counts(), vault.check())).unwrap();
    assert!(!shown.contains("horse"));
    let keys = vault.generate().unwrap();
    assert!(format!("{keys:?}").contains("X-Wing, 1216 bytes"));
    assert_eq!(PublicKey::from_bytes(&keys.wrapping.to_bytes()), Some(keys.wrapping));
}

/// Whether a type has a trait, as the compiler resolves the name.
macro_rules! has {
    ($type:ty: $($bound:tt)+) => {{
        struct Of<T: ?Sized>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        trait No {
            const HAS: bool = false;
        }
        impl<T: ?Sized> No for Of<T> {}
        #[allow(dead_code)]
        impl<T: ?Sized + $($bound)+> Of<T> {
            const HAS: bool = true;
        }
        <Of<$type>>::HAS
    }};
}

fn nothing_turns_it_into_text_or_a_copy() {
    assert!(
        has!(String: std::fmt::Display) && has!(Vec<u8>: AsRef<[u8]>) && has!(String: serde::Serialize),
        "it can tell"
    );
    assert!(!has!(Lent: std::fmt::Display), "nor `to_string`, then");
    assert!(!has!(Lent: Clone) && !has!(Lent: PartialEq) && !has!(Lent: std::hash::Hash));
    assert!(!has!(Lent: AsRef<[u8]>) && !has!(Lent: std::ops::Deref) && !has!(Lent: AsRef<str>));
    assert!(!has!(Lent: std::fmt::LowerHex) && !has!(Lent: serde::Serialize) && !has!(Lent: IntoIterator));
    assert!(!has!(Lent: Into<Vec<u8>>) && !has!(Lent: Into<String>));
    let shown = with_password().with_password(|bytes| format!("{bytes:?}").len()).unwrap();
    assert!(shown > PASSWORD.len(), "what a callback makes of the bytes is its own");
}

fn it_works_on_mlock() {
    let vault = with_keys(Config::default().backend(Backend::Mlock));
    vault.store(secret(PASSWORD)).unwrap();
    assert!(vault.with_password(|bytes| bytes == PASSWORD).unwrap());
    assert_eq!(vault.protection().unwrap().backend, Backend::Mlock);
    assert!(vault.verify_allocation().unwrap().iter().all(|it| it.backend == Backend::Mlock && it.has(Control::Lock)));
}
