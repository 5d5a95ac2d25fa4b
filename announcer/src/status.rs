//! What to write into the status of Services: what is true now, where this node decides, and nothing else. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::names::annotation;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Ingress, Name, Service};
use crate::desired::Desired;

/// One write of a Service's status and of the annotation that names its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The Service.
    pub name: Name,
    /// Its uid: a Service made anew under the same name is another one.
    pub uid: String,
    /// The version that this was decided on; the API server refuses the write if there is a newer one.
    pub version: String,
    /// The node that announces it; nobody clears the annotation.
    pub vip_host: Option<String>,
    /// What `status.loadBalancer.ingress` is to be.
    pub ingress: Vec<Ingress>,
}

/// What this node answers for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answering {
    /// Bound and announced.
    pub live: BTreeSet<IpAddr>,
    /// Bound, whether desired or on its way out.
    pub bound: BTreeSet<IpAddr>,
    /// Desired, but the kernel refuses it.
    pub failed: BTreeSet<IpAddr>,
}

/// Lists the writes that make every status true for which this node decides. Empty when all are.
pub fn updates(
    cluster: &Cluster,
    desired: &Desired,
    answering: &Answering,
    node: &str,
) -> Vec<Update> {
    let mut updates = Vec::new();
    for (name, verdict) in &desired.verdicts {
        let Some(service) = cluster.services().get(name).filter(|service| !service.foreign) else {
            continue;
        };
        let live = |address: &&IpAddr| answering.live.contains(*address);
        let settled = |a: &IpAddr| answering.live.contains(a) || answering.failed.contains(a);
        let announced: Vec<IpAddr> = verdict.announce.iter().filter(live).copied().collect();
        if announced.is_empty() {
            // Those that are on their way in will be written when they are here.
            let coming = verdict.announce.iter().any(|address| !answering.failed.contains(address));
            if service.vip_host.is_some() && !coming && is_silent(service, desired, answering) {
                updates.push(update(name, service, None, Vec::new()));
            }
            continue;
        }
        let ingress: Vec<Ingress> =
            announced.iter().map(|address| Ingress::vip(*address, &service.ports)).collect();
        let is_true = service.published == ingress && service.vip_host.as_deref() == Some(node);
        if !is_true && verdict.announce.iter().all(settled) {
            updates.push(update(name, service, Some(node), ingress));
        }
    }
    updates
}

/// Whether none of the addresses that a Service has or publishes is still bound for it: only then may it say so,
/// because that is what others wait for before they give the address away.
fn is_silent(service: &Service, desired: &Desired, answering: &Answering) -> bool {
    let published = service.published.iter().filter_map(|ingress| ingress.ip.parse().ok());
    let mut addresses = published.chain(service.addresses.iter().copied());
    !addresses.any(|address: IpAddr| {
        // One that another Service shares stays.
        answering.bound.contains(&address) && !desired.addresses.contains_key(&address)
    })
}

fn update(name: &Name, service: &Service, host: Option<&str>, ingress: Vec<Ingress>) -> Update {
    Update {
        name: name.clone(),
        uid: service.uid.clone(),
        version: service.version.clone(),
        vip_host: host.map(str::to_owned),
        ingress,
    }
}

