//! The task that has the peers. It ends when nobody orders anything any more: routers are told so, and keep nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::Policy;
use berth_runtime::http::Health;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::awaited::Awaited;
use super::hops::{self, Own};
use super::line::{Around, Desk, Line};
use super::passwords::Secrets;
use super::peers::{Ends, Peers, Settings, Terms};
use super::port;
use super::routed::{Orders, Said};
use super::told::Told;
use super::words::{self, Alarms};
use crate::config::Bgp;
use crate::metrics::Metrics;

/// The name of the task.
pub const TASK: &str = "bgp";

/// That of what the annotations of the node say.
const NOTES: &str = "bgp/annotations";

/// That of what the ConfigMap says.
const MAP: &str = "bgp/configmap";

/// How long the own Node is waited for: an account may not see it.
const NODE: Duration = Duration::from_secs(5);

/// That of the sessions that were up in an earlier life.
const RESTART: &str = "bgp/restart";
/// That of the port that peers connect to.
const PORT: &str = "bgp/listen";

/// How often a port that is another program's is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// What the speaker goes by.
pub struct Speaker {
    desk: Desk,
    settings: Settings,
    awaited: Awaited,
    /// Tells that the addresses of the host may be others.
    looks: watch::Receiver<()>,
}

impl Speaker {
    /// Of a node with this interface, by settings. Passwords in Secrets are read by `secrets`.
    pub fn new(
        node: &str,
        interface: Option<String>,
        settings: &Bgp,
        secrets: Secrets,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        let Bgp { speaker, peers, notes, is_mixed, .. } = settings.clone();
        let settings = Settings { speaker, peers, prefix: notes, is_mixed };
        let desk = Desk { node: node.to_owned(), interface, metrics, health, secrets };
        Self { desk, settings, awaited: Awaited::default(), looks: watch::channel(()).1 }
    }

    /// The same, with the sessions that were up in an earlier life of this process: it is ready once they are again.
    pub fn awaiting(self, awaited: Awaited) -> Self {
        Self { awaited, ..self }
    }

    /// The same, which looks at the addresses of the host whenever this tells that they may be others.
    pub fn looking(self, looks: watch::Receiver<()>) -> Self {
        Self { looks, ..self }
    }

