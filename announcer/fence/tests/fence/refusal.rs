//! A fence that cannot be had is refused with what to change, and the next one serves.

use crate::support::{Holder, Wire};

fn without(wire: &Wire, capabilities: &str) -> String {
    let bounding = format!("--bounding-set={capabilities}");
    let inheritable = format!("--inh-caps={capabilities}");
    Holder::start_by(&wire.node, "setpriv", &[&bounding, &inheritable], "bpf").greeting.clone()
}

#[test]
fn without_cap_bpf_the_capability_is_named() {
    let greeting = without(&Wire::lay(), "-bpf,-sys_admin");
    assert!(
        greeting.contains(
            "bpf fence: creating the map of slots needs the capabilities CAP_BPF and CAP_NET_ADMIN, \
             and the process has not got CAP_BPF"
        ),
        "{greeting}"
    );
    assert!(greeting.starts_with("nft-timeout "), "{greeting}");
}

#[test]
fn without_any_capability_nothing_holds_and_says_why() {
    let greeting = without(&Wire::lay(), "-bpf,-sys_admin,-net_admin");
    assert!(greeting.starts_with("unfenced "), "{greeting}");
    assert!(greeting.contains("has not got CAP_BPF, CAP_NET_ADMIN"), "{greeting}");
    assert!(greeting.contains("nft-timeout fence: "), "{greeting}");
}

#[test]
fn a_clock_that_is_not_the_kernels_is_noticed() {
    let wire = Wire::lay();
    let ahead =
        Holder::start_by(&wire.node, "unshare", &["--time", "--fork", "--boottime=3600"], "bpf");
    assert!(ahead.greeting.contains("bpf fence: the self-test failed"), "{}", ahead.greeting);
}
