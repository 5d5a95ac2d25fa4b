//! Three announcers as they are shipped, on one LAN and with no API server anywhere: members, key and address come from
//! files and settings. Judged by a client on that LAN.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::lan::{Lan, TAKEOVER};
use crate::namespace::run;

/// Whatever a voter may have promised is over after so long: the longest lease, the drift of two clocks and the kernel's lateness.
const PROMISE: Duration = Duration::from_millis(510);

/// A pause that lets leases run out.
const LONG: Duration = Duration::from_millis(70);

impl Lan {
    /// With a list of members, and a key.
    fn listed() -> Self {
        let lan = Self::new();
        let list = "# name address\nnode-a 192.0.2.11\nnode-b 192.0.2.12\nnode-c 192.0.2.13\n";
        fs::write(lan.folder.join("members"), list).unwrap();
        fs::write(lan.folder.join("key"), "not a secret, only a test").unwrap();
        fs::set_permissions(lan.folder.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        lan
    }

    /// Starts a member that asks the LAN before it takes the address.
    fn start(&mut self, number: usize) {
        self.start_with(number, "members", "key", true);
    }

    /// The same with another list, or another key, or one that asks nobody.
    fn start_with(&mut self, number: usize, list: &str, key: &str, asks: bool) {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let settings = [
            ("berth_members", file(list)),
            ("berth_key_file", file(key)),
            ("vip_skipdad", (!asks).to_string()),
        ];
        self.spawn(number, &settings);
    }
}

#[test]
fn without_a_cluster_one_of_three_answers_and_another_when_it_dies() {
    let mut lan = Lan::listed();
    (0..3).for_each(|number| lan.start(number));
    let first = lan.settle();
    for (number, member) in lan.members.iter().enumerate() {
        let log = fs::read_to_string(&member.log).unwrap();
        let told = "a fixed list of members, whose view never changes";
        assert!(log.contains(told) && log.contains("node-a, node-b, node-c"), "{log}");
        assert_eq!(lan.has_bound(number), number == first, "{}", lan.logs());
    }

    // The owner dies with its link, in the middle of its lease.
    let died = Instant::now();
    lan.kill(first);
    run(&format!("ip -n {} link set eth0 down", lan.members[first].namespace));
    let mac = lan.members[first].mac.clone();
    let taken = lan.until("another answers", |answers| {
        let other = answers.iter().find(|answer| answer.at > died && answer.mac != mac);
        other.map(|answer| answer.at)
    });
    let (took, pause) = (taken.duration_since(died), lan.ears.pause(died));
    println!("taken over after {took:.0?}; the machine stood still for {pause:.0?} at most");
    assert!(took < TAKEOVER + pause, "{took:?}, pause {pause:?}\n{}", lan.logs());
    let second = lan.settle();

    // It comes back, and takes nothing away.
    run(&format!("ip -n {} link set eth0 up", lan.members[first].namespace));
    lan.start(first);
    lan.until("a majority answers it", |_| lan.is_ready(first).then_some(()));
    assert_eq!((lan.settle(), lan.has_bound(first)), (second, false), "{}", lan.logs());

    // Who is told to stop hands over and leaves nothing.
    let process = lan.members[second].process.as_mut().unwrap();
    let pid = nix::unistd::Pid::from_raw(process.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success(), "{}", lan.logs());
    assert!(!lan.has_bound(second), "{}", lan.logs());
    let third = lan.settle();
    assert_ne!(third, second);
    // Whatever it would have taken away, until then or now, is in what was heard from the beginning.
    let owners: Vec<usize> = lan.ears.owners().iter().map(|run| lan.owner(&run.0)).collect();
    if lan.ears.pause(died) < LONG {
        assert_eq!(owners, [first, second, third], "{}", lan.logs());
    }
}

#[test]
fn members_that_come_back_keep_what_they_promised_before() {
    let mut lan = Lan::listed();
    // The promise alone is to hold them back, and not that they hear the owner answer.
    let start = |lan: &mut Lan, number| lan.start_with(number, "members", "key", false);
    (0..3).for_each(|number| start(&mut lan, number));
    let owner = lan.settle();
    // It still has a lease from the others, hears nothing of them, and they forget that they gave it.
    let others: Vec<usize> = (0..3).filter(|number| *number != owner).collect();
    let inside = format!("nsenter --net=/run/netns/{} nft", lan.members[owner].namespace);
    run(&format!("{inside} add table inet cut"));
    for hook in ["input", "output"] {
        run(&format!(
            "{inside} add chain inet cut {hook} {{ type filter hook {hook} priority 0 ; }}"
        ));
    }
    others.iter().for_each(|number| lan.kill(*number));
    for hook in ["input", "output"] {
        run(&format!("{inside} add rule inet cut {hook} udp dport 2113 drop"));
    }
    let forgot = Instant::now();
    others.iter().for_each(|number| start(&mut lan, *number));
    let mac = lan.members[owner].mac.clone();
    let taken = lan.until("another answers", |answers| {
        let other = answers.iter().find(|answer| answer.at > forgot && answer.mac != mac);
        other.map(|answer| answer.at)
    });
    let after = taken.duration_since(forgot);
    println!("granted anew after {after:.0?}");
    assert!(after >= PROMISE, "{after:?}\n{}", lan.logs());
    lan.settle();
    let owners = lan.ears.owners();
    let last = owners.iter().filter(|run| run.0 == mac).map(|run| run.2).max().unwrap();
    assert!(last < taken, "{owners:?}\n{}", lan.logs());
    // A member that no majority answers says so.
    assert_ne!(lan.settle(), owner);
}

#[test]
fn a_node_with_another_list_gets_nothing_and_everybody_says_why() {
    let mut lan = Lan::listed();
    let other = "node-a 192.0.2.11\nnode-d 192.0.2.14\nnode-c 192.0.2.13\n";
    fs::write(lan.folder.join("other"), other).unwrap();
    lan.start(0);
    lan.start_with(2, "other", "key", true);
    // It and the first would be a majority of either list.
    let told = |lan: &Lan, number: usize, node: &str| {
        let log = fs::read_to_string(&lan.members[number].log).unwrap();
        let told = |line: &str| line.contains("another list of members") && line.contains(node);
        log.lines().any(told).then_some(())
    };
    lan.until("the first says why", |_| told(&lan, 0, "node-c"));
    lan.until("the other says why", |_| told(&lan, 2, "node-a"));
    assert!(lan.ears.answers().is_empty(), "{}", lan.logs());
    lan.start(1);
    assert_ne!(lan.settle(), 2);
    assert!(!lan.has_bound(2), "{}", lan.logs());
}

#[test]
fn a_member_with_another_key_is_told_of_on_both_sides_and_readiness_says_so() {
    let mut lan = Lan::listed();
    fs::write(lan.folder.join("other"), "not that secret, another one").unwrap();
    fs::set_permissions(lan.folder.join("other"), fs::Permissions::from_mode(0o600)).unwrap();
    lan.start(0);
    let says = |lan: &Lan, why: &str| lan.readiness(0).contains(why).then_some(());
    lan.until("it is alone", |_| says(&lan, "heard of no other member"));
    lan.start_with(2, "members", "other", true);
    let told = |lan: &Lan, number: usize, from: &str| {
        let log = fs::read_to_string(&lan.members[number].log).unwrap();
        let why = format!("what {from} sends is not authentic: another key");
        (log.matches(&why).count() == 1 && log.contains("WARN")).then_some(())
    };
    lan.until("the first says why", |_| told(&lan, 0, "192.0.2.13"));
    lan.until("the other says why", |_| told(&lan, 2, "192.0.2.11"));
    lan.until("readiness says why", |_| says(&lan, "what 192.0.2.13 sends is not authentic"));
}
