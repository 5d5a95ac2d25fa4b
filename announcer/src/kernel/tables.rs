//! Owns a netlink socket that hears when somebody takes our nftables table, its chain or its rules away.

use std::io;

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u8 = 10;

/// `NFT_MSG_DELTABLE`, `NFT_MSG_DELCHAIN`, `NFT_MSG_DELRULE`: what a flush or a deletion sends. Elements come and go by
/// our own hand all the time, and are looked at now and then.
const GONE: [u8; 3] = [2, 5, 8];

/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;

/// Hears of losses in the network namespace of the calling thread.
pub(crate) struct Losses {
    socket: TokioSocket,
}

impl Losses {
    pub(crate) fn listen() -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocols::NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self { socket })
    }

    /// Waits until something of `table` is gone, or may be: the kernel may have had more to tell than there was room for.
    pub(crate) async fn next(&mut self, table: &str) {
        while let Ok((datagram, _)) = self.socket.recv_from_full().await {
            if tells_of(&datagram, table) {
                return;
            }
        }
    }
}

/// Whether a datagram tells that something of `table` is gone.
fn tells_of(datagram: &[u8], table: &str) -> bool {
    let mut rest = datagram;
    while let Some(length) = word(rest, 0).map(|length| length as usize) {
        let Some(message) = rest.get(..length).filter(|message| message.len() >= HEADERS) else {
            return false;
        };
        if message[5] == SUBSYSTEM
            && GONE.contains(&message[4])
            && names(&message[HEADERS..], table)
        {
            return true;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// Whether the attribute that names the table (1, in each of these messages) says `table`.
fn names(mut attributes: &[u8], table: &str) -> bool {
    while let [low, high, kind, _, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(value) = attributes.get(4..length) else { return false };
        if kind == 1 {
            return value.strip_suffix(&[0]) == Some(table.as_bytes());
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, table: &str) -> Vec<u8> {
        let name = [table.as_bytes(), &[0]].concat();
        let length = 4 + name.len();
        let mut attributes = u16::try_from(length).unwrap().to_ne_bytes().to_vec();
        attributes.extend([1, 0]);
        attributes.extend(name);
        let total = HEADERS + attributes.len();
        let mut message = u32::try_from(total).unwrap().to_ne_bytes().to_vec();
        message.extend([kind, SUBSYSTEM, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.extend([1, 0, 0, 0]);
        message.extend(attributes);
        message.resize(total.next_multiple_of(4), 0);
        message
    }

    #[test]
    fn only_a_loss_in_the_named_table_counts() {
        let datagram = |kind, table| [message(0, "berth"), message(kind, table)].concat();
        assert!(tells_of(&datagram(2, "berth"), "berth"));
        assert!(tells_of(&datagram(8, "berth"), "berth"));
        assert!(!tells_of(&datagram(2, "other"), "berth"));
        assert!(!tells_of(&datagram(0, "berth"), "berth"), "a new table is no loss");
        assert!(!tells_of(&[1, 2, 3], "berth"));
        assert!(!tells_of(&[0; 64], "berth"));
    }
}
