//! One residue: what rule it breaks, where it lies, how long it is. Never what it says.

use serde::{Deserialize, Serialize};

/// The kind of place in which a residue lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A thread's stack, at or above its stack pointer (less the red zone).
    Stack,
    /// A thread's stack below its stack pointer: frames that have returned.
    DeadStack,
    /// The stack that a living thread named for its signals.
    AlternateStack,
    /// The allocator's `brk` heap.
    Heap,
    /// A heap of one of glibc's arenas for threads.
    Arena,
    /// An allocation that glibc gave a mapping of its own: still allocated, as freeing it unmaps it.
    MappedChunk,
    /// Anonymous memory of which no more is known.
    Anonymous,
    /// Private or shared memory of a file.
    File,
    /// Shared anonymous memory, memfds and System V segments.
    Shared,
    /// `memfd_secret` memory, read by injection.
    SecretMemory,
    /// The kernel's code page in user space.
    Vdso,
    /// The argument strings of the initial stack block.
    Argv,
    /// The environment strings of the initial stack block.
    Environ,
    /// The rest of the initial stack block: auxiliary vector, random bytes, executable name.
    Auxv,
    /// A register of a thread.
    Register,
    /// What waits in a pipe or a FIFO, in the kernel.
    Pipe,
    /// What waits in a socket's receive queue, in the kernel.
    Socket,
    /// What a memfd holds, `memfd_secret` files included, and no mapping of the process shows.
    Memfd,
    /// A file that has no name any more (or never had one) and lives on behind a descriptor.
    DeletedFile,
    /// A thread's name, which the kernel keeps and every user can read (proc_pid_comm(5)).
    ThreadName,
    /// A core dump: memory or notes.
    Core,
    /// Bytes of a plain file that was scanned as such.
    Data,
}

impl Class {
    /// All classes, in the order of reports.
    pub const ALL: [Self; 22] = [
        Self::Stack,
        Self::DeadStack,
        Self::AlternateStack,
        Self::Heap,
        Self::Arena,
        Self::MappedChunk,
        Self::Anonymous,
        Self::File,
        Self::Shared,
        Self::SecretMemory,
        Self::Vdso,
        Self::Argv,
        Self::Environ,
        Self::Auxv,
        Self::Register,
        Self::Pipe,
        Self::Socket,
        Self::Memfd,
        Self::DeletedFile,
        Self::ThreadName,
        Self::Core,
        Self::Data,
    ];

    /// The word in rule ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::DeadStack => "dead-stack",
            Self::AlternateStack => "alternate-stack",
            Self::Heap => "heap",
            Self::Arena => "arena",
            Self::MappedChunk => "mapped-chunk",
            Self::Anonymous => "anonymous",
            Self::File => "file",
            Self::Shared => "shared",
            Self::SecretMemory => "secret-memory",
            Self::Vdso => "vdso",
            Self::Argv => "argv",
            Self::Environ => "environ",
            Self::Auxv => "auxv",
            Self::Register => "register",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
            Self::Memfd => "memfd",
            Self::DeletedFile => "deleted-file",
            Self::ThreadName => "thread-name",
            Self::Core => "core",
            Self::Data => "data",
        }
    }

    /// Whether the kernel keeps it behind a descriptor, outside of the address space: then a place has a descriptor, and
    /// an address is an offset in what lies behind it.
    pub const fn is_behind_descriptor(self) -> bool {
        matches!(self, Self::Pipe | Self::Socket | Self::Memfd | Self::DeletedFile)
    }

    /// Whether it is memory of a living process: a place with an address there.
    pub const fn is_in_memory(self) -> bool {
        !self.is_behind_descriptor() && !matches!(self, Self::Register | Self::ThreadName | Self::Core | Self::Data)
    }
}

