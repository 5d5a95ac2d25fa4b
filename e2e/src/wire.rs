//! Who answers for which address, as seen on the LAN: ARP replies and neighbour advertisements.
//!
//! A [`Watch`] listens on the bridge, where it hears what passes between any two ports. An [`Asker`] makes sure that
//! there is something to hear: it asks for one address again and again from the client.

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, bind,
            recvmsg, send, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};
use socket2::{SockFilter, SockRef};

use crate::{
    addresses::{CLIENT_HOST, Mac, Net, client, mac},
    pauses::Pauses,
    place::Place,
    wire_frame::{question, read},
    worker::Worker,
};

pub use crate::wire_frame::Said;

/// One frame by which someone claimed an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When the kernel took the frame.
    pub at: Instant,
    /// The address.
    pub address: IpAddr,
    /// The hardware address that it is said to be at.
    pub mac: Mac,
    /// In what way.
    pub said: Said,
}

/// An uninterrupted run of sightings of one hardware address for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Who.
    pub mac: Mac,
    /// Its first frame.
    pub first: Instant,
    /// Its last, before another took over.
    pub last: Instant,
    /// How many frames.
    pub frames: usize,
}

/// For so long an owner may answer from its last heartbeat that a majority granted.
const LEASE: Duration = Duration::from_millis(350);

/// An address went from one machine to another.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// When the former one was heard last.
    pub last: Instant,
    /// When the next one was heard first.
    pub first: Instant,
    /// The next one.
    pub to: Mac,
}

impl Move {
    /// How long nobody was heard.
    pub fn silence(&self) -> Duration {
        self.first.duration_since(self.last)
    }

    /// Whether the machine stood still while the lease ran out that was not renewed, or until another one was granted.
    pub fn is_excused(&self, pauses: &Pauses) -> bool {
        pauses.excuse(self.last.checked_sub(LEASE).unwrap_or(self.last), self.first)
    }
}

/// Everything a watch saw, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Record(pub Vec<Sighting>);

impl Record {
    /// Who spoke for `address`, one span after the other. Two spans of one MAC mean that it spoke again after
    /// another had.
    pub fn spans(&self, address: IpAddr) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for sighting in self.0.iter().filter(|s| s.address == address) {
            match spans.last_mut() {
                Some(span) if span.mac == sighting.mac => {
                    span.last = sighting.at;
                    span.frames += 1;
                }
                _ => spans.push(Span {
                    mac: sighting.mac,
                    first: sighting.at,
                    last: sighting.at,
                    frames: 1,
                }),
            }
        }
        spans
    }

    /// How `address` went from one machine to another, where the next one spoke from `since` on.
    pub fn moves(&self, address: IpAddr, since: Instant) -> Vec<Move> {
        let said: Vec<_> = self.0.iter().filter(|s| s.address == address).collect();
        let moves =
            said.windows(2).filter(|pair| pair[1].at >= since && pair[0].mac != pair[1].mac);
        moves.map(|pair| Move { last: pair[0].at, first: pair[1].at, to: pair[1].mac }).collect()
    }

    /// The spans of hardware addresses that spoke for `address` again after another had: with one owner at a time
    /// and no move back there are none.
    pub fn disputes(&self, address: IpAddr) -> Vec<Span> {
        let spans = self.spans(address);
        spans
            .iter()
            .enumerate()
            .filter(|(i, s)| spans[..*i].iter().any(|t| t.mac == s.mac))
            .map(|(_, s)| *s)
            .collect()
    }

    /// When two spoke for `address` at the same time, one such time after the other. Who is heard again within `quiet`
    /// is taken to have been there in between.
    pub fn overlaps(&self, address: IpAddr, quiet: Duration) -> Vec<(Instant, Instant)> {
        let mut present: Vec<(Mac, Instant, Instant)> = Vec::new();
        for sighting in self.0.iter().filter(|s| s.address == address) {
            let last = present.iter_mut().rev().find(|(mac, ..)| *mac == sighting.mac);
            match last {
                Some((_, _, last)) if sighting.at.duration_since(*last) <= quiet => {
                    *last = sighting.at;
                }
                _ => present.push((sighting.mac, sighting.at, sighting.at)),
            }
        }
        let mut both = Vec::new();
        for (i, a) in present.iter().enumerate() {
            let others = present[..i].iter().filter(|b| b.0 != a.0 && b.1 <= a.2 && a.1 <= b.2);
            both.extend(others.map(|b| (a.1.max(b.1), a.2.min(b.2))));
        }
        both.sort();
        let mut merged: Vec<(Instant, Instant)> = Vec::new();
        for (first, last) in both {
            match merged.last_mut() {
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        merged
    }

    /// Sightings of `address` from `since` on.
    pub fn since(&self, address: IpAddr, since: Instant) -> Vec<Sighting> {
        self.0.iter().filter(|s| s.address == address && s.at >= since).copied().collect()
    }
}

/// Between two answers to one question.
const SAME_MOMENT: Duration = Duration::from_millis(2);

/// How far frames may be apart that are not in the order of their times.
const NEARLY: Duration = Duration::from_millis(100);

/// Whether two machines spoke for an address in the same moment. Who takes an address over from one that fell silent
/// waits for ten milliseconds at least; two that answer both answer each question.
pub fn disputed(said: &[Sighting]) -> bool {
    let at_once = |pair: &[Sighting]| {
        pair[0].mac != pair[1].mac && pair[1].at.duration_since(pair[0].at) < SAME_MOMENT
    };
    said.windows(2).any(at_once)
}

/// A watch that runs.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Vec<Sighting>>>,
    worker: Worker,
}

