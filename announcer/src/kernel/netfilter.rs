//! Owns the socket for requests to netfilter, and the form of its messages (linux/netfilter/nfnetlink.h).

use std::io;
use std::sync::Arc;

use rtnetlink::packet_core::{DefaultNla, Emitable, NlasIterator};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};
use tokio::sync::Mutex;

/// The subsystem of nftables (`NFNL_SUBSYS_NFTABLES`).
pub(crate) const NFTABLES: u8 = 10;

/// Flags of a request: it is to be acknowledged, or to be answered with everything there is.
pub(crate) const ACKNOWLEDGE: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;

const REQUEST: u16 = 1;
pub(super) const ERROR: u8 = 2;
const DONE: u8 = 3;

/// The type of an attribute that consists of attributes.
pub(crate) const NESTED: u16 = 1 << 15;

/// `struct nlmsghdr`; `struct nfgenmsg` comes behind it.
const HEADER: usize = 16;

/// A socket of the process, opened when it is first needed: a kernel may have no netfilter.
#[derive(Clone, Default)]
pub(crate) struct Netfilter {
    socket: Arc<Mutex<Option<Socket>>>,
}

struct Socket {
    socket: TokioSocket,
    sequence: u32,
}

/// A request: the subsystem, the command, flags, the family of addresses, attributes.
pub(crate) struct Request<'a> {
    pub(crate) subsystem: u8,
    pub(crate) command: u8,
    pub(crate) flags: u16,
    pub(crate) family: u8,
    pub(crate) attributes: &'a [u8],
}

impl Netfilter {
    /// Sends a request, hands on the attributes of each answer, and waits for the end of them.
    pub(crate) async fn ask(
        &self,
        request: Request<'_>,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut socket = self.socket.lock().await;
        let socket = match &mut *socket {
            Some(socket) => socket,
            none => none.insert(Socket::open()?),
        };
        socket.sequence = socket.sequence.wrapping_add(1);
        let sequence = socket.sequence;
        let bytes = encode(&request, sequence);
        socket.socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
        loop {
            let (datagram, _) = socket.socket.recv_from_full().await?;
            // Others are the end of a request that was given up before.
            for message in messages(&datagram).filter(|message| message.sequence == sequence) {
                match (message.subsystem, message.command) {
                    (0, DONE) => return Ok(()),
                    (0, ERROR) => return acknowledged(message.payload),
                    _ => each(message.attributes()),
                }
            }
        }
    }
}

impl Socket {
    fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocols::NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }
}

pub(super) fn encode(request: &Request<'_>, sequence: u32) -> Vec<u8> {
    let length = u32::try_from(HEADER + 4 + request.attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([request.command, request.subsystem]);
    bytes.extend((REQUEST | request.flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([request.family, 0, 0, 0]);
    bytes.extend(request.attributes);
    bytes
}

/// One message: to or from netfilter, or about the request itself where the subsystem is 0.
pub(crate) struct Message<'a> {
    pub(crate) subsystem: u8,
    pub(crate) command: u8,
    sequence: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// What comes after `struct nfgenmsg`.
    pub(crate) fn attributes(&self) -> &'a [u8] {
        self.payload.get(4..).unwrap_or_default()
    }
}

/// The messages of a datagram.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = word(rest, 0).and_then(|length| rest.get(..length as usize))?;
        let [_, _, _, _, command, subsystem, ..] = *message else { return None };
        rest = rest.get(message.len().next_multiple_of(4)..).unwrap_or_default();
        let (payload, sequence) = (message.get(HEADER..)?, word(message, 8)?);
        Some(Message { subsystem, command, sequence, payload })
    })
}

/// The code in an acknowledgement.
pub(super) fn acknowledged(payload: &[u8]) -> io::Result<()> {
    match word(payload, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::Error::other("a netlink acknowledgement without a code")),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An attribute in the form of the wire.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// The values of all attributes of a kind.
pub(crate) fn nested(attributes: &[u8], kind: u16) -> impl Iterator<Item = &[u8]> {
    let all = NlasIterator::new(attributes).map_while(Result::ok);
    all.filter(move |attribute| attribute.kind() == kind).filter_map(|found| {
        let (length, bytes) = (usize::from(found.length()), found.into_inner());
        bytes.get(4..length)
    })
}

/// The value of the first attribute of a kind.
pub(crate) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    nested(attributes, kind).next()
}

/// The same, of a number of four octets in network byte order.
pub(crate) fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(attributes, kind)?.try_into().ok()?))
}

/// The same, of a text that ends with a zero.
pub(crate) fn find_text(attributes: &[u8], kind: u16) -> Option<&str> {
    let bytes = find(attributes, kind)?;
    std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
}
