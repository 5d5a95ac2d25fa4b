//! Owns the Events (events.k8s.io/v1) of a program. Reporting never waits and never fails its caller: what the
//! cluster does not take is lost and counted. A role that was made for another program may know Events by their older name
//! alone, as those of the core group: they are the same objects.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_api::one_line;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core_v1, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::watch::{chain, forbidden};

/// Waiting for the cluster to take them; more are lost.
const QUEUE: usize = 8192;
/// A repeat within this time of the last becomes a count on the same Event, as in client-go.
const SERIES: Duration = Duration::from_secs(360);
/// So many are known to repeat: what says something else each time pushes out what was last said longest ago.
const MOST: usize = 2048;
/// How often a growing count is written.
const PERIOD: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);
/// The API server refuses longer notes (`NoteLengthLimit`).
const NOTE: usize = 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// For information.
    Normal,
    /// Somebody should look at it.
    Warning,
}

/// Something to tell about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The object. Its Events are in its namespace; those of cluster-wide objects in `default`.
    pub regarding: ObjectReference,
    /// How bad it is.
    pub severity: Severity,
    /// The stable reason, of [`berth_api::reason`].
    pub reason: &'static str,
    /// What was being done, in one word of PascalCase.
    pub action: &'static str,
    /// What happened, for people.
    pub note: String,
}

/// Takes reports. Clones share one queue; the [`Publisher`] ends when the last is dropped.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Report>,
    lost: Arc<AtomicU64>,
}

/// Sends what [`Events`] takes, one at a time, so that Events never crowd out the writes they tell about.
pub struct Publisher {
    client: Client,
    controller: &'static str,
    instance: String,
    queue: mpsc::Receiver<Report>,
    lost: Arc<AtomicU64>,
    /// By the sum of what makes two reports the same: who writes objects decides how many notes there are, and how long.
    series: HashMap<u64, Series>,
    sums: RandomState,
    told: String,
    /// Whether they may be created in the core group alone.
    is_core: bool,
}

/// What came of a request.
enum Sent {
    Taken,
    /// There is no right to it, in the words of the API server.
    Forbidden(String),
    Lost,
}

#[derive(Debug)]
struct Series {
    name: String,
    namespace: String,
    count: i32,
    last: Instant,
    written: Instant,
}

/// An `events` channel for the program `controller`; `instance` tells its replicas apart.
pub fn channel(
    client: Client,
    controller: &'static str,
    instance: impl Into<String>,
) -> (Events, Publisher) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let events = Events { queue: sender, lost: lost.clone() };
    let (series, sums, told) = Default::default();
    let instance = instance.into();
    let is_core = false;
    (events, Publisher { client, controller, instance, queue, lost, series, sums, told, is_core })
}

/// Sends what [`Events`] takes to the log.
pub struct Logger {
    queue: mpsc::Receiver<Report>,
}

/// An `events` channel where there is no cluster.
pub fn to_log() -> (Events, Logger) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (Events { queue: sender, lost: Arc::default() }, Logger { queue })
}

impl Logger {
    /// Logs until every [`Events`] is dropped and the queue is empty.
    pub async fn run(mut self) {
        while let Some(Report { regarding, severity, reason, note, .. }) = self.queue.recv().await {
            let name = regarding.name.unwrap_or_default();
            match severity {
                Severity::Normal => tracing::info!(name, reason, "{note}"),
                Severity::Warning => tracing::warn!(name, reason, "{note}"),
            }
        }
    }
}

