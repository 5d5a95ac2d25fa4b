//! Asks the kernel for the size of a table of the older iptables, which tells nobody when it changes.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::vip::Family;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO` (linux/netfilter_ipv4/ip_tables.h).
const GET_INFO: libc::c_int = 64;

/// `struct ipt_getinfo`; `struct ip6t_getinfo` is the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

/// The size of a table, and where its chains begin: most changes change it. Costs one system call.
pub(super) fn size(family: Family, table: &str) -> io::Result<Size> {
    let (domain, level) = match family {
        Family::V4 => (Domain::IPV4, libc::IPPROTO_IP),
        Family::V6 => (Domain::IPV6, libc::IPPROTO_IPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let mut info = Size::default();
    for (to, from) in info.name.iter_mut().zip(table.bytes()) {
        *to = from;
    }
    let mut length = size_of::<Size>() as libc::socklen_t;
    // SAFETY: `info` is plain memory of `length` bytes, of which the kernel reads the name and writes no more than
    // `length`; the descriptor lives as long as `socket`.
    let result = unsafe {
        let info: *mut Size = &mut info;
        libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, info.cast(), &mut length)
    };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}
