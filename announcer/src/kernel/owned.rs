//! Tables of nftables that only their maker can change, and that go with its socket, however it ends
//! (`NFT_TABLE_F_OWNER`, Linux 5.12). One that is empty is a lock: it belongs to the network namespace, and taking it
//! needs CAP_NET_ADMIN there.

use std::io;

use nix::libc;
use rtnetlink::sys::{Socket, SocketAddr, protocols};

use super::netfilter::{
    ACKNOWLEDGE, ERROR, NFTABLES, Request, acknowledged, attribute, encode, find, messages,
};

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BEGIN: u8 = 16;
const END: u8 = 17;
/// `NFT_MSG_NEWTABLE`, `NFT_MSG_GETTABLE`.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
/// `NFTA_TABLE_NAME`, `NFTA_TABLE_FLAGS`, `NFTA_TABLE_USERDATA`.
const NAME: u16 = 1;
const FLAGS: u16 = 2;
const USER_DATA: u16 = 6;
/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 2;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// `NFPROTO_INET`.
const INET: u8 = 1;

/// An empty table, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Owned {
    _socket: Socket,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnedError {
    /// Another process has it, which says this of itself.
    #[error("taken by {0}")]
    Taken(String),
    /// This kernel has no such tables.
    #[error(transparent)]
    Unavailable(#[from] io::Error),
}

impl Owned {
    /// Makes it. `nft list tables` shows the name, and `comment` with it.
    pub(crate) fn make(name: &str, comment: &str) -> Result<Self, OwnedError> {
        let mut socket = Socket::new(protocols::NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // The kernel answers while it is sent to.
        socket.set_non_blocking(true)?;
        let text = [comment.as_bytes(), &[0]].concat();
        // What nft shows as a comment: type 0, the length, the text (libnftnl's `udata`).
        let length = u8::try_from(text.len()).map_err(io::Error::other)?;
        let attributes = [
            named(name),
            attribute(FLAGS, &OWNER.to_be_bytes()),
            attribute(USER_DATA, &[&[0, length][..], &text].concat()),
        ];
        let new = message(NEW_TABLE, CREATE | ACKNOWLEDGE, &attributes.concat());
        match ask(&socket, &[batch(BEGIN), new, batch(END)].concat()) {
            Ok(_) => Ok(Self { _socket: socket }),
            // The kernel says the first of one with an owner, and to whoever may do nothing at all.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EEXIST)) => {
                let answer = ask(&socket, &message(GET_TABLE, ACKNOWLEDGE, &named(name)))?;
                Err(OwnedError::Taken(comment_of(&answer)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn named(name: &str) -> Vec<u8> {
    attribute(NAME, &[name.as_bytes(), &[0]].concat())
}

fn message(command: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    encode(&Request { subsystem: NFTABLES, command, flags, family: INET, attributes }, 1)
}

/// Where a transaction begins or ends: its last two octets name the subsystem.
fn batch(command: u8) -> Vec<u8> {
    let mut bytes =
        encode(&Request { subsystem: 0, command, flags: 0, family: 0, attributes: &[] }, 0);
    bytes.truncate(bytes.len() - 2);
    bytes.extend(u16::from(NFTABLES).to_be_bytes());
    bytes
}

/// Sends a request, and gives the answer up to its acknowledgement.
fn ask(socket: &Socket, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let end = messages(&datagram).find(|m| (m.subsystem, m.command) == (0, ERROR));
        if let Some(end) = end {
            return acknowledged(end.payload).map(|()| answer);
        }
        answer.extend(datagram);
    }
}

/// What the maker of a table says of itself.
fn comment_of(answer: &[u8]) -> String {
    let data = messages(answer).find_map(|message| find(message.attributes(), USER_DATA));
    let text = data.and_then(|data| data.get(2..)).unwrap_or_default();
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_its_makers_alone_and_goes_with_it() {
        let name = format!("berth-test/{}", std::process::id());
        let first = Owned::make(&name, "the first").unwrap();
        let again = Owned::make(&name, "the second").unwrap_err();
        assert_eq!(again.to_string(), "taken by the first");
        let nft = |arguments: &[&str]| {
            let output = std::process::Command::new("nft").args(arguments).output().unwrap();
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        let shown = nft(&["list", "table", "inet", &name]);
        assert!(
            shown.contains("flags owner") && shown.contains("comment \"the first\""),
            "{shown}"
        );
        let deleted = nft(&["delete", "table", "inet", &name]);
        assert!(deleted.contains("Operation not permitted"), "{deleted}");
        drop(first);
        assert!(Owned::make(&name, "the second").is_ok());
    }
}
