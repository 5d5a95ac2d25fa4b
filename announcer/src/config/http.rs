//! Settings of what listens for people and probes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::settings::{Problem, Settings};

const DEFAULT_PROMETHEUS: &str = ":2112";
/// Where probes ask on loopback unless a setting names another port.
const PORT: u16 = 2112;
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// What listens for people and probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Where `/metrics`, `/healthz` and `/readyz` listen.
    pub metrics: Option<SocketAddr>,
    /// Where `/healthz` and `/readyz` listen as well.
    pub health: Option<SocketAddr>,
}

impl Http {
    /// What settings ask for. What is wrong with them listens nowhere.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self { metrics: metrics(settings).ok().flatten(), health: health(settings) }
    }

    /// The port at which `/healthz` and `/readyz` are met at 127.0.0.1, whatever else listens where.
    pub(crate) fn port_of_probes(&self) -> u16 {
        let all = [self.health, self.metrics];
        let on = |loopback: &IpAddr| {
            all.into_iter().flatten().find(|address| is_met_at(address, loopback))
        };
        LOOPBACK.iter().find_map(on).map_or(PORT, |address| address.port())
    }

    /// Where `/healthz` and `/readyz` listen besides, so that processes of this host can always ask: on loopback, as far as
    /// nothing else listens there.
    pub fn probes(&self) -> Vec<SocketAddr> {
        let all = [self.metrics, self.health];
        let on = |loopback: &IpAddr| {
            all.into_iter().flatten().find(|address| is_met_at(address, loopback))
        };
        let port = self.port_of_probes();
        let missing = LOOPBACK.iter().filter(|own| on(own).is_none());
        missing.map(|own| SocketAddr::new(*own, port)).collect()
    }
}

/// Whether who asks at `own` meets what listens on `address`. Every address of IPv6 means those of IPv4, too.
fn is_met_at(address: &SocketAddr, own: &IpAddr) -> bool {
    let ip = address.ip();
    ip == *own || ip.is_unspecified() && (ip.is_ipv6() || own.is_ipv4())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_on_loopback_whatever_listens_elsewhere() {
        let probes = |metrics: &str, health: &str| {
            let http = Http { metrics: metrics.parse().ok(), health: health.parse().ok() };
            http.probes().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let both = "127.0.0.1:2112 [::1]:2112";
        assert_eq!(probes("", ""), both);
        assert_eq!(probes("10.0.0.11:9100", ""), both);
        assert_eq!(probes("[2001:db8::1]:9100", ""), both);
        for all in ["[::]:2112", "[::]:9100"] {
            assert_eq!(
                (probes(all, ""), probes("10.0.0.11:9100", all)),
                (String::new(), String::new())
            );
        }
        assert_eq!(probes("0.0.0.0:9100", ""), "[::1]:9100");
        assert_eq!(probes("127.0.0.1:9100", ""), "[::1]:9100");
        assert_eq!(probes("[::1]:9100", ""), "127.0.0.1:9100");
        assert_eq!(probes("127.0.0.1:2112", "[::]:2114"), "");
    }
}
