//! Owns the packet sockets that send, one for each interface, and how those that hear are opened. Loses frames under
//! pressure, never reorders them.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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
            None => {
                // Those of interfaces that are gone would stay for ever: each new one has another index.
                self.open.retain(|_, socket| has_interface(socket));
                open(frame.index)?
            }
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
}

fn is_pressure(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Whether the interface of a socket is there still: the kernel gives -1 when it is gone (`packet_notifier`).
fn has_interface(socket: &Socket) -> bool {
    let Ok(address) = socket.local_addr() else { return false };
    // SAFETY: what a packet socket is bound to is a `sockaddr_ll`, which the storage has room for.
    let link = unsafe { address.as_ptr().cast::<libc::sockaddr_ll>().read_unaligned() };
    link.sll_ifindex > 0
}

fn open(index: u32) -> io::Result<Socket> {
    // Protocol 0 receives nothing: this socket only sends.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(&link_address(index, 0)?)?;
    Ok(socket)
}

/// A socket that hears the frames of one ethertype on an interface that pass `filter`. To be called within a runtime.
pub(super) fn hear(
    index: u32,
    ethertype: u16,
    filter: &[SockFilter],
) -> io::Result<AsyncFd<Socket>> {
    // Protocol 0 hears nothing: by the time that it is bound to another the filter is there.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(filter)?;
    socket.bind(&link_address(index, ethertype)?)?;
    // SAFETY: a `Socket` owns its descriptor, names the same one at any time and closes it at its end only.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// The address of a whole interface (packet(7)), and of the frames of one ethertype there; 0 for none.
fn link_address(index: u32, ethertype: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: `try_init` hands out zeroed storage, larger than and aligned for every sockaddr; all zeroes are a valid
    // `sockaddr_ll`, and the length is set to the size of the one type that is written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*link).sll_ifindex = index;
            (*link).sll_protocol = ethertype.to_be();
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
