//! Children that may die, and looks at memory that is no longer anyone's.
//!
//! A test that must fork, die or lower its privileges runs its body in a fresh process: this test program again, with
//! the one test selected. All foreign calls of the tests are here.
#![allow(dead_code, unreachable_pub)] // each test program uses its part
#![allow(unsafe_code)] // raw looks and foreign calls, kept in this one file

pub mod pieces;
#[cfg(target_arch = "x86_64")]
pub mod step;
pub mod terminal;

use std::any::type_name_of_val;
use std::ffi::CStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

pub const CHILD: &str = "SECMEM_TEST_CHILD";
pub const PARAMETER: &str = "SECMEM_TEST_PARAMETER";

/// Runs `body` in a process of its own and returns how that ended; exit status 0 if the body returned.
///
/// Must be the first thing in a test, and the body a closure of the test function itself: its name selects the test.
pub fn in_child(body: impl FnOnce()) -> Output {
    run(type_name_of_val(&body), 0, |_| body())
}

/// [`in_child`] with a number for the body, so that one test can have several children.
pub fn in_child_with(parameter: i32, body: impl FnOnce(i32)) -> Output {
    run(type_name_of_val(&body), parameter, body)
}

fn run(path: &str, parameter: i32, body: impl FnOnce(i32)) -> Output {
    let name = test_of(path);
    if std::env::var(CHILD).as_deref() == Ok(name) {
        limit_soft(libc::RLIMIT_CORE, 0);
        ignore_no_signal();
        body(std::env::var(PARAMETER).unwrap().parse().unwrap());
        std::process::exit(0);
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    child.env(CHILD, name).env(PARAMETER, parameter.to_string()).stdin(Stdio::null());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test\n"), "the closure is in no test of its own: {path}: {said}");
    output
}

/// Says that a test has seen less than it is there for, where that is read: what a test that passes prints is not shown.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    writeln!(std::io::stderr().lock(), "{test}: skipped: {why}").unwrap();
}

/// The test whose closure has this name.
pub fn test_of(path: &str) -> &str {
    path.split_once("::").unwrap().1.trim_end_matches("::{{closure}}")
}

/// The bytes at an address, whoever owns them now.
pub fn peek(start: *const u8, len: usize) -> Vec<u8> {
    // SAFETY: the tests look at shared arenas, which stay mapped for as long as the process lives, or at a secret's own
    // mapping while they hold the secret; volatile, for other threads and handlers may change the bytes. A test that is
    // to fault here runs in a process of its own.
    (0..len).map(|at| unsafe { start.wrapping_add(at).read_volatile() }).collect()
}

/// The bytes at an address that other threads may close at any moment, for a look after which the process ends: opens their page,
/// and lets the kernel copy them, for which closed memory is an error and no fault. Panics if they always are closed.
pub fn peek_closed(start: *const u8, into: &mut [u8]) {
    let mut fds = [0; 2];
    // SAFETY: a valid place for two descriptors.
    assert_eq!(unsafe { libc::pipe(fds.as_mut_ptr()) }, 0);
    let page = start.wrapping_sub(start.addr() % PAGE).cast_mut();
    let len = isize::try_from(into.len()).unwrap();
    let copied = (0..10_000).any(|_| {
        // SAFETY: allows more in an arena's page, on which nobody relies for being closed: the process ends after the look.
        assert_eq!(unsafe { libc::mprotect(page.cast(), PAGE, libc::PROT_READ | libc::PROT_WRITE) }, 0);
        // SAFETY: the kernel copies the bytes, or says that it cannot.
        unsafe { libc::write(fds[1], start.cast(), into.len()) == len }
    });
    assert!(copied, "{}", std::io::Error::last_os_error());
    // SAFETY: a valid place for so many bytes.
    assert_eq!(unsafe { libc::read(fds[0], into.as_mut_ptr().cast(), into.len()) }, len);
}

/// Reads one byte and returns nothing.
pub fn touch(at: *const u8) {
    std::hint::black_box(peek(at, 1));
}

