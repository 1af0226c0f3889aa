//! The caller's end: starts a worker, sends it requests, hands its answers to those who wait, and sees to its end.
//!
//! A thread reads the answers. Whoever waits for one and finds nobody reading reads them himself meanwhile, for others too: the
//! thread need not be woken then to wake him. It goes on watching for the worker's end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::call::{Answer, Call, Ledger, Pending, wake};
use super::channel::{End, Inbox, Incoming, OpenError, Outbox, Outgoing, Packet, chains};
use super::envelope;
use super::error::{Ending, Error};
use super::event::Event;
use super::frame::{Failed, Frame, FrameError, Hello, Kind, slot_of};
use super::steps::{self, Step};
use super::{Config, Over, RELEASE, VARIABLE};
use crate::error::Error as MemoryError;
use crate::policy::Policy;
use crate::secret::Secret;
use crate::sys;

/// How long a worker that was told to end has before it gets a signal.
const SOON: Duration = Duration::from_millis(250);

/// What a request carries.
pub(super) enum Body<'a> {
    Open(&'a [u8]),
    Secret(&'a mut Secret),
}

/// A worker, and the session with it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) pid: u32,
    socket: OwnedFd,
    /// Can be read when the socket can, for the thread: but not while somebody else reads.
    watch: OwnedFd,
    /// Wakes the thread.
    wake: OwnedFd,
    process: OwnedFd,
    out: Mutex<Out>,
    /// `None` when there is nothing to be read any more.
    reading: Mutex<Option<Reading>>,
    pending: Pending,
    ledger: Arc<Ledger>,
    policy: Policy,
    grace: Duration,
    ended: Mutex<Option<Ending>>,
    ends: Condvar,
    reader: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Out {
    outgoing: Outgoing,
    outbox: Outbox,
}

/// What whoever reads has.
#[derive(Debug)]
struct Reading {
    inbox: Inbox,
    incoming: Incoming,
}

/// The same behind the three that everybody writes to by their numbers, which a program may have closed.
fn behind_standard(fd: OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3) }
}

fn start(step: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::Start { step, source: errno.into() }
}

/// A worker that is not yet one: killed and reaped if it does not become one.
struct Newborn {
    child: Option<Child>,
    process: Option<OwnedFd>,
}

impl Newborn {
    fn keep(mut self) -> Option<(Child, OwnedFd)> {
        self.child.take().zip(self.process.take())
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

impl Link {
    /// Starts a worker; it is confined, and takes requests, when this returns.
    pub(super) fn start(config: &Config, ledger: &Arc<Ledger>) -> Result<Arc<Self>, Error> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(start("socketpair"))?;
        let socket = behind_standard(socket).map_err(start("fcntl"))?;
        let mut command = Command::new(&config.program);
        command.arg0("secmem-vault").env_clear().env(VARIABLE, RELEASE);
        // Where a program finds its libraries, the worker has to, too.
        if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", path);
        }
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(hits) = steps::of_next_worker() {
            command.env(steps::VARIABLE, hits).stderr(Stdio::inherit());
        }
        let child = command.spawn().map_err(|source| Error::Start { step: "starting its process", source })?;
        drop(command); // and the worker's end of the socket with it
        let pid = child.id();
        let mut newborn = Newborn { child: Some(child), process: None };
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| start("its number")(rustix::io::Errno::SRCH))?;
        let process = pidfd_open(number, PidfdFlags::empty()).and_then(behind_standard).map_err(start("pidfd_open"))?;

        let end = Instant::now().checked_add(config.patience);
        let mut inbox = Inbox::new();
        let (outgoing, mut incoming) = agree(&socket, &process, &mut inbox, config, end)?;
        ready(&socket, &process, &mut inbox, &mut incoming, end)?;

