//! The elements of the guard's sets as the kernel has them: what changes of them, and what they say. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::layout::{SETS, Sets, addresses, asked_for, led, of_family};
use crate::kernel::nftables::Change;
use crate::kernel::{Guarded, Port};

/// So many elements change in one transaction at most: what the guard has of a large cluster is written and read in pieces,
/// by a message that every kernel takes.
const PIECE: usize = 1024;

/// The transactions from guarding `now` to guarding `wanted`. What is not all there yet opens no port and closes none that is
/// to be open: ports and endpoints come before the addresses, and go after them.
pub(super) fn changes(
    now: &Guarded,
    wanted: &Guarded,
    closes: bool,
    full: bool,
) -> Vec<Vec<Change>> {
    let gone: BTreeSet<Port> = now.ports.difference(&wanted.ports).copied().collect();
    let new: BTreeSet<Port> = wanted.ports.difference(&now.ports).copied().collect();
    let ports = |adds: bool| {
        let ports = if adds { &new } else { &gone };
        let [from, to] = ends(now, wanted, adds);
        SETS.iter().flat_map(move |sets| {
            let pairs = [from, to]
                .map(|all| if full { led(&all.doubted, sets.v4) } else { BTreeSet::new() });
            let leads = pairs[0]
                .difference(&pairs[1])
                .map(|(asked, to)| [octets(asked), octets(to)].concat());
            let leads = Change { adds, set: sets.leads, keys: leads.collect() };
            let ports = of_family(ports, sets.v4).map(key).collect();
            [Change { adds, set: sets.services, keys: ports }, leads]
        })
    };
    let behind = |adds: bool| {
        let ports = if adds { &new } else { &gone };
        let [from, to] = ends(now, wanted, adds);
        let of = move |sets: &Sets| {
            let closed = addresses(ports, sets.v4);
            let others = addresses(&to.ports, sets.v4);
            let closed = closed.difference(&others).map(octets).collect();
            let asked = [from, to]
                .map(|all| if full { asked_for(&all.doubted, sets.v4) } else { BTreeSet::new() });
            let asked = asked[0].difference(&asked[1]).map(octets).collect();
            [
                Change { adds, set: sets.doubted, keys: asked },
                Change { adds, set: sets.closed, keys: closed },
            ]
        };
        SETS.iter().filter(move |_| closes).flat_map(of)
    };
    pieces(ports(true).chain(behind(false)).chain(behind(true)).chain(ports(false)))
}

/// What something comes from and goes to: what is there and what is wanted, or the other way round.
fn ends<'a>(now: &'a Guarded, wanted: &'a Guarded, adds: bool) -> [&'a Guarded; 2] {
    if adds { [wanted, now] } else { [now, wanted] }
}

/// Fills transactions, in this order.
fn pieces(changes: impl Iterator<Item = Change>) -> Vec<Vec<Change>> {
    let mut pieces = Vec::new();
    let (mut piece, mut room) = (Vec::new(), PIECE);
    for Change { adds, set, keys } in changes {
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let some: Vec<_> = keys.by_ref().take(room).collect();
            room -= some.len();
            piece.push(Change { adds, set, keys: some });
            if room == 0 {
                pieces.push(std::mem::take(&mut piece));
                room = PIECE;
            }
        }
    }
    pieces.extend(Some(piece).filter(|piece| !piece.is_empty()));
    pieces
}

/// Transactions by which the addresses that are doubted stay so for as long again: before Linux 6.12 an element takes no
/// other time.
pub(super) fn renewal(guarded: &Guarded) -> Vec<Vec<Change>> {
    let of = |sets: &Sets| {
        let all: Vec<_> = asked_for(&guarded.doubted, sets.v4).iter().map(octets).collect();
        let set = sets.doubted;
        let again = move |keys: &[Vec<u8>]| {
            let gone = Change { adds: false, set, keys: keys.to_vec() };
            vec![gone.clone(), Change { adds: true, ..gone }]
        };
        all.chunks(PIECE).map(again).collect::<Vec<_>>()
    };
    SETS.iter().flat_map(of).collect()
}