/// The form in which the secret was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// As it is.
    Raw,
    /// Last byte first.
    Reversed,
    /// Hexadecimal, small letters.
    HexLower,
    /// Hexadecimal, capital letters.
    HexUpper,
    /// Base64 with the standard alphabet, at any of its three phases.
    Base64,
    /// Base64 with the URL alphabet, where it differs from the standard one.
    Base64Url,
    /// The two bytes of each 16-bit word exchanged.
    Swap16,
    /// The bytes of each 32-bit word reversed.
    Swap32,
    /// The bytes of each 64-bit word reversed.
    Swap64,
    /// UTF-16, the low byte of each unit first.
    Utf16Le,
    /// UTF-16, the high byte of each unit first.
    Utf16Be,
    /// Four bytes a character, the lowest first: UTF-32, or an array of 32-bit numbers.
    Utf32Le,
    /// Decimal numbers with commas between them: a JSON array.
    JsonArray,
    /// Percent encoding with small letters.
    PercentLower,
    /// Percent encoding with capital letters.
    PercentUpper,
    /// Each byte exclusive-or 0x36, as HMAC's inner key.
    Xor36,
    /// Each byte exclusive-or 0x5c, as HMAC's outer key.
    Xor5c,
    /// Each bit inverted.
    Inverted,
    /// 30-bit limbs of a big number, one in each 32-bit word: an integer of Python's.
    Limbs30,
    /// 32-bit limbs of a big number, in an order that is neither reversed nor swapped words.
    Limbs32,
    /// 64-bit limbs of a big number, in an order that is neither reversed nor swapped words.
    Limbs64,
    /// Round keys of AES encryption, made from the secret as key; the key itself is [`Raw`](Self::Raw).
    AesEncKey,
    /// Round keys of AES decryption (the equivalent inverse cipher), made from the secret as key.
    AesDecKey,
    /// Words of SHA-256's message schedule for a message that is the secret, or its first block: those that are computed,
    /// or all with their constants added.
    Sha256Schedule,
    /// Computed words of SHA-512's message schedule for a message that is the secret, or its first block.
    Sha512Schedule,
    /// The secret as HMAC's inner or outer key, in the words of a SHA-2 block.
    HmacBlock,
    /// HMAC-SHA-256's state after its inner or its outer key, made from the secret as key.
    HmacSha256State,
    /// HMAC-SHA-512's state after its inner or its outer key, made from the secret as key.
    HmacSha512State,
    /// The constants and the key of ChaCha20's state, or the words of the key each several times, as vector code keeps them.
    ChachaState,
    /// The scalar and the prefix of Ed25519, made from the secret as seed.
    Ed25519Key,
    /// A number of an RSA private key (d, p, q, dp, dq, qinv) that the secret is in PEM or DER, in either byte order.
    RsaNumber,
    /// Somebody's AES key of 128 bits with its round keys, found by structure.
    Aes128Schedule,
    /// Somebody's AES key of 192 bits with its round keys, found by structure.
    Aes192Schedule,
    /// Somebody's AES key of 256 bits with its round keys, found by structure.
    Aes256Schedule,
    /// Somebody's private key in PKCS #1, found by structure.
    Pkcs1Key,
    /// Somebody's private key in PKCS #8, found by structure.
    Pkcs8Key,
    /// Somebody's private key in SEC1, found by structure.
    Sec1Key,
    /// Somebody's private key in OpenSSH's format, found by structure.
    OpenSshKey,
    /// Somebody's private key in PEM, found by structure.
    PemKey,
}

impl Form {
    /// The word in rule ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Reversed => "reversed",
            Self::HexLower => "hex-lower",
            Self::HexUpper => "hex-upper",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Swap16 => "swap16",
            Self::Swap32 => "swap32",
            Self::Swap64 => "swap64",
            Self::Utf16Le => "utf16le",
            Self::Utf16Be => "utf16be",
            Self::Utf32Le => "utf32le",
            Self::JsonArray => "json-array",
            Self::PercentLower => "percent-lower",
            Self::PercentUpper => "percent-upper",
            Self::Xor36 => "xor36",
            Self::Xor5c => "xor5c",
            Self::Inverted => "inverted",
            Self::Limbs30 => "limbs30",
            Self::Limbs32 => "limbs32",
            Self::Limbs64 => "limbs64",
            Self::AesEncKey => "aes-enc-key",
            Self::AesDecKey => "aes-dec-key",
            Self::Sha256Schedule => "sha256-schedule",
            Self::Sha512Schedule => "sha512-schedule",
            Self::HmacBlock => "hmac-block",
            Self::HmacSha256State => "hmac-sha256-state",
            Self::HmacSha512State => "hmac-sha512-state",
            Self::ChachaState => "chacha-state",
            Self::Ed25519Key => "ed25519-key",
            Self::RsaNumber => "rsa-number",
            Self::Aes128Schedule => "aes128-schedule",
            Self::Aes192Schedule => "aes192-schedule",
            Self::Aes256Schedule => "aes256-schedule",
            Self::Pkcs1Key => "pkcs1-key",
            Self::Pkcs8Key => "pkcs8-key",
            Self::Sec1Key => "sec1-key",
            Self::OpenSshKey => "openssh-key",
            Self::PemKey => "pem-key",
        }
    }

    /// Whether it is a key that nobody named, found by what it looks like. Then offsets and lengths are those of the
    /// structure.
    pub const fn is_unknown(self) -> bool {
        matches!(
            self,
            Self::Aes128Schedule
                | Self::Aes192Schedule
                | Self::Aes256Schedule
                | Self::Pkcs1Key
                | Self::Pkcs8Key
                | Self::Sec1Key
                | Self::OpenSshKey
                | Self::PemKey
        )
    }

    /// Whether it is not the secret that is written but something made from it. Then offsets and lengths are those of
    /// what was made, and whole is all of that.
    pub const fn is_derived(self) -> bool {
        matches!(
            self,
            Self::AesEncKey
                | Self::AesDecKey
                | Self::Sha256Schedule
                | Self::Sha512Schedule
                | Self::HmacSha256State
                | Self::HmacSha512State
                | Self::Ed25519Key
                | Self::RsaNumber
        )
    }
}

