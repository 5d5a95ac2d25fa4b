//! The sessions with routers, where they are asked for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use berth_fence::Kind;
use berth_runtime::http::Health;
use berth_runtime::supervise::Supervisor;
use kube::Client;
use tokio::sync::watch;

use super::ties::cluster_namespace;
use crate::advertise::bgp::{Awaited, Kept, Orders, Routed, Said, Secrets, Speaker, TASK, Told};
use crate::config::{Config, Fence, LOOPBACK};
use crate::kernel::{Binding, Host};
use crate::metrics::Metrics;
use crate::source::passwords::Passwords;

/// Whether addresses may be bound that routers lead here: only where neighbours are told nothing of them.
///
/// # Errors
/// Where no fence can be had, and that was not asked for.
pub(super) fn may_be_told(config: &Config, fence: Kind) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.bgp.is_none() || fence != Kind::Unfenced || config.fence == Fence::Unfenced,
        "bgp_enable: no fence can be had on this node, and neighbours that ask for an address by ARP would be answered; \
         docs/fence.md says what it needs, and berth_fence=unfenced goes without"
    );
    Ok(())
}

/// What of an earlier life stays, since routers may lead it here still.
pub(super) fn kept(config: &Config, host: &Host) -> (Kept, BTreeSet<Binding>) {
    // IPv6 is on the loopback interface, wherever IPv4 is.
    config.routed().map(|interface| Kept::of(host, &[interface, LOOPBACK])).unwrap_or_default()
}

/// What an earlier life has left of sessions.
#[derive(Default)]
pub(super) struct Before {
    /// What is bound still.
    pub(super) kept: Kept,
    /// Those that were up.
    pub(super) sessions: BTreeSet<String>,
}

/// Starts the sessions with routers, where they are asked for.
pub(super) fn start(
    config: &Config,
    client: Option<&Client>,
    interface: Option<String>,
    before: Before,
    metrics: &Metrics,
    health: &Health,
    supervisor: &mut Supervisor,
) -> (Option<Routed>, watch::Receiver<Told>) {
    let (tell, told) = watch::channel(Told::default());
    let Some(bgp) = &config.bgp else { return (None, told) };
    if let Some(name) = bgp.elected_by {
        tracing::warn!(
            "{name}=true elects nobody beside bgp_enable: every node that can serve an address announces it"
        );
    }
    let (order, orders) = watch::channel(Orders::default());
    let (say, said) = watch::channel(Said::default());
    let (node, secrets) = (&config.core.node, secrets(config, client));
    let speaker = Speaker::new(node, interface, bgp, secrets, metrics.clone(), health.clone());
    let (look, looks) = watch::channel(());
    let awaited = Awaited::new(before.sessions, Instant::now());
    let speaker = speaker.awaiting(awaited).looking(looks);
    supervisor.spawn(TASK, speaker.keep(said, orders, tell));
    (Some(Routed::new(order, told.clone(), say, before.kept).looking(look)), told)
}

/// Reads Secrets beside the ConfigMap that names them.
fn secrets(config: &Config, client: Option<&Client>) -> Secrets {
    let namespace = cluster_namespace(config);
    let passwords = client.map(|client| Passwords::new(client.clone(), &namespace));
    Arc::new(move |name, key| {
        let (passwords, name, key) = (passwords.clone(), name.to_owned(), key.to_owned());
        Box::pin(async move {
            match passwords {
                Some(passwords) => passwords.read(&name, &key).await,
                None => Err(format!("there is no cluster to read Secret {name} of")),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[tokio::test]
    async fn where_it_is_not_asked_for_nothing_is_started() {
        let config = Config::parse(&Settings::default(), "a").unwrap();
        let (metrics, health) = (Metrics::default(), Health::default());
        let before = Before::default();
        let (routed, mut told) =
            start(&config, None, None, before, &metrics, &health, &mut Supervisor::new());
        assert!(
            routed.is_none() && told.changed().await.is_err(),
            "nobody is left to tell anything"
        );
        assert!(health.unready_checks(std::time::Instant::now()).is_empty());
    }
}
