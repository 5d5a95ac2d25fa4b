//! Whether who comes by the control plane's address meets the API server that answers at loopback. Pure.
//!
//! One that listens at loopback alone answers nobody else, nor does a balancer of API servers there, as workers have (kube-vip#282).
//! Where another port, or another host, is asked, it is somebody else's to say who listens.

use std::net::{IpAddr, SocketAddr};

use crate::kernel::Listening;

/// That somebody listens at one of the addresses, which this host need not have for it, else why not: of what answers at this URL.
/// `look` shows who listens; one that shows nobody at all could not be had.
pub(super) fn met(
    url: &str,
    addresses: &[IpAddr],
    port: u16,
    look: impl FnOnce() -> Listening,
) -> Result<(), String> {
    if !is_at_loopback(url, port) {
        return Ok(());
    }
    let listening = look();
    let is_met = |address: &IpAddr| listening.at(*address).contains(&port);
    if listening.is_empty() || addresses.is_empty() || addresses.iter().any(is_met) {
        return Ok(());
    }
    let named = addresses.iter().map(|address| SocketAddr::new(*address, port).to_string());
    Err(format!(
        "answers at loopback alone: nobody listens at {} on this node; accepted is one that listens at every address, as \
         kube-apiserver does without --bind-address",
        named.collect::<Vec<_>>().join(", ")
    ))
}

/// Whether this URL is of this port at loopback.
fn is_at_loopback(url: &str, port: u16) -> bool {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let Some((host, own)) = authority.and_then(|own| own.rsplit_once(':')) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    own.parse() == Ok(port) && (is_loopback || host == "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 6443;
    const READY: &str = "https://127.0.0.1:6443/readyz";

    /// What is told of an API server that is asked there, while these listen.
    fn told(url: &str, addresses: &[&str], listening: &[&str]) -> Option<String> {
        let sockets = listening.iter().map(|text| text.parse::<SocketAddr>().unwrap());
        let listening: Listening = sockets.map(|socket| (socket.ip(), socket.port())).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|own| own.parse().unwrap()).collect();
        met(url, &addresses, PORT, || listening).err()
    }

    #[test]
    fn one_that_listens_at_loopback_alone_is_told_with_the_address_and_the_port() {
        let both = ["192.0.2.100", "2001:db8::100"];
        let why = told(READY, &both, &["127.0.0.1:6443", "0.0.0.0:22"]).unwrap();
        let said = "nobody listens at 192.0.2.100:6443, [2001:db8::100]:6443 on this node";
        assert!(why.contains(said), "{why}");
        for url in ["https://localhost:6443/readyz", "http://[::1]:6443/livez"] {
            assert!(told(url, &both, &["127.0.0.1:6443"]).is_some(), "{url}");
        }
    }

    #[test]
    fn one_that_is_met_at_an_address_is_well_and_so_is_what_cannot_be_known() {
        let own = ["192.0.2.100"];
        for listening in ["0.0.0.0:6443", "[::]:6443", "192.0.2.100:6443"] {
            assert_eq!(told(READY, &own, &[listening]), None, "{listening}");
        }
        assert_eq!(told(READY, &["192.0.2.100", "2001:db8::100"], &["0.0.0.0:6443"]), None);
        assert_eq!(told(READY, &own, &[]), None, "who listens is not shown");
        for elsewhere in ["https://127.0.0.1:7443/readyz", "https://192.0.2.11:6443/readyz", ""] {
            assert_eq!(told(elsewhere, &own, &["127.0.0.1:6443"]), None, "{elsewhere}");
        }
    }
}
