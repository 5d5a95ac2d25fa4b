//! The addresses that settings name (`address`), beside whatever asks for them.

use std::net::IpAddr;

use berth_api::Quoted;

use super::settings::{Problem, Settings};

/// kube-vip's default for the port of the control plane.
const DEFAULT_PORT: u16 = 6443;

/// The setting that names them: the older one where it alone is given.
pub(super) fn setting(settings: &Settings) -> &'static str {
    settings.first(&["address", "vip_address"]).unwrap_or("address")
}

/// The addresses, in their order. `beside` is the setting that needs them.
pub(super) fn addresses(settings: &Settings, beside: &str) -> Result<Vec<IpAddr>, Problem> {
    let name = setting(settings);
    let text = settings.text(name).unwrap_or_default();
    let mut addresses = Vec::new();
    for text in text.split(',') {
        let why = match usable(text) {
            Some(address) if !addresses.contains(&address) => {
                addresses.push(address);
                continue;
            }
            Some(_) => "stands there twice",
            None => match text.trim().parse::<IpAddr>() {
                Ok(address) if address.is_loopback() => "is a loopback address",
                Ok(address) if address.is_multicast() => "is a multicast address",
                Ok(_) => "is no address of a host",
                Err(_) => "is no address",
            },
        };
        let accepted = format!(
            "{} {why}; accepted beside {beside} is a comma list of different addresses, such as \
             192.0.2.1,2001:db8::1",
            Quoted::of(text.trim())
        );
        return Err(settings.problem(name, accepted));
    }
    Ok(addresses)
}

/// The port that is met at them; kube-vip's where none is said.
pub(super) fn port(settings: &Settings) -> u16 {
    let port = settings.number("port").and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT)
}

/// An address that one host can have on a LAN.
pub(super) fn usable(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.trim().parse().ok()?;
    let general = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    (!general && address != IpAddr::from([255; 4])).then_some(address)
}
