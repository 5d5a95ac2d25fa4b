//! `berth-ccm check` as a script sees it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

/// Runs the program on this text; what it ended with, said, and complained.
fn check(text: &str, more: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_berth-ccm"))
        .args(["check", "-"])
        .args(more)
        .env_remove("KUBEVIP_NAMESPACE")
        .env_remove("KUBEVIP_CONFIG_MAP")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    program.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
    let Output { status, stdout, stderr } = program.wait_with_output()?;
    Ok((status.code(), String::from_utf8(stdout)?, String::from_utf8(stderr)?))
}

const HEAD: &str = "kind: ConfigMap\nmetadata: { name: kubevip, namespace: kube-system }\ndata:\n";

#[test]
fn good_pools_end_with_0() -> Result<()> {
    let pools = format!("{HEAD}  cidr-global: 192.0.2.0/24\n");
    let table = "POOL    FAMILY  SIZE  FREE\nglobal  IPv4     256   254\n\nno problem found\n";
    let (code, said, complained) = check(&pools, &[])?;
    assert_eq!((code, complained.as_str()), (Some(0), ""));
    assert!(said.starts_with(&format!("{table}2 notes:\n")), "{said}");
    let closed = format!("{pools}  pins-global: pool\n  namespace-quota: \"20\"\n");
    let (code, said, complained) = check(&closed, &[])?;
    assert_eq!((code, said.as_str(), complained.as_str()), (Some(0), table, ""));
    Ok(())
}

#[test]
fn a_key_that_a_template_left_empty_is_noted() -> Result<()> {
    let empty = "  cidr-global: \"\"\n";
    let (code, said, _) = check(&format!("{HEAD}{empty}  range-global: 192.0.2.0/24\n"), &[])?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("key `cidr-global` is an empty list: it adds no address"), "{said}");
    let (code, said, _) = check(&format!("{HEAD}{empty}"), &[])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody gets an address"), "{said}");
    Ok(())
}

#[test]
fn problems_end_with_1_and_are_named() -> Result<()> {
    let (code, said, _) = check(&format!("{HEAD}  cidr-global: 192.0.2.9-192.0.2.1\n"), &[])?;
    assert_eq!(code, Some(1));
    for word in ["cidr-global", "192.0.2.9-192.0.2.1", "reversed", "accepted is"] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_looked_at_ends_with_2_and_says_why() -> Result<()> {
    let good = format!("{HEAD}  cidr-global: 192.0.2.0/24\n");
    let cases: [(&str, &[&str], &str); 3] = [
        ("kind: [", &[], "neither YAML nor JSON"),
        ("kind: Pod\nmetadata: { name: web }\n", &[], "Pod web"),
        (&good, &["--against=/nowhere/config"], "/nowhere/config"),
    ];
    for (text, more, word) in cases {
        let (code, said, complained) = check(text, more)?;
        assert_eq!((code, said.as_str()), (Some(2), ""), "{text}");
        assert!(complained.contains(word), "{word} is missing: {complained}");
    }
    Ok(())
}
