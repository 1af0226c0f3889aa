//! Records: what is in them, and the keys that encrypt them, by each of the ways in which keys end. And a journal's key.

use std::time::Duration;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::journal::{self, Journal, SigningKey};
use secmem::pqc::{self, Algorithm, Cost, Keys};
use secmem::records::{Cipher, Config, Error, KeyId, Keyring};
use secmem::{Backend, Options, Secret};

use crate::holder::{Held, Holder, Plant, Then};

/// Encrypted with both ciphers, from its slot.
pub(crate) static RECORD_ENCRYPTED: Holder =
    ours("record-encrypted", CONTENT, &["record-content"], &["S13"], |mut plant, then| {
        let mut content = plant.secret(options())?;
        each_cipher(|keys| keys.encrypt_secret(&content, ASSOCIATED).map(drop))?;
        then(&mut Held::Secmem(&mut content))
    });
/// Encrypted from ordinary memory, which is the keyring's to wipe, and decrypted: what was opened is held.
pub(crate) static RECORD_DECRYPTED: Holder =
    ours("record-decrypted", CONTENT, &["manager-input", "record-content"], &["S12", "S13"], decrypted);
/// The key of a keyring that encrypts, decrypts, encrypts anew and hashes. It ends with the keyring.
pub(crate) static RECORD_KEY: Holder = ours("record-key", KEY, &[], &["S11", "S13"], |plant, then| {
    let keys = keyring(plant, Config::default())?;
    used(&keys, None)?;
    then(&mut Held::Kept)?;
    drop(keys);
    Ok(())
});
/// It leaves its keyring encrypted, and is another's, with the other cipher.
pub(crate) static RECORD_KEY_EXPORTED: Holder = ours("record-key-exported", KEY, &[], &["S11", "S13"], exported);
/// Another has taken its place, and then its retention is over.
pub(crate) static RECORD_KEY_RETIRED: Holder =
    ours("record-key-retired", KEY, &["records-retire"], &["S19"], |plant, then| {
        let retention = plant.expires_in.unwrap_or(Duration::from_secs(3600));
        let keys = keyring(plant, Config::default().retention(retention).grace(Duration::ZERO))?;
        keys.rotate().map_err(Failure::while_doing("rotating a key"))?;
        then(&mut Held::Hidden)?;
        std::mem::forget(keys);
        Ok(())
    });
pub(crate) static RECORD_KEY_REVOKED: Holder =
    ours("record-key-revoked", KEY, &["records-revoke"], &["S11"], |plant, then| {
        let keys = keyring(plant, Config::default())?;
        then(&mut Held::Kept)?;
        let revoked = keys.active().and_then(|key| keys.revoke(&key));
        std::mem::forget(keys); // nothing else has ended it
        revoked.map_err(Failure::while_doing("revoking a key"))
    });
pub(crate) static RECORD_KEY_SHUTDOWN: Holder =
    ours("record-key-shutdown", KEY, &["record-shutdown"], &["S11"], |plant, then| {
        let keys = keyring(plant, Config::default())?;
        then(&mut Held::Kept)?;
        keys.shutdown();
        std::mem::forget(keys);
        Ok(())
    });

/// The base secret of keys that are derived, with each algorithm.
pub(crate) static PQC_BASE: Holder = ours("pqc-base", BASE, &[], &["S11", "S13"], base);
/// The next epoch destroys it.
pub(crate) static PQC_RATCHETED: Holder = ours("pqc-ratcheted", BASE, &["pqc-ratchet"], &["S11"], |mut plant, then| {
    plant.install_purge()?;
    let keys = derived(0, plant.secret(options())?, Algorithm::XWing)?;
    then(&mut Held::Kept)?;
    let ratcheted = keys.ratchet();
    std::mem::forget(keys);
    ratcheted.map(drop).map_err(Failure::while_doing("going to the next epoch"))
});
/// What was in a record.
pub(crate) static PQC_DECRYPTED: Holder = ours("pqc-decrypted", CONTENT, &["record-content"], &["S13"], opened);

/// The seed that signs a journal.
pub(crate) static JOURNAL_KEY: Holder = ours("journal-key", KEY, &["stack-wipe"], &["S11", "S13"], signing);

/// Bytes of canary: content, a key, a base secret.
const CONTENT: usize = 64;
const KEY: usize = 32;
const BASE: usize = 64;

const ASSOCIATED: &[u8] = b"user 7";

const fn ours(
    name: &'static str,
    canary_len: usize,
    turned_by: &'static [&'static str],
    shows: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    let (canary, needs): (_, &[Need]) = (CanaryKind::Bytes, &[Need::Mlock]);
    Holder { name, canary, canary_len, needs, ours: true, asks: false, turned_by, shows, hold }
}

/// In memory that an outside reader can read.
fn options() -> Options {
    Secret::options().backend(Backend::Mlock)
}

/// A keyring whose key is the canary.
fn keyring(mut plant: Plant<'_>, config: Config) -> Result<Keyring, Failure> {
    plant.install_purge()?;
    let key = plant.secret(options())?;
    Keyring::with_key(config.policy(Backend::Mlock), key).map_err(Failure::while_doing("making a keyring"))
}

