//! What the start and the end of an announcer do with the fence, whoever decides on owners.

use std::collections::BTreeSet;

use berth_fence::{Fence, Kind, Options};

use crate::config::{Config, Fence as Wanted};
use crate::instance::Instance;
use crate::kernel::{ArpAnnounce, Host};
use crate::source::cluster::Cluster;
use crate::source::placement;
use crate::source::scene::Scene;

/// Addresses that the fence has room for: of 8,000 Services with two each.
const CAPACITY: u32 = 1 << 14;

/// Names and numbers of an instance's fence.
fn names(instance: &Instance) -> berth_fence::Instance {
    berth_fence::Instance::of(instance.name(), instance.number())
        .expect("the fence takes the name of any instance")
}

/// The names of all fences on this node, whosever.
pub(crate) fn left() -> BTreeSet<String> {
    berth_fence::left().unwrap_or_else(|error| {
        tracing::debug!(%error, "no fence is looked for");
        BTreeSet::new()
    })
}

/// Removes every fence of this instance.
pub(crate) fn remove(instance: &Instance) {
    let options =
        Options { instance: names(instance), strongest: Kind::Unfenced, ..Options::default() };
    for error in berth_fence::open(&options).fence.remove() {
        tracing::warn!(%error, "cannot remove what an earlier fence left");
    }
}

/// Opens the strongest fence there is, covers what is bound and attaches it where neighbours may ask: from here on all
/// of it is silent.
pub(crate) fn open(config: &Config, host: &Host) -> Box<dyn Fence> {
    let strongest = match config.fence {
        Wanted::Bpf => Kind::Bpf,
        Wanted::NftTimeout => Kind::NftTimeout,
        Wanted::Unfenced => Kind::Unfenced,
    };
    let opened = berth_fence::open(&Options {
        instance: names(&config.core.instance),
        strongest,
        capacity: CAPACITY,
    });
    for refusal in &opened.refusals {
        tracing::warn!("no {refusal}");
    }
    let mut fence = opened.fence;
    match fence.kind() {
        Kind::Bpf => tracing::info!(fence = %fence.kind(), "the kernel holds the deadline"),
        kind => {
            tracing::warn!(fence = %kind, "a weaker fence holds; docs/fence.md says what is lost")
        }
    }
    let found: BTreeSet<_> = host.ours.keys().map(|binding| binding.address).collect();
    if let Err(error) = fence.cover(&found) {
        tracing::error!(%error, "what an earlier life left bound is not covered");
    }
    let (cluster, interface) = (Cluster::default(), config.core.interface.as_deref());
    let scene = Scene { cluster: &cluster, host, node: &config.core.node, interface };
    for error in fence.attach(&placement::guarded(scene)) {
        tracing::warn!(%error, "the fence is not everywhere");
    }
    fence
}

/// A node that has released an address forwards for it still. With 0 Linux would ask for the next hop in the name of
/// that address, which the fence drops, and the traffic would stop.
pub(crate) fn arp_announce(interface: &str) -> Option<ArpAnnounce> {
    match ArpAnnounce::set(interface) {
        Ok(set) => set,
        Err(error) => {
            let setting = format!("net.ipv4.conf.{interface}.arp_announce");
            tracing::warn!(%error, "set {setting} to 2 on the host: traffic may stop while an address moves");
            None
        }
    }
}