/// Changes one byte.
pub fn poke(at: *mut u8) {
    // SAFETY: the callers pass addresses within a mapping, which nobody else writes to; volatile, for it must happen.
    unsafe { at.write_volatile(peek(at, 1)[0] ^ 1) };
}

pub fn raise(signal: i32) {
    // SAFETY: sends a signal to this thread; the test has said what that does.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// Closes descriptors 0, 1 and 2.
pub fn close_standard() {
    for number in 0..=2 {
        // SAFETY: the program that calls this writes to none of them by their numbers, and `Stdin` and its like own none.
        assert_eq!(unsafe { libc::close(number) }, 0);
    }
}

pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// Forks; the child runs `body` and must end with what it returns. Gives back the child's wait status.
pub fn fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child has a copy of this thread alone, and other threads (the test runner's, the deadlines') may have held
    // locks. The bodies use the allocator and exit handlers at most: the C library keeps its own locks right across fork(3),
    // and no other thread of these processes runs exit handlers.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => exit_now(body()),
        pid => {
            let mut status = 0;
            // SAFETY: waits for the child that was just made; `status` is a valid place.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            status
        }
    }
}

/// How another program is started without a copy of this process's memory.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// In a child that shares this process's memory, while this thread waits: clone(2) with the flags of vfork(2), and a stack of
    /// its own, for no compiler here knows that the caller's would be returned to twice.
    Vfork,
    /// posix_spawn(3).
    Spawn,
}

