//! Transactions of nftables by netlink (linux/netfilter/nf_tables.h), for elements of sets: a process of `nft` takes several
//! milliseconds to start and to read what is there, and a kilobyte for each.

pub(crate) mod shown;

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols};
use tokio::task::spawn_blocking;

use super::netfilter::{
    ACKNOWLEDGE, ERROR, NESTED, NFTABLES, Request, acknowledged, attribute, encode, messages,
};

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BEGIN: u8 = 16;
const END: u8 = 17;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFT_MSG_NEWSETELEM`, `NFT_MSG_DELSETELEM`.
const NEW_ELEMENTS: u8 = 12;
const DELETE_ELEMENTS: u8 = 14;
/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;
/// `NFTA_SET_ELEM_LIST_TABLE`, `NFTA_SET_ELEM_LIST_SET`, `NFTA_SET_ELEM_LIST_ELEMENTS`.
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`, `NFTA_SET_ELEM_KEY`, `NFTA_DATA_VALUE`.
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const VALUE: u16 = 1;

/// What changes in one set of a table of the family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Whether it is added; else it is deleted.
    pub(crate) adds: bool,
    /// The set.
    pub(crate) set: &'static str,
    /// The elements, as the kernel has them: each part of a key in network byte order, filled up to four octets.
    pub(crate) keys: Vec<Vec<u8>>,
}

/// Makes all changes or none. They are few: an attribute of netlink has 64 KiB at most, and a message some 200.
///
/// # Errors
/// What the kernel says of the first that it does not take: `ENOENT` where there is no such table, set, or element.
pub(crate) async fn change(table: &str, changes: &[Change]) -> io::Result<()> {
    let Some(last) = changes.len().checked_sub(1) else { return Ok(()) };
    let encoded = changes.iter().enumerate().map(|(n, change)| {
        let (command, create) = match change.adds {
            true => (NEW_ELEMENTS, CREATE),
            false => (DELETE_ELEMENTS, 0),
        };
        let flags = create | if n == last { ACKNOWLEDGE } else { 0 };
        message(command, flags, &change.attributes(table))
    });
    let request = transaction(&encoded.collect::<Vec<_>>().concat());
    let socket = open()?;
    // Somebody's large transaction may hold the rule set, and whoever sends another waits for it.
    spawn_blocking(move || ask(&socket, &request)).await.map_err(io::Error::other)?.map(drop)
}

impl Change {
    fn attributes(&self, table: &str) -> Vec<u8> {
        let element = |key: &Vec<u8>| {
            let key = attribute(NESTED | KEY, &attribute(VALUE, key));
            attribute(NESTED | ELEMENT, &key)
        };
        let elements: Vec<u8> = self.keys.iter().flat_map(element).collect();
        [name(TABLE, table), name(SET, self.set), attribute(NESTED | ELEMENTS, &elements)].concat()
    }
}

/// A socket for transactions. The kernel answers while it is sent to.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(protocols::NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// An attribute that is a name.
pub(super) fn name(kind: u16, name: &str) -> Vec<u8> {
    attribute(kind, &[name.as_bytes(), &[0]].concat())
}

/// A message about a table of the family `inet`, or what is in it.
pub(super) fn message(command: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    encode(&Request { subsystem: NFTABLES, command, flags, family: INET, attributes }, 1)
}

/// Messages of which all take effect or none. Only the last is to be acknowledged: what is wrong in another is told before.
pub(super) fn transaction(messages: &[u8]) -> Vec<u8> {
    [&bound(BEGIN)[..], messages, &bound(END)].concat()
}

/// Where a transaction begins or ends: its last two octets name the subsystem.
fn bound(command: u8) -> Vec<u8> {
    let mut bytes =
        encode(&Request { subsystem: 0, command, flags: 0, family: 0, attributes: &[] }, 0);
    bytes.truncate(bytes.len() - 2);
    bytes.extend(u16::from(NFTABLES).to_be_bytes());
    bytes
}

/// Sends a request, and gives the answer up to its acknowledgement.
pub(super) fn ask(socket: &Socket, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if let Some(end) = end(&datagram) {
            return end.map(|()| answer);
        }
        answer.extend(datagram);
    }
}

/// What the kernel says at the end of an answer, if this is the end of one.
fn end(datagram: &[u8]) -> Option<io::Result<()>> {
    let end = messages(datagram).find(|m| (m.subsystem, m.command) == (0, ERROR))?;
    Some(acknowledged(end.payload))
}

#[cfg(test)]
mod tests {
    use super::super::netfilter::Netfilter;
    use super::super::owned::{Owned, comment_of};
    use super::*;

    /// `NFT_MSG_GETTABLE`, `NFTA_TABLE_NAME`.
    const GET_TABLE: u8 = 1;

    #[tokio::test]
    async fn what_there_is_of_tables_is_read() {
        let (table, netfilter) =
            (format!("berth-shown/{}", std::process::id()), Netfilter::default());
        let _owned = Owned::make(&table, "a table of a test").unwrap();
        let tables = shown::tables(&netfilter, INET).await.unwrap();
        assert!(tables.contains(&table), "{tables:?}");
        assert_eq!(shown::chains(&netfilter, &table).await.unwrap(), (Vec::new(), 0));
        let read = shown::elements(&netfilter, &table, "none", |_| {}).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// All datagrams with which the kernel answers.
    fn answered(request: &[u8]) -> Vec<Vec<u8>> {
        let socket = open().unwrap();
        socket.send_to(request, &SocketAddr::new(0, 0), 0).unwrap();
        let datagrams = std::iter::from_fn(|| Some(socket.recv_from_full().ok()?.0));
        datagrams.collect()
    }

    #[test]
    fn whatever_arrives_of_tables_and_sets_is_read_or_passed_over() {
        let table = format!("berth-hostile/{}", std::process::id());
        let _owned = Owned::make(&table, "a table of a test").unwrap();
        let get = |table: &str| message(GET_TABLE, ACKNOWLEDGE, &name(TABLE, table));
        let found = answered(&get(&table));
        assert_eq!(comment_of(&found[0]), "a table of a test");
        let missing = answered(&get("berth-hostile/none"));
        let told = end(&missing[0]).unwrap().unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::NotFound);
        let elements = Change { adds: true, set: "none", keys: vec![vec![192, 0, 2, 1]] };
        let change = message(NEW_ELEMENTS, ACKNOWLEDGE, &elements.attributes(&table));
        let refused = answered(&transaction(&change));
        assert!(end(&refused[0]).unwrap().is_err(), "there is no such set");
        let hook = [attribute(1, &[0, 0, 0, 1]), attribute(2, &[0, 0, 0, 150])].concat();
        let chain =
            [name(TABLE, &table), attribute(NESTED | 4, &hook), attribute(5, &[0, 0, 0, 1])];
        let chain = message(3, 0, &chain.concat());
        let samples = [found, missing, refused, vec![chain, transaction(&change)]].concat();
        let read = |datagram: &[u8]| {
            let _ = (end(datagram), comment_of(datagram));
            let (mut chains, mut keys) = (0, 0);
            for message in messages(datagram) {
                chains += usize::from(shown::chain(message.attributes()).is_some());
                shown::keys(message.attributes(), |_| keys += 1);
            }
            (chains, keys)
        };
        assert_eq!(read(&samples.concat()), (1, 1));
        berth_hostile::octets(&samples, |datagram| _ = read(datagram));
    }
}
