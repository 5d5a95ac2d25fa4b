//! What this node should hold where membership decides on each address. Pure.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Desired, Scene, Verdict, place, ports, remarks, verdict};
use crate::cluster::{Name, Service};
use crate::ownership::membership::{Holdings, Tenure};
use crate::ownership::{Candidates, View};

/// The kernel drops an address that nobody renews for so long: what keeps it silent meanwhile is the fence.
const KEPT: Duration = Duration::from_secs(60);

/// How long a Service waits for its second address before it publishes the first alone.
const TOGETHER: Duration = Duration::from_secs(2);

/// Computes what this node should hold.
pub fn fenced(scene: Scene<'_>, holdings: &Holdings, now: Instant) -> Desired {
    let mut desired = Desired::default();
    for (name, service) in scene.cluster.services() {
        if service.ours {
            desired.guard.extend(ports(service));
            for address in service.addresses.iter().filter(|address| holdings.binds(address)) {
                if let Ok(link) = place(scene, service, *address) {
                    let answers = holdings.held_since(address).is_some();
                    desired.put(service, *address, link, now + KEPT, answers);
                }
            }
        }
        if let Some(verdict) = judge(scene, name, service, holdings, now) {
            desired.verdicts.insert(name.clone(), verdict);
        }
    }
    desired
}

/// What becomes of a Service, if this node decides on that: who has its first address does.
fn judge(
    scene: Scene<'_>,
    name: &Name,
    service: &Service,
    holdings: &Holdings,
    now: Instant,
) -> Option<Verdict> {
    let ownable = service.ours && !Candidates::of(scene.cluster, name).is_empty();
    let first = service.addresses.first().filter(|_| ownable);
    let placed = |address: &IpAddr| place(scene, service, *address).is_ok();
    let Some(first) = first.filter(|_| service.addresses.iter().any(placed)) else {
        let busy = service.addresses.iter().any(|address| holdings.tenure(address).is_some());
        let host = service.vip_host.as_deref();
        // One that can be had is cleared by whoever gets it.
        let speaks = !(service.ours && busy)
            && (first.is_none() || host.is_none())
            && holdings.speaks_for(name, host, now);
        let holder = Some(scene.node.to_owned());
        return speaks.then(|| verdict(scene, name, service, &View { holder }));
    };
    let since = holdings.held_since(first)?;
    let mut verdict = Verdict::default();
    verdict.refusals.extend(remarks(service));
    for address in &service.addresses {
        match place(scene, service, *address) {
            Err(refusal) => verdict.refusals.push(refusal),
            Ok(_) => {
                let held = matches!(holdings.tenure(address), Some(Tenure::Held(_)));
                if held || now < since + TOGETHER {
                    verdict.announce.push(*address);
                }
            }
        }
    }
    Some(verdict)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use berth_membership::{Cause, NodeId};

    use super::*;
    use crate::cluster::Cluster;
    use crate::cluster::testing::{service, slice};
    use crate::kernel::{Host, Interface};
    use crate::ownership::membership::Told;

    const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn holds(text: &str) -> Told {
        Told::Holds { address: address(text), cause: Cause::First, took: Duration::ZERO }
    }

    /// What node `a` decides on a Service with both addresses, after it was told this.
    fn decide(endpoints: &[&str], told: &[Told], after: Duration) -> Desired {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&BOTH));
        slice(&mut cluster, "web", "s", endpoints);
        let eth0 = Interface { index: 2, mac: Some([2; 6]), up: true, foreign: [].into() };
        let host = Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() };
        let scene = Scene { cluster: &cluster, host: &host, node: "a", interface: Some("eth0") };
        let now = Instant::now();
        let mut holdings = Holdings::new(NodeId::of("a"), true, now);
        told.iter().for_each(|told| holdings.take(told, now));
        fenced(scene, &holdings, now + after)
    }

    #[test]
    fn an_address_that_is_asked_for_is_bound_and_not_announced_before_it_is_held() {
        let told = [Told::Prepare(address(BOTH[0])), Told::Prepare(address(BOTH[1]))];
        let desired = decide(&["b"], &told, Duration::ZERO);
        assert_eq!(desired.addresses.len(), 2);
        assert!(desired.addresses.values().all(|place| !place.answers));
        assert!(desired.verdicts.is_empty(), "who is not the owner yet says nothing");
    }

    #[test]
    fn who_has_the_first_address_speaks_and_waits_a_while_for_the_second() {
        let first = decide(&["b"], &[holds(BOTH[0])], Duration::ZERO);
        let announced = |desired: &Desired| desired.verdicts[&Name::new("d", "web")].announce.len();
        assert_eq!(announced(&first), 2);
        let later = decide(&["b"], &[holds(BOTH[0])], TOGETHER);
        assert_eq!((announced(&later), later.addresses.len()), (1, 1));
        let second = decide(&["b"], &[holds(BOTH[1])], Duration::ZERO);
        assert!(second.verdicts.is_empty() && second.addresses.len() == 1);
    }

    #[test]
    fn a_service_that_nobody_can_own_is_explained_by_one_live_node() {
        let alone = Told::Live(BTreeSet::from([NodeId::of("a")]));
        let settled = Duration::from_secs(5);
        let desired = decide(&[], std::slice::from_ref(&alone), settled);
        let verdict = &desired.verdicts[&Name::new("d", "web")];
        assert_eq!(verdict.refusals[0].reason(), "NoEndpoint");
        assert!(
            decide(&[], &[alone, holds(BOTH[0])], settled).verdicts.is_empty(),
            "not while held"
        );
        assert!(decide(&[], &[], settled).verdicts.is_empty(), "nor without a majority");
    }
}
