//! Settings of what listens for people and probes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::settings::{Problem, Settings};

const DEFAULT_PROMETHEUS: &str = ":2112";

/// What listens for people and probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Where `/metrics`, `/healthz` and `/readyz` listen.
    pub metrics: Option<SocketAddr>,
    /// Where `/healthz` and `/readyz` listen as well.
    pub health: Option<SocketAddr>,
}

impl Http {
    /// Where `/metrics`, `/healthz` and `/readyz` listen unless a setting that can be followed says otherwise.
    pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 2112);
}

/// `host:port` as Go's `net.Listen` takes it: an empty host stands for every address.
pub(super) fn metrics(settings: &Settings) -> Result<Option<SocketAddr>, Problem> {
    if settings.is_empty("prometheus_server") {
        return Ok(None);
    }
    let text = settings.text("prometheus_server").unwrap_or(DEFAULT_PROMETHEUS);
    let full = text.strip_prefix(':').map(|port| format!("[::]:{port}"));
    let address = full.as_deref().unwrap_or(text).parse();
    address.map(Some).map_err(|_| {
        settings.problem("prometheus_server", "accepted is ADDRESS:PORT or :PORT, such as :2112")
    })
}

pub(super) fn health(settings: &Settings) -> Option<SocketAddr> {
    let port = settings.number("health_check_port").and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port != 0)?;
    Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
}
