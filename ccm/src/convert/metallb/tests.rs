//! MetalLB's objects as people have them, and what becomes of them.

mod odd;
mod tenants;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Conversion, convert};
use crate::check::review::review;
use crate::convert::finding::Weight;
use crate::objects::Objects;

/// Where MetalLB runs.
const HOME: &str = "metallb-system";

fn of(text: &str) -> Conversion {
    let objects = Objects::read(text).unwrap();
    let objects: Vec<&Value> = objects.all().collect();
    let conversion = convert(&objects, HOME).unwrap();
    // In another order it is the same, and what is printed is accepted.
    let turned: Vec<&Value> = objects.into_iter().rev().collect();
    assert_eq!(convert(&turned, HOME).unwrap(), conversion);
    let review = review(&conversion.keys, None);
    let is_bad = |text: &String| text.contains("not accepted") || text.contains("means nothing");
    let bad: Vec<String> = review.problems().map(ToString::to_string).filter(is_bad).collect();
    assert_eq!(bad, Vec::<String>::new());
    conversion
}

fn keys<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn told(conversion: &Conversion) -> Vec<String> {
    conversion.findings.iter().map(ToString::to_string).collect()
}

/// Whether this is told, in this weight, of a field whose path ends so.
fn tells(conversion: &Conversion, weight: Weight, object: &str, field: &str) -> bool {
    conversion.findings.iter().any(|found| {
        found.weight == weight && found.object.ends_with(object) && found.field.ends_with(field)
    })
}

fn pool(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{ name: {name}, namespace: metallb-system }}\nspec: {spec}\n"
    )
}

fn advertisement(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{ name: {name}, namespace: metallb-system }}\nspec: {spec}\n"
    )
}

fn service(name: &str, annotations: Value, more: Value, shown: &[&str]) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let ingress: Vec<Value> = shown.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
    let mut spec = json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4"] });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": namespace, "name": name, "annotations": annotations },
        "spec": spec,
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    format!("---\n{object}\n")
}

/// The tutorial's pool and advertisement.
fn first() -> String {
    let spec =
        "{ addresses: [192.168.10.0/24, 192.168.9.1-192.168.9.5, 'fc00:f853:0ccd:e799::/124'] }";
    pool("first-pool", spec) + &advertisement("example", "{ ipAddressPools: [first-pool] }")
}

#[test]
fn a_pool_of_prefixes_and_ranges_of_both_families_is_the_global_one() {
    let conversion = of(&first());
    let expected = keys([
        ("avoid-buggy-ips", "false"),
        ("cidr-global", "192.168.10.0/24,fc00:f853:0ccd:e799::/124"),
        ("pins-global", "pool"),
        ("range-global", "192.168.9.1-192.168.9.5"),
    ]);
    assert_eq!((conversion.keys.clone(), told(&conversion)), (expected, Vec::new()));
}

#[test]
fn spaces_in_a_range_are_no_part_of_it() {
    let spec = "{ addresses: [' 192.0.2.1 - 192.0.2.9 ', 2001:db8::1-2001:db8::9] }";
    let conversion = of(&(pool("a", spec) + &advertisement("all", "{}")));
    assert_eq!(conversion.keys["range-global"], "192.0.2.1-192.0.2.9,2001:db8::1-2001:db8::9");
}

#[test]
fn what_is_not_given_by_itself_may_be_asked_for_and_nothing_else_outside_the_pools() {
    let text = pool("auto", "{ addresses: [192.0.2.0/28] }")
        + &pool("gold", "{ addresses: [192.0.2.64/28], autoAssign: false }")
        + &pool(
            "shop-only",
            "{ addresses: [192.0.2.128/28], autoAssign: false, serviceAllocation: { namespaces: [shop] } }",
        )
        + &advertisement("all", "{}");
    let conversion = of(&text);
    let expected = keys([
        ("avoid-buggy-ips", "false"),
        ("cidr-global", "192.0.2.0/28"),
        ("pins-global", "192.0.2.64/28"),
        ("pins-shop", "192.0.2.128/28,192.0.2.64/28"),
    ]);
    assert_eq!((conversion.keys.clone(), told(&conversion)), (expected, Vec::new()));
}

