//! What the two processes say to each other: frames, one a packet, and what stands in them. Pure: no I/O, no secret.
//!
//! ```text
//! offset  0  version   1 byte
//!         1  kind      1 byte
//!         2  zero      2 bytes
//!         4  zero      4 bytes
//!         8  number    8 bytes, little-endian: of the frame, in its direction, from 0 on
//!        16  call      8 bytes, little-endian
//!        24  body      at most MOST bytes, encrypted
//!         -  tag       16 bytes
//! ```
//!
//! The first frame of each side ([`Kind::Hello`], [`Kind::Welcome`]) agrees on keys: its body is open, and has no tag. From then on a
//! frame that was changed, repeated, left out or put in another place does not open, and ends the session.

use crate::pqc::Cost;

/// The version of all this.
pub(crate) const VERSION: u8 = 1;
/// Bytes before the body.
pub(crate) const HEADER: usize = 24;
/// Bytes after it.
pub(crate) const TAG: usize = 16;
/// Bytes of a body: a secret of 64 KiB as a foreign envelope, and what is said beside it.
pub(crate) const MOST: usize = (64 << 10) + 4096;
/// Bytes of a frame.
pub(crate) const LONGEST: usize = HEADER + MOST + TAG;

/// Why a packet is no frame, or its body does not say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Too few bytes for a frame.
    #[error("a frame of {len} bytes is cut off")]
    Truncated {
        /// Bytes that came.
        len: usize,
    },
    /// More bytes than a frame has.
    #[error("a frame of more than {most} bytes")]
    Oversized {
        /// Bytes that it may have.
        most: usize,
    },
    /// A version that is not spoken here.
    #[error("a frame of version {found}; this is version {VERSION}")]
    Version {
        /// The frame's.
        found: u8,
    },
    /// A kind that is not known.
    #[error("a frame of the unknown kind {found}")]
    Kind {
        /// The frame's.
        found: u8,
    },
    /// Bytes that are to be zero are not.
    #[error("a frame with reserved bytes in use")]
    Reserved,
    /// It is not the next one: repeated, left out, or in another order.
    #[error("frame {found} came where frame {expected} was due")]
    Order {
        /// The frame's number.
        found: u64,
        /// The number that was due.
        expected: u64,
    },
    /// Its tag is not that of the next frame: it was changed, or is another session's.
    #[error("a frame was changed, or is not of this session")]
    Altered,
    /// Its body does not say what its kind has to.
    #[error("a frame whose body says nothing that its kind knows")]
    Body,
    /// A kind that has no place at this moment.
    #[error("a frame of a kind that is not expected now")]
    Unexpected,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)+) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Kind {
            $($(#[$doc])* $name = $number,)+
        }

        impl Kind {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// To the worker: version, and one half of the agreement on keys.
    Hello = 0x01,
    /// Make new keys.
    Generate = 0x02,
    /// How is the worker protected?
    Protection = 0x03,
    /// Where do the keys lie?
    Verify = 0x04,
    /// Read the password from the descriptor that comes along.
    Read = 0x05,
    /// Keep this password.
    Store = 0x06,
    /// Keep the password in this envelope.
    StoreWrapped = 0x07,
    /// The password, for one call.
    Password = 0x08,
    /// What is in this envelope, for one call.
    Unwrap = 0x09,
    /// A key derived from the password.
    Derive = 0x0a,
    /// A signature of this message.
    Sign = 0x0b,
    /// Forget the password.
    Forget = 0x0c,

    /// From the worker: the other half of the agreement.
    Welcome = 0x81,
    /// It is confined, and takes requests.
    Ready = 0x82,
    /// It is done.
    Done = 0x83,
    /// The public halves of new keys.
    Keys = 0x84,
    /// What [`Kind::Protection`] asked for.
    Protected = 0x85,
    /// What [`Kind::Verify`] asked for.
    Verified = 0x86,
    /// A secret.
    Secret = 0x87,
    /// A signature.
    Signature = 0x88,
    /// It is not done, and why.
    Failed = 0x89,
    /// The worker's slot of a call was wiped.
    Wiped = 0x8a,
}

/// What stands before a body. It is authenticated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) call: u64,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION;
        bytes[1] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..].copy_from_slice(&self.call.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Result<Self, FrameError> {
        if bytes[0] != VERSION {
            return Err(FrameError::Version { found: bytes[0] });
        }
        let kind = Kind::from_byte(bytes[1]).ok_or(FrameError::Kind { found: bytes[1] })?;
        if bytes[2..8] != [0; 6] {
            return Err(FrameError::Reserved);
        }
        let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes); // always 8 bytes
        Ok(Self { kind, number: word(8), call: word(16) })
    }
}

