//! The program in this kernel, beside a few lines of Rust that say what it should do, on frames of every kind.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::program::{DROP, PASS};
use super::*;

const COVERED: [&str; 4] = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
const FOREIGN: [&str; 4] = ["192.0.2.3", "0.0.0.0", "2001:db8::3", "::"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the program should say, as the law reads.
fn verdict(frame: &[u8], mute: &BTreeMap<IpAddr, bool>) -> i32 {
    let is_mute = |address: Option<IpAddr>| {
        address.and_then(|address| mute.get(&address).copied()).unwrap_or(false)
    };
    let v4 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
    let ethertype = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (kind, body) = match ethertype(12) {
        Some(0x8100 | 0x88a8) => (ethertype(16), 18),
        kind => (kind, 14),
    };
    let claims = match kind {
        Some(0x0806) => is_mute(v4(body + 14)),
        Some(0x86dd) if frame.get(body + 6) == Some(&58) => match frame.get(body + 40) {
            // Without a target it is no advertisement.
            Some(136) => {
                v6(body + 48).is_some() && (is_mute(v6(body + 48)) || is_mute(v6(body + 8)))
            }
            Some(135) => is_mute(v6(body + 8)),
            _ => false,
        },
        _ => false,
    };
    if claims { DROP } else { PASS }
}

fn any_address(v6: bool) -> impl Strategy<Value = Vec<u8>> {
    let known = COVERED
        .iter()
        .chain(&FOREIGN)
        .copied()
        .map(address)
        .filter(move |address| address.is_ipv6() == v6);
    let known: Vec<Vec<u8>> = known
        .map(|address| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        })
        .collect();
    prop::sample::select(known)
}

fn any_tag() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(vec![]),
        1 => Just(vec![0x81, 0x00, 0x00, 0x05]),
        1 => Just(vec![0x88, 0xa8, 0x00, 0x05]),
        1 => Just(vec![0x81, 0x00, 0x00, 0x05, 0x81, 0x00, 0x00, 0x06]),
    ]
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let arp =
        (any_address(false), any_address(false), 0u8..4).prop_map(|(sender, target, operation)| {
            let fixed = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1];
            [&fixed[..], &sender, &[0; 6], &target].concat()
        });
    let next = prop::sample::select(vec![58u8, 58, 58, 6, 17, 0]);
    let kind = prop::sample::select(vec![136u8, 136, 135, 134, 128]);
    let icmp6 = (any_address(true), any_address(true), any_address(true), next, kind).prop_map(
        |(source, destination, target, next, kind)| {
            let fixed = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, next, 255];
            [&fixed[..], &source, &destination, &[kind, 0, 0, 0, 0x60, 0, 0, 0], &target].concat()
        },
    );
    let noise = prop::collection::vec(any::<u8>(), 2..80);
    let rest = prop_oneof![3 => arp, 4 => icmp6, 1 => noise];
    // Cut anywhere, but for what a test run insists on: a byte behind the Ethernet header, and a whole IP header.
    (any_tag(), rest, 0usize..200).prop_map(|(tag, rest, cut)| {
        let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &tag, &rest].concat();
        if cut < 120 {
            frame.truncate(cut.max(15));
        }
        let least = match frame.get(12..14) {
            Some([0x08, 0x00]) => 34,
            Some([0x86, 0xdd]) => 54,
            _ => 15,
        };
        frame.resize(frame.len().max(least), 0);
        frame
    })
}

fn fence(addresses: &[&str]) -> BpfFence {
    let mut fence =
        BpfFence::open(16, &Instance::services()).expect("these tests need root and BPF");
    fence.cover(&addresses.iter().copied().map(address).collect()).unwrap();
    fence.settle();
    fence
}

#[test]
fn the_program_drops_what_the_law_says_and_nothing_else() {
    let fence = RefCell::new(fence(&COVERED));
    let strategy = (any_frame(), prop::collection::vec(any::<bool>(), COVERED.len()));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..Default::default()
    });
    let dropped = RefCell::new(0u32);
    let outcome = runner.run(&strategy, |(frame, live)| {
        let mut fence = fence.borrow_mut();
        let mut mute = BTreeMap::new();
        for (text, live) in COVERED.iter().zip(live) {
            let deadline = if live { BootTime::from_nanos(u64::MAX) } else { BootTime::now() };
            fence.arm(address(text), deadline).unwrap();
            mute.insert(address(text), !live);
        }
        let (said, _) = fence.program.test_run(&frame, 1).unwrap();
        *dropped.borrow_mut() += u32::from(said == DROP);
        prop_assert_eq!(said, verdict(&frame, &mute));
        Ok(())
    });
    outcome.unwrap();
    assert!(
        *dropped.borrow() > 1000,
        "only {} frames were dropped: the frames prove little",
        dropped.borrow()
    );
}

#[test]
fn an_address_that_is_no_longer_covered_passes_and_a_new_one_is_mute() {
    let mut fence = fence(&["192.0.2.1"]);
    fence.arm(address("192.0.2.1"), BootTime::from_nanos(u64::MAX)).unwrap();
    fence.cover(&BTreeSet::from([address("192.0.2.2")])).unwrap();
    let says =
        |fence: &BpfFence, sender| fence.program.test_run(&probe::arp_reply(sender), 1).unwrap().0;
    assert_eq!(says(&fence, [192, 0, 2, 1]), PASS);
    assert_eq!(says(&fence, [192, 0, 2, 2]), DROP);
    let refused = fence.arm(address("192.0.2.1"), BootTime::PAST);
    assert_eq!(refused, Err(ArmError::NotCovered { address: address("192.0.2.1") }));
}

