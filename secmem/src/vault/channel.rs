//! A session's keys, and frames through a socket.
//!
//! Both sides agree on a secret by X-Wing, of which each end has made a part for this session alone, and derive a chain from it for
//! each direction. Each frame has a key of its own: the chain gives it and moves on, and what it was before is gone. So what
//! lies in a socket's buffer, or did, opens with nothing that either process has once it was read.
//!
//! Neither kernel nor heap ever holds a body that is secret: it is encrypted in its slot before it is sent, and decrypted in
//! another after it was received.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aes_gcm_now::aead::{AeadInOut, KeyInit};
use aes_gcm_now::{Aes256Gcm, Nonce, Tag};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use super::frame::{Frame, FrameError, HEADER, Header, Kind, LONGEST, TAG};
use crate::error::Error as MemoryError;
use crate::policy::Policy;
use crate::scrub::{self, Stack};
use crate::secret::{Options, Secret};

/// Bytes of a key.
const KEY: usize = 32;

/// Bytes of packets that may wait for a worker to take them.
const WAITING: usize = 4 << 20;

/// Which end of a session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Caller,
    Worker,
}

/// The key of the next frame of one direction.
#[derive(Debug)]
struct Chain {
    key: Secret,
    number: u64,
    /// Its own: no thread that calls has to be granted one, and memory that is refused to one ends nobody's session.
    stack: Stack,
}

#[derive(Clone, Copy)]
enum Way<'a> {
    Seal,
    Open(&'a [u8; TAG]),
}

impl Chain {
    fn new(agreed: &Secret, policy: Policy, what_for: &str) -> Result<Self, MemoryError> {
        let mut key = Secret::options().policy(policy).zeroed(KEY)?;
        let mut stack = Stack::with_policy(policy, scrub::DEFAULT_STACK)?;
        agreed.look(|agreed| key.slot.write(|key| stack.run(|| derive_start(agreed, what_for, key))))???;
        Ok(Self { key, number: 0, stack })
    }

    /// Encrypts or decrypts a body where it stands, with the key of this frame, and moves on. An error before it has moved on leaves
    /// everything as it was, and its number tells.
    fn step(&mut self, header: &[u8; HEADER], body: &mut [u8], way: Way<'_>) -> Result<[u8; TAG], OpenError> {
        let (mut tag, mut moved) = (None, false);
        let stack = &mut self.stack;
        let ran = self.key.slot.write(|key| {
            stack.run(|| {
                moved = true;
                tag = step(key, header, body, way);
            })
        });
        self.number += u64::from(moved);
        ran??;
        tag.ok_or(OpenError::Frame(FrameError::Altered))
    }

    /// Moves on past a frame that nobody reads.
    fn skip(&mut self) -> Result<(), MemoryError> {
        let stack = &mut self.stack;
        self.key.slot.write(|key| stack.run(|| _ = next(key)))??;
        self.number += 1;
        Ok(())
    }
}

#[inline(never)]
fn derive_start(agreed: &[u8], what_for: &str, into: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(what_for);
    hasher.update(agreed);
    hasher.finalize_xof().fill(into);
}

/// The key of this frame; `chain` is that of those after it then.
#[inline(never)]
fn next(chain: &mut [u8]) -> Option<[u8; KEY]> {
    let mut keys = [0; 2 * KEY];
    let now = <&[u8; KEY]>::try_from(&*chain).ok()?;
    blake3::Hasher::new_keyed(now).finalize_xof().fill(&mut keys);
    let (key, rest) = keys.split_first_chunk()?;
    chain.copy_from_slice(rest);
    Some(*key)
}

#[inline(never)]
fn step(chain: &mut [u8], header: &[u8; HEADER], body: &mut [u8], way: Way<'_>) -> Option<[u8; TAG]> {
    let cipher = Aes256Gcm::new_from_slice(&next(chain)?).ok()?;
    let nonce = Nonce::default(); // no key is used twice
    match way {
        Way::Seal => {
            let tag = cipher.encrypt_inout_detached(&nonce, header, body.into()).ok()?;
            tag.as_slice().try_into().ok()
        }
        Way::Open(tag) => {
            let expected = Tag::try_from(&tag[..]).ok()?;
            cipher.decrypt_inout_detached(&nonce, header, body.into(), &expected).ok()?;
            Some(*tag)
        }
    }
}

/// The two chains that come of what was agreed on, sending and receiving.
pub(super) fn chains(agreed: &Secret, policy: Policy, end: End) -> Result<(Outgoing, Incoming), MemoryError> {
    let requests = Chain::new(agreed, policy, "secmem vault v1, from caller to worker")?;
    let answers = Chain::new(agreed, policy, "secmem vault v1, from worker to caller")?;
    Ok(match end {
        End::Caller => (Outgoing(requests), Incoming(answers)),
        End::Worker => (Outgoing(answers), Incoming(requests)),
    })
}

