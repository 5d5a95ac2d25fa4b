//! What the machine's own kernel may lack, under one that has it. Needs root, QEMU, and the announcer's network tests,
//! which `e2e/test.sh` builds and names.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use berth_e2e::other_kernel::{Guest, Outcome};

/// What the network tests run.
const TOOLS: [&str; 5] = ["ip", "sysctl", "nft", "tcpdump", "ipvsadm"];

/// Runs one of the announcer's network tests there; gives what the console showed.
fn network_test(name: &str, modules: &[&str]) -> String {
    let program = std::env::var_os("BERTH_NETWORK_TESTS")
        .expect("BERTH_NETWORK_TESTS names the program of the announcer's network tests; e2e/test.sh sets it");
    let arguments = ["--test-threads=1", "--nocapture", "--exact", name];
    let guest = Guest::new(&PathBuf::from(program), &arguments).modules(modules).tools(&TOOLS);
    let Outcome { status, console } = guest.run(Duration::from_secs(300)).unwrap();
    let console = console.join("\n");
    // A name that no test has would be a success as well.
    assert!(status == 0 && console.contains("1 passed"), "{name}: status {status}:\n{console}");
    console
}

#[test]
fn where_the_kernel_has_8021q_vlans_are_made_for_services_and_removed() {
    let console = network_test(
        "vlan::a_vlan_is_made_for_services_and_removed_with_the_last_or_the_service_is_told",
        &["8021q", "veth", "nf_tables"],
    );
    assert!(console.contains("this kernel makes VLANs"), "{console}");
}

#[test]
fn where_the_kernel_has_8021q_a_vlan_interface_of_another_instance_stays() {
    let console = network_test(
        "vlan::a_vlan_interface_of_another_instance_stays_when_ones_own_is_swept",
        &["8021q", "veth", "nf_tables"],
    );
    assert!(console.contains("this kernel makes VLANs"), "{console}");
}

#[test]
fn where_the_kernel_has_8021q_a_vlan_that_is_there_is_used_by_whatever_name() {
    let console = network_test(
        "vlan::a_vlan_that_somebody_has_made_is_used_by_whatever_name_and_stays",
        &["8021q", "veth", "nf_tables"],
    );
    assert!(console.contains("this kernel makes VLANs"), "{console}");
}

#[test]
fn where_the_same_kernel_has_not_loaded_it_the_service_is_told() {
    let console = network_test(
        "vlan::a_vlan_is_made_for_services_and_removed_with_the_last_or_the_service_is_told",
        &["veth", "nf_tables"],
    );
    assert!(console.contains("this kernel makes no VLANs"), "{console}");
}

#[test]
fn where_the_kernel_has_ipvs_nothing_but_what_services_serve_answers_behind_an_address() {
    let of_nft = ["nf_tables", "nft_ct", "nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6"];
    let modules = [&["veth", "ip_vs", "ip_vs_rr"][..], &of_nft].concat();
    let test = "closed::behind_an_address_that_ipvs_serves_nothing_else_answers";
    let console = network_test(test, &modules);
    assert!(console.contains("this kernel has IPVS"), "{console}");
}

#[test]
fn a_guest_gives_the_status_of_its_program() {
    let shell = Guest::new("/bin/sh".as_ref(), &["-c", "echo \"it's $1\"; exit 7", "sh", "a  b"]);
    let Outcome { status, console } = shell.run(Duration::from_secs(120)).unwrap();
    assert_eq!(status, 7);
    assert!(console.iter().any(|line| line == "it's a  b"), "{console:?}");
}

#[test]
fn a_guest_that_does_not_end_in_time_is_an_error() {
    let sleeper = Guest::new("/bin/sleep".as_ref(), &["1000"]);
    let error = sleeper.run(Duration::from_secs(10)).unwrap_err();
    assert!(error.to_string().contains("has not ended"), "{error:#}");
}
