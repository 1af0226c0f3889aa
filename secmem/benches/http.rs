//! How often the statistics are told in a second by a server of one thread, and whether its memory stays as it is.
//!
//! `cargo bench --package secmem --features http --bench http`

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use axum::http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use secmem::http::{Limits, Monitor};
use secmem::manager::{Config, Manager, Settings};
use tokio::net::{TcpListener, TcpStream};

/// Buffers that live meanwhile.
const LIVE: usize = 10_000;
const CLIENTS: usize = 4;
const REQUESTS: usize = 20_000;
const ROUNDS: usize = 3;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Bytes of the process in memory: proc_pid_statm(5).
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// Time that a thread of this process has had a core: the first number of its schedstat.
fn on_core(thread: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("procfs");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

/// The server, in a thread of its own; its address and the thread's number.
fn serve(live: usize) -> (SocketAddr, String) {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let manager = Manager::new(Config::default().max_buffers(LIVE + 8)).expect("a manager");
        let owner = manager.owner().expect("an owner");
        (0..live).for_each(|_| drop(manager.allocate(&owner, 32, None).expect("locked memory")));
        let mut limits = Limits::default();
        limits.requests = u32::MAX;
        let monitor = Monitor::new(manager, &Settings::development()).expect("a monitor").limits(limits);
        let thread = std::fs::read_link("/proc/thread-self").expect("procfs");
        let thread = thread.file_name().expect("a number").to_string_lossy().into_owned();
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send((listener.local_addr().expect("its address"), thread)).expect("somebody listens");
            monitor.serve(listener, std::future::pending()).await;
        });
    });
    told.recv().expect("a server")
}

/// Asks over one connection that is kept.
async fn ask(server: SocketAddr, times: usize) -> usize {
    let stream = TcpStream::connect(server).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let mut bytes = 0;
    for _ in 0..times {
        let request = Request::get("/api/security/memory-stats").header("host", "localhost");
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request")).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        bytes += answer.into_body().collect().await.expect("a body").to_bytes().len();
    }
    bytes
}

fn main() {
    for live in [0, LIVE] {
        let (server, thread) = serve(live);
        // To warm up: buffers of connections and of the allocator.
        runtime().block_on(ask(server, 2_000));
        let before = resident();
        for _ in 0..ROUNDS {
            let (began, core) = (Instant::now(), on_core(&thread));
            runtime().block_on(async {
                let asking: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(ask(server, REQUESTS / CLIENTS))).collect();
                for one in asking {
                    one.await.expect("a client");
                }
            });
            let (elapsed, core) = (began.elapsed(), on_core(&thread) - core);
            let rate = |span: Duration| REQUESTS as f64 / span.as_secs_f64();
            println!(
                "http/memory-stats/{live}-live: {:.0} requests a second, {:.0} in a second of the server's core",
                rate(elapsed),
                rate(core)
            );
        }
        let after = resident();
        println!(
            "http/memory-stats/{live}-live: {} KiB in memory before, {} KiB after {} requests",
            before / 1024,
            after / 1024,
            ROUNDS * REQUESTS
        );
    }
}