        newborn.process = Some(process);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.and_then(behind_standard).map_err(start("eventfd"))?;
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).and_then(behind_standard);
        let watch = watch.map_err(start("epoll_create1"))?;
        epoll::add(&watch, &socket, THE_SOCKET, epoll::EventFlags::IN).map_err(start("epoll_ctl"))?;
        let Some((child, process)) = newborn.keep() else { return Err(start("its number")(rustix::io::Errno::SRCH)) };
        let link = Arc::new(Self {
            pid,
            socket,
            watch,
            wake,
            process,
            out: Mutex::new(Out { outgoing, outbox: Outbox::default() }),
            reading: Mutex::new(Some(Reading { inbox, incoming })),
            pending: Pending::default(),
            ledger: Arc::clone(ledger),
            policy: config.policy,
            grace: config.grace,
            ended: Mutex::new(None),
            ends: Condvar::new(),
            reader: Mutex::new(None),
        });
        let reader = Arc::clone(&link);
        let mut held = Newborn { child: Some(child), process: None };
        // The child goes to the thread; if there is no thread, it is killed here.
        let (give, take) = std::sync::mpsc::channel();
        let thread = sys::quiet_thread("secmem-vault", move || {
            if let Ok(child) = take.recv() {
                reader.read(child);
            }
        })
        .map_err(|source| Error::Start { step: "a thread that reads its answers", source })?;
        if let Some(child) = held.child.take() {
            let _ = give.send(child); // the thread waits for it
        }
        *link.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        ledger.started(pid);
        Ok(link)
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether requests are taken.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.pending.over().map_or(Ok(()), |over| Err(over.into()))
    }

    /// Sends a request, and returns before its answer is there.
    pub(super) fn request(
        self: &Arc<Self>,
        kind: Kind,
        body: Body<'_>,
        along: Option<OwnedFd>,
        span: Duration,
    ) -> Result<Request, Error> {
        if crate::arena::in_child() {
            return Err(MemoryError::Forked.into()); // locks may be held by threads that are not there
        }
        let call = Call::new(self.ledger.next_call(), span, &self.ledger);
        self.pending.add(&call)?;
        let request = Request { link: Arc::clone(self), call };
        let id = request.call.id;
        steps::pass(Step::CallerAsked);
        let mut out = self.out();
        if out.outbox.is_full() {
            return Err(Error::Busy);
        }
        let before = out.outgoing.number();
        let packet = match body {
            Body::Open(body) => out.outgoing.seal(kind, id, body),
            Body::Secret(secret) => out.outgoing.seal_secret(kind, id, secret),
        };
        let packet = match packet {
            Ok(packet) => packet,
            // If the keys have not moved on, it is this call's own error: its secret has ended, say.
            Err(error) => {
                let moved = out.outgoing.number() != before;
                drop(out);
                if moved {
                    self.pending.end(Over::Broken(FrameError::Altered));
                    self.wake();
                }
                return Err(error.into());
            }
        };
        steps::pass(Step::CallerSealed);
        out.outbox.push(packet, along);
        // An error is the end of the worker, which the thread that reads tells to all who wait.
        let sent = out.outbox.send(self.socket.as_fd());
        let waits = sent.is_err() || !out.outbox.is_empty();
        drop(out);
        if waits {
            self.wake();
        }
        steps::pass(Step::CallerSent);
        Ok(request)
    }

    fn wake(&self) {
        // The counter is full after 2^64 - 2 of these, and awake then.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Takes no more requests, fails those that wait, and ends the worker: by the end of its socket, then by SIGTERM, and by
    /// SIGKILL when its grace is over. Returns when it is gone.
    pub(super) fn stop(&self) -> Ending {
        if crate::arena::in_child() {
            return Ending::Unknown; // it is the parent's
        }
        self.pending.end(Over::Stopped);
        self.wake();
        let reader = || self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader().as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id()) {
            return Ending::Unknown; // within a waker: this thread sees to it when that has returned
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let how = loop {
            if let Some(how) = *ended {
                break how;
            }
            ended = self.ends.wait(ended).unwrap_or_else(PoisonError::into_inner);
        };
        drop(ended);
        // Nothing of it goes on when this has returned, its thread neither. It does not panic; what it would say then is said.
        let thread = reader().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        how
    }

    /// Lets the worker end, without a word to the calls that wait: the thread that reads tells them.
    pub(super) fn give_up(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both); // it may be gone
        self.wake();
    }

    /// Waits until the worker is gone.
    pub(super) fn await_end(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while ended.is_none() {
            ended = self.ends.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the thread does: reads answers as long as there is a worker, then buries it.
    fn read(self: Arc<Self>, mut child: Child) {
        while self.pending.over().is_none() {
            // Without this thread nobody would hear of the worker's end, and `stop` would wait for ever.
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    if let Some(why) = why {
                        self.pending.end(why);
                    }
                    break;
                }
                Err(_panic) => break,
            }
        }
        let broken = matches!(self.pending.over(), Some(Over::Broken(_)));
        let how = self.bury(&mut child, broken);
        *self.reading() = None; // who reads has seen the end of the socket
        self.out().outbox = Outbox::default(); // nobody takes it any more
        self.pending.end(Over::Ended(how));
        self.ledger.audience.tell(|| Event::Ended { pid: self.pid, how });
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.ends.notify_all();
    }

    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same if nobody has it.
    fn try_reading(&self) -> Option<MutexGuard<'_, Option<Reading>>> {
        match self.reading.try_lock() {
            Ok(reading) => Some(reading),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for something to do, and does it. An error: the session is over, for a reason or because the worker is.
    fn turn(&self) -> Result<(), Option<Over>> {
        let waits = !self.out().outbox.is_empty();
        let mut places = [
            PollFd::new(&self.watch, PollFlags::IN),
            PollFd::new(&self.wake, PollFlags::IN),
            PollFd::new(&self.process, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::OUT),
        ];
        let places = &mut places[..if waits { 4 } else { 3 }];
        match poll(places, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(None),
        }
        let is_ready = |at: usize| places.get(at).is_some_and(|place| !place.revents().is_empty());
        if is_ready(1) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]); // empty if another one was faster
        }
        if is_ready(3) && self.out().outbox.send(self.socket.as_fd()).is_err() {
            return Err(None);
        }
        if is_ready(2) {
            // What it said before it died is read first. Whoever else reads has seen that it is dead.
            loop {
                let received = self.receive(&mut self.reading())?;
                if !received.wake() {
                    return Err(None);
                }
            }
        }
        if is_ready(0) {
            let received = self.try_reading().map(|mut reading| self.receive(&mut reading));
            match received {
                Some(received) => _ = received?.wake(), // when the lock is given back
                None => std::thread::yield_now(),       // somebody is just beginning, or ending
            }
        }
        Ok(())
    }

    /// Reads until the call is answered or its time is over, unless somebody does that already.
    fn read_for(&self, call: &Call) {
        let Some(reading) = self.try_reading() else { return };
        let Ok(mut reader) = Reader::begin(self, reading) else { return };
        let mut wakers = Vec::new();
        let why = self.read_until(call, &mut reader.reading, &mut wakers);
        drop(reader);
        // Somebody else's code: not while others wait for the lock.
        wakers.into_iter().for_each(wake);
        // The thread sees to the end.
        if let Err(Some(why)) = why {
            self.pending.end(why);
            self.wake();
        }
    }

    fn read_until(
        &self,
        call: &Call,
        reading: &mut Option<Reading>,
        wakers: &mut Vec<Waker>,
    ) -> Result<(), Option<Over>> {
        while !call.is_settled() {
            let left = call.left();
            if left == Some(Duration::ZERO) {
                return Ok(());
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            // A worker that has died, too: another process may have its end of the socket.
            let mut places = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.process, PollFlags::IN)];
            match poll(&mut places, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Ok(()),
            }
            let is_dead = !places[1].revents().is_empty();
            match self.receive(reading)? {
                Received::Nothing if is_dead => return Err(None),
                received => wakers.extend(received.waker()),
            }
        }
        // Right behind a plaintext the worker says that its slot was wiped: not worth waking the thread for.
        wakers.extend(self.receive(reading)?.waker());
        Ok(())
    }

    /// Reads a packet, if there is one, and says whether there was.
    fn receive(&self, reading: &mut Option<Reading>) -> Result<Received, Option<Over>> {
        let Some(Reading { inbox, incoming }) = reading else { return Err(None) };
        let packet = match inbox.receive_with(self.socket.as_fd(), RecvFlags::DONTWAIT) {
            Ok(Some((packet, _))) => packet,
            Ok(None) => return Err(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(_) => return Err(None),
        };
        let frame = Frame::parse(packet).map_err(|error| Some(Over::Broken(error)))?;
        let (kind, id) = (frame.header.kind, frame.header.call);
        let plain = Secret::options().policy(self.policy);
        if kind == Kind::Wiped {
            let body = self.opened(incoming.open(&frame, plain))?;
            let slot = body.look(slot_of).map_err(|_| None)?.map_err(|error| Some(Over::Broken(error)))?;
            self.ledger.worker_wiped(id, slot);
            return Ok(Received::Packet(None));
        }
        let Some(call) = self.pending.get(id) else {
            // Given up meanwhile: nobody is to see what it says.
            return self.opened(incoming.skip(&frame)).map(|()| Received::Packet(None));
        };
        steps::pass(Step::CallerReceived);
        let opened = if kind == Kind::Secret {
            let place = call.place(plain, frame.body.len()).map_err(OpenError::Memory);
            place.and_then(|place| incoming.open_into(&frame, place))
        } else {
            incoming.open(&frame, plain)
        };
        let settled = match opened {
            Ok(body) if kind == Kind::Failed => {
                let failed = body.look(Failed::decode).map_err(|_| None)?;
                Err(failed.map_err(|error| Some(Over::Broken(error)))?.into())
            }
            Ok(body) => {
                if kind == Kind::Secret {
                    steps::pass(Step::CallerOpened);
                }
                Ok((kind, body))
            }
            // There is no place for it, or its time was over before it came: that is this call's own, and the next frame opens.
            Err(OpenError::Memory(error)) if incoming.is_next(&frame) => {
                self.opened(incoming.skip(&frame))?;
                Err(if matches!(error, MemoryError::Expired) { call.too_late() } else { error.into() })
            }
            Err(error) => return self.opened(Err(error)),
        };
        self.pending.take(id);
        Ok(Received::Packet(call.settle(settled)))
    }

    /// What ends the session, of what can go wrong with a frame.
    #[expect(clippy::unused_self, reason = "reads as what it is")]
    fn opened<T>(&self, opened: Result<T, OpenError>) -> Result<T, Option<Over>> {
        opened.map_err(|error| match error {
            OpenError::Frame(error) => Some(Over::Broken(error)),
            // After a purge the keys are gone.
            OpenError::Memory(_) => Some(Over::Purged),
        })
    }

    /// Sees to it that the worker ends. `now`: it is not to be trusted.
    fn bury(&self, child: &mut Child, now: bool) -> Ending {
        let _ = shutdown(&self.socket, Shutdown::Both); // it may be gone
        let signal = |signal| _ = pidfd_send_signal(&self.process, signal); // the same
        if now {
            signal(Signal::KILL);
        } else if !self.is_gone_within(SOON) {
            signal(Signal::TERM);
            if !self.is_gone_within(self.grace) {
                signal(Signal::KILL);
            }
        }
        match child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exit(code),
                (None, Some(signal)) => Ending::Signal(signal),
                (None, None) => Ending::Unknown,
            },
            Err(_) => Ending::Unknown,
        }
    }

    fn is_gone_within(&self, span: Duration) -> bool {
        readable_within(self.process.as_fd(), None, Instant::now().checked_add(span)).is_ok()
    }
}