#[test]
fn of_addresses_beyond_the_capacity_those_are_covered_that_were_and_as_many_more_as_fit() {
    let mut fence = fence(&COVERED);
    let covered = COVERED.iter().map(|text| address(text));
    let more = (0..17 - u8::try_from(COVERED.len()).unwrap()).map(|number| [198, 51, 100, number]);
    let many: BTreeSet<IpAddr> = covered.clone().chain(more.map(IpAddr::from)).collect();
    let error = fence.cover(&many).unwrap_err();
    assert_eq!(error.to_string(), "17 addresses are 1 more than the fence holds (16)");
    assert!(covered.into_iter().all(|address| fence.covers(&address)));
    assert_eq!(many.iter().filter(|address| fence.covers(address)).count(), 16);
}

#[test]
fn nothing_is_armed_before_the_fence_is_settled() {
    let mut fence =
        BpfFence::open(16, &Instance::services()).expect("these tests need root and BPF");
    let vip = address("192.0.2.1");
    fence.cover(&BTreeSet::from([vip])).unwrap();
    assert_eq!(
        fence.arm(vip, BootTime::from_nanos(u64::MAX)),
        Err(ArmError::Unsettled { address: vip })
    );
    assert_eq!(fence.program.test_run(&probe::arp_reply([192, 0, 2, 1]), 1).unwrap().0, DROP);
}

#[test]
fn a_program_at_the_tcx_hook_is_reported() {
    let inside = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let link = ["link", "add", "eth0", "type", "veth", "peer", "name", "lan0"];
        assert!(std::process::Command::new("ip").args(link).status().unwrap().success());
        let mut fence = fence(&COVERED);
        assert!(fence.attach(&BTreeSet::from(["eth0".to_owned()])).is_empty());
        assert_eq!(fence.inspection()(), []);
        let index = tc::links(&mut fence.rtnetlink).unwrap()["eth0"].index;
        let foreign = BpfFence::open(16, &Instance::services()).unwrap();
        let _attached = sys::attach_tcx(&foreign.program, index, sys::Tcx::Egress)
            .expect("tcx is in Linux 6.6 and later");
        let preceded =
            Finding::Preceded { interface: "eth0".into(), by: "tcx (programs: 1)".into() };
        assert_eq!(fence.inspection()(), [preceded]);
        let eth0 = BTreeSet::from(["eth0".to_owned()]);
        assert_eq!(before_netfilter(&eth0).unwrap(), [], "what leaves has passed netfilter");
    });
    inside.join().unwrap();
}

#[test]
fn whatever_gets_at_packets_before_netfilter_is_found_at_the_interface_that_is_asked_about() {
    let inside = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let run = |command: &str| {
            let mut words = command.split(' ');
            let status = std::process::Command::new(words.next().unwrap()).args(words).status();
            assert!(status.unwrap().success(), "{command}");
        };
        run("ip link add eth0 type veth peer name lan0");
        let found = |name: &str| before_netfilter(&BTreeSet::from([name.to_owned()])).unwrap();
        assert_eq!((found("eth0"), found("gone0")), (vec![], vec![]));
        run("tc qdisc add dev eth0 clsact");
        assert_eq!(found("eth0"), [], "no program");
        let mut rtnetlink = Rtnetlink::open().unwrap();
        let index = tc::links(&mut rtnetlink).unwrap()["eth0"].index;
        let foreign = BpfFence::open(16, &Instance::services()).unwrap();
        rtnetlink.put_at_ingress(index, "cil_from_netdev", foreign.program.as_fd()).unwrap();
        let filter = r#"filter "cil_from_netdev" (bpf, priority 1)"#.to_owned();
        assert_eq!(found("eth0"), [("eth0".to_owned(), filter)]);
        run("tc qdisc del dev eth0 clsact");
        let attached = sys::attach_tcx(&foreign.program, index, sys::Tcx::Ingress);
        let attached = attached.expect("tcx is in Linux 6.6 and later");
        assert_eq!(found("eth0"), [("eth0".to_owned(), "tcx (programs: 1)".to_owned())]);
        assert_eq!(found("lan0"), []);
        drop(attached);
        assert_eq!(found("eth0"), []);
    });
    inside.join().unwrap();
}

#[test]
fn a_frame_costs_less_than_a_microsecond() {
    let mut fence = fence(&COVERED);
    fence.arm(address("192.0.2.1"), BootTime::from_nanos(u64::MAX)).unwrap();
    let ip4 = [&[2; 12][..], &[0x08, 0x00], &[0x45; 60]].concat();
    let ip6 = [&[2; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64], &[1; 60]].concat();
    let live = probe::arp_reply([192, 0, 2, 1]);
    let mute = probe::arp_reply([192, 0, 2, 2]);
    let foreign = probe::arp_reply([192, 0, 2, 3]);
    for (what, frame) in [
        ("IPv4", ip4),
        ("IPv6", ip6),
        ("ARP, live", live),
        ("ARP, mute", mute),
        ("ARP, foreign", foreign),
    ] {
        let (_, nanos) = fence.program.test_run(&frame, 1_000_000).unwrap();
        println!("{what}: {nanos} ns");
        assert!(nanos < 1000, "{what}: {nanos} ns");
    }
}
