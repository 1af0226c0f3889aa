//! How a manager stands, over HTTP: for those who may ask, and for nobody else.
//!
//! [`Monitor::router`] is an axum router that mounts into anybody's; [`Monitor::serve`] serves it alone, with limits on
//! connections that a router cannot set. What goes out are counts, ages, sizes and names of controls: no content, and no name
//! of a buffer, for whoever chose it may have put something into it.
//!
//! ```no_run
//! use secmem::http::Monitor;
//! use secmem::manager::{Manager, Settings};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_env_without_keys()?; // who may ask: ADMIN_IP_WHITELIST, TRUSTED_PROXIES
//! let manager = Manager::new(settings.config.clone())?;
//! let monitor = Monitor::new(manager, &settings)?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! monitor.serve(listener, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | a page |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /api/security/memory-stats` | buffers and the process's memory |
//! | `GET /api/security/comprehensive-status` | whether all is well, and what is not |
//! | `GET /api/security/status` | limits, controls, counts |
//! | `POST /api/security/memory-cleanup` | wipes what is over, or everything; in development alone, with the token |
//! | `POST /api/security/test-memory` | tries a buffer; in development alone, with the token |
//!
//! # Who is answered
//!
//! An address on the list of [`Settings::admins`]: the machine itself, if nothing else was set. The address is that of the
//! connection, unless that is one of [`Settings::proxies`]: then it is the rightmost address in `X-Forwarded-For` that is not a
//! proxy's, and a header that is missing or not well formed is a refusal. From anybody else that header says nothing. All others get
//! 403, whatever they ask for, in production and in development. So does everybody where a router is mounted without
//! [`ConnectInfo`](axum::extract::ConnectInfo), for then nobody knows who asks. With feature `tracing` denials are told as warnings, one
//! a second at most, which says how many there were.
//!
//! # What it does not do
//!
//! It speaks HTTP/1.1 in the clear: between machines it belongs behind a proxy that speaks TLS. A token that came in a request has
//! stood in the buffers of the HTTP library, which do not wipe it; with [`WipingAlloc`](crate::WipingAlloc) as the allocator they are
//! wiped when they are freed. It looks at no `Host`: a browser on an address that is let in can be made to ask for another site.
//! What it then gets it cannot change, and a POST needs the token.

mod access;
mod answer;
mod gate;
mod look;
mod metrics;
mod page;
mod post;
mod rate;
mod recent;
mod serve;
mod token;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Serialize;

pub use token::{LONGEST_TOKEN, SHORTEST_TOKEN};

use crate::error::Error as MemoryError;
use crate::manager::{Error as ManagerError, Manager, Mode, Settings};
use crate::secret::Secret;
use access::Access;
use look::{Look, Looks};
use rate::Rate;
use recent::Recent;
use token::Bearer;

/// What a monitor lets itself be asked for. What is over a limit gets an error, and costs nobody else anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request's body: 4096.
    pub body: usize,
    /// Requests from one address (from one network of 64 bits, where it is IPv6) within a [`window`](Self::window): 600.
    pub requests: u32,
    /// Those of them that are POSTs: 30.
    pub posts: u32,
    /// A minute.
    pub window: Duration,
    /// How long a request may take from its header on, with its body: 10 seconds.
    pub time: Duration,
    /// How long its header may take, and how long a connection may rest before it: 10 seconds. Of [`Monitor::serve`] alone.
    pub head: Duration,
    /// How long a connection may last: 10 minutes. Of [`Monitor::serve`] alone.
    pub connection: Duration,
    /// Connections at a time: 256, and an eighth more from addresses that will be refused. Of [`Monitor::serve`] alone.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4096,
            requests: 600,
            posts: 30,
            window: Duration::from_secs(60),
            time: Duration::from_secs(10),
            head: Duration::from_secs(10),
            connection: Duration::from_secs(600),
            connections: 256,
        }
    }
}

