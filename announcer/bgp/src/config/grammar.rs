//! `bgp_peers`, in either of kube-vip's grammars (field-tested forms of v0.4 to v1.2): a comma list of
//!
//! - `ADDRESS:AS[:PASSWORD[:MULTIHOP[:PORT]]][/mpbgp_nexthop=..;mpbgp_ipv4=..;mpbgp_ipv6=..]`, to v1.2.1, and
//! - `ADDRESS:AS[:PASSWORD[:MULTIHOP[:PORT[:mpbgp_..;..[:BFD]]]]]` with BFD `ENABLED;RECEIVE;TRANSMIT;MULTIPLIER`, from
//!   v1.2.2 on, where `ADDRESS` may be `unnumbered:INTERFACE`.
//!
//! An IPv6 address stands in brackets; so may any value, which can then have `:`, `,`, `;` and `/` in it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::flaw::{Flaw, MOST_FLAWS, Place};
use super::password::{self, Password};
use super::peer::{Bfd, Distance, FAR, Hops, PORT, Peer, Remote};
use crate::prefix::Family;
use crate::session::RemoteAs;

pub(super) const AS_ACCEPTED: &str = "accepted is a whole number from 1 to 4294967295";
pub(super) const SWITCH_ACCEPTED: &str = "accepted are true and false";
const UNNUMBERED: &str = "unnumbered:";
const MOST_FIELDS: usize = 7;

/// A part of the list, and at which character of it that begins.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Part<'a> {
    /// Its parts between separators that stand in no brackets; a bracket counts where a value begins.
    fn split(self, separator: char, begins: &str) -> Vec<Self> {
        let (mut parts, mut depth, mut start, mut start_at) = (Vec::new(), false, 0, self.at);
        let mut before = None;
        for (count, (index, c)) in self.text.char_indices().enumerate() {
            let begun = before.is_none_or(|before| begins.contains(before) || before == separator);
            match c {
                '[' if begun && self.text[index..].contains(']') => depth = true,
                ']' => depth = false,
                c if c == separator && !depth => {
                    parts.push(Self { text: &self.text[start..index], at: start_at });
                    (start, start_at) = (index + c.len_utf8(), self.at + count + 1);
                }
                _ => {}
            }
            before = Some(c);
        }
        parts.push(Self { text: &self.text[start..], at: start_at });
        parts
    }

    /// The value without the brackets that it stands in.
    fn value(self) -> &'a str {
        let inner = self.text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        inner.unwrap_or(self.text)
    }

    fn place(self) -> Place {
        Place::Character(self.at)
    }
}

/// `mpbgp_*` as they are for all peers that do not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MultiProtocol {
    pub(super) mode: Option<String>,
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// Reads `bgp_peers`. Those that are right are there, whatever is wrong with others.
pub fn peers(text: &str) -> (Vec<Peer>, Vec<Flaw>) {
    peers_with(text, &MultiProtocol::default())
}

pub(super) fn peers_with(text: &str, usual: &MultiProtocol) -> (Vec<Peer>, Vec<Flaw>) {
    let (mut peers, mut flaws) = (Vec::new(), Vec::new());
    let list = Part { text, at: 1 };
    for (number, part) in list.split(',', ":;=/").into_iter().enumerate() {
        // kube-vip passes over empty ones; blanks around come with lists that go over lines.
        let blank = part.text.chars().take_while(|c| c.is_whitespace()).count();
        let part = Part { text: part.text.trim(), at: part.at + blank };
        if part.text.is_empty() {
            continue;
        }
        let mut reader = Reader { of: format!("peer {}", number + 1), flaws: Vec::new() };
        let peer = reader.peer(part, usual);
        match peer.filter(|_| reader.flaws.is_empty()) {
            Some(peer) => peers.push(peer),
            None => flaws.extend(reader.flaws.into_iter().take(MOST_FLAWS - flaws.len())),
        }
    }
    (peers, flaws)
}

/// Of Go's `strconv.ParseBool`, which kube-vip reads with.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// An AS: not 0, which is nobody's (RFC 7607).
pub(super) fn asn(text: &str) -> Option<u32> {
    text.parse().ok().filter(|asn| *asn != 0)
}

