//! What a router knows by UPDATEs, read by rules of its own: nothing here is of the crate.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What is said of a route: each attribute's octets by its number, and next hops as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) attributes: BTreeMap<u8, Vec<u8>>,
    pub(crate) next_hops: Vec<String>,
    pub(crate) stale: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) routes: BTreeMap<String, Route>,
    pub(crate) updates: usize,
    pub(crate) octets: usize,
    /// `IPv4` and `IPv6`, in the order in which they ended, with how many routes were there.
    pub(crate) ends: Vec<(&'static str, usize)>,
    rest: Vec<u8>,
}

fn number(octets: &[u8]) -> usize {
    octets.iter().fold(0, |number, octet| number << 8 | usize::from(*octet))
}

fn prefixes(mut octets: &[u8], v6: bool) -> Vec<String> {
    let mut all = Vec::new();
    while let Some((length, rest)) = octets.split_first() {
        let count = usize::from(*length).div_ceil(8);
        let mut address = [0; 16];
        address[..count].copy_from_slice(&rest[..count]);
        all.push(match v6 {
            true => format!("{}/{length}", Ipv6Addr::from(address)),
            false => {
                format!(
                    "{}/{length}",
                    Ipv4Addr::new(address[0], address[1], address[2], address[3])
                )
            }
        });
        octets = &rest[count..];
    }
    all
}

impl Table {
    pub(crate) fn read(&mut self, octets: &[u8]) {
        self.rest.extend(octets);
        while self.rest.len() >= 19 && self.rest.len() >= number(&self.rest[16..18]) {
            let rest = self.rest.split_off(number(&self.rest[16..18]));
            let message = std::mem::replace(&mut self.rest, rest);
            if message[18] == 2 {
                self.updates += 1;
                self.octets += message.len();
                assert!(message.len() <= 4096);
                self.update(&message[19..]);
            }
        }
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self, keeps: bool) {
        self.rest.clear();
        self.ends.clear();
        match keeps {
            true => self.routes.values_mut().for_each(|route| route.stale = true),
            false => self.routes.clear(),
        }
    }

    fn update(&mut self, body: &[u8]) {
        let (gone, body) = body[2..].split_at(number(&body[..2]));
        let (attributes, plain) = body[2..].split_at(number(&body[..2]));
        let mut route = Route::default();
        let (mut reached, mut lost) = (prefixes(plain, false), prefixes(gone, false));
        let (mut rest, mut ended) = (attributes, None);
        while !rest.is_empty() {
            let (flags, kind) = (rest[0], rest[1]);
            let (length, head) = if flags & 0x10 == 0 {
                (usize::from(rest[2]), 3)
            } else {
                (number(&rest[2..4]), 4)
            };
            let value = &rest[head..head + length];
            rest = &rest[head + length..];
            match kind {
                3 => {
                    route.next_hops =
                        vec![Ipv4Addr::new(value[0], value[1], value[2], value[3]).to_string()]
                }
                14 => {
                    let hops = &value[4..4 + usize::from(value[3])];
                    let text =
                        |hop: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(hop).unwrap()).to_string();
                    route.next_hops = hops.chunks(16).map(text).collect();
                    reached.extend(prefixes(&value[5 + hops.len()..], value[1] == 2));
                }
                15 if value.len() == 3 => ended = Some(value[1] == 2),
                15 => lost.extend(prefixes(&value[3..], value[1] == 2)),
                _ => {
                    assert_eq!(route.attributes.insert(kind, value.to_vec()), None, "{kind} twice")
                }
            }
        }
        if body == [0, 0] && gone.is_empty() {
            ended = Some(false);
        }
        if let Some(v6) = ended {
            let of_family = |prefix: &str| prefix.contains(':') == v6;
            self.routes.retain(|prefix, route| !(of_family(prefix) && route.stale));
            let count = self.routes.keys().filter(|prefix| of_family(prefix)).count();
            self.ends.push((if v6 { "IPv6" } else { "IPv4" }, count));
        }
        lost.iter().for_each(|prefix| drop(self.routes.remove(prefix)));
        reached.into_iter().for_each(|prefix| drop(self.routes.insert(prefix, route.clone())));
    }

    pub(crate) fn prefixes(&self) -> Vec<&str> {
        self.routes.keys().map(String::as_str).collect()
    }
}
