//! Behind which addresses others may answer than their own Services, where host ports are closed, and where these Services
//! lead. Pure.
//!
//! What a Service has in its spec is open behind its address. Where kube-proxy does not take such a port for the address it
//! falls through to whoever has the number: the NodePort of another, the `hostPort` of a pod. No rule says who has led a
//! packet where, but where it was led can be seen, and be compared with the Service's endpoints and its own addresses in the
//! cluster. Endpoints are all taken, ready or not: one is known long before kube-proxy leads there, so that nobody waits for
//! us. Where one has left, kube-proxy leads there for a second or two more, and it may answer as before: it is taken for a
//! while longer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use berth_api::Family;
use berth_api::service::Port;

use super::cluster::{Cluster, Service};
use super::room;
use super::scene::Scene;
use crate::vip::{Claimant, Name, Wanted};

/// So many endpoints are compared at an address: each is an element of the kernel, on every node, and is compared with each change. Who has more
/// has thousands of pods, or writes EndpointSlices by hand and so leads to anybody's pod without a detour.
const MOST: usize = 4096;

/// So many are compared in all: a namespace that has more than its share of them has the addresses with the most not
/// compared.
const TOGETHER: usize = 32_768;

/// So long after an endpoint has left kube-proxy may still lead there: it changes its rules once a second, and takes longer
/// where it has many.
const LINGERS: Duration = Duration::from_secs(10);

/// The first of all addresses.
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Where what asks for doubted addresses was led lately.
#[derive(Debug, Default)]
pub struct Lingering {
    /// What was doubted at the last look.
    last: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// By the address and where it led: until when that is taken.
    left: BTreeMap<(IpAddr, IpAddr), Instant>,
    /// Addresses of which so many have left that they are not compared, and until when.
    restless: BTreeMap<IpAddr, Instant>,
}

impl Lingering {
    /// Adds to what is `doubted` where it led lately.
    pub fn join(&mut self, doubted: &mut BTreeMap<IpAddr, BTreeSet<IpAddr>>, now: Instant) {
        let Self { last, left, restless } = self;
        last.retain(|address, _| doubted.contains_key(address));
        for (address, there) in doubted.iter() {
            let before = last.entry(*address).or_default();
            // Nearly always.
            if before == there {
                continue;
            }
            let gone = before.difference(there);
            left.extend(gone.map(|to| ((*address, *to), now + LINGERS)));
            before.clone_from(there);
            // Who changes thousands again and again has none of them remembered.
            let all = || left.range((*address, FIRST)..).take_while(|((of, _), _)| of == address);
            if all().nth(2 * MOST).is_some() {
                left.retain(|(of, _), _| of != address);
                restless.insert(*address, now + LINGERS);
            }
        }
        left.retain(|(address, to), until| {
            now < *until && doubted.get(address).is_some_and(|there| !there.contains(to))
        });
        for (address, to) in left.keys() {
            doubted.entry(*address).or_default().insert(*to);
        }
        restless.retain(|address, until| now < *until && doubted.contains_key(address));
        // Nor is what changes by thousands.
        doubted.retain(|address, to| !restless.contains_key(address) && to.len() <= 2 * MOST);
    }

    /// When the next one is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.left.values().chain(self.restless.values()).min().copied()
    }
}