/// Why there is no monitor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manager tells no events.
    #[error("the manager tells no events")]
    Manager(#[from] ManagerError),
    /// The thread that takes the manager's events could not be started.
    #[error("the thread for the manager's events could not be started")]
    Thread(#[source] std::io::Error),
    /// A token that is too short, too long, or not of visible ASCII characters. It is not repeated here.
    #[error("a token has {SHORTEST_TOKEN} to {LONGEST_TOKEN} visible ASCII characters")]
    Token,
    /// The token could not be kept in an arena.
    #[error("memory for the token")]
    Memory(#[from] MemoryError),
}

/// Tells how a manager stands.
pub struct Monitor {
    manager: Manager,
    mode: Mode,
    access: Access,
    /// Whether there was one in the settings.
    has_base_secret: bool,
    #[cfg(feature = "pqc")]
    keys: Option<crate::pqc::Keys>,
    token: Option<Bearer>,
    limits: Limits,
    rate: Rate,
    looks: Looks,
    recent: Arc<Recent>,
    counts: Counts,
    #[cfg(feature = "tracing")]
    denials: gate::Denials,
    began: Instant,
}

/// What has come of a request: of each one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was carried out, or there was something wrong with what it asked for.
    Answered,
    /// The address is not one that may ask.
    Denied,
    /// The address has asked too often.
    Limited,
    /// It has, or says it has, a larger body than may be.
    TooLarge,
    /// It needs the token, and did not bring it.
    WithoutToken,
    /// It took too long.
    TooSlow,
    /// Who asked went away before there was an answer.
    Abandoned,
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Answered,
        Self::Denied,
        Self::Limited,
        Self::TooLarge,
        Self::WithoutToken,
        Self::TooSlow,
        Self::Abandoned,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::TooLarge => "too_large",
            Self::WithoutToken => "without_token",
            Self::TooSlow => "too_slow",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What has come of requests, and connections that were over the limit.
#[derive(Debug, Default)]
struct Counts {
    requests: [AtomicU64; Outcome::ALL.len()],
    turned_away: AtomicU64,
}

impl Counts {
    fn add(&self, outcome: Outcome) {
        self.requests[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.requests[outcome as usize].load(Ordering::Relaxed)
    }
}

impl Monitor {
    /// For those that the settings let in, in their mode.
    ///
    /// # Errors
    ///
    /// [`Error::Manager`] in a forked child; [`Error::Thread`].
    pub fn new(manager: Manager, settings: &Settings) -> Result<Self, Error> {
        let limits = Limits::default();
        Ok(Self {
            recent: Recent::of(&manager)?,
            manager,
            mode: settings.mode,
            access: Access::new(settings.admins.clone(), settings.proxies.clone()),
            has_base_secret: settings.base_secret.is_some(),
            #[cfg(feature = "pqc")]
            keys: None,
            token: None,
            rate: Rate::new(&limits),
            limits,
            looks: Looks::default(),
            counts: Counts::default(),
            #[cfg(feature = "tracing")]
            denials: gate::Denials::default(),
            began: Instant::now(),
        })
    }

    /// Other limits than the [usual](Limits::default).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.rate = Rate::new(&limits);
        self.limits = limits;
        self
    }

    /// What a POST has to bring as `Authorization: Bearer TOKEN`. Without a token no POST is carried out.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] if it has not [`SHORTEST_TOKEN`] to [`LONGEST_TOKEN`] visible ASCII characters; [`Error::Memory`].
    pub fn token(mut self, token: Secret) -> Result<Self, Error> {
        self.token = Some(Bearer::new(&token)?);
        Ok(self)
    }

    /// The keys whose state is told, too: whether they can be used, which after a purge they cannot.
    #[cfg(feature = "pqc")]
    #[must_use]
    pub fn keys(mut self, keys: crate::pqc::Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// The endpoints, to be mounted anywhere (`Router::nest`). Whoever serves it has to give it the addresses of connections
    /// (`into_make_service_with_connect_info::<SocketAddr>()`), and to limit connections and the time that a header may take.
    pub fn router(self) -> Router {
        self.shared().1
    }

    fn shared(self) -> (Arc<Self>, Router) {
        let monitor = Arc::new(self);
        let router = Router::new()
            .route("/", get(page::answer))
            .route("/metrics", get(metrics::answer))
            .route("/api/security/memory-stats", get(memory_stats))
            .route("/api/security/comprehensive-status", get(comprehensive_status))
            .route("/api/security/status", get(status))
            .route("/api/security/memory-cleanup", post::cleanup(&monitor))
            .route("/api/security/test-memory", post::test(&monitor))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&monitor), gate::pass))
            .with_state(Arc::clone(&monitor));
        (monitor, router)
    }

    /// Looks at the kernel, or takes the look that was taken less than a second ago.
    async fn look(&self) -> Option<Arc<Look>> {
        self.looks.now(&self.manager).await
    }

    /// Whether there are keys that can be used, now.
    fn has_keys(&self) -> bool {
        #[cfg(feature = "pqc")]
        return self.keys.as_ref().is_some_and(crate::pqc::Keys::are_there);
        #[cfg(not(feature = "pqc"))]
        false
    }

    /// Whether keys are derived from a base secret, as the monitor was set up.
    fn derives_keys(&self) -> bool {
        #[cfg(feature = "pqc")]
        return self.has_base_secret || self.keys.is_some();
        #[cfg(not(feature = "pqc"))]
        self.has_base_secret
    }

    fn uptime(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() * 1e3).round() / 1e3
    }
}

async fn memory_stats(State(monitor): State<Arc<Monitor>>) -> Response {
    answer::memory_stats(&monitor)
        .map_or_else(|_| failed("Failed to retrieve memory statistics"), |answer| json(StatusCode::OK, &answer))
}

async fn comprehensive_status(State(monitor): State<Arc<Monitor>>) -> Response {
    let look = monitor.look().await;
    look.map_or_else(
        || failed("Failed to retrieve security status"),
        |look| json(StatusCode::OK, &answer::comprehensive(&monitor, &look)),
    )
}

async fn status(State(monitor): State<Arc<Monitor>>) -> Response {
    let answer = monitor.look().await.and_then(|look| answer::status(&monitor, &look).ok());
    answer.map_or_else(|| failed("Failed to retrieve security status"), |answer| json(StatusCode::OK, &answer))
}

fn json(status: StatusCode, answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(mut text) => {
            text.push(b'\n');
            (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An error, in one sentence that was written here: nothing of a request is repeated, and nothing of what went wrong.
fn refuse(status: StatusCode, error: &'static str) -> Response {
    #[derive(Serialize)]
    struct Refusal {
        error: &'static str,
    }
    json(status, &Refusal { error })
}

fn failed(error: &'static str) -> Response {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, error)
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manager, mode, access, limits, token, .. } = self;
        f.debug_struct("Monitor")
            .field("manager", manager)
            .field("mode", mode)
            .field("access", access)
            .field("limits", limits)
            .field("has_token", &token.is_some())
            .finish_non_exhaustive()
    }
}
