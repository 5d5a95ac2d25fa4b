//! Owns the one loop: what the watches show goes into the index, what the index wants is written, what came of it goes
//! back. Writes for one object never overlap; writes for many run at once.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use berth_api::Quoted;
use berth_api::eip::EipBinding;
use berth_api::election::Election;
use berth_api::names::annotation;
use berth_index::claimant::Id;
use berth_index::intake::{Change, Intake};
use berth_index::report::{About, Report};
use berth_index::rests::{self, Recalled};
use berth_index::write::{Outcome, Write};
use berth_index::{Index, Source};
use berth_ipam::OwnerKind;
use berth_runtime::events::{self, Events};
use berth_runtime::http::{self, Health};
use berth_runtime::lease::{self, Tenure, Word};
use berth_runtime::rights::tell;
use berth_runtime::supervise::{self, Supervisor};
use berth_runtime::{client, shutdown};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::held::Doubt;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::rights;
use crate::watches;
use crate::writer::Writer;
use crate::writes::Writes;

/// Changes that are taken in before the index is asked again: a burst costs one decision, not one for each.
const BATCH: usize = 256;
/// How long the index is asked in a row, while it has much to look at, before answers, watches and probes have their turn.
const STRETCH: Duration = Duration::from_millis(50);
/// How often metrics and probes are refreshed when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// Where the clock of the index starts: what was given back before this process started has a time on it too.
const PAST: Duration = Duration::from_secs(60 * 60 * 24);
const ALIVE: Duration = Duration::from_secs(30);
/// How long the end may take, each part of it. The pod is given 15 seconds.
const DRAIN: Duration = Duration::from_secs(6);
const LEAVE: Duration = Duration::from_secs(3);
const FLUSH: Duration = Duration::from_secs(2);
/// The tasks that have something to end.
const LEASE: &str = "lease";
const EVENTS: &str = "events";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: a setting or the kubeconfig is not usable.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    let timing = options.timing()?;
    let identity = identity(&options)?;
    supervise::name_panics();
    let mut supervisor = Supervisor::new();
    let (stop, signals) = shutdown::on_signals().context("cannot handle signals")?;
    supervisor.spawn("signals", signals);
    let client = client::connect(client::configure(options.kubeconfig.as_deref()).await?)?;

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let health = Health::new(Source::REQUIRED.map(Source::name));
    let closed = CancellationToken::new();
    let pages = http::Pages::probes(health.clone()).with_metrics(Arc::new(registry));
    let listener = http::Listener { check: "--http-address", needed: true };
    let serving = http::keep(listener, options.http_address, pages, health.clone(), closed.clone());
    supervisor.spawn("http server", serving);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity, pools = %environment.pools, "starting");

    let home = &options.leader_elect_resource_namespace;
    let needed = rights::needed(&environment.pools, home, &options.leader_elect_resource_name);
    supervisor.spawn("rights", tell(client.clone(), needed, health.clone()));
    let (events, publisher) = events::channel(client.clone(), "berth-ccm", &identity);
    supervisor.spawn(EVENTS, publisher.run());
    let leave = CancellationToken::new();
    let word = Word::new(annotation::RESTING, annotation::RESTING_BY);
    let tenure = if options.leader_elect {
        let (sender, tenure) = Tenure::granted();
        let template = lease::template(
            &options.leader_elect_resource_namespace,
            &options.leader_elect_resource_name,
        );
        let election = Election::new(template, identity, timing);
        let word = Some(word.clone());
        let contest = lease::contend(client.clone(), election, sender, word, leave.clone());
        supervisor.spawn(LEASE, contest);
        tenure
    } else {
        Tenure::unlimited()
    };

    let writer = Writer::new(
        client.clone(),
        environment.classes.clone(),
        tenure.clone(),
        &options.leader_elect_resource_namespace,
    );
    let changes = watches::all(
        &client,
        &environment.pools,
        &options.leader_elect_resource_namespace,
        environment.classes.clone(),
    );
    let work = Loop {
        start: Instant::now(),
        index: Index::new(environment.pools.clone()),
        intake: Intake::default(),
        leadership: Leadership { tenure, word, leads: false },
        writes: Writes::new(writer, options.concurrent_writes.into()),
        events,
        metrics,
        health,
        doubt: Doubt::default(),
        anew: None,
    };
    supervisor.during(work.run(changes, stop)).await?;

    leave.cancel();
    if !supervisor.finish(&[LEASE], LEAVE).await.is_empty() {
        tracing::warn!("the Lease could not be given back: it expires by itself");
    }
    if !supervisor.finish(&[EVENTS], FLUSH).await.is_empty() {
        tracing::warn!("some Events were not sent");
    }
    closed.cancel();
    tracing::info!("stopped");
    Ok(())
}

