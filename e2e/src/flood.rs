//! Datagrams by the thousand, out of a network namespace of the lab, and frames that were recorded, once more. Both end by
//! themselves, and go nowhere but into the lab.

use std::fs::File;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, send, sendmmsg};

use crate::addresses::{CLIENT_HOST, Net, mac};
use crate::lab::Lab;
use crate::wire::packet_socket;
use crate::worker::{Ready, Worker};

/// Datagrams that one call hands to the kernel.
const BATCH: usize = 64;

/// What is sent, how often, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Datagrams a second; none for as many as the machine sends.
    pub rate: Option<u32>,
    /// After this it ends.
    pub span: Duration,
}

impl Load {
    /// When the datagram of this number is due.
    fn due(&self, begun: Instant, number: u64) -> Instant {
        let each = self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
        begun + each.mul_f64(number as f64)
    }
}

/// Somebody who sends.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    worker: Worker,
}

impl Flood {
    /// Sends datagrams out of a network namespace, one after the other and again from the first, each to its target.
    pub fn datagrams(net: File, datagrams: Vec<(SocketAddr, Vec<u8>)>, load: Load) -> Result<Self> {
        ensure!(!datagrams.is_empty(), "nothing to send");
        Self::start(net, load, move |ready| {
            let any: IpAddr = if datagrams[0].0.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = ready.settle(UdpSocket::bind((any, 0)).context("bind"))?;
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
            let (mut at, length) = (0, datagrams.len());
            Some(move || {
                let batch = (0..BATCH).map(|next| &datagrams[(at + next) % length]);
                let (targets, slices): (Vec<_>, Vec<_>) = batch
                    .map(|(to, octets)| (Some(SockaddrStorage::from(*to)), [IoSlice::new(octets)]))
                    .unzip();
                at += BATCH;
                let none = MsgFlags::empty();
                let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, targets, [], none);
                // What the kernel has no room for is lost, as on any link.
                sent.map_or(0, Iterator::count) as u64
            })
        })
    }

    /// Sends frames from the lab's client.
    pub fn frames(lab: &Lab, frames: Vec<Vec<u8>>, load: Load) -> Result<Self> {
        ensure!(!frames.is_empty(), "nothing to send");
        Self::start(lab.outside().open_net()?, load, move |ready| {
            let socket = ready.settle(packet_socket(Net::Lan.interface()))?;
            let mut next = 0;
            Some(move || {
                let sent =
                    send(socket.as_raw_fd(), &frames[next % frames.len()], MsgFlags::empty());
                next += 1;
                u64::from(sent.is_ok())
            })
        })
    }

    /// `begin` gives what sends a few, and says how many.
    fn start<S: FnMut() -> u64>(
        net: File,
        load: Load,
        begin: impl FnOnce(Ready) -> Option<S> + Send + 'static,
    ) -> Result<Self> {
        let sent = Arc::new(AtomicU64::new(0));
        let count = sent.clone();
        let worker = Worker::start_in(net, move |stop: &AtomicBool, ready| {
            let Some(mut some) = begin(ready) else { return };
            let begun = Instant::now();
            while begun.elapsed() < load.span && !stop.load(Ordering::Relaxed) {
                let total = count.fetch_add(some(), Ordering::Relaxed);
                thread::sleep(load.due(begun, total).saturating_duration_since(Instant::now()));
            }
        })?;
        Ok(Self { sent, worker })
    }

    /// Waits for its end; how many it has sent.
    pub fn finish(self) -> Result<u64> {
        self.worker.join()?;
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

/// The UDP datagrams that a capture has: from, to, and what is in them.
pub fn recorded(capture: &Path) -> Result<Vec<Recorded>> {
    // The header of the file, and of each frame with the number of its octets at 8 (pcap-savefile(5)).
    const FILE: usize = 24;
    const FRAME: usize = 16;
    let octets = std::fs::read(capture).with_context(|| capture.display().to_string())?;
    let mut rest = octets.get(FILE..).context("no capture")?;
    let mut recorded = Vec::new();
    // The last one may be written in part.
    while let Some((header, behind)) = rest.split_at_checked(FRAME) {
        let length = u32::from_le_bytes(header[8..12].try_into()?) as usize;
        let Some((frame, behind)) = behind.split_at_checked(length) else { break };
        recorded.extend(read(frame));
        rest = behind;
    }
    Ok(recorded)
}

/// A datagram of a capture.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// From where.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// The hardware address that it went to.
    to_mac: [u8; 6],
    /// What is in it.
    pub payload: Vec<u8>,
}

fn read(frame: &[u8]) -> Option<Recorded> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => return None,
    };
    let TransportSlice::Udp(udp) = packet.transport? else { return None };
    Some(Recorded {
        from: (from, udp.source_port()).into(),
        to: (to, udp.destination_port()).into(),
        to_mac: frame.get(..6)?.try_into().ok()?,
        payload: udp.payload().to_vec(),
    })
}

impl Recorded {
    /// The frame once more, with the addresses it had, as the lab's client can send it: bridges learn nothing of anybody else
    /// by it. Its checksums are made anew, since what goes by a veth has none.
    pub fn frame(&self) -> Result<Vec<u8>> {
        let ethernet = PacketBuilder::ethernet2(mac(Net::Lan, CLIENT_HOST), self.to_mac);
        let ip = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            _ => anyhow::bail!("{self:?} is of two families"),
        };
        let mut frame = Vec::new();
        ip.udp(self.from.port(), self.to.port()).write(&mut frame, &self.payload)?;
        Ok(frame)
    }
}