impl Watch {
    /// Listens on the interface `interface` of `place`; [`crate::lab::Lab::watch`] does so on the LAN's bridge.
    pub fn start(place: &Place, interface: &str) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let its_seen = seen.clone();
        let interface = interface.to_owned();
        let worker = Worker::start(place, move |stop, ready| {
            let socket = packet_socket(&interface).and_then(|socket| {
                setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
                setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
                // Nor a flood of what it does not read, nor a burst of what it does.
                SockRef::from(&socket).attach_filter(&claims())?;
                setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
                Ok(socket)
            });
            if let Some(socket) = ready.settle(socket) {
                listen(&socket, &its_seen, stop);
            }
        })?;
        Ok(Self { seen, worker })
    }

    /// What it saw so far.
    pub fn so_far(&self) -> Record {
        Record(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// What it saw so far of `address` from `since` on.
    pub fn heard(&self, address: IpAddr, since: Instant) -> Vec<Sighting> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // They are here in the order in which they came, or nearly.
        let late = |sighting: &&Sighting| sighting.at + NEARLY >= since;
        let wanted = |sighting: &&Sighting| sighting.address == address && sighting.at >= since;
        let mut said: Vec<_> = seen.iter().rev().take_while(late).filter(wanted).copied().collect();
        said.sort_by_key(|s| s.at);
        said
    }

    /// Stops, and tells.
    pub fn finish(self) -> Result<Record> {
        self.worker.finish()?;
        let mut seen =
            std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.sort_by_key(|s| s.at);
        Ok(Record(seen))
    }
}

/// Asks the LAN for an address from the client, again and again.
#[derive(Debug)]
pub struct Asker {
    worker: Worker,
    late: Arc<Mutex<Vec<(Instant, Duration)>>>,
}

/// What is shorter is nothing to judge.
const LATE: Duration = Duration::from_millis(20);

impl Asker {
    /// Asks for `address` every `every` from the lab's client.
    pub fn start(client_place: &Place, address: IpAddr, every: Duration) -> Result<Self> {
        let (own_mac, own) = (mac(Net::Lan, CLIENT_HOST), client());
        let frame = question(address, own_mac, own);
        let late = Arc::new(Mutex::new(Vec::new()));
        let its_late = late.clone();
        let worker = Worker::start(client_place, move |stop, ready| {
            let Some(socket) = ready.settle(packet_socket(Net::Lan.interface())) else { return };
            while !stop.load(Ordering::Relaxed) {
                // The link may be down on purpose.
                let _ = send(socket.as_raw_fd(), &frame, MsgFlags::empty());
                let due = Instant::now() + every;
                thread::sleep(every);
                let waited = due.elapsed();
                if waited >= LATE {
                    its_late.lock().unwrap_or_else(PoisonError::into_inner).push((due, waited));
                }
            }
        })?;
        Ok(Self { worker, late })
    }

    /// For how long it waited for a processor at most between `from` and `to`. What nobody asks for then nobody fails to answer.
    pub fn starved(&self, from: Instant, to: Instant) -> Duration {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let meanwhile = late.iter().filter(|(due, waited)| *due <= to && from <= *due + *waited);
        meanwhile.map(|(_, waited)| *waited).max().unwrap_or_default()
    }

    /// Stops.
    pub fn finish(self) -> Result<()> {
        self.worker.finish()
    }
}

/// A raw socket that takes whole frames of one interface of the calling thread's namespace.
pub(crate) fn packet_socket(interface: &str) -> Result<OwnedFd> {
    let all =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .context("open a packet socket")?;
    let links = getifaddrs()?;
    let link = links
        .filter(|a| a.interface_name == interface)
        .find_map(|a| a.address.and_then(|address| address.as_link_addr().copied()))
        .with_context(|| format!("no interface {interface}"))?;
    bind(all.as_raw_fd(), &link).with_context(|| format!("bind to {interface}"))?;
    Ok(all)
}

