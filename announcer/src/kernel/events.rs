//! Owns the sockets that hear what changes in the kernel, one for each kind of netlink, and hands on to each subscriber
//! what it cares for. May lose what changed, never that something did.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};
use tokio::sync::{Notify, mpsc, watch};

use super::netfilter::{NFTABLES, find_text, messages};
use super::task::Task;

/// Multicast groups of `rtnetlink(7)`, as bits: links, traffic control, IPv4 and IPv6 addresses, routes, policy rules.
const GROUPS: u32 = 1 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 6 | 1 << 10 | 1 << 7 | 1 << 18;

/// `NFNLGRP_NFTABLES`.
const NFTABLES_GROUP: u32 = 7;

/// `NFT_MSG_DELTABLE`, `NFT_MSG_DELCHAIN`, `NFT_MSG_NEWRULE`, `NFT_MSG_DELRULE`. Elements come and go all the time, and
/// are looked at now and then.
const DELETED_TABLE: u8 = 2;
const DELETED_CHAIN: u8 = 5;
const NEW_RULE: u8 = 6;
const DELETED_RULE: u8 = 8;

/// Room for a storm of changes; what does not fit is told as a loss.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Changes that wait to be taken in. What comes beyond it is told as [`KernelChange::Anything`].
const BACKLOG: usize = 4096;

/// Pause after an error of a socket, so that one that stays does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(10);

/// That anything may have changed is told at once, and then no more often than this: each time everybody looks at
/// everything.
const FLOOD: Duration = Duration::from_secs(1);

/// Something changed in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelChange {
    /// A link came, went, or changed.
    Link(u32),
    /// An address of the interface with this index came or went.
    Address(u32, Option<IpAddr>),
    /// A queueing discipline or a filter went: the fence may have gone with it.
    Filter,
    /// A default route came or went.
    DefaultRoute,
    /// Anything may have changed: the kernel had more to tell than there was room for.
    Anything,
}

/// What the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Of links, addresses or filters.
    Network(KernelChange),
    /// A route of this table came or went.
    Route { table: u32, default: bool },
    /// A policy rule came or went.
    Rule { preference: Option<u32> },
    /// Anything may have changed of the above.
    AnyNetwork,
    /// A table of nftables went, or a chain of it, or a rule of a chain.
    Lost { table: &'a str, chain: Option<&'a str> },
    /// A rule came.
    NewRule { table: &'a str, chain: Option<&'a str> },
    /// Anything may have changed of nftables.
    AnyRules,
}

