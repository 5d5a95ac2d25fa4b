//! The port that peers connect to. None is open where the ConfigMap asks for none, or no peer of this node connects.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_bgp::config::Listen;
use berth_bgp_speaker::Door;

use super::place;

/// Opens it: at every address, or at those of the node's own that are asked for.
pub(super) fn open(listen: &Listen, vips: &BTreeSet<IpAddr>) -> Result<Door, String> {
    let port = listen.port;
    let told = |error| {
        format!(
            "listening at port {port}: {error}; accepted is a port that no other program has, and below 1024 the capability \
             NET_BIND_SERVICE"
        )
    };
    if listen.within.is_empty() {
        return Door::open(port).map_err(told);
    }
    let all = place::addresses()
        .map_err(|error| format!("reading the addresses of this host: {error}"))?;
    let own = all.into_iter().map(|(_, own)| own);
    let own: BTreeSet<IpAddr> =
        own.filter(|own| listen.is_at(*own) && !vips.contains(own)).collect();
    if own.is_empty() {
        let within: Vec<String> = listen.within.iter().map(ToString::to_string).collect();
        return Err(format!("listen: this node has no address in {}", within.join(", ")));
    }
    let own: Vec<IpAddr> = own.into_iter().collect();
    Door::open_at(&own, port).map_err(told)
}
