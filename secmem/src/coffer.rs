//! Secrets that lie encrypted until they are needed.
//!
//! What is stored is ciphertext in ordinary memory. The key to it does not exist while nobody uses it: it is derived for each
//! use from a *pre-key*, 16 KiB of random bytes in a slot of an arena, of which every bit counts. Who gets a part of it, by a bug
//! that reads past an end, or all of it but wrong bits, by a side channel, has to try what is missing: 16 bytes are out of reach, and
//! so are some ten wrong bits; one or two are not.
//!
//! ```
//! use secmem::{Secret, Coffer};
//!
//! let coffer = Coffer::new()?;
//! let token = Secret::try_from(b"a token that is seldom needed".to_vec())?;
//! let stored = coffer.store(&token)?;
//! drop(token); // from here on it is nowhere in the clear
//!
//! let opened = stored.open(Secret::options())?; // into a slot of an arena, and nowhere else
//! assert!(opened.with(|bytes| bytes.starts_with(b"a token"))?);
//! coffer.rekey()?; // what a slow reader has gathered so far is worth nothing
//! # Ok::<(), secmem::Error>(())
//! ```
//!
//! # How
//!
//! - Extract: POLYVAL (RFC 8452) of the pre-key's blocks under its first 16 bytes. A universal hash: whoever lacks 40 bytes of the
//!   input, anywhere, knows next to nothing of the result.
//! - Expand: BLAKE3, keyed by the pre-key's last 32 bytes, of that and of a salt, random for each time that something is stored.
//! - AES-256-GCM under that key, which no other salt gives, and so under one nonce. The salt, the length, and whose content it is, are authenticated.
//!
//! All of it runs on a [`Stack`] of the coffer's, from and to slots of arenas: neither keys nor round keys stay behind. Ciphers
//! and hashes are those of well-known crates.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aes_gcm_now::aead::{AeadInOut, KeyInit};
use aes_gcm_now::{Aes256Gcm, Key, Nonce, Tag};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;

use crate::arena::{self, Protection, Since};
use crate::error::Error;
use crate::policy::Policy;
use crate::scrub::{self, Stack};
use crate::secret::{Options, Secret};
use crate::{keystream, sys, wipe};

/// Bytes of the pre-key.
const PRE_KEY: usize = 16 << 10;

/// Bytes of a salt.
const SALT: usize = 16;

/// Bytes of a tag.
const TAG: usize = 16;

/// A pre-key, and what is encrypted under it. Copies of the handle are the same coffer.
///
/// One call at a time: another thread's waits. With feature `tracing`, a listener that is told something while a call runs must not
/// use the same coffer, which would wait for itself.
#[derive(Clone)]
pub struct Coffer(Arc<Inner>);

struct Inner {
    policy: Policy,
    state: Mutex<State>,
    /// Wakes the thread that makes new pre-keys, when there is no coffer any more.
    gone: Arc<(Mutex<bool>, Condvar)>,
}

struct State {
    pre_key: Secret,
    /// What the cipher runs on: in memory of the same policy.
    stack: Stack,
    objects: BTreeMap<u64, Object>,
    count: u64,
    /// Pre-keys so far.
    drawn: u64,
}

/// Nothing in it is secret.
#[derive(Clone)]
struct Object {
    salt: [u8; SALT],
    tag: [u8; TAG],
    ciphertext: Box<[u8]>,
}

impl Coffer {
    /// An empty coffer, with its pre-key where [`Policy::default`] puts it: in memfd_secret where that can be had.
    ///
    /// # Errors
    ///
    /// As [`Options::zeroed`]; [`Error::Random`] if the kernel gave no random bytes.
    pub fn new() -> Result<Self, Error> {
        Self::with_policy(Policy::default())
    }