/// What [`read`] reads: ARP, and IPv6 that carries ICMPv6 (Linux `networking/filter.rst`).
fn claims() -> [SockFilter; 7] {
    const ETHERTYPE: u32 = 12;
    const NEXT_HEADER: u32 = 20;
    [
        SockFilter::new(0x28, 0, 0, ETHERTYPE),
        SockFilter::new(0x15, 3, 0, 0x0806),
        SockFilter::new(0x15, 0, 3, 0x86dd),
        SockFilter::new(0x30, 0, 0, NEXT_HEADER),
        SockFilter::new(0x15, 0, 1, 58),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ]
}

fn listen(socket: &OwnedFd, seen: &Mutex<Vec<Sighting>>, stop: &AtomicBool) {
    let base = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let mut buffer = [0; 2048];
    let mut space = nix::cmsg_space!(nix::libc::timespec);
    while !stop.load(Ordering::Relaxed) {
        let mut pieces = [std::io::IoSliceMut::new(&mut buffer)];
        let Ok(message) = recvmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &mut pieces,
            Some(&mut space),
            MsgFlags::empty(),
        ) else {
            continue;
        };
        let stamp = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|c| match c {
                ControlMessageOwned::ScmTimestampns(t) => Some(Duration::from(t)),
                _ => None,
            })
        });
        let at = stamp.map_or_else(Instant::now, |stamp| match stamp.checked_sub(base.1) {
            Some(later) => base.0 + later,
            None => base.0,
        });
        let length = message.bytes;
        if let Some((address, mac, said)) = read(&buffer[..length]) {
            let sighting = Sighting { at, address, mac, said };
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(sighting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_that_speaks_again_after_another_is_a_dispute() {
        let start = Instant::now();
        let address = IpAddr::from([10, 0, 0, 9]);
        let sight = |ms, last| Sighting {
            at: start + Duration::from_millis(ms),
            address,
            mac: [2, 0, 0, 0, 0, last],
            said: Said::Answer,
        };
        let clean = Record(vec![sight(0, 1), sight(1, 1), sight(2, 2), sight(3, 2)]);
        assert_eq!(clean.spans(address).len(), 2);
        assert_eq!(clean.disputes(address), []);
        let disputed = Record(vec![sight(0, 1), sight(1, 2), sight(2, 1)]);
        assert_eq!(disputed.disputes(address).len(), 1);
    }

    #[test]
    fn a_move_is_excused_by_a_pause_in_its_lease_or_its_takeover_and_by_no_other() {
        let start = Instant::now();
        let address = IpAddr::from([10, 0, 0, 9]);
        let at = |ms| start + Duration::from_millis(ms);
        let sight = |ms, last| Sighting {
            at: at(ms),
            address,
            mac: [2, 0, 0, 0, 0, last],
            said: Said::Answer,
        };
        let record = Record(vec![sight(0, 1), sight(1000, 1), sight(1370, 2), sight(1400, 2)]);
        assert_eq!(record.moves(address, at(1371)).len(), 0);
        let moved = record.moves(address, at(1370))[0];
        assert_eq!((moved.silence(), moved.to[5]), (Duration::from_millis(370), 2));
        let excused = |from, to| moved.is_excused(&Pauses::from([(at(from), at(to))]));
        assert!(!moved.is_excused(&Pauses::default()), "a lease that was dropped");
        assert!(!excused(400, 649), "long before");
        assert!(excused(400, 650) && excused(1000, 1200) && excused(1300, 1500));
        assert!(!excused(1000, 1069), "too short");
        assert!(!excused(1371, 1500), "after it");
    }

    #[test]
    fn two_overlap_where_one_is_heard_before_and_after_the_other() {
        let start = Instant::now();
        let address = IpAddr::from([10, 0, 0, 9]);
        let ms = Duration::from_millis;
        let overlaps = |seen: &[(u64, u8)]| {
            let sight = |(at, last): &(u64, u8)| Sighting {
                at: start + ms(*at),
                address,
                mac: [2, 0, 0, 0, 0, *last],
                said: Said::Answer,
            };
            let record = Record(seen.iter().map(sight).collect());
            let times = record.overlaps(address, ms(100));
            times.iter().map(|(a, b)| (*a - start, *b - start)).collect::<Vec<_>>()
        };
        assert_eq!(overlaps(&[(0, 1), (50, 1), (60, 2), (90, 2)]), []);
        assert_eq!(overlaps(&[(0, 1), (50, 2), (90, 1)]), [(ms(50), ms(50))]);
        // It came back, long after.
        assert_eq!(overlaps(&[(0, 1), (50, 2), (500, 1)]), []);
        let paused = [(0, 1), (10, 2), (60, 1), (70, 2), (120, 1), (400, 2)];
        assert_eq!(overlaps(&paused), [(ms(10), ms(70))]);
    }
}
