//! What the worker does: it keeps the keys and the password, and answers one request after the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::net::{SendFlags, SocketType, sockopt};

use super::channel::{End, Inbox, Incoming, OpenError, Outgoing, Packet, chains};
use super::confine::{self, Files, errno_of, leave};
use super::envelope::{self, Key};
use super::frame::{Derive, Failed, Frame, Hello, Kind, Lies, Protected, Read, Source, Why};
use super::steps::{self, Step};
use super::{Algorithm, Error, LONGEST_KEY, Part, RELEASE, SHORTEST_SALT};
use crate::arena::Backend;
use crate::error::Error as MemoryError;
use crate::harden::Posture;
use crate::input::{InputError, Prompt};
use crate::journal::SigningKey;
use crate::owner::Owner;
use crate::policy::{Control, Policy};
use crate::pqc;
use crate::pqc::kem;
use crate::pqc::stretch::{Cost, stretch};
use crate::report::{Missing, read_again};
use crate::scrub::Stack;
use crate::secret::{Options, Secret};
use crate::sys;

/// What a derivation may cost.
const MOST: Cost = Cost { memory: 64 << 10, passes: 16, lanes: 4 };

/// Exit status of a worker that broke the session off.
const BROKEN: i32 = 70;

/// This process is a worker: does its work, and ends it.
pub(super) fn run() -> Error {
    if let Err(source) = check_socket() {
        return Error::NoSocket { source };
    }
    // A panic is not told to anybody: its message could hold what nobody is to know. It ends the process like any other end.
    std::panic::set_hook(Box::new(|_| ()));
    let status = catch_unwind(AssertUnwindSafe(|| match Worker::begin() {
        Ok(Some(mut worker)) => worker.serve(),
        Ok(None) => 0,
        Err(broken) => broken.status(),
    }));
    leave(status.unwrap_or(101))
}

/// Why the session cannot go on.
enum Broken {
    /// The caller is gone.
    Gone,
    /// What it says makes no sense, or there is no memory to hear it.
    Nonsense,
}

impl Broken {
    fn status(&self) -> i32 {
        match self {
            Self::Gone => 0,
            Self::Nonsense => BROKEN,
        }
    }
}

impl From<MemoryError> for Broken {
    fn from(_: MemoryError) -> Self {
        Self::Nonsense
    }
}

impl From<OpenError> for Broken {
    fn from(_: OpenError) -> Self {
        Self::Nonsense
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Nonsense,
        }
    }
}

impl From<super::FrameError> for Broken {
    fn from(_: super::FrameError) -> Self {
        Self::Nonsense
    }
}