/// The addresses that are doubted, and where what asks for them may be led.
pub fn doubted(scene: Scene<'_>, wanted: &Wanted) -> BTreeMap<IpAddr, BTreeSet<IpAddr>> {
    let Scene { cluster, node, .. } = scene;
    let taken = NodePorts::of(cluster);
    let mut doubted = BTreeMap::new();
    let mut whose = BTreeMap::new();
    for (address, vip) in wanted.addressed().filter(|(own, _)| !wanted.own.contains(own)) {
        let services = vip.wants.iter().filter_map(|want| match &want.claimant {
            Claimant::Service(name) => Some((name, cluster.services().get(name)?)),
            _ => None,
        });
        let services: Vec<(&Name, &Service)> = services.collect();
        let is_sure = |(name, service): &(&Name, &Service)| {
            shows(service, address)
                && !service.passed_over
                && leads(cluster, node, name, service, Family::of(&address))
                && !service.ports.iter().any(|port| taken.by_another(port, name))
        };
        if !services.iter().all(is_sure) {
            let slices = services.iter().flat_map(|(name, _)| cluster.slices(name));
            let slices = slices.filter(|slice| slice.family == Some(Family::of(&address)));
            let endpoints = slices.flat_map(|slice| slice.addresses.iter());
            let endpoints: Vec<IpAddr> = endpoints.take(MOST + 1).collect();
            // Another proxy may lead to the Service itself first, as OVN-Kubernetes does.
            let own = services.iter().flat_map(|(_, service)| service.cluster_ips.iter().copied());
            let own = own.filter(|own| Family::of(own) == Family::of(&address));
            if endpoints.len() <= MOST {
                let to: BTreeSet<IpAddr> = endpoints.into_iter().chain(own).collect();
                let of: &mut Vec<(usize, IpAddr)> =
                    whose.entry(services.first().map(|(name, _)| &*name.namespace)).or_default();
                of.push((to.len(), address));
                doubted.insert(address, to);
            }
        }
    }
    let asked = whose.values().map(|all| all.iter().map(|(count, _)| count).sum());
    let share = room::share(asked, TOGETHER, TOGETHER);
    for mut all in whose.into_values() {
        all.sort_unstable();
        let mut taken = 0;
        let over = all.into_iter().skip_while(|(count, _)| {
            taken += count;
            taken <= share
        });
        over.for_each(|(_, address)| _ = doubted.remove(&address));
    }
    doubted
}

/// Whether kube-proxy sees the address in its status, and is not told to leave it to others (KEP-1860).
fn shows(service: &Service, address: IpAddr) -> bool {
    service.published.iter().any(|ingress| {
        ingress.ip.parse() == Ok(address) && ingress.ip_mode.as_deref() != Some("Proxy")
    })
}

/// Whether each of its ports has an endpoint of the family, which the Service has as well, to which kube-proxy leads from this
/// node.
fn leads(cluster: &Cluster, node: &str, name: &Name, service: &Service, family: Family) -> bool {
    let here = || {
        cluster.slices(name).filter(|slice| {
            let ready = &slice.endpoints.ready;
            let is_near = || !service.local || ready.nodes.contains(node);
            slice.family == Some(family) && ready.any && is_near()
        })
    };
    service.cluster_ips.iter().any(|own| Family::of(own) == family)
        && service.names.iter().all(|port| here().any(|slice| slice.ports.contains(port)))
}

/// Every NodePort and whose it is, in order.
struct NodePorts<'a>(Vec<(Port, &'a Name)>);

