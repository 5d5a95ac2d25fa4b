//! Owns the rtnetlink socket of the fence. A request is answered before the next is sent; nothing is retried.
//!
//! Of a dump only the few attributes that decide are read: a foreign filter that no library knows cannot hide ours.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NlaBuffer, NlasIterator, Parseable,
};
use netlink_packet_route::RouteNetlinkMessage as Request;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

use super::plan::{Filter, Observed, PRIORITY, PROTOCOL, Stage};
use crate::instance::Instance;

const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFINFOMSG_LEN: usize = 16;
const TCMSG_LEN: usize = 20;
const ARPHRD_ETHER: u16 = 1;

/// An interface of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Whether its frames begin with an Ethernet header.
    pub(crate) ethernet: bool,
    /// Whether a program of XDP runs there.
    pub(crate) xdp: bool,
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Rtnetlink {
    socket: Socket,
    sequence: u32,
}

impl Rtnetlink {
    /// Opens a socket in the network namespace of this thread.
    pub(crate) fn open() -> io::Result<Rtnetlink> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Rtnetlink { socket, sequence: 0 })
    }

    /// Every interface.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let replies = self.dump(Request::GetLink(LinkMessage::default()))?;
        Ok(replies.iter().filter_map(|reply| link(reply)).collect())
    }

    /// What interface `index` has at its hooks.
    pub(crate) fn observe(&mut self, index: u32) -> io::Result<Observed> {
        let qdiscs = self.dump(Request::GetQueueDiscipline(TcMessage::with_index(index as i32)))?;
        let qdisc = qdiscs
            .iter()
            .filter_map(|reply| tc(reply))
            .find(|(header, _)| header.index == index as i32 && header.parent == TcHandle::CLSACT)
            .map(|(_, attributes)| attributes.kind);
        let egress = match qdisc.as_deref() {
            Some("clsact") => self.filters(index, EGRESS)?,
            _ => Vec::new(),
        };
        Ok(Observed { qdisc, egress })
    }

    /// The interfaces that have a clsact qdisc, whoever made it.
    pub(crate) fn with_clsact(&mut self) -> io::Result<Vec<u32>> {
        let qdiscs = self.dump(Request::GetQueueDiscipline(TcMessage::default()))?;
        let clsact = qdiscs
            .iter()
            .filter_map(|reply| tc(reply))
            .filter(|(_, attributes)| attributes.kind == "clsact");
        Ok(clsact.map(|(header, _)| header.index as u32).collect())
    }

    /// Makes the clsact qdisc, if there is none.
    pub(crate) fn add_qdisc(&mut self, index: u32) -> io::Result<()> {
        match self.request(Request::NewQueueDiscipline(qdisc(index)), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Puts `program` at the egress hook under the handle of `stage`, in place of what has it.
    pub(crate) fn put_filter(
        &mut self,
        index: u32,
        instance: &Instance,
        stage: Stage,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = filter(index, stage.handle(instance));
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(instance.name())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.request(Request::NewTrafficFilter(message), NLM_F_CREATE)
    }

    /// Puts `program` at the ingress hook, as some CNIs do.
    #[cfg(test)]
    pub(crate) fn put_at_ingress(
        &mut self,
        index: u32,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = filter(index, 1);
        message.header.parent = INGRESS;
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.request(Request::NewTrafficFilter(message), NLM_F_CREATE)
    }

    /// Removes the filter of `stage`.
    pub(crate) fn delete_filter(
        &mut self,
        index: u32,
        instance: &Instance,
        stage: Stage,
    ) -> io::Result<()> {
        self.request(Request::DelTrafficFilter(filter(index, stage.handle(instance))), 0)
    }

    /// The filters at the ingress hook of an interface, which come before netfilter; none where there is no such hook.
    pub(crate) fn ingress(&mut self, index: u32) -> Vec<Filter> {
        self.filters(index, INGRESS).unwrap_or_default()
    }

    fn filters(&mut self, index: u32, hook: TcHandle) -> io::Result<Vec<Filter>> {
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = hook;
        let replies = self.dump(Request::GetTrafficFilter(message))?;
        let filters =
            replies.iter().filter_map(|reply| tc(reply)).map(|(header, attributes)| Filter {
                priority: (header.info >> 16) as u16,
                protocol: u16::from_be(header.info as u16),
                handle: header.handle.into(),
                kind: attributes.kind,
                name: attributes.name,
                program: attributes.program,
            });
        // Handle 0 heads the filters of one priority and is none itself.
        Ok(filters.filter(|filter| filter.handle != 0).collect())
    }

    fn request(&mut self, request: Request, flags: u16) -> io::Result<()> {
        self.send(request, NLM_F_ACK | flags)?;
        self.receive().map(drop)
    }

    fn dump(&mut self, request: Request) -> io::Result<Vec<Vec<u8>>> {
        self.send(request, NLM_F_DUMP)?;
        self.receive()
    }

    fn send(&mut self, request: Request, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0).map(drop)
    }

    /// The payloads of the answer, up to its end or its acknowledgement.
    fn receive(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut payloads = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if let Some(result) = read(&datagram, self.sequence, &mut payloads) {
                return result.map(|()| payloads);
            }
        }
    }
}

/// Takes the payloads of the answer to a request out of a datagram; its result, if it ends there.
fn read(datagram: &[u8], sequence: u32, payloads: &mut Vec<Vec<u8>>) -> Option<io::Result<()>> {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let length = (message.length() as usize).next_multiple_of(4).min(rest.len());
        if message.sequence_number() == sequence {
            match i32::from(message.message_type()) {
                libc::NLMSG_DONE => return Some(Ok(())),
                libc::NLMSG_ERROR => return Some(errno(message.payload())),
                _ => payloads.push(message.payload().to_vec()),
            }
        }
        rest = &rest[length..];
    }
    None
}

