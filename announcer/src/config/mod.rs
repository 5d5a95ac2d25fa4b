//! The typed configuration. Whatever stands here has been checked; nobody checks it again.

mod settings;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use berth_api::election::{Timing, TimingError};
use berth_api::names::{class, lease};
use berth_api::service::ClassPolicy;
use ipnetwork::IpNetwork;

pub use settings::{Problem, Settings};
pub use variables::{Kind, Support, VARIABLES, Variable};

/// How this announcer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of this node, and its identity in Leases.
    pub node: String,
    /// Least severe level that is logged: `debug`, `info`, `warn` or `error`.
    pub log_level: &'static str,
    /// Kubeconfig file; none for `KUBECONFIG` or the account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// API server to talk to, instead of the one that the kubeconfig names.
    pub api_server: Option<String>,
    /// Interface for addresses of Services that name none; none for that of the default route.
    pub interface: Option<String>,
    /// Who decides which node owns an address.
    pub election: Election,
    /// Timing of Leases.
    pub timing: Timing,
    /// Annotations that Leases carry.
    pub lease_annotations: BTreeMap<String, String>,
    /// Which Services are served.
    pub classes: ClassPolicy,
    /// The only namespace whose Services are served.
    pub namespace: Option<String>,
    /// Networks in which machines are met under their own addresses, never under elastic IPs; none to read them from the
    /// cluster.
    pub internal: Option<BTreeSet<IpNetwork>>,
    /// Gateways by which machines with elastic IPs reach the outside, at most one of each family; those of the
    /// interface's default routes otherwise.
    pub gateways: BTreeSet<IpAddr>,
    /// Whether the status of Services is written.
    pub publish: bool,
    /// Pause between announcements after the first burst.
    pub refresh: Duration,
    /// Whether the LAN is asked for an address before its first use.
    pub probe: bool,
    /// Where `/metrics`, `/healthz` and `/readyz` listen.
    pub metrics: Option<SocketAddr>,
    /// Where `/healthz` and `/readyz` listen as well.
    pub health: Option<SocketAddr>,
}

/// Who decides which node owns an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Election {
    /// One Lease for all Services.
    Global {
        /// Namespace of the Lease.
        namespace: String,
        /// Name of the Lease.
        name: String,
    },
    /// One Lease for each Service, in the Service's namespace.
    PerService,
    /// Grants of a majority of nodes, and a fence in the kernel.
    Membership(Fenced),
}

/// How fenced membership runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Namespace of the key and of the view.
    pub namespace: String,
    /// UDP port of the peers, the same on every node.
    pub port: u16,
    /// The strongest fence to try.
    pub fence: Fence,
    /// The Lease to go by where the key may not be read; none if membership was asked for by name.
    pub otherwise: Option<String>,
}

/// The strongest fence to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// A deadline that the kernel judges for each frame.
    Bpf,
    /// A timeout in nftables.
    NftTimeout,
    /// None.
    Unfenced,
}

const DEFAULT_NAMESPACE: &str = "kube-system";
const DEFAULT_PROMETHEUS: &str = ":2112";
const DEFAULT_REFRESH_MS: i64 = 60_000;
const DEFAULT_PEER_PORT: u16 = 2113;