/// The one thing that is watched.
const THE_SOCKET: epoll::EventData = epoll::EventData::new_u64(0);

/// Somebody who reads in the thread's place, until this is dropped.
struct Reader<'a> {
    link: &'a Link,
    reading: MutexGuard<'a, Option<Reading>>,
}

impl<'a> Reader<'a> {
    fn begin(link: &'a Link, reading: MutexGuard<'a, Option<Reading>>) -> rustix::io::Result<Self> {
        epoll::modify(&link.watch, &link.socket, THE_SOCKET, epoll::EventFlags::empty())?;
        Ok(Self { link, reading })
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // Before the lock is given back: another reader may take the socket from the thread at once.
        if epoll::modify(&self.link.watch, &self.link.socket, THE_SOCKET, epoll::EventFlags::IN).is_err() {
            // Nobody would read any more.
            self.link.pending.end(Over::Ended(Ending::Unknown));
            self.link.wake();
        }
    }
}

/// Waits until one of the two can be read; an error when the time is over.
fn readable_within(
    one: BorrowedFd<'_>,
    other: Option<BorrowedFd<'_>>,
    end: Option<Instant>,
) -> Result<(), rustix::io::Errno> {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let other = other.unwrap_or(one);
        let mut places = [PollFd::from_borrowed_fd(one, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        match poll(&mut places, left.as_ref()) {
            Ok(0) => return Err(rustix::io::Errno::TIMEDOUT),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The next packet of a worker that has not become one yet.
fn packet<'a>(
    socket: &OwnedFd,
    process: &OwnedFd,
    inbox: &'a mut Inbox,
    end: Option<Instant>,
) -> Result<&'a [u8], Error> {
    readable_within(socket.as_fd(), Some(process.as_fd()), end).map_err(start("waiting for its first word"))?;
    match inbox.receive_with(socket.as_fd(), RecvFlags::DONTWAIT) {
        Ok(Some((packet, _))) => Ok(packet),
        // Whatever it is, it is no worker.
        Ok(None) => Err(Error::Version { ours: RELEASE }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::Version { ours: RELEASE }),
        Err(source) => Err(Error::Start { step: "its first word", source }),
    }
}

/// Agrees on the keys of this session.
fn agree(
    socket: &OwnedFd,
    process: &OwnedFd,
    inbox: &mut Inbox,
    config: &Config,
    end: Option<Instant>,
) -> Result<(Outgoing, Incoming), Error> {
    let proposed = envelope::propose(config.policy)?;
    let public = proposed.public.to_bytes();
    let arena = u32::try_from(config.arena).unwrap_or(u32::MAX);
    let hello = Hello { release: RELEASE, arena, policy: config.policy.bits(), public: &public[1..] };
    let hello = Packet::open(Kind::Hello, &hello.encode());
    hello.send(socket.as_fd(), None, SendFlags::DONTWAIT).map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => Error::Version { ours: RELEASE },
        _ => Error::Start { step: "its first request", source },
    })?;
    let frame = Frame::parse(packet(socket, process, inbox, end)?)?;
    if frame.header.kind != Kind::Welcome {
        return Err(FrameError::Unexpected.into());
    }
    if frame.body.is_empty() {
        return Err(Error::Version { ours: RELEASE }); // it is of another one
    }
    let agreed = envelope::conclude(&proposed, frame.body, config.policy)?.ok_or(FrameError::Altered)?;
    Ok(chains(&agreed, config.policy, End::Caller)?)
}

