//! The events: what they tell, and that none tells content or a place.

mod common;

use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::thread::{self, ThreadId};

use common::in_child;
use secmem::{Control, Demand, Error, Policy, Secret};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static TOLD: Mutex<String> = Mutex::new(String::new());
/// The thread of each line of it.
static TOLD_BY: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

struct Listener;

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut told = TOLD.lock().unwrap();
        write!(told, "{} {}:", event.metadata().target(), event.metadata().level()).unwrap();
        event.record(&mut Line(&mut told));
        told.push('\n');
        TOLD_BY.lock().unwrap().push(thread::current().id());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn events_name_what_happened_and_hold_neither_content_nor_addresses() {
    let ended = in_child(|| {
        tracing::subscriber::set_global_default(Listener).unwrap();
        common::limit_locked_memory(0);
        let policy = Policy::default().with(Control::Lock, Demand::Preferred);
        let mut secret = Secret::options().policy(policy).zeroed(32).unwrap();
        let at = secret.with_mut(|bytes| {
            bytes[..5].copy_from_slice(b"sesam");
            format!("{:x}", bytes.as_ptr().addr() & !0xFFF)
        });
        secret.wipe().unwrap();
        assert!(matches!(secret.with(|_| ()), Err(Error::Wiped)));

        let told = TOLD.lock().unwrap();
        assert!(told.contains("secmem DEBUG: message=memory for secrets was made bytes="), "{told}");
        assert!(
            told.contains("secmem WARN: message=a protection was refused control=lock call=\"mlock\" errno=1"),
            "{told}"
        );
        assert!(
            told.contains("secmem INFO: message=an access to a secret was refused reason=the secret was wiped"),
            "{told}"
        );
        assert!(!told.contains("sesam") && !told.contains(&at.unwrap()), "{told}");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[cfg(feature = "http")]
#[test]
fn denied_requests_are_told_once_a_second_and_a_cleanup_keeps_no_request_waiting() {
    use std::net::SocketAddr;
    use std::time::Instant;

    use axum::extract::ConnectInfo;
    use axum::http::{Method, Request};
    use http_body_util::Full;
    use hyper::body::Bytes;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use secmem::http::Monitor;
    use secmem::manager::{Config, Manager, Settings};

    let ended = in_child(|| {
        tracing::subscriber::set_global_default(Listener).unwrap();
        let (manager, bearer) = (Manager::new(Config::default()).unwrap(), b"a-token-for-tests-alone");
        let token = Secret::try_from(bearer.to_vec()).unwrap();
        let monitor = Monitor::new(manager, &Settings::development()).unwrap().token(token).unwrap();
        let service = TowerToHyperService::new(monitor.router());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |from: [u8; 4], method: Method| {
            let request = Request::builder().uri("/api/security/memory-cleanup").method(method);
            let request = request.header("authorization", "Bearer a-token-for-tests-alone");
            let mut request = request.body(Full::new(Bytes::from_static(br#"{"force":true}"#))).unwrap();
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from((from, 1))));
            runtime.block_on(service.call(request)).unwrap().status().as_u16()
        };

        let began = Instant::now();
        for at in 0..200 {
            assert_eq!(ask([192, 0, 2, at], Method::GET), 403);
        }
        let passed = began.elapsed().as_secs() as usize;
        assert_eq!(ask([127, 0, 0, 1], Method::POST), 200);

        let told = TOLD.lock().unwrap();
        let denials: Vec<_> = told.lines().filter(|line| line.contains("a request was denied")).collect();
        assert!(denials[0].contains("client=192.0.2.0 denied=1"), "{told}");
        assert!((1..=passed + 1).contains(&denials.len()), "{} in {passed} seconds: {told}", denials.len());
        let wiped = told.lines().position(|line| line.contains("every buffer was wiped")).unwrap();
        assert_ne!(TOLD_BY.lock().unwrap()[wiped], thread::current().id(), "the thread that answers requests");
    });

    assert!(ended.status.success(), "{ended:?}");
}

/// What was told so far, of which nothing is content or near `at`.
#[cfg(feature = "manager")]
fn told_without(at: &[usize]) -> Vec<String> {
    let told = TOLD.lock().unwrap();
    assert!(!told.contains("sesam"), "{told}");
    for at in at {
        assert!(!told.contains(&format!("{:x}", at & !0xFFF)) && !told.contains(&at.to_string()), "{told}");
    }
    told.lines().map(str::to_owned).collect()
}

#[cfg(feature = "manager")]
#[test]
fn every_event_of_a_manager_is_told_and_none_holds_content_or_addresses() {
    use std::time::Duration;

    use secmem::TestClock;
    use secmem::manager::{Config, Manager, WhenFull};

    let ended = in_child(|| {
        tracing::subscriber::set_global_default(Listener).unwrap();
        let clock = TestClock::new();
        let config = Config::default().clock(clock).timeout(Duration::from_secs(5)).max_buffers(2);
        let manager = Manager::new(config.clone().when_full(WhenFull::EvictIdle)).unwrap();
        let (owner, stranger) = (manager.owner().unwrap(), manager.owner().unwrap());
        let mut places = Vec::new();
        let mut filled = |name: &str| {
            let id = manager.allocate(&owner, 64, Some(name.parse().unwrap())).unwrap();
            manager.write(&owner, &id, b"sesam".to_vec()).unwrap();
            places.push(manager.read(&owner, &id, .., |bytes| bytes.as_ptr().addr()).unwrap());
            clock.advance(Duration::from_millis(1));
            id
        };

        let first = filled("first");
        manager.deallocate(&owner, &first).unwrap();
        let second = filled("second");
        assert!(manager.read(&stranger, &second, .., |_| ()).is_err());
        filled("third");
        filled("fourth"); // in place of the second
        clock.advance(Duration::from_secs(6));
        filled("fifth");
        let _ = manager.cleanup_forced().unwrap();
        let strict = Manager::new(config).unwrap();
        let other = strict.owner().unwrap();
        strict.allocate(&other, 8, None).unwrap();
        strict.allocate(&other, 8, None).unwrap();
        assert!(strict.allocate(&other, 9, None).is_err());
        strict.shutdown().unwrap();

        let told = told_without(&places);
        let of_managers: Vec<_> = told.iter().filter_map(|line| line.strip_prefix("secmem::manager ")).collect();
        for expected in [
            "DEBUG: message=a buffer was allocated id=first size=64",
            "DEBUG: message=a buffer was deallocated id=first",
            "WARN: message=a token was not the owner's id=second",
            "WARN: message=the pressure of memory has changed level=Critical buffers=2 bytes=128",
            "WARN: message=a buffer was wiped to make room id=second",
            "INFO: message=a buffer has expired id=third",
            "INFO: message=a buffer has expired id=fourth",
            "WARN: message=every buffer was wiped buffers=1 bytes=64 shutdown=false",
            "WARN: message=no buffer was made size=9",
            "WARN: message=every buffer was wiped buffers=2 bytes=16 shutdown=true",
        ] {
            assert!(of_managers.contains(&expected), "{expected}: {told:#?}");
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[cfg(feature = "pqc")]
#[test]
fn every_event_of_keys_is_told_and_none_holds_content_or_addresses() {
    use std::time::Duration;

    use secmem::{TestClock, pqc, records};

    let ended = in_child(|| {
        tracing::subscriber::set_global_default(Listener).unwrap();
        let clock = TestClock::new();
        let hour = Duration::from_secs(3600);
        let keys = records::Keyring::new(records::Config::default().clock(clock).retention(2 * hour)).unwrap();
        let (first, wrapping) = (keys.active().unwrap(), Secret::try_from(vec![9; 32]).unwrap());
        let record = keys.encrypt(b"sesam".to_vec(), b"").unwrap();
        let opened = keys.decrypt(&record, b"", Secret::options()).unwrap();
        let at = opened.with(|bytes| bytes.as_ptr().addr()).unwrap();
        assert!(keys.decrypt(&record, b"other", Secret::options()).is_err());
        let wrapped = keys.export(&first, &wrapping).unwrap();
        assert!(keys.import(&wrapped, &wrapping).is_err());
        let second = keys.rotate().unwrap();
        keys.reencrypt(&record, b"").unwrap();
        assert!(!keys.verify_data_hash(&record, &keys.data_hash(&with_another_end(&record)).unwrap()).unwrap());
        clock.advance(2 * hour);
        assert!(keys.encrypt_with(&first, b"sesam".to_vec(), b"").is_err());
        assert!(keys.export(&first, &wrapping).is_err());
        keys.revoke(&second).unwrap();
        assert!(keys.revoke(&second).is_err());
        keys.reset_metrics();
        let elsewhere = records::Keyring::new(records::Config::default()).unwrap();
        elsewhere.import(&wrapped, &wrapping).unwrap();
        keys.shutdown();

        let secret = |bytes: &[u8]| Secret::try_from(bytes.to_vec()).unwrap();
        let config = pqc::Config::default().cost(pqc::Cost { memory: 64, passes: 1, lanes: 1 });
        let derived = pqc::Keys::new(secret(&[1; 32]), secret(&[2; 16]), config).unwrap();
        let id = "face".parse().unwrap();
        let record = derived.encrypt(&id, b"sesam".to_vec(), b"").unwrap();
        derived.decrypt(&record, b"", Secret::options()).unwrap();
        assert!(derived.decrypt(&record, b"other", Secret::options()).is_err());
        derived.ratchet().unwrap();
        derived.export(Secret::options()).unwrap();
        assert!(small(config).encrypt(&id, b"sesam".to_vec(), b"").is_err());

        let told = told_without(&[at]);
        for expected in [
            format!("secmem::records DEBUG: message=a record was encrypted key={first} len=5"),
            format!("secmem::records DEBUG: message=a record was decrypted key={first} len=5"),
            format!("secmem::records WARN: message=a record was not decrypted key=Some(KeyId({first})) why=Altered"),
            format!("secmem::records WARN: message=a key was wrapped for export key={first}"),
            "secmem::records WARN: message=a wrapped key was not taken in why=Key".to_owned(),
            format!("secmem::records INFO: message=another key encrypts from={first} to={second}"),
            format!("secmem::records DEBUG: message=a record was encrypted anew from={first} to={second}"),
            format!("secmem::records WARN: message=a record has another hash len={}", 88 + 5),
            format!("secmem::records INFO: message=the retention of a key is over key={first}"),
            format!("secmem::records WARN: message=no record was made key=Some(KeyId({first})) len=5 why=Key"),
            format!("secmem::records WARN: message=a key was not wrapped key={first} why=Key"),
            format!("secmem::records WARN: message=a key was revoked key={second}"),
            format!("secmem::records WARN: message=a key was not revoked key={second} why=Key"),
            "secmem::records INFO: message=the counts begin again".to_owned(),
            format!("secmem::records INFO: message=a wrapped key was taken in key={first}"),
            "secmem::records WARN: message=every key was wiped keys=1".to_owned(),
            "secmem::pqc DEBUG: message=a record was encrypted key=face len=5".to_owned(),
            "secmem::pqc DEBUG: message=a record was decrypted key=face len=5".to_owned(),
            "secmem::pqc WARN: message=no record was made key=face why=Other".to_owned(),
            "secmem::pqc WARN: message=the epoch before was destroyed epoch=1".to_owned(),
            "secmem::pqc WARN: message=the base secret was given out epoch=1".to_owned(),
        ] {
            assert!(told.contains(&expected), "{expected}: {told:#?}");
        }
        let refused = told.iter().find(|line| line.starts_with("secmem::pqc WARN: message=a record was not decrypted"));
        assert!(refused.is_some_and(|line| line.contains("face") && line.ends_with("why=Altered")), "{refused:?}");
    });

    assert!(ended.status.success(), "{ended:?}");
}

/// Another record, by its last byte.
#[cfg(feature = "pqc")]
fn with_another_end(record: &[u8]) -> Vec<u8> {
    let mut other = record.to_vec();
    *other.last_mut().unwrap() ^= 1;
    other
}

/// Keys for records of at most four bytes.
#[cfg(feature = "pqc")]
fn small(config: secmem::pqc::Config) -> secmem::pqc::Keys {
    let secret = |byte, len| Secret::try_from(vec![byte; len]).unwrap();
    secmem::pqc::Keys::new(secret(1, 32), secret(2, 16), config.max_len(4)).unwrap()
}

/// A subscriber that uses what it is told of, and then panics.
#[cfg(feature = "records")]
struct Meddler;

#[cfg(feature = "records")]
static KEYS: std::sync::OnceLock<secmem::records::Keyring> = std::sync::OnceLock::new();

#[cfg(feature = "records")]
impl Subscriber for Meddler {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        if let Some(keys) = KEYS.get() {
            keys.active().unwrap();
        }
        assert_ne!(event.metadata().target(), "secmem::manager", "as it is to");
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[cfg(feature = "records")]
#[test]
fn who_is_told_may_use_the_keys_and_may_panic() {
    use std::time::{Duration, Instant};

    use secmem::manager::{Config, Manager};
    use secmem::records::Keyring;

    let ended = in_child(|| {
        // Before it listens: a manager tells of each buffer.
        let manager = Manager::new(Config::default().timeout(Duration::from_millis(500))).unwrap();
        let owner = manager.owner().unwrap();
        manager.allocate(&owner, 8, None).unwrap();
        let keys = KEYS.get_or_init(|| Keyring::new(secmem::records::Config::default()).unwrap());
        tracing::subscriber::set_global_default(Meddler).unwrap();

        let first = keys.active().unwrap();
        keys.rotate().unwrap();
        keys.revoke(&first).unwrap();
        // The thread of the deadlines tells of the buffer, and goes on after the panic.
        let patience = Instant::now() + Duration::from_secs(60);
        while manager.statistics().live > 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        let secret = Secret::options().expires_in(Duration::from_millis(10)).zeroed(8).unwrap();
        let at = secret.with(<[u8]>::as_ptr).map(|at| at.addr());
        while Instant::now() < patience && at.is_ok() && !matches!(secret.with(|_| ()), Err(Error::Expired)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Instant::now() < patience);
        let watcher = || {
            let threads = std::fs::read_dir("/proc/self/task").unwrap();
            let name =
                |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            threads.filter_map(Result::ok).any(|thread| name(thread).trim() == "secmem-deadline")
        };
        assert!(watcher(), "the thread of the deadlines has gone");
    });
    assert!(ended.status.success(), "{ended:?}");
}
