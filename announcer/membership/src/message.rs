//! Owns what nodes say to each other. What it means is decided by `voter`, `owner`, `sight` and `handover`.

use std::net::IpAddr;
use std::time::Duration;

use crate::journal::{Delta, Item};
use crate::name::NodeId;
use crate::view::View;

/// How far a node is with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It asks for the address and is silent.
    Claim,
    /// It has had a lease without interruption.
    Held,
}

/// What a voter reports about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A node: present if it was heard within the time of suspicion.
    Node(NodeId),
    /// An address: present while a promise for it runs.
    Address(IpAddr),
}

/// What a voter reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Heard,
    Promised { node: NodeId, stage: Stage },
}

/// From a node that may hold addresses to a voter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// Drawn at the sender's start.
    pub(crate) session: u64,
    /// The sender's clock when this was sent, made strictly newer than the one before.
    pub(crate) sequence: u64,
    /// The cookie of the voter, as far as the sender knows.
    pub(crate) cookie: u64,
    pub(crate) view: View,
    pub(crate) active: bool,
    /// More of this round follows; only its last part is answered.
    pub(crate) more: bool,
    pub(crate) condition: Condition,
    /// What the sender holds or claims.
    pub(crate) list: Delta<IpAddr, Stage>,
    /// The version of the voter's reports that the sender has.
    pub(crate) reports: u64,
}

/// What a node says of itself with a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    /// It is about to stop, and is to be no voter again.
    pub(crate) leaving: bool,
    /// No majority answers it, though it asks: it is as good as gone.
    pub(crate) deaf: bool,
    /// It has ended, and what it had is mute: this is the last of its session. Said by whoever outlives the process.
    pub(crate) over: bool,
    /// The lease that it asks for; none: it knows one only.
    pub(crate) lease: Option<Duration>,
}

/// A voter's answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Of the heartbeat.
    pub(crate) session: u64,
    /// Of the heartbeat.
    pub(crate) sequence: u64,
    /// Drawn at the voter's start.
    pub(crate) cookie: u64,
    pub(crate) view: View,
    pub(crate) active: bool,
    /// The version of the sender's list that the voter has.
    pub(crate) applied: u64,
    /// For how long a lease the voter has promised what it grants; none: it knows one only.
    pub(crate) lease: Option<Duration>,
    /// None if nothing was looked at.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) reports: Delta<Subject, Report>,
}

/// What a voter grants: everything listed in a range of addresses, but for what it refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The range begins after this address; none: with the first.
    pub(crate) after: Option<IpAddr>,
    /// The range ends with this address; none: with the last.
    pub(crate) through: Option<IpAddr>,
    /// In order.
    pub(crate) refused: Vec<Refused>,
}

/// An address that was not granted, and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) address: IpAddr,
    pub(crate) retry_after: Option<Duration>,
}

/// The steps of handing an address over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Holder to target: get ready, silently.
    Prepare,
    /// Target to holder: ready.
    Ready,
    /// Former holder to target: it is free, claim it.
    Take,
}

/// A step for several addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hand {
    pub(crate) step: Step,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Anything that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Heartbeat(Heartbeat),
    Ack(Ack),
    Hand(Hand),
}

impl Message {
    /// The view its sender stands in, and whether it knows that to be active, if it says so.
    pub(crate) fn stands(&self) -> Option<(&View, bool)> {
        match self {
            Self::Heartbeat(heartbeat) => Some((&heartbeat.view, heartbeat.active)),
            Self::Ack(ack) => Some((&ack.view, ack.active)),
            Self::Hand(_) => None,
        }
    }
}

impl Verdict {
    /// Whether the verdict speaks of an address.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.after.is_none_or(|after| address > after)
            && self.through.is_none_or(|through| address <= through)
    }

    /// The refusal of an address, if it was refused.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<&Refused> {
        let at = self.refused.binary_search_by_key(&address, |refused| refused.address).ok()?;
        self.refused.get(at)
    }
}

impl Item for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => {
                out.push(4);
                out.extend(address.octets());
            }
            Self::V6(address) => {
                out.push(6);
                out.extend(address.octets());
            }
        }
    }
}

impl Item for Stage {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Claim => 0,
            Self::Held => 1,
        });
    }
}

impl Item for Subject {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Node(node) => {
                out.push(0);
                out.extend(node.bits().to_be_bytes());
            }
            Self::Address(address) => address.put(out),
        }
    }
}

impl Item for Report {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Heard => out.push(0),
            Self::Promised { node, stage } => {
                out.push(1);
                out.extend(node.bits().to_be_bytes());
                stage.put(out);
            }
        }
    }
}
