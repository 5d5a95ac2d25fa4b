//! What becomes of tracked connections, and of what a process of before has left.

use std::collections::BTreeSet;

use berth_announcer::dataplane::eip::{Stage, sweep};
use berth_announcer::instance::Instance;

use super::{Translator, nat, ours, policy, prepare, set};
use crate::namespace::{alone, attempt, door, run};

/// The tracked connections, by the address that the first packet went to.
fn tracked() -> BTreeSet<String> {
    let text = String::from_utf8(attempt("conntrack -L -p tcp").stdout).unwrap();
    let destination =
        |line: &str| line.split(' ').find_map(|word| word.strip_prefix("dst=")).map(str::to_owned);
    text.lines().filter_map(destination).collect()
}

fn track(source: &str, destination: &str, reply_source: &str, reply_destination: &str) {
    run(&format!(
        "conntrack -I -p tcp -s {source} -d {destination} -r {reply_source} -q {reply_destination} --sport 1000 --dport \
         80 --reply-port-src 80 --reply-port-dst 1000 --timeout 600 --state ESTABLISHED"
    ));
}

#[test]
fn connections_of_a_released_address_are_forgotten_and_those_of_others_are_not() {
    alone(async || {
        let (eip, vmi) = ("192.0.2.1", "10.244.0.4");
        // Linux tracks nothing in a namespace where no rule asks for it.
        run("iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP");
        let mut translator = Translator::start();
        translator.make(&nat(&[(eip, vmi), ("192.0.2.9", "10.244.0.9")])).await;
        track("203.0.113.1", eip, vmi, "203.0.113.1");
        track(vmi, "203.0.113.2", "203.0.113.2", eip);
        track("203.0.113.3", "192.0.2.9", "10.244.0.9", "203.0.113.3");
        track(vmi, "10.244.0.77", "10.244.0.77", vmi);
        assert_eq!(tracked().len(), 4);
        let mut drained = nat(&[(eip, vmi), ("192.0.2.9", "10.244.0.9")]);
        drained.pairs.get_mut(&eip.parse().unwrap()).unwrap().stage = Stage::Draining;
        translator.make(&drained).await;
        assert_eq!(tracked().len(), 4, "connections survive while it drains");
        translator.make(&nat(&[("192.0.2.9", "10.244.0.9")])).await;
        assert_eq!(tracked(), ["192.0.2.9", "10.244.0.77"].map(str::to_owned).into());
        translator.stop().await;
    });
}

#[test]
fn what_a_machine_began_before_it_had_its_address_is_not_left_untranslated() {
    alone(async || {
        run("iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP");
        let vmi = "10.244.0.4";
        track(vmi, "203.0.113.1", "203.0.113.1", "192.0.2.250");
        track(vmi, "10.96.0.1", "10.0.0.11", vmi);
        let mut translator = Translator::start();
        translator.make(&nat(&[("192.0.2.1", vmi)])).await;
        assert_eq!(tracked(), ["10.96.0.1".to_owned()].into(), "a Service's goes on");
        translator.stop().await;
        // A new process finds its rules in place, and lets their connections be.
        track("203.0.113.2", "192.0.2.1", vmi, "203.0.113.2");
        let mut translator = Translator::start();
        translator.make(&nat(&[("192.0.2.1", vmi)])).await;
        assert_eq!(tracked(), ["10.96.0.1", "192.0.2.1"].map(str::to_owned).into());
        translator.stop().await;
        sweep(&door(), &Instance::services()).await.unwrap();
        assert_eq!(run("ipset list -name"), "");
        assert_eq!(ours("", "nft"), "");
    });
}

/// The ancestor kept what it had done in a file on the node, and believed it.
#[test]
fn a_new_process_believes_the_kernel_and_no_file() {
    alone(async || {
        prepare("nft");
        let (one, two) = (("192.0.2.1", "10.244.0.4"), ("192.0.2.10", "10.244.0.48"));
        let mut translator = Translator::start();
        translator.make(&nat(&[one, two])).await;
        translator.stop().await;
        // While no process of ours runs, a binding goes and somebody takes a rule of another away.
        run("iptables-nft -t nat -F KUBE-EIP-PREROUTING");
        let mut translator = Translator::start();
        translator.make(&nat(&[one])).await;
        let rules = ours("", "nft");
        assert!(rules.contains("-d 192.0.2.1/32 -j DNAT --to-destination 10.244.0.4\n"), "{rules}");
        assert!(!rules.contains("10.244.0.48") && !rules.contains("192.0.2.10"), "{rules}");
        assert_eq!(set("kube-eip-eip"), ["192.0.2.1".to_owned()].into());
        assert_eq!(policy("-4"), ["10.244.0.4"]);
        translator.stop().await;
    });
}
