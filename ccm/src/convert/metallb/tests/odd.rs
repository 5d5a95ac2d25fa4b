//! Objects that MetalLB would not take, as a file may have them.

use super::super::ConvertError;
use super::*;

#[test]
fn what_is_of_another_kind_than_metallb_takes_is_told_and_opens_nothing() {
    let text = pool(
        "auto",
        "{ addresses: [192.0.2.0/28], autoAssign: 'false', avoidBuggyIPs: perhaps }",
    ) + &pool(
        "shop",
        "{ addresses: [192.0.2.32/28], serviceAllocation: { namespaces: shop } }",
    ) + &pool(
        "odd",
        "{ addresses: [5, 192.0.2.9-192.0.2.1, 192.0.2.1-2001:db8::1, 192.0.2.64/28] }",
    ) + &advertisement(
        "x",
        "{ ipAddressPools: shop, nodeSelectors: [{ matchExpressions: [{ key: a, operator: Near }] }] }",
    );
    let conversion = of(&text);
    let said = told(&conversion);
    for line in [
        "lost: IPAddressPool metallb-system/auto: `spec.autoAssign`: \"false\" is taken for false: accepted are true and false",
        "lost: IPAddressPool metallb-system/auto: `spec.avoidBuggyIPs`: \"perhaps\" is taken for true: accepted are true and false",
        "lost: IPAddressPool metallb-system/shop: `spec.serviceAllocation.namespaces`: \"shop\" is not read: accepted is a list",
        "lost: IPAddressPool metallb-system/odd: `spec.addresses`: \"5\" is none: accepted are a prefix, FIRST-LAST and an address",
        "lost: IPAddressPool metallb-system/odd: `spec.addresses`: \"192.0.2.9-192.0.2.1\" ends below its first address",
        "lost: L2Advertisement metallb-system/x: `spec.ipAddressPools`: \"shop\" is not read: accepted is a list",
    ] {
        assert!(said.iter().any(|said| said == line), "{line}\n{said:#?}");
    }
    assert!(tells(&conversion, Weight::Lost, "metallb-system/x", "spec.nodeSelectors"));
    assert_eq!(conversion.keys["cidr-global"], "192.0.2.64/28");
    assert_eq!(conversion.keys["pins-global"], "192.0.2.0/28");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: config }\ndata:\n  config: |\n    address-pools:\n\
        \x20   - { name: a, protocol: layer3, adresses: [192.0.2.0/28] }\n    - { name: b, protocol: layer2, addresses: [192.0.2.0/28] }\n";
    let conversion = of(map);
    for (field, says) in [
        ("protocol", "\"layer3\" is none: accepted are layer2 and bgp"),
        ("adresses", "it has no counterpart"),
    ] {
        let line =
            format!("lost: ConfigMap config, pool a: `data.config.address-pools.{field}`: {says}");
        assert!(told(&conversion).iter().any(|said| said.starts_with(&line)), "{line}");
    }
}

#[test]
fn a_field_that_nobody_knows_an_address_that_is_none_and_a_file_without_pools_are_named() {
    let spec = "{ addresses: [192.0.2.300/24, 192.0.2.0/28], shade: { of: blue } }";
    let conversion = of(&(pool("a", spec) + &advertisement("x", "{ colour: red }")));
    assert!(tells(&conversion, Weight::Lost, "metallb-system/a", "spec.shade"));
    assert!(tells(&conversion, Weight::Lost, "metallb-system/a", "spec.addresses"));
    assert!(tells(&conversion, Weight::Lost, "metallb-system/x", "spec.colour"));
    let object: Value = json!({ "kind": "Pod", "metadata": { "name": "web" } });
    let none =
        ConvertError::NoPool { home: HOME.to_owned(), others: "Pod web".to_owned(), elsewhere: 0 };
    assert_eq!(convert(&[&object], HOME), Err(none));
}