/// Starts `program` with `args`, and waits for its end. Gives back its wait status; 127 of one that cannot be started.
pub fn start(how: Start, program: &CStr, args: &[&CStr]) -> i32 {
    extern "C" fn become_another(image: *mut libc::c_void) -> i32 {
        let image: *const (*const libc::c_char, *const *const libc::c_char) = image.cast();
        // SAFETY: the caller, which waits, has passed what it is cast to here.
        let (program, args) = unsafe { image.read() };
        let none = [std::ptr::null()];
        // SAFETY: C strings and arrays that end with a null pointer.
        unsafe { libc::execve(program, args, none.as_ptr()) };
        exit_now(127)
    }
    let args: Vec<_> = args.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let mut child = 0;
    match how {
        Start::Vfork => {
            let mut image = (program.as_ptr(), args.as_ptr());
            let mut stack = vec![0_u128; 4 << 10];
            let top = stack.as_mut_ptr_range().end.cast();
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            // SAFETY: the child has the stack for itself, makes system calls alone, and has left this memory when the call returns.
            child = unsafe { libc::clone(become_another, top, flags, (&raw mut image).cast()) };
            assert!(child > 0, "{}", std::io::Error::last_os_error());
        }
        Start::Spawn => {
            let (actions, attributes, none) = (std::ptr::null(), std::ptr::null(), [std::ptr::null_mut()]);
            let args = args.as_ptr().cast();
            // SAFETY: a valid place for the number, C strings, and arrays that end with a null pointer.
            let errno = unsafe {
                libc::posix_spawn(&raw mut child, program.as_ptr(), actions, attributes, args, none.as_ptr())
            };
            if errno != 0 {
                return 127 << 8; // as a wait status
            }
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made; `status` is a valid place.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

fn limit_soft(what: libc::__rlimit_resource_t, value: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is a valid place for the answer.
    assert_eq!(unsafe { libc::getrlimit(what, &raw mut limit) }, 0);
    limit.rlim_cur = value.min(limit.rlim_max);
    // SAFETY: the structure is valid for the call.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0, "{}", std::io::Error::last_os_error());
}

fn limit(what: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the structure is valid for the call.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0, "{}", std::io::Error::last_os_error());
}

/// Lets this process lock so many bytes, and takes the privilege away to lock more.
pub fn limit_locked_memory(bytes: u64) {
    limit(libc::RLIMIT_MEMLOCK, bytes);
    // SAFETY: geteuid cannot fail and touches no memory.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: changes the user of this process alone, which loses CAP_IPC_LOCK by it.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Lets this process make no file longer than so many bytes.
pub fn limit_file_size(bytes: u64) {
    limit(libc::RLIMIT_FSIZE, bytes);
}

/// [`limit_file_size`], and can be undone by a larger number.
pub fn limit_file_size_softly(bytes: u64) {
    limit_soft(libc::RLIMIT_FSIZE, bytes);
}

/// Makes this process an ordinary user's, readable by others of that user, if it was root's.
pub fn become_ordinary() {
    // SAFETY: geteuid cannot fail and touches no memory.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: changes the user of this process alone.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: sets a flag of this process, which the change of users has cleared.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }, 0);
    }
}

/// Whether another process of the same user can read a byte of this one; its errno if not.
pub fn read_by_another(at: *const u8) -> Result<(), i32> {
    // SAFETY: takes no argument and cannot fail.
    let target = unsafe { libc::getpid() };
    let status = fork(|| {
        let mut byte = 0_u8;
        let into = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let from = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: 1 };
        // SAFETY: both vectors hold one valid place; the one in the other process is only read.
        let got = unsafe { libc::process_vm_readv(target, &raw const into, 1, &raw const from, 1, 0) };
        if got == 1 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
    });
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// Lets a crash of this process write a core.
pub fn allow_cores() {
    limit_soft(libc::RLIMIT_CORE, u64::MAX);
}

/// Sets a handler of one argument, or SIG_IGN.
pub fn set_handler(signal: i32, handler: libc::sighandler_t, flags: i32) {
    // SAFETY: zero is valid for every field.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the tests pass handlers that fit the flags and do little.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
}

/// Lets the signals that somebody sends do what they do by default: whoever started the tests may have ignored some of them, as
/// nohup does, and a shell's `&`. System calls alone.
pub fn ignore_no_signal() {
    let sent = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGALRM, libc::SIGUSR1, libc::SIGUSR2];
    for signal in sent.into_iter().chain([libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU]) {
        set_handler(signal, libc::SIG_DFL, 0);
    }
}

/// Whether this is a handler on the thread's alternate stack.
pub fn on_alternate_stack() -> bool {
    // SAFETY: zero is valid for every field.
    let mut now: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set; `now` is a valid place for the answer.
    assert_eq!(unsafe { libc::sigaltstack(std::ptr::null(), &raw mut now) }, 0);
    now.ss_flags & libc::SS_ONSTACK != 0
}

/// Where this thread's alternate stack begins, if it has one.
pub fn alternate_stack() -> Option<usize> {
    // SAFETY: zero is valid for every field.
    let mut now: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set; `now` is a valid place for the answer.
    assert_eq!(unsafe { libc::sigaltstack(std::ptr::null(), &raw mut now) }, 0);
    (now.ss_flags & libc::SS_DISABLE == 0).then(|| now.ss_sp.addr())
}

/// The address of the handler that stands for a signal.
pub fn handler_of(signal: i32) -> usize {
    // SAFETY: zero is valid for every field.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set; `action` is a valid place for the answer.
    assert_eq!(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) }, 0);
    action.sa_sigaction
}

/// Calls the purge's handler, as a handler of the application does whose old action it was.
pub fn call_handler(handler: usize, signal: i32) {
    type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    let handler = std::ptr::with_exposed_provenance::<()>(handler);
    // SAFETY: the address is that of the purge's handler, which takes three arguments and looks at the first alone.
    let handler = unsafe { std::mem::transmute::<*const (), Handler>(handler) };
    handler(signal, std::ptr::null_mut(), std::ptr::null_mut());
}

pub fn at_exit(function: extern "C" fn()) {
    // SAFETY: a function of this program lives until its end.
    assert_eq!(unsafe { libc::atexit(function) }, 0);
}

/// The `VmFlags` of the mapping that an address lies in, as the kernel reports them.
pub fn vm_flags(at: *const u8) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut within = false;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap();
        if let Some((low, high)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            within = (number(low)..number(high)).contains(&at.addr());
        } else if within && first == "VmFlags:" {
            return line.split_whitespace().skip(1).map(str::to_owned).collect();
        }
    }
    panic!("no mapping at {at:?}");
}