/// Waits until the worker has closed itself up.
fn ready(
    socket: &OwnedFd,
    process: &OwnedFd,
    inbox: &mut Inbox,
    incoming: &mut Incoming,
    end: Option<Instant>,
) -> Result<(), Error> {
    let frame = Frame::parse(packet(socket, process, inbox, end)?)?;
    let kind = frame.header.kind;
    let body = incoming.open(&frame, Secret::options()).map_err(|error| match error {
        OpenError::Frame(error) => Error::Protocol(error),
        OpenError::Memory(error) => Error::Memory(error),
    })?;
    match kind {
        Kind::Ready => Ok(()),
        Kind::Failed => {
            let failed = body.look(Failed::decode)??;
            let errno = i32::try_from(failed.number).unwrap_or(0);
            Err(Error::Confine { step: super::confine::Step::name_of(failed.other), errno })
        }
        _ => Err(FrameError::Unexpected.into()),
    }
}

/// What came of a look at the socket.
enum Received {
    Nothing,
    /// A packet, and who is to be woken for it.
    Packet(Option<Waker>),
}

impl Received {
    fn waker(self) -> Option<Waker> {
        match self {
            Self::Nothing => None,
            Self::Packet(waker) => waker,
        }
    }

    /// Wakes whoever is to be; says whether there was a packet.
    fn wake(self) -> bool {
        let is_packet = matches!(self, Self::Packet(_));
        self.waker().into_iter().for_each(wake);
        is_packet
    }
}

/// A request that was sent. Dropped before its answer is taken, it is given up: the answer is not decrypted when it comes.
#[derive(Debug)]
pub(super) struct Request {
    link: Arc<Link>,
    call: Arc<Call>,
}

impl Request {
    pub(super) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Waits for the answer.
    pub(super) fn wait(&self) -> Result<Answer, Error> {
        self.link.read_for(&self.call);
        self.call.wait()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !crate::arena::in_child() {
            self.link.pending.take(self.call.id);
        }
    }
}