/// Encrypts what is sent.
#[derive(Debug)]
pub(super) struct Outgoing(Chain);

impl Outgoing {
    /// A packet with a body that everybody may know.
    pub(super) fn seal(&mut self, kind: Kind, call: u64, body: &[u8]) -> Result<Packet, OpenError> {
        let mut packet = Packet::with(Header { kind, number: self.0.number, call }, body.len());
        packet.0[HEADER..HEADER + body.len()].copy_from_slice(body);
        self.seal_in_place(packet)
    }

    /// A packet with a secret, which is encrypted in its slot and gone from there.
    pub(super) fn seal_secret(&mut self, kind: Kind, call: u64, secret: &mut Secret) -> Result<Packet, OpenError> {
        let header = Header { kind, number: self.0.number, call };
        let mut packet = Packet::with(header, secret.len());
        let head = header.encode();
        let end = HEADER + secret.len();
        let tag = secret.change(|body| {
            let tag = self.0.step(&head, body, Way::Seal)?;
            packet.0[HEADER..end].copy_from_slice(body); // no plaintext any more
            Ok::<_, OpenError>(tag)
        })??;
        packet.close(tag);
        Ok(packet)
    }

    /// The number of the next frame: an error has cost none if it is the same afterwards.
    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    fn seal_in_place(&mut self, mut packet: Packet) -> Result<Packet, OpenError> {
        let (head, rest) = packet.0.split_at_mut(HEADER);
        let end = rest.len() - TAG;
        let mut header = [0; HEADER];
        header.copy_from_slice(head);
        let tag = self.0.step(&header, &mut rest[..end], Way::Seal)?;
        packet.close(tag);
        Ok(packet)
    }
}

/// A frame that can be sent: nothing in it is secret any more.
#[derive(Debug)]
pub(super) struct Packet(Vec<u8>);

impl Packet {
    fn with(header: Header, body: usize) -> Self {
        let mut bytes = vec![0; HEADER + body + TAG];
        bytes[..HEADER].copy_from_slice(&header.encode());
        Self(bytes)
    }

    /// A frame that agrees on keys.
    pub(super) fn open(kind: Kind, body: &[u8]) -> Self {
        let mut bytes = Header { kind, number: 0, call: 0 }.encode().to_vec();
        bytes.extend(body);
        Self(bytes)
    }

    fn close(&mut self, tag: [u8; TAG]) {
        let at = self.0.len() - TAG;
        self.0[at..].copy_from_slice(&tag);
    }

    /// Sends it, with a descriptor if there is one.
    pub(super) fn send(
        &self,
        socket: BorrowedFd<'_>,
        along: Option<BorrowedFd<'_>>,
        flags: SendFlags,
    ) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = along.as_slice();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            match rustix::net::sendmsg(socket, &[IoSlice::new(&self.0)], &mut control, flags | SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()), // a packet goes whole or not at all
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Decrypts what is received.
#[derive(Debug)]
pub(super) struct Incoming(Chain);

impl Incoming {
    /// The body of the next frame, in a slot made by `options`.
    pub(super) fn open(&mut self, frame: &Frame<'_>, options: Options) -> Result<Secret, OpenError> {
        self.open_into(frame, options.zeroed(frame.body.len())?)
    }

    /// [`open`](Self::open), in a slot of the body's length.
    pub(super) fn open_into(&mut self, frame: &Frame<'_>, mut body: Secret) -> Result<Secret, OpenError> {
        let tag = self.due(frame)?;
        body.change(|slot| {
            slot.copy_from_slice(frame.body);
            self.0.step(frame.bytes, slot, Way::Open(tag))
        })??;
        Ok(body)
    }

    /// Whether this frame is still the next one: an error of memory came before its key was used, and it can be skipped.
    pub(super) fn is_next(&self, frame: &Frame<'_>) -> bool {
        frame.header.number == self.0.number
    }

    /// Goes past a frame that nobody reads: it is not decrypted.
    pub(super) fn skip(&mut self, frame: &Frame<'_>) -> Result<(), OpenError> {
        self.due(frame)?;
        Ok(self.0.skip()?)
    }

    fn due<'a>(&self, frame: &Frame<'a>) -> Result<&'a [u8; TAG], OpenError> {
        let (found, expected) = (frame.header.number, self.0.number);
        if found != expected {
            return Err(OpenError::Frame(FrameError::Order { found, expected }));
        }
        frame.tag.ok_or(OpenError::Frame(FrameError::Unexpected))
    }
}

/// Why a frame was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Frame(FrameError),
    Memory(MemoryError),
}

impl From<FrameError> for OpenError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<MemoryError> for OpenError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

/// Where packets are received. It holds what everybody may read.
#[derive(Debug)]
pub(super) struct Inbox(Box<[u8]>);