/// Does with a key what can be done with it.
fn used(keys: &Keyring, key: Option<&KeyId>) -> Result<(), Failure> {
    let mut content = *b"what stands in a record is not the secret here";
    let mut used = || -> Result<(), Error> {
        let record = match key {
            Some(key) => keys.encrypt_with(key, &mut content, ASSOCIATED)?,
            None => keys.encrypt(&mut content, ASSOCIATED)?,
        };
        keys.data_hash(&record)?;
        keys.decrypt_once(&record, ASSOCIATED, options())?;
        keys.reencrypt(&record, ASSOCIATED).map(drop)
    };
    used().map_err(Failure::while_doing("using a key"))
}

fn each_cipher(mut f: impl FnMut(&Keyring) -> Result<(), Error>) -> Result<(), Failure> {
    let doing = "encrypting or decrypting a record";
    for cipher in [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305] {
        let keys = Keyring::new(Config::default().cipher(cipher).policy(Backend::Mlock));
        f(&keys.map_err(Failure::while_doing(doing))?).map_err(Failure::while_doing(doing))?;
    }
    Ok(())
}

fn decrypted(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut bytes = vec![0; plant.len];
    bytes.reserve_exact(900);
    plant.canary()?.read_into(&mut bytes)?;
    let mut content = None;
    each_cipher(|keys| {
        let record = match content.take() {
            None => keys.encrypt(&mut bytes, ASSOCIATED)?,
            Some(content) => keys.encrypt_secret(&content, ASSOCIATED)?,
        };
        content = Some(keys.decrypt(&record, ASSOCIATED, options())?);
        Ok(())
    })?;
    then(&mut Held::Kept)?;
    drop(content);
    Ok(())
}

fn exported(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let doing = "bringing a key from one keyring to another";
    let config = Config::default().cipher(Cipher::XChaCha20Poly1305).policy(Backend::Mlock);
    let other = Keyring::new(config).map_err(Failure::while_doing(doing))?;
    let keys = keyring(plant, Config::default())?;
    let brought = || -> Result<KeyId, Error> {
        let wrapping = options().zeroed(KEY)?; // any key will do
        let wrapped = keys.export(&keys.active()?, &wrapping)?;
        other.import(&wrapped, &wrapping)
    };
    let key = brought().map_err(Failure::while_doing(doing))?;
    drop(keys);
    used(&other, Some(&key))?;
    then(&mut Held::Kept)?;
    drop(other);
    Ok(())
}

/// Keys of a base secret, with the least work.
fn derived(epoch: u32, base: Secret, algorithm: Algorithm) -> Result<Keys, Failure> {
    let cost = Cost { memory: 64, passes: 1, lanes: 1 };
    let config = pqc::Config::default().algorithm(algorithm).cost(cost).policy(Backend::Mlock);
    let salt = options().zeroed(16).map_err(Failure::while_doing("making a salt"))?;
    Keys::at_epoch(epoch, base, salt, config).map_err(Failure::while_doing("making keys"))
}

const ALGORITHMS: [Algorithm; 3] = [Algorithm::MlKem768, Algorithm::MlKem1024, Algorithm::XWing];

fn base(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let mut base = plant.secret(options())?;
    let mut keys = None;
    for algorithm in ALGORITHMS {
        let now = derived(0, base, algorithm)?;
        let used = || -> Result<Secret, pqc::Error> {
            let record = now.encrypt(&"biometrics".parse()?, &mut *b"no secret here".to_vec(), ASSOCIATED)?;
            now.decrypt(&record, ASSOCIATED, options())?;
            Ok(now.export(options())?.1)
        };
        base = used().map_err(Failure::while_doing("using a base secret"))?;
        keys = Some(now);
    }
    drop(base); // the last keys have their own
    then(&mut Held::Kept)?;
    drop(keys);
    Ok(())
}

fn opened(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut content = plant.secret(options())?;
    for algorithm in ALGORITHMS {
        let base = options().zeroed(BASE).map_err(Failure::while_doing("making a base secret"))?;
        let keys = derived(0, base, algorithm)?;
        let used = || -> Result<Secret, pqc::Error> {
            let record = keys.encrypt_secret(&"biometrics".parse()?, &content, ASSOCIATED)?;
            keys.decrypt_stored(&record, ASSOCIATED, options())
        };
        content = used().map_err(Failure::while_doing("encrypting or decrypting a record"))?;
    }
    then(&mut Held::Secmem(&mut content))
}

fn signing(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let path = std::env::temp_dir().join(format!("secmem-scenario-{}.journal", std::process::id()));
    let key = SigningKey::new(plant.secret(options())?).map_err(Failure::while_doing("making a signing key"))?;
    let journal = Journal::open(&path, journal::Options::default().sync(journal::Sync::Leave).sign(key));
    let _gone = std::fs::remove_file(&path); // the journal goes on without a name; where it did not open, it says why
    let journal = journal.map_err(Failure::while_doing("opening a journal"))?;
    then(&mut Held::Kept)?;
    drop(journal);
    Ok(())
}