    /// An empty coffer, with its pre-key, the copies that are made on the way in and out, and the [`Stack`] that the cipher runs on,
    /// all in memory as `policy` says.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_policy(policy: Policy) -> Result<Self, Error> {
        let stack = Stack::with_policy(policy, scrub::DEFAULT_STACK)?;
        let state = State { pre_key: pre_key(policy)?, stack, objects: BTreeMap::new(), count: 0, drawn: 1 };
        let gone = Arc::new((Mutex::new(false), Condvar::new()));
        Ok(Self(Arc::new(Inner { policy, state: Mutex::new(state), gone })))
    }

    /// Encrypts what `secret` holds. The secret stays as it is: drop it to have it nowhere in the clear.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`] and [`Options::zeroed`]; [`Error::Random`], [`Error::Panicked`] and [`Error::Handlers`] as they come.
    pub fn store(&self, secret: &Secret) -> Result<Stored, Error> {
        let mut state = self.0.lock()?;
        let id = state.count + 1;
        let State { pre_key, stack, .. } = &mut *state;
        let object = seal(pre_key, stack, self.0.policy, id, secret)?;
        state.count = id;
        state.objects.insert(id, object);
        Ok(Stored { coffer: Arc::clone(&self.0), id, len: secret.len() })
    }

    /// Draws a new pre-key and encrypts everything anew. If that fails anywhere, all stays as it was.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store); [`Error::Damaged`] if something stored was changed.
    pub fn rekey(&self) -> Result<(), Error> {
        self.0.rekey()
    }

    /// Lets a thread of this crate do that, every so often (a `span` of less than a millisecond is one), as long as the coffer is there. One that fails is tried again the
    /// next time; with feature `tracing` it is told.
    ///
    /// # Errors
    ///
    /// [`Error::Watch`] if the thread could not be started.
    pub fn rekey_every(&self, span: Duration) -> Result<(), Error> {
        let (coffer, gone) = (Arc::downgrade(&self.0), Arc::clone(&self.0.gone));
        sys::quiet_thread("secmem-rekey", move || rekey_until(&coffer, &gone, span.max(Duration::from_millis(1))))
            .map(drop)
            .map_err(|source| Error::Watch { source })
    }

    /// How the pre-key is protected.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a forked child.
    pub fn protection(&self) -> Result<Protection, Error> {
        Ok(self.0.lock()?.pre_key.protection())
    }

    /// Pre-keys that were drawn so far: 1 for a new coffer.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a forked child.
    pub fn pre_keys(&self) -> Result<u64, Error> {
        Ok(self.0.lock()?.drawn)
    }

    /// Things stored now.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a forked child.
    pub fn stored(&self) -> Result<usize, Error> {
        Ok(self.0.lock()?.objects.len())
    }

    /// Changes a bit of the pre-key, as a reader of it might have got it wrong.
    pub(crate) fn flip(&self, bit: usize) {
        let Ok(mut state) = self.0.lock() else { return };
        let flipped = state.pre_key.with_mut(|pre_key| pre_key[bit / 8] ^= 1 << (bit % 8));
        debug_assert!(flipped.is_ok(), "a pre-key that has ended");
    }
}

impl fmt::Debug for Coffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coffer").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        if arena::in_child() {
            return Err(Error::Forked); // the lock may be held by a thread that is not there
        }
        // Nothing is half done where the lock is held and something could panic.
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn rekey(&self) -> Result<(), Error> {
        let mut state = self.lock()?;
        let State { pre_key: old, stack, objects: before, .. } = &mut *state;
        let since = Since::now();
        let new = pre_key(self.policy)?;
        let mut objects = BTreeMap::new();
        for (id, object) in before {
            let opened = open(old, stack, Secret::options().policy(self.policy), *id, object)?;
            objects.insert(*id, seal(&new, stack, self.policy, *id, &opened)?);
        }
        new.slot.end_if_purged(since)?;
        if !cfg!(secmem_ablate = "coffer-rekey") {
            state.pre_key = new; // the old one is wiped
            state.objects = objects;
        }
        state.drawn += 1;
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !arena::in_child() {
            *self.gone.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.gone.1.notify_all();
        }
    }
}

fn rekey_until(coffer: &Weak<Inner>, (gone, wake): &(Mutex<bool>, Condvar), span: Duration) {
    let mut is_gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
    while !*is_gone {
        let (guard, waited) = wake.wait_timeout(is_gone, span).unwrap_or_else(PoisonError::into_inner);
        is_gone = guard;
        if *is_gone || !waited.timed_out() {
            continue;
        }
        drop(is_gone); // the coffer may go meanwhile, here even, and takes this lock
        let Some(coffer) = coffer.upgrade() else { return };
        if let Err(error) = coffer.rekey() {
            crate::trace::rekey_failed(&error);
        }
        drop(coffer);
        is_gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
    }
}

/// Something in a [`Coffer`], which it keeps alive. Dropping it removes that.
pub struct Stored {
    coffer: Arc<Inner>,
    id: u64,
    len: usize,
}

impl Stored {
    /// Decrypts it into a slot of its own, made as `options` say.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if what is stored was changed: nothing was decrypted then. As [`Options::zeroed`], and as
    /// [`Coffer::store`].
    pub fn open(&self, options: Options) -> Result<Secret, Error> {
        let mut state = self.coffer.lock()?;
        let State { pre_key, stack, objects, .. } = &mut *state;
        let object = objects.get(&self.id).ok_or(Error::Damaged { len: self.len })?;
        open(pre_key, stack, options, self.id, object)
    }

    /// Bytes of it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Salt, tag and ciphertext, one after the other.
    pub(crate) fn stands(&self) -> Vec<u8> {
        let Ok(state) = self.coffer.lock() else { return Vec::new() };
        let object = state.objects.get(&self.id);
        object.map_or(Vec::new(), |it| [&it.salt[..], &it.tag, &it.ciphertext].concat())
    }

