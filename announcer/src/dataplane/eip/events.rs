//! Owns the sockets that hear when somebody changes rules or routes that we care for, and the cheap look at what tells of
//! no change: the older iptables and sets. May miss what changed, never that something did.

use std::io;

use futures::FutureExt;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader};
use rtnetlink::packet_route::rule::RuleAttribute;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};

use super::netfilter::{find, messages};
use super::routes::{PREFERENCE, TABLE};
use super::tables::OURS;

/// `NFNLGRP_NFTABLES`, and the subsystem whose messages come by it.
const NFTABLES_GROUP: u32 = 7;
const NFTABLES: u8 = 10;

/// `NFT_MSG_DELTABLE`, `NFT_MSG_DELCHAIN`, `NFT_MSG_NEWRULE`, `NFT_MSG_DELRULE`.
const DELETED_TABLE: u8 = 2;
const DELETED_CHAIN: u8 = 5;
const NEW_RULE: u8 = 6;
const DELETED_RULE: u8 = 8;

/// Chains of others that have rules of ours.
const HOOKED: [&str; 4] = ["PREROUTING", "POSTROUTING", "INPUT", "FORWARD"];

/// `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV4_RULE`, `RTNLGRP_IPV6_ROUTE`, `RTNLGRP_IPV6_RULE` (rtnetlink(7)), as bits.
const ROUTE_GROUPS: u32 = 1 << 6 | 1 << 7 | 1 << 10 | 1 << 18;

/// Hears of changes in the network namespace of the thread that made it.
pub(super) struct Events {
    rules: TokioSocket,
    routes: TokioSocket,
}

impl Events {
    pub(super) fn listen() -> io::Result<Self> {
        let mut rules = TokioSocket::new(protocols::NETLINK_NETFILTER)?;
        rules.socket_mut().bind(&SocketAddr::new(0, 0))?;
        rules.socket_mut().add_membership(NFTABLES_GROUP)?;
        let mut routes = TokioSocket::new(protocols::NETLINK_ROUTE)?;
        routes.socket_mut().bind(&SocketAddr::new(0, ROUTE_GROUPS))?;
        Ok(Self { rules, routes })
    }

    /// Waits until something may have changed. An error is the kernel's when it had more to tell than there was room for.
    pub(super) async fn next(&mut self) {
        loop {
            let matters = tokio::select! {
                heard = self.rules.recv_from_full() => {
                    heard.map_or(true, |(datagram, _)| tells_of_rules(&datagram))
                }
                heard = self.routes.recv_from_full() => {
                    heard.map_or(true, |(datagram, _)| tells_of_routes(&datagram))
                }
            };
            if matters {
                return;
            }
        }
    }
}

impl Events {
    /// Takes in what has come by now: one look is enough for all of it.
    pub(super) fn drain(&mut self) {
        while self.next().now_or_never().is_some() {}
    }
}

/// Whether a datagram tells of a rule, chain or table that matters to us.
fn tells_of_rules(datagram: &[u8]) -> bool {
    messages(datagram).filter(|message| message.subsystem == NFTABLES).any(|message| {
        let text = |kind| {
            let bytes = find(message.attributes(), kind)?;
            std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
        };
        // The table is attribute 1 of each; the chain is 3 of a chain and 2 of a rule.
        let chain = match message.command {
            DELETED_TABLE => None,
            DELETED_CHAIN => text(3),
            NEW_RULE | DELETED_RULE => text(2),
            _ => return false,
        };
        let ours = chain.is_none_or(|name| name.starts_with(OURS) || HOOKED.contains(&name));
        ours && matches!(text(1), Some("nat" | "filter" | "raw"))
    })
}

/// Whether a datagram tells of a policy rule of our preference, a route of our table, or one of the main table that
/// ours come of.
fn tells_of_routes(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            return true;
        };
        let length = (message.header.length as usize).next_multiple_of(4).clamp(1, rest.len());
        rest = &rest[length..];
        if let NetlinkPayload::InnerMessage(inner) = message.payload
            && matters(&inner)
        {
            return true;
        }
    }
    false
}

fn matters(message: &RouteNetlinkMessage) -> bool {
    use RouteNetlinkMessage::{DelRoute, DelRule, NewRoute, NewRule};
    match message {
        NewRule(rule) | DelRule(rule) => {
            rule.attributes.contains(&RuleAttribute::Priority(PREFERENCE))
        }
        NewRoute(route) | DelRoute(route) => {
            let named = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Table(table) => Some(*table),
                _ => None,
            });
            let table = named.unwrap_or(u32::from(route.header.table));
            let default = route.header.destination_prefix_length == 0;
            table == TABLE || table == u32::from(RouteHeader::RT_TABLE_MAIN) && default
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u8, text: &str) -> Vec<u8> {
        let value = [text.as_bytes(), &[0]].concat();
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &[kind, 0], &value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(command: u8, attributes: &[(u8, &str)]) -> Vec<u8> {
        let attributes: Vec<u8> =
            attributes.iter().flat_map(|(kind, text)| attribute(*kind, text)).collect();
        let length = u32::try_from(20 + attributes.len()).unwrap();
        let header =
            [&length.to_ne_bytes()[..], &[command, NFTABLES, 0, 0], &[0; 8], &[2, 0, 0, 0]];
        [header.concat(), attributes].concat()
    }

    #[test]
    fn only_what_is_ours_or_beside_ours_counts() {
        let tells = |command, attributes: &[(u8, &str)]| {
            tells_of_rules(&[message(0, &[]), message(command, attributes)].concat())
        };
        assert!(tells(DELETED_TABLE, &[(1, "nat")]));
        assert!(tells(DELETED_RULE, &[(1, "nat"), (2, "KUBE-EIP-PREROUTING")]));
        assert!(tells(NEW_RULE, &[(1, "nat"), (2, "PREROUTING")]), "it may stand before ours");
        assert!(!tells(DELETED_RULE, &[(1, "nat"), (2, "KUBE-SERVICES")]));
        assert!(!tells(DELETED_TABLE, &[(1, "berth")]));
        assert!(!tells(3, &[(1, "nat"), (3, "KUBE-EIP-PREROUTING")]), "a chain that comes is ours");
        assert!(!tells_of_rules(&[1, 2, 3]));
    }
}
