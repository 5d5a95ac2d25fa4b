//! What is said of whether a Service is announced.

use super::*;
use crate::publish::status;

const ONE: [&str; 1] = ["192.0.2.1"];

fn said(reason: &str) -> Condition {
    Condition {
        type_: condition::ANNOUNCED.to_owned(),
        status: "False".to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// What node `a` writes, where this has lasted.
fn written(
    web: &Service,
    verdicts: &Verdicts,
    answering: &Answering,
    lasts: &Refusal,
) -> Option<Update> {
    let cluster = cluster(web.clone());
    let wanted = seen(&cluster, &host(), Some("eth0"));
    let removals = Removals { clears: &BTreeSet::new(), stuck: &BTreeSet::new() };
    let lasting = |_: &Name| vec![lasts];
    let mut updates =
        status::updates(&cluster, &wanted, verdicts, removals, lasting, answering, "a");
    assert!(updates.len() < 2, "{updates:?}");
    updates.pop()
}

fn told(web: Service, verdicts: &Verdicts, answering: &Answering) -> Option<Value> {
    let update = written(&web, verdicts, answering, &Refusal::NoEndpoint);
    update.map(|update| update.patch(Timestamp::UNIX_EPOCH))
}

/// What another program decides on.
fn left(voice: Voice) -> Verdicts {
    [(name(), Verdict { left: true, voice, ..Verdict::default() })].into()
}

#[test]
fn a_word_of_whether_it_is_announced_goes_with_the_publication_and_names_no_node_but_its_own() {
    let silent = Service { conditions: vec![said("NoEndpoint")], ..service(&ONE) };
    let patch = told(silent, &announcing(&ONE), &answering(&ONE, &ONE)).unwrap();
    assert_eq!(patch["metadata"]["annotations"]["kube-vip.io/vipHost"], "a");
    assert_eq!(patch["status"]["conditions"][0]["status"], "True");

    let undecided: Verdicts = [(name(), Verdict::default())].into();
    let nothing = Answering::default();
    let patch = told(showing(&ONE, Some("gone")), &undecided, &nothing).unwrap();
    assert_eq!(patch["metadata"]["annotations"], json!({ "kube-vip.io/vipHost": null }));
    assert_eq!(patch["status"]["conditions"][0]["reason"], "NoEndpoint");
    let refusals = vec![Refusal::EndpointWithoutNode];
    let just_now = [(name(), Verdict { refusals, ..Verdict::default() })].into();
    let patch = told(showing(&ONE, Some("gone")), &just_now, &nothing).unwrap();
    let message = patch["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains(&Refusal::EndpointWithoutNode.note()), "in the same write: {message}");

    let voice = Voice::Bystander;
    let by: Verdicts = [(name(), Verdict { voice, ..Verdict::default() })].into();
    assert_eq!(told(showing(&ONE, Some("b")), &by, &nothing), None, "that node has a word in it");
    let patch = told(service(&ONE), &by, &nothing).unwrap();
    assert_eq!(patch["metadata"]["annotations"], json!({}), "it clears nothing");
    assert_eq!(patch["status"]["conditions"][0]["reason"], "NoEndpoint");
    let told_already = Service { conditions: vec![said("NotGranted")], ..service(&ONE) };
    assert_eq!(told(told_already, &by, &nothing), None);
}

#[test]
fn what_each_node_may_say_waits_for_its_turn_and_what_one_decides_does_not() {
    let waits = |voice| {
        let verdicts: Verdicts = [(name(), Verdict { voice, ..Verdict::default() })].into();
        let nothing = Answering::default();
        written(&service(&ONE), &verdicts, &nothing, &Refusal::NoEndpoint).unwrap().waits
    };
    assert_eq!(waits(Voice::Bystander), Some(Duration::ZERO));
    assert_eq!([waits(Voice::Decides), waits(Voice::Lasts)], [None, None]);
}

#[test]
fn what_a_stranger_decides_on_is_told_where_it_publishes_nothing_and_taken_back_where_it_does() {
    let holder = berth_api::Quoted::of("kube-vip-1");
    let lasts = Refusal::LeftToLease { lease: "kube-system/plndr-svcs-lock".to_owned(), holder };
    let says = |web: &Service, voice| {
        let update = written(web, &left(voice), &Answering::default(), &lasts)?;
        assert!(update.publication.is_none() && update.notice.is_none(), "it is left as it is");
        let shown = update.patch(Timestamp::UNIX_EPOCH)["status"]["conditions"][0].clone();
        let word = if shown["$patch"] == "delete" { "gone" } else { "LeftToLease" };
        assert!(word == "gone" || shown["reason"] == word);
        Some(word)
    };
    let with = |web: Service, reason: &str| Service { conditions: vec![said(reason)], ..web };
    let silent = service(&ONE);
    for voice in [Voice::Bystander, Voice::Decides] {
        assert_eq!(says(&silent, voice), Some("LeftToLease"));
        assert_eq!(says(&with(silent.clone(), "Unannounced"), voice), Some("LeftToLease"));
        let shown = |reason: Option<&str>, host| {
            let web = showing(&ONE, host);
            says(&reason.map_or(web.clone(), |reason| with(web, reason)), voice)
        };
        for host in [None, Some("a"), Some("control-plane-1")] {
            assert_eq!(shown(None, host), None, "the holder announces it: {host:?}");
            assert_eq!(shown(Some("LeftToLease"), host), Some("gone"), "{host:?}");
            assert_eq!(shown(Some("NoAnnouncer"), host), None, "berth-ccm takes that back");
        }
        assert_eq!(shown(Some("NoEndpoint"), Some("control-plane-1")), None);
    }
    let before = with(silent, "NoEndpoint");
    assert_eq!(says(&before, Voice::Decides), Some("LeftToLease"));
    assert_eq!(says(&before, Voice::Bystander), None, "another node has said so");
}

#[test]
fn what_is_not_ours_any_more_says_nothing_of_being_announced_whoever_said_it() {
    let none = Service { ours: false, ..service(&ONE) };
    let foreign = || Service { foreign: true, ..none.clone() };
    let ignored = || Service { ignored: true, ..foreign() };
    let ending = || Service { ending: true, ..none.clone() };
    let waits = |web: Service, reason: &str| {
        let conditions = vec![said(reason)];
        let web = Service { conditions, vip_host: Some("b".to_owned()), ..web };
        let verdicts = Verdicts::new();
        let update = written(&web, &verdicts, &Answering::default(), &Refusal::NoEndpoint)?;
        let gone = json!([{ "type": "berth.dev/Announced", "$patch": "delete" }]);
        let patch = update.patch(Timestamp::UNIX_EPOCH);
        assert_eq!(patch["status"], json!({ "conditions": gone }));
        assert_eq!(patch["metadata"]["annotations"], json!({}));
        update.waits
    };
    for reason in ["NoEndpoint", "Announced"] {
        assert_eq!(waits(ignored(), reason), Some(Duration::ZERO));
        assert_eq!(waits(none.clone(), reason), Some(Duration::ZERO), "of another type");
        assert_eq!(waits(ending(), reason), Some(GONE), "it is gone before, if nothing holds it");
    }
    assert_eq!(waits(foreign(), "NoEndpoint"), None, "another Berth may serve that class");
    assert_eq!(waits(service(&ONE), "NoEndpoint"), None, "it is ours");
    assert_eq!(waits(ignored(), "NoAnnouncer"), None, "berth-ccm takes that back");
}

#[test]
fn the_end_of_a_service_is_written_once_and_takes_the_word_along() {
    let ending = || Service { ours: false, ending: true, ..showing(&ONE, Some("a")) };
    let web = Service { conditions: vec![said("NoEndpoint")], ..ending() };
    let undecided: Verdicts = [(name(), Verdict::default())].into();
    let nothing = Answering::default();
    let update = written(&web, &undecided, &nothing, &Refusal::NoEndpoint).unwrap();
    let patch = update.patch(Timestamp::UNIX_EPOCH);
    assert_eq!((update.waits, &patch["status"]["loadBalancer"]["ingress"]), (None, &Value::Null));
    assert_eq!(patch["status"]["conditions"][0]["$patch"], "delete");
    let cleared = Service { published: vec![], vip_host: None, ..web };
    let update = written(&cleared, &undecided, &nothing, &Refusal::NoEndpoint).unwrap();
    assert_eq!((update.publication.is_none(), update.waits), (true, Some(GONE)));
}
