use serde_json::json;

use super::*;

#[test]
fn a_service_is_read_with_its_addresses_each_once_and_its_status() {
    let object = serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "d", "uid": "u", "resourceVersion": "7",
            "annotations": {
                "kube-vip.io/loadbalancerIPs": "192.0.2.1, 192.0.2.1,2001:db8::1,nonsense!,0.0.0.0",
                "kube-vip.io/vipHost": "node-a",
            },
        },
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }],
        },
        "status": { "loadBalancer": { "ingress": [
            { "ip": "192.0.2.1", "ipMode": "VIP", "ports": [{ "port": 80, "protocol": "TCP" }] },
        ] } },
    }))
    .unwrap();
    let service = Service::read(&object, &ClassPolicy::default());
    assert!(service.ours && service.local);
    let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
    let texts = ["nonsense!"].into_iter().collect();
    assert_eq!(service.remarks[..], [Refusal::InvalidAddress { texts }]);
    assert_eq!(service.vip_host.as_deref(), Some("node-a"));
    assert_eq!(service.published, [Ingress::vip(service.addresses[0], &service.ports[..1])]);
}

#[test]
fn what_asks_for_dhcp_is_told_unless_it_has_an_address_of_that_family() {
    let markers = |list: &str| {
        let object: core::Service = serde_json::from_value(json!({
            "metadata": { "annotations": { "kube-vip.io/loadbalancerIPs": list } },
            "spec": { "type": "LoadBalancer" },
        }))
        .unwrap();
        let service = Service::read(&object, &ClassPolicy::default());
        service.remarks.iter().map(Refusal::reason).collect::<Vec<_>>()
    };
    for list in ["0.0.0.0", "::", "0.0.0.0,2001:db8::1", "::,192.0.2.1"] {
        assert_eq!(markers(list), ["DhcpNotServed"], "{list}");
    }
    assert!(markers("192.0.2.1").is_empty() && markers("0.0.0.0,192.0.2.1").is_empty());
}

#[test]
fn of_thousands_of_addresses_two_are_read_and_the_rest_is_counted() {
    let many: Vec<String> = (0..8000).map(|n| format!("2001:db8::{n:x}")).collect();
    let object: core::Service = serde_json::from_value(json!({
        "metadata": { "annotations": { "kube-vip.io/loadbalancerIPs": many.join(",") } },
        "spec": { "type": "LoadBalancer" },
    }))
    .unwrap();
    let service = Service::read(&object, &ClassPolicy::default());
    assert_eq!(service.addresses.len(), 2);
    assert_eq!(service.remarks[..], [Refusal::TooManyAddresses { count: 8000 }]);
}

/// Every text that a user can write, filled to what the API server takes.
#[test]
fn what_a_user_fills_with_a_quarter_of_a_megabyte_costs_a_remark_and_no_memory() {
    const FULL: usize = 261_900;
    let names = [
        annotation::PREFERRED_NODES,
        annotation::LOADBALANCER_IPS,
        annotation::SERVICE_INTERFACE,
        annotation::SERVICE_VLAN,
        annotation::LEASE_NAME,
        annotation::VIP_HOST,
        annotation::CONFLICT,
        "kube-vip.io/egress",
    ];
    for unit in ["a,", "!a,", "1::,", "a", "\n", "192.0.2.1=02:00:00:00:00:0a,"] {
        let text = unit.repeat(FULL / unit.len());
        for name in names {
            let object = json!({
                "metadata": { "annotations": { name: text } },
                "spec": { "type": "LoadBalancer", "loadBalancerIP": text },
            });
            let object = serde_json::from_value(object).unwrap();
            let service = Service::read(&object, &ClassPolicy::default());
            assert!(service.remarks.len() < 8, "{name} {unit}");
            let kept = format!("{service:?}").len();
            assert!(kept < 3_000, "{name} {unit}: {kept}");
            let notes = service.remarks.iter().map(Refusal::note);
            assert!(notes.clone().all(|note| note.len() < 1024), "{name} {unit}");
        }
    }
    let many: serde_json::Map<_, _> =
        (0..15_000).map(|n| (format!("{}{n}", annotation::KUBE_VIP), json!(""))).collect();
    let ports: Vec<_> = (1..30_000).map(|port| json!({ "port": port })).collect();
    let object = json!({
        "metadata": { "annotations": many }, "spec": { "type": "LoadBalancer", "ports": ports },
    });
    let service = Service::read(&serde_json::from_value(object).unwrap(), &ClassPolicy::default());
    let reasons: Vec<&str> = service.remarks.iter().map(Refusal::reason).collect();
    assert_eq!((reasons, service.ports.len()), (vec!["TooManyPorts", "NotSupported"], 1024));
}

#[test]
fn what_cannot_be_the_name_of_an_interface_or_a_lease_is_none() {
    let read = |name: &str, text: &str| {
        let object = json!({ "metadata": { "annotations": { name: text } } });
        Service::read(&serde_json::from_value(object).unwrap(), &ClassPolicy::default())
    };
    let interface = |text| read(annotation::SERVICE_INTERFACE, text).interface.unwrap();
    assert_eq!(interface("eth0"), Ok("eth0".to_owned()));
    assert_eq!(interface("sixteen-letters!"), Err(Quoted::of("sixteen-letters!")));
    assert_eq!(read(annotation::LEASE_NAME, "shared").lease.as_deref(), Some("shared"));
    let wrong = read(annotation::LEASE_NAME, "Not One");
    assert_eq!((wrong.lease, wrong.remarks[0].reason()), (None, "InvalidLease"));
}

#[test]
fn the_number_of_a_vlan_is_from_1_to_4094() {
    for text in ["0", "4095", "-1", "five", "5.0", "65541"] {
        assert_eq!(vlan(text), Err(Quoted::of(text)));
    }
    assert_eq!((vlan("1"), vlan("4094")), (Ok(1), Ok(4094)));
}

#[test]
fn what_the_ccm_refused_is_a_wish_and_not_announced() {
    let read = |labels: serde_json::Value, status: &str| {
        let object = json!({
            "metadata": {
                "name": "late", "namespace": "d", "labels": labels,
                "annotations": { "kube-vip.io/loadbalancerIPs": "192.0.2.1" },
            },
            "spec": { "type": "LoadBalancer" },
            "status": { "conditions": [{
                "type": "berth.dev/AddressAllocated", "status": status, "reason": "AddressInUse",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }] },
        });
        let object = serde_json::from_value(object).unwrap();
        Service::read(&object, &ClassPolicy::default()).addresses.len()
    };
    assert_eq!(read(json!({}), "False"), 0);
    assert_eq!(read(json!({}), "True"), 1);
    assert_eq!(read(json!({ "implementation": "kube-vip" }), "False"), 1, "it keeps what it has");
}

#[test]
fn a_service_that_is_being_deleted_is_not_ours_any_more() {
    let object = serde_json::from_value(json!({
        "metadata": { "name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "type": "LoadBalancer" },
    }))
    .unwrap();
    let read = Service::read(&object, &ClassPolicy::default());
    assert!(!read.ours && !read.foreign && read.ending);
}
