//! Who asks, and whether they may. What cannot be told is a refusal.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};

use crate::manager::AllowList;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What proxies say that they ask for somebody by: the common header, and that of RFC 7239.
const FORWARDED: [HeaderName; 2] = [FORWARDED_FOR, HeaderName::from_static("forwarded")];

/// Addresses that a header may name: no chain of proxies is that long.
const MOST_HOPS: usize = 32;

/// Who may ask, and whose word counts for who asks.
#[derive(Debug)]
pub(super) struct Access {
    admins: AllowList,
    proxies: AllowList,
}

/// Why somebody is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The address of the connection is not known.
    NoPeer,
    /// A proxy did not say for whom it asks, or not in a way that can be read; or it is none of those that are named, on this machine.
    Header,
    /// The address is not on the list.
    Address(IpAddr),
}

impl Access {
    pub(super) fn new(admins: AllowList, proxies: AllowList) -> Self {
        Self { admins, proxies }
    }

    /// Who asks, if they may.
    pub(super) fn admit(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Result<IpAddr, Denied> {
        let peer = peer.ok_or(Denied::NoPeer)?.ip().to_canonical();
        let client = self.client(peer, headers).ok_or(Denied::Header)?;
        let is_in = self.admins.contains(client) || cfg!(secmem_ablate = "http-list");
        if is_in { Ok(client) } else { Err(Denied::Address(client)) }
    }

    /// Whether a connection from there may lead to an answer.
    pub(super) fn knows(&self, peer: IpAddr) -> bool {
        self.admins.contains(peer) || self.proxies.contains(peer)
    }

    /// How many networks may ask, and how many are proxies.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.admins.len(), self.proxies.len())
    }

    /// Who asks: the peer, or for a proxy the nearest address that it and the proxies before it name.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let spoofed = cfg!(secmem_ablate = "http-proxy") && headers.contains_key(FORWARDED_FOR);
        if !self.proxies.contains(peer) && !spoofed {
            // Whoever asks from this machine for somebody else is a proxy that nobody has named. Its own address says nothing.
            let is_proxy = peer.is_loopback() && FORWARDED.iter().any(|name| headers.contains_key(name));
            return Some(peer).filter(|_| !is_proxy);
        }
        let mut chain = Vec::new();
        for line in headers.get_all(FORWARDED_FOR) {
            for entry in line.to_str().ok()?.split(',') {
                if chain.len() == MOST_HOPS {
                    return None;
                }
                chain.push(entry.trim_matches([' ', '\t']).parse::<IpAddr>().ok()?.to_canonical());
            }
        }
        // Where all of them are proxies, the first has asked for itself.
        chain.iter().rev().find(|hop| !self.proxies.contains(**hop)).or(chain.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(admins: &str, proxies: &str) -> Access {
        let list = |text: &str| if text.is_empty() { AllowList::default() } else { text.parse().unwrap() };
        Access::new(list(admins), list(proxies))
    }

    fn asks(access: &Access, peer: &str, forwarded: &[&str]) -> Result<String, Denied> {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        access.admit(Some(SocketAddr::new(peer.parse().unwrap(), 1)), &headers).map(|client| client.to_string())
    }

    fn denied(address: &str) -> Result<String, Denied> {
        Err(Denied::Address(address.parse().unwrap()))
    }

    #[test]
    fn nobody_is_let_in_by_an_empty_list_nor_without_an_address() {
        assert_eq!(asks(&access("", ""), "127.0.0.1", &[]), denied("127.0.0.1"));
        let everybody = access("0.0.0.0/0,::/0", "");
        assert_eq!(everybody.admit(None, &HeaderMap::new()), Err(Denied::NoPeer));
    }

    #[test]
    fn an_address_of_ipv4_is_the_same_in_ipv6() {
        let access = access("192.0.2.0/24", "");

        assert_eq!(asks(&access, "::ffff:192.0.2.7", &[]).as_deref(), Ok("192.0.2.7"));
        assert_eq!(asks(&access, "::ffff:192.0.3.7", &[]), denied("192.0.3.7"));
        assert_eq!(asks(&access, "::192.0.2.7", &[]), denied("::192.0.2.7"));
    }

    #[test]
    fn a_header_of_somebody_who_is_no_proxy_says_nothing() {
        let proxied = access("127.0.0.1,10.0.0.1", "10.0.0.1");

        assert_eq!(asks(&proxied, "203.0.113.9", &["127.0.0.1"]), denied("203.0.113.9"));
        assert_eq!(asks(&access("192.0.2.7", ""), "192.0.2.7", &["nonsense"]).as_deref(), Ok("192.0.2.7"));
    }

    #[test]
    fn a_proxy_on_this_machine_that_nobody_has_named_lets_nobody_in() {
        for admins in ["127.0.0.0/8,::1", "0.0.0.0/0,::/0"] {
            let access = access(admins, "");
            for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
                assert_eq!(asks(&access, peer, &["203.0.113.9"]), Err(Denied::Header), "{peer}");
                assert!(asks(&access, peer, &[]).is_ok(), "{peer}");
                let mut headers = HeaderMap::new();
                headers.insert("forwarded", "for=203.0.113.9".parse().unwrap());
                let peer = SocketAddr::new(peer.parse().unwrap(), 1);
                assert_eq!(access.admit(Some(peer), &headers), Err(Denied::Header));
            }
        }
    }

    #[test]
    fn behind_proxies_the_rightmost_address_that_is_none_counts() {
        let access = access("192.0.2.0/24", "10.0.0.0/8,::1");

        let proxied = |forwarded: &[&str]| asks(&access, "10.0.0.1", forwarded);
        assert_eq!(proxied(&["192.0.2.7"]).as_deref(), Ok("192.0.2.7"));
        assert_eq!(proxied(&["203.0.113.9,192.0.2.7 , 10.1.1.1"]).as_deref(), Ok("192.0.2.7"));
        assert_eq!(proxied(&["203.0.113.9", "::ffff:192.0.2.7", "::1"]).as_deref(), Ok("192.0.2.7"));
        assert_eq!(proxied(&["192.0.2.7, 203.0.113.9"]), denied("203.0.113.9"), "a spoof, to the left of the truth");
        assert_eq!(proxied(&["192.0.2.7", "203.0.113.9"]), denied("203.0.113.9"));
        assert_eq!(proxied(&["10.9.9.9, 10.8.8.8"]), denied("10.9.9.9"), "proxies are not let in for being that");
    }

    #[test]
    fn a_proxy_that_does_not_say_who_asks_is_refused() {
        let access = access("0.0.0.0/0,::/0", "10.0.0.1");
        let long = "192.0.2.7,".repeat(MOST_HOPS) + "192.0.2.7";

        for lines in [
            &[][..],
            &[""],
            &["unknown"],
            &["192.0.2.7,"],
            &["192.0.2.7:80"],
            &["192.0.2.7 10.0.0.1"],
            &["nonsense, 192.0.2.7"],
            &["192.0.2.7", ""],
            &["0300.0.2.7"],
            &[&long],
        ] {
            assert_eq!(asks(&access, "10.0.0.1", lines), Err(Denied::Header), "{lines:?}");
        }
    }
}
