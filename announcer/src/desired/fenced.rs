//! What this node should hold where membership decides on each address. Pure.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Desired, Refusal, Scene, Verdict, place, ports, remarks, verdict};
use crate::advertise::arp_nd::probe::Probes;
use crate::ownership::membership::{Holdings, Tenure};
use crate::ownership::{Candidates, View};
use crate::source::cluster::{Name, Service};

/// The kernel drops an address that nobody renews for so long: what keeps it silent meanwhile is the fence.
pub(crate) const KEPT: Duration = Duration::from_secs(60);

/// How long a Service waits for its second address before it publishes the first alone.
const TOGETHER: Duration = Duration::from_secs(2);

/// Computes what this node should hold. What `probes` do not allow is withheld.
pub fn fenced(scene: Scene<'_>, holdings: &Holdings, probes: &Probes, now: Instant) -> Desired {
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
        if let Some(verdict) = judge(scene, name, service, holdings, probes, now) {
            desired.verdicts.insert(name.clone(), verdict);
        }
    }
    desired.withhold(scene, probes);
    desired
}

/// What becomes of a Service, if this node decides on that: who has its first address does, or was granted it and finds
/// that another host answers for it. Before the grant that may be a fellow node, which was faster.
fn judge(
    scene: Scene<'_>,
    name: &Name,
    service: &Service,
    holdings: &Holdings,
    probes: &Probes,
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
        return match speaks {
            true => Some(verdict(scene, name, service, &View { holder })),
            false => given_up(scene, service, holdings, now),
        };
    };
    let taken = |address: &IpAddr| holdings.is_granted(address) && probes.taken(address).is_some();
    let since = holdings.held_since(first);
    if since.is_none() && !taken(first) {
        return given_up(scene, service, holdings, now);
    }
    let waits = since.is_some_and(|since| now < since + TOGETHER);
    let mut verdict = Verdict::default();
    verdict.refusals.extend(remarks(service));
    for address in &service.addresses {
        match place(scene, service, *address) {
            Err(refusal) => verdict.refusals.push(refusal),
            Ok(_) => {
                let held = matches!(holdings.tenure(address), Some(Tenure::Held(_)));
                if held || taken(address) || waits {
                    verdict.announce.push(*address);
                }
            }
        }
    }
    Some(verdict)
}

/// What becomes of a Service that says this node announces it, when this node has not for a while and nobody came after
/// it: nobody answers.
fn given_up(
    scene: Scene<'_>,
    service: &Service,
    holdings: &Holdings,
    now: Instant,
) -> Option<Verdict> {
    let named = service.ours && service.vip_host.as_deref() == Some(scene.node);
    if !named || !holdings.is_silent(&service.addresses, now) {
        return None;
    }
    let mut refusals: Vec<Refusal> = remarks(service).collect();
    for refusal in service.addresses.iter().filter_map(|a| place(scene, service, *a).err()) {
        if !refusals.contains(&refusal) {
            refusals.push(refusal);
        }
    }
    if refusals.is_empty() {
        refusals.push(Refusal::NotGranted { node: scene.node.to_owned() });
    }
    Some(Verdict { refusals, ..Verdict::default() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use berth_membership::{Cause, NodeId};

    use super::*;
    use crate::advertise::arp_nd::hearing::{Heard, Said};
    use crate::advertise::arp_nd::probe::Question;
    use crate::advertise::arp_nd::schedule::Link;
    use crate::kernel::{Host, Interface};
    use crate::ownership::membership::Told;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::{service, slice};

    const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn holds(text: &str) -> Told {
        Told::Holds { address: address(text), cause: Cause::First, took: Duration::ZERO }
    }

    /// What node `a` decides on a Service with both addresses, after it was told this.
    fn decide(endpoints: &[&str], told: &[Told], after: Duration) -> Desired {
        decide_beside(&Probes::default(), endpoints, told, after)
    }

    /// The same beside other hosts.
    fn decide_beside(
        probes: &Probes,
        endpoints: &[&str],
        told: &[Told],
        after: Duration,
    ) -> Desired {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&BOTH));
        slice(&mut cluster, "web", "s", endpoints);
        let eth0 = Interface { index: 2, mac: Some([2; 6]), up: true, foreign: [].into() };
        let host = Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() };
        let scene = Scene { cluster: &cluster, host: &host, node: "a", interface: Some("eth0") };
        let now = Instant::now();
        let mut holdings = Holdings::new(NodeId::of("a"), true, now);
        told.iter().for_each(|told| holdings.take(told, now));
        fenced(scene, &holdings, probes, now + after)
    }

    #[test]
    fn an_address_that_is_asked_for_is_bound_and_not_announced_before_it_is_held() {
        let told = BOTH.map(|text| Told::Prepare { address: address(text), first: true });
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
    fn another_host_is_told_of_by_who_was_granted_the_address_and_by_nobody_before() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        let link = Link { index: 2, mac: [2; 6] };
        let question = Question { link, mark: [0; 6], patience: Duration::ZERO };
        probes.keep(&[(address(BOTH[0]), question)].into(), now);
        let heard = Heard { address: address(BOTH[0]), mac: [9; 6], said: Said::Claim };
        probes.hear(2, &heard, now);
        let asked = BOTH.map(|text| Told::Prepare { address: address(text), first: true });
        let granted = [Told::Granted(address(BOTH[0])), holds(BOTH[1])];
        let before = decide_beside(&probes, &["b"], &asked, Duration::ZERO);
        assert!(before.verdicts.is_empty(), "a fellow node may have been granted it");
        let told = [&asked[..], &granted].concat();
        let desired = decide_beside(&probes, &["b"], &told, Duration::ZERO);
        let verdict = &desired.verdicts[&Name::new("d", "web")];
        assert_eq!((&verdict.announce[..], desired.addresses.len()), (&[address(BOTH[1])][..], 1));
        assert_eq!(verdict.conflicts().to_string(), "192.0.2.1=09:09:09:09:09:09");
    }

    #[test]
    fn who_is_named_and_has_not_answered_for_a_while_says_so() {
        let mut cluster = Cluster::default();
        let web = Name::new("d", "web");
        let of = |host: &str| Service { vip_host: Some(host.to_owned()), ..service(&BOTH) };
        slice(&mut cluster, "web", "s", &["b"]);
        let eth0 = |up| Interface { index: 2, mac: Some([2; 6]), up, foreign: [].into() };
        let now = Instant::now();
        let holdings = Holdings::new(NodeId::of("a"), true, now);
        let decide = |cluster: &Cluster, up, after| {
            let host =
                Host { interfaces: [("eth0".to_owned(), eth0(up))].into(), ..Host::default() };
            let scene = Scene { cluster, host: &host, node: "a", interface: Some("eth0") };
            let verdict =
                fenced(scene, &holdings, &Probes::default(), now + after).verdicts.remove(&web);
            verdict.map(|verdict| (verdict.announce.len(), verdict.refusals[0].reason()))
        };
        let second = Duration::from_secs(1);
        cluster.apply_service(web.clone(), of("a"));
        assert_eq!(decide(&cluster, true, second), None);
        assert_eq!(decide(&cluster, true, second * 5), Some((0, "NotGranted")));
        assert_eq!(decide(&cluster, false, second), None);
        assert_eq!(decide(&cluster, false, second * 5), Some((0, "InterfaceUnfit")));
        cluster.apply_service(web.clone(), of("b"));
        assert_eq!(decide(&cluster, true, second * 5), None, "another one is named");
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