impl Config {
    /// Parses `settings`; `hostname` names the node if nothing else does. Tells everything that is wrong at once.
    pub fn parse(settings: &Settings, hostname: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = settings.check();
        let mut note = |result: Result<(), Problem>| problems.extend(result.err());
        note(needs_true(settings, "svc_enable"));
        note(needs_true(settings, "vip_arp"));

        let interface = first(settings, &["vip_servicesinterface", "vip_interface"]);
        let interface = keep(&mut note, interface.map(|name| interface_name(settings, name)));
        let timing = keep(&mut note, Some(timing(settings)));
        let annotations = keep(&mut note, Some(lease_annotations(settings)));
        let kubeconfig =
            keep(&mut note, settings.text("k8s_config_file").map(|f| file(settings, f)));
        let metrics = keep(&mut note, prometheus(settings));
        let internal = keep(&mut note, networks(settings));
        let gateways = keep(&mut note, gateways(settings));
        note(subnet(settings));
        note(url(settings));
        let node = settings.text("vip_nodename").unwrap_or(hostname).to_lowercase();
        if node.is_empty() {
            note(Err(settings.problem("vip_nodename", "not set, and the host has no name either")));
        }

        let (Some(timing), true) = (timing, problems.is_empty()) else {
            return Err(problems);
        };
        let millis = settings.number("vip_arpRate").unwrap_or(DEFAULT_REFRESH_MS);
        Ok(Self {
            node,
            log_level: log_level(settings.number("vip_loglevel").unwrap_or(0)),
            kubeconfig,
            api_server: settings.text("kubernetes_addr").map(str::to_owned),
            interface,
            election: election(settings),
            timing,
            lease_annotations: annotations.unwrap_or_default(),
            classes: classes(settings),
            namespace: settings.text("svc_namespace").map(str::to_owned),
            internal,
            gateways: gateways.unwrap_or_default(),
            publish: !settings.switch("disable_service_updates").unwrap_or(false),
            refresh: Duration::from_millis(millis.unsigned_abs()),
            probe: !settings.switch("vip_skipdad").unwrap_or(false),
            metrics,
            health: settings
                .number("health_check_port")
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
                .map(|port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        })
    }
}

/// Passes a value on, and its problem to `note`.
fn keep<T>(
    note: &mut impl FnMut(Result<(), Problem>),
    result: Option<Result<T, Problem>>,
) -> Option<T> {
    match result? {
        Ok(value) => Some(value),
        Err(problem) => {
            note(Err(problem));
            None
        }
    }
}

/// The first of `names` that is given.
fn first(settings: &Settings, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| settings.text(name).is_some())
}

/// Announcing Services by ARP is all there is so far: switching it off leaves nothing to do.
fn needs_true(settings: &Settings, name: &'static str) -> Result<(), Problem> {
    match settings.switch(name) {
        Some(false) => Err(settings.problem(
            name,
            "accepted is true: announcing Services by ARP and neighbour discovery is all there is yet",
        )),
        _ => Ok(()),
    }
}

fn interface_name(settings: &Settings, name: &'static str) -> Result<String, Problem> {
    let value = settings.text(name).unwrap_or_default();
    is_interface_name(value).then(|| value.to_owned()).ok_or_else(|| {
        settings.problem(name, "accepted is the name of one interface, such as eth0")
    })
}

/// What Linux takes as the name of an interface (`dev_valid_name`).
pub fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 16
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// What was asked for by name; else what kube-vip's settings ask for; else membership.
fn election(settings: &Settings) -> Election {
    let namespace = || settings.text("cp_namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned();
    let name = || settings.text("svc_leasename").unwrap_or(lease::SERVICES).to_owned();
    let global = || Election::Global { namespace: namespace(), name: name() };
    let membership = |otherwise| {
        let port = settings.number("berth_peer_port").and_then(|port| u16::try_from(port).ok());
        let fence = match settings.text("berth_fence") {
            Some("nft-timeout") => Fence::NftTimeout,
            Some("unfenced") => Fence::Unfenced,
            _ => Fence::Bpf,
        };
        let port = port.unwrap_or(DEFAULT_PEER_PORT);
        Election::Membership(Fenced { namespace: namespace(), port, fence, otherwise })
    };
    match settings.text("berth_election") {
        Some("membership") => membership(None),
        Some("service") => Election::PerService,
        Some(_) => global(),
        None if settings.switch("svc_election") == Some(true) => Election::PerService,
        None if settings.switch("vip_leaderelection") == Some(true) => global(),
        None if settings.text("svc_leasename").is_some() => global(),
        None => membership(Some(name())),
    }
}

fn classes(settings: &Settings) -> ClassPolicy {
    let class = settings.text("lb_class_name").unwrap_or(class::DEFAULT).to_owned();
    match settings.switch("lb_class_only") {
        Some(true) => ClassPolicy::Only(class),
        _ => ClassPolicy::UnsetOr(class),
    }
}

fn timing(settings: &Settings) -> Result<Timing, Problem> {
    let seconds = |name, default| {
        Duration::from_secs(settings.number(name).map_or(default, i64::unsigned_abs))
    };
    let duration = seconds("vip_leaseduration", 15);
    let (deadline, retry) = (seconds("vip_renewdeadline", 10), seconds("vip_retryperiod", 2));
    Timing::new(duration, deadline, retry).map_err(|error| {
        let name = match error {
            TimingError::NotWholeSeconds(_) => "vip_leaseduration",
            TimingError::DeadlineTooLong { .. } => "vip_renewdeadline",
            TimingError::RetryTooLong { .. } => "vip_retryperiod",
        };
        settings.problem(name, error.to_string())
    })
}

fn lease_annotations(settings: &Settings) -> Result<BTreeMap<String, String>, Problem> {
    let Some(text) = settings.text("vip_leaseannotations") else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|error| {
        let accepted = format!("accepted is a JSON object of strings ({error})");
        settings.problem("vip_leaseannotations", accepted)
    })
}

