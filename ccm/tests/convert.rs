//! `berth-ccm convert` as a script sees it.

mod program;

use std::process::Command;

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
    let last = said.lines().rev().nth(1);
    let patch = r#"{"metadata":{"annotations":{"kube-vip.io/loadbalancerIPs":"192.0.2.7"},"labels":{"implementation":"kube-vip"}}}"#;
    let command = format!("keep shop web '{patch}'");
    assert_eq!((said.lines().next(), last), (Some("#!/bin/sh"), Some(command.as_str())));
    Ok(())
}

#[test]
fn one_service_that_cannot_be_told_keeps_no_other_from_what_it_has() -> Result<()> {
    let service = |name: &str| {
        let (_, web) = POOL.rsplit_once("---").unwrap_or_default();
        format!("---{}", web.replace("name: web", &format!("name: {name}")))
    };
    let text = format!("{POOL}{}{}", service("a-full"), service("z-last"));
    let (code, script, _) = run(&[&CONVERT[..], &["--print=services"]].concat(), &text)?;
    assert_eq!(code, Some(0));
    // An API server that lets nothing be written into the first.
    let kubectl = "kubectl() { echo \"$2 ${10}\"; [ \"${10}\" != a-full ]; }\n";
    let shell =
        |script: &str| Command::new("sh").args(["-c", &format!("{kubectl}{script}")]).output();
    let output = shell(&script)?;
    assert_eq!(String::from_utf8(output.stdout)?, "shop a-full\nshop web\nshop z-last\n");
    let complained = String::from_utf8(output.stderr)?;
    assert_eq!(complained, "Service shop/a-full is not told to keep what it has\n");
    assert_eq!(output.status.code(), Some(1));
    let output = shell(&script.replace("a-full", "b"))?;
    assert!(output.status.success());
    Ok(())
}

#[test]
fn a_terminal_is_told_nothing_by_what_a_file_has() -> Result<()> {
    let config = r#"
---
apiVersion: v1
kind: ConfigMap
metadata: { name: config, namespace: metallb-system }
data: { config: "\"\\e]2;mine\\a\\nnote: all is well\": 1\naddress-pools: [{ name: x, \"\\e[2J\": 1, addresses: [192.0.2.0/32] }]" }
"#;
    let (code, _, complained) = run(&CONVERT, &format!("{POOL}{config}"))?;
    assert_eq!(code, Some(1));
    assert!(complained.contains("mine") && complained.contains("[2J"), "{complained}");
    let is_line = |line: &str| line.starts_with("lost: ") || line.starts_with("note: an address");
    assert!(complained.lines().all(is_line), "{complained}");
    assert!(!complained.replace('\n', "").contains(char::is_control), "{complained:?}");
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