/// A packet that is a frame. What its body says is known when it has been opened.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: Header,
    /// The header as it came.
    pub(crate) bytes: &'a [u8; HEADER],
    pub(crate) body: &'a [u8],
    /// `None` in the frames that agree on keys.
    pub(crate) tag: Option<&'a [u8; TAG]>,
}

impl<'a> Frame<'a> {
    /// What a packet is.
    pub(crate) fn parse(packet: &'a [u8]) -> Result<Self, FrameError> {
        let truncated = FrameError::Truncated { len: packet.len() };
        let (bytes, rest) = packet.split_first_chunk::<HEADER>().ok_or(truncated)?;
        if packet.len() > LONGEST {
            return Err(FrameError::Oversized { most: LONGEST });
        }
        let header = Header::decode(bytes)?;
        if matches!(header.kind, Kind::Hello | Kind::Welcome) {
            return Ok(Self { header, bytes, body: rest, tag: None });
        }
        let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(truncated)?;
        Ok(Self { header, bytes, body, tag: Some(tag) })
    }
}

/// Reads a body piece by piece.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Body)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Body),
        }
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }

    fn end(self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Body) }
    }
}

/// What the worker is to be like, and the caller's half of the agreement on keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello<'a> {
    /// The crate's version: both sides are one program.
    pub(crate) release: &'a str,
    /// Bytes of secret that the worker may hold.
    pub(crate) arena: u32,
    /// The policy of its memory.
    pub(crate) policy: u16,
    /// The key that the worker encapsulates for.
    pub(crate) public: &'a [u8],
}

impl<'a> Hello<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(8 + self.release.len() + self.public.len());
        body.extend(self.arena.to_le_bytes());
        body.extend(self.policy.to_le_bytes());
        body.push(u8::try_from(self.release.len()).unwrap_or(u8::MAX)); // the crate's own version is short
        body.extend(self.release.as_bytes().iter().take(usize::from(u8::MAX)));
        body.extend(self.public);
        body
    }

    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader(body);
        let (arena, policy, len) = (reader.u32()?, reader.u16()?, usize::from(reader.u8()?));
        let (release, public) = reader.rest().split_at_checked(len).ok_or(FrameError::Body)?;
        let release = str::from_utf8(release).map_err(|_| FrameError::Body)?;
        Ok(Self { release, arena, policy, public })
    }
}

/// How a descriptor is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Source {
    /// It is a terminal, and a person is asked.
    Terminal = 0,
    /// One line of it.
    Line = 1,
    /// All of it.
    All = 2,
}

/// What [`Kind::Read`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read<'a> {
    pub(crate) source: Source,
    /// Bytes that the password may have.
    pub(crate) limit: u32,
    /// What is shown for a character.
    pub(crate) mask: Option<char>,
    pub(crate) prompt: &'a str,
}