fn file(settings: &Settings, path: &str) -> Result<PathBuf, Problem> {
    std::fs::File::open(path)
        .map(|_| PathBuf::from(path))
        .map_err(|error| settings.problem("k8s_config_file", format!("cannot be read: {error}")))
}

/// A comma list of networks, each as it is routed: without bits of a host.
fn networks(settings: &Settings) -> Option<Result<BTreeSet<IpNetwork>, Problem>> {
    const NAME: &str = "berth_eip_internal_net";
    let network = |text: &str| {
        let network: IpNetwork = text.trim().parse().ok()?;
        (network.ip() == network.network() && network.prefix() > 0).then_some(network)
    };
    let networks: Option<BTreeSet<_>> = settings.text(NAME)?.split(',').map(network).collect();
    Some(networks.ok_or_else(|| {
        settings.problem(
            NAME,
            "accepted is a comma list of networks, such as 10.244.0.0/16,10.96.0.0/12",
        )
    }))
}

/// A comma list of at most one address of each family.
fn gateways(settings: &Settings) -> Option<Result<BTreeSet<IpAddr>, Problem>> {
    const NAME: &str = "berth_eip_gateway";
    let addresses: Result<Vec<IpAddr>, _> =
        settings.text(NAME)?.split(',').map(|text| text.trim().parse()).collect();
    let single = |addresses: &Vec<IpAddr>| {
        addresses.iter().filter(|address| address.is_ipv4()).count() <= 1
            && addresses.iter().filter(|address| address.is_ipv6()).count() <= 1
    };
    let addresses = addresses.ok().filter(single).map(BTreeSet::from_iter);
    Some(addresses.ok_or_else(|| {
        settings
            .problem(NAME, "accepted is one address of each family, such as 192.0.2.1,2001:db8::1")
    }))
}

/// `host:port` as Go's `net.Listen` takes it: an empty host stands for every address.
fn prometheus(settings: &Settings) -> Option<Result<SocketAddr, Problem>> {
    if settings.is_empty("prometheus_server") {
        return None;
    }
    let text = settings.text("prometheus_server").unwrap_or(DEFAULT_PROMETHEUS);
    let full = text.strip_prefix(':').map(|port| format!("[::]:{port}"));
    let address = full.as_deref().unwrap_or(text).parse();
    Some(address.map_err(|_| {
        settings.problem("prometheus_server", "accepted is ADDRESS:PORT or :PORT, such as :2112")
    }))
}

fn subnet(settings: &Settings) -> Result<(), Problem> {
    let Some(name) = first(settings, &["vip_subnet", "vip_cidr"]) else { return Ok(()) };
    let lengths = settings.text(name).unwrap_or_default();
    let valid = |length: &str| {
        let length = length.trim().trim_start_matches('/');
        length == "auto" || length.parse::<u8>().is_ok_and(|bits| bits <= 128)
    };
    if lengths.split(',').all(valid) {
        return Ok(());
    }
    Err(settings.problem(name, "accepted are prefix lengths from 0 to 128, such as 32 or 32,128"))
}

fn url(settings: &Settings) -> Result<(), Problem> {
    let Some(text) = settings.text("kubernetes_addr") else { return Ok(()) };
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(());
    }
    Err(settings.problem("kubernetes_addr", "accepted is a URL, such as https://192.0.2.1:6443"))
}

/// kube-vip counts as Go's `slog` does: -4 debug, 0 info, 4 warnings, 8 errors.
fn log_level(number: i64) -> &'static str {
    match number {
        ..0 => "debug",
        0..4 => "info",
        4..8 => "warn",
        8.. => "error",
    }
}

#[cfg(test)]
mod tests;