/// The result in an error message; zero is the acknowledgement.
fn errno(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map(|&code| i32::from_ne_bytes(code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

fn qdisc(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = CLSACT;
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    message
}

fn filter(index: u32, handle: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = EGRESS;
    message.header.handle = handle.into();
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(PROTOCOL.to_be());
    message.attributes.push(TcAttribute::Kind("bpf".into()));
    message
}

#[derive(Default)]
struct Attributes {
    kind: String,
    name: String,
    program: Option<u32>,
}

/// The header, kind and BPF options of a qdisc or a filter.
fn tc(payload: &[u8]) -> Option<(TcHeader, Attributes)> {
    let header = TcHeader::parse(payload).ok()?;
    let mut attributes = Attributes::default();
    for nla in NlasIterator::new(payload.get(TCMSG_LEN..)?).map_while(Result::ok) {
        match nla.kind() {
            KIND => attributes.kind = text(nla.value()),
            OPTIONS if attributes.kind == "bpf" => bpf_options(nla.value(), &mut attributes),
            _ => {}
        }
    }
    Some((header, attributes))
}

fn bpf_options(options: &[u8], attributes: &mut Attributes) {
    for nla in NlasIterator::new(options).map_while(Result::ok) {
        match TcFilterBpfOption::parse(&nla) {
            Ok(TcFilterBpfOption::ProgName(name)) => attributes.name = name,
            Ok(TcFilterBpfOption::ProgId(id)) => attributes.program = Some(id),
            _ => {}
        }
    }
}

fn link(payload: &[u8]) -> Option<Link> {
    let kind = u16::from_ne_bytes(*payload.get(2..)?.first_chunk()?);
    let index = i32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
    let attributes = || NlasIterator::new(payload.get(IFINFOMSG_LEN..).unwrap_or_default());
    let found = |kind| {
        let mut attributes = attributes().map_while(Result::ok);
        attributes.find(|nla: &NlaBuffer<&[u8]>| nla.kind() == kind)
    };
    let name = found(IFLA_IFNAME).map(|nla| text(nla.value()))?;
    let xdp = found(IFLA_XDP).is_some_and(|nla| is_attached(nla.value()));
    Some(Link { index: index as u32, name, ethernet: kind == ARPHRD_ETHER, xdp })
}

/// Whether what a link says of XDP is that a program runs.
fn is_attached(xdp: &[u8]) -> bool {
    let mut attributes = NlasIterator::new(xdp).map_while(Result::ok);
    attributes.any(|nla: NlaBuffer<&[u8]>| {
        nla.kind() == IFLA_XDP_ATTACHED && nla.value().first().is_some_and(|mode| *mode != 0)
    })
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All datagrams of the answer to a dump.
    fn dumped(request: Request) -> Vec<Vec<u8>> {
        let mut rtnetlink = Rtnetlink::open().unwrap();
        rtnetlink.send(request, NLM_F_DUMP).unwrap();
        let (mut datagrams, mut payloads) = (Vec::new(), Vec::new());
        loop {
            let (datagram, _) = rtnetlink.socket.recv_from_full().unwrap();
            let end = read(&datagram, rtnetlink.sequence, &mut payloads);
            datagrams.push(datagram);
            if end.is_some() {
                return datagrams;
            }
        }
    }

    #[test]
    fn whatever_arrives_of_interfaces_and_filters_is_read_or_passed_over() {
        let links = dumped(Request::GetLink(LinkMessage::default()));
        let qdiscs = dumped(Request::GetQueueDiscipline(TcMessage::default()));
        let put = |program| {
            let mut message = filter(2, 1);
            let name = TcFilterBpfOption::ProgName("berth".to_owned());
            message.attributes.push(TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgId(program)),
                TcOption::Bpf(name),
            ]));
            let mut message = NetlinkMessage::from(Request::NewTrafficFilter(message));
            message.header.sequence_number = 1;
            message.finalize();
            let mut octets = vec![0; message.buffer_len()];
            message.serialize(&mut octets);
            octets
        };
        let samples: Vec<Vec<u8>> = links.into_iter().chain(qdiscs).chain([put(7)]).collect();
        let mut payloads = Vec::new();
        assert!(read(&put(7), 1, &mut payloads).is_none());
        let (_, attributes) = tc(&payloads[0]).unwrap();
        assert_eq!((attributes.name.as_str(), attributes.program), ("berth", Some(7)));
        berth_hostile::octets(&samples, |datagram| {
            let mut payloads = Vec::new();
            let _ = read(datagram, 1, &mut payloads);
            payloads.iter().for_each(|payload| _ = (tc(payload).is_some(), link(payload)));
        });
    }

    #[test]
    fn a_program_of_xdp_is_seen_where_one_runs() {
        let said =
            |mode: u8| [&[5, 0, 2, 0, mode, 0, 0, 0][..], &[8, 0, 3, 0, 1, 0, 0, 0]].concat();
        assert!(is_attached(&said(2)) && !is_attached(&said(0)) && !is_attached(&[]));
        berth_hostile::octets(&[said(2)], |octets| _ = is_attached(octets));
    }

    #[test]
    fn whatever_arrives_in_place_of_a_result_is_an_error() {
        let least = i32::MIN.to_ne_bytes().to_vec();
        assert!(errno(&least).is_err());
        berth_hostile::octets(&[least, vec![0; 4]], |payload| _ = errno(payload));
    }
}