fn identity(options: &Options) -> anyhow::Result<String> {
    let named = options.identity.clone().or_else(|| std::env::var("POD_NAME").ok());
    match named.filter(|name| !name.is_empty()) {
        Some(name) => Ok(name),
        None => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
                .context("the host has no name: set --identity")?;
            Ok(name.trim().to_owned())
        }
    }
}

struct Loop {
    start: Instant,
    index: Index,
    intake: Intake,
    leadership: Leadership,
    writes: Writes,
    events: Events,
    metrics: Metrics,
    health: Health,
    doubt: Doubt,
    /// Why this process is to end and another to begin: what it holds is not what counts any more.
    anew: Option<&'static str>,
}

impl Loop {
    async fn run(mut self, changes: BoxStream<'static, Change>, stop: CancellationToken) {
        let mut changes = changes.ready_chunks(BATCH);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            let has_more = self.step();
            if let Some(why) = self.anew {
                tracing::warn!("ending, to begin anew: {why}");
                break;
            }
            // While all writes are under way the end of one is what is waited for.
            let due = self.index.deadline().filter(|_| self.writes.free() > 0);
            let wake = due.map(|at| self.start + at.saturating_sub(PAST));
            tokio::select! {
                Some(batch) = changes.next() => {
                    let now = self.now();
                    batch.into_iter().for_each(|change| self.take(change, now));
                }
                Some((write, outcome)) = self.writes.next() => {
                    self.settle(&write, outcome);
                    while let Some((write, outcome)) = self.writes.answered() {
                        self.settle(&write, outcome);
                    }
                }
                () = self.leadership.tenure.changed() => {}
                () = sleep_until(wake) => {}
                () = tokio::task::yield_now(), if has_more => {}
                _ = tick.tick() => self.show(),
                () = stop.cancelled() => {}
            }
        }
        self.drain().await;
    }

    fn now(&self) -> Duration {
        PAST + self.start.elapsed()
    }

    /// Starts what the index wants. Returns whether it has more to look at.
    fn step(&mut self) -> bool {
        if let Some(leads) = self.leadership.news(Instant::now()) {
            self.metrics.leads(leads);
            match leads {
                true => {
                    self.recall();
                    self.index.lead(self.now());
                }
                false => {
                    self.leadership.word.say(None);
                    self.index.follow();
                    if self.writes.held().has_begun() {
                        self.anew = Some(
                            "another may give addresses out, of which nothing would be known here",
                        );
                    }
                }
            }
        }
        let has_more = self.ask(Instant::now());
        self.index.take_latencies().into_iter().for_each(|latency| self.metrics.served(latency));
        for report in self.index.take_reports() {
            self.publish(report);
        }
        has_more
    }

    /// Asks the index until it has nothing more, or for so long since `begun`. Returns whether it has more.
    fn ask(&mut self, begun: Instant) -> bool {
        while let free @ 1.. = self.writes.free() {
            let writes = self.index.poll(self.now(), free);
            if writes.is_empty() && !self.index.is_behind() {
                return false;
            }
            writes.into_iter().for_each(|write| self.writes.start(write));
            if begun.elapsed() >= STRETCH {
                return true;
            }
        }
        false
    }

    /// Takes over what rests from the one that led before.
    fn recall(&mut self) {
        let Some(text) = self.leadership.word.heard() else { return };
        let now = self.now();
        match rests::read(&text, now, unix()) {
            Ok(Recalled { rests, asides }) => {
                for (address, owner, since) in rests {
                    self.index.rest(address, owner, since);
                }
                for (address, namespace, until) in asides {
                    self.index.set_aside(address, &namespace, until, now);
                }
            }
            Err(error) => tracing::warn!(
                "Lease: annotation `{}`: value {} is not accepted and passed over: {error}; what it names does not rest any more",
                annotation::RESTING,
                Quoted::of(&text)
            ),
        }
    }

    /// Leaves word of what rests for the one that leads next.
    fn remember(&self) {
        if self.writes.held().has_begun() {
            self.leadership.word.take_back();
        } else if self.leadership.leads && self.index.has_adopted() {
            self.leadership.word.say(Some(rests::write(self.index.ledger(), self.now(), unix())));
        }
    }

    fn take(&mut self, change: Change, now: Duration) {
        self.doubt.take(&change, Instant::now());
        match (&change, self.writes.held().has_begun()) {
            // Said once it is beyond doubt.
            (Change::Absent(Source::Claims), _) => return,
            (Change::Claim(_) | Change::Listed(Source::Claims), true) => {
                self.anew = Some("claims may be kept in the cluster now");
                return;
            }
            _ => {}
        }
        self.take_in(change, now);
    }

    fn take_in(&mut self, change: Change, now: Duration) {
        if let Change::Listed(source) | Change::Absent(source) = &change {
            self.health.ready(source.name());
        }
        self.intake.take(change, &mut self.index, now);
    }

    fn settle(&mut self, write: &Write, outcome: Outcome) {
        self.metrics.wrote(write, &outcome);
        self.writes.note(write, &outcome);
        let now = self.now();
        let ends = matches!(outcome, Outcome::Released) && self.writes.held().has_begun();
        self.index.settle(write, outcome, now);
        if let (
            true,
            Write::LeaveClaim { address, uid, .. } | Write::JoinClaim { address, uid, .. },
        ) = (ends, write)
        {
            // No watch shows it.
            self.take(Change::ClaimGone(*address, uid.clone()), now);
        }
    }

    /// Holds claims here once it is beyond doubt that the cluster does not.
    fn hold(&mut self) {
        if self.writes.held().has_begun() || !self.doubt.is_over(Instant::now()) {
            return;
        }
        tracing::warn!(
            "claims are kept in memory, since there are no ipaddresses.networking.k8s.io that the account may list: this process \
             gives no address twice, and does not know what another one gives at the same time"
        );
        self.writes.held().begin();
        self.take_in(Change::Absent(Source::Claims), self.now());
    }

    fn show(&mut self) {
        self.hold();
        self.remember();
        self.health.alive("loop", Instant::now(), ALIVE);
        self.metrics.show(&self.index, self.events.lost());
    }

    fn publish(&self, report: Report) {
        let Report { about, is_warning, reason, note } = report;
        let (api_version, kind, key, uid) = match about {
            About::Claimant(Id { kind: OwnerKind::Service, key }, uid) => {
                ("v1".into(), "Service".into(), key, uid)
            }
            About::Claimant(id, uid) => {
                (EipBinding::api_version(&()), EipBinding::kind(&()), id.key, uid)
            }
            About::Pools(key, uid) => ("v1".into(), "ConfigMap".into(), key, uid),
        };
        let action = if kind == "ConfigMap" { "ReadPools" } else { "Allocate" };
        match is_warning {
            true => tracing::warn!("{kind} {key}: {reason}: {note}"),
            false => tracing::info!("{kind} {key}: {reason}: {note}"),
        }
        let regarding = ObjectReference {
            api_version: Some(api_version.into_owned()),
            kind: Some(kind.into_owned()),
            namespace: Some(key.namespace),
            name: Some(key.name),
            uid: Some(uid),
            ..Default::default()
        };
        let severity =
            if is_warning { events::Severity::Warning } else { events::Severity::Normal };
        self.events.publish(events::Report { regarding, severity, reason, action, note });
    }

    /// Finishes what is under way and starts nothing more.
    async fn drain(&mut self) {
        let finish = async {
            while let Some((write, outcome)) = self.writes.next().await {
                self.settle(&write, outcome);
            }
        };
        if tokio::time::timeout(DRAIN, finish).await.is_err() {
            tracing::warn!("{} writes were still without an answer", self.writes.count());
        }
        self.remember();
        for report in self.index.take_reports() {
            self.publish(report);
        }
    }
}

/// Whether this process leads, and the word that it leaves to the one that leads next.
struct Leadership {
    tenure: Tenure,
    word: Word,
    leads: bool,
}

impl Leadership {
    /// Whether this process leads, if that has changed since it was last asked.
    fn news(&mut self, now: Instant) -> Option<bool> {
        let leads = self.tenure.until(now).is_some();
        let led = std::mem::replace(&mut self.leads, leads);
        (leads != led).then_some(leads)
    }
}

/// The time since 1970.
fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