impl<'a> NodePorts<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let all = cluster.services().iter();
        let all = all.flat_map(|(name, own)| own.node_ports.iter().map(move |port| (*port, name)));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        Self(all)
    }

    fn by_another(&self, port: &Port, name: &Name) -> bool {
        let first = self.0.partition_point(|(own, _)| own < port);
        let alike = self.0[first..].iter().take_while(|(own, _)| own == port);
        alike.into_iter().any(|(_, of)| *of != name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::cluster::Slice;
    use super::super::testing::{host, scene, seen};
    use super::*;
    use berth_api::service::ClassPolicy;

    const ADDRESS: &str = "192.0.2.1";

    fn service(name: &str, change: impl FnOnce(&mut Value)) -> (Name, Service) {
        let mut object = json!({
            "metadata": { "namespace": "d", "name": name, "uid": name, "annotations": {
                "kube-vip.io/loadbalancerIPs": ADDRESS,
            } },
            "spec": { "type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [
                { "name": "http", "port": 30_080, "nodePort": 30_080 },
            ] },
            "status": { "loadBalancer": { "ingress": [{ "ip": ADDRESS, "ipMode": "VIP" }] } },
        });
        change(&mut object);
        let object = serde_json::from_value(object).unwrap();
        (Name::new("d", name), Service::read(&object, &ClassPolicy::default()))
    }

    fn slice(change: impl FnOnce(&mut Value)) -> (Name, Slice) {
        let mut object = json!({
            "metadata": {
                "namespace": "d", "name": "web-1",
                "labels": { "kubernetes.io/service-name": "web" },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "nodeName": "a" },
                { "addresses": ["10.0.0.2"], "nodeName": "b", "conditions": { "ready": false } },
            ],
        });
        change(&mut object);
        Slice::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    /// Where the address may be led, if it is doubted.
    fn judged(services: Vec<(Name, Service)>, slices: Vec<(Name, Slice)>) -> Option<String> {
        let (mut cluster, host) = (Cluster::default(), host());
        for (name, service) in services {
            cluster.apply_service(name, service);
        }
        for (n, slice) in slices.into_iter().enumerate() {
            cluster.apply_slice(Name::new("d", format!("slice-{n}")), Some(slice));
        }
        let wanted = seen(&cluster, &host, Some("eth0"));
        let scene = scene(&cluster, &host, None);
        let mut doubted = doubted(scene, &wanted);
        assert!(doubted.len() < 2, "{doubted:?}");
        let (_, to) = doubted.pop_first()?;
        Some(to.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn an_address_is_doubted_where_kube_proxy_may_not_take_one_of_its_ports() {
        let web = |change: fn(&mut Value)| service("web", change);
        let plain = || slice(|_| {});
        let one = |web, slice| judged(vec![web], vec![slice]);
        assert_eq!(one(web(|_| {}), plain()), None, "its own NodePort is none of another");
        let both = "10.0.0.1 10.0.0.2";
        for (what, change) in [
            ("not shown", (|all| all["status"] = json!({})) as fn(&mut Value)),
            ("shown for others", |all| {
                all["status"]["loadBalancer"]["ingress"][0]["ipMode"] = json!("Proxy");
            }),
            ("another proxy", |all| {
                all["metadata"]["labels"] =
                    json!({ "service.kubernetes.io/service-proxy-name": "cilium" });
            }),
            ("no proxy", |all| {
                all["metadata"]["labels"] = json!({ "service.kubernetes.io/headless": "" });
            }),
            ("not for all", |all| {
                all["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/8"]);
            }),
            ("a port that no endpoint has", |all| {
                let more = json!({ "name": "more", "port": 8090 });
                all["spec"]["ports"].as_array_mut().unwrap().push(more);
            }),
            ("of the other family alone", |all| {
                all["spec"]["clusterIPs"] = json!(["2001:db8::96"])
            }),
            ("a port of another protocol", |all| {
                all["spec"]["ports"][0]["protocol"] = json!("UDP");
            }),
        ] {
            let to = one(web(change), plain());
            assert!(to.as_ref().is_some_and(|to| to.starts_with(both)), "{what}: {to:?}");
        }
    }

    #[test]
    fn an_address_is_doubted_where_its_service_has_no_endpoint_to_be_led_to_from_here() {
        let web = |local: bool| {
            service("web", |all| {
                let policy = if local { "Local" } else { "Cluster" };
                all["spec"]["externalTrafficPolicy"] = json!(policy);
                let note = "kube-vip.io/allow-reconcile-without-endpoints";
                all["metadata"]["annotations"][note] = json!("true");
            })
        };
        let (all, own) = (Some("10.0.0.1 10.0.0.2 10.96.0.1".to_owned()), Some("10.96.0.1"));
        let of_node = |node: &str| slice(|all| all["endpoints"][0]["nodeName"] = json!(node));
        assert_eq!(judged(vec![web(false)], vec![]).as_deref(), own);
        assert_eq!(judged(vec![web(true)], vec![of_node("a")]), None);
        assert_eq!(judged(vec![web(false)], vec![of_node("b")]), None);
        assert!(judged(vec![web(true)], vec![of_node("b")]).is_some());
        let any = slice(|all| all["ports"][0]["port"] = json!(null));
        assert_eq!(
            judged(vec![web(false)], vec![any]),
            all,
            "kube-proxy knows no port without a number"
        );
        let unready = slice(|all| all["endpoints"][0]["conditions"] = json!({ "ready": false }));
        assert!(judged(vec![web(false)], vec![unready]).is_some());
        let v6 = slice(|all| {
            all["addressType"] = json!("IPv6");
            all["endpoints"] = json!([{ "addresses": ["2001:db8::9"] }]);
        });
        assert_eq!(judged(vec![web(false)], vec![v6]).as_deref(), own, "of the other family");
    }

    #[test]
    fn where_an_endpoint_has_left_is_taken_while_kube_proxy_may_lead_there() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        let address: IpAddr = ADDRESS.parse().unwrap();
        let mut taken = |to: Option<&[&str]>, seconds| {
            let parsed = |to: &[&str]| to.iter().map(|to| to.parse().unwrap()).collect();
            let mut doubted = to.map(|to| (address, parsed(to))).into_iter().collect();
            lingering.join(&mut doubted, start + Duration::from_secs(seconds));
            let taken = doubted.get(&address).into_iter().flatten().map(ToString::to_string);
            (taken.collect::<Vec<_>>().join(" "), lingering.deadline().is_some())
        };
        let told = |text: &str, ends| (text.to_owned(), ends);
        assert_eq!(taken(Some(&["10.0.0.1"]), 0), told("10.0.0.1", false));
        assert_eq!(taken(Some(&["10.0.0.2"]), 5), told("10.0.0.1 10.0.0.2", true));
        assert_eq!(taken(Some(&["10.0.0.2"]), 14), told("10.0.0.1 10.0.0.2", true));
        assert_eq!(taken(Some(&["10.0.0.2"]), 15), told("10.0.0.2", false));
        assert_eq!(taken(Some(&[]), 16), told("10.0.0.2", true));
        assert_eq!(taken(Some(&["10.0.0.2"]), 17), told("10.0.0.2", false), "it is back");
        assert_eq!(taken(None, 18), told("", false));
        assert_eq!(taken(Some(&[]), 19), told("", false));
    }

    #[test]
    fn who_changes_thousands_of_endpoints_without_end_is_not_compared_and_costs_no_more_memory() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        let address: IpAddr = ADDRESS.parse().unwrap();
        let at = |millis| start + Duration::from_millis(millis);
        let few = || BTreeMap::from([(address, BTreeSet::from([address]))]);
        let ((), kept) = berth_hostile::kept(|| {
            for round in 0..100_u32 {
                let to = (0..4000).map(|n| IpAddr::from(Ipv4Addr::from(round * 4000 + n)));
                let mut doubted = BTreeMap::from([(address, to.collect())]);
                lingering.join(&mut doubted, at(u64::from(round) * 50));
                assert!(doubted.values().all(|to: &BTreeSet<_>| to.len() <= 2 * MOST));
            }
        });
        assert!(kept < 2_000_000, "{kept}");
        let mut compared = |millis| {
            let mut doubted = few();
            lingering.join(&mut doubted, at(millis));
            !doubted.is_empty()
        };
        assert_eq!([compared(6_000), compared(30_000)], [false, true]);
    }

    #[test]
    fn an_endpoint_whose_port_has_no_number_is_none_to_kube_proxy() {
        for number in [json!(null), json!(0)] {
            let unnumbered = slice(|all| all["ports"][0]["port"] = number);
            assert!(judged(vec![service("web", |_| {})], vec![unnumbered]).is_some());
        }
    }

    #[test]
    fn what_is_led_to_a_service_in_the_cluster_is_led_to_its_own() {
        let empty =
            service("web", |all| all["spec"]["clusterIPs"] = json!(["10.96.0.9", "fd00::9"]));
        assert_eq!(judged(vec![empty], vec![]).as_deref(), Some("10.96.0.9"));
    }

    #[test]
    fn an_address_with_thousands_of_endpoints_is_not_compared_with_them() {
        let web = || service("web", |all| all["status"] = json!({}));
        let many = |n: usize| {
            let all = move |all: &mut Value| {
                let own = (0..1024).map(|m| format!("10.{n}.{}.{}", m / 256, m % 256));
                all["endpoints"] = own.map(|own| json!({ "addresses": [own] })).collect();
            };
            slice(all)
        };
        let compared = |slices| {
            let to = judged(vec![web()], (0..slices).map(many).collect())?;
            Some(to.split(' ').count())
        };
        assert_eq!((compared(4), compared(5)), (Some(4096 + 1), None), "with its own");
    }

    #[test]
    fn of_the_endpoints_that_are_compared_each_namespace_has_its_share_and_small_addresses_come_first()
     {
        let (mut cluster, host) = (Cluster::default(), host());
        let mut add = |namespace: &str, number: u8, endpoints: u16| {
            let name = format!("web-{number}");
            let address = format!("192.0.{}.{number}", namespace.len());
            let (_, web) = service(&name, |all| {
                all["metadata"]["namespace"] = json!(namespace);
                all["metadata"]["annotations"]["kube-vip.io/loadbalancerIPs"] = json!(address);
                all["status"] = json!({});
            });
            cluster.apply_service(Name::new(namespace, &*name), web);
            let (_, slice) = slice(|all| {
                all["metadata"]["namespace"] = json!(namespace);
                all["metadata"]["labels"]["kubernetes.io/service-name"] = json!(name);
                let own = (0..endpoints).map(|n| format!("10.{number}.{}.{}", n / 256, n % 256));
                all["endpoints"] = own.map(|own| json!({ "addresses": [own] })).collect();
            });
            cluster.apply_slice(
                Name::new(namespace, &*name),
                Some((Name::new(namespace, &*name), slice)),
            );
        };
        // With that of the Service in the cluster each has one more.
        (1..=20).for_each(|number| add("mm", number, 2047));
        (1..=2).for_each(|number| add("aaa", number, 1999));
        add("mm", 99, 1);
        let wanted = seen(&cluster, &host, Some("eth0"));
        let scene = scene(&cluster, &host, None);
        let doubted = doubted(scene, &wanted);
        let of = |third: u8| {
            let of =
                |address: &&IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[2] == third);
            doubted.keys().filter(of).count()
        };
        assert_eq!((of(2), of(3)), (15, 2));
        assert!(doubted.contains_key(&"192.0.2.99".parse().unwrap()));
        assert!(doubted.values().map(BTreeSet::len).sum::<usize>() <= TOGETHER);
    }

    #[test]
    fn an_address_is_doubted_where_a_port_is_the_node_port_of_another_or_one_that_shares_it_is() {
        let web = || service("web", |_| {});
        let other = |protocol: &'static str, port: u16| {
            service("other", move |all| {
                all["metadata"]["annotations"] = json!({});
                all["status"] = json!({});
                let ports = json!([{ "port": 80, "nodePort": port, "protocol": protocol }]);
                all["spec"] = json!({ "type": "NodePort", "ports": ports });
            })
        };
        let with = |other| judged(vec![web(), other], vec![slice(|_| {})]);
        assert!(with(other("TCP", 30_080)).is_some());
        assert_eq!(with(other("UDP", 30_080)), None);
        assert_eq!(with(other("TCP", 30_081)), None);
        let shares = service("shares", |all| {
            all["spec"]["ports"] = json!([{ "name": "http", "port": 80 }]);
        });
        assert!(with(shares).is_some(), "it has no endpoint");
    }
}