#[test]
fn pools_for_namespaces_are_theirs_and_the_global_one_is_what_they_have_then() {
    let namespaces = "---\napiVersion: v1\nkind: Namespace\nmetadata: { name: team-a, labels: { foo: bar } }\n\
        ---\napiVersion: v1\nkind: Namespace\nmetadata: { name: team-b, labels: { foo: baz } }\n";
    let allocation = "{ priority: 50, namespaces: [shop], namespaceSelectors: [{ matchLabels: { foo: bar } }], \
        serviceSelectors: [] }";
    let text = pool("of-all", "{ addresses: [192.0.2.0/28] }")
        + &pool(
            "theirs",
            &format!("{{ addresses: [198.51.100.0/28], serviceAllocation: {allocation} }}"),
        )
        + &advertisement("all", "{}")
        + namespaces;
    let conversion = of(&text);
    let expected = keys([
        ("avoid-buggy-ips", "false"),
        ("cidr-global", "192.0.2.0/28"),
        ("cidr-shop", "198.51.100.0/28"),
        ("cidr-team-a", "198.51.100.0/28"),
        ("overflow-shop", "global"),
        ("overflow-team-a", "global"),
        ("pins-global", "pool"),
    ]);
    assert_eq!(conversion.keys, expected);
    let theirs = "IPAddressPool metallb-system/theirs";
    assert!(tells(&conversion, Weight::Lost, theirs, "serviceAllocation.priority"));
    assert!(tells(&conversion, Weight::Note, theirs, "namespaceSelectors"));
    assert!(tells(&conversion, Weight::Note, theirs, "serviceAllocation.namespaces"));
    // Without the Namespaces nobody knows whom a selector means.
    let conversion = of(&text.replace("kind: Namespace", "kind: Pod"));
    assert!(tells(&conversion, Weight::Lost, theirs, "namespaceSelectors"));
    assert!(tells(&conversion, Weight::Note, "objects of other kinds", ""));
}

#[test]
fn addresses_for_services_with_a_label_are_for_who_asks_for_them() {
    let allocation =
        "{ serviceSelectors: [{ matchExpressions: [{ key: app, operator: In, values: [web] }] }] }";
    let text = pool("auto", "{ addresses: [192.0.2.0/28] }")
        + &pool(
            "web",
            &format!("{{ addresses: [192.0.2.64/28], serviceAllocation: {allocation} }}"),
        )
        + &advertisement("all", "{}");
    let conversion = of(&text);
    assert_eq!(conversion.keys["pins-global"], "192.0.2.64/28");
    assert_eq!(conversion.keys["cidr-global"], "192.0.2.0/28");
    assert!(tells(&conversion, Weight::Lost, "metallb-system/web", "serviceSelectors"));
}

#[test]
fn addresses_that_end_in_0_and_255_are_avoided_where_a_pool_does_so() {
    let all = advertisement("all", "{}");
    let avoiding = pool("a", "{ addresses: [192.0.2.0/24], avoidBuggyIPs: true }");
    let conversion = of(&(avoiding.clone() + &all));
    assert_eq!(conversion.keys["avoid-buggy-ips"], "true");
    assert_eq!(told(&conversion), Vec::<String>::new());
    let has = |range: &str| {
        let text = avoiding.clone() + &pool("b", &format!("{{ addresses: ['{range}'] }}")) + &all;
        let conversion = of(&text);
        assert_eq!(conversion.keys["avoid-buggy-ips"], "true");
        tells(&conversion, Weight::Lost, "metallb-system/b", "avoidBuggyIPs")
    };
    for range in ["198.51.100.0/24", "198.51.100.255/32", "198.51.99.7-198.51.100.0"] {
        assert!(has(range), "{range}");
    }
    for range in ["198.51.100.1-198.51.100.254", "2001:db8::/64", "198.51.100.64/28"] {
        assert!(!has(range), "{range}");
    }
}

