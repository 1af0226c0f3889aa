//! Addresses that are let in: single ones and networks, of either family. What is not on a list is not let in.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Networks; an empty list holds no address.
///
/// An IPv4 address that comes as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
///
/// ```
/// use secmem::manager::AllowList;
///
/// let list: AllowList = "10.1.0.0/16, 2001:db8::/32, 192.0.2.7".parse()?;
/// assert!(list.contains("10.1.200.3".parse()?));
/// assert!(list.contains("::ffff:192.0.2.7".parse()?));
/// assert!(!list.contains("192.0.2.8".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text is no list of networks. It is not repeated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} is no address and no network whose host bits are zero")]
pub struct AllowListError {
    /// Which entry, from 1.
    pub entry: usize,
}

impl AllowList {
    /// The machine itself: `127.0.0.0/8` and `::1`.
    #[must_use]
    pub fn loopback() -> Self {
        let v4 = Network { address: std::net::Ipv4Addr::new(127, 0, 0, 0).into(), bits: 8 };
        Self(vec![v4, Network { address: std::net::Ipv6Addr::LOCALHOST.into(), bits: 128 }])
    }

    /// Whether the address is in one of the networks.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address.to_canonical()))
    }

    /// Networks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none, so that no address is let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Separated by commas; spaces around an entry do not count. At least one.
impl FromStr for AllowList {
    type Err = AllowListError;

    fn from_str(text: &str) -> Result<Self, AllowListError> {
        let network = |(at, entry)| Network::read(entry).ok_or(AllowListError { entry: at + 1 });
        text.split(',').map(str::trim_ascii).enumerate().map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// The bits of an address from the left, and how many it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// As people write one: digits, and no zeros before it, which some take for another base.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, width) = match text.split_once('/') {
            None => (text, None),
            Some((address, width)) => (address, Some(width)),
        };
        let written: IpAddr = address.parse().ok()?;
        let address = written.to_canonical();
        let (value, most) = bits(address);
        let mut width = match width {
            None => bits(written).1,
            Some(width) if is_number(width) => width.parse().ok()?,
            Some(_) => return None,
        };
        if address != written {
            width = u8::checked_sub(width, 96)?; // an IPv4 network in IPv6's notation
        }
        (width <= most && value & !mask(width) == 0).then_some(Self { address, bits: width })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let ((own, family), (other, of)) = (bits(self.address), bits(address));
        family == of && (own ^ other) & mask(self.bits) == 0
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Network { address, bits }) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{address}/{bits}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> AllowList {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_lies_in_them_and_nothing_beside() {
        let cases = [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.7/32", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("::ffff:192.0.2.0/120", "192.0.2.200", "192.0.3.0"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
        ];
        for (network, inside, outside) in cases {
            assert!(list(network).contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!list(network).contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_and_said_where() {
        for text in [
            "",
            "x",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "10.0.0.0/8/8",
            "::ffff:0:0/90",
        ] {
            assert_eq!(text.parse::<AllowList>(), Err(AllowListError { entry: 1 }), "{text:?}");
        }
        assert_eq!("::1,,10.0.0.0/8".parse::<AllowList>(), Err(AllowListError { entry: 2 }));
    }

    #[test]
    fn an_empty_list_lets_nobody_in_and_the_loopback_list_the_machine() {
        assert!(!AllowList::default().contains("127.0.0.1".parse().unwrap()));
        for (address, is_in) in
            [("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("::ffff:127.0.0.1", true), ("192.0.2.1", false)]
        {
            assert_eq!(AllowList::loopback().contains(address.parse().unwrap()), is_in, "{address}");
        }
    }

    #[test]
    fn a_list_is_read_again_from_what_it_shows() {
        let text = "10.1.0.0/16,2001:db8::/32,192.0.2.7/32";

        assert_eq!(list(text).to_string(), text);
    }
}
