//! How to use a password that a vault keeps, and leave nothing that was unlocked by it: a wallet, in several ways.
//!
//! `cargo run -p secmem --example vault_patterns --features vault`

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use secmem::records::{self, Keyring};
use secmem::vault::{self, Config, Cost, Lent, Vault};
use secmem::{Error as MemoryError, Options, Secret, TestClock, ct};

type Outcome = Result<(), Box<dyn Error>>;
type Pattern = fn(&Vault, &Wallet) -> Outcome;

/// A salt belongs to what was derived, and is kept beside it. It is no secret.
const SALT: &[u8] = b"a salt of the example";
/// Little, for an example that is over soon. A real one takes as long as its user can wait.
const COST: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

fn main() -> ExitCode {
    if let Err(error) = vault::init() {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let vault = Vault::start(Config::default())?;
    vault.generate()?;
    vault.store(Secret::try_from(b"a password of the example".to_vec())?)?; // a real one is asked for: read_password
    let wallet = Wallet::new(&vault, b"seventeen words of a seed".to_vec())?;
    let patterns: [(&str, Pattern); 7] = [
        ("immediate extraction: a result, and nothing of what it came from", immediate_extraction),
        ("an auto-locking wallet: wiped at its deadline", auto_locking),
        ("explicit clean-up: locked when the work is done, and where it fails", explicit_cleanup),
        ("an async callback: a key derived, used and wiped", async_derivation),
        ("an async wallet: an address comes back, and no key", async_wallet),
        ("error handling: a callback that fails or panics leaves nothing", error_handling),
        ("blocked operations: no text shows the password, and it can be used", blocked_operations),
    ];
    for (name, pattern) in patterns {
        pattern(&vault, &wallet)?;
        let counts = vault.counts();
        assert_eq!(counts.lent, counts.wiped, "each plaintext was wiped");
        println!("{name}");
    }
    Ok(())
}

/// Encrypted under a key that comes of the password. It has no unlocked state: what is opened is a value of its own, which ends.
struct Wallet {
    record: Vec<u8>,
}

impl Wallet {
    fn new(vault: &Vault, mut seed: Vec<u8>) -> Result<Self, Box<dyn Error>> {
        let record = keyring(vault)?.encrypt(&mut seed, b"wallet")?; // the input was wiped
        Ok(Self { record })
    }

    /// What is in it, for as long as the options say, and at most as long as the value lives.
    fn open(&self, vault: &Vault, options: Options) -> Result<Secret, Box<dyn Error>> {
        Ok(keyring(vault)?.decrypt_stored(&self.record, b"wallet", options)?)
    }
}

/// The worker derives the key: the password does not leave it.
fn keyring(vault: &Vault) -> Result<Keyring, Box<dyn Error>> {
    Ok(Keyring::with_key(records::Config::default(), vault.derive(SALT, COST, 32)?)?)
}

/// Something that everybody may know, of something that nobody may.
fn address(seed: &[u8]) -> u32 {
    seed.iter().fold(7, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

fn immediate_extraction(vault: &Vault, wallet: &Wallet) -> Outcome {
    let found = wallet.open(vault, Secret::options())?.consume(address)?; // wiped when this returns
    assert_eq!(found, address(b"seventeen words of a seed"));
    Ok(())
}

fn auto_locking(vault: &Vault, wallet: &Wallet) -> Outcome {
    let clock = TestClock::new(); // so that nobody waits; without one, time is the system's
    let open = wallet.open(vault, Secret::options().clock(clock).expires_in(Duration::from_secs(30)))?;
    assert!(open.with(address).is_ok());
    clock.advance(Duration::from_secs(30));
    assert!(matches!(open.with(address), Err(MemoryError::Expired)));
    Ok(())
}

fn explicit_cleanup(vault: &Vault, wallet: &Wallet) -> Outcome {
    let mut open = wallet.open(vault, Secret::options())?;
    open.with(address)?;
    open.wipe()?;
    assert!(matches!(open.with(address), Err(MemoryError::Wiped)));

    let fails = || -> Outcome {
        let open = wallet.open(vault, Secret::options())?; // wiped on each way out of here
        open.with(address)?;
        Err("the network is away".into())
    };
    assert_eq!(fails().map_err(|error| error.to_string()), Err("the network is away".to_owned()));
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().build()
}

/// What takes long goes to a thread; the future waits for it, and any runtime does.
async fn keyring_elsewhere(vault: &Vault) -> Result<Keyring, Box<dyn Error>> {
    let vault = vault.clone();
    let key = tokio::task::spawn_blocking(move || vault.derive(SALT, COST, 32)).await??;
    Ok(Keyring::with_key(records::Config::default(), key)?)
}

fn async_derivation(vault: &Vault, _: &Wallet) -> Outcome {
    let stored = runtime()?.block_on(vault.with_password_async(async |lent: &Lent| {
        let keys = keyring_elsewhere(vault).await?;
        let record = keys.encrypt(&mut *b"my secret data".to_vec(), b"")?;
        keys.shutdown(); // the key is wiped here; else when `keys` is dropped
        Ok::<_, Box<dyn Error>>((record.len(), lent.len()))
    }))??;
    assert_eq!(stored, (14 + records::OVERHEAD, 25));
    Ok(())
}

fn async_wallet(vault: &Vault, wallet: &Wallet) -> Outcome {
    let found = runtime()?.block_on(async {
        let open = keyring_elsewhere(vault).await?.decrypt_stored(&wallet.record, b"wallet", Secret::options())?;
        Ok::<_, Box<dyn Error>>(open.consume(address)?)
    })?;
    assert_eq!(found, address(b"seventeen words of a seed"));
    Ok(())
}

fn error_handling(vault: &Vault, _: &Wallet) -> Outcome {
    let refused = vault.with_password(|bytes| if bytes.len() < 100 { Err("too short") } else { Ok(()) })?;
    assert_eq!(refused, Err("too short"));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        vault.with_password(|_| std::panic::resume_unwind(Box::new("a wallet that is damaged")))
    }));
    assert!(panicked.is_err());
    assert_eq!(vault.with_password(<[u8]>::len)?, 25, "and the vault goes on");
    Ok(())
}

fn blocked_operations(vault: &Vault, _: &Wallet) -> Outcome {
    let shown = runtime()?.block_on(vault.with_password_async(async |lent| format!("{lent:?}")))?;
    assert_eq!(shown, "Lent { len: 25, .. }");
    // `lent.to_string()`, `lent.clone()` and keeping it do not compile. What a callback copies of the bytes, it can: they are
    // to be used where they stand.
    assert!(vault.with_password(|bytes| ct::eq(bytes, b"a password of the example"))?);
    Ok(())
}