impl<'a> Read<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.source as u8];
        body.extend(self.limit.to_le_bytes());
        body.extend(self.mask.map_or(0, u32::from).to_le_bytes());
        body.extend(self.prompt.as_bytes());
        body
    }

    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader(body);
        let source = match reader.u8()? {
            0 => Source::Terminal,
            1 => Source::Line,
            2 => Source::All,
            _ => return Err(FrameError::Body),
        };
        let limit = reader.u32()?;
        let mask = match reader.u32()? {
            0 => None,
            mask => Some(char::from_u32(mask).ok_or(FrameError::Body)?),
        };
        let prompt = str::from_utf8(reader.rest()).map_err(|_| FrameError::Body)?;
        Ok(Self { source, limit, mask, prompt })
    }
}

/// What [`Kind::Derive`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Derive<'a> {
    pub(crate) cost: Cost,
    /// Bytes of the key.
    pub(crate) len: u32,
    pub(crate) salt: &'a [u8],
}

impl<'a> Derive<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(16 + self.salt.len());
        for word in [self.cost.memory, self.cost.passes, self.cost.lanes, self.len] {
            body.extend(word.to_le_bytes());
        }
        body.extend(self.salt);
        body
    }

    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader(body);
        let cost = Cost { memory: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        Ok(Self { cost, len: reader.u32()?, salt: reader.rest() })
    }
}

/// What [`Kind::Protected`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protected {
    pub(crate) hardened: bool,
    /// Processes that trace it.
    pub(crate) traced: bool,
    /// System calls that are not on its list are refused.
    pub(crate) filtered: bool,
    /// The worker's memory is memfd_secret's.
    pub(crate) memfd_secret: bool,
    /// The memory is never swapped out.
    pub(crate) locked: bool,
    /// Something that the policy asked for is not there.
    pub(crate) degraded: bool,
    /// Bytes of secret that it may hold.
    pub(crate) arena: u32,
    /// Bytes that it holds.
    pub(crate) held: u32,
    /// Descriptors that are open.
    pub(crate) descriptors: u32,
    /// Bytes of its memory that are resident.
    pub(crate) resident: u64,
}

impl Protected {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = [self.hardened, self.traced, self.filtered, self.memfd_secret, self.locked, self.degraded];
        let mut body: Vec<u8> = flags.into_iter().map(u8::from).collect();
        for word in [self.arena, self.held, self.descriptors] {
            body.extend(word.to_le_bytes());
        }
        body.extend(self.resident.to_le_bytes());
        body
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader(body);
        let protected = Self {
            hardened: reader.flag()?,
            traced: reader.flag()?,
            filtered: reader.flag()?,
            memfd_secret: reader.flag()?,
            locked: reader.flag()?,
            degraded: reader.flag()?,
            arena: reader.u32()?,
            held: reader.u32()?,
            descriptors: reader.u32()?,
            resident: reader.u64()?,
        };
        reader.end().map(|()| protected)
    }
}

/// Where one secret of the worker lies: an entry of [`Kind::Verified`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lies {
    /// Which.
    pub(crate) part: u8,
    pub(crate) bytes: u32,
    pub(crate) memfd_secret: bool,
    /// A bit for each control that was there when the memory was made.
    pub(crate) reached: u8,
    /// A bit for each of them that the kernel does not show now.
    pub(crate) missing: u8,
}

const LIES: usize = 8;

impl Lies {
    pub(crate) fn encode(all: &[Self]) -> Vec<u8> {
        let mut body = Vec::with_capacity(all.len() * LIES);
        for lies in all {
            body.extend([lies.part, u8::from(lies.memfd_secret), lies.reached, lies.missing]);
            body.extend(lies.bytes.to_le_bytes());
        }
        body
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Vec<Self>, FrameError> {
        let one = |bytes: &[u8]| {
            let mut reader = Reader(bytes);
            let (part, memfd_secret, reached, missing) = (reader.u8()?, reader.flag()?, reader.u8()?, reader.u8()?);
            let bytes = reader.u32()?;
            reader.end().map(|()| Self { part, bytes, memfd_secret, reached, missing })
        };
        body.chunks(LIES).map(one).collect()
    }
}

/// Why the worker did not do it: [`Kind::Failed`]. Numbers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) why: Why,
    /// What belongs to it: an errno, a length.
    pub(crate) number: u64,
    /// Another one.
    pub(crate) other: u64,
}