#[test]
fn one_interface_is_written_and_several_are_told() {
    let one = of(&(pool("a", "{ addresses: [192.0.2.0/28] }")
        + &advertisement("x", "{ interfaces: [eth1] }")));
    assert_eq!(one.keys["interface-global"], "eth1");
    assert!(tells(&one, Weight::ToDo, "L2Advertisement metallb-system/x", "spec.interfaces"));
    let two = of(&(pool("a", "{ addresses: [192.0.2.0/28] }")
        + &advertisement("x", "{ interfaces: [eth1, eth2] }")));
    assert!(!two.keys.contains_key("interface-global"));
    assert!(tells(&two, Weight::Lost, "metallb-system/x", "spec.interfaces"));
    let any = of(&(pool("a", "{ addresses: [192.0.2.0/28] }")
        + &advertisement("x", "{ interfaces: [eth1] }")
        + &advertisement("y", "{}")));
    assert!(!any.keys.contains_key("interface-global"));
    assert!(tells(&any, Weight::Note, "metallb-system/x", "spec.interfaces"));
    let mixed = of(&(pool("a", "{ addresses: [192.0.2.0/28] }")
        + &pool("b", "{ addresses: [192.0.2.64/28] }")
        + &advertisement("x", "{ ipAddressPools: [a], interfaces: [eth1] }")
        + &advertisement("y", "{ ipAddressPools: [b] }")));
    assert!(!mixed.keys.contains_key("interface-global"));
    assert!(tells(&mixed, Weight::Lost, "metallb-system/a", "its advertisement"));
}

#[test]
fn services_keep_what_they_have_and_prefer_the_nodes_of_their_pool() {
    let nodes = "{ ipAddressPoolSelectors: [{ matchLabels: { zone: east } }], interfaces: [eth1], nodeSelectors: \
        [{ matchLabels: { kubernetes.io/hostname: b } }, { matchExpressions: \
        [{ key: kubernetes.io/hostname, operator: In, values: [a, c] }] }] }";
    let text = pool("east", "{ addresses: [192.0.2.0/28, 2001:db8::/124] }")
        .replace("namespace: metallb-system", "namespace: metallb-system, labels: { zone: east }")
        + &advertisement("x", nodes)
        + &service(
            "shop/web",
            json!({ "metallb.universe.tf/ip-allocated-from-pool": "east" }),
            json!({ "ipFamilies": ["IPv6", "IPv4"] }),
            &["192.0.2.3", "2001:db8::3"],
        );
    let conversion = of(&text);
    let body = json!({ "metadata": {
        "annotations": {
            "kube-vip.io/loadbalancerIPs": "2001:db8::3,192.0.2.3",
            "kube-vip.io/serviceInterface": "eth1",
            "berth.dev/preferred-nodes":
                "kubernetes.io/hostname=a,kubernetes.io/hostname=b,kubernetes.io/hostname=c",
        },
        "labels": { "implementation": "kube-vip" },
    } });
    let patches: Vec<_> = conversion.patches.iter().map(|p| (p.name.as_str(), p.body())).collect();
    assert_eq!(patches, [("web", body)]);
    assert!(tells(&conversion, Weight::Lost, "metallb-system/x", "spec.nodeSelectors"));
}

