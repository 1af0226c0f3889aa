//! How often one address may ask. Counts for a window, then begins again.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Limits;

/// Addresses that are counted in one window; further ones wait for the next. So many counts are half a megabyte at most.
const MOST_CLIENTS: usize = 4096;

#[derive(Debug)]
pub(super) struct Rate {
    window: Duration,
    requests: u32,
    posts: u32,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    began: Instant,
    counts: HashMap<IpAddr, Counted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    requests: u32,
    posts: u32,
}

impl Rate {
    pub(super) fn new(limits: &Limits) -> Self {
        let table = Mutex::new(Table { began: Instant::now(), counts: HashMap::new() });
        Self { window: limits.window, requests: limits.requests, posts: limits.posts, table }
    }

    /// Counts a request, or says how long there is to wait.
    pub(super) fn admit(&self, client: IpAddr, is_post: bool, now: Instant) -> Result<(), Duration> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(table.began);
        if passed >= self.window {
            table.began = now;
            table.counts.clear();
        }
        let left = self.window.saturating_sub(now.saturating_duration_since(table.began));
        let client = network(client);
        if table.counts.len() >= MOST_CLIENTS && !table.counts.contains_key(&client) {
            return Err(left);
        }
        let counted = table.counts.entry(client).or_default();
        if counted.requests >= self.requests || is_post && counted.posts >= self.posts {
            return Err(left);
        }
        counted.requests += 1;
        counted.posts += u32::from(is_post);
        Ok(())
    }
}

/// Whoever has one address of IPv6 has all of its network.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(requests: u32, posts: u32) -> (Rate, Instant) {
        let rate = Rate::new(&Limits { requests, posts, window: 10 * SECOND, ..Limits::default() });
        let began = rate.table.lock().unwrap().began;
        (rate, began)
    }

    #[test]
    fn an_address_may_ask_so_often_in_a_window_and_again_in_the_next() {
        let (rate, start) = rate(3, 1);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());

        assert_eq!(rate.admit(one, true, start), Ok(()));
        assert_eq!(rate.admit(one, true, start + SECOND), Err(9 * SECOND), "a post too many");
        assert_eq!(rate.admit(one, false, start + SECOND), Ok(()), "which counts as no request");
        assert_eq!(rate.admit(one, false, start + SECOND), Ok(()));
        assert_eq!(rate.admit(one, false, start + 4 * SECOND), Err(6 * SECOND));
        assert_eq!(rate.admit(other, false, start + 4 * SECOND), Ok(()));
        assert_eq!(rate.admit(one, true, start + 10 * SECOND), Ok(()));
    }

    #[test]
    fn addresses_of_one_network_are_counted_together_and_not_without_limit() {
        let (rate, start) = rate(1, 1);
        let address = |at: u128| IpAddr::from(Ipv6Addr::from_bits(at));

        assert_eq!(rate.admit(address(1), false, start), Ok(()));
        assert_eq!(rate.admit(address(2), false, start), Err(10 * SECOND));
        for network in 1..MOST_CLIENTS as u128 {
            assert_eq!(rate.admit(address(network << 64), false, start), Ok(()));
        }
        assert_eq!(rate.admit(address(1 << 100), false, start), Err(10 * SECOND));
        assert_eq!(rate.table.lock().unwrap().counts.len(), MOST_CLIENTS);
    }
}
