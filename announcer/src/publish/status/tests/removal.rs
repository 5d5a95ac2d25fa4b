//! What takes out of a status what is another's, of an object that its author has filled.

use super::*;
use crate::publish::status;

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// Whoever shares the first address with `d/other` takes its port there and adds one besides; the second is its own.
fn taking(vip_host: Option<&str>) -> Service {
    let ports = [80, 8080].map(|number| Port { protocol: Protocol::Tcp, number });
    Service { ports: ports.into(), ..showing(&BOTH, vip_host) }
}

/// The same, which has left the share: its status shows it yet.
fn leaving(vip_host: Option<&str>) -> Service {
    Service { addresses: vec![address(BOTH[1])], ..taking(vip_host) }
}

/// What the node writes that decides on it and answers at the second address.
fn written(web: &Service, stuck: &BTreeSet<Name>) -> Vec<Update> {
    let joined = [("uid", 81), ("other", 80)];
    let shared = if web.addresses.len() == 2 { &joined[..] } else { &joined[1..] };
    let cluster = claimed(web.clone(), &[(BOTH[0], shared), (BOTH[1], &[("uid", 80)])]);
    let wanted = seen(&cluster, &host(), Some("eth0"));
    let mut verdicts = announcing(&BOTH[1..]);
    // There is something to be told as well.
    let of = address(BOTH[0]);
    let (node, interface) = ("a".to_owned(), "eth0".to_owned());
    let refusal = Refusal::AddressConflict { address: of, mac: [9; 6], node, interface };
    verdicts.get_mut(&name()).unwrap().refusals.push(refusal);
    let both = answering(&BOTH[1..], &BOTH[1..]);
    let removals = Removals { clears: &BTreeSet::new(), stuck };
    status::updates(&cluster, &wanted, &verdicts, removals, |_| vec![], &both, "a")
}

#[test]
fn what_is_anothers_is_taken_out_by_a_write_that_makes_nothing_larger_and_the_rest_follows() {
    for web in [taking, leaving] {
        for (host, kept) in [(None, json!({ "kube-vip.io/vipHost": null })), (Some("b"), json!({}))]
        {
            let mut web = web(host);
            let [update] = &written(&web, &BTreeSet::new())[..] else { panic!() };
            assert!(update.takes_out && update.notice.is_none());
            let patch = update.patch(Timestamp::UNIX_EPOCH);
            assert_eq!(patch["metadata"]["annotations"], kept, "no name of a node comes in");
            let rest = json!([
                { "ip": BOTH[1], "ipMode": "VIP", "ports": [{ "protocol": "TCP", "port": 80 }] },
            ]);
            assert_eq!(patch["status"], json!({ "loadBalancer": { "ingress": rest } }));
            web.published.remove(0);
            let [update] = &written(&web, &BTreeSet::new())[..] else { panic!() };
            let publication = update.publication.as_ref().unwrap();
            assert_eq!(publication.vip_host.as_deref(), Some("a"));
            assert_eq!(publication.ingress[0].ports.len(), 2);
            assert!(!update.takes_out && update.notice.is_some());
        }
    }
}

#[test]
fn where_even_that_is_not_taken_all_is_taken_out_and_of_nobody_else_anything() {
    let stuck = [name()].into();
    for web in [taking(Some("b")), leaving(Some("b"))] {
        let [update] = &written(&web, &stuck)[..] else { panic!() };
        let patch = update.patch(Timestamp::UNIX_EPOCH);
        assert_eq!(patch["metadata"]["annotations"], json!({ "kube-vip.io/vipHost": null }));
        assert_eq!(patch["status"], json!({ "loadBalancer": { "ingress": null } }));
        let good = Service { published: web.published[1..].to_vec(), ..web };
        let [update] = &written(&good, &stuck)[..] else { panic!() };
        assert_eq!(update.publication.as_ref().unwrap().ingress.len(), 1, "nothing is to go");
    }
}

#[test]
fn who_clears_where_nobody_decides_takes_all_out_where_less_is_not_taken() {
    let shared: &[(&str, u16)] = &[("uid", 81), ("other", 80)];
    let cluster = claimed(taking(Some("b")), &[(BOTH[0], shared), (BOTH[1], &[("uid", 80)])]);
    let wanted = seen(&cluster, &host(), Some("eth0"));
    let (clears, nobody) = ([name()].into(), Answering::default());
    for (stuck, count) in [(BTreeSet::new(), 1), ([name()].into(), 0)] {
        let verdicts = Verdicts::new();
        let removals = Removals { clears: &clears, stuck: &stuck };
        let updates =
            status::updates(&cluster, &wanted, &verdicts, removals, |_| vec![], &nobody, "a");
        let publication = updates[0].publication.as_ref().unwrap();
        assert_eq!(publication.ingress.len(), count);
        assert_eq!(publication.vip_host.is_some(), count == 1);
    }
}
