//! What the start and the end of an announcer do with the fence, whoever decides on owners.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_api::election::Timing;
use berth_fence::{Fence, Kind, Options};

use crate::config::{Config, Election, Fence as Wanted, Permits};
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
    let options = Options { strongest, capacity: CAPACITY, ..Options::default() };
    let life = match config.election {
        Election::Membership(_) => options.life,
        // Where nobody is elected nothing is ever let pass.
        Election::Global { .. } | Election::PerService | Election::Everyone | Election::Nothing => {
            by_lease(config.leases.timing)
        }
    };
    let instance = names(&config.core.instance);
    let opened = berth_fence::open(&Options { instance, life, ..options });
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
    let scene = Scene {
        cluster: &cluster,
        host,
        node: &config.core.node,
        interface,
        permits: Permits::ALL,
        routed: config.routed(),
        layer2: &[],
    };
    for error in fence.attach(&placement::guarded(scene)) {
        tracing::warn!(%error, "the fence is not everywhere");
    }
    fence
}

/// How long a fence that is refreshed lets pass at a time where Leases decide: as long as it can without silencing a
/// holder that may still act. A node that is busy for that long loses no answer.
pub(crate) fn by_lease(timing: Timing) -> Duration {
    let spare = timing.lapse().saturating_sub(timing.renew_deadline());
    (spare / 2).clamp(Options::default().life, Duration::from_secs(1))
}

/// A node that has released an address forwards for it still. With 0 Linux would ask for the next hop in the name of
/// that address, which the fence drops, and the traffic would stop.
pub(crate) fn arp_announce(interface: &str) -> Option<ArpAnnounce> {
    match ArpAnnounce::set(interface) {
        Ok(set) => set,
        Err(error) => {
            let setting = format!("net.ipv4.conf.{interface}.arp_announce");
            tracing::warn!(%error, "set {setting} to 2 on the host: else it asks for neighbours in the name of addresses that it serves, which the fence \
                 drops, and traffic may stop");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_that_may_act_is_not_silenced_by_a_fence_that_is_refreshed() {
        let seconds = Duration::from_secs;
        for (duration, deadline, retry) in [(15, 10, 2), (5, 3, 1), (3, 2, 1)] {
            let timing = Timing::new(seconds(duration), seconds(deadline), seconds(retry)).unwrap();
            let life = by_lease(timing);
            assert!(timing.renew_deadline() + 2 * life <= timing.lapse(), "{life:?}");
            assert!(life > Duration::from_millis(400), "{life:?}");
        }
        assert_eq!(by_lease(Timing::DEFAULT), seconds(1));
    }
}