/// The sets that there are.
pub(super) fn sets(closes: bool) -> Vec<&'static str> {
    let of = |sets: &Sets| [sets.services, sets.closed, sets.doubted, sets.leads];
    SETS.iter().flat_map(|sets| of(sets).into_iter().take(if closes { 4 } else { 1 })).collect()
}

/// Takes in what is in the sets, element by element.
#[derive(Debug, Default)]
pub(super) struct Reading {
    guarded: Guarded,
    closed: BTreeSet<IpAddr>,
    leads: Vec<(IpAddr, IpAddr)>,
    /// Something that no set of ours has.
    strange: bool,
}

impl Reading {
    pub(super) fn take(&mut self, set: &str, key: &[u8]) {
        if self.read(set, key).is_none() {
            self.strange = true;
        }
    }

    fn read(&mut self, set: &str, key: &[u8]) -> Option<()> {
        let sets = SETS
            .iter()
            .find(|sets| [sets.services, sets.closed, sets.doubted, sets.leads].contains(&set))?;
        let (first, rest) = key.split_at_checked(if sets.v4 { 4 } else { 16 })?;
        let first = address(first)?;
        if set == sets.services {
            let &[protocol, _, _, _, high, low, _, _] = rest else { return None };
            let port = u16::from_be_bytes([high, low]);
            self.guarded.ports.insert(Port { address: first, protocol, port });
        } else if set == sets.leads {
            self.leads.push((first, address(rest)?));
        } else if set == sets.doubted {
            self.guarded.doubted.entry(first).or_default();
        } else {
            self.closed.insert(first);
        }
        Some(())
    }

