use super::*;
use crate::dataplane::eip::{Pair, Stage};
use crate::kernel::{Binding, Host, Interface, Lifetime};
use crate::source::cluster::Cluster;
use crate::source::cluster::testing::eip;
use crate::source::testing::scene;
use crate::vip::Claimant;

const EIP: &str = "192.0.2.1";
const VMI: &str = "10.244.0.4";

struct Case {
    eip: Eip,
    bound: bool,
    live: bool,
    broken: Option<&'static str>,
    taken: Option<&'static str>,
    lost: BTreeMap<(Name, IpAddr), Refusal>,
    late: bool,
    unheard: Option<&'static [&'static str]>,
}

fn decide(case: &Case) -> Vec<Apply> {
    let mut cluster = Cluster::default();
    cluster.apply_eip(Name::new("d", "vm"), case.eip.clone());
    let eth0 = Interface { index: 2, mac: Some([2; 6]), up: true, foreign: [].into() };
    let mut host = Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() };
    let address: IpAddr = EIP.parse().unwrap();
    if case.bound {
        host.ours.insert(Binding { index: 2, address }, Lifetime::Forever);
    }
    let live = [address].into_iter().filter(|_| case.live).collect();
    let answering = Answering { live, ..Answering::default() };
    let pair = Pair { vmi: VMI.parse().unwrap(), stage: Stage::Held };
    let translated = Nat { pairs: [(address, pair)].into(), ..Nat::default() };
    let scene = scene(&cluster, &host, Some("eth0"));
    let (answering, translated) = (&answering, &translated);
    let (refused, lost, node) = (&BTreeMap::new(), &case.lost, || "a".to_owned());
    let conflict = |text: &str| {
        let address = text.parse().unwrap();
        let interface = "eth0".to_owned();
        (address, Refusal::AddressConflict { address, mac: [9; 6], node: node(), interface })
    };
    let taken = &case.taken.map(conflict).into_iter().collect();
    let (broken, awaits) = (case.broken, None);
    let unheard = case.unheard.map(|names| names.iter().copied().collect());
    let outlook = Outlook { answering, translated, broken, lost, taken, refused, awaits, unheard };
    applies(scene, &outlook, |_| case.late, Timestamp::UNIX_EPOCH)
}

fn named() -> Case {
    let eip = eip("a", &[(EIP, VMI)]);
    let lost = BTreeMap::new();
    let unheard = None;
    Case { eip, bound: true, live: true, broken: None, taken: None, lost, late: false, unheard }
}

#[test]
fn a_node_says_that_it_holds_once_all_is_so_and_never_again() {
    let mut case = named();
    case.live = false;
    assert_eq!(decide(&case), [], "on its way");
    case.live = true;
    let [apply] = &decide(&case)[..] else { panic!() };
    assert_eq!(apply.object()["status"]["holder"], json!({ "node": "a", "epoch": 7 }));
    let decided_on = json!({
        "namespace": "d", "name": "vm", "uid": case.eip.uid, "resourceVersion": case.eip.version,
    });
    assert_eq!(apply.object()["metadata"], decided_on);
    let conditions = apply.object()["status"]["conditions"].clone();
    assert_eq!(conditions[0]["type"], "Bound");
    assert_eq!(conditions[1]["status"], "True");
    (case.eip.holder, case.eip.conditions) = (apply.holder.clone(), apply.conditions.clone());
    assert_eq!(decide(&case), []);
    case.eip.epoch = 8;
    assert_eq!(decide(&case)[0].holder.as_ref().unwrap().epoch, 8);
}

#[test]
fn a_node_that_let_go_takes_back_what_it_said_after_the_address_is_off() {
    let mut case = named();
    case.eip.node = Some("b".to_owned());
    case.live = false;
    assert_eq!(decide(&case), [], "it wrote nothing");
    case.eip.signed = true;
    assert_eq!(decide(&case), [], "it is bound");
    case.bound = false;
    let [apply] = &decide(&case)[..] else { panic!() };
    assert_eq!(apply.object().get("status"), None, "an empty one is signed");
    case.eip.node = None;
    assert_eq!(decide(&case).len(), 1);
}

