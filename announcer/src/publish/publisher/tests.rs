use std::sync::{Arc, Mutex};

use berth_runtime::events;
use berth_runtime::supervise::Supervisor;
use kube::client::Body;

use super::*;
use crate::source::cluster::testing::service;
use crate::source::testing::{host, seen};
use crate::vip::{Refusal, Voice};

type Sent = Arc<Mutex<Vec<serde_json::Value>>>;

/// Something that publishes, what sends its Events, and those that arrive.
fn publisher() -> (Publisher, events::Publisher, Sent) {
    let told = Sent::default();
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
    Update { takes_out, ..Update::of(name.clone(), "uid", "1") }
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
    assert!(tries <= 20, "{tries}");
}

/// A Service of node `a` or nobody's, what is decided on it by what right, and what the API server answers to that.
struct Told {
    cluster: Cluster,
    name: Name,
    publisher: Publisher,
    now: Instant,
}

impl Told {
    fn new(publisher: Publisher) -> Self {
        let (mut cluster, name) = (Cluster::default(), Name::new("d", "web"));
        cluster.apply_service(name.clone(), service(&["192.0.2.1"]));
        Self { cluster, name, publisher, now: Instant::now() }
    }

    /// A round after a while. What is to be written is, where another node was not faster.
    fn round(&mut self, verdict: &Verdict, live: bool, is_first: bool) {
        self.now += Duration::from_secs(10);
        let wanted = seen(&self.cluster, &host(), Some("eth0"));
        let verdicts = [(self.name.clone(), verdict.clone())].into();
        let live = verdict.announce.iter().copied().filter(|_| live).collect();
        let (clears, answering) = (BTreeMap::new(), Answering { live, ..Answering::default() });
        self.publisher.publish(&self.cluster, &wanted, &verdicts, &clears, &answering, self.now);
        let due = BTreeSet::new();
        let removals = status::Removals { clears: &due, stuck: &due };
        let lasting = |name: &Name| self.publisher.refusals.lasting(name, self.now);
        let updates =
            status::updates(&self.cluster, &wanted, &verdicts, removals, lasting, &answering, "a");
        for update in updates {
            let patch = update.patch(Timestamp::UNIX_EPOCH);
            let outcome = match is_first {
                true => WriteOutcome::Written(Box::new(())),
                false => WriteOutcome::Overtaken,
            };
            self.publisher.written(&update, &outcome, self.now);
            let mut shown = self.cluster.services()[&self.name].clone();
            if let Ok(said) = serde_json::from_value(patch["status"]["conditions"].clone()) {
                shown.conditions = said;
            }
            self.cluster.apply_service(self.name.clone(), shown);
        }
    }
}

async fn reasons(publisher: Publisher, sender: events::Publisher, told: &Sent) -> Vec<String> {
    drop(publisher);
    sender.run().await;
    let told = told.lock().unwrap();
    told.iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

fn silent(voice: Voice) -> Verdict {
    Verdict { refusals: vec![Refusal::NoEndpoint], voice, ..Verdict::default() }
}

#[tokio::test]
async fn where_nobody_decides_the_node_whose_word_is_taken_sends_the_event_and_no_other() {
    for (is_first, expected) in [(true, &["NoEndpoint"][..]), (false, &[])] {
        let (publisher, sender, sent) = publisher();
        let mut told = Told::new(publisher);
        for _ in 0..3 {
            told.round(&silent(Voice::Bystander), false, is_first);
        }
        assert_eq!(reasons(told.publisher, sender, &sent).await, expected);
    }
}

#[tokio::test]
async fn what_is_announced_again_is_told_and_what_comes_and_goes_not_each_time() {
    let (publisher, sender, sent) = publisher();
    let mut told = Told::new(publisher);
    let announce = vec!["192.0.2.1".parse().unwrap()];
    let announced = Verdict { announce, ..Verdict::default() };
    told.round(&announced, true, true);
    for _ in 0..6 {
        // It has lasted.
        told.round(&silent(Voice::Lasts), false, true);
        told.round(&announced, true, true);
        told.round(&announced, true, true);
    }
    let reasons = reasons(told.publisher, sender, &sent).await;
    // What repeats within minutes is counted in one Event.
    let count = |reason: &str| reasons.iter().filter(|told| *told == reason).count();
    assert_eq!((count("NoEndpoint"), count("Announced")), (1, 1), "{reasons:?}");
}