#[test]
fn each_way_to_ask_for_an_address_is_taken_over_or_told() {
    let ask = |name: &str, value: &str| json!({ name: value });
    let text = first()
        + &service("a/today", ask("metallb.io/loadBalancerIPs", "192.168.10.7"), json!({}), &[])
        + &service(
            "a/before",
            ask("metallb.universe.tf/loadBalancerIPs", "192.168.10.8, fc00:f853:0ccd:e799::8"),
            json!({}),
            &[],
        )
        + &service("a/field", json!({}), json!({ "loadBalancerIP": "192.168.10.9" }), &[])
        + &service("a/bad", ask("metallb.io/loadBalancerIPs", "192.168.10.x"), json!({}), &[])
        + &service("a/elsewhere", ask("metallb.io/loadBalancerIPs", "203.0.113.7"), json!({}), &[])
        + &service("a/by-pool", ask("metallb.io/address-pool", "first-pool"), json!({}), &[])
        + &service(
            "a/has-by-pool",
            ask("metallb.universe.tf/address-pool", "first-pool"),
            json!({}),
            &["192.168.10.5"],
        )
        + &service("a/new", ask("metallb.io/unheard-of", "1"), json!({}), &["192.168.10.6"])
        + &service(
            "a/moves",
            ask("metallb.io/loadBalancerIPs", "192.168.10.11"),
            json!({}),
            &["192.168.10.12"],
        );
    let conversion = of(&text);
    let patches: Vec<_> = conversion
        .patches
        .iter()
        .map(|patch| {
            let asked = patch.annotations["kube-vip.io/loadbalancerIPs"].as_str();
            (patch.name.as_str(), asked, patch.has_them)
        })
        .collect();
    let expected = [
        ("before", "192.168.10.8,fc00:f853:ccd:e799::8", false),
        ("elsewhere", "203.0.113.7", false),
        ("has-by-pool", "192.168.10.5", true),
        ("moves", "192.168.10.12", true),
        ("new", "192.168.10.6", true),
        ("today", "192.168.10.7", false),
    ];
    assert_eq!(patches, expected);
    for (service, field) in [
        ("a/bad", "metallb.io/loadBalancerIPs"),
        ("a/by-pool", "metallb.io/address-pool"),
        ("a/has-by-pool", "metallb.universe.tf/address-pool"),
        ("a/new", "metallb.io/unheard-of"),
    ] {
        assert!(tells(&conversion, Weight::Lost, service, field), "{:?}", told(&conversion));
    }
    assert!(tells(&conversion, Weight::Note, "a/moves", "metallb.io/loadBalancerIPs"));
    assert!(tells(&conversion, Weight::Note, "a/elsewhere", ""));
}

#[test]
fn who_shares_an_address_by_a_key_goes_on_by_namespaces() {
    let key = |value: &str| json!({ "metallb.universe.tf/allow-shared-ip": value });
    let text = first()
        + &service("a/tcp", key("dns"), json!({}), &["192.168.10.53"])
        + &service("a/udp", key("dns"), json!({}), &["192.168.10.53"])
        + &service("b/web", key("both"), json!({}), &["192.168.10.80"])
        + &service("c/web", key("both"), json!({}), &["192.168.10.80"])
        + &service("d/alone", key("nobody"), json!({}), &["192.168.10.81"]);
    let conversion = of(&text);
    let sharing = |key: &&String| key.contains("share");
    let said: Vec<_> = conversion.keys.keys().filter(sharing).map(String::as_str).collect();
    assert_eq!(
        said,
        ["allow-share-a", "allow-share-b", "allow-share-c", "share-with-b", "share-with-c"]
    );
    assert_eq!(conversion.keys["share-with-b"], "c");
    for service in ["a/tcp", "a/udp", "b/web", "c/web", "d/alone"] {
        assert!(tells(&conversion, Weight::Note, service, "allow-shared-ip"), "{service}");
    }
}