impl Update {
    /// The merge patch (RFC 7386) for the status subresource. It carries uid and version, so that it can only change
    /// what was decided on; everything it does not name stays as it is.
    pub fn patch(&self) -> Value {
        let port = |(protocol, port): &(String, i32)| json!({ "protocol": protocol, "port": port });
        let entry = |ingress: &Ingress| {
            let ports: Vec<Value> = ingress.ports.iter().map(port).collect();
            json!({ "ip": ingress.ip, "ipMode": ingress.ip_mode, "ports": ports })
        };
        let ingress: Vec<Value> = self.ingress.iter().map(entry).collect();
        let ingress = if ingress.is_empty() { Value::Null } else { Value::Array(ingress) };
        json!({
            "metadata": {
                "uid": self.uid,
                "resourceVersion": self.version,
                "annotations": { annotation::VIP_HOST: self.vip_host },
            },
            "status": { "loadBalancer": { "ingress": ingress } },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cluster::testing::service;
    use crate::desired::{Place, Verdict};
    use crate::l2::schedule::Link;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn name() -> Name {
        Name::new("d", "web")
    }

    fn cluster(service: Service) -> Cluster {
        let mut cluster = Cluster::default();
        cluster.apply_service(name(), service);
        cluster
    }

    fn announcing(addresses: &[&str]) -> Desired {
        let mut desired = Desired::default();
        let announce: Vec<IpAddr> = addresses.iter().map(|text| address(text)).collect();
        for address in &announce {
            let link = Link { index: 2, mac: [2; 6] };
            let place =
                Place { link, until: Instant::now(), answers: true, ports: BTreeSet::new() };
            desired.addresses.insert(*address, place);
        }
        desired.verdicts.insert(name(), Verdict { announce, refusals: Vec::new() });
        desired
    }

    fn answering(live: &[&str], bound: &[&str]) -> Answering {
        let set = |texts: &[&str]| texts.iter().map(|text| address(text)).collect();
        Answering { live: set(live), bound: set(bound), failed: BTreeSet::new() }
    }

    #[test]
    fn a_status_is_written_once_all_addresses_answer_and_never_again() {
        let both = ["192.0.2.1", "2001:db8::1"];
        let mut web = service(&both);
        let desired = announcing(&both);
        let half = answering(&both[..1], &both[..1]);
        assert_eq!(updates(&cluster(web.clone()), &desired, &half, "a"), []);
        let all = answering(&both, &both);
        let [update] = &updates(&cluster(web.clone()), &desired, &all, "a")[..] else { panic!() };
        assert_eq!(update.vip_host.as_deref(), Some("a"));
        assert_eq!(
            update.patch(),
            json!({
                "metadata": {
                    "uid": "uid", "resourceVersion": "1", "annotations": { "kube-vip.io/vipHost": "a" },
                },
                "status": { "loadBalancer": { "ingress": [
                    { "ip": "192.0.2.1", "ipMode": "VIP", "ports": [{ "protocol": "TCP", "port": 80 }] },
                    { "ip": "2001:db8::1", "ipMode": "VIP", "ports": [{ "protocol": "TCP", "port": 80 }] },
                ] } },
            })
        );
        (web.published, web.vip_host) = (update.ingress.clone(), Some("a".to_owned()));
        assert_eq!(updates(&cluster(web), &desired, &all, "a"), []);
    }

    #[test]
    fn an_address_that_the_kernel_refuses_does_not_hold_up_the_other() {
        let both = ["192.0.2.1", "2001:db8::1"];
        let mut answering = answering(&both[..1], &both[..1]);
        answering.failed.insert(address(both[1]));
        let updates = updates(&cluster(service(&both)), &announcing(&both), &answering, "a");
        assert_eq!(updates[0].ingress.len(), 1);
    }

    #[test]
    fn a_status_is_cleared_only_after_the_address_is_off_the_interface() {
        let mut web = service(&["192.0.2.1"]);
        (web.ours, web.vip_host) = (false, Some("a".to_owned()));
        web.published = vec![Ingress::vip(address("192.0.2.1"), &web.ports)];
        let cluster = cluster(web);
        let mut nothing = Desired::default();
        nothing.verdicts.insert(name(), Verdict::default());
        let bound = answering(&[], &["192.0.2.1"]);
        assert_eq!(updates(&cluster, &nothing, &bound, "a"), []);
        let [update] = &updates(&cluster, &nothing, &Answering::default(), "a")[..] else {
            panic!()
        };
        assert_eq!(update.vip_host, None);
        let patch = update.patch();
        assert_eq!(patch["status"]["loadBalancer"], json!({ "ingress": null }));
        assert_eq!(patch["metadata"]["annotations"], json!({ "kube-vip.io/vipHost": null }));
    }

    #[test]
    fn what_another_node_left_behind_is_cleared_by_who_decides_now() {
        let mut web = service(&[]);
        web.vip_host = Some("gone".to_owned());
        let mut nothing = Desired::default();
        nothing.verdicts.insert(name(), Verdict::default());
        assert_eq!(updates(&cluster(web), &nothing, &Answering::default(), "a").len(), 1);
    }

    #[test]
    fn a_status_that_somebody_else_wrote_is_left_alone() {
        let mut web = service(&[]);
        web.published = vec![Ingress { ip: "203.0.113.1".to_owned(), ..Ingress::default() }];
        let mut nothing = Desired::default();
        nothing.verdicts.insert(name(), Verdict::default());
        assert_eq!(updates(&cluster(web.clone()), &nothing, &Answering::default(), "a"), []);
        (web.foreign, web.vip_host) = (true, Some("a".to_owned()));
        assert_eq!(updates(&cluster(web), &nothing, &Answering::default(), "a"), []);
    }

    #[test]
    fn who_does_not_decide_writes_nothing() {
        let mut web = service(&["192.0.2.1"]);
        web.vip_host = Some("b".to_owned());
        assert_eq!(updates(&cluster(web), &Desired::default(), &Answering::default(), "a"), []);
    }

    #[test]
    fn a_shared_address_that_stays_for_another_service_does_not_hold_up_the_clearing() {
        let mut web = service(&["192.0.2.1"]);
        (web.ours, web.vip_host) = (false, Some("a".to_owned()));
        let mut desired = announcing(&["192.0.2.1"]);
        desired.verdicts.insert(name(), Verdict::default());
        let bound = answering(&["192.0.2.1"], &["192.0.2.1"]);
        assert_eq!(updates(&cluster(web), &desired, &bound, "a").len(), 1);
    }
}
