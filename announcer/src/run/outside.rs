//! What others see of this process: numbers, probes, and what is known of each address.

use std::sync::Arc;

use berth_runtime::http::{self, Health, Listener, Pages};
use berth_runtime::supervise::Supervisor;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::inquiry::{dump_on_signal, page};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::reconcile::CHECKS;
use crate::reconcile::drive::{About, Inquiry};

/// Where what is known of each address is asked for.
const VIPS: &str = "/debug/vips";

/// The same of each router.
const ROUTERS: &str = "/debug/bgp";

/// The check of the port of the metrics.
const METRICS: &str = "prometheus_server";

/// What others see of this process.
pub(super) struct Outside {
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) inquiries: mpsc::Receiver<Inquiry>,
    pub(super) closed: CancellationToken,
}

impl Outside {
    /// Listens, and answers from now on.
    pub(super) fn open(config: &Config, supervisor: &mut Supervisor) -> anyhow::Result<Self> {
        let (health, metrics) = (Health::new(CHECKS), Metrics::default());
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        if config.control_plane.is_some() {
            metrics.register_control_plane(&mut registry);
        }
        let (ask, inquiries) = mpsc::channel(1);
        let closed = CancellationToken::new();
        let page = |of| -> http::Page {
            let asked = ask.clone();
            Arc::new(move || page(asked.clone(), of))
        };
        let probes = Pages::probes(health.clone())
            .with_local(VIPS, page(About::Vips))
            .with_local(ROUTERS, page(About::Routers));
        let all = probes.clone().with_metrics(Arc::new(registry));
        let mut listen = |name, check, address, pages: &Pages| {
            // Who asks at a port of its own asks no kube-vip, and is as ready where that has the port of the metrics.
            let needed = check != METRICS || config.http.health.is_none();
            let listener = Listener { check, needed };
            let keep = http::keep(listener, address, pages.clone(), health.clone(), closed.clone());
            supervisor.spawn(name, keep);
        };
        if let Some(address) = config.http.metrics {
            listen("metrics server", METRICS, address, &all);
        }
        if let Some(address) = config.http.health {
            listen("health server", "health_check_port", address, &probes);
        }
        for address in config.http.probes() {
            match address.is_ipv4() {
                true => listen("probes", "probes", address, &probes),
                false => listen("probes by IPv6", "probes/ipv6", address, &probes),
            }
        }
        supervisor.spawn("SIGUSR1", dump_on_signal(ask)?);
        Ok(Self { health, metrics, inquiries, closed })
    }
}
