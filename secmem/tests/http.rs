//! The endpoints, over real sockets: who is answered, what the answers say, and that each field follows a fact.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderName, Method, Request, header};
use common::{Spoil, in_child, limit_locked_memory, skipped, spoil};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use secmem::http::{Error as MonitorError, Limits, Monitor};
use secmem::manager::{Config, Id, Manager, Mode, Settings, Thresholds, Token};
use secmem::{Backend, Control, Demand, Policy, Secret, TestClock};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

/// A secret that is not one byte over and over.
fn drawn(len: u8) -> Secret {
    Secret::try_from((0..len).collect::<Vec<u8>>()).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any test.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "a-token-for-tests-alone";
const DENIED: &str = "Access denied: IP address not authorized for this endpoint";

const STATS: &str = "/api/security/memory-stats";
const COMPREHENSIVE: &str = "/api/security/comprehensive-status";
const STATUS: &str = "/api/security/status";
const CLEANUP: &str = "/api/security/memory-cleanup";
const TEST: &str = "/api/security/test-memory";

// ---- a server, and a client

/// A server in a thread of its own; it stops when the value is dropped.
struct Server {
    at: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Server {
    fn of(monitor: Monitor) -> Self {
        Self::at("127.0.0.1:0", monitor).unwrap()
    }

    fn at(address: &str, monitor: Monitor) -> std::io::Result<Self> {
        Self::running(address, |listener, stop| monitor.serve(listener, stop))
    }

    fn running<S: Future<Output = ()>>(
        address: &str,
        serve: impl FnOnce(TcpListener, Box<dyn Future<Output = ()> + Send + Unpin>) -> S + Send + 'static,
    ) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                serve(listener, Box::new(Box::pin(async { _ = stopped.await }))).await;
            });
        });
        Ok(Self { at, stop: Some(stop), thread: Some(thread) })
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "")
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(Method::POST, path, &[("authorization", &format!("Bearer {TOKEN}"))], body)
    }

    fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.ask_from(None, method, path, headers, body)
    }

    /// From an address of this machine.
    fn get_from(&self, source: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask_from(Some(source.parse().unwrap()), Method::GET, path, headers, "")
    }

    fn ask_from(
        &self,
        source: Option<IpAddr>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let request = async {
            let socket = TcpSocket::new_v4().unwrap();
            if let Some(source) = source {
                socket.bind(SocketAddr::new(source, 0)).unwrap();
            }
            let to = SocketAddr::new("127.0.0.1".parse().unwrap(), self.at.port());
            let stream = socket.connect(to).await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
            // The connection does the work, and ends after the answer.
            let answered = async move {
                let answer = sender.send_request(request).await.unwrap();
                let (head, body) = answer.into_parts();
                let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
                drop(sender);
                Answer { status: head.status.as_u16(), headers: head.headers, text }
            };
            let (_, answer) = tokio::join!(async { _ = connection.await }, answered);
            answer
        };
        runtime().block_on(async { tokio::time::timeout(PATIENCE, request).await.unwrap() })
    }

    /// The body of an answer with status 200; `None` where there is none.
    fn plain(&self, path: &str) -> Option<String> {
        let mut stream = self.connect();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let text = read_all(&mut stream);
        text.strip_prefix("HTTP/1.0 200")?.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// What it answers to these bytes until it closes the connection.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read_all(&mut stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.at.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All of it, until the other side closes.
fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}, after {}", String::from_utf8_lossy(&text)),
    }
    String::from_utf8(text).unwrap()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.header(header::CONTENT_TYPE), "application/json");
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and error, of a refusal.
    fn refusal(&self) -> (u16, String) {
        let error = self.json();
        assert_eq!(error.as_object().unwrap().len(), 1, "{error}");
        (self.status, error["error"].as_str().unwrap().to_owned())
    }
}

// ---- what is asked about

/// Ordinary locked memory: machines without memfd_secret lack nothing then.
fn memory() -> Policy {
    Policy::from(Backend::Mlock)
}

/// Nothing is scarce but places that are all taken, whatever else the machine does.
fn config() -> Config {
    Config::default().policy(memory()).thresholds(Thresholds { shares: (1.0, 1.0), stalled: (1.0, 1.0) })
}

fn manager(config: Config) -> (Manager, Token) {
    let manager = Manager::new(config).unwrap();
    let owner = manager.owner().unwrap();
    (manager, owner)
}

fn token() -> Secret {
    let fill = |slot: &mut [u8]| {
        slot.copy_from_slice(TOKEN.as_bytes());
        Ok::<(), std::io::Error>(())
    };
    Secret::options().policy(memory()).filled(TOKEN.len(), fill).unwrap()
}

fn settings(mode: Mode) -> Settings {
    let mut settings = Settings::development();
    settings.mode = mode;
    settings
}

/// In development, with the token.
fn developing(manager: &Manager) -> Monitor {
    Monitor::new(manager.clone(), &settings(Mode::Development)).unwrap().token(token()).unwrap()
}

fn in_production(manager: &Manager) -> Monitor {
    Monitor::new(manager.clone(), &settings(Mode::Production)).unwrap().token(token()).unwrap()
}

fn open_to(manager: &Manager, admins: &str, proxies: &str) -> Monitor {
    let mut settings = settings(Mode::Production);
    settings.admins = admins.parse().unwrap();
    if !proxies.is_empty() {
        settings.proxies = proxies.parse().unwrap();
    }
    Monitor::new(manager.clone(), &settings).unwrap()
}

fn limited(limit: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    limit(&mut limits);
    limits
}

/// Asks until the answer is as it should be.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Until a stamp of milliseconds is another one, of a time and of an age.
fn tick() {
    let then = SystemTime::now();
    until("the next milliseconds", || then.elapsed().is_ok_and(|passed| passed >= Duration::from_millis(5)));
}

