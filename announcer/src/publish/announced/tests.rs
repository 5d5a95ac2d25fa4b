use berth_api::Few;

use super::*;
use crate::source::cluster::testing::service;

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What is shown, and since when.
fn shown(status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: condition::ANNOUNCED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// A Service with these addresses that says so.
fn web(addresses: &[&str], says: Option<Condition>) -> Service {
    let mut web = service(addresses);
    web.conditions.extend(says);
    web
}

/// What a node says that announces these and answers for these, where this is refused.
fn told(
    web: &Service,
    voice: Voice,
    (announce, live): (&[&str], &[&str]),
    refusals: &[Refusal],
) -> Option<Value> {
    let announce = announce.iter().map(|text| address(text)).collect();
    let verdict = Verdict { announce, voice, ..Verdict::default() };
    said(web, &verdict, live, refusals)
}

fn said(web: &Service, verdict: &Verdict, live: &[&str], lasting: &[Refusal]) -> Option<Value> {
    let live = live.iter().map(|text| address(text)).collect();
    let lasting: Vec<&Refusal> = lasting.iter().collect();
    word(web, verdict, &lasting, &live).map(|word| word.patch(Timestamp::MAX))
}

const NOTHING: (&[&str], &[&str]) = (&[], &[]);

#[test]
fn what_was_never_wrong_is_not_said_to_be_right_and_what_was_is_once() {
    let all: (&[&str], &[&str]) = (&BOTH, &BOTH);
    assert_eq!(told(&web(&BOTH, None), Voice::Decides, all, &[]), None);
    for reason in ["NoEndpoint", "NoAnnouncer"] {
        let silent = web(&BOTH, Some(shown("False", reason, "")));
        let word = told(&silent, Voice::Decides, all, &[]).unwrap();
        assert_eq!((&word["status"], &word["reason"]), (&json!("True"), &json!("Announced")));
        assert_eq!(told(&silent, Voice::Bystander, all, &[]), None);
        let coming: (&[&str], &[&str]) = (&BOTH, &BOTH[..1]);
        assert_eq!(told(&silent, Voice::Decides, coming, &[]), None, "not all of it answers");
        let again = web(&BOTH, serde_json::from_value(word).unwrap());
        assert_eq!(told(&again, Voice::Decides, all, &[]), None);
    }
}

#[test]
fn of_several_causes_the_first_is_the_reason_and_the_message_has_all_and_the_address() {
    let refused = address(BOTH[1]);
    let (node, none) = (|| "a".to_owned(), Few::default);
    let not_granted =
        Refusal::NotGranted { node: node(), had: false, unheard: none(), could: none() };
    let causes = [
        not_granted,
        Refusal::NotBound { node: node(), address: refused, error: "no memory".to_owned() },
        Refusal::TooManyPorts { count: 2_000 },
    ];
    let half: (&[&str], &[&str]) = (&BOTH[..1], &BOTH[..1]);
    let word = told(&web(&BOTH, None), Voice::Decides, half, &causes).unwrap();
    assert_eq!((&word["status"], &word["reason"]), (&json!("False"), &json!("NotBound")));
    let message = word["message"].as_str().unwrap();
    let both = "2001:db8::1 is not announced by node a: no memory; it is tried again; 2001:db8::1: NotGranted: not announced: no majority";
    assert!(message.starts_with(both), "{message}");
    assert!(!message.contains("2000 ports"), "that is a remark: {message}");
    let said = web(&BOTH, Some(shown("False", "NotBound", message)));
    assert_eq!(told(&said, Voice::Decides, half, &causes), None, "it says so");
    let other = told(&said, Voice::Decides, half, &causes[..1]).unwrap();
    let since = json!(Time(Timestamp::UNIX_EPOCH));
    assert_eq!((&other["reason"], &other["lastTransitionTime"]), (&json!("NotGranted"), &since));
    assert_eq!(told(&web(&BOTH, None), Voice::Decides, half, &causes[2..]), None);
}

#[test]
fn of_two_addresses_that_are_silent_for_different_reasons_the_message_has_both_and_which_is_which()
{
    let told = |causes: [(usize, Refusal); 2]| {
        let mut verdict = Verdict::default();
        causes.into_iter().for_each(|(at, why)| verdict.refuse_at(address(BOTH[at]), why));
        let lasting = verdict.refusals.clone();
        let word = said(&web(&BOTH, None), &verdict, &[], &lasting).unwrap();
        let [reason, message] =
            ["reason", "message"].map(|part| word[part].as_str().unwrap().to_owned());
        (reason, message)
    };
    let nobody = || {
        let (node, few) = ("a".to_owned(), Few::default);
        Refusal::NotGranted { node, had: false, unheard: few(), could: few() }
    };
    for (one, other) in [(0, 1), (1, 0)] {
        let (reason, message) = told([(one, nobody()), (other, Refusal::NoEndpoint)]);
        assert_eq!(reason, "NoEndpoint", "where its traffic could go stands first");
        let first = format!("{}: {}; ", BOTH[other], Refusal::NoEndpoint.note());
        let second = format!("{}: NotGranted: {}", BOTH[one], nobody().note());
        assert_eq!(message, first + &second);
    }
    let (reason, message) = told([(0, nobody()), (1, nobody())]);
    assert_eq!((reason.as_str(), message), ("NotGranted", nobody().note()), "one of both");
}

#[test]
fn where_nobody_decides_only_what_nobody_has_said_is_said() {
    let causes = [Refusal::NoEndpoint];
    let of = |says: Option<Condition>| {
        told(&web(&BOTH, says), Voice::Bystander, NOTHING, &causes).is_some()
    };
    assert!(of(None) && of(Some(shown("True", "Announced", ""))));
    assert!(of(Some(shown("False", "Unannounced", ""))), "that nobody has said anything");
    for reason in ["NoEndpoint", "NotGranted", "NoAnnouncer"] {
        assert!(!of(Some(shown("False", reason, ""))), "{reason}");
    }
}

#[test]
fn of_what_was_given_no_address_nothing_is_said_and_the_word_of_berth_ccm_is_its_own() {
    let nothing = |web: &Service| told(web, Voice::Decides, NOTHING, &[]);
    assert_eq!(nothing(&web(&[], None)), None);
    let told_before = web(&[], Some(shown("False", "NoEndpoint", "")));
    let gone = json!({ "type": "berth.dev/Announced", "$patch": "delete" });
    assert_eq!(nothing(&told_before), Some(gone.clone()));
    let other_type = Service { ours: false, ..web(&BOTH, Some(shown("True", "Announced", ""))) };
    assert_eq!(nothing(&other_type), Some(gone));
    assert_eq!(nothing(&web(&[], Some(shown("False", "Unannounced", "")))), None);
}

#[test]
fn an_address_that_dhcp_is_to_find_is_one_that_is_not_answered_for() {
    let marker = address("0.0.0.0");
    let causes = [Refusal::DhcpNotServed { marker }];
    let dhcp = |addresses: &[&str]| Service {
        remarks: causes.clone().into(),
        ..web(addresses, Some(shown("False", "Unannounced", "")))
    };
    let word = told(&dhcp(&[]), Voice::Decides, NOTHING, &causes).unwrap();
    assert_eq!(word["reason"], "DhcpNotServed");
    let other: (&[&str], &[&str]) = (&BOTH[1..], &BOTH[1..]);
    let word = told(&dhcp(&BOTH[1..]), Voice::Decides, other, &causes).unwrap();
    assert_eq!(word["reason"], "DhcpNotServed", "though it has an address of the other family");
}

#[test]
fn where_several_announce_at_once_nobody_denies_what_another_does_and_all_tell_of_endpoints() {
    let shared = Some([address(BOTH[0]), address(BOTH[1])].into());
    let no_session = || Refusal::NoSession { node: "a".to_owned(), why: "refused".to_owned() };
    let of = |web: &Service, voice, live: &[&str], refusal: Refusal| {
        let announce = BOTH.iter().map(|text| address(text)).collect();
        let verdict = Verdict { announce, voice, shared: shared.clone(), ..Verdict::default() };
        said(web, &verdict, live, &[refusal]).map(|word| word["reason"].clone())
    };
    let mut both = web(&BOTH, None);
    both.published =
        BOTH.map(|text| crate::source::cluster::Ingress::vip(address(text), &[])).into();
    both.vip_host = Some("b".to_owned());
    assert_eq!(of(&both, Voice::Decides, &BOTH[..1], no_session()), None, "b has a session for it");
    both.published.truncate(1);
    let silent = Some(json!("NoBgpSession"));
    assert_eq!(of(&both, Voice::Decides, &BOTH[..1], no_session()), silent);
    both.vip_host = None;
    assert_eq!(of(&both, Voice::Bystander, &[], no_session()), silent, "nobody announces it");
    let told = |reason| web(&BOTH, Some(shown("False", reason, "")));
    assert_eq!(of(&told("NoEndpoint"), Voice::Bystander, &[], no_session()), silent);
    let nothing_there = of(&told("NoBgpSession"), Voice::Bystander, &[], Refusal::NoEndpoint);
    assert_eq!(nothing_there, Some(json!("NoEndpoint")));
    assert_eq!(of(&told("AddressOnHost"), Voice::Bystander, &[], no_session()), None);
}