    /// Keeps sessions with all peers, those that the node's annotations name among them, announces what is ordered, and tells
    /// what is known.
    pub async fn keep(
        self,
        mut said: watch::Receiver<Said>,
        mut orders: watch::Receiver<Orders>,
        tell: watch::Sender<Told>,
    ) {
        let Self { desk, settings, mut awaited, mut looks } = self;
        let mut heard = tell.subscribe();
        let (desk, tell) = (Arc::new(desk), Arc::new(tell));
        desk.judge(&tell.borrow());
        let mut lines: BTreeMap<Ends, watch::Sender<Terms>> = BTreeMap::new();
        let (mut peers, (set_policy, policy)) =
            (Peers::default(), watch::channel(Policy::default()));
        let ((set_door, door), mut open) = (watch::channel(None), None);
        let (mut own, (set_own, others)) = (Own::default(), watch::channel(Own::default()));
        let around = Around {
            desk: desk.clone(),
            policy,
            orders: orders.clone(),
            tell: tell.clone(),
            door,
            own: others,
        };
        let mut alarms = Alarms::default();
        let mut tasks = JoinSet::new();
        // What a node says of itself changes sessions that have begun without it.
        let all_said = async {
            let mut said = said.clone();
            _ = said.wait_for(|said| said.data.is_some()).await;
            _ = tokio::time::timeout(NODE, said.wait_for(|said| said.is_node_known)).await;
        };
        tokio::select! {
            () = all_said => {}
            () = ended(&mut orders) => return,
        }
        let (mut is_said, mut is_other) = (true, true);
        loop {
            if std::mem::take(&mut is_said) {
                peers.see(&settings, &said.borrow_and_update());
                for (check, flaws) in [(NOTES, &peers.of_notes), (MAP, &peers.of_map)] {
                    desk.tell_of(check, flaws);
                    alarms.see(check, flaws);
                }
            }
            // Before any peer is spoken to.
            tell.send_if_modified(|told| peers.tell(told));
            desk.judge(&tell.borrow());
            if std::mem::take(&mut is_other) && see(&mut own, &orders.borrow()) {
                set_own.send_replace(own.clone());
            }
            // No session ends for what it is told.
            set_policy.send_if_modified(|known| {
                let is_news = *known != peers.policy;
                known.clone_from(&peers.policy);
                is_news
            });
            // Another port is opened in the place of one that is closed.
            if open != peers.listen {
                set_door.send_replace(None);
                open = None;
                desk.tell_of(PORT, &[]);
            }
            if let (None, Some(listen)) = (&open, &peers.listen) {
                match port::open(listen, &orders.borrow().vips()) {
                    Ok(door) => {
                        set_door.send_replace(Some(Arc::new(door)));
                        open = Some(listen.clone());
                        desk.tell_of(PORT, &[]);
                    }
                    Err(why) => desk.tell_of(PORT, &[why]),
                }
            }
            let is_shut = open != peers.listen;
            // Who is named no more is told so: its line ends with its end of the channel. What is edited of one is its line's to follow.
            let wanted: BTreeMap<Ends, &Terms> =
                peers.all.values().map(|terms| (terms.ends(), terms)).collect();
            let before: Vec<Terms> = lines.values().map(|line| line.borrow().clone()).collect();
            words::changes(before.iter(), &peers.all);
            lines.retain(|ends, _| wanted.contains_key(ends));
            for (ends, terms) in wanted {
                let line = lines.entry(ends).or_insert_with(|| {
                    let (edit, edits) = watch::channel(terms.clone());
                    tasks.spawn(Line::new(around.clone(), edits).keep());
                    edit
                });
                line.send_if_modified(|known| {
                    let is_news = known != terms;
                    known.clone_from(terms);
                    is_news
                });
            }
            let known = said.borrow().data.is_some();
            heard.mark_unchanged();
            let over = wait_for(&desk.health, &mut awaited, known.then_some(&peers), &tell);
            tokio::select! {
                Ok(()) = said.changed() => is_said = true,
                Some(_) = tasks.join_next() => {}
                Ok(()) = heard.changed(), if over.is_some() => {}
                Ok(()) = looks.changed() => is_other = true,
                () = until(own.deadline()) => is_other = true,
                () = until(over) => {}
                () = tokio::time::sleep(AGAIN), if is_shut => {}
                () = ended(&mut orders) => break,
            }
        }
        // Each ends by the same; what was named until now is named still.
        while tasks.join_next().await.is_some() {}
    }
}

/// Looks at the addresses of the host, but for those that routers are told. Tells whether any is another.
fn see(own: &mut Own, orders: &Orders) -> bool {
    let vips = orders.vips();
    match hops::look() {
        Ok(all) => {
            let all = all.into_iter().filter(|(_, own)| !vips.contains(own)).collect();
            own.see(all, Instant::now())
        }
        Err(error) => {
            tracing::warn!(%error, "reading the addresses of this host");
            false
        }
    }
}

/// Looks whether the sessions of an earlier life are up again. Gives when they are waited for no longer, if any is; not before
/// it is known which peers there are.
fn wait_for(
    health: &Health,
    awaited: &mut Awaited,
    peers: Option<&Peers>,
    tell: &watch::Sender<Told>,
) -> Option<Instant> {
    if let Some(peers) = peers {
        awaited.see(&tell.borrow(), &peers.all, Instant::now());
    }
    match awaited.why() {
        Some(why) => health.unready(RESTART, why),
        None => health.forget(RESTART),
    }
    tell.send_if_modified(|told| {
        let is_news = told.awaited != *awaited.peers();
        told.awaited.clone_from(awaited.peers());
        is_news
    });
    if awaited.peers().is_empty() {
        return None;
    }
    awaited.until(&peers?.all)
}

async fn ended(orders: &mut watch::Receiver<Orders>) {
    while orders.changed().await.is_ok() {}
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
