//! Packet captures on the LAN, and the convenience to start every observer from the lab.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    signal::Signal,
    socket::{MsgFlags, send},
};

use crate::{
    addresses::{Net, mac, node_host},
    fabric::FABRIC,
    lab::Lab,
    probe::{Manner, Probe},
    process::Process,
    wire::{Asker, Watch, packet_socket},
    wire_frame::announcement,
};

/// tcpdump at work. Its file lies among the lab's logs and is kept with them if the test fails.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
    lab: crate::place::Place,
}

impl Capture {
    /// Stops it and returns what it caught as tcpdump prints it, one line a frame, with hardware addresses.
    pub fn finish(self) -> Result<String> {
        self.process.signal(Signal::SIGINT)?;
        ensure!(self.process.id.wait(Duration::from_secs(10)), "tcpdump does not end");
        let file = self.path.display().to_string();
        self.lab.exec(["tcpdump", "-nn", "-e", "-tt", "-r", &file])
    }

    /// The file it writes.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Lab {
    /// Captures what passes the LAN's bridge and matches `filter` (pcap-filter(7); empty: everything).
    /// Returns once it listens. `name` must be unused.
    pub fn capture(&self, name: &str, filter: &str) -> Result<Capture> {
        let fabric = self.place_in_network(FABRIC);
        let path = self.dir().join("logs").join(format!("{name}.pcap"));
        let file = path.display().to_string();
        let mut argv = vec!["tcpdump", "-i", Net::Lan.bridge(), "-U", "-nn", "-Z", "root"];
        // Frames would else lie in the kernel for up to a second, and be lost with the end.
        argv.extend(["--immediate-mode", "-w", &file]);
        argv.extend(filter.split_whitespace());
        let process = fabric.start(&format!("capture-{name}"), argv)?;
        let start = Instant::now();
        while !process.log_text().contains("listening on") {
            ensure!(process.is_alive(), "tcpdump ended: {}", process.log_tail());
            ensure!(
                start.elapsed() < Duration::from_secs(10),
                "tcpdump does not start: {}",
                process.log_tail()
            );
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Capture { process, path, lab: fabric })
    }

    /// Listens for ARP and neighbour discovery on the LAN.
    pub fn watch(&self) -> Result<Watch> {
        Watch::start(&self.place_in_network(FABRIC), Net::Lan.bridge())
    }

    /// A node tells everybody on the LAN that it has an address, as an announcer does that has just bound it.
    pub fn announce(&self, node: usize, address: IpAddr) -> Result<()> {
        let frame = announcement(address, mac(Net::Lan, node_host(node)));
        self.node(node).place()?.in_network(|| {
            let socket = packet_socket(Net::Lan.interface())?;
            let sent = send(socket.as_raw_fd(), &frame, MsgFlags::empty())?;
            ensure!(sent == frame.len(), "{sent} octets of {}", frame.len());
            Ok(())
        })?
    }

    /// Asks the LAN for an address from the client, every `every`.
    pub fn ask(&self, address: IpAddr, every: Duration) -> Result<Asker> {
        Asker::start(&self.outside(), address, every)
    }

    /// Connects to `target` (`10.0.64.1:80`, `[fd00:10::4001]:80`) from the client with a new connection every `every`.
    pub fn probe(&self, target: &str, every: Duration) -> Result<Probe> {
        Probe::start(&self.outside(), socket_address(target)?, every, Manner::NewConnections)
    }

    /// Sends a request every `every` over one connection from the client.
    pub fn hold(&self, target: &str, every: Duration) -> Result<Probe> {
        Probe::start(&self.outside(), socket_address(target)?, every, Manner::OneConnection)
    }
}

fn socket_address(target: &str) -> Result<SocketAddr> {
    target
        .parse()
        .with_context(|| format!("{target:?}: 192.0.2.1:80 or [2001:db8::1]:80 is accepted"))
}
