use std::sync::{Arc, Mutex};

use berth_runtime::events;
use berth_runtime::supervise::Supervisor;
use kube::client::Body;

use super::*;
use crate::source::cluster::testing::service;
use crate::source::testing::{host, seen};

type Told = Arc<Mutex<Vec<serde_json::Value>>>;

/// Something that publishes, what sends its Events, and those that arrive.
fn publisher() -> (Publisher, events::Publisher, Told) {
    let told = Told::default();
    let seen = told.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect_bytes().await?;
            seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap_or_default());
            Ok::<_, tower::BoxError>(http::Response::new(Body::from(b"{}".to_vec())))
        }
    });
    let client = kube::Client::new(service, "default");
    let (events, sender) = events::channel(client, "berth-announcer", "a");
    let (writer, _) = Writer::nowhere(Supervisor::new().errands());
    (Publisher::new(writer, events, Metrics::default(), "a", true), sender, told)
}

#[tokio::test]
async fn a_claim_of_an_address_that_many_services_share_is_told_to_the_first_once_a_minute() {
    let mut cluster = Cluster::default();
    for number in 0..1_200 {
        let mut web = service(&["192.0.2.1"]);
        web.created = format!("2026-{number:04}");
        cluster.apply_service(Name::new("d", format!("web-{number}")), web);
    }
    let wanted = seen(&cluster, &host(), Some("eth0"));
    let (mut publisher, sender, told) = publisher();
    let begin = Instant::now();
    for n in 0..120_u8 {
        let (mac, now) = ([2, 0, 0, 0, 0, n], begin + Duration::from_secs(n.into()));
        publisher.defended(&wanted, "192.0.2.1".parse().unwrap(), mac, now);
    }
    drop(publisher);
    sender.run().await;
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|event| event["regarding"]["name"] == "web-0"), "{told:?}");
}

fn update(name: &Name, takes_out: bool) -> Update {
    Update {
        name: name.clone(),
        uid: "uid".to_owned(),
        version: "1".to_owned(),
        publication: None,
        notice: None,
        word: None,
        takes_out,
        insists: false,
        unclaimed: Vec::new(),
    }
}

#[tokio::test]
async fn who_outruns_what_takes_an_address_of_another_out_has_it_written_all_the_same() {
    let (mut publisher, ..) = publisher();
    let (cluster, wanted) = (Cluster::default(), Wanted::default());
    let name = Name::new("d", "web");
    let update = |takes_out| update(&name, takes_out);
    let now = Instant::now();
    publisher.written(&update(false), &WriteOutcome::<()>::Overtaken, now);
    assert!(publisher.outrun.is_empty(), "nobody is harmed");
    publisher.written(&update(true), &WriteOutcome::<()>::Overtaken, now);
    assert!(publisher.outrun.contains(&name));
    publisher.written(&update(true), &WriteOutcome::Written(Box::new(())), now);
    assert!(publisher.outrun.is_empty());
    publisher.written(&update(true), &WriteOutcome::<()>::Overtaken, now);
    let nobody = Default::default();
    publisher.publish(&cluster, &wanted, &BTreeMap::new(), &BTreeMap::new(), &nobody, now);
    assert!(publisher.outrun.is_empty(), "it is not to be written any more");
}

#[tokio::test]
async fn what_takes_an_address_of_another_out_and_is_not_taken_is_tried_with_all_at_once() {
    let name = Name::new("d", "web");
    let update = |takes_out| update(&name, takes_out);
    let now = Instant::now();
    let refused = || WriteOutcome::<()>::Refused("Too long (422)".to_owned());
    let failed = || WriteOutcome::<()>::Failed("request is too large (500)".to_owned());
    for (outcome, next) in [(refused(), refused()), (failed(), refused())] {
        let (mut publisher, sender, told) = publisher();
        let is_allowed =
            |publisher: &Publisher| publisher.denied_services.allow(&name, "uid", "1", now);
        publisher.written(&update(true), &outcome, now);
        assert!(publisher.stuck.contains(&name) && is_allowed(&publisher));
        publisher.written(&update(true), &next, now);
        assert!(!is_allowed(&publisher), "not even that is taken");
        publisher.written(&update(true), &WriteOutcome::Written(Box::new(())), now);
        assert!(publisher.stuck.is_empty() && is_allowed(&publisher));
        publisher.written(&update(false), &failed(), now);
        assert!(publisher.stuck.is_empty(), "nobody is harmed");
        drop(publisher);
        sender.run().await;
        assert_eq!(told.lock().unwrap().len(), 2, "what was refused, and its end");
    }
}

#[tokio::test]
async fn a_status_that_is_refused_is_told_on_the_service_once_and_left_alone_for_minutes() {
    let mut cluster = Cluster::default();
    let mut web = service(&["192.0.2.1"]);
    web.vip_host = Some("a".to_owned());
    let name = Name::new("d", "web");
    cluster.apply_service(name.clone(), web);
    let wanted = seen(&cluster, &host(), Some("eth0"));
    let verdicts = [(name.clone(), Verdict::default())].into();
    let (mut publisher, sender, told) = publisher();
    let begin = Instant::now();
    let mut tries = 0;
    for second in 0..3600 {
        let now = begin + Duration::from_secs(second);
        let (clears, answering) = (BTreeMap::new(), Answering::default());
        publisher.publish(&cluster, &wanted, &verdicts, &clears, &answering, now);
        let due = BTreeSet::new();
        let removals = status::Removals { clears: &due, stuck: &due };
        let lasting = |_: &Name| vec![];
        let [update] =
            &status::updates(&cluster, &wanted, &verdicts, removals, lasting, &answering, "a")[..]
        else {
            panic!("one status is to be cleared");
        };
        // Without a cluster nothing is sent, and so this answers for it.
        if publisher.denied_services.allow(&name, &update.uid, &update.version, now) {
            tries += 1;
            let why = "metadata.annotations: Too long (422)".to_owned();
            publisher.written(update, &WriteOutcome::<()>::Refused(why), now);
        }
        let pending = publisher.publish(&cluster, &wanted, &verdicts, &clears, &answering, now);
        assert!(pending.is_empty(), "nobody waits for it");
    }
    drop(publisher);
    sender.run().await;
    let told = told.lock().unwrap();
    assert_eq!((told.len(), told[0]["reason"].as_str()), (1, Some("WriteRefused")), "{told:?}");
    assert!(told[0]["note"].as_str().unwrap().contains("Too long (422)"));
    assert!(tries < 20, "{tries}");
}