impl Events {
    /// Tells about an object. Returns at once.
    pub fn publish(&self, report: Report) {
        if self.queue.try_send(report).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many reports were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Publisher {
    /// Sends until every [`Events`] is dropped and the queue is empty.
    pub async fn run(mut self) {
        while let Some(report) = self.queue.recv().await {
            self.take(report, Instant::now()).await;
        }
    }

    async fn take(&mut self, report: Report, now: Instant) {
        let Report { regarding: object, reason, note, .. } = &report;
        let key = self.sums.hash_one((&object.uid, &object.namespace, &object.name, reason, note));
        match self.series.get_mut(&key).filter(|series| now - series.last < SERIES) {
            Some(series) => {
                series.count += 1;
                series.last = now;
                if now - series.written < PERIOD {
                    return;
                }
                series.written = now;
                let (name, namespace, count) =
                    (series.name.clone(), series.namespace.clone(), series.count);
                self.repeat(&name, &namespace, count).await;
            }
            None => {
                let event = self.event(&report, Timestamp::now());
                let name = event.metadata.name.clone().unwrap_or_default();
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                self.create(&namespace, event).await;
                self.make_room(now);
                self.series
                    .insert(key, Series { name, namespace, count: 1, last: now, written: now });
            }
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.series.len() < MOST {
            return;
        }
        self.series.retain(|_, series| now - series.last < SERIES);
        let mut lasts: Vec<Instant> = self.series.values().map(|series| series.last).collect();
        if lasts.len() >= MOST {
            // Not the oldest alone, which would be looked for each time.
            let (_, middle, _) = lasts.select_nth_unstable(MOST / 2);
            let middle = *middle;
            self.series.retain(|_, series| series.last > middle);
        }
    }

    fn event(&self, report: &Report, now: Timestamp) -> Event {
        let object = &report.regarding;
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = object.name.as_deref().unwrap_or(self.controller);
        let mut note = one_line(&report.note).into_owned();
        let end = (0..=NOTE.min(note.len())).rev().find(|end| note.is_char_boundary(*end));
        note.truncate(end.unwrap_or(0));
        let severity = match report.severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace),
                ..Default::default()
            },
            action: Some(report.action.to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(report.reason.to_owned()),
            regarding: Some(object.clone()),
            reporting_controller: Some(format!("berth.dev/{}", self.controller)),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(severity.to_owned()),
            ..Default::default()
        }
    }

    async fn create(&mut self, namespace: &str, event: Event) {
        let mut refused = None;
        if !self.is_core {
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            let sent = self.attempt("create", || {
                let (api, event) = (&api, &event);
                async move { api.create(&PostParams::default(), event).await.map(drop) }
            });
            match sent.await {
                Sent::Forbidden(message) => refused = Some(message),
                Sent::Taken | Sent::Lost => return,
            }
        }
        let api: Api<core_v1::Event> = Api::namespaced(self.client.clone(), namespace);
        let event = of_core(event);
        let sent = self.attempt("create", || {
            let (api, event) = (&api, &event);
            async move { api.create(&PostParams::default(), event).await.map(drop) }
        });
        match sent.await {
            Sent::Taken => self.is_core = true,
            Sent::Forbidden(message) => {
                self.is_core = false;
                self.forbidden("create", &refused.unwrap_or(message));
            }
            Sent::Lost => {}
        }
    }

    async fn repeat(&mut self, name: &str, namespace: &str, count: i32) {
        let last = MicroTime(Timestamp::now());
        let patch = Patch::Merge(json!({ "series": { "count": count, "lastObservedTime": last } }));
        let sent = if self.is_core {
            let api: Api<core_v1::Event> = Api::namespaced(self.client.clone(), namespace);
            self.attempt("patch", || {
                let (api, patch) = (&api, &patch);
                async move { api.patch(name, &PatchParams::default(), patch).await.map(drop) }
            })
            .await
        } else {
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            self.attempt("patch", || {
                let (api, patch) = (&api, &patch);
                async move { api.patch(name, &PatchParams::default(), patch).await.map(drop) }
            })
            .await
        };
        if let Sent::Forbidden(message) = sent {
            self.forbidden("patch", &message);
        }
    }

    async fn attempt<F, A>(&mut self, verb: &str, mut send: F) -> Sent
    where
        F: FnMut() -> A,
        A: Future<Output = kube::Result<()>>,
    {
        for attempt in 1.. {
            let error = match tokio::time::timeout(TIMEOUT, send()).await {
                Ok(Ok(())) => {
                    self.told.clear();
                    return Sent::Taken;
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => return Sent::Taken,
                Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                    if status.message.contains("being terminated") {
                        break;
                    }
                    return Sent::Forbidden(status.message);
                }
                // The API server will never take it, or what it is about is gone.
                Ok(Err(kube::Error::Api(status)))
                    if (400..500).contains(&status.code) && status.code != 429 =>
                {
                    let (code, message) = (status.code, &status.message);
                    self.tell(format!("cannot {verb} an Event: {message} ({code})"));
                    break;
                }
                Ok(Err(error)) => format!("cannot {verb} an Event: {}", chain(&error)),
                Err(_) => format!("cannot {verb} an Event: no answer within {TIMEOUT:?}"),
            };
            if attempt == ATTEMPTS {
                self.tell(error);
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        Sent::Lost
    }

    fn forbidden(&mut self, verb: &str, message: &str) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.tell(forbidden(verb, "events.events.k8s.io", message));
    }

    /// The first of a row of failures is news.
    fn tell(&mut self, text: String) {
        if self.told.is_empty() {
            tracing::warn!("{text}");
        } else {
            tracing::debug!("{text}");
        }
        self.told = text;
    }
}

/// It by its older name.
fn of_core(event: Event) -> core_v1::Event {
    core_v1::Event {
        source: Some(core_v1::EventSource {
            component: event.reporting_controller.clone(),
            host: None,
        }),
        metadata: event.metadata,
        involved_object: event.regarding.unwrap_or_default(),
        message: event.note,
        reason: event.reason,
        type_: event.type_,
        action: event.action,
        event_time: event.event_time,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use kube::client::Body;
    use std::sync::Mutex;

    type Log = Arc<Mutex<Vec<String>>>;

    fn scripted(code: u16) -> (Client, Log) {
        judged(move |_| code)
    }

    /// An API server that answers by path.
    fn judged(judge: impl Fn(&str) -> u16 + Clone + Send + 'static) -> (Client, Log) {
        let log = Log::default();
        let seen = log.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path();
            seen.lock().unwrap().push(format!("{} {path}", request.method()));
            let code = judge(path);
            async move {
                let body =
                    if code < 300 { json!({}) } else { json!({ "code": code, "message": "no" }) };
                let body = Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, tower::BoxError>(Response::builder().status(code).body(body).unwrap())
            }
        });
        (Client::new(service, "default"), log)
    }

    fn report(note: &str) -> Report {
        let regarding = ObjectReference {
            kind: Some("Service".to_owned()),
            name: Some("web".to_owned()),
            namespace: Some("shop".to_owned()),
            uid: Some("1".to_owned()),
            ..Default::default()
        };
        Report {
            regarding,
            severity: Severity::Warning,
            reason: "NoPool",
            action: "Allocate",
            note: note.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_become_a_count_and_not_new_events() {
        let (client, log) = scripted(201);
        let (_events, mut publisher) = channel(client, "berth-ccm", "ccm-0");
        let start = Instant::now();
        for second in 0..120 {
            publisher.take(report("nothing free"), start + Duration::from_secs(second)).await;
        }
        publisher.take(report("another note"), start).await;
        let log = log.lock().unwrap();
        let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
        let created = log.iter().filter(|line| **line == format!("POST {path}")).count();
        let patched =
            log.iter().filter(|line| line.starts_with(&format!("PATCH {path}/web."))).count();
        assert_eq!((created, patched), (2, 1), "{log:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_something_else_each_time_takes_little_room_and_what_repeats_is_still_known()
    {
        let (client, log) = scripted(201);
        let (_events, mut publisher) = channel(client, "berth-ccm", "ccm-0");
        let start = Instant::now();
        for number in 0..MOST * 2 {
            let now = start + Duration::from_millis(number.try_into().unwrap());
            publisher.take(report(&number.to_string()), now).await;
            publisher.take(report("the same"), now).await;
            assert!(publisher.series.len() <= MOST, "{number}");
        }
        assert_eq!(log.lock().unwrap().len(), MOST * 2 + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_loses_and_counts_and_never_waits() {
        let (client, _) = scripted(201);
        let (events, publisher) = channel(client, "berth-ccm", "ccm-0");
        for number in 0..QUEUE + 5 {
            events.publish(report(&number.to_string()));
        }
        assert_eq!(events.lost(), 5);
        drop(events);
        publisher.run().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_event_is_not_tried_again_and_a_lost_one_is() {
        for (code, attempts) in [(403, 2), (409, 1), (422, 1), (429, 3), (503, 3)] {
            let (client, log) = scripted(code);
            let (_events, mut publisher) = channel(client, "berth-ccm", "ccm-0");
            publisher.take(report("note"), Instant::now()).await;
            assert_eq!(log.lock().unwrap().len(), attempts, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_role_knows_them_by_their_older_name_alone_they_are_written_by_that() {
        let (client, log) = judged(|path| if path.starts_with("/apis/events") { 403 } else { 201 });
        let (_events, mut publisher) = channel(client, "berth-ccm", "ccm-0");
        let start = Instant::now();
        for note in ["one", "another", "one"] {
            publisher.take(report(note), start + PERIOD).await;
        }
        publisher.take(report("one"), start + 3 * PERIOD).await;
        let older = "POST /api/v1/namespaces/shop/events";
        let log = log.lock().unwrap();
        let newer = "POST /apis/events.k8s.io/v1/namespaces/shop/events";
        assert_eq!(log[..3], [newer, older, older]);
        assert!(log[3].starts_with("PATCH /api/v1/namespaces/shop/events/web."), "{log:?}");
        assert_eq!((log.len(), publisher.lost.load(Ordering::Relaxed)), (4, 0));
        let event = of_core(publisher.event(&report("note"), Timestamp::UNIX_EPOCH));
        assert_eq!(event.involved_object.name.as_deref(), Some("web"));
        assert_eq!(
            (event.message.as_deref(), event.type_.as_deref()),
            (Some("note"), Some("Warning"))
        );
        assert!(event.event_time.is_some() && event.reporting_component.is_some());
    }

    #[tokio::test]
    async fn a_long_note_is_cut_to_what_the_api_takes() {
        let (client, _) = scripted(201);
        let (_events, publisher) = channel(client, "berth-ccm", "ccm-0");
        let event = publisher.event(&report(&"ä".repeat(2000)), Timestamp::UNIX_EPOCH);
        assert_eq!(event.note.unwrap().len(), NOTE);
        let event = publisher.event(&report("a\nb"), Timestamp::UNIX_EPOCH);
        assert_eq!(event.note.as_deref(), Some(r"a\nb"), "and is on one line");
    }
}