/// The first byte of each mapping that the kernel zeroes in forked children.
pub fn wiped_on_fork() -> Vec<*const u8> {
    writable_mappings()
        .into_iter()
        .map(|range| std::ptr::with_exposed_provenance(range.start))
        .filter(|&at| vm_flags(at).iter().any(|flag| flag == "wf"))
        .collect()
}

/// The line of `/proc/self/maps` that an address lies in.
pub fn map_line(at: *const u8) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let (low, high) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(low)..number(high)).contains(&at.addr())
    };
    maps.lines().find(holds).unwrap().to_owned()
}

/// A system call that a filter refuses from now on, in this thread: its number, and the value of one argument if only
/// calls with that are meant.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    pub number: libc::c_long,
    pub argument: Option<(usize, u32)>,
}

/// Lets the kernel answer such calls of this thread, and of those that it starts, with `errno`. For good.
pub fn refuse(call: Refused, errno: i32) {
    answer(call, libc::SECCOMP_RET_ERRNO | errno as u32);
}

/// [`refuse`], but counted: returns how often that happened so far.
#[cfg(target_arch = "x86_64")]
pub fn refuse_and_count(call: Refused, errno: i32) -> impl Fn() -> usize {
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
    static ERRNO: AtomicI32 = AtomicI32::new(0);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn refused(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        COUNT.fetch_add(1, Ordering::SeqCst);
        let context: *mut libc::ucontext_t = context.cast();
        // SAFETY: the kernel passes the context of the call that it did not make, and nobody else refers to it.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        registers[libc::REG_RAX as usize] = -i64::from(ERRNO.load(Ordering::SeqCst));
    }
    ERRNO.store(errno, Ordering::SeqCst);
    set_handler(libc::SIGSYS, refused as *const () as libc::sighandler_t, libc::SA_SIGINFO);
    answer(call, libc::SECCOMP_RET_TRAP);
    || COUNT.load(Ordering::SeqCst)
}

fn answer(call: Refused, how: u32) {
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let skip_unless =
        |k: u32, jf: u8| libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf, k };
    // struct seccomp_data: the number at 0, arguments of 8 bytes from 16 on.
    let load = |offset: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let ret = |value: u32| step(libc::BPF_RET | libc::BPF_K, value);
    let mut filter = vec![load(0)];
    match call.argument {
        None => filter.push(skip_unless(call.number as u32, 1)),
        Some((index, value)) => {
            filter.extend([skip_unless(call.number as u32, 3), load(16 + 8 * index as u32), skip_unless(value, 1)])
        }
    }
    filter.extend([ret(how), ret(libc::SECCOMP_RET_ALLOW)]);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: sets a flag of this thread.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program points to the filter, which the call copies.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Takes mappings until the kernel gives no more; returns how to give some back, one at a time.
pub fn take_all_mappings() -> impl FnMut() {
    const PAGE: usize = 4096;
    let limit: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let len = (limit + 64) * PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at a place of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    let mut at = 0;
    loop {
        // SAFETY: the page lies in the mapping that was just made and that nobody else knows.
        let changed = unsafe { libc::mprotect(start.wrapping_byte_add(at), PAGE, libc::PROT_READ) };
        if changed != 0 {
            break;
        }
        at += 2 * PAGE;
        assert!(at < len, "the kernel gave more mappings than its limit");
    }
    // One is taken where two would be too many: a page of another kind at the edge.
    let mut back = 0;
    move || {
        // SAFETY: as above. A page like its neighbours makes one mapping of three.
        let changed = unsafe { libc::mprotect(start.wrapping_byte_add(back), PAGE, libc::PROT_NONE) };
        assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
        back += 2 * PAGE;
    }
}

