//! `berth-ccm convert` as a script sees it.

mod program;

use anyhow::Result;
use program::run;

const CONVERT: [&str; 3] = ["convert", "metallb", "-"];

const POOL: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: { name: lan, namespace: metallb-system }
spec: { addresses: [192.0.2.0/24] }
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: { name: lan, namespace: metallb-system }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { type: LoadBalancer }
status: { loadBalancer: { ingress: [{ ip: 192.0.2.7 }] } }
";

#[test]
fn the_pools_are_a_configmap_that_check_accepts() -> Result<()> {
    let (code, pools, complained) = run(&CONVERT, POOL)?;
    assert_eq!((code, complained.as_str()), (Some(0), ""));
    assert!(pools.contains("name: kubevip") && pools.contains("namespace: kube-system"), "{pools}");
    let (code, said, complained) = run(&["check", "-"], &pools)?;
    assert_eq!((code, complained.as_str()), (Some(0), ""), "{said}");
    assert!(said.starts_with("POOL    FAMILY  SIZE  FREE\nglobal  IPv4     256   256\n"), "{said}");
    Ok(())
}

#[test]
fn services_are_commands_of_a_shell() -> Result<()> {
    let (code, said, _) = run(&[&CONVERT[..], &["--print=services"]].concat(), POOL)?;
    assert_eq!(code, Some(0));
    let last = said.lines().last();
    let patch = r#"{"metadata":{"annotations":{"kube-vip.io/loadbalancerIPs":"192.0.2.7"},"labels":{"implementation":"kube-vip"}}}"#;
    let command =
        format!("kubectl --namespace shop patch service web --type merge --patch '{patch}'");
    assert_eq!((said.lines().next(), last), (Some("#!/bin/sh"), Some(command.as_str())));
    Ok(())
}

#[test]
fn what_is_lost_is_named_and_ends_with_1_and_nothing_to_convert_with_2() -> Result<()> {
    let lossy = POOL.replace("addresses:", "shade: blue, addresses:");
    let (code, said, complained) = run(&CONVERT, &lossy)?;
    let lost = "lost: IPAddressPool metallb-system/lan: `spec.shade`: it has no counterpart; it is \"blue\"\n";
    assert_eq!((code, complained.as_str()), (Some(1), lost));
    assert!(said.contains("cidr-global"), "{said}");
    for (text, word) in
        [("kind: [", "neither YAML nor JSON"), ("kind: Pod\n", "no pool of MetalLB")]
    {
        let (code, said, complained) = run(&CONVERT, text)?;
        assert_eq!((code, said.as_str()), (Some(2), ""), "{text}");
        assert!(complained.contains(word), "{complained}");
    }
    Ok(())
}
