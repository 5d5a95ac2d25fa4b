//! Owns the packet sockets, one for each interface. Loses frames under pressure, never reorders them.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::schedule::Frame;

/// Room for a whole batch of announcements.
const SEND_BUFFER: usize = 1 << 20;

/// The packet sockets, opened when they are first used.
#[derive(Debug, Default)]
pub struct Sockets {
    open: BTreeMap<u32, Socket>,
}

impl Sockets {
    /// Sends one frame. After an error the socket is opened anew with the next frame: the interface may have come back
    /// under its old index.
    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let socket = match self.open.remove(&frame.index) {
            Some(socket) => socket,
            None => open(frame.index)?,
        };
        match socket.send(&frame.bytes) {
            Ok(_) => {
                self.open.insert(frame.index, socket);
                Ok(())
            }
            Err(error) if is_pressure(&error) => {
                self.open.insert(frame.index, socket);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Closes the sockets of interfaces that are not used any more.
    pub fn keep(&mut self, used: impl Fn(u32) -> bool) {
        self.open.retain(|index, _| used(*index));
    }
}

fn is_pressure(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn open(index: u32) -> io::Result<Socket> {
    // Protocol 0 receives nothing: this socket only sends.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(&link_address(index)?)?;
    Ok(socket)
}

/// The address of a whole interface (packet(7)).
fn link_address(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: `try_init` hands out zeroed storage, larger than and aligned for every sockaddr; all zeroes are a valid
    // `sockaddr_ll`, and the length is set to the size of the one type that is written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*link).sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