struct Reader {
    of: String,
    flaws: Vec<Flaw>,
}

impl Reader {
    fn wrong(&mut self, field: &str, part: Part<'_>, accepted: &str) {
        self.flaws.push(Flaw::new(&self.of, field, part.place(), accepted).value(part.text));
    }

    fn read<T>(
        &mut self,
        field: &str,
        part: Part<'_>,
        value: Option<T>,
        accepted: &str,
    ) -> Option<T> {
        if value.is_none() {
            self.wrong(field, part, accepted);
        }
        value
    }

    fn peer(&mut self, whole: Part<'_>, usual: &MultiProtocol) -> Option<Peer> {
        // The old form has its options behind a slash; a password may have slashes, too.
        let (head, options) = match whole.text.split_once("/mpbgp_") {
            Some((head, _)) => {
                let at = whole.at + head.chars().count() + 1;
                (
                    Part { text: head, at: whole.at },
                    Some(Part { text: &whole.text[head.len() + 1..], at }),
                )
            }
            None => (whole, None),
        };
        let interface = head.text.strip_prefix(UNNUMBERED);
        let rest = interface.map(|text| Part { text, at: head.at + UNNUMBERED.len() });
        let mut fields = rest.unwrap_or(head).split(':', "=;").into_iter();
        let first = fields.next()?;
        let fields: Vec<Part<'_>> = fields.collect();
        let remote = match interface {
            Some(_) => {
                let name = Some(first.value()).filter(|name| is_interface(name));
                Remote::Interface(self.read("interface", first, name, INTERFACE)?.to_owned())
            }
            None => {
                let address = first.value().parse::<IpAddr>().ok();
                let address = address.filter(|address| is_peer(*address));
                Remote::Address(self.read("address", first, address, ADDRESS)?)
            }
        };
        self.of = format!("{} ({remote})", self.of);
        if fields.len() >= MOST_FIELDS {
            let accepted = format!(
                "accepted are {MOST_FIELDS} fields at most; an IPv6 address, and a value with a colon, stand in brackets"
            );
            self.flaws.push(Flaw::new(
                &self.of,
                "field 8",
                fields[MOST_FIELDS - 1].place(),
                accepted,
            ));
            return None;
        }
        let field =
            |number: usize| fields.get(number).copied().filter(|part| !part.text.is_empty());
        let remote_as = match (fields.first(), interface) {
            (None, Some(_)) => RemoteAs::External,
            (None, None) => {
                let end = Place::Character(head.at + head.text.chars().count());
                self.flaws.push(Flaw::new(&self.of, "AS", end, AS_ACCEPTED));
                return None;
            }
            (Some(part), _) => {
                RemoteAs::Is(self.read("AS", *part, asn(part.value()), AS_ACCEPTED)?)
            }
        };
        let mut peer = Peer::new(remote, remote_as);
        if let Some(part) = field(1) {
            peer.password = Password::read(part.value());
            if peer.password.is_none() {
                // Without what stands there.
                self.flaws.push(Flaw::new(&self.of, "password", part.place(), password::ACCEPTED));
            }
        }
        if let Some(part) = field(2)
            && self.read("multihop", part, switch(part.value()), SWITCH_ACCEPTED) == Some(true)
        {
            peer.distance = Distance::Hops(FAR);
        }
        if let Some(part) = field(3) {
            let port = part.value().parse().ok().filter(|port| *port != 0);
            let accepted = "accepted is a port, 1 to 65535";
            peer.port = self.read("port", part, port, accepted).unwrap_or(PORT);
        }
        if let (Some(_), Some(part)) = (options, field(4)) {
            let accepted = "accepted is one of the two forms: options behind /, or in this field";
            self.wrong("options", part, accepted);
        }
        let end = Part { text: "", at: whole.at + whole.text.chars().count() };
        self.options(&mut peer, options.or(field(4)).unwrap_or(end), usual);
        peer.bfd = field(5).and_then(|part| self.bfd(part));
        Some(peer)
    }

