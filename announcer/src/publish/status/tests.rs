use super::*;
use crate::source::cluster::testing::service;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name() -> Name {
    Name::new("d", "web")
}

fn cluster(service: Service) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply_service(name(), service);
    cluster
}

type Verdicts = BTreeMap<Name, Verdict>;

fn announcing(addresses: &[&str]) -> Verdicts {
    let announce: Vec<IpAddr> = addresses.iter().map(|text| address(text)).collect();
    [(name(), Verdict { announce, ..Verdict::default() })].into()
}

fn answering(live: &[&str], bound: &[&str]) -> Answering {
    let set = |texts: &[&str]| texts.iter().map(|text| address(text)).collect();
    Answering { live: set(live), bound: set(bound), ..Answering::default() }
}

#[test]
fn a_status_is_written_once_all_addresses_answer_and_never_again() {
    let both = ["192.0.2.1", "2001:db8::1"];
    let mut web = service(&both);
    let desired = announcing(&both);
    let half = answering(&both[..1], &both[..1]);
    assert_eq!(updates(&cluster(web.clone()), &desired, &half, "a"), []);
    let all = answering(&both, &both);
    let [update] = &updates(&cluster(web.clone()), &desired, &all, "a")[..] else { panic!() };
    assert_eq!(
        update.patch(Timestamp::UNIX_EPOCH),
        json!({
            "metadata": {
                "uid": "uid", "resourceVersion": "1", "annotations": { "kube-vip.io/vipHost": "a" },
            },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "192.0.2.1", "ipMode": "VIP", "ports": [{ "protocol": "TCP", "port": 80 }] },
                { "ip": "2001:db8::1", "ipMode": "VIP", "ports": [{ "protocol": "TCP", "port": 80 }] },
            ] } },
        })
    );
    let publication = update.publication.clone().unwrap();
    (web.published, web.vip_host) = (publication.ingress, publication.vip_host);
    assert_eq!(updates(&cluster(web), &desired, &all, "a"), []);
}

#[test]
fn an_address_that_the_kernel_refuses_does_not_hold_up_the_other() {
    let both = ["192.0.2.1", "2001:db8::1"];
    let mut answering = answering(&both[..1], &both[..1]);
    answering.failed.insert(address(both[1]));
    let updates = updates(&cluster(service(&both)), &announcing(&both), &answering, "a");
    assert_eq!(updates[0].publication.as_ref().unwrap().ingress.len(), 1);
}

#[test]
fn a_status_is_cleared_only_after_the_address_is_off_the_interface() {
    let mut web = service(&["192.0.2.1"]);
    (web.ours, web.vip_host) = (false, Some("a".to_owned()));
    web.published = vec![Ingress::vip(address("192.0.2.1"), &web.ports)];
    let cluster = cluster(web);
    let mut nothing = Verdicts::default();
    nothing.insert(name(), Verdict::default());
    let bound = answering(&[], &["192.0.2.1"]);
    assert_eq!(updates(&cluster, &nothing, &bound, "a"), []);
    let [update] = &updates(&cluster, &nothing, &Answering::default(), "a")[..] else { panic!() };
    let patch = update.patch(Timestamp::UNIX_EPOCH);
    assert_eq!(patch["status"]["loadBalancer"], json!({ "ingress": null }));
    assert_eq!(patch["metadata"]["annotations"], json!({ "kube-vip.io/vipHost": null }));
}

#[test]
fn what_another_node_left_behind_is_cleared_by_who_decides_now() {
    let mut web = service(&[]);
    web.vip_host = Some("gone".to_owned());
    let mut nothing = Verdicts::default();
    nothing.insert(name(), Verdict::default());
    assert_eq!(updates(&cluster(web), &nothing, &Answering::default(), "a").len(), 1);
}

#[test]
fn a_status_that_somebody_else_wrote_is_left_alone() {
    let mut web = service(&[]);
    web.published = vec![Ingress { ip: "203.0.113.1".to_owned(), ..Ingress::default() }];
    let mut nothing = Verdicts::default();
    nothing.insert(name(), Verdict::default());
    assert_eq!(updates(&cluster(web.clone()), &nothing, &Answering::default(), "a"), []);
    (web.foreign, web.vip_host) = (true, Some("a".to_owned()));
    assert_eq!(updates(&cluster(web), &nothing, &Answering::default(), "a"), []);
}

#[test]
fn who_does_not_decide_writes_nothing() {
    let mut web = service(&["192.0.2.1"]);
    web.vip_host = Some("b".to_owned());
    assert_eq!(updates(&cluster(web), &Verdicts::default(), &Answering::default(), "a"), []);
}

#[test]
fn a_shared_address_that_stays_for_another_service_does_not_hold_up_the_clearing() {
    let mut web = service(&["192.0.2.1"]);
    (web.ours, web.vip_host) = (false, Some("a".to_owned()));
    let desired = [(name(), Verdict::default())].into();
    let mut bound = answering(&["192.0.2.1"], &["192.0.2.1"]);
    bound.kept.insert(address("192.0.2.1"));
    assert_eq!(updates(&cluster(web), &desired, &bound, "a").len(), 1);
}

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
    assert_eq!((conditions.len(), &conditions[0]["type"]), (2, &json!("example.org/Other")));
    let ours = &conditions[1];
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
        assert_eq!(status["conditions"], json!([]));
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