/// Undoes one advice or lock of the pages from `at` on, as a library or a bug might do.
pub fn spoil(at: *const u8, len: usize, how: Spoil) {
    let page = at.wrapping_sub(at.addr() % 4096).cast_mut().cast();
    let done = match how {
        // SAFETY: takes a lock away, changes no content.
        Spoil::Unlock => unsafe { libc::munlock(page, len) },
        // SAFETY: lets the pages into dumps, changes no content.
        Spoil::Dump => unsafe { libc::madvise(page, len, libc::MADV_DODUMP) },
        // SAFETY: lets the pages into children, of which the test makes none.
        Spoil::Fork => unsafe { libc::madvise(page, len, libc::MADV_DOFORK) },
        // SAFETY: the page is a guard, which nobody reads.
        Spoil::Guard => unsafe { libc::mprotect(page, len, libc::PROT_READ) },
        // SAFETY: leaves the page as it is in children, of which the test makes none.
        Spoil::Witness => unsafe { libc::madvise(page, len, libc::MADV_KEEPONFORK) },
    };
    assert_eq!(done, 0, "{how:?}: {}", std::io::Error::last_os_error());
}

#[derive(Clone, Copy, Debug)]
pub enum Spoil {
    Unlock,
    Dump,
    Fork,
    Guard,
    Witness,
}

/// The mappings that this process can write to, as ranges of addresses.
pub fn writable_mappings() -> Vec<std::ops::Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ranges = maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")).map(|line| {
        let (low, high) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        number(low)..number(high)
    });
    ranges.collect()
}

/// Reads this process's memory by its file, which shows no pages of memfd_secret; returns how many bytes it got.
pub fn read_own(start: usize, into: &mut [u8]) -> usize {
    use std::os::unix::fs::FileExt;
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    memory.read_at(into, start as u64).unwrap_or(0)
}

/// The clock by which threads sleep.
pub fn steady_time() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) }, 0);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Whether a terminal shows what is typed. Async-signal-safe.
pub fn terminal_shows(terminal: i32) -> bool {
    // SAFETY: zero is valid for every field.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the answer.
    unsafe { libc::tcgetattr(terminal, &raw mut modes) == 0 && modes.c_lflag & libc::ECHO != 0 }
}

/// Sets a variable of a process that has one thread.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: no other thread is there to read or write the environment.
    unsafe { std::env::set_var(name, value) };
}

/// Where the value of a variable stands.
pub fn variable(name: &str) -> *const u8 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: a C string; no other thread changes the environment.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    assert!(!value.is_null());
    value.cast()
}

/// Leaves the terminal that this process may have.
pub fn leave_session() {
    // SAFETY: takes nothing; the process leads no group, for the test program has started it.
    assert_ne!(unsafe { libc::setsid() }, -1, "{}", std::io::Error::last_os_error());
}

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Lets a crash of this process write no core.
pub fn no_core() {
    limit_soft(libc::RLIMIT_CORE, 0);
}

/// Whole pages, each of which can be closed.
pub struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    pub fn new(pages: usize) -> Self {
        let len = pages * PAGE;
        let (allowed, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, allowed, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self { start: start.cast(), len }
    }

    /// Nobody reads this page any more without a fault.
    pub fn close(&self, page: usize) {
        // SAFETY: a page of the mapping, to which only the tests' own children refer, who are to fault.
        let done = unsafe { libc::mprotect(self.start.wrapping_add(page * PAGE).cast(), PAGE, libc::PROT_NONE) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped until the drop, never written to; who reads a closed page is to fault.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and the slices of it have ended.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Leaves the first bytes in registers, as code does that is not written with care.
#[cfg(target_arch = "x86_64")]
pub fn load_into_registers(bytes: &[u8; 37]) {
    // SAFETY: reads 16 bytes of a longer array into a register that is told to be changed.
    unsafe { std::arch::asm!("movdqu xmm9, [{0}]", in(reg) bytes, out("xmm9") _, options(nostack, readonly)) };
}

/// Leaves a byte in a general register.
#[cfg(target_arch = "x86_64")]
pub fn load_byte(byte: &u8) {
    // SAFETY: reads a byte into a register that is told to be changed.
    unsafe { std::arch::asm!("movzx r9d, byte ptr [{0}]", in(reg) byte, out("r9") _, options(nostack, readonly)) };
}
