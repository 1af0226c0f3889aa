//! What every request passes, whatever it asks for: who asks, how often, how much, for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::Entry;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::access::Denied;
use super::{Monitor, count, refuse};

/// What everybody gets who may not ask.
pub(super) const DENIED: &str = "Access denied: IP address not authorized for this endpoint";

/// Of every answer. The page alone has a policy of its own, which lets it have its style.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

pub(super) async fn pass(State(monitor): State<Arc<Monitor>>, request: Request, next: Next) -> Response {
    let mut response = within_limits(&monitor, request, next).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

async fn within_limits(monitor: &Monitor, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let client = match monitor.access.admit(peer, request.headers()) {
        Ok(client) => client,
        Err(why) => {
            count(&monitor.counts.denied);
            tell(why);
            return refuse(StatusCode::FORBIDDEN, DENIED);
        }
    };
    if let Err(left) = monitor.rate.admit(client, request.method() == Method::POST, Instant::now()) {
        count(&monitor.counts.limited);
        let wait = [(header::RETRY_AFTER, left.as_secs().saturating_add(1).to_string())];
        return (wait, refuse(StatusCode::TOO_MANY_REQUESTS, "Too many requests")).into_response();
    }
    let declared = request.headers().get(header::CONTENT_LENGTH).map(|len| len.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|len| len.is_none_or(|len| len > monitor.limits.body)) {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large");
    }
    // So that whoever logs requests does not log it.
    if let Entry::Occupied(mut lines) = request.headers_mut().entry(header::AUTHORIZATION) {
        lines.iter_mut().for_each(|line| line.set_sensitive(true));
    }
    match tokio::time::timeout(monitor.limits.time, next.run(request)).await {
        Ok(response) => {
            count(&monitor.counts.answered);
            in_our_words(response)
        }
        Err(_) => {
            count(&monitor.counts.too_slow);
            refuse(StatusCode::REQUEST_TIMEOUT, "The request took too long")
        }
    }
}

/// Refusals of the router itself, as the others are.
fn in_our_words(response: Response) -> Response {
    let error = match response.status() {
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::METHOD_NOT_ALLOWED => "The method is not allowed here",
        _ => return response,
    };
    let allowed = response.headers().get(header::ALLOW).cloned();
    let mut refused = refuse(response.status(), error);
    if let Some(allowed) = allowed {
        refused.headers_mut().insert(header::ALLOW, allowed);
    }
    refused
}

fn tell(why: Denied) {
    #[cfg(feature = "tracing")]
    {
        const TARGET: &str = "secmem::http";
        match why {
            Denied::NoPeer => tracing::warn!(target: TARGET, "a request without an address was denied"),
            Denied::Header => tracing::warn!(target: TARGET, "a proxy did not say who asks, and was denied"),
            Denied::Address(client) => tracing::warn!(target: TARGET, %client, "a request was denied"),
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = why;
}
