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
use super::{Counts, Monitor, Outcome, refuse};

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
    let mut counted = Counted { counts: &monitor.counts, as_what: Outcome::Abandoned };
    let (outcome, mut response) = within_limits(&monitor, request, next).await;
    counted.as_what = outcome;
    drop(counted);
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// Counts a request once, at its end, whatever that is: who asks may go away at any time, and nothing goes on then.
struct Counted<'a> {
    counts: &'a Counts,
    as_what: Outcome,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counts.add(self.as_what);
    }
}

async fn within_limits(monitor: &Monitor, mut request: Request, next: Next) -> (Outcome, Response) {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let client = match monitor.access.admit(peer, request.headers()) {
        Ok(client) => client,
        Err(why) => {
            tell(monitor, why);
            return (Outcome::Denied, refuse(StatusCode::FORBIDDEN, DENIED));
        }
    };
    if let Err(left) = monitor.rate.admit(client, request.method() == Method::POST, Instant::now()) {
        let wait = [(header::RETRY_AFTER, left.as_secs().saturating_add(1).to_string())];
        let refused = (wait, refuse(StatusCode::TOO_MANY_REQUESTS, "Too many requests")).into_response();
        return (Outcome::Limited, refused);
    }
    let declared = request.headers().get(header::CONTENT_LENGTH).map(|len| len.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|len| len.is_none_or(|len| len > monitor.limits.body)) {
        return (Outcome::TooLarge, refuse(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"));
    }
    // So that whoever logs requests does not log it.
    if let Entry::Occupied(mut lines) = request.headers_mut().entry(header::AUTHORIZATION) {
        lines.iter_mut().for_each(|line| line.set_sensitive(true));
    }
    match tokio::time::timeout(monitor.limits.time, next.run(request)).await {
        Ok(response) => (outcome(response.status()), in_our_words(response)),
        Err(_) => (Outcome::TooSlow, refuse(StatusCode::REQUEST_TIMEOUT, "The request took too long")),
    }
}

/// What has come of a request that was let in, by its answer.
fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Outcome::TooLarge,
        StatusCode::UNAUTHORIZED => Outcome::WithoutToken,
        _ => Outcome::Answered,
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

fn tell(monitor: &Monitor, why: Denied) {
    #[cfg(feature = "tracing")]
    if let Some(denied) = monitor.denials.due(Instant::now()) {
        const TARGET: &str = "secmem::http";
        match why {
            Denied::NoPeer => tracing::warn!(target: TARGET, denied, "a request without an address was denied"),
            Denied::Header => tracing::warn!(target: TARGET, denied, "a proxy did not say who asks, and was denied"),
            Denied::Address(client) => tracing::warn!(target: TARGET, %client, denied, "a request was denied"),
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (monitor, why);
}

/// Denials that nobody was told of yet. No address is counted by itself: strangers have as many as they like, and would take the places
/// of those who may ask.
#[cfg(feature = "tracing")]
#[derive(Debug, Default)]
pub(super) struct Denials(std::sync::Mutex<(Option<Instant>, u64)>);

#[cfg(feature = "tracing")]
impl Denials {
    /// One more; how many there are to tell of, unless somebody was told less than a second ago.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut untold = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (last, denied) = &mut *untold;
        *denied += 1;
        if last.is_some_and(|last| now.saturating_duration_since(last) < std::time::Duration::from_secs(1)) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(denied))
    }
}

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn denials_are_told_once_a_second_and_none_is_left_out() {
        let (denials, start) = (Denials::default(), Instant::now());
        let after = |millis| denials.due(start + Duration::from_millis(millis));

        assert_eq!([0, 1, 999].map(after), [Some(1), None, None]);
        assert_eq!([1000, 1500, 5000].map(after), [Some(3), None, Some(2)]);
    }
}