/// What a finding breaks: a form of the secret in a kind of place. Written `CLASS.FORM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The kind of place.
    pub class: Class,
    /// The form of the secret.
    pub form: Form,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.class.name(), self.form.name())
    }
}

/// One residue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it breaks.
    pub rule: Rule,
    /// The scenario, or the path of what was scanned.
    pub scenario: String,
    /// The checkpoint at which it was seen.
    pub checkpoint: String,
    /// The process of the tree: 1 is the one that was started, its children count on.
    pub process: u32,
    /// The mapping's or the register's name as the kernel tells it; empty for anonymous memory.
    pub place: String,
    /// Permissions of the mapping (`rw-p`); empty for registers.
    pub permissions: String,
    /// Address in the target, or offset in the file; for a register 0.
    pub address: u64,
    /// Bytes of the place that the residue fills.
    pub length: u64,
    /// Index of the first byte of the secret that it shows; of what was made from it, if the form is derived.
    pub secret_offset: u64,
    /// Bytes of the secret that it shows.
    pub secret_length: u64,
    /// Whether that is the whole secret.
    pub whole: bool,
    /// What the target made of the secret, by name, where it is that which was found; then the offset and the lengths
    /// are its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<String>,
    /// Names the same residue in another run: made from names and lengths, not from addresses.
    pub fingerprint: String,
    /// Who wrote it, where that was asked and found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
    /// Who freed it as it was, where it lies on a heap and that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed: Option<Writer>,
    /// Why no writer is named, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattributed: Option<String>,
    /// In how many of several equal runs it was seen; absent where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
}

/// How often a residue was seen: intermittent if not in all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// Runs in which it was seen.
    pub seen: u32,
    /// All runs.
    pub of: u32,
}

/// Who wrote a residue.
///
/// Seen in a further run in which the residue stood at the same address again, and whose bytes were those that this
/// write had left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The frames of the writing instruction, innermost first.
    pub frames: Vec<Frame>,
    /// How it was written: `instruction`, `system call read(4, …)`, `frame of signal 15`. Empty where it is not told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub how: String,
    /// Why the frames end before the first function of the thread; `None` if they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Index of the frame in whose part of the stack the residue lies, for a residue on a stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<u32>,
    /// Who wrote the end of the residue, where that was somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Box<Writer>>,
}

impl Writer {
    /// Index of the frame to which the write is charged: the innermost outside the C library and the standard library.
    /// They write where they are told.
    pub fn charged(&self) -> Option<usize> {
        self.frames.iter().position(|frame| !matches!(frame.origin, Origin::Libc | Origin::Std))
    }

    /// Whether it is a part of freeing memory: the innermost functions are those of an allocator, and one of them frees.
    pub fn frees(&self) -> bool {
        let mut innermost = self.frames.iter().take_while(|frame| frame.origin == Origin::Libc || frame.frees());
        innermost.any(Frame::frees)
    }

    /// Index of the innermost frame of the program's own code, as far as that is known.
    pub fn own(&self) -> Option<usize> {
        self.frames.iter().position(|frame| frame.origin == Origin::Own)
    }
}

/// Whose code a function is, as far as its module and its source path tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Not known.
    #[default]
    Unknown,
    /// The C library, the dynamic linker, the unwinder.
    Libc,
    /// The language's standard library.
    Std,
    /// Somebody's package or a library of the system.
    Dependency,
    /// The program's own.
    Own,
}

impl Origin {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

impl Frame {
    /// Whether the function's name says that it frees memory.
    fn frees(&self) -> bool {
        let name = self.function.rsplit("::").next().unwrap_or_default().trim_start_matches('_');
        ["free", "cfree", "int_free", "libc_free", "GI___libc_free", "je_free", "mi_free", "realloc", "int_realloc"]
            .iter()
            .any(|known| name == *known || name.starts_with(&format!("{known}_")))
            || name.contains("libc_free")
    }
}

/// One function of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function, demangled; module and offset where no symbol is known.
    pub function: String,
    /// Source file, if line tables know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Source line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Whether the compiler inlined it into the next frame.
    pub inlined: bool,
    /// File name of the program or library that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Whose code it is.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
}