    /// Puts others in their place, as a stray write would.
    pub(crate) fn overwrite(&self, content: &[u8]) {
        let Ok(mut state) = self.coffer.lock() else { return };
        let (Some(object), Some((salt, rest))) = (state.objects.get_mut(&self.id), content.split_first_chunk()) else {
            return;
        };
        let Some((tag, ciphertext)) = rest.split_first_chunk() else { return };
        *object = Object { salt: *salt, tag: *tag, ciphertext: ciphertext.into() };
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if let Ok(mut state) = self.coffer.lock() {
            state.objects.remove(&self.id);
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("len", &self.len).finish_non_exhaustive()
    }
}

fn pre_key(policy: Policy) -> Result<Secret, Error> {
    let mut pre_key = Secret::options().policy(policy).zeroed(PRE_KEY)?;
    if !cfg!(secmem_ablate = "coffer-pre-key") {
        pre_key.with_mut(keystream::from_kernel)??;
    }
    Ok(pre_key)
}

/// A key is used once, so one nonce will do.
const NONCE: [u8; 12] = [0; 12];

/// Lets `f` use the cipher that `salt` gives, in place and on a stack that is wiped.
fn with_cipher<R>(
    pre_key: &Secret,
    stack: &mut Stack,
    salt: &[u8; SALT],
    (id, len): (u64, usize),
    f: impl FnOnce(&Aes256Gcm, &[u8]) -> Result<R, aes_gcm_now::Error>,
) -> Result<R, Error> {
    let mut result = Err(aes_gcm_now::Error);
    // Whose content it is, too: two objects that change places are two that were changed.
    let mut authenticated = [0; SALT + 16];
    authenticated[..SALT].copy_from_slice(salt);
    authenticated[SALT..SALT + 8].copy_from_slice(&(len as u64).to_le_bytes());
    authenticated[SALT + 8..].copy_from_slice(&id.to_le_bytes());
    pre_key.with(|pre_key| stack.run(|| result = f(&Aes256Gcm::new(&key(pre_key, salt)), &authenticated)))??;
    result.map_err(|_| Error::Damaged { len })
}

/// The key for one salt. See the module's documentation.
fn key(pre_key: &[u8], salt: &[u8; SALT]) -> Key<Aes256Gcm> {
    let (Some((seed, content)), Some(last)) = (pre_key.split_first_chunk::<16>(), pre_key.last_chunk::<32>()) else {
        unreachable!("the pre-key is longer than that");
    };
    let mut extract = Polyval::new(&(*seed).into());
    if !cfg!(secmem_ablate = "coffer-extract") {
        extract.update_padded(content);
    }
    let mut expand = blake3::Hasher::new_keyed(last);
    expand.update(&extract.finalize());
    expand.update(salt);
    Key::<Aes256Gcm>::from(*expand.finalize().as_bytes())
}

fn seal(pre_key: &Secret, stack: &mut Stack, policy: Policy, id: u64, secret: &Secret) -> Result<Object, Error> {
    let mut salt = [0; SALT];
    if !cfg!(secmem_ablate = "coffer-salt") {
        keystream::from_kernel(&mut salt)?;
    }
    // In a slot, for it is the content until it is encrypted.
    let mut work = Secret::options().policy(policy).zeroed(secret.len())?;
    secret.with(|content| work.slot.write(|work| wipe::copy(content, work)))??;
    let tag = work.slot.write(|work| {
        with_cipher(pre_key, stack, &salt, (id, work.len()), |cipher, authenticated| {
            if cfg!(secmem_ablate = "coffer-encryption") {
                return Ok(Tag::default());
            }
            cipher.encrypt_inout_detached(&Nonce::from(NONCE), authenticated, work.into())
        })
    })??;
    let ciphertext = work.with(|work| work.to_vec().into_boxed_slice())?;
    Ok(Object { salt, tag: tag.into(), ciphertext })
}

fn open(pre_key: &Secret, stack: &mut Stack, options: Options, id: u64, object: &Object) -> Result<Secret, Error> {
    let since = Since::now();
    let mut opened = options.zeroed(object.ciphertext.len())?;
    let tag = Tag::from(object.tag);
    opened.slot.write(|slot| {
        wipe::copy(&object.ciphertext, slot);
        // The tag is verified first: what is not ours is not decrypted.
        with_cipher(pre_key, stack, &object.salt, (id, slot.len()), |cipher, authenticated| {
            if cfg!(secmem_ablate = "coffer-encryption") {
                return Ok(());
            }
            cipher.decrypt_inout_detached(&Nonce::from(NONCE), authenticated, slot.into(), &tag)
        })
    })??;
    opened.slot.end_if_purged(since)?;
    Ok(opened)
}