/// Why the worker did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Why {
    /// No keys were made yet.
    NoKeys = 1,
    /// There is no password.
    NoPassword = 2,
    /// Its arena is full: bytes asked for, bytes that it may hold.
    ArenaFull = 3,
    /// The secret is longer than it may be: bytes.
    TooLong = 4,
    /// The envelope is not for its keys, or was changed.
    Envelope = 5,
    /// A derivation that is refused.
    Cost = 6,
    /// The user gave up.
    Interrupted = 7,
    /// There was nothing to read.
    Nothing = 8,
    /// What was read is not UTF-8: where.
    Utf8 = 9,
    /// The terminal does not do as it is told: errno.
    Terminal = 10,
    /// Reading failed: errno.
    Unread = 11,
    /// The kernel refused memory: errno.
    Refused = 12,
    /// The request needs a descriptor, and none came.
    NoDescriptor = 13,
    /// An algorithm that this build does not have.
    Algorithm = 14,
    /// Something else went wrong with memory.
    Memory = 15,
}

impl Why {
    const ALL: [Self; 15] = [
        Self::NoKeys,
        Self::NoPassword,
        Self::ArenaFull,
        Self::TooLong,
        Self::Envelope,
        Self::Cost,
        Self::Interrupted,
        Self::Nothing,
        Self::Utf8,
        Self::Terminal,
        Self::Unread,
        Self::Refused,
        Self::NoDescriptor,
        Self::Algorithm,
        Self::Memory,
    ];
}

impl From<Why> for Failed {
    fn from(why: Why) -> Self {
        Self { why, number: 0, other: 0 }
    }
}

impl Failed {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut body = vec![self.why as u8];
        body.extend(self.number.to_le_bytes());
        body.extend(self.other.to_le_bytes());
        body
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader(body);
        let byte = reader.u8()?;
        let why = Why::ALL.into_iter().find(|why| *why as u8 == byte).ok_or(FrameError::Body)?;
        let failed = Self { why, number: reader.u64()?, other: reader.u64()? };
        reader.end().map(|()| failed)
    }
}

/// The worker's slot of a call was wiped: the body of [`Kind::Wiped`].
pub(crate) fn slot_of(body: &[u8]) -> Result<u64, FrameError> {
    body.try_into().map(u64::from_le_bytes).map_err(|_| FrameError::Body)
}

