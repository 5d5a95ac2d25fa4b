//! What is broken, and what tells of it.

use std::time::Duration;

use berth_e2e::world::ADDRESSES;
use serde_json::{Value, json};

/// How soon it is told what an announcer or the API server can know, and what only berth-ccm can: that no announcer lives.
pub(super) const SOON: Duration = Duration::from_secs(5);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// An interface that had a route is believed for 15 s to get it back, and looked at every ten.
const ROUTELESS: Duration = Duration::from_secs(30);

/// What tells of it, of an object that was there before and of one that comes then; nothing where it answers.
pub(super) type Right = [Option<&'static [&'static str]>; 2];

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NoEndpoint,
    NoLiveNode,
    NoInterface,
    InvalidVlan,
    Dhcp,
    NoPool,
    /// No announcer hears another one.
    Firewall,
    /// One lives, and is no majority.
    Alone,
    /// No announcer has a carrier.
    Unplugged,
    /// No announcer lives.
    Gone,
    /// The machines of elastic IPs are deleted.
    MachineGone,
    /// They are shut down.
    MachineOff,
    /// Their node dies.
    NodeGone,
    /// Nobody could be answered there.
    NoWayBack,
}

use Fault::*;

impl Fault {
    /// What is right of Services.
    pub(super) fn right(self, by_lease: bool) -> Right {
        match self {
            NoEndpoint => both(&["NoEndpoint"]),
            // Who holds the one Lease says so of itself.
            NoLiveNode if by_lease => both(&["NoLiveNode", "NoLocalEndpoint"]),
            NoLiveNode => both(&["NoLiveNode"]),
            NoInterface => both(&["InterfaceMissing"]),
            InvalidVlan => both(&["InvalidVlan"]),
            Dhcp => both(&["DhcpNotServed"]),
            NoPool => [None, Some(&["NoPool"])],
            Firewall | Alone => both(&["NotGranted"]),
            Unplugged => both(&["InterfaceUnfit"]),
            Gone => both(&["NoAnnouncer"]),
            MachineGone | MachineOff | NodeGone | NoWayBack => [None, None],
        }
    }

    /// What is right of elastic IPs.
    pub(super) fn of_elastic(self) -> Right {
        match self {
            NoEndpoint | NoLiveNode | NoInterface | InvalidVlan | Dhcp => [None, None],
            NoPool | Firewall | Alone | Unplugged | Gone => self.right(false),
            MachineGone => both(&["VmiNotFound"]),
            MachineOff => both(&["VmiNotRunning"]),
            NodeGone => both(&["NoAnnouncer"]),
            NoWayBack => both(&["ReversePathFiltered"]),
        }
    }

    /// How soon it is told.
    pub(super) fn within(self) -> Duration {
        match self {
            Gone | NodeGone => MINUTE,
            NoWayBack => ROUTELESS,
            _ => SOON,
        }
    }

    /// Whether who tells of it hears too few others, and names them.
    pub(super) fn names_others(self) -> bool {
        matches!(self, Firewall | Alone)
    }

    /// What it is about one Service: merged into it.
    pub(super) fn patch(self) -> Value {
        match self {
            NoEndpoint => json!({ "spec": { "selector": { "app": "nobody" } } }),
            NoLiveNode => json!({ "spec": { "externalTrafficPolicy": "Local" } }),
            NoInterface => noted("kube-vip.io/serviceInterface", "eth9"),
            InvalidVlan => noted("kube-vip.io/serviceVLAN", "5000"),
            Dhcp => noted(ADDRESSES, "0.0.0.0,::"),
            _ => json!({}),
        }
    }

    pub(super) fn is_of_one(self) -> bool {
        self.patch() != json!({})
    }
}

fn both(reasons: &'static [&'static str]) -> Right {
    [Some(reasons), Some(reasons)]
}

fn noted(name: &str, value: &str) -> Value {
    json!({ "metadata": { "annotations": { name: value } } })
}
