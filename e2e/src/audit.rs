//! Watches Services from outside and judges how their addresses were given: to whom, after how long, in which order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::task::JoinHandle;

use crate::world::annotated;

/// A watch on the Services of type LoadBalancer of the whole cluster. Ends when it is dropped.
pub struct Audit {
    findings: Arc<Mutex<Findings>>,
    watch: JoinHandle<()>,
}

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Addresses that were written to two Services at once, neither of them being deleted.
    pub duplicates: Vec<String>,
    /// From the first sight of a Service to the sight of its addresses, for each that was seen without.
    pub latencies: Vec<Duration>,
    /// How many later ones were served, at most, while a Service waited. Whole seconds count, as in creation times.
    pub most_overtaken: usize,
    lives: BTreeMap<String, Life>,
    holders: HashMap<IpAddr, String>,
    /// While a list is under way: who has not come in it.
    unlisted: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Life {
    created: i64,
    seen: Instant,
    addresses: Vec<IpAddr>,
    is_deleting: bool,
    overtaken: usize,
}

impl Audit {
    /// Starts the watch; returns once it is complete. What is there already counts as seen now.
    pub async fn start(client: Client) -> Self {
        let findings = Arc::new(Mutex::new(Findings::default()));
        let noted = findings.clone();
        let (complete, mut is_complete) = tokio::sync::watch::channel(false);
        let watch = tokio::spawn(async move {
            let services = Api::<Service>::all(client);
            let mut events = watcher(services, watcher::Config::default()).boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        let is_last = matches!(event, Event::InitDone);
                        lock(&noted).take(event, Instant::now());
                        complete.send_if_modified(|complete| {
                            is_last && !std::mem::replace(complete, true)
                        });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        // The sender lives as long as the watch, which has no end of its own.
        let _ = is_complete.wait_for(|complete| *complete).await;
        Self { findings, watch }
    }

    /// What was found so far.
    #[must_use]
    pub fn findings(&self) -> Findings {
        lock(&self.findings).clone()
    }

    /// How many Services have addresses and are not being deleted.
    #[must_use]
    pub fn served(&self) -> usize {
        lock(&self.findings).count(|life| !life.addresses.is_empty())
    }

    /// How many Services there are, also those that are being deleted.
    #[must_use]
    pub fn known(&self) -> usize {
        lock(&self.findings).count(|_| true)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Findings {
    /// The latency that a share of all does not exceed, e.g. 0.99; zero if there is none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        quantile(&self.latencies, share)
    }

    fn count(&self, wanted: impl Fn(&Life) -> bool) -> usize {
        self.lives.values().filter(|life| wanted(life)).count()
    }

    fn take(&mut self, event: Event<Service>, now: Instant) {
        match event {
            Event::Init => self.unlisted = self.lives.keys().cloned().collect(),
            Event::InitDone => {
                std::mem::take(&mut self.unlisted).iter().for_each(|uid| self.remove(uid));
            }
            Event::Apply(service) => self.apply(&service, now),
            Event::InitApply(service) => {
                self.unlisted.remove(&service.uid().unwrap_or_default());
                self.apply(&service, now);
            }
            Event::Delete(service) => self.remove(&service.uid().unwrap_or_default()),
        }
    }

    fn remove(&mut self, uid: &str) {
        for address in self.lives.remove(uid).into_iter().flat_map(|life| life.addresses) {
            self.forget(address, uid);
        }
    }

    fn forget(&mut self, address: IpAddr, uid: &str) {
        if self.holders.get(&address).is_some_and(|holder| holder == uid) {
            self.holders.remove(&address);
        }
    }

    fn apply(&mut self, service: &Service, now: Instant) {
        let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
        let (Some(uid), Some("LoadBalancer")) = (service.uid(), kind) else { return };
        let created = service.creation_timestamp().map_or(0, |time| time.0.as_second());
        let is_deleting = service.metadata.deletion_timestamp.is_some();
        let addresses = if is_deleting { Vec::new() } else { annotated(service) };
        let before = self.lives.get(&uid).map(|life| life.addresses.clone()).unwrap_or_default();
        for address in before.into_iter().filter(|address| !addresses.contains(address)) {
            self.forget(address, &uid);
        }
        for address in &addresses {
            if let Some(other) = self.holders.insert(*address, uid.clone())
                && other != uid
            {
                self.duplicates.push(format!("{address} is {other}'s and {uid}'s"));
            }
        }
        let known = self.lives.get(&uid);
        let waited = known.filter(|life| life.addresses.is_empty() && !life.is_deleting);
        let seen = known.map_or(now, |life| life.seen);
        let overtaken = known.map_or(0, |life| life.overtaken);
        if waited.is_some() && !addresses.is_empty() {
            self.latencies.push(now - seen);
            self.most_overtaken = self.most_overtaken.max(overtaken);
            let older = self.lives.values_mut().filter(|life| life.created < created);
            let waiting = older.filter(|life| life.addresses.is_empty() && !life.is_deleting);
            waiting.for_each(|life| life.overtaken += 1);
        }
        let life = Life { created, seen, addresses, is_deleting, overtaken };
        self.lives.insert(uid, life);
    }
}

/// The duration that a share of `durations` does not exceed; zero if there is none.
#[must_use]
pub fn quantile(durations: &[Duration], share: f64) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn lock(findings: &Mutex<Findings>) -> MutexGuard<'_, Findings> {
    findings.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(uid: &str, second: u32, address: &str) -> Event<Service> {
        let annotations = json!({ crate::world::ADDRESSES: address });
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let metadata = json!({ "name": uid, "uid": uid, "creationTimestamp": created, "annotations": annotations });
        let object = json!({ "metadata": metadata, "spec": { "type": "LoadBalancer" } });
        Event::Apply(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn two_holders_of_one_address_are_found() {
        let mut findings = Findings::default();
        let now = Instant::now();
        findings.take(service("a", 0, "192.0.2.1"), now);
        findings.take(service("b", 0, "192.0.2.2"), now);
        assert!(findings.duplicates.is_empty());
        findings.take(service("b", 0, "192.0.2.1"), now);
        assert_eq!(findings.duplicates.len(), 1);
    }

    #[test]
    fn whoever_is_served_before_an_older_one_overtakes() {
        let mut findings = Findings::default();
        let now = Instant::now();
        for (uid, second) in [("a", 0), ("b", 1), ("c", 1)] {
            findings.take(service(uid, second, ""), now);
        }
        for (uid, second, address) in
            [("c", 1, "192.0.2.1"), ("b", 1, "192.0.2.2"), ("a", 0, "192.0.2.3")]
        {
            findings.take(service(uid, second, address), now + Duration::from_secs(1));
        }
        assert_eq!(findings.most_overtaken, 2);
        assert_eq!(findings.quantile(0.99), Duration::from_secs(1));
    }
}