    /// What is guarded; nothing if it is not what [`changes`] writes.
    pub(super) fn end(mut self, closes: bool) -> Option<Guarded> {
        for (asked, to) in self.leads {
            self.guarded.doubted.get_mut(&asked)?.insert(to);
        }
        let own = self.guarded.ports.iter().filter(|_| closes).map(|port| port.address);
        (!self.strange && self.closed == own.collect()).then_some(self.guarded)
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
    v4().or_else(|| Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)))
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// An element of a set of ports as the kernel has it: the address, the protocol, the port, each filled up to four octets.
fn key(port: &Port) -> Vec<u8> {
    let [high, low] = port.port.to_be_bytes();
    [octets(&port.address), vec![port.protocol, 0, 0, 0, high, low, 0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, protocol: u8, port: u16) -> Port {
        Port { address: address.parse().unwrap(), protocol, port }
    }

    fn change(adds: bool, set: &'static str, keys: &[&[u8]]) -> Change {
        Change { adds, set, keys: keys.iter().map(|key| key.to_vec()).collect() }
    }

    #[test]
    fn a_small_change_touches_only_what_differs() {
        let now = BTreeSet::from([port("192.0.2.1", 6, 80), port("192.0.2.2", 6, 80)]).into();
        let wanted = BTreeSet::from([port("192.0.2.2", 6, 81), port("2001:db8::1", 6, 443)]).into();
        let changes = |closes| changes(&now, &wanted, closes, closes);
        let v6 = [32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let v6_port = [&v6[..], &[6, 0, 0, 0, 1, 187, 0, 0]].concat();
        let gone = change(
            false,
            "services4",
            &[&[192, 0, 2, 1, 6, 0, 0, 0, 0, 80, 0, 0], &[192, 0, 2, 2, 6, 0, 0, 0, 0, 80, 0, 0]],
        );
        let new = change(true, "services4", &[&[192, 0, 2, 2, 6, 0, 0, 0, 0, 81, 0, 0]]);
        let new6 = change(true, "services6", &[&v6_port]);
        assert_eq!(changes(false), [vec![new.clone(), new6.clone(), gone.clone()]]);
        // An address that keeps a port stays closed.
        let opened = change(false, "closed4", &[&[192, 0, 2, 1]]);
        let closed = change(true, "closed6", &[&v6]);
        assert_eq!(changes(true), [vec![new, new6, opened, closed, gone]]);
    }

    #[test]
    fn what_is_doubted_is_said_again_family_by_family() {
        let doubted = ["192.0.2.1", "192.0.2.2"].map(|a| (a.parse().unwrap(), BTreeSet::new()));
        let guarded = Guarded { doubted: doubted.into(), ..Guarded::default() };
        let change = |adds| change(adds, "doubted4", &[&[192, 0, 2, 1], &[192, 0, 2, 2]]);
        assert_eq!(renewal(&guarded), [[change(false), change(true)]]);
    }

    /// What the kernel has after each transaction.
    fn after_each(now: &Guarded, wanted: &Guarded) -> Vec<BTreeSet<(&'static str, Vec<u8>)>> {
        let mut held = BTreeSet::new();
        let [begin, steps] = [(&Guarded::default(), now), (now, wanted)]
            .map(|(now, wanted)| changes(now, wanted, true, true));
        let mut perform = |piece: Vec<Change>| {
            assert!(piece.iter().map(|change| change.keys.len()).sum::<usize>() <= PIECE);
            for Change { adds, set, keys } in piece {
                for key in keys {
                    let news = match adds {
                        true => held.insert((set, key)),
                        false => held.remove(&(set, key)),
                    };
                    assert!(news, "the kernel would refuse it");
                }
            }
            held.clone()
        };
        begin.into_iter().for_each(|piece| drop(perform(piece)));
        steps.into_iter().map(perform).collect()
    }

    fn read(held: &BTreeSet<(&'static str, Vec<u8>)>) -> Option<Guarded> {
        let mut reading = Reading::default();
        held.iter().for_each(|(set, key)| reading.take(set, key));
        reading.end(true)
    }

    #[test]
    fn a_large_change_comes_in_pieces_and_no_address_is_closed_before_its_ports_are_known() {
        let many = |address: &str, first: u16| -> Guarded {
            let ports: BTreeSet<Port> =
                (first..first + 3000).map(|n| port(address, 6, n)).collect();
            let address = address.parse().unwrap();
            let to = (0..3000_u16).map(|n| match address {
                IpAddr::V4(_) => IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]),
                IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]),
            });
            Guarded { ports, doubted: [(address, to.collect())].into() }
        };
        let (v4, v6) = (many("192.0.2.1", 1), many("2001:db8::1", 1000));
        for (now, wanted) in
            [(&v4, &v6), (&v6, &v4), (&Guarded::default(), &v4), (&v6, &Guarded::default())]
        {
            let all = after_each(now, wanted);
            assert_eq!(all.last().and_then(read).as_ref(), Some(wanted));
            for held in &all {
                let count = |set: &str| held.iter().filter(|(of, _)| *of == set).count();
                for sets in SETS {
                    let whole = (count(sets.closed), count(sets.doubted)) == (0, 0)
                        || (count(sets.services), count(sets.leads)) == (3000, 3000);
                    assert!(whole, "{}: {}", sets.services, held.len());
                }
            }
        }
    }

    #[test]
    fn what_no_set_of_ours_has_is_not_the_table_that_is_written() {
        let read = |all: &[(&'static str, &[u8])]| {
            read(&all.iter().map(|(set, key)| (*set, key.to_vec())).collect())
        };
        let ours: [(_, &[u8]); 2] =
            [("services4", &[192, 0, 2, 1, 6, 0, 0, 0, 0, 80, 0, 0]), ("closed4", &[192, 0, 2, 1])];
        assert!(read(&ours).is_some());
        assert_eq!(read(&ours[..1]), None, "it is not closed");
        assert_eq!(read(&[("leads4", &[192, 0, 2, 1, 10, 0, 0, 1])]), None, "nobody doubts it");
        for (set, key) in [("closed4", &[1][..]), ("services4", &[0; 11]), ("other", &[0; 12])] {
            assert_eq!(read(&[&ours[..], &[(set, key)]].concat()), None, "{set}");
        }
    }
}