#[test]
fn a_node_that_is_on_its_way_for_too_long_says_why_also_where_it_held_the_address() {
    let mut case = named();
    let held = decide(&case).remove(0);
    case.live = false;
    for conditions in [Vec::new(), held.conditions] {
        case.eip.conditions = conditions;
        case.late = false;
        assert_eq!(decide(&case), []);
        case.late = true;
        let [apply] = &decide(&case)[..] else { panic!() };
        assert!(apply.conditions.iter().all(|c| c.status == "False" && c.reason == "NotGranted"));
        assert_eq!(apply.holder, None);
        assert!(!apply.conditions[0].message.contains("which these voters"));
    }
}

#[test]
fn where_no_majority_answers_who_does_not_is_named_whether_or_not_it_was_translated() {
    let (mut case, names) = (named(), &["node-b", "node-c"][..]);
    (case.live, case.late, case.unheard) = (false, true, Some(names));
    for pairs in [&[(EIP, VMI)][..], &[(EIP, VMI), ("192.0.2.2", VMI)]] {
        case.eip = eip("a", pairs);
        let told = decide(&case).remove(0).conditions.remove(0);
        let who = r#"which these voters do not: "node-b", "node-c","#;
        assert!(told.reason == "NotGranted" && told.message.contains(who), "{told:?}");
    }
    case.unheard = None;
    assert_eq!(decide(&case)[0].conditions[0].reason, "NotTranslated", "that is so besides");
}

#[test]
fn an_address_that_a_service_had_first_is_told() {
    let mut case = named();
    (case.live, case.bound) = (false, false);
    let (address, by) = (EIP.parse().unwrap(), Claimant::Service(Name::new("d", "web")));
    let refusal = Refusal::AddressInUse { address, by };
    case.lost.insert((Name::new("d", "vm"), address), refusal);
    let [apply] = &decide(&case)[..] else { panic!() };
    let condition = &apply.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "AddressInUse"));
    assert!(condition.message.contains("service/d/web"), "{}", condition.message);
}

#[test]
fn an_address_that_another_host_has_is_told_once_for_people_and_for_programs() {
    let mut case = named();
    (case.live, case.bound, case.taken) = (false, false, Some(EIP));
    let [apply] = &decide(&case)[..] else { panic!() };
    let status = &apply.object()["status"];
    assert_eq!(status["conflicts"], json!([{ "eip": EIP, "mac": "09:09:09:09:09:09" }]));
    assert_eq!(status["conditions"][0]["reason"], "AddressConflict");
    assert_eq!((apply.holder.as_ref(), apply.news.len()), (None, 1));
    (case.eip.conditions, case.eip.conflicts) = (apply.conditions.clone(), apply.conflicts.clone());
    assert_eq!(decide(&case), []);
    (case.live, case.bound, case.taken) = (true, true, None);
    let [apply] = &decide(&case)[..] else { panic!() };
    assert_eq!(apply.object()["status"].get("conflicts"), None, "that host is gone");
    assert!(apply.holder.is_some() && apply.news.is_empty());
}

#[test]
fn who_answers_for_one_address_while_another_host_has_the_other_stays_the_holder_that_it_was() {
    const OTHER: &str = "192.0.2.2";
    let mut case = named();
    case.taken = Some(OTHER);
    case.eip = eip("a", &[(EIP, VMI), (OTHER, VMI)]);
    assert_eq!(decide(&case)[0].holder, None, "it has carried nothing out yet");
    case.eip.holder = Some(EipHolder { node: "a".to_owned(), epoch: 6 });
    assert_eq!(decide(&case)[0].holder, case.eip.holder);
    case.live = false;
    assert_eq!(decide(&case)[0].holder, None);
}

#[test]
fn a_node_that_cannot_translate_says_so_and_keeps_the_time_of_the_change() {
    let mut case = named();
    (case.live, case.bound, case.broken) = (false, false, Some("no iptables"));
    let [apply] = &decide(&case)[..] else { panic!() };
    assert_eq!(apply.holder, None);
    assert!(apply.conditions.iter().all(|c| c.status == "False" && c.reason == "NotTranslated"));
    case.eip.conditions = apply.conditions.clone();
    case.eip.conditions[0].last_transition_time = Time(Timestamp::MAX);
    assert_eq!(decide(&case), []);
}
