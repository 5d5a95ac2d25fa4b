//! Asks for addresses and notes who answers, from the far end of the wire and by the kernel's receive time.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};

use super::{Namespace, PEER4, PEER6};

const MAC: [u8; 6] = [0x02, 0xfe, 0, 0, 0, 0x02];

/// A frame that tells where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The address that it speaks for.
    pub(crate) address: IpAddr,
    /// When it arrived, in nanoseconds since boot.
    pub(crate) at: u64,
}

/// A packet socket at the peer that sees every answer.
pub(crate) struct Witness {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<Vec<IpAddr>>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Starts watching `device`.
    pub(crate) fn start(namespace: &Namespace, device: &str) -> Witness {
        let (ear, mouth) = namespace.within(|| (packet_socket(device), packet_socket(device)));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let asked: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
        let end = Arc::new(AtomicBool::new(false));
        let listen = {
            let (answers, end) = (answers.clone(), end.clone());
            std::thread::spawn(move || {
                while !end.load(Ordering::SeqCst) {
                    let heard = hear(&ear);
                    answers.lock().unwrap().extend(heard);
                }
            })
        };
        let ask = {
            let (asked, end) = (asked.clone(), end.clone());
            std::thread::spawn(move || {
                while !end.load(Ordering::SeqCst) {
                    let targets = asked.lock().unwrap().clone();
                    for target in targets {
                        match send(mouth.as_raw_fd(), &question(target), MsgFlags::empty()) {
                            Ok(_) | Err(Errno::ENETDOWN | Errno::ENOBUFS) => {}
                            Err(error) => panic!("asking for {target}: {error}"),
                        }
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
            })
        };
        Witness { answers, asked, end, threads: vec![listen, ask] }
    }

    /// Asks for `addresses` about every half millisecond from now on.
    pub(crate) fn ask(&self, addresses: &[&str]) {
        *self.asked.lock().unwrap() =
            addresses.iter().map(|address| address.parse().unwrap()).collect();
    }

    /// Every answer for `address` so far.
    pub(crate) fn answers(&self, address: &str) -> Vec<Answer> {
        let address: IpAddr = address.parse().unwrap();
        let answers = self.answers.lock().unwrap();
        answers.iter().copied().filter(|answer| answer.address == address).collect()
    }

    /// When the last answer for `address` came.
    pub(crate) fn last(&self, address: &str) -> Option<u64> {
        self.answers(address).last().map(|answer| answer.at)
    }

    /// Waits for an answer that comes after now.
    pub(crate) fn hears(&self, address: &str) {
        let from = super::boottime();
        super::until(&format!("{address} answers"), || {
            self.last(address).is_some_and(|at| at > from)
        });
    }

    /// Waits until `reference`, which answers, has been heard `count` times more: so many questions went unanswered
    /// by an address that was asked for alike and stayed silent. Returns how many answers `silent` gave meanwhile.
    pub(crate) fn silence(&self, silent: &str, reference: &str, count: usize) -> usize {
        let (before, from) = (self.answers(silent).len(), self.answers(reference).len());
        super::until(&format!("{reference} answers {count} times"), || {
            self.answers(reference).len() >= from + count
        });
        self.answers(silent).len() - before
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if let (Err(panic), false) = (thread.join(), std::thread::panicking()) {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn packet_socket(device: &str) -> OwnedFd {
    let fd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .unwrap();
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 5_000)).unwrap();
    setsockopt(&fd, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    let index = if_nametoindex(device).unwrap();
    bind(fd.as_raw_fd(), &link_address(index)).unwrap();
    fd
}

#[allow(unsafe_code)]
fn link_address(index: u32) -> nix::sys::socket::LinkAddr {
    use nix::sys::socket::SockaddrLike;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = std::mem::size_of_val(&address) as u32;
    // SAFETY: a complete sockaddr_ll of the length given.
    unsafe {
        nix::sys::socket::LinkAddr::from_raw(std::ptr::from_ref(&address).cast(), Some(length))
    }
    .unwrap()
}

fn hear(fd: &OwnedFd) -> Option<Answer> {
    let mut frame = [0u8; 2048];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut parts = [IoSliceMut::new(&mut frame)];
    let message =
        match recvmsg::<()>(fd.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return None,
            Err(error) => panic!("listening: {error}"),
        };
    let stamp = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp).as_nanos() as u64),
        _ => None,
    });
    let length = message.bytes;
    let realtime =
        Duration::from(clock_gettime(ClockId::CLOCK_REALTIME).unwrap()).as_nanos() as u64;
    let at = super::boottime() - realtime.saturating_sub(stamp.unwrap());
    speaks_for(&frame[..length]).map(|address| Answer { address, at })
}

/// The address that a frame claims, unless it is one of our own questions.
fn speaks_for(frame: &[u8]) -> Option<IpAddr> {
    if frame.get(6..12)? == MAC {
        return None;
    }
    match frame.get(12..14)? {
        [0x08, 0x06] => Some(IpAddr::from(*frame.get(28..)?.first_chunk::<4>()?)),
        [0x86, 0xdd] if frame.get(20)? == &58 && frame.get(54)? == &136 => {
            Some(IpAddr::from(*frame.get(62..)?.first_chunk::<16>()?))
        }
        // RFC 4861 section 7.2.3: it teaches where its source is.
        [0x86, 0xdd] if frame.get(20)? == &58 && frame.get(54)? == &135 => {
            Some(IpAddr::from(*frame.get(22..)?.first_chunk::<16>()?))
        }
        _ => None,
    }
}

/// Sends `frame` out of `device`, as an announcer does.
pub(crate) fn send_from(namespace: &Namespace, device: &str, frame: &[u8]) {
    let socket = namespace.within(|| packet_socket(device));
    // The fence tells the sender that it dropped the frame (ENOBUFS), as a full queue would.
    match send(socket.as_raw_fd(), frame, MsgFlags::empty()) {
        Ok(_) | Err(Errno::ENOBUFS) => {}
        Err(error) => panic!("sending: {error}"),
    }
}

fn question(target: IpAddr) -> Vec<u8> {
    match target {
        IpAddr::V4(target) => arp(MAC, 1, PEER4.parse().unwrap(), target),
        IpAddr::V6(target) => {
            let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
            group[13..].copy_from_slice(&target.octets()[13..]);
            neighbour(MAC, 135, PEER6.parse().unwrap(), group.into(), target)
        }
    }
}

/// RFC 826, broadcast.
pub(crate) fn arp(mac: [u8; 6], operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// RFC 4861 sections 4.3 and 4.4, to a group.
pub(crate) fn neighbour(
    mac: [u8; 6],
    kind: u8,
    source: Ipv6Addr,
    group: Ipv6Addr,
    target: Ipv6Addr,
) -> Vec<u8> {
    let (flags, option) = if kind == 136 { (0x20, 2) } else { (0, 1) };
    let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    body.extend(target.octets());
    body.extend([option, 1]);
    body.extend(mac);
    let sum = checksum(source, group, &body);
    body[2..4].copy_from_slice(&sum);
    let mut frame = vec![0x33, 0x33];
    frame.extend(&group.octets()[12..]);
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, body.len() as u8, 58, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(body);
    frame
}

/// RFC 8200 section 8.1.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> [u8; 2] {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(body);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