/// Takes an event; false if it wants no more of them.
type Subscriber = Box<dyn FnMut(&Event<'_>) -> bool + Send>;

/// Where to subscribe.
#[derive(Clone)]
pub(crate) struct Events {
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    /// Dropped with the last of these: then nobody subscribes any more.
    _alive: Arc<watch::Sender<()>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// Tells that something has happened since it was last asked.
#[derive(Debug)]
pub(crate) struct Signal(Arc<Notify>);

impl Signal {
    /// Waits until something has happened, and takes it in.
    pub(crate) async fn next(&mut self) {
        self.0.notified().await;
    }
}

impl Events {
    /// Hears of changes in the network namespace of the calling thread, from now on; the task hands them on. A kernel
    /// without netfilter has nothing to tell of it.
    pub(super) fn listen() -> io::Result<(Self, Task)> {
        let mut network = TokioSocket::new(protocols::NETLINK_ROUTE)?;
        network.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        network.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        let rules = listen_to_rules()
            .inspect_err(|error| tracing::debug!(%error, "nothing is heard of nftables"))
            .ok();
        let (alive, ends) = watch::channel(());
        let events = Self { subscribers: Arc::default(), _alive: Arc::new(alive) };
        let subscribers = events.subscribers.clone();
        Ok((events, ("kernel events", hear(network, rules, subscribers, ends).boxed())))
    }

    /// Tells whenever an event passes.
    pub(crate) fn signal(&self, passes: impl Fn(&Event<'_>) -> bool + Send + 'static) -> Signal {
        let notify = Arc::new(Notify::new());
        let weak = Arc::downgrade(&notify);
        self.subscribe(Box::new(move |event| {
            let Some(notify) = weak.upgrade() else { return false };
            if passes(event) {
                notify.notify_one();
            }
            true
        }));
        Signal(notify)
    }

    /// Tells of each change of the network.
    pub(crate) fn changes(&self) -> mpsc::Receiver<KernelChange> {
        let (send, receive) = mpsc::channel(BACKLOG);
        self.subscribe(Box::new(move |event| {
            let change = match event {
                Event::Network(change) => Some(*change),
                Event::Route { default: true, .. } => Some(KernelChange::DefaultRoute),
                Event::AnyNetwork => Some(KernelChange::Anything),
                _ => None,
            };
            if let Some(change) = change {
                pass_on(&send, change);
            }
            !send.is_closed()
        }));
        receive
    }

    fn subscribe(&self, subscriber: Subscriber) {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
    }
}

/// Hands on a change. The last free place is for the word that anything may have changed: it is taken in after all that
/// was left out behind it has happened.
fn pass_on(send: &mpsc::Sender<KernelChange>, change: KernelChange) {
    let _ = match send.capacity() {
        0 => return,
        1 => send.try_send(KernelChange::Anything),
        _ => send.try_send(change),
    };
}

fn listen_to_rules() -> io::Result<TokioSocket> {
    let mut rules = TokioSocket::new(protocols::NETLINK_NETFILTER)?;
    rules.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
    rules.socket_mut().bind(&SocketAddr::new(0, 0))?;
    rules.socket_mut().add_membership(NFTABLES_GROUP)?;
    Ok(rules)
}

async fn hear(
    network: TokioSocket,
    rules: Option<TokioSocket>,
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    mut ends: watch::Receiver<()>,
) {
    let hand_on = |event: &Event<'_>| {
        let mut subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain_mut(|subscriber| subscriber(event));
    };
    let mut anything =
        [(Event::AnyNetwork, Rarely::default()), (Event::AnyRules, Rarely::default())];
    let mut closed = false;
    loop {
        let now = Instant::now();
        let due = |(_, rarely): &mut (Event<'_>, Rarely)| rarely.is_due(now);
        anything.iter_mut().filter_map(|one| due(one).then_some(&one.0)).for_each(hand_on);
        let wake = anything.iter().filter_map(|(_, rarely)| rarely.due).min();
        let mut tell = |event: Event<'_>| match anything.iter_mut().find(|(any, _)| *any == event) {
            Some((_, rarely)) => rarely.ask(Instant::now()),
            None => hand_on(&event),
        };
        let deserted = subscribers.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if closed && deserted {
            return;
        }
        // ENOBUFS: the kernel dropped messages. Whatever else it is, a fresh look is never wrong.
        let failed = tokio::select! {
            () = sleep_until(wake) => None,
            _ = ends.changed(), if !closed => {
                closed = true;
                None
            }
            heard = network.recv_from_full() => match heard {
                Ok((datagram, _)) => {
                    read_network(&datagram, &mut tell);
                    None
                }
                Err(error) => Some((Event::AnyNetwork, error)),
            },
            heard = next(rules.as_ref()) => match heard {
                Ok(datagram) => {
                    read_rules(&datagram, &mut tell);
                    None
                }
                Err(error) => Some((Event::AnyRules, error)),
            },
        };
        if let Some((event, error)) = failed {
            tracing::debug!(%error, ?event, "netlink events overran");
            tell(event);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Something to be told at once, and then no more often than every [`FLOOD`], for the last time after the last asking.
#[derive(Debug, Default)]
struct Rarely {
    told: Option<Instant>,
    due: Option<Instant>,
}

impl Rarely {
    /// Asks for it to be told.
    fn ask(&mut self, now: Instant) {
        let soonest = self.told.map_or(now, |told| (told + FLOOD).max(now));
        self.due.get_or_insert(soonest);
    }

    /// Whether it is to be told now.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due.take_if(|due| *due <= now).is_some();
        if due {
            self.told = Some(now);
        }
        due
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

async fn next(socket: Option<&TokioSocket>) -> io::Result<Vec<u8>> {
    match socket {
        Some(socket) => Ok(socket.recv_from_full().await?.0),
        None => std::future::pending().await,
    }
}

/// Tells what a datagram of rtnetlink tells.
fn read_network(datagram: &[u8], mut tell: impl FnMut(Event<'_>)) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            // Newer than the library: it may be about anything.
            return tell(Event::AnyNetwork);
        };
        let length = (message.header.length as usize).next_multiple_of(4).clamp(1, rest.len());
        rest = &rest[length..];
        if let NetlinkPayload::InnerMessage(inner) = message.payload
            && let Some(event) = network_event(&inner)
        {
            tell(event);
        }
    }
}

fn network_event(message: &RouteNetlinkMessage) -> Option<Event<'static>> {
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelQueueDiscipline, DelRoute, DelRule, DelTrafficChain,
        DelTrafficFilter, NewAddress, NewLink, NewRoute, NewRule,
    };
    Some(match message {
        NewLink(link) | DelLink(link) => Event::Network(KernelChange::Link(link.header.index)),
        NewAddress(address) | DelAddress(address) => {
            Event::Network(KernelChange::Address(address.header.index, own(address)))
        }
        DelQueueDiscipline(_) | DelTrafficFilter(_) | DelTrafficChain(_) => {
            Event::Network(KernelChange::Filter)
        }
        NewRoute(route) | DelRoute(route) => Event::Route {
            table: table(route),
            default: route.header.destination_prefix_length == 0,
        },
        NewRule(rule) | DelRule(rule) => Event::Rule { preference: preference(rule) },
        _ => return None,
    })
}

/// The address itself; on a point-to-point link that is the local one.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// The table of a route: the header has room for small numbers only.
pub(crate) fn table(route: &RouteMessage) -> u32 {
    let named = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or(u32::from(route.header.table))
}

fn preference(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(preference) => Some(*preference),
        _ => None,
    })
}

/// Tells what a datagram of nftables tells.
fn read_rules(datagram: &[u8], mut tell: impl FnMut(Event<'_>)) {
    for message in messages(datagram).filter(|message| message.subsystem == NFTABLES) {
        let text = |kind| find_text(message.attributes(), kind);
        // The table is attribute 1 of each; the chain is 3 of a chain and 2 of a rule.
        let Some(table) = text(1) else { continue };
        match message.command {
            DELETED_TABLE => tell(Event::Lost { table, chain: None }),
            DELETED_CHAIN => tell(Event::Lost { table, chain: text(3) }),
            DELETED_RULE => tell(Event::Lost { table, chain: text(2) }),
            NEW_RULE => tell(Event::NewRule { table, chain: text(2) }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::super::netfilter::attribute;
    use super::*;

    /// A message of nftables with attributes that are texts.
    pub(super) fn message(command: u8, attributes: &[(u16, &str)]) -> Vec<u8> {
        let attributes: Vec<u8> = attributes
            .iter()
            .flat_map(|(kind, text)| attribute(*kind, &[text.as_bytes(), &[0]].concat()))
            .collect();
        let length = u32::try_from(20 + attributes.len()).unwrap();
        let header =
            [&length.to_ne_bytes()[..], &[command, NFTABLES, 0, 0], &[0; 8], &[2, 0, 0, 0]];
        [header.concat(), attributes].concat()
    }

    fn told(datagram: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        read_rules(datagram, |event| told.push(format!("{event:?}")));
        told
    }

    #[test]
    fn losses_and_new_rules_of_nftables_are_told_with_their_names_and_nothing_else() {
        let datagram = [
            message(0, &[(1, "berth")]),
            message(2, &[(1, "berth")]),
            message(5, &[(1, "nat"), (3, "KUBE-EIP-PREROUTING")]),
            message(8, &[(1, "nat"), (2, "PREROUTING")]),
            message(6, &[(1, "nat"), (2, "PREROUTING")]),
            message(12, &[(1, "berth"), (2, "services4")]),
        ];
        assert_eq!(
            told(&datagram.concat()),
            [
                r#"Lost { table: "berth", chain: None }"#,
                r#"Lost { table: "nat", chain: Some("KUBE-EIP-PREROUTING") }"#,
                r#"Lost { table: "nat", chain: Some("PREROUTING") }"#,
                r#"NewRule { table: "nat", chain: Some("PREROUTING") }"#,
            ]
        );
        assert_eq!(told(&[1, 2, 3]), [""; 0]);
        assert_eq!(told(&[0; 64]), [""; 0]);
    }

    #[test]
    fn what_nobody_can_read_is_told_at_once_once_a_while_and_after_the_last() {
        let (mut rarely, mut told) = (Rarely::default(), Vec::new());
        let (start, step) = (Instant::now(), FLOOD / 100);
        for number in 0..250 {
            let mut unreadable = 0;
            read_network(&[1; 40], |event| unreadable += u32::from(event == Event::AnyNetwork));
            assert_eq!(unreadable, 1);
            rarely.ask(start + step * number);
            told.extend(rarely.is_due(start + step * number).then_some(number));
        }
        let last = rarely.due.unwrap();
        assert!(rarely.is_due(last) && rarely.due.is_none());
        assert_eq!((told, last), (vec![0, 100, 200], start + step * 300));
    }

    #[test]
    fn who_is_slow_is_told_that_anything_may_have_changed() {
        let (send, mut receive) = mpsc::channel(3);
        for index in 1..=9 {
            pass_on(&send, KernelChange::Link(index));
        }
        let taken: Vec<KernelChange> = std::iter::from_fn(|| receive.try_recv().ok()).collect();
        assert_eq!(taken, [KernelChange::Link(1), KernelChange::Link(2), KernelChange::Anything]);
        pass_on(&send, KernelChange::Link(10));
        assert_eq!(receive.try_recv(), Ok(KernelChange::Link(10)));
    }
}
