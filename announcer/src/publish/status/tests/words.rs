//! What is said of whether a Service is announced.

use super::*;
use crate::publish::status;

#[test]
fn a_word_of_whether_it_is_announced_goes_with_the_publication_and_names_no_node_but_its_own() {
    let said = |reason: &str| Condition {
        type_: condition::ANNOUNCED.to_owned(),
        status: "False".to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    };
    let one = ["192.0.2.1"];
    let told = |web: Service, verdicts: &Verdicts, answering: &Answering| {
        let wanted = seen(&cluster(web.clone()), &host(), Some("eth0"));
        let (clears, lasting) = (BTreeSet::new(), |_: &Name| vec![&Refusal::NoEndpoint]);
        let cluster = cluster(web);
        let removals = status::Removals { clears: &clears, stuck: &BTreeSet::new() };
        let mut updates =
            status::updates(&cluster, &wanted, verdicts, removals, lasting, answering, "a");
        updates.pop().map(|update| update.patch(Timestamp::UNIX_EPOCH))
    };
    let silent = Service { conditions: vec![said("NoEndpoint")], ..service(&one) };
    let patch = told(silent, &announcing(&one), &answering(&one, &one)).unwrap();
    assert_eq!(patch["metadata"]["annotations"]["kube-vip.io/vipHost"], "a");
    assert_eq!(patch["status"]["conditions"][0]["status"], "True");

    let undecided: Verdicts = [(name(), Verdict::default())].into();
    let nothing = Answering::default();
    let patch = told(showing(&one, Some("gone")), &undecided, &nothing).unwrap();
    assert_eq!(patch["metadata"]["annotations"], json!({ "kube-vip.io/vipHost": null }));
    assert_eq!(patch["status"]["conditions"][0]["reason"], "NoEndpoint");
    let refusals = vec![Refusal::EndpointWithoutNode];
    let just_now = [(name(), Verdict { refusals, ..Verdict::default() })].into();
    let patch = told(showing(&one, Some("gone")), &just_now, &nothing).unwrap();
    let message = patch["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains(&Refusal::EndpointWithoutNode.note()), "in the same write: {message}");

    let voice = Voice::Bystander;
    let by: Verdicts = [(name(), Verdict { voice, ..Verdict::default() })].into();
    assert_eq!(told(showing(&one, Some("b")), &by, &nothing), None, "that node has a word in it");
    let patch = told(service(&one), &by, &nothing).unwrap();
    assert_eq!(patch["metadata"]["annotations"], json!({}), "it clears nothing");
    assert_eq!(patch["status"]["conditions"][0]["reason"], "NoEndpoint");
    let told_already = Service { conditions: vec![said("NotGranted")], ..service(&one) };
    assert_eq!(told(told_already, &by, &nothing), None);
}
