//! Owns the nfnetlink socket. A batch has been performed or refused, as a whole, when `commit` returns.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::libc;

use super::elements::Batch;
use crate::instance::Instance;

/// The socket.
#[derive(Debug)]
pub(crate) struct Netfilter(Socket);

impl Netfilter {
    /// Opens a socket in the network namespace of this thread.
    pub(crate) fn open() -> io::Result<Netfilter> {
        let socket = Socket::new(NETLINK_NETFILTER)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel performs a batch while it is sent, so that its answers are there when `send` returns.
        socket.set_non_blocking(true)?;
        socket.set_cap_ack(true)?;
        Ok(Netfilter(socket))
    }

    /// Performs `batch`.
    pub(crate) fn commit(&self, batch: Batch) -> io::Result<()> {
        self.results()?;
        let (bytes, expected) = batch.finish();
        self.0.send(&bytes, 0)?;
        let results = self.results()?;
        if let Some(&code) = results.iter().find(|code| **code != 0) {
            return Err(io::Error::from_raw_os_error(-code));
        }
        if results.len() == expected {
            Ok(())
        } else {
            let text = format!("nftables acknowledged {} of {expected} messages", results.len());
            Err(io::Error::other(text))
        }
    }

    /// The result codes that wait to be read.
    fn results(&self) -> io::Result<Vec<i32>> {
        let mut codes = Vec::new();
        loop {
            let datagram = match self.0.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(codes),
                Err(error) => return Err(error),
            };
            let mut rest = datagram.as_slice();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                if i32::from(message.message_type()) == libc::NLMSG_ERROR {
                    codes.extend(
                        message.payload().first_chunk().map(|&code| i32::from_ne_bytes(code)),
                    );
                }
                rest = &rest[(message.length() as usize).next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}

/// Removes the table of an instance, if there is one: also where the `nft` program is not.
pub(crate) fn delete_table(instance: &Instance) -> io::Result<()> {
    let mut batch = Batch::on(&instance.name());
    batch.delete_table();
    let none = [libc::ENOENT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT];
    match Netfilter::open().and_then(|netfilter| netfilter.commit(batch)) {
        // No table, or no nftables at all.
        Err(error) if error.raw_os_error().is_some_and(|code| none.contains(&code)) => Ok(()),
        result => result,
    }
}
