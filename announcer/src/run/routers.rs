//! The sessions with routers, where they are asked for.

use berth_fence::Kind;
use berth_runtime::http::Health;
use berth_runtime::supervise::Supervisor;
use tokio::sync::watch;

use crate::advertise::bgp::{Routed, Said, Speaker, TASK, Told};
use crate::config::{Config, Fence};
use crate::metrics::Metrics;

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

/// Starts the sessions with routers, where they are asked for.
pub(super) fn start(
    config: &Config,
    interface: Option<String>,
    metrics: &Metrics,
    health: &Health,
    supervisor: &mut Supervisor,
) -> (Option<Routed>, watch::Receiver<Told>) {
    let (tell, told) = watch::channel(Told::default());
    let Some(bgp) = &config.bgp else { return (None, told) };
    if let Some(name) = bgp.elected_by {
        tracing::warn!(
            "{name}=true elects nobody beside bgp_enable: every node that can serve a Service announces it"
        );
    }
    let (order, orders) = watch::channel(Vec::new());
    let (say, said) = watch::channel(Said::default());
    let settings = (bgp.speaker.clone(), bgp.peers.clone(), bgp.notes.clone());
    let speaker =
        Speaker::new(&config.core.node, interface, settings, metrics.clone(), health.clone());
    supervisor.spawn(TASK, speaker.keep(said, orders, tell));
    (Some(Routed::new(order, told.clone(), say)), told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[tokio::test]
    async fn where_it_is_not_asked_for_nothing_is_started() {
        let config = Config::parse(&Settings::default(), "a").unwrap();
        let (metrics, health) = (Metrics::default(), Health::default());
        let (routed, mut told) = start(&config, None, &metrics, &health, &mut Supervisor::new());
        assert!(
            routed.is_none() && told.changed().await.is_err(),
            "nobody is left to tell anything"
        );
        assert!(health.unready_checks(std::time::Instant::now()).is_empty());
    }
}