fn texts(list: &Value) -> String {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

fn time(text: &Value) -> SystemTime {
    humantime::parse_rfc3339(text.as_str().unwrap()).unwrap()
}

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

// ---- what the answers say

#[test]
fn the_statistics_follow_the_buffers() {
    let clock = TestClock::new();
    let (manager, owner) = manager(config().max_buffers(8).timeout(None).clock(clock));
    let server = Server::of(in_production(&manager));
    let none = server.json(STATS);
    assert_eq!(names(&none), ["processMemory", "secureMemory", "timestamp", "uptime"]);
    assert_eq!(none["secureMemory"], json!({"totalBuffers": 0, "totalMemory": 0, "memoryPressure": 0.0}));

    manager.allocate(&owner, 100, None).unwrap();
    clock.advance(600 * SECOND);
    let one = manager.allocate(&owner, 28, None).unwrap();
    clock.advance(20 * SECOND);
    let two = server.json(STATS)["secureMemory"].clone();
    manager.deallocate(&owner, &one).unwrap();
    let left = server.json(STATS)["secureMemory"].clone();

    assert_eq!((&two["totalBuffers"], &two["totalMemory"]), (&json!(2), &json!(128)));
    assert_eq!((&two["averageAge"], &two["memoryPressure"]), (&json!(320_000), &json!(0.25)));
    let apart = time(&two["newestBuffer"]).duration_since(time(&two["oldestBuffer"])).unwrap();
    assert!(apart.abs_diff(600 * SECOND) < PATIENCE, "{two}");
    assert!(time(&two["oldestBuffer"]) < SystemTime::now() - 615 * SECOND, "{two}");
    assert_eq!((&left["totalBuffers"], &left["totalMemory"]), (&json!(1), &json!(100)));
    assert_eq!((&left["averageAge"], &left["memoryPressure"]), (&json!(620_000), &json!(0.125)));
    assert!(time(&left["newestBuffer"]) < time(&two["newestBuffer"]), "{left}");
}

#[test]
fn the_statistics_follow_the_process_and_the_time() {
    let ended = in_child(|| {
        let (manager, _) = manager(config());
        let server = Server::of(in_production(&manager));
        let before = server.json(STATS);

        let held = vec![1_u8; 64 << 20];
        tick();
        let after = server.json(STATS);

        assert_eq!(std::hint::black_box(&held).len(), 64 << 20);
        let rss = |answer: &Value| answer["processMemory"]["rss"].as_f64().unwrap();
        assert!(rss(&before) > 1.0 && rss(&after) > rss(&before) + 60.0, "{before} {after}");
        assert!(time(&after["timestamp"]) > time(&before["timestamp"]));
        assert!(after["uptime"].as_f64() > before["uptime"].as_f64(), "{before} {after}");
        assert!(SystemTime::now().duration_since(time(&after["timestamp"])).unwrap() < PATIENCE);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn the_status_follows_what_the_kernel_says() {
    let ended = in_child(|| {
        let (manager, owner) = manager(config());
        let id = manager.allocate(&owner, 5000, None).unwrap();
        let at = manager.read(&owner, &id, .., <[u8]>::as_ptr).unwrap();
        let server = Server::of(in_production(&manager));
        let whole = server.json(COMPREHENSIVE);
        assert_eq!(whole["overall"], "secure", "{whole}");
        assert_eq!((&whole["validation"]["isValid"], &whole["validation"]["errors"]), (&json!(true), &json!([])));
        assert_eq!(whole["memoryProtection"]["enabled"], true);
        assert_eq!(whole["cryptographicSecurity"]["memoryProtection"], "ACTIVE");

        spoil(at, 4096, Spoil::Dump);

        until("the kernel's word", || server.json(COMPREHENSIVE)["overall"] == "needs_attention");
        let spoilt = server.json(COMPREHENSIVE);
        assert_eq!(spoilt["validation"]["isValid"], false);
        assert!(texts(&spoilt["validation"]["errors"]).contains("the kernel does not confirm dont-dump"), "{spoilt}");
        assert_eq!(spoilt["memoryProtection"]["enabled"], false);
        assert_eq!(spoilt["cryptographicSecurity"]["memoryProtection"], "DEGRADED");
        let page = server.get("/").text;
        assert!(page.contains("Not as it should be") && page.contains("dont-dump for"), "{page}");
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn where_there_is_nothing_to_be_seen_nothing_is_called_secure() {
    let ended = in_child(|| {
        let (manager, owner) = manager(config());
        let monitor = Monitor::new(manager.clone(), &settings(Mode::Production)).unwrap(); // the token would be something
        let server = Server::of(monitor);
        let none = server.json(COMPREHENSIVE);
        assert_eq!((&none["overall"], &none["memoryProtection"]["enabled"]), (&json!("needs_attention"), &Value::Null));
        assert_eq!(none["cryptographicSecurity"]["memoryProtection"], "UNKNOWN");
        assert!(texts(&none["validation"]["warnings"]).contains("there is no memory of secrets"), "{none}");

        manager.allocate(&owner, 10, None).unwrap();

        until("something to be seen", || server.json(COMPREHENSIVE)["memoryProtection"]["enabled"] == true);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn what_was_asked_for_and_is_not_there_is_a_warning() {
    let ended = in_child(|| {
        limit_locked_memory(0);
        let policy = memory().with(Control::Lock, Demand::Preferred);
        let (manager, owner) = manager(config().policy(policy));
        manager.allocate(&owner, 10, None).unwrap();
        let server = Server::of(Monitor::new(manager, &settings(Mode::Production)).unwrap());

        let status = server.json(COMPREHENSIVE);

        assert_eq!((&status["overall"], &status["validation"]["isValid"]), (&json!("needs_attention"), &json!(true)));
        assert!(texts(&status["validation"]["warnings"]).contains("are not there: 1"), "{status}");
        assert_eq!(status["memoryProtection"]["enabled"], false);
        let locked = &server.json(STATUS)["controls"][1];
        assert_eq!(*locked, json!({"control": "lock", "reached": 0, "of": 1}));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn the_status_follows_buffers_pressure_and_the_shutdown() {
    let clock = TestClock::new();
    let (manager, owner) = manager(config().max_buffers(2).timeout(None).clock(clock));
    let server = Server::of(in_production(&manager));
    let id = manager.allocate(&owner, 70, None).unwrap();
    clock.advance(9 * SECOND);
    let one = server.json(COMPREHENSIVE);
    let (part, warned) = (one["memoryProtection"].clone(), texts(&one["validation"]["warnings"]));
    assert_eq!((&part["secureBuffers"], &part["totalSecureMemory"]), (&json!(1), &json!(70)));
    assert_eq!((&part["memoryPressure"], &part["averageBufferAge"]), (&json!(0.5), &json!(9000)));
    assert!(!warned.contains("scarce"), "{one}");

    manager.allocate(&owner, 30, None).unwrap();

    tick();
    until("pressure", || {
        texts(&server.json(COMPREHENSIVE)["validation"]["warnings"]).contains("memory is scarce: critical")
    });
    let two = server.json(COMPREHENSIVE);
    let part = &two["memoryProtection"];
    assert_eq!((&part["secureBuffers"], &part["totalSecureMemory"]), (&json!(2), &json!(100)));
    assert_eq!((&part["memoryPressure"], &part["averageBufferAge"]), (&json!(1.0), &json!(4500)));
    assert_eq!(two["overall"], "needs_attention");
    assert!(time(&two["timestamp"]) > time(&one["timestamp"]));
    assert_eq!(server.json(STATUS)["pressure"]["level"], "critical");
    manager.deallocate(&owner, &id).unwrap();
    assert_eq!(manager.shutdown().unwrap().len(), 1);
    let closed = server.json(COMPREHENSIVE);
    assert_eq!(closed["validation"]["isValid"], false);
    assert!(texts(&closed["validation"]["errors"]).contains("the manager was shut down"), "{closed}");
    assert_eq!(server.json(STATUS)["open"], false);
    assert_eq!(server.json(STATS)["secureMemory"]["totalBuffers"], 0);
}

#[test]
fn each_recommendation_comes_and_goes_with_what_it_is_about() {
    let clock = TestClock::new();
    let (manager, owner) = manager(config().max_buffers(5).timeout(None).clock(clock));
    let mut production = Settings::production(drawn(32), drawn(16)).unwrap();
    let all = Server::of(Monitor::new(manager.clone(), &production).unwrap());
    production.base_secret = None;
    let bare = Server::of(Monitor::new(manager.clone(), &production).unwrap());
    let developing = Server::of(developing(&manager));
    let told = |server: &Server| texts(&server.json(COMPREHENSIVE)["recommendations"]);
    let derived = |server: &Server| server.json(COMPREHENSIVE)["cryptographicSecurity"]["keyDerivation"].clone();

    assert_eq!(told(&all), "the manager is idle: it holds no buffer");
    assert!(told(&bare).starts_with("no keys are derived: PQC_BASE_SECRET is not set; the manager is idle"));
    assert!(told(&developing).contains("this is not production"));
    assert_eq!((derived(&all), derived(&bare)), (json!("BASE_SECRET"), json!("NONE")));

    let ids: Vec<Id> = (0..4).map(|_| manager.allocate(&owner, 8, None).unwrap()).collect();
    assert_eq!(told(&all), "", "four of five are not more than four fifths");
    let last = manager.allocate(&owner, 8, None).unwrap();
    assert!(told(&all).starts_with("more than four fifths of the places are taken"));
    manager.deallocate(&owner, &last).unwrap();
    clock.advance(600 * SECOND);
    assert_eq!(told(&all), "");
    clock.advance(SECOND);
    assert!(told(&all).starts_with("buffers are older than ten minutes on average"));
    ids.iter().for_each(|id| manager.deallocate(&owner, id).unwrap());
    assert_eq!(told(&all), "the manager is idle: it holds no buffer");
}

#[test]
fn a_process_that_is_open_to_others_is_told_to_close_and_a_hardened_one_is_not() {
    let ended = in_child(|| {
        let (manager, _) = manager(config());
        let server = Server::of(in_production(&manager));
        let open = server.json(COMPREHENSIVE);
        assert!(texts(&open["validation"]["recommendations"]).contains("call harden()"), "{open}");
        let before = server.json(STATUS)["hardening"].clone();
        assert_eq!((&before["hardened"], &before["dumpable"]), (&json!(false), &json!(true)), "{before}");

        secmem::harden().unwrap();

        until("the hardened process", || server.json(STATUS)["hardening"]["hardened"] == true);
        let after = server.json(STATUS)["hardening"].clone();
        assert_eq!((&after["dumpable"], &after["coreLimit"]), (&json!(false), &json!(1)));
        assert_ne!(before["coreLimit"], after["coreLimit"]);
        assert_eq!(server.json(COMPREHENSIVE)["validation"]["recommendations"], json!([]));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[cfg(feature = "pqc")]
#[test]
fn keys_are_told_where_there_are_any() {
    let (manager, _) = manager(config());
    let fill = |len| Secret::options().policy(memory()).zeroed(len).unwrap();
    let keys = secmem::pqc::Keys::new(fill(32), fill(16), secmem::pqc::Config::default().policy(memory())).unwrap();
    let with = Server::of(in_production(&manager).keys(keys));
    let without = Server::of(in_production(&manager));

    let (with, without) = (with.json(COMPREHENSIVE), without.json(COMPREHENSIVE));

    let part = |answer: &Value| answer["cryptographicSecurity"].clone();
    assert_eq!(
        (&part(&with)["postQuantumEnabled"], &part(&with)["keyDerivation"]),
        (&json!(true), &json!("BASE_SECRET"))
    );
    assert_eq!(
        (&part(&without)["postQuantumEnabled"], &part(&without)["keyDerivation"]),
        (&json!(false), &json!("NONE"))
    );
    assert!(!texts(&with["recommendations"]).contains("PQC_BASE_SECRET"));
}

#[cfg(feature = "pqc")]
#[test]
fn after_a_purge_there_are_no_keys_that_can_be_used() {
    let ended = in_child(|| {
        let (manager, _) = manager(config());
        let fill = |len| Secret::options().policy(memory()).zeroed(len).unwrap();
        let keys = secmem::pqc::Keys::new(fill(32), fill(16), secmem::pqc::Config::default().policy(memory())).unwrap();
        let server = Server::of(in_production(&manager).keys(keys.clone()));
        let told = || server.json(COMPREHENSIVE)["cryptographicSecurity"].clone();
        let before = told();

        secmem::purge::purge_all();

        let after = told();
        assert_eq!([&before["postQuantumEnabled"], &after["postQuantumEnabled"]], [true, false]);
        assert!(keys.public_key(&"a".parse().unwrap()).is_err());
        // What was configured stays what it was.
        assert_eq!([&before["keyDerivation"], &after["keyDerivation"]], ["BASE_SECRET", "BASE_SECRET"]);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn the_configuration_that_is_told_is_the_one_that_holds() {
    let (first, _) = manager(config());
    let narrow = config().max_buffers(7).max_bytes(1000).max_buffer(900).timeout(None).lifetime(5 * SECOND);
    let (second, _) = manager(narrow);
    let limits = limited(|it| (it.requests, it.posts, it.window) = (50, 5, 90 * SECOND));
    let usual = Server::of(in_production(&first));
    let other = open_to(&second, "127.0.0.1,192.0.2.0/24", "10.0.0.1").limits(limits);
    let other = Server::of(other);

    let (usual, other) =
        ([COMPREHENSIVE, STATUS].map(|at| usual.json(at)), [COMPREHENSIVE, STATUS].map(|at| other.json(at)));

    let by_default = json!({"maxRequests": 600, "apiMaxRequests": 30, "windowMs": 60_000});
    let chosen = json!({"maxRequests": 50, "apiMaxRequests": 5, "windowMs": 90_000});
    assert_eq!(usual[0]["configuration"], json!({"rateLimit": by_default}));
    assert_eq!(other[0]["configuration"], json!({"rateLimit": chosen}));
    assert_eq!((&usual[1]["rateLimit"], &other[1]["rateLimit"]), (&by_default, &chosen));
    assert_eq!(
        usual[1]["limits"],
        json!({"maxBuffers": 100, "maxBytes": null, "maxBufferBytes": 16 << 20, "timeoutMs": 300_000, "lifetimeMs": null})
    );
    assert_eq!(
        other[1]["limits"],
        json!({"maxBuffers": 7, "maxBytes": 1000, "maxBufferBytes": 900, "timeoutMs": null, "lifetimeMs": 5000})
    );
    let access = |answer: &Value| {
        let access = &answer["access"];
        [&access["allowedNetworks"], &access["trustedProxies"], &access["hasToken"]].map(Clone::clone)
    };
    assert_eq!(access(&usual[1]), [json!(2), json!(0), json!(true)]);
    assert_eq!(access(&other[1]), [json!(2), json!(1), json!(false)]);
}

#[test]
fn the_counts_that_are_told_follow_what_has_happened() {
    let clock = TestClock::new();
    let (manager, owner) = manager(config().max_buffers(3).timeout(10 * SECOND).clock(clock));
    let server = Server::of(developing(&manager));
    let before = server.json(STATUS);
    assert_eq!((&before["mode"], &before["open"]), (&json!("development"), &json!(true)));
    assert!(before["buffers"].as_object().unwrap().values().all(|count| *count == 0), "{before}");

    let make = || manager.allocate(&owner, 64, None).unwrap();
    manager.deallocate(&owner, &make()).unwrap();
    let denied = manager.deallocate(&manager.owner().unwrap(), &make());
    clock.advance(11 * SECOND);
    let _ = manager.cleanup_expired().unwrap();
    (0..3).for_each(|_| _ = make());
    let refused = manager.allocate(&owner, 64, None);
    let _ = manager.cleanup_forced().unwrap();
    make();
    let left = manager.shutdown().unwrap();
    tick();
    let after = server.json(STATUS);

    assert!(denied.is_err() && refused.is_err() && left.len() == 1);
    let counts = json!({"allocated": 6, "deallocated": 1, "expired": 1, "forced": 3, "purged": 0, "leftover": 1,
        "evicted": 0, "denied": 1, "refused": 1});
    assert_eq!(after["buffers"], counts);
    assert!(
        after["uptime"].as_f64() > before["uptime"].as_f64() && time(&after["timestamp"]) > time(&before["timestamp"])
    );
    assert!(after["processMemory"]["rss"].as_f64() > Some(1.0));
}

#[test]
fn buffers_that_were_purged_or_evicted_are_counted_as_such() {
    let ended = in_child(|| {
        let (manager, owner) = manager(config().max_buffers(1).when_full(secmem::manager::WhenFull::EvictIdle));
        let server = Server::of(Monitor::new(manager.clone(), &settings(Mode::Production)).unwrap());
        manager.allocate(&owner, 8, None).unwrap();
        let id = manager.allocate(&owner, 8, None).unwrap();
        assert_eq!(server.json(STATUS)["buffers"]["evicted"], 1);

        secmem::purge::purge_all();

        assert!(manager.read(&owner, &id, .., |_| ()).is_err());
        assert_eq!(server.json(STATUS)["buffers"]["purged"], 1);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn pressure_is_told_as_it_is_measured_and_the_look_has_no_consequences() {
    let ended = in_child(|| {
        limit_locked_memory(128 << 10);
        let (manager, owner) = manager(config().max_buffers(4));
        let server = Server::of(Monitor::new(manager.clone(), &settings(Mode::Production)).unwrap());
        let calm = server.json(STATUS)["pressure"].clone();
        assert_eq!((&calm["places"], &calm["lock"]["limit"]), (&json!(0.0), &json!(128 << 10)), "{calm}");

        manager.allocate(&owner, 60_000, None).unwrap();

        until("the lock", || server.json(STATUS)["pressure"]["lock"]["used"].as_u64() >= Some(60_000));
        let now = server.json(STATUS)["pressure"].clone();
        let own = manager.pressure().unwrap();
        assert_eq!(now["places"], json!(0.25));
        assert_eq!(now["group"].is_null(), own.group.is_none());
        assert_eq!(now["stalled"].is_null(), own.stalled.is_none());
    });
    assert!(ended.status.success(), "{ended:?}");
    // A look at critical pressure keeps nobody from a buffer: only the program itself can decide that.
    let (manager, owner) =
        manager(config().max_buffers(4).thresholds(Thresholds { shares: (1e-9, 1e-9), stalled: (1e-9, 1e-9) }));
    manager.allocate(&owner, 8, None).unwrap();
    let server = Server::of(in_production(&manager));

    assert_eq!(server.json(STATUS)["pressure"]["level"], "critical");

    manager.allocate(&owner, 8, None).unwrap();
}

#[test]
fn the_controls_that_are_told_are_those_of_the_arenas() {
    let ended = in_child(|| {
        let (manager, owner) = manager(config());
        let monitor = Monitor::new(manager.clone(), &settings(Mode::Production)).unwrap();
        let server = Server::of(monitor);
        let of = |server: &Server, at: usize| server.json(STATUS)["controls"][at].clone();
        let names: Vec<_> = (0..6).map(|at| of(&server, at)["control"].clone()).collect();
        assert_eq!(names, Control::ALL.map(|control| json!(control.to_string())));
        assert_eq!(of(&server, 2), json!({"control": "dont-dump", "reached": 0, "of": 0}));
        assert_eq!(of(&server, 5)["reached"], 0, "without a secret there is no witness");

        manager.allocate(&owner, 8, None).unwrap();

        until("the arena", || of(&server, 2)["of"] == 1);
        for at in 1..6 {
            assert_eq!((&of(&server, at)["reached"], &of(&server, at)["of"]), (&json!(1), &json!(1)), "{at}");
        }
        assert_eq!(of(&server, 0), json!({"control": "memfd_secret", "reached": 0, "of": 1}));
    });
    assert!(ended.status.success(), "{ended:?}");
}

// ---- the two that do something

#[test]
fn a_cleanup_wipes_what_is_over_and_a_forced_one_everything() {
    let clock = TestClock::new();
    // The thread of the deadlines ends what a test's clock makes due; the cleanup is for what it has not come to.
    let (manager, owner) = manager(config().timeout(None).clock(clock));
    let server = Server::of(developing(&manager));
    let ids: Vec<_> = (0..3).map(|_| manager.allocate(&owner, 40, None).unwrap()).collect();

    let usual = server.post(CLEANUP, "");
    let lives = manager.info(&owner, &ids[0]).is_ok();
    tick();
    let forced = server.post(CLEANUP, r#"{"force": true}"#);

    assert_eq!(names(&usual.json()), ["buffers", "bytes", "memoryUsage", "message", "timestamp"]);
    assert_eq!((usual.status, &usual.json()["message"]), (200, &json!("Expired buffers were wiped")));
    assert_eq!((&usual.json()["buffers"], &usual.json()["bytes"]), (&json!(0), &json!(0)));
    assert!(lives);
    assert_eq!(forced.json()["message"], "All buffers were wiped");
    assert_eq!((&forced.json()["buffers"], &forced.json()["bytes"]), (&json!(3), &json!(120)));
    assert!(forced.json()["memoryUsage"]["rss"].as_f64() > Some(1.0));
    assert!(time(&forced.json()["timestamp"]) > time(&usual.json()["timestamp"]));
    assert!(matches!(manager.info(&owner, &ids[0]), Err(secmem::manager::Error::CleanedUp)));
    let _ = manager.shutdown().unwrap();
    assert_eq!(server.post(CLEANUP, "").refusal(), (500, "Memory cleanup failed".to_owned()));
}

#[test]
fn a_test_tries_a_buffer_and_leaves_none() {
    let (manager, owner) = manager(config());
    let server = Server::of(developing(&manager));
    let kept = manager.allocate(&owner, 40, None).unwrap();

    let usual = server.post(TEST, "").json();
    tick();
    let began = Instant::now();
    let chosen = server.post(TEST, r#"{"dataLength": 77}"#).json();
    let took = began.elapsed().as_secs_f64() * 1e3;

    assert_eq!(usual["message"], "Secure memory test passed");
    let of = |answer: &Value, field: &str| answer["test"][field].clone();
    assert_eq!((of(&usual, "dataLength"), of(&chosen, "dataLength")), (json!(1024), json!(77)));
    let hash = of(&usual, "hash");
    assert!(
        hash.as_str().unwrap().len() == 64 && hash != of(&chosen, "hash"),
        "random data has another hash each time"
    );
    let tried = of(&chosen, "processingTime").as_f64().unwrap();
    assert!(0.0 < tried && tried < took, "{tried} of the {took} ms that the request took");
    let info = of(&chosen, "bufferInfo");
    assert_eq!(names(&info), ["accessCount", "created", "lastAccessed", "length", "size"], "no name");
    assert_eq!((&info["size"], &info["length"]), (&json!(77), &json!(77)));
    assert!(
        info["accessCount"].as_u64() > Some(1) && time(&info["created"]) > time(&of(&usual, "bufferInfo")["created"])
    );
    assert!(time(&info["lastAccessed"]) > time(&of(&usual, "bufferInfo")["lastAccessed"]));
    assert_eq!(chosen["memoryStats"]["totalBuffers"], 1, "that which was there before");
    assert!(time(&chosen["timestamp"]) > time(&usual["timestamp"]));
    assert_eq!((manager.statistics().live, manager.statistics().allocated), (1, 3));
    manager.deallocate(&owner, &kept).unwrap();
    let _ = manager.shutdown().unwrap();
    assert_eq!(server.post(TEST, "").refusal(), (500, "Secure memory test failed".to_owned()));
}

#[test]
fn what_a_body_cannot_ask_for_is_refused() {
    let (manager, _) = manager(config());
    let server = Server::of(developing(&manager));
    let unknown = (400, "The body asks for something unknown".to_owned());

    for (path, body) in [
        (CLEANUP, "nonsense"),
        (CLEANUP, r#"{"force": "yes"}"#),
        (CLEANUP, r#"{"force": true, "more": 1}"#),
        (TEST, r#"{"dataLength": -1}"#),
        (TEST, "[1,2"),
    ] {
        assert_eq!(server.post(path, body).refusal(), unknown, "{path} {body}");
    }
    for length in [0, 65537] {
        let refused = server.post(TEST, &json!({"dataLength": length}).to_string());
        assert_eq!(refused.refusal(), (400, "dataLength is from 1 to 65536".to_owned()));
    }
    assert_eq!(manager.statistics().allocated, 0);
}

#[test]
fn in_production_the_posts_are_not_there_even_with_the_token() {
    let (manager, owner) = manager(config());
    let id = manager.allocate(&owner, 8, None).unwrap();
    let server = Server::of(in_production(&manager));

    let (cleanup, test) = (server.post(CLEANUP, r#"{"force": true}"#), server.post(TEST, ""));

    assert_eq!(cleanup.refusal(), (403, "Memory cleanup endpoint not available in production".to_owned()));
    assert_eq!(test.refusal(), (403, "Memory testing endpoint not available in production".to_owned()));
    assert!(manager.info(&owner, &id).is_ok() && manager.statistics().allocated == 1);
}

#[test]
fn a_post_needs_the_token() {
    let (manager, owner) = manager(config());
    let id = manager.allocate(&owner, 8, None).unwrap();
    let server = Server::of(developing(&manager));
    let tokenless = Server::of(Monitor::new(manager.clone(), &settings(Mode::Development)).unwrap());

    for line in ["", "Bearer", "Bearer x", "Basic YTpi", &format!("Bearer {TOKEN}x"), TOKEN] {
        for (server, path) in [(&server, CLEANUP), (&server, TEST), (&tokenless, TEST)] {
            let headers = [("authorization", line)];
            let refused =
                server.ask(Method::POST, path, &headers[..usize::from(!line.is_empty())], r#"{"force": true}"#);
            assert_eq!(refused.refusal(), (401, "A token is needed".to_owned()), "{line:?}");
            assert_eq!(refused.header(header::WWW_AUTHENTICATE), "Bearer");
        }
    }
    assert_eq!(tokenless.post(CLEANUP, r#"{"force": true}"#).status, 401, "where no token is set, none is right");
    assert!(manager.info(&owner, &id).is_ok());
    assert_eq!(server.json(STATUS)["access"]["withoutToken"], 12);
    assert_eq!(server.post(CLEANUP, "").status, 200);
}

#[test]
fn a_token_is_shown_nowhere_and_a_weak_one_refused() {
    let (manager, _) = manager(config());
    let monitor = developing(&manager);
    let shown = format!("{monitor:?}");
    let weak = in_production(&manager).token(Secret::new(32).unwrap()).unwrap_err();

    assert!(shown.contains("has_token: true") && !shown.contains(TOKEN), "{shown}");
    assert!(matches!(weak, MonitorError::Token), "{weak}");
    let server = Server::of(monitor);
    let said: String = ["/", "/metrics", STATUS, COMPREHENSIVE, STATS].map(|path| server.get(path).text).concat();
    assert!(!said.contains(TOKEN));
}

// ---- who is answered

#[test]
fn an_address_off_the_list_gets_403_whatever_it_asks_for() {
    let (manager, _) = manager(config());
    for mode in [Mode::Production, Mode::Development] {
        let mut settings = settings(mode);
        settings.admins = "127.0.0.1".parse().unwrap();
        let server = Server::of(Monitor::new(manager.clone(), &settings).unwrap().token(token()).unwrap());

        for path in ["/", "/metrics", STATS, COMPREHENSIVE, STATUS, CLEANUP, TEST, "/unknown"] {
            for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
                let bearer = format!("Bearer {TOKEN}");
                let (from, headers) = ("127.0.0.2".parse().ok(), [("authorization", bearer.as_str())]);
                let refused = server.ask_from(from, method.clone(), path, &headers, "");
                assert_eq!(refused.refusal(), (403, DENIED.to_owned()), "{mode:?} {method} {path}");
            }
        }

        assert_eq!(server.get_from("127.0.0.1", STATS, &[]).status, 200, "the control");
        assert_eq!(server.json(STATUS)["access"]["denied"], 32);
    }
}

#[test]
fn without_a_list_the_machine_itself_is_let_in_and_an_empty_list_lets_nobody_in() {
    let (manager, _) = manager(config());
    let machine = Server::of(in_production(&manager));
    let mut nobody = settings(Mode::Production);
    nobody.admins = Default::default();
    let nobody = Server::of(Monitor::new(manager.clone(), &nobody).unwrap());
    let elsewhere = Server::of(open_to(&manager, "192.0.2.0/24,2001:db8::/32", ""));

    assert_eq!([machine.get(STATS), nobody.get(STATS), elsewhere.get(STATS)].map(|it| it.status), [200, 403, 403]);
}

#[test]
fn a_network_lets_in_what_lies_in_it() {
    let (manager, _) = manager(config());
    let server = Server::of(open_to(&manager, "127.0.0.0/30", ""));

    let statuses = ["127.0.0.1", "127.0.0.3", "127.0.0.4"].map(|from| server.get_from(from, STATS, &[]).status);

    assert_eq!(statuses, [200, 200, 403]);
}

#[test]
fn a_header_of_somebody_who_is_no_proxy_changes_nothing() {
    let (manager, _) = manager(config());
    let server = Server::of(open_to(&manager, "127.0.0.1", "127.0.0.9"));

    for spoof in ["127.0.0.1", "::1", "127.0.0.1, 127.0.0.1", "127.0.0.9"] {
        let refused = server.get_from("127.0.0.2", STATS, &[("x-forwarded-for", spoof)]);
        assert_eq!(refused.refusal(), (403, DENIED.to_owned()), "{spoof}");
    }
    assert_eq!(server.get_from("127.0.0.2", STATS, &[]).status, 403, "nor does it without one");
    // From this machine it is the word of a proxy that nobody has named, which could be asking for anybody.
    let own = server.get_from("127.0.0.1", STATS, &[("x-forwarded-for", "203.0.113.9")]);
    assert_eq!(own.refusal(), (403, DENIED.to_owned()));
    assert_eq!(server.get_from("127.0.0.1", STATS, &[]).status, 200);
}

#[test]
fn behind_a_proxy_the_address_that_it_names_counts() {
    let (manager, _) = manager(config());
    let server = Server::of(open_to(&manager, "127.0.0.1,192.0.2.7", "127.0.0.9"));
    let proxied = |lines: &[&str]| {
        let headers: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        server.get_from("127.0.0.9", STATS, &headers).status
    };

    assert_eq!(proxied(&["192.0.2.7"]), 200);
    assert_eq!(proxied(&["203.0.113.9, 192.0.2.7, 127.0.0.9"]), 200);
    assert_eq!(proxied(&["203.0.113.9", "::ffff:192.0.2.7"]), 200);
    assert_eq!(proxied(&["192.0.2.7, 203.0.113.9"]), 403, "whatever a client says of itself stands to the left");
    for lines in [&[][..], &[""], &["nonsense"], &["nonsense, 192.0.2.7"], &["192.0.2.7:1"], &["192.0.2.7", "?"]] {
        assert_eq!(proxied(lines), 403, "{lines:?}");
    }
}

#[test]
fn an_address_of_ipv4_that_comes_as_ipv6_is_the_same_address() {
    let (manager, _) = manager(config());
    let start = |admins| Server::at("[::]:0", open_to(&manager, admins, ""));
    let (listed, unlisted) = match (start("127.0.0.1"), start("::1")) {
        (Ok(listed), Ok(unlisted)) => (listed, unlisted),
        _ => return skipped("this machine has no IPv6"),
    };

    assert_eq!(listed.get_from("127.0.0.1", STATS, &[]).status, 200);
    assert_eq!(listed.get_from("127.0.0.2", STATS, &[]).status, 403);
    assert_eq!(unlisted.get_from("127.0.0.1", STATS, &[]).status, 403);
}

#[test]
fn a_router_is_mounted_anywhere_and_without_addresses_answers_nobody() {
    let (manager, _) = manager(config());
    let mounted = Router::new().nest("/ops", in_production(&manager).router());
    let blind = in_production(&manager).router();
    let mounted = Server::running("127.0.0.1:0", |listener, stop| async {
        let service = mounted.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).with_graceful_shutdown(stop).await.unwrap();
    })
    .unwrap();
    let blind = Server::running("127.0.0.1:0", |listener, stop| async {
        axum::serve(listener, blind).with_graceful_shutdown(stop).await.unwrap();
    })
    .unwrap();

    assert_eq!(mounted.json(&format!("/ops{STATS}"))["secureMemory"]["totalBuffers"], 0);
    assert!(mounted.get("/ops").text.contains("Slots in use"));
    assert_eq!(mounted.get(STATS).status, 404);
    assert_eq!(blind.get(STATS).refusal(), (403, DENIED.to_owned()));
}

// ---- limits

#[test]
fn what_is_too_large_is_refused_however_it_says_so() {
    let (manager, _) = manager(config());
    let server = Server::of(developing(&manager).limits(limited(|it| it.body = 100)));
    let too_large = (413, "The body is too large".to_owned());
    let long = format!(r#"{{"dataLength": {}1}}"#, " ".repeat(100));

    assert_eq!(server.post(TEST, &long).refusal(), too_large);
    assert_eq!(server.ask(Method::GET, STATS, &[], &long).refusal(), too_large);
    let lines = format!("Host: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n");
    let chunked = format!("POST {TEST} HTTP/1.1\r\n{lines}Transfer-Encoding: chunked\r\n\r\n");
    let chunks = format!("{chunked}{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    assert!(server.raw(chunks.as_bytes()).starts_with("HTTP/1.1 413"), "a length that is not declared is counted");
    for length in ["101", "9999999999999", "18446744073709551615", "99999999999999999999999"] {
        let huge = format!("POST {TEST} HTTP/1.1\r\n{lines}Content-Length: {length}\r\n\r\n");
        assert!(server.raw(huge.as_bytes()).starts_with("HTTP/1.1 4"), "{length}");
    }
    let head = format!("GET {STATS} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    assert!(server.raw(head.as_bytes()).starts_with("HTTP/1.1 431"));
    assert_eq!(server.post(CLEANUP, r#"{"force": false}"#).status, 200, "the control");
}

#[test]
fn what_is_too_slow_ends() {
    let (manager, _) = manager(config());
    let limits = limited(|it| (it.head, it.time) = (SECOND / 5, SECOND / 5));
    let server = Server::of(developing(&manager).limits(limits));
    let half = format!("GET {STATS} HTTP/1.1\r\nHost: x\r\n");
    let body =
        format!("POST {TEST} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n{{");

    for begun in ["", "G", &half] {
        let answer = server.raw(begun.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    until("a body that took too long", || server.raw(body.as_bytes()).starts_with("HTTP/1.1 408"));
    until("its count", || server.plain(STATUS).is_some_and(|text| !text.contains("\"tooSlow\":0")));
    // One that drips never gets to the end either: the whole header has its time.
    let mut stream = server.connect();
    until("the end of a connection that drips", || stream.write_all(b"x").is_err());
}

#[test]
fn a_connection_that_lasts_too_long_ends() {
    let (manager, _) = manager(config());
    let limits = limited(|it| (it.head, it.connection) = (DAY, SECOND / 2));
    let server = Server::of(in_production(&manager).limits(limits));
    let mut stream = server.connect();
    stream.write_all(format!("GET {STATS} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();

    let answer = read_all(&mut stream);

    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}"); // nobody waits for a slow machine
}

#[test]
fn too_many_requests_are_refused_until_the_window_has_passed() {
    let (manager, _) = manager(config());
    let limits = limited(|it| (it.requests, it.posts, it.window) = (4, 2, 3600 * SECOND));
    let server = Server::of(developing(&manager).limits(limits));
    let asked = ["", "", ""].map(|body| server.post(CLEANUP, body));
    assert_eq!(asked.each_ref().map(|it| it.status), [200, 200, 429]);
    assert_eq!(asked[2].refusal().1, "Too many requests");
    let wait: u64 = asked[2].header(header::RETRY_AFTER).parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");

    assert_eq!([server.json(STATUS)["access"]["limited"].clone(), json!(1)], [json!(1), json!(1)]);
    assert_eq!([server.get(STATS), server.get(STATS)].map(|it| it.status), [200, 429]);
    assert_eq!(server.get_from("127.0.0.7", STATS, &[]).status, 200, "others are counted by themselves");

    let limits = limited(|it| (it.requests, it.window) = (1, SECOND));
    let server = Server::of(in_production(&manager).limits(limits));
    until("a request too many", || server.get(STATS).status == 429);
    until("the next window", || server.get(STATS).status == 200);
}

#[test]
fn connections_are_bounded_and_strangers_keep_nobody_out() {
    let (manager, _) = manager(config());
    let limits = limited(|it| (it.connections, it.head) = (2, PATIENCE));
    let server = Server::of(open_to(&manager, "127.0.0.1", "").limits(limits));
    let stranger = || {
        let bound = runtime().block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            socket.connect(server.at).await.unwrap().into_std().unwrap()
        });
        bound.set_nonblocking(false).unwrap();
        bound.set_read_timeout(Some(PATIENCE)).unwrap();
        bound
    };

    // One that was answered has a place; one whose place is not free yet is tried again.
    let hold = || {
        let mut held = None;
        until("a place", || {
            let mut stream = server.connect();
            let request = format!("GET {STATS} HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut first = [0; 12];
            let answered = stream.write_all(request.as_bytes()).and_then(|()| stream.read_exact(&mut first));
            held = answered.is_ok().then_some(stream);
            held.is_some()
        });
        held
    };

    let _first = stranger(); // takes the one place of those who will be refused
    assert_eq!(read_all(&mut stranger()), "", "closed at once");
    let held = [hold(), hold()];
    assert_eq!(read_all(&mut server.connect()), "", "closed at once");

    drop(held);
    let mut status = None;
    until("a place that is free again", || {
        status = server.plain(STATUS);
        status.is_some()
    });
    let status: Value = serde_json::from_str(&status.unwrap()).unwrap();
    assert!(status["access"]["turnedAway"].as_u64() >= Some(2), "{status}");
}

#[test]
fn methods_and_paths_that_are_not_there_are_refused_without_a_word_more() {
    let (manager, _) = manager(config());
    let server = Server::of(developing(&manager));

    let head = server.ask(Method::HEAD, STATS, &[], "");
    assert_eq!((head.status, head.text.as_str(), head.header(header::CONTENT_TYPE)), (200, "", "application/json"));
    for (method, path) in [
        (Method::OPTIONS, STATS),
        (Method::POST, STATS),
        (Method::DELETE, "/"),
        (Method::PUT, "/metrics"),
        (Method::GET, CLEANUP),
        (Method::HEAD, TEST),
    ] {
        let refused = server.ask(method.clone(), path, &[("origin", "http://elsewhere.test")], "");
        assert_eq!(refused.status, 405, "{method} {path}");
        assert!(refused.headers.get(header::ALLOW).is_some(), "{method} {path}");
        assert!(refused.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
    }
    for path in ["/api", "/api/security", "/api/security/memory-stats/", "//", "/%00", "/../etc/passwd", "/metricsx"] {
        assert_eq!(server.get(path).refusal(), (404, "There is nothing here".to_owned()), "{path}");
    }
    assert!(server.raw(b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(server.raw(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn every_answer_is_kept_nowhere_and_framed_nowhere() {
    let (manager, _) = manager(config());
    let server = Server::of(developing(&manager));
    let away = server.get_from("127.0.0.1", "/nowhere", &[]);

    for answer in [server.get("/"), server.get("/metrics"), server.get(STATS), server.post(CLEANUP, ""), away] {
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
        assert_eq!(answer.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert!(answer.header(header::CONTENT_SECURITY_POLICY).starts_with("default-src 'none'"));
        assert!(answer.header(header::CONTENT_SECURITY_POLICY).contains("frame-ancestors 'none'"));
        assert_eq!(answer.headers.get(header::SERVER), None);
    }
}

#[test]
fn a_shutdown_ends_connections_that_rest_and_finishes_what_is_asked() {
    let (manager, _) = manager(config());
    let mut server = Server::of(in_production(&manager).limits(limited(|it| (it.head, it.connection) = (DAY, DAY))));
    let mut resting = server.connect();
    let mut kept = server.connect();
    kept.write_all(format!("GET {STATS} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut first = [0; 12];
    kept.read_exact(&mut first).unwrap();
    let mut slow = server.connect();
    slow.write_all(format!("GET {STATS} HTTP/1.1\r\nHost: x\r\n").as_bytes()).unwrap();

    drop(server.stop.take());

    assert_eq!(&first, b"HTTP/1.1 200");
    read_all(&mut resting);
    read_all(&mut kept);
    read_all(&mut slow);
    server.stop();
    assert!(TcpStream::connect(server.at).is_err(), "nobody listens any more");
}

// ---- metrics and the page

fn metrics(server: &Server) -> prometheus_parse::Scrape {
    let answer = server.get("/metrics");
    assert_eq!(answer.header(header::CONTENT_TYPE), "text/plain; version=0.0.4; charset=utf-8");
    let lines = answer.text.lines().map(|line| Ok(line.to_owned()));
    prometheus_parse::Scrape::parse(lines).unwrap()
}

/// The value of a sample, by its name and its label.
fn sample(scrape: &prometheus_parse::Scrape, name: &str, label: &str) -> Option<f64> {
    let is_it = |it: &&prometheus_parse::Sample| {
        it.metric == name && (label.is_empty() || it.labels.values().any(|value| value == label))
    };
    scrape.samples.iter().find(is_it).map(|sample| sample_value(&sample.value))
}

fn sample_value(value: &prometheus_parse::Value) -> f64 {
    match value {
        prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => *value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_metrics_are_read_by_a_parser_and_follow_the_facts() {
    let clock = TestClock::new();
    let (manager, owner) = manager(config().max_buffers(4).timeout(None).clock(clock));
    let server = Server::of(developing(&manager));
    let before = metrics(&server);
    assert_eq!(sample(&before, "secmem_buffer_age_seconds", "oldest"), None, "there is no age without a buffer");

    let id = manager.allocate(&owner, 24, None).unwrap();
    manager.allocate(&owner, 40, None).unwrap();
    clock.advance(8 * SECOND);
    manager.allocate(&owner, 8, None).unwrap();
    manager.deallocate(&owner, &id).unwrap();
    assert!(manager.deallocate(&manager.owner().unwrap(), &id).is_err());
    server.get_from("127.0.0.1", STATS, &[]);
    server.ask(Method::POST, TEST, &[], "");
    let after = metrics(&server);

    let changed = |name, label| (sample(&before, name, label), sample(&after, name, label));
    assert_eq!(changed("secmem_buffers", ""), (Some(0.0), Some(2.0)));
    assert_eq!(changed("secmem_buffers_max", ""), (Some(4.0), Some(4.0)));
    assert_eq!(changed("secmem_buffer_bytes", ""), (Some(0.0), Some(48.0)));
    assert_eq!(changed("secmem_buffer_age_seconds", "oldest"), (None, Some(8.0)));
    assert_eq!(changed("secmem_buffer_age_seconds", "newest"), (None, Some(0.0)));
    assert_eq!(changed("secmem_buffer_age_seconds", "average"), (None, Some(4.0)));
    assert_eq!(changed("secmem_buffers_allocated_total", ""), (Some(0.0), Some(3.0)));
    assert_eq!(changed("secmem_buffers_ended_total", "deallocated"), (Some(0.0), Some(1.0)));
    assert_eq!(changed("secmem_http_requests_total", "answered"), (Some(0.0), Some(2.0)));
    assert_eq!(changed("secmem_http_requests_total", "without_token"), (Some(0.0), Some(1.0)));
    assert_eq!(changed("secmem_manager_open", ""), (Some(1.0), Some(1.0)));
    until("the look that is next", || sample(&metrics(&server), "secmem_pressure_ratio", "places") == Some(0.5));
    let _ = manager.shutdown().unwrap();
    assert_eq!(sample(&metrics(&server), "secmem_manager_open", ""), Some(0.0));
    assert_eq!(sample(&metrics(&server), "secmem_buffers_ended_total", "leftover"), Some(2.0));
    // Every family is typed and explained once.
    let text = server.get("/metrics").text;
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.len() > 20 && families.len() == text.matches("# HELP ").count(), "{text}");
    assert_eq!(families.iter().collect::<std::collections::BTreeSet<_>>().len(), families.len());
}

/// Of all requests, whatever came of them.
fn requests(scrape: &prometheus_parse::Scrape) -> f64 {
    let of_requests = scrape.samples.iter().filter(|sample| sample.metric == "secmem_http_requests_total");
    of_requests.map(|sample| sample_value(&sample.value)).sum()
}

#[test]
fn each_request_is_counted_once_whatever_comes_of_it() {
    let (manager, _) = manager(config());
    let mut settings = settings(Mode::Development);
    settings.admins = "127.0.0.1".parse().unwrap();
    let limits = limited(|it| (it.posts, it.body, it.time) = (5, 100, DAY));
    let monitor = Monitor::new(manager.clone(), &settings).unwrap().token(token()).unwrap().limits(limits);
    let server = Server::of(monitor);
    let large = " ".repeat(101);
    let lines = format!("Host: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\nTransfer-Encoding: chunked");
    let chunks = format!("POST {TEST} HTTP/1.1\r\n{lines}\r\n\r\n65\r\n{large}\r\n0\r\n\r\n");

    let statuses = [
        server.get(STATS),
        server.get("/nowhere"),
        server.get_from("127.0.0.2", STATS, &[]),
        server.ask(Method::GET, STATS, &[], &large),
        server.post(TEST, &large),
        server.post(CLEANUP, "nonsense"),
        server.post(CLEANUP, ""),
        server.ask(Method::POST, TEST, &[], ""),
    ]
    .map(|answer| answer.status);
    assert_eq!(statuses, [200, 404, 403, 413, 413, 400, 200, 401]);
    assert!(server.raw(chunks.as_bytes()).starts_with("HTTP/1.1 413"), "a length that is not declared");
    assert_eq!(server.post(CLEANUP, "").status, 429);
    let now = metrics(&server);

    let told = |outcome| sample(&now, "secmem_http_requests_total", outcome).unwrap();
    let by_outcome = ["answered", "denied", "limited", "too_large", "without_token", "too_slow", "abandoned"].map(told);
    assert_eq!(by_outcome, [4.0, 1.0, 1.0, 3.0, 1.0, 0.0, 0.0]);
    assert_eq!(requests(&now), 10.0);
    let access = server.json(STATUS)["access"].clone();
    assert_eq!((&access["answered"], &access["tooLarge"]), (&json!(5), &json!(3)), "with the metrics");
    assert_eq!((&access["withoutToken"], &access["abandoned"]), (&json!(1), &json!(0)));
}

#[test]
fn a_request_that_takes_too_long_is_counted_once_too() {
    let (manager, _) = manager(config());
    let server = Server::of(developing(&manager).limits(limited(|it| it.time = SECOND)));
    let body =
        format!("POST {TEST} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n{{");
    assert!(server.raw(body.as_bytes()).starts_with("HTTP/1.1 408"));

    let (mut asked, mut text) = (1, None);
    until("the metrics", || {
        text = server.plain("/metrics");
        asked += u32::from(text.is_none()); // on a machine that is slow itself
        text.is_some()
    });

    let lines = text.unwrap().lines().map(|line| Ok(line.to_owned())).collect::<Vec<_>>().into_iter();
    let now = prometheus_parse::Scrape::parse(lines).unwrap();
    assert_eq!((requests(&now), sample(&now, "secmem_http_requests_total", "answered")), (asked.into(), Some(0.0)));
}

#[test]
fn a_request_whose_asker_went_away_is_counted_as_that() {
    let (manager, _) = manager(config());
    let attempt = || {
        let service = TowerToHyperService::new(in_production(&manager).router());
        let ask = |path| {
            let mut request = Request::builder().uri(path).body(Full::new(Bytes::new())).unwrap();
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
            service.call(request)
        };
        runtime().block_on(async {
            tokio::select! {
                biased;
                _ = ask(STATUS) => return None, // the look was over at once
                () = std::future::ready(()) => {} // goes away
            }
            let body = ask("/metrics").await.unwrap().into_body().collect().await.unwrap();
            Some(String::from_utf8(body.to_bytes().to_vec()).unwrap())
        })
    };
    let mut text = None;
    until("an asker who goes away", || {
        text = attempt();
        text.is_some()
    });

    let text = text.unwrap();
    let now = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    assert_eq!((requests(&now), sample(&now, "secmem_http_requests_total", "abandoned")), (1.0, Some(1.0)));
}

#[test]
fn the_page_tells_the_figures_without_a_script_and_loads_nothing() {
    let clock = TestClock::new();
    let (manager, owner) = manager(config().max_buffers(40).timeout(None).clock(clock));
    let server = Server::of(developing(&manager));
    let before = server.get("/");
    assert!(before.text.contains("<strong>0<small> of 40</small></strong>"), "{}", before.text);

    for _ in 0..3 {
        manager.allocate(&owner, 1234, None).unwrap();
    }
    clock.advance(61 * SECOND);
    until("the events", || server.get("/").text.contains("1234 bytes"));
    let after = server.get("/?pause");

    assert_eq!(after.header(header::CONTENT_TYPE), "text/html; charset=utf-8");
    for figure in ["<strong>3<small> of 40</small></strong>", "3702 B", "oldest <b>1 min 1 s</b>", "development"] {
        assert!(after.text.contains(figure), "{figure}: {}", after.text);
    }
    assert!(before.text.contains(r#"http-equiv="refresh""#) && !after.text.contains("refresh"));
    for forbidden in ["<script", "style=", "javascript:", "http://", "https://", "@import", "url(", " on"] {
        let in_tags = after.text.split('<').map(|tag| tag.split('>').next().unwrap_or_default());
        let mut tags = in_tags.chain([after.text.as_str()].into_iter().filter(|_| forbidden != " on"));
        assert!(!tags.any(|text| text.contains(forbidden)), "{forbidden}: {}", after.text);
    }
    // A browser takes the style only if it has the hash that the policy names.
    let style = after.text.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = sha256_in_base64(style);
    let policy = after.header(header::CONTENT_SECURITY_POLICY);
    assert!(policy.contains(&format!("style-src 'sha256-{hash}'")) && !policy.contains("unsafe"), "{policy}");
}

/// By a manager of its own, which hashes what it holds.
fn sha256_in_base64(text: &str) -> String {
    let (manager, owner) = manager(config());
    let id = manager.allocate(&owner, text.len(), None).unwrap();
    manager.write(&owner, &id, text.as_bytes().to_vec()).unwrap();
    let digest = manager.create_secure_hash(&owner, &id, secmem::manager::Hash::Sha256).unwrap();
    let standard = secmem::ct::base64::STANDARD;
    let mut base64 = vec![0; standard.encoded_len(32)];
    standard.encode(digest.as_bytes(), &mut base64).unwrap();
    String::from_utf8(base64).unwrap()
}

#[test]
fn no_answer_holds_content_or_a_name_of_a_buffer() {
    let (manager, owner) = manager(config());
    let server = Server::of(developing(&manager));
    let id = manager.allocate(&owner, 64, Some("patient-anna-hiv".parse().unwrap())).unwrap();
    let drawn = manager.allocate(&owner, 64, None).unwrap();
    manager.write(&owner, &id, &mut *b"the content of a buffer".to_vec()).unwrap();
    manager.read(&owner, &id, .., |bytes| assert_eq!(bytes, b"the content of a buffer")).unwrap();
    assert!(manager.read(&manager.owner().unwrap(), &id, .., |_| ()).is_err());
    until("the events", || server.get("/").text.contains("the token was not the owner"));

    let mut said: String = ["/", "/metrics", STATS, STATUS, COMPREHENSIVE].map(|path| server.get(path).text).concat();
    said +=
        &[server.post(TEST, "").text, server.post(CLEANUP, r#"{"force":true}"#).text, server.get("/").text].concat();

    assert!(said.contains("deallocated") && said.len() > 5000);
    for hidden in ["patient", "anna", "content of", &drawn.to_string()] {
        assert!(!said.contains(hidden), "{hidden}");
    }
}

#[test]
fn the_statistics_are_told_while_others_write() {
    let (manager, owner) = manager(config().max_buffers(64).max_buffer(64));
    let server = Server::of(in_production(&manager).limits(limited(|it| it.requests = u32::MAX)));
    let id = manager.allocate(&owner, 64, None).unwrap();

    // Within closures, which do not end before the answer is there.
    let read = manager.read(&owner, &id, .., |_| server.json(STATS)).unwrap();
    let mut written = None;
    let write = |_: &mut [u8]| {
        written = Some(server.json(STATS));
        Ok::<_, secmem::manager::Error>(())
    };
    manager.fill(&owner, &id, 8, write).unwrap();

    for answer in [Some(read), written] {
        assert_eq!(answer.unwrap()["secureMemory"]["totalBuffers"], 1);
    }
}

#[test]
fn what_cannot_be_told_is_an_error_without_a_reason_and_nothing_is_called_secure() {
    let ended = in_child(|| {
        let (manager, owner) = manager(config());
        manager.allocate(&owner, 8, None).unwrap();
        let server = Server::of(developing(&manager));
        // Where there is no /proc.
        if let Err(error) = std::os::unix::fs::chroot("/usr").and_then(|()| std::env::set_current_dir("/")) {
            return skipped(&format!("this process may not leave /proc behind: {error}"));
        }

        assert_eq!(server.get(STATS).refusal(), (500, "Failed to retrieve memory statistics".to_owned()));
        assert_eq!(server.get(STATUS).refusal(), (500, "Failed to retrieve security status".to_owned()));
        let blind = server.json(COMPREHENSIVE);
        assert_eq!((&blind["overall"], &blind["validation"]["isValid"]), (&json!("needs_attention"), &json!(false)));
        assert!(texts(&blind["validation"]["errors"]).contains("the kernel does not say"), "{blind}");
        assert_eq!(blind["memoryProtection"]["enabled"], Value::Null);
        assert_eq!(server.get("/").status, 200);
        assert_eq!(sample(&metrics(&server), "process_resident_memory_bytes", ""), None);
    });
    assert!(ended.status.success(), "{ended:?}");
    // What a child has skipped is read where its parent's lines are.
    eprint!("{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn the_front_page_shows_what_the_answers_say() {
    let ended = in_child(|| {
        // As the example does it that the page has run: hardened, without keys; in development for the two requests that need it.
        secmem::harden().unwrap();
        let (manager, owner) = manager(config());
        manager.allocate(&owner, 8, None).unwrap();
        let server = Server::of(in_production(&manager));
        let development = Server::of(developing(&manager));
        let page = include_str!("../../README.md");
        let shown = page.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap());
        let shown: Vec<Value> = shown.map(|block| serde_json::from_str(block).unwrap()).collect();
        assert_eq!(shown.len(), 4);

        let test = development.post(TEST, "").json();
        let cleanup = development.post(CLEANUP, r#"{"force": true}"#).json();
        manager.allocate(&owner, 8, None).unwrap();
        let answers = [server.json(STATS), server.json(COMPREHENSIVE), test, cleanup];

        for (shown, answer) in shown.iter().zip(&answers) {
            assert_eq!(fixed("", shown), fixed("", answer));
        }
    });
    assert!(ended.status.success(), "{ended:?}");
}

/// Figures that are others each time.
const VARYING: [&str; 12] = [
    "averageAge",
    "averageBufferAge",
    "buffers",
    "bytes",
    "memoryPressure",
    "processingTime",
    "rss",
    "secureBuffers",
    "totalBuffers",
    "totalMemory",
    "totalSecureMemory",
    "uptime",
];

/// An answer with a word in place of what is another each time.
fn fixed(name: &str, value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), fixed(name, value))).collect(),
        Value::Number(_) if VARYING.contains(&name) => "a figure".into(),
        Value::String(text) if name == "hash" => format!("a hash of {} digits", text.len()).into(),
        Value::String(text) if humantime::parse_rfc3339(text).is_ok() => "a time".into(),
        other => other.clone(),
    }
}
