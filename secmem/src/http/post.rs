//! The two requests that do something. In development alone, and for those who bring the token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, post};
use serde::{Deserialize, Serialize};

use super::answer::{ProcessMemory, SecureMemory, time};
use super::{Monitor, failed, json, refuse};
use crate::keystream;
use crate::manager::{Error as ManagerError, Hash, Info, Manager, Mode};

/// Bytes that a test may have.
const LONGEST_TEST: usize = 64 << 10;

const NO_TOKEN: &str = "A token is needed";

pub(super) fn cleanup(monitor: &Arc<Monitor>) -> MethodRouter<Arc<Monitor>> {
    guarded(post(cleaned), monitor, "Memory cleanup endpoint not available in production")
}

pub(super) fn test(monitor: &Arc<Monitor>) -> MethodRouter<Arc<Monitor>> {
    guarded(post(tested), monitor, "Memory testing endpoint not available in production")
}

/// Nothing of a body is read before it is known that whoever sends it may.
fn guarded(
    route: MethodRouter<Arc<Monitor>>,
    monitor: &Arc<Monitor>,
    in_production: &'static str,
) -> MethodRouter<Arc<Monitor>> {
    let guard = move |State(monitor): State<Arc<Monitor>>, request: Request, next: Next| async move {
        if monitor.mode != Mode::Development {
            return refuse(StatusCode::FORBIDDEN, in_production);
        }
        match &monitor.token {
            Some(token) if token.is_in(request.headers()) => next.run(request).await,
            _ => {
                #[cfg(feature = "tracing")]
                tracing::warn!(target: "secmem::http", "a request that needs the token did not bring it");
                let bearer = [(header::WWW_AUTHENTICATE, "Bearer")];
                (bearer, refuse(StatusCode::UNAUTHORIZED, NO_TOKEN)).into_response()
            }
        }
    };
    let limit = DefaultBodyLimit::max(monitor.limits.body);
    route.route_layer(from_fn_with_state(Arc::clone(monitor), guard)).layer(limit)
}

/// The body as it arrived, or why it did not.
type Body = Result<Bytes, axum::extract::rejection::BytesRejection>;

/// What a body asks for; nothing else than it can say.
fn asked<T: Default + for<'a> Deserialize<'a>>(body: Body) -> Result<T, (StatusCode, &'static str)> {
    let body = body.map_err(|refused| match refused.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
        _ => (StatusCode::BAD_REQUEST, "The body cannot be read"),
    })?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|_| (StatusCode::BAD_REQUEST, "The body asks for something unknown"))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cleanup {
    /// Wipes everything that lives, and not only what is over.
    force: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CleanedUp {
    message: &'static str,
    buffers: usize,
    bytes: usize,
    memory_usage: ProcessMemory,
    timestamp: String,
}

async fn cleaned(State(monitor): State<Arc<Monitor>>, body: Body) -> Response {
    let asked = match asked::<Cleanup>(body) {
        Ok(asked) => asked,
        Err((status, error)) => return refuse(status, error),
    };
    // To wipe takes its time, and others are answered meanwhile.
    let clean = move || {
        let manager = &monitor.manager;
        if asked.force { manager.cleanup_forced() } else { manager.cleanup_expired() }
    };
    let cleaned = tokio::task::spawn_blocking(clean).await;
    let (Ok(Ok(cleaned)), Ok(memory_usage)) = (cleaned, ProcessMemory::now()) else {
        return failed("Memory cleanup failed");
    };
    let message = if cleaned.forced { "All buffers were wiped" } else { "Expired buffers were wiped" };
    let timestamp = time(std::time::SystemTime::now());
    let answer = CleanedUp { message, buffers: cleaned.buffers, bytes: cleaned.bytes, memory_usage, timestamp };
    json(StatusCode::OK, &answer)
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Test {
    /// Bytes of random data.
    data_length: usize,
}

impl Default for Test {
    fn default() -> Self {
        Self { data_length: 1024 }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BufferInfo {
    size: usize,
    length: usize,
    access_count: u64,
    created: String,
    last_accessed: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried {
    data_length: usize,
    hash: String,
    /// Milliseconds.
    processing_time: f64,
    buffer_info: BufferInfo,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tested {
    message: &'static str,
    test: Tried,
    memory_stats: SecureMemory,
    timestamp: String,
}

async fn tested(State(monitor): State<Arc<Monitor>>, body: Body) -> Response {
    let Test { data_length } = match asked(body) {
        Ok(asked) => asked,
        Err((status, error)) => return refuse(status, error),
    };
    if !(1..=LONGEST_TEST).contains(&data_length) {
        return refuse(StatusCode::BAD_REQUEST, "dataLength is from 1 to 65536");
    }
    let tester = Arc::clone(&monitor);
    match tokio::task::spawn_blocking(move || trial(&tester.manager, data_length)).await {
        Ok(Ok(test)) => {
            let memory_stats = SecureMemory::of(&monitor.manager.statistics());
            let timestamp = time(std::time::SystemTime::now());
            json(StatusCode::OK, &Tested { message: "Secure memory test passed", test, memory_stats, timestamp })
        }
        _failed => {
            #[cfg(feature = "tracing")]
            if let Ok(Err(why)) = _failed {
                tracing::warn!(target: "secmem::http", ?why, "a test of the memory failed");
            }
            failed("Secure memory test failed")
        }
    }
}

/// Why a trial did not come to a good end.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The manager did not do what was asked of it.
    Refused,
    /// What was read is not what was written.
    Differs,
    /// The buffer is there after it was freed.
    Stays,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(_: E) -> Self {
        Self::Refused
    }
}

/// Random data in a buffer is read back as it was written, by its hash and by comparison, and is gone with the buffer.
fn trial(manager: &Manager, len: usize) -> Result<Tried, Failure> {
    let began = Instant::now();
    let owner = manager.owner()?;
    let id = manager.allocate(&owner, len, None)?;
    let tried = (|| {
        manager.fill(&owner, &id, len, |slot| keystream::fill(slot).map_err(ManagerError::from))?;
        let copy = manager.read_secret(&owner, &id, .., manager.config().options())?;
        let hash = manager.create_secure_hash(&owner, &id, Hash::Sha256)?;
        let same = copy.with(|copy| Hash::Sha256.of(copy))??.as_bytes() == hash.as_bytes();
        let same = same && manager.read(&owner, &id, .., |bytes| copy.with(|copy| crate::ct::eq(bytes, copy)))??;
        if !same {
            return Err(Failure::Differs);
        }
        Ok((hash, manager.info(&owner, &id)?))
    })();
    manager.deallocate(&owner, &id)?;
    let (hash, info) = tried?;
    if !matches!(manager.info(&owner, &id), Err(ManagerError::Unknown)) {
        return Err(Failure::Stays);
    }
    Ok(Tried {
        data_length: len,
        hash: hash.to_string(),
        processing_time: (began.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        buffer_info: buffer_info(&info),
    })
}

fn buffer_info(info: &Info) -> BufferInfo {
    let since = |age: Duration| time(std::time::SystemTime::now().checked_sub(age).unwrap_or(std::time::UNIX_EPOCH));
    BufferInfo {
        size: info.capacity,
        length: info.len,
        access_count: info.uses,
        created: since(info.age),
        last_accessed: since(info.idle),
    }
}
