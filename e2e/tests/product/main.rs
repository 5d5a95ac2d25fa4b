//! The product, judged from outside: the API server, `ip -j`, frames on the wire, the client's connections.
//!
//! Both programs run as released, each with a token of its own ServiceAccount and so with the rights of `manifests/`.

mod allocation;
mod allocation_faults;
mod allocation_under_fire;
mod as_kube_vip;
mod bad_input;
mod bgp;
mod broken;
mod claims;
mod conflict;
mod control_plane;
mod eip;
mod eip_allocation;
mod elections;
mod examples;
mod expose;
mod failover;
mod fenced;
mod field;
mod flaws;
mod flood;
mod from_kube_vip;
mod full;
mod generated;
mod host_ports;
mod many;
mod migration;
mod moves;
mod moving;
mod named;
mod placement;
mod probes;
mod reach;
mod repair;
mod rights;
mod rolling;
mod rotation;
mod routers;
mod scene;
mod shell;
mod shown;
mod splits;
mod status;
mod stolen;
mod storm;
mod tenant;
mod unannounced;
mod uninstall;

/// Whether the long forms of tests were asked for.
fn is_soak() -> bool {
    std::env::var_os("BERTH_SOAK").is_some_and(|value| value == "1")
}