#[test]
fn what_is_announced_by_bgp_is_a_pool_as_any_and_what_is_bgps_is_named() {
    let bgp = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: metallb.io/v1beta2\nkind: {kind}\nmetadata: {{ name: {name}, namespace: metallb-system }}\nspec: {spec}\n"
        )
    };
    let text = pool("lan", "{ addresses: [192.0.2.0/28] }")
        + &pool("routed", "{ addresses: [203.0.113.0/28] }")
        + &pool("nowhere", "{ addresses: [198.51.100.0/28] }")
        + &advertisement("x", "{ ipAddressPools: [lan] }")
        + &bgp("BGPAdvertisement", "routes", "{ ipAddressPools: [routed, lan], localPref: 100 }")
        + &bgp("BGPPeer", "router", "{ myASN: 64500, peerASN: 64501, peerAddress: 192.0.2.1 }")
        + &bgp("BFDProfile", "fast", "{}")
        + &bgp("ServiceL2Status", "l2-x", "{}")
        + &service("a/routed", json!({}), json!({}), &["203.0.113.7"]);
    let conversion = of(&text);
    assert_eq!(conversion.keys["cidr-global"], "192.0.2.0/28,198.51.100.0/28,203.0.113.0/28");
    let [patch] = &conversion.patches[..] else { panic!("{:?}", conversion.patches) };
    assert_eq!(patch.name, "routed", "it keeps its address");
    for (weight, object) in [
        (Weight::ToDo, "IPAddressPool metallb-system/routed"),
        (Weight::ToDo, "IPAddressPool metallb-system/lan"),
        (Weight::ToDo, "BGPAdvertisement metallb-system/routes"),
        (Weight::ToDo, "BGPPeer metallb-system/router"),
        (Weight::Lost, "BFDProfile metallb-system/fast"),
    ] {
        assert!(tells(&conversion, weight, object, ""), "{object}: {:?}", told(&conversion));
    }
    assert!(tells(&conversion, Weight::Note, "metallb-system/nowhere", ""));
    assert!(!told(&conversion).iter().any(|told| told.contains("l2-x")));
}

#[test]
fn services_of_others_are_left_alone_and_a_class_is_told() {
    let text = first()
        + &service(
            "a/classed",
            json!({}),
            json!({ "loadBalancerClass": "metallb.io/lan" }),
            &["192.168.10.7"],
        )
        + &service("a/cloud", json!({}), json!({ "loadBalancerClass": "aws" }), &["203.0.113.8"])
        + &service(
            "a/says-so",
            json!({ "metallb.io/address-pool": "first-pool" }),
            json!({ "loadBalancerClass": "mallory.example/class" }),
            &[],
        )
        + &service("a/other", json!({}), json!({}), &["203.0.113.9"])
        + &service("a/cluster", json!({}), json!({ "type": "ClusterIP" }), &[]);
    let conversion = of(&text);
    let patched: Vec<_> = conversion.patches.iter().map(|patch| patch.name.as_str()).collect();
    assert_eq!(patched, ["classed"]);
    assert!(tells(&conversion, Weight::ToDo, "a/classed", "spec.loadBalancerClass"));
    assert!(tells(&conversion, Weight::Note, "a/cloud", "spec.loadBalancerClass"));
    assert!(tells(&conversion, Weight::Note, "a/says-so", "spec.loadBalancerClass"));
    assert!(tells(&conversion, Weight::Note, "a/other", "status.loadBalancer.ingress"));
}

#[test]
fn an_address_pool_and_the_configmap_of_before_are_pools_too() {
    let old = "apiVersion: metallb.io/v1beta1\nkind: AddressPool\nmetadata: { name: old, namespace: metallb-system }\n\
        spec: { protocol: layer2, addresses: [192.0.2.0/28], autoAssign: false }\n";
    let conversion = of(old);
    assert_eq!(conversion.keys["pins-global"], "192.0.2.0/28");
    assert_eq!(told(&conversion), Vec::<String>::new());
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: config, namespace: metallb-system }\ndata:\n  config: |\n\
        \x20   peers: [{ peer-address: 10.0.0.1 }]\n    address-pools:\n    - name: default\n      protocol: layer2\n\
        \x20     addresses: [198.19.255.240/28]\n      avoid-buggy-ips: true\n    - name: routed\n      protocol: bgp\n\
        \x20     addresses: [203.0.113.0/28]\n      bgp-advertisements: [{ aggregation-length: 32 }]\n";
    let conversion = of(map);
    let expected = keys([
        ("avoid-buggy-ips", "true"),
        ("cidr-global", "198.19.255.240/28,203.0.113.0/28"),
        ("pins-global", "pool"),
    ]);
    assert_eq!(conversion.keys, expected);
    assert!(tells(&conversion, Weight::ToDo, "metallb-system/config", "data.config.peers"));
    let field = "data.config.address-pools.bgp-advertisements";
    assert!(tells(
        &conversion,
        Weight::ToDo,
        "ConfigMap metallb-system/config, pool routed",
        field
    ));
}
