//! What is said of other hosts that have an address.

use super::*;

/// A Service of which node `a` finds that another host has the first address.
fn conflicting(both: &[&str]) -> Verdicts {
    let mut desired = announcing(both);
    let verdict = desired.get_mut(&name()).unwrap();
    let address = verdict.announce.remove(0);
    let (node, interface) = ("a".to_owned(), "eth0".to_owned());
    verdict.refusals.push(Refusal::AddressConflict { address, mac: [9; 6], node, interface });
    desired
}

fn told(update: &Update) -> (Value, Value) {
    let patch = update.patch(Timestamp::UNIX_EPOCH);
    (patch["metadata"]["annotations"].clone(), patch["status"].clone())
}

#[test]
fn another_host_is_named_for_programs_and_for_people_once() {
    let mut web = service(&["192.0.2.1"]);
    web.conditions = vec![Condition {
        type_: "example.org/Other".to_owned(),
        status: "True".to_owned(),
        reason: "Other".to_owned(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }];
    let desired = conflicting(&["192.0.2.1"]);
    let all = Answering::default();
    let [update] = &updates(&cluster(web.clone()), &desired, &all, "a")[..] else { panic!() };
    let (annotations, status) = told(update);
    assert_eq!(annotations, json!({ "berth.dev/conflict": "192.0.2.1=09:09:09:09:09:09" }));
    assert!(status.get("loadBalancer").is_none(), "nothing else is touched");
    let conditions = status["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 1, "those of others stay");
    let ours = &conditions[0];
    assert_eq!(
        (&ours["type"], &ours["status"], &ours["reason"]),
        (&json!("berth.dev/AddressConflict"), &json!("True"), &json!("AddressConflict"))
    );
    let message = ours["message"].as_str().unwrap();
    for part in ["192.0.2.1", "09:09:09:09:09:09", "eth0", "node a"] {
        assert!(message.contains(part), "{message}");
    }
    web.conflict = update.notice.as_ref().unwrap().conflicts.clone();
    assert_eq!(updates(&cluster(web), &desired, &all, "a"), []);
}

#[test]
fn what_was_found_is_cleared_with_the_conflict_and_not_while_it_is_asked_for_anew() {
    let mut web = service(&["192.0.2.1"]);
    web.conflict = Conflicts::parse("192.0.2.1=09:09:09:09:09:09");
    web.conditions = vec![Condition {
        type_: condition::ADDRESS_CONFLICT.to_owned(),
        status: "True".to_owned(),
        reason: reason::ADDRESS_CONFLICT.to_owned(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }];
    let mut asking = announcing(&["192.0.2.1"]);
    let verdict = asking.get_mut(&name()).unwrap();
    verdict.asked.insert(address("192.0.2.1"));
    assert_eq!(updates(&cluster(web.clone()), &asking, &Answering::default(), "a"), []);
    let all = answering(&["192.0.2.1"], &["192.0.2.1"]);
    let over = |web: Service| updates(&cluster(web), &announcing(&["192.0.2.1"]), &all, "a");
    // Somebody may have taken the annotation away meanwhile.
    for conflict in [web.conflict.clone(), Conflicts::default()] {
        web.conflict = conflict;
        let updates = over(web.clone());
        let (annotations, status) = told(&updates[0]);
        assert_eq!(annotations, json!({ "berth.dev/conflict": null, "kube-vip.io/vipHost": "a" }));
        let gone = json!([{ "type": "berth.dev/AddressConflict", "$patch": "delete" }]);
        assert_eq!(status["conditions"], gone);
    }
}

#[test]
fn what_is_written_for_programs_is_found_again_by_the_condition() {
    let both = ["192.0.2.1", "2001:db8::1"];
    let mut web = service(&both);
    web.conflict = Conflicts::parse("2001:db8::1=0a:0a:0a:0a:0a:0a");
    let mut desired = conflicting(&both);
    // The second is asked for anew, as by a node that has just taken over.
    desired.get_mut(&name()).unwrap().asked.insert(address(both[1]));
    let updates = updates(&cluster(web), &desired, &Answering::default(), "a");
    let (annotations, status) = told(&updates[0]);
    let written = "192.0.2.1=09:09:09:09:09:09,2001:db8::1=0a:0a:0a:0a:0a:0a";
    assert_eq!(annotations, json!({ "berth.dev/conflict": written }));
    let object = json!({ "metadata": { "annotations": annotations }, "status": status });
    let object = serde_json::from_value(object).unwrap();
    assert_eq!(Conflicts::of_service(&object).to_string(), written);
}

#[test]
fn the_address_that_nobody_else_has_is_published_without_the_other() {
    let both = ["192.0.2.1", "2001:db8::1"];
    let all = answering(&both[1..], &both[1..]);
    let updates = updates(&cluster(service(&both)), &conflicting(&both), &all, "a");
    let publication = updates[0].publication.as_ref().unwrap();
    assert_eq!((updates.len(), &publication.ingress[0].ip[..]), (1, "2001:db8::1"));
    assert!(updates[0].notice.is_some());
}
