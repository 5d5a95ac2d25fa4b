//! A fence that cannot be had is refused with what to change, and the next one serves.

use crate::support::{Holder, NODE4, VIP4, Wire, boottime, until};

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

/// What kube-vip's own manifests grant.
#[test]
fn with_net_admin_and_net_raw_alone_the_nft_fence_holds() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    let only = ["--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all,+net_admin,+net_raw"];
    let mut holder = Holder::start_by(&wire.node, "setpriv", &only, "bpf");
    let capabilities = holder.proc("status");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(capabilities.contains(&format!("{set}:\t0000000000003000\n")), "{capabilities}");
    }
    assert!(holder.greeting.starts_with("nft-timeout "), "{}", holder.greeting);
    for command in [&format!("cover {VIP4}"), "attach eth0", "settle"] {
        holder.ok(command);
    }
    let witness = wire.witness();
    witness.ask(&[VIP4, NODE4]);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "not armed");
    holder.ok(&format!("keep 500 50 {VIP4}"));
    witness.hears(VIP4);
    holder.kill();
    let end = boottime() + 500_000_000;
    until("the grant has ended", || boottime() > end);
    witness.silence(VIP4, NODE4, 100);
    assert!(witness.last(VIP4).unwrap() < end, "an answer after its grant");
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
