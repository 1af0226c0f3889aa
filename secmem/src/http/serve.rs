//! Serving a monitor by itself: a bounded number of connections, each of bounded time, until it is told to stop.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Limits, Monitor};

/// How long a connection may go on that is to end: for the answer that is being written.
const GRACE: Duration = Duration::from_secs(2);

/// How long to wait where no connection can be taken, for want of descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Bytes that a request's header may have.
const LONGEST_HEAD: usize = 16 << 10;

/// Lines of it.
const MOST_HEADERS: usize = 64;

impl Monitor {
    /// Answers connections of `listener` until `stop` is ready. Connections that rest are closed then, and requests that are being
    /// answered have two seconds.
    ///
    /// A connection over the limit of [`Limits::connections`] is closed at once. Addresses that will be refused have places of their
    /// own, an eighth as many: they keep nobody out.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let (monitor, router) = self.shared();
        let limits = monitor.limits;
        let known = Arc::new(Semaphore::new(limits.connections));
        let strange = Arc::new(Semaphore::new(limits.connections.div_ceil(8)));
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                sleep(BREATH).await;
                continue;
            };
            let places = if monitor.access.knows(peer.ip()) { &known } else { &strange };
            match Arc::clone(places).try_acquire_owned() {
                Ok(place) => {
                    let router = router.clone();
                    connections.spawn(connection(stream, peer, router, limits, stopped.clone(), place));
                }
                Err(_) => _ = monitor.counts.turned_away.fetch_add(1, Ordering::Relaxed),
            }
        }
        drop((listener, stopping));
        while connections.join_next().await.is_some() {}
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request| {
        hyper::Request::extensions_mut(&mut request).insert(ConnectInfo(peer));
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    http.max_buf_size(LONGEST_HEAD).max_headers(MOST_HEADERS);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = &mut connection => return,
        () = sleep(limits.connection) => {}
        _ = stopped.changed() => {} // the other side is gone
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}
