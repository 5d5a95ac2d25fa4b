//! What probes are answered with: checks by name, which whoever is concerned reports on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::freshness::Freshness;

/// The checks behind `/healthz` and `/readyz`, by name. A name that nobody reported on yet fails.
#[derive(Clone, Debug, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<&'static str, Check>>>,
}

#[derive(Clone, Debug)]
enum Check {
    /// Ready, or why not.
    Ready(Result<(), String>),
    /// What is missing and no reason to be unready.
    Missing(String),
    /// Alive, if it was last reported within this time.
    Alive { last: Instant, within: Duration },
    /// Ready while a watch is fresh. Says nothing about being alive: without the cluster the program has to go on.
    Fresh(Freshness),
}

impl Health {
    /// Health that is ready once each of these was reported [`Health::ready`].
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        let health = Self::default();
        for name in names {
            health.unready(name, "not yet");
        }
        health
    }

    /// The check passes.
    pub fn ready(&self, name: &'static str) {
        self.put(name, Check::Ready(Ok(())));
    }

    /// The check fails, and why.
    pub fn unready(&self, name: &'static str, why: impl Into<String>) {
        self.put(name, Check::Ready(Err(why.into())));
    }

    /// Something is missing, and why, without which this is as ready: `/readyz` says so and passes.
    pub fn missing(&self, name: &'static str, why: impl Into<String>) {
        self.put(name, Check::Missing(why.into()));
    }

    /// The check fails, and why: logged too, when that is not what it fails for already. For whoever tries again and again.
    pub fn waits(&self, name: &'static str, why: String) {
        if self.is_news(name, &why) {
            tracing::error!("{why}");
        }
        self.unready(name, why);
    }

    /// The same of what is so whenever a node starts, and by itself is not for long: logged as a warning.
    pub fn expects(&self, name: &'static str, why: String) {
        if self.is_news(name, &why) {
            tracing::warn!("{why}");
        }
        self.unready(name, why);
    }

    /// Whether it is not what the check fails for already.
    fn is_news(&self, name: &str, why: &str) -> bool {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(checks.get(name), Some(Check::Ready(Err(known))) if known == why)
    }

    /// Something that must go on is going on: `/healthz` fails when this is not said again `within` the time.
    pub fn alive(&self, name: &'static str, now: Instant, within: Duration) {
        self.put(name, Check::Alive { last: now, within });
    }

    /// Ready only while the watch is fresh.
    pub fn fresh(&self, freshness: &Freshness) {
        self.put(freshness.name(), Check::Fresh(freshness.clone()));
    }

    /// There is nothing to check under this name any more.
    pub fn forget(&self, name: &str) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What is not ready, by name.
    pub fn unready_checks(&self, now: Instant) -> Vec<(&'static str, String)> {
        self.failing(|check| match check {
            Check::Ready(ready) => ready.clone().err(),
            Check::Fresh(freshness) => freshness.stale(now),
            Check::Alive { .. } | Check::Missing(_) => None,
        })
    }

    /// What is missing and no reason to be unready, by name.
    pub fn missing_checks(&self) -> Vec<(&'static str, String)> {
        self.failing(|check| match check {
            Check::Missing(why) => Some(why.clone()),
            _ => None,
        })
    }

    /// What has stopped, by name.
    pub fn dead_checks(&self, now: Instant) -> Vec<(&'static str, String)> {
        self.failing(|check| match check {
            Check::Alive { last, within } if now.duration_since(*last) > *within => {
                Some(format!("silent for {:.0?}", now.duration_since(*last)))
            }
            _ => None,
        })
    }

    fn put(&self, name: &'static str, check: Check) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, check);
    }

    fn failing(&self, why: impl Fn(&Check) -> Option<String>) -> Vec<(&'static str, String)> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter_map(|(name, check)| Some((*name, why(check)?))).collect()
    }
}
