//! What tenants write into the file gives them nothing that MetalLB has not given them.

use super::*;

#[test]
fn a_key_lets_nobody_of_another_namespace_in_whom_metallb_has_not() {
    let key = json!({ "metallb.io/allow-shared-ip": "dns" });
    let victims = first()
        + &service("a/tcp", key.clone(), json!({}), &["192.168.10.53"])
        + &service("a/udp", key.clone(), json!({}), &["192.168.10.53"]);
    let own = keys([("allow-share-a", "true")]);
    let sharing = |text: &str| {
        let all = of(text);
        let keys = all.keys.clone().into_iter().filter(|(key, _)| key.contains("share"));
        (keys.collect::<BTreeMap<_, _>>(), all)
    };
    let asks = json!({ "metallb.io/allow-shared-ip": "dns", "metallb.io/loadBalancerIPs": "192.168.10.53" });
    for (annotations, shown) in [
        (&key, &[][..]),
        (&key, &["192.168.10.99"][..]),
        (&asks, &[][..]),
        (&asks, &["203.0.113.53"][..]),
    ] {
        let theirs = service("mallory/in", annotations.clone(), json!({}), shown);
        let (said, all) = sharing(&(victims.clone() + &theirs));
        assert_eq!(said, own, "{annotations} {shown:?}");
        assert!(tells(&all, Weight::Lost, "mallory/in", "allow-shared-ip"), "{:?}", told(&all));
    }
    // The keys of a namespace of this name would be those of all.
    let many = ["x", "y"]
        .map(|name| service(&format!("global/{name}"), key.clone(), json!({}), &["192.168.10.53"]));
    let (said, all) = sharing(&(victims + &many.concat()));
    assert_eq!(said, own);
    assert!(tells(&all, Weight::Lost, "global/x", "allow-shared-ip"), "{:?}", told(&all));
}

#[test]
fn what_stands_in_other_namespaces_than_metallbs_makes_no_pool() {
    let config = "data: { config: 'address-pools: [{ name: x, protocol: layer2, addresses: [8.8.8.8/32] }]' }";
    let object = |version: &str, kind: &str, rest: &str| {
        format!(
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{ name: config, namespace: mallory }}\n{rest}\n"
        )
    };
    let metallb = "metallb.io/v1beta1";
    let theirs = [
        object("v1", "ConfigMap", config),
        object(metallb, "IPAddressPool", "spec: { addresses: [8.8.8.8/32] }"),
        object(metallb, "AddressPool", "spec: { protocol: layer2, addresses: [8.8.8.8/32] }"),
        object(metallb, "L2Advertisement", "spec: { interfaces: [eth9] }"),
        object(metallb, "BGPAdvertisement", "spec: { ipAddressPools: [first-pool] }"),
    ];
    let (alone, beside) = (of(&first()), of(&(first() + &theirs.concat())));
    assert_eq!(beside.keys, alone.keys);
    for kind in ["IPAddressPool", "AddressPool", "L2Advertisement", "BGPAdvertisement"] {
        let name = format!("{kind} mallory/config");
        assert!(tells(&beside, Weight::Lost, &name, "metadata.namespace"), "{:?}", told(&beside));
    }
    // Whoever runs it there says so.
    let objects = Objects::read(&theirs.concat()).unwrap();
    let objects: Vec<&Value> = objects.all().collect();
    let none = convert(&objects, HOME).unwrap_err().to_string();
    assert!(
        none.contains("namespace metallb-system, but") && none.contains("; 5 of them"),
        "{none}"
    );
    assert!(convert(&objects, "mallory").is_ok());
}