/// Whether standard input is what a caller hands over.
fn check_socket() -> io::Result<()> {
    match sockopt::socket_type(io::stdin())? {
        SocketType::SEQPACKET => Ok(()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

struct Worker {
    /// Standard input: the one descriptor that it was started with.
    socket: io::Stdin,
    inbox: Inbox,
    outgoing: Outgoing,
    incoming: Incoming,
    files: Files,
    policy: Policy,
    owner: Owner,
    arena: u32,
    /// For the key encapsulation, which needs more than most.
    stack: Stack,
    keys: Option<Keys>,
    /// In an envelope: as plaintext it stands in a slot as long as a call needs it.
    password: Option<Vec<u8>>,
    /// Slots that held a plaintext so far.
    slots: u64,
}

struct Keys {
    wrapping: Key,
    signing: SigningKey,
}

enum Reply {
    Open(Kind, Vec<u8>),
    Secret(Secret),
}

const DONE: Reply = Reply::Open(Kind::Done, Vec::new());

impl Worker {
    /// Agrees on keys, and closes the process up. `None`: the caller is gone, or is of another release, which it was told.
    fn begin() -> Result<Option<Self>, Broken> {
        sys::close_all_but_standard()?;
        let socket = io::stdin();
        let mut inbox = Inbox::new();
        let Some((packet, _)) = inbox.receive(socket.as_fd())? else { return Ok(None) };
        let frame = Frame::parse(packet)?;
        if frame.header.kind != Kind::Hello {
            return Err(Broken::Nonsense);
        }
        let hello = Hello::decode(frame.body)?;
        if hello.release != RELEASE {
            Packet::open(Kind::Welcome, &[]).send(socket.as_fd(), None, SendFlags::empty())?;
            return Ok(None);
        }
        let (policy, arena) = (Policy::of_bits(hello.policy), hello.arena);
        let Some((agreed, told)) = envelope::accept(hello.public, policy)? else { return Err(Broken::Nonsense) };
        let (mut outgoing, incoming) = chains(&agreed, policy, End::Worker)?;
        drop(agreed);
        Packet::open(Kind::Welcome, &told).send(socket.as_fd(), None, SendFlags::empty())?;

        let files = match confine::close_up() {
            Ok(files) => files,
            Err(step) => {
                let told = outgoing.seal(Kind::Failed, 0, &step.told().encode())?;
                told.send(socket.as_fd(), None, SendFlags::empty())?;
                return Ok(None);
            }
        };
        let stack = Stack::with_policy(policy, kem::STACK)?;
        outgoing.seal(Kind::Ready, 0, &[])?.send(socket.as_fd(), None, SendFlags::empty())?;
        Ok(Some(Self {
            socket,
            inbox,
            outgoing,
            incoming,
            files,
            policy,
            owner: Owner::new(usize::MAX, usize::try_from(arena).unwrap_or(usize::MAX)),
            arena,
            stack,
            keys: None,
            password: None,
            slots: 0,
        }))
    }

    /// Answers until the caller is gone, says that it is over, or says what makes no sense. Returns the exit status.
    fn serve(&mut self) -> i32 {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return 0,
                Err(broken) => return broken.status(),
            }
        }
    }

    fn turn(&mut self) -> Result<bool, Broken> {
        let Some((packet, along)) = self.inbox.receive(self.socket.as_fd())? else { return Ok(false) };
        steps::pass(Step::WorkerReceived);
        let frame = Frame::parse(packet)?;
        let (kind, call) = (frame.header.kind, frame.header.call);
        // What may be a password counts as one.
        let options = Secret::options().policy(self.policy);
        let options = if kind == Kind::Store { options.owner(self.owner) } else { options };
        let body = match self.incoming.open(&frame, options) {
            // No place for it: the next one may have.
            Err(OpenError::Memory(error)) if self.incoming.is_next(&frame) => {
                self.incoming.skip(&frame)?;
                return self.fail(call, failed(&error)).map(|()| true);
            }
            opened => opened?,
        };
        steps::pass(Step::WorkerOpened);
        match self.handle(kind, body, along) {
            Ok(Reply::Open(kind, body)) => self.send(kind, call, &body)?,
            Ok(Reply::Secret(secret)) => self.lend(call, secret)?,
            Err(why) => self.fail(call, why)?,
        }
        Ok(true)
    }

    fn send(&mut self, kind: Kind, call: u64, body: &[u8]) -> Result<(), Broken> {
        Ok(self.outgoing.seal(kind, call, body)?.send(self.socket.as_fd(), None, SendFlags::empty())?)
    }

    fn fail(&mut self, call: u64, why: Failed) -> Result<(), Broken> {
        self.send(Kind::Failed, call, &why.encode())
    }

    /// Sends a plaintext, which is encrypted where it stands, wipes its slot, and says so.
    fn lend(&mut self, call: u64, mut secret: Secret) -> Result<(), Broken> {
        steps::pass(Step::WorkerPlain);
        if cfg!(secmem_ablate = "vault-worker-wipe") || steps::keeps() {
            let copy = secret.expose_to_vec()?;
            std::mem::forget(std::hint::black_box(copy));
        }
        let packet = self.outgoing.seal_secret(Kind::Secret, call, &mut secret)?;
        steps::pass(Step::WorkerSealed);
        secret.wipe()?;
        drop(secret);
        steps::pass(Step::WorkerWiped);
        packet.send(self.socket.as_fd(), None, SendFlags::empty())?;
        steps::pass(Step::WorkerSent);
        let slot = self.slots;
        self.slots += 1;
        self.send(Kind::Wiped, call, &slot.to_le_bytes())?;
        steps::pass(Step::WorkerTold);
        Ok(())
    }

    fn handle(&mut self, kind: Kind, body: Secret, along: Option<OwnedFd>) -> Result<Reply, Failed> {
        match kind {
            Kind::Generate => self.generate(&body),
            Kind::Protection => self.protection(),
            Kind::Verify => self.verify(),
            Kind::Read => self.read(&body, along),
            Kind::Store => self.store(body),
            Kind::StoreWrapped => {
                let secret = self.opened(&body)?;
                self.store(secret)
            }
            Kind::Password => self.password().map(Reply::Secret),
            Kind::Unwrap => self.opened(&body).map(Reply::Secret),
            Kind::Derive => self.derive(&body),
            Kind::Sign => self.sign(&body),
            Kind::Forget => {
                self.password = None;
                Ok(DONE)
            }
            // An answer, from the caller: it is not one of ours.
            _ => Err(Why::Memory.into()),
        }
    }

    /// What is secret and stays here.
    fn options(&self) -> Options {
        Secret::options().policy(self.policy).owner(self.owner)
    }

    fn keys(&self) -> Result<&Keys, Failed> {
        self.keys.as_ref().ok_or_else(|| Why::NoKeys.into())
    }

    fn generate(&mut self, body: &Secret) -> Result<Reply, Failed> {
        let algorithm = body.look(|body| match body {
            [byte] => Algorithm::from_byte(*byte),
            _ => None,
        });
        let algorithm = algorithm.map_err(|error| failed(&error))?.ok_or(Why::Algorithm)?;
        // First: the arena need not have room for both.
        self.password = None;
        self.keys = None;
        let wrapping = Key::draw(algorithm, self.options()).map_err(|error| match error {
            Error::Memory(error) => failed(&error),
            _ => Why::Algorithm.into(),
        })?;
        let seed = envelope::draw(32, self.options()).map_err(|error| failed(&error))?;
        let signing = SigningKey::new(seed).map_err(|_| Why::Memory)?;
        let told = [&signing.public().as_bytes()[..], &wrapping.public.to_bytes()].concat();
        self.keys = Some(Keys { wrapping, signing });
        Ok(Reply::Open(Kind::Keys, told))
    }

    /// A plaintext from an envelope.
    fn opened(&mut self, envelope: &Secret) -> Result<Secret, Failed> {
        let options = self.options();
        let keys = self.keys.as_ref().ok_or(Why::NoKeys)?;
        let opened = envelope.look(|envelope| keys.wrapping.open(&mut self.stack, envelope, options));
        opened.and_then(|opened| opened).map_err(|error| failed(&error))?.ok_or_else(|| Why::Envelope.into())
    }

    fn password(&mut self) -> Result<Secret, Failed> {
        if cfg!(secmem_ablate = "vault-password") {
            return Err(Why::Memory.into());
        }
        let options = self.options();
        let keys = self.keys.as_ref().ok_or(Why::NoKeys)?;
        let envelope = self.password.as_ref().ok_or(Why::NoPassword)?;
        if cfg!(secmem_ablate = "vault-cipher") {
            let mut secret = options.zeroed(envelope.len()).map_err(|error| failed(&error))?;
            secret.change(|slot| slot.copy_from_slice(envelope)).map_err(|error| failed(&error))?;
            return Ok(secret);
        }
        let opened = keys.wrapping.open(&mut self.stack, envelope, options);
        opened.map_err(|error| failed(&error))?.ok_or_else(|| Why::Envelope.into())
    }

    /// Keeps a password, encrypted for this worker's own key.
    fn store(&mut self, mut secret: Secret) -> Result<Reply, Failed> {
        self.keys()?;
        steps::pass(Step::WorkerTaken);
        if secret.len() > envelope::MOST {
            return Err(Failed { why: Why::TooLong, number: envelope::MOST as u64, other: 0 });
        }
        if cfg!(secmem_ablate = "vault-cipher") {
            self.password = Some(secret.expose_to_vec().map_err(|error| failed(&error))?);
            return Ok(DONE);
        }
        if cfg!(secmem_ablate = "vault-stored") {
            std::mem::forget(secret.expose_to_vec().map_err(|error| failed(&error))?);
        }
        let keys = self.keys.as_ref().ok_or(Why::NoKeys)?;
        let sealed = envelope::seal(&mut self.stack, &keys.wrapping.public, &mut secret);
        self.password = Some(sealed.map_err(|error| match error {
            Error::Memory(error) => failed(&error),
            _ => Why::Envelope.into(),
        })?);
        Ok(DONE)
    }

    /// Reads a password from what the caller has handed over.
    fn read(&mut self, body: &Secret, along: Option<OwnedFd>) -> Result<Reply, Failed> {
        self.keys()?;
        if cfg!(secmem_ablate = "vault-read") {
            return Err(Why::Unread.into());
        }
        let from = along.ok_or(Why::NoDescriptor)?;
        let options = self.options();
        let secret = body.look(|body| {
            let Read { source, limit, mask, prompt } = Read::decode(body).map_err(|_| Failed::from(Why::Unread))?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(envelope::MOST);
            let question = |prompt: Prompt<'_>| match mask {
                Some(mask) => prompt.mask(mask).ask_at(options, from.as_fd()),
                None => prompt.ask_at(options, from.as_fd()),
            };
            let read = match source {
                Source::Terminal => {
                    question(Prompt::new(prompt).limit(limit)).and_then(|text| text.into_bytes().into_secret())
                }
                Source::Line => options.read_line(from.as_fd(), limit).and_then(|text| text.into_bytes().into_secret()),
                Source::All => options.read_to_end(from.as_fd(), limit).and_then(crate::bytes::Bytes::into_secret),
            };
            read.map_err(|error| failed(&error))
        });
        let secret = secret.map_err(|error| failed(&error))??;
        self.store(secret)
    }

    fn derive(&mut self, body: &Secret) -> Result<Reply, Failed> {
        let (cost, len, salt) = body
            .look(|body| Derive::decode(body).map(|it| (it.cost, it.len, it.salt.to_vec())))
            .map_err(|error| failed(&error))?
            .map_err(|_| Why::Cost)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !cost.is_within(&MOST) || len == 0 || len > LONGEST_KEY || salt.len() < SHORTEST_SALT {
            return Err(Why::Cost.into());
        }
        let mut derived = self.options().zeroed(len).map_err(|error| failed(&error))?;
        let password = self.password()?;
        stretch(cost, self.policy, &password, &salt, &mut derived).map_err(|error| match error {
            pqc::Error::Memory(error) => failed(&error),
            _ => Why::Cost.into(),
        })?;
        Ok(Reply::Secret(derived))
    }

    fn sign(&self, body: &Secret) -> Result<Reply, Failed> {
        let keys = self.keys()?;
        let signed = body.look(|message| keys.signing.sign(message)).map_err(|error| failed(&error))?;
        Ok(Reply::Open(Kind::Signature, signed.map_err(|_| Why::Memory)?.to_vec()))
    }

    fn protection(&self) -> Result<Reply, Failed> {
        let probe = self.options().zeroed(0).map_err(|error| failed(&error))?;
        let protection = probe.protection();
        let status = read_again(&self.files.status).map_err(|_| Why::Memory)?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok())
        };
        let posture = Posture::now().map_err(|error| failed(&error))?;
        let (_, held) = self.owner.holds();
        let told = Protected {
            hardened: posture.is_hardened(),
            traced: field("TracerPid").is_some_and(|pid| pid != 0),
            filtered: field("Seccomp") == Some(2), // SECCOMP_MODE_FILTER
            memfd_secret: protection.reached == Backend::MemfdSecret,
            locked: protection.locked,
            degraded: protection.is_degraded(),
            arena: self.arena,
            held: u32::try_from(held).unwrap_or(u32::MAX),
            descriptors: sys::open_descriptors(),
            resident: field("VmRSS").unwrap_or(0).saturating_mul(1024),
        };
        Ok(Reply::Open(Kind::Protected, told.encode()))
    }

    /// Where everything secret lies that outlives a call, as the kernel tells it.
    fn verify(&self) -> Result<Reply, Failed> {
        let keys = self.keys()?;
        let parts = [(Part::WrappingKey, &keys.wrapping.seed), (Part::SigningKey, keys.signing.expose())];
        let mut all = Vec::new();
        for (part, secret) in parts {
            let confirmation = secret.verify().map_err(|error| failed(&error))?;
            let bit = |control: Control| 1_u8 << control as u8;
            let reached = secret.protection().controls().filter(|it| it.reached).map(|it| bit(it.control)).sum();
            let mut missing = 0;
            for what in confirmation.missing {
                missing |= match what {
                    Missing::Control { control, .. } => bit(control),
                    Missing::ForkWitness => bit(Control::ForkWitness),
                    // Not there, or open to more than it should be: nothing can be said for it.
                    Missing::Access { .. } | Missing::Unmapped { .. } => u8::MAX,
                };
            }
            if confirmation.arenas != 1 {
                missing = u8::MAX; // nothing was looked at
            }
            let bytes = u32::try_from(secret.len()).unwrap_or(u32::MAX);
            let memfd_secret = secret.protection().reached == Backend::MemfdSecret;
            all.push(Lies { part: part as u8, bytes, memfd_secret, reached, missing });
        }
        Ok(Reply::Open(Kind::Verified, Lies::encode(&all)))
    }
}

/// What the caller is told of an error: numbers.
fn failed(error: &MemoryError) -> Failed {
    let number = u64::from(errno_of(error).unsigned_abs());
    let why = |why| Failed { why, number, other: 0 };
    match error {
        MemoryError::Quota { most_bytes, len, .. } => {
            Failed { why: Why::ArenaFull, number: *len as u64, other: *most_bytes as u64 }
        }
        MemoryError::Refused { .. } | MemoryError::Handlers { .. } | MemoryError::Random { .. } => why(Why::Refused),
        MemoryError::Utf8 { at } => Failed { why: Why::Utf8, number: *at as u64, other: 0 },
        MemoryError::Read { .. } => why(Why::Unread),
        MemoryError::Input(error) => match error {
            InputError::TooLong { limit } => Failed { why: Why::TooLong, number: *limit as u64, other: 0 },
            InputError::Interrupted => why(Why::Interrupted),
            InputError::Nothing => why(Why::Nothing),
            InputError::Terminal { source, .. } => Failed {
                why: Why::Terminal,
                number: u64::from(source.raw_os_error().unwrap_or(0).unsigned_abs()),
                other: 0,
            },
            _ => why(Why::Terminal),
        },
        _ => why(Why::Memory),
    }
}