impl Inbox {
    pub(super) fn new() -> Self {
        Self(vec![0; LONGEST + 1].into_boxed_slice()) // one more, to see that a packet is too long
    }

    /// The next packet, and the descriptor that came with it; `None` at the end of the socket.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Option<(&[u8], Option<OwnedFd>)>> {
        self.receive_with(socket, RecvFlags::empty())
    }

    pub(super) fn receive_with(
        &mut self,
        socket: BorrowedFd<'_>,
        flags: RecvFlags,
    ) -> io::Result<Option<(&[u8], Option<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let into = &mut [IoSliceMut::new(&mut self.0)];
            match rustix::net::recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC | flags) {
                Ok(got) => break got.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let mut along = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                along = descriptors.last().or(along);
            }
        }
        Ok((got > 0).then(|| (&self.0[..got], along)))
    }
}

/// Packets that are to be sent, in their order: the socket may have no room.
#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<(Packet, Option<OwnedFd>)>);

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether as much waits as may: nobody has taken any of it for long.
    pub(super) fn is_full(&self) -> bool {
        self.0.iter().map(|(packet, _)| packet.0.len()).sum::<usize>() > WAITING
    }

    pub(super) fn push(&mut self, packet: Packet, along: Option<OwnedFd>) {
        self.0.push_back((packet, along));
    }

    /// Sends as many as the socket takes without waiting.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some((packet, along)) = self.0.front() {
            match packet.send(socket, along.as_ref().map(AsFd::as_fd), SendFlags::DONTWAIT) {
                Ok(()) => drop(self.0.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> ((Outgoing, Incoming), (Outgoing, Incoming)) {
        let agreed = Secret::try_from(vec![7; 32]).unwrap();
        let ends = [End::Caller, End::Worker].map(|end| chains(&agreed, Policy::default(), end).unwrap());
        ends.into()
    }

    fn open(incoming: &mut Incoming, packet: &[u8]) -> Result<Vec<u8>, FrameError> {
        let frame = Frame::parse(packet)?;
        match incoming.open(&frame, Secret::options()) {
            Ok(body) => Ok(body.expose_to_vec().unwrap()),
            Err(OpenError::Frame(error)) => Err(error),
            Err(OpenError::Memory(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn frames_open_at_the_other_end_in_their_order_alone() {
        let ((mut out, _), (_, mut incoming)) = pair();
        let packets: Vec<_> = (0..3_u8).map(|body| out.seal(Kind::Sign, 1, &[body; 40]).unwrap()).collect();
        for (packet, body) in packets.iter().zip(0_u8..) {
            assert_ne!(packet.0[HEADER..HEADER + 40], [body; 40], "it is encrypted");
        }

        assert_eq!(open(&mut incoming, &packets[0].0), Ok(vec![0; 40]));
        assert_eq!(open(&mut incoming, &packets[0].0), Err(FrameError::Order { found: 0, expected: 1 }));
        assert_eq!(open(&mut incoming, &packets[2].0), Err(FrameError::Order { found: 2, expected: 1 }));
        assert_eq!(open(&mut incoming, &packets[1].0), Ok(vec![1; 40]));
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let len = pair().0.0.seal(Kind::Done, 1, b"abc").unwrap().0.len();
        for at in 0..len {
            let ((mut out, _), (_, mut incoming)) = pair();
            let mut packet = out.seal(Kind::Done, 1, b"abc").unwrap().0;
            packet[at] ^= 1;
            assert!(open(&mut incoming, &packet).is_err(), "{at}");
        }
    }

    #[test]
    fn the_two_directions_and_each_frame_have_other_keys() {
        let ((mut to_worker, _), (mut to_caller, _)) = pair();
        let bodies: Vec<_> = [&mut to_worker, &mut to_caller]
            .into_iter()
            .flat_map(|out| {
                [(); 2].map(|()| out.seal(Kind::Done, 1, &[0; 64]).unwrap().0[HEADER..HEADER + 64].to_vec())
            })
            .collect();
        for (at, one) in bodies.iter().enumerate() {
            assert!(bodies[at + 1..].iter().all(|other| other != one));
        }
    }

    #[test]
    fn a_secret_is_gone_from_its_slot_when_it_is_sealed_and_a_skipped_frame_costs_the_next_nothing() {
        let ((mut out, _), (_, mut incoming)) = pair();
        let mut secret = Secret::try_from(b"a password of some length".to_vec()).unwrap();
        let first = out.seal_secret(Kind::Store, 1, &mut secret).unwrap();
        let left = secret.expose_to_vec().unwrap();
        assert!(left[..] == first.0[HEADER..first.0.len() - TAG] && left != b"a password of some length");
        let second = out.seal(Kind::Done, 2, b"on").unwrap();

        incoming.skip(&Frame::parse(&first.0).unwrap()).unwrap();

        assert_eq!(open(&mut incoming, &second.0), Ok(b"on".to_vec()));
    }
}