    fn options(&mut self, peer: &mut Peer, part: Part<'_>, usual: &MultiProtocol) {
        let (mode, mut v4, mut v6) = (&usual.mode, usual.v4, usual.v6);
        let mut mode = mode.as_deref().map(|text| Part { text, at: part.at });
        let before = self.flaws.len();
        for option in part.split(';', "=").into_iter().filter(|option| !option.text.is_empty()) {
            let Some((key, value)) = option.text.split_once('=') else {
                self.wrong("options", option, OPTIONS);
                continue;
            };
            let value = Part { text: value, at: option.at + key.chars().count() + 1 };
            if value.text.is_empty() {
                continue;
            }
            match key {
                "mpbgp_nexthop" => mode = Some(value),
                "mpbgp_ipv4" => {
                    v4 = self.read(
                        key,
                        value,
                        parsed::<Ipv4Addr>(value),
                        "accepted is an IPv4 address",
                    )
                }
                "mpbgp_ipv6" => {
                    let accepted = "accepted is an IPv6 address; in the form with colons it stands in brackets";
                    v6 = self.read(key, value, parsed::<Ipv6Addr>(value), accepted);
                }
                _ => self.wrong("options", option, OPTIONS),
            }
        }
        // What is wrong with an address has been told.
        if let Some(mode) = mode
            && self.flaws.len() == before
            && let Some(hops) =
                self.read("mpbgp_nexthop", mode, next_hops(mode.value(), v4, v6), NEXT_HOP)
        {
            peer.families = BTreeSet::from(Family::ALL);
            peer.hops = hops;
        }
    }

    fn bfd(&mut self, part: Part<'_>) -> Option<Bfd> {
        let fields = part.split(';', "");
        let [enabled, receive, transmit, multiplier] = fields.as_slice() else {
            let accepted =
                "accepted is ENABLED;RECEIVE;TRANSMIT;MULTIPLIER, such as true;300;300;3";
            self.wrong("BFD", part, accepted);
            return None;
        };
        let usual = Bfd::default();
        let span = "accepted are milliseconds, 10 to 60000";
        let mut time = |field: &str, part: Part<'_>, usual: u32| match part.value() {
            "" => Some(usual),
            text => {
                let time = text.parse().ok().filter(|time| (10..=60_000).contains(time));
                self.read(field, part, time, span)
            }
        };
        let times = (
            time("BFD receive", *receive, usual.receive),
            time("BFD transmit", *transmit, usual.transmit),
        );
        let count = match multiplier.value() {
            "" => Some(usual.multiplier),
            text => {
                let count = text.parse().ok().filter(|count| *count != 0);
                self.read("BFD multiplier", *multiplier, count, "accepted is a number, 1 to 255")
            }
        };
        let enabled =
            self.read("BFD enabled", *enabled, switch(enabled.value()), SWITCH_ACCEPTED)?;
        enabled.then_some(Bfd { receive: times.0?, transmit: times.1?, multiplier: count? })
    }
}

fn parsed<T: FromStr>(part: Part<'_>) -> Option<T> {
    part.value().parse().ok()
}

const ADDRESS: &str = "accepted is an IPv4 address, or an IPv6 address in brackets, of a host; or unnumbered:INTERFACE:AS";
const INTERFACE: &str = "accepted is the name of an interface, 1 to 15 characters";
const OPTIONS: &str =
    "accepted are mpbgp_nexthop=, mpbgp_ipv4= and mpbgp_ipv6= with semicolons between them";
pub(super) const NEXT_HOP: &str =
    "accepted are fixed (with mpbgp_ipv4, mpbgp_ipv6 or both), auto_sourceip and auto_sourceif";

/// Where routes lead, as kube-vip says it.
pub(super) fn next_hops(mode: &str, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Hops> {
    match mode {
        "fixed" if v4.is_some() || v6.is_some() => Some(Hops::Fixed { v4, v6 }),
        "auto_sourceip" => Some(Hops::Connection),
        "auto_sourceif" => Some(Hops::Interface),
        _ => None,
    }
}

/// An address that a host can have and that needs no interface beside it.
pub(super) fn is_peer(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
        }
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_unicast_link_local()
        }
    }
}

pub(super) fn is_interface(name: &str) -> bool {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    (1..16).contains(&name.len()) && !name.contains(odd) && name != "." && name != ".."
}

#[cfg(test)]
mod tests;
