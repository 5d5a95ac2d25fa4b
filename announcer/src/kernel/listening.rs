//! The TCP ports on which processes of this network namespace listen, as far as `/proc` tells.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most sockets that are looked at.
const MOST: usize = 4096;
/// `TCP_LISTEN`.
const LISTENS: &str = "0A";

/// Addresses and ports on which somebody listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening(BTreeSet<(IpAddr, u16)>);

impl Listening {
    /// Looks at both families.
    pub fn look() -> Self {
        let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
        let tables = tables.iter().filter_map(|path| File::open(path).ok());
        Self(tables.flat_map(|table| listening(BufReader::new(table))).collect())
    }

    /// Whether nobody is shown at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ports that answer at `address` if this host has it. Who listens at all addresses of IPv6 is taken to do so at
    /// those of IPv4, too, as is the default.
    pub fn at(&self, address: IpAddr) -> BTreeSet<u16> {
        let answers = |own: IpAddr| {
            own == address || own.is_unspecified() && (own.is_ipv6() || address.is_ipv4())
        };
        self.0.iter().filter(|(own, _)| answers(*own)).map(|(_, port)| *port).collect()
    }
}

/// Those of a table as `get_tcp4_sock` and `get_tcp6_sock` of the kernel write it: sockets that listen come first, and of
/// the others there may be very many.
fn listening(table: impl BufRead) -> BTreeSet<(IpAddr, u16)> {
    let lines = table.lines().skip(1).take(MOST).map_while(Result::ok);
    let sockets = lines.map_while(|line| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?.to_owned();
        words.nth(1).filter(|state| *state == LISTENS).map(|_| local)
    });
    sockets.filter_map(|local| endpoint(&local)).collect()
}

/// Address and port of `0100007F:1F90`: the address in words as they lie in memory, the port as a number.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

/// Sockets for the tests of whoever asks for them.
#[cfg(test)]
impl FromIterator<(IpAddr, u16)> for Listening {
    fn from_iter<I: IntoIterator<Item = (IpAddr, u16)>>(sockets: I) -> Self {
        Self(sockets.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_found_where_it_answers() {
        let port = |address: &str| {
            let listener = TcpListener::bind((address, 0)).unwrap();
            (listener.local_addr().unwrap().port(), listener)
        };
        let ((any4, _first), (any6, _second)) = (port("0.0.0.0"), port("::"));
        let ((own4, _third), (own6, _fourth)) = (port("127.0.0.1"), port("::1"));
        let found = Listening::look();
        let at = |address: &str| found.at(address.parse().unwrap());
        let has = |address: &str| [any4, any6, own4, own6].map(|port| at(address).contains(&port));
        assert_eq!(has("127.0.0.1"), [true, true, true, false]);
        assert_eq!(has("192.0.2.1"), [true, true, false, false]);
        assert_eq!(has("::1"), [false, true, false, true]);
        assert_eq!(has("2001:db8::1"), [false, true, false, false]);
    }

    #[test]
    fn nothing_is_read_beyond_the_last_that_listens() {
        let table = "  sl  local_address rem_address   st\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000000\n\
            1: 00000000:1F90 0100007F:C350 01 00000000:00000000\n\
            2: 00000000:1F91 00000000:0000 0A 00000000:00000000\n";
        assert_eq!(listening(table.as_bytes()), [(Ipv4Addr::UNSPECIFIED.into(), 22)].into());
        assert!(listening(&b"head\n0: x:1 y 0A\n\xff\n"[..]).is_empty());
    }
}