/// Holds the frame that a packet is, if it is one, to what it says of itself: written again it is the same.
///
/// # Panics
///
/// If it is not.
pub(crate) fn hold(packet: &[u8]) {
    let Ok(frame) = Frame::parse(packet) else { return };
    assert_eq!(frame.header.encode(), *frame.bytes, "a header");
    let tag = frame.tag.map_or(0, |tag| tag.len());
    assert_eq!(HEADER + frame.body.len() + tag, packet.len(), "nothing is left over");
    assert!(frame.body.len() <= MOST + TAG);
    let body = frame.body;
    let again = match frame.header.kind {
        Kind::Hello => Hello::decode(body).map(|hello| hello.encode()),
        Kind::Read => Read::decode(body).map(|read| read.encode()),
        Kind::Derive => Derive::decode(body).map(|derive| derive.encode()),
        Kind::Protected => Protected::decode(body).map(|protected| protected.encode()),
        Kind::Verified => Lies::decode(body).map(|lies| Lies::encode(&lies)),
        Kind::Failed => Failed::decode(body).map(Failed::encode),
        Kind::Wiped => slot_of(body).map(|slot| slot.to_le_bytes().to_vec()),
        _ => return, // whatever stands there
    };
    if let Ok(again) = again {
        assert_eq!(again, body, "a body of {:?}", frame.header.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: Kind, body: &[u8]) -> Vec<u8> {
        let header = Header { kind, number: 7, call: 9 }.encode();
        [&header[..], body, &[0xA7; TAG]].concat()
    }

    #[test]
    fn a_frame_is_what_was_put_in() {
        for &kind in Kind::ALL {
            let packet = packet(kind, b"body");
            let frame = Frame::parse(&packet).unwrap();
            assert_eq!(frame.header, Header { kind, number: 7, call: 9 });
            assert_eq!(&frame.body[..4], b"body");
            assert_eq!(frame.tag.is_none(), matches!(kind, Kind::Hello | Kind::Welcome));
        }
    }

    #[test]
    fn what_is_no_frame_is_told_apart() {
        let good = packet(Kind::Done, b"");
        let changed = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            Frame::parse(&bad).unwrap_err()
        };
        for len in 0..good.len() {
            assert_eq!(Frame::parse(&good[..len]).unwrap_err(), FrameError::Truncated { len });
        }
        assert_eq!(Frame::parse(&vec![1; LONGEST + 1]).unwrap_err(), FrameError::Oversized { most: LONGEST });
        assert!(Frame::parse(&packet(Kind::Secret, &vec![0; MOST])).is_ok());
        assert_eq!(changed(0, 2), FrameError::Version { found: 2 });
        assert_eq!(changed(1, 0), FrameError::Kind { found: 0 });
        assert_eq!(changed(1, 0x7f), FrameError::Kind { found: 0x7f });
        for at in 2..8 {
            assert_eq!(changed(at, 1), FrameError::Reserved);
        }
    }

    #[test]
    fn bodies_come_back_as_they_were() {
        let hello = Hello { release: "0.1.0", arena: 1 << 15, policy: 3, public: &[5; 1216] };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        for mask in [None, Some('•')] {
            let read = Read { source: Source::Line, limit: 77, mask, prompt: "Passwort: " };
            assert_eq!(Read::decode(&read.encode()), Ok(read));
        }
        let derive = Derive { cost: Cost::default(), len: 32, salt: b"salt" };
        assert_eq!(Derive::decode(&derive.encode()), Ok(derive));
        let protected = Protected {
            hardened: true,
            traced: false,
            filtered: true,
            memfd_secret: false,
            locked: true,
            degraded: false,
            arena: 1,
            held: 2,
            descriptors: 3,
            resident: 4,
        };
        assert_eq!(Protected::decode(&protected.encode()), Ok(protected));
        let lies = [1, 2].map(|part| Lies { part, bytes: 32, memfd_secret: true, reached: 5, missing: 4 });
        assert_eq!(Lies::decode(&Lies::encode(&lies)).unwrap(), lies);
        for why in Why::ALL {
            let failed = Failed { why, number: 1, other: u64::MAX };
            assert_eq!(Failed::decode(&failed.encode()), Ok(failed));
        }
        assert_eq!(slot_of(&7_u64.to_le_bytes()), Ok(7));
    }

    #[test]
    fn bodies_that_are_cut_off_or_go_on_say_nothing() {
        let body = Failed::from(Why::Cost).encode();
        for len in 0..body.len() {
            assert_eq!(Failed::decode(&body[..len]), Err(FrameError::Body));
        }
        assert_eq!(Failed::decode(&[&body[..], &[0]].concat()), Err(FrameError::Body));
        assert_eq!(Failed::decode(&[0; 17]), Err(FrameError::Body));
        assert_eq!(Read::decode(&[3; 9]), Err(FrameError::Body));
        assert_eq!(Read::decode(&[&[0; 9][..], &[0xff]].concat()), Err(FrameError::Body));
        assert_eq!(Hello::decode(&[9; 7]), Err(FrameError::Body));
        assert_eq!(Derive::decode(&[0; 15]), Err(FrameError::Body));
        assert_eq!(Lies::decode(&[0; 9]), Err(FrameError::Body));
        assert_eq!(Protected::decode(&[2; 26]), Err(FrameError::Body));
        assert_eq!(slot_of(&[0; 7]), Err(FrameError::Body));
    }
}
