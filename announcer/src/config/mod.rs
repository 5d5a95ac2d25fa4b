//! The typed configuration, one part for each capability. Whatever stands here has been checked; nobody checks it again.

mod addresses;
mod bgp;
mod control_plane;
mod drain;
mod eip;
mod election;
mod file;
mod fixed;
mod flaws;
mod http;
mod permits;
mod settings;
mod table;
mod variables;
mod wished;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_api::claim::ClaimPolicy;
use berth_api::election::Timing;
use berth_api::limits::{is_interface_name, is_label_key, is_node_name};
use berth_api::names::class;
use berth_api::service::ClassPolicy;

use crate::instance::Instance;
pub use bgp::Bgp;
pub(crate) use control_plane::DEFAULT_FOLDER;
pub use control_plane::{ControlPlane, HealthCheck};
pub use drain::Drains;
pub use eip::Eip;
pub use election::{Election, Fence, Fenced};
pub use file::with_file;
pub use fixed::{Fixed, Key, Member, beside_an_api};
pub use flaws::Flaw;
use flaws::Flaws;
pub use http::Http;
pub use permits::Permits;
pub(crate) use settings::unless;
pub use settings::{Problem, Settings};
pub(crate) use table::SECRET;
pub use table::{VARIABLES, find, find_flag};
pub use variables::{Capability, Coming, Kind, LOG_FORMAT, Variable, Verdict};
pub use wished::{Families, Wished, choose};

/// How this announcer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What everything else rests on.
    pub core: Core,
    /// Where key, view, peers and addresses come from.
    pub cluster: Cluster,
    /// Who decides which node owns an address.
    pub election: Election,
    /// The taints with which a node is emptied.
    pub drains: Drains,
    /// The strongest fence to try.
    pub fence: Fence,
    /// How Leases are held.
    pub leases: Leases,
    /// Addresses of Services; none where they are not served.
    pub services: Option<Services>,
    /// Elastic IPs; none where they are not served.
    pub eip: Option<Eip>,
    /// The control plane's own address; none where it is not asked for.
    pub control_plane: Option<ControlPlane>,
    /// Announcing by ARP and neighbour discovery.
    pub arp_nd: ArpNd,
    /// Announcing by BGP instead; none where it is not asked for.
    pub bgp: Option<Bgp>,
    /// What listens for people and probes.
    pub http: Http,
    /// What is wrong with capabilities that are missing above.
    pub flaws: Vec<Flaw>,
}

/// What everything else rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// Name of this node, and its identity in Leases.
    pub node: String,
    /// What is this announcer's own on the node.
    pub instance: Instance,
    /// Least severe level that is logged: `debug`, `info`, `warn` or `error`.
    pub log_level: &'static str,
    /// Interface for addresses that name none; none for that of the default route.
    pub interface: Option<String>,
}

/// Where key, view, peers and addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// From an API server.
    Api(Api),
    /// From files and settings; there is no API server.
    Fixed(Fixed),
}

/// The API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    /// Kubeconfig file; none for `KUBECONFIG` or the account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// API server to talk to, instead of the one that the kubeconfig names.
    pub server: Option<String>,
    /// When only what a claim names is served.
    pub claims: ClaimPolicy,
    /// The namespace of berth-ccm's Lease: that of our own.
    pub namespace: String,
}

/// How Leases are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    /// Their times.
    pub timing: Timing,
    /// Annotations that they carry.
    pub annotations: BTreeMap<String, String>,
}

/// Which Services are served, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Which classes.
    pub classes: ClassPolicy,
    /// The only namespace.
    pub namespace: Option<String>,
    /// Whether their status is written.
    pub publish: bool,
    /// Whether no port of the host answers behind their addresses.
    pub closes_host_ports: bool,
    /// Which interfaces and VLANs they may name.
    pub permits: Permits,
    /// How Nodes are labelled that answer for them; none where they are not.
    pub labels: Option<NodeLabels>,
}

/// How Nodes are labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLabels {
    /// The address that the one label names which has room for one, where the node answers for it.
    pub first: Option<IpAddr>,
}

/// How addresses are announced by ARP and neighbour discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArpNd {
    /// Pause between announcements after the first burst.
    pub refresh: Duration,
    /// Whether the LAN is asked for an address before its first use.
    pub probe: bool,
    /// A setting that asks for addresses with a subnet, as it was given: they are bound without.
    pub subnet: Option<String>,
}

const DEFAULT_REFRESH_MS: i64 = 60_000;

/// The loopback interface, where nobody asks for an address.
pub(crate) const LOOPBACK: &str = "lo";

impl Config {
    /// Parses `settings`; `hostname` names the node if nothing else does. What is wrong with one capability leaves it
    /// out and is noted.
    ///
    /// # Errors
    /// Everything that is wrong at once, where that leaves nothing to run.
    pub fn parse(settings: &Settings, hostname: &str) -> Result<Self, Vec<Problem>> {
        let mut flaws = Flaws::new(settings.check());
        let node = flaws.core(node(settings, hostname));
        let interface = flaws.core(interface(settings));
        let cluster = flaws.core(cluster(settings, node.as_deref()));
        let fixed = matches!(cluster, Some(Cluster::Fixed(_)));
        let has_services = !fixed && settings.serves_services();
        let control_plane =
            flaws.of(Capability::ControlPlane, control_plane::control_plane(settings)).flatten();
        let instance = flaws.core(instance(settings, cluster.as_ref()));
        let timing = flaws.core(election::timing(settings));
        let drains = flaws.core(drain::drains(settings));
        flaws.core(election::lease_name(settings));
        let annotations = flaws.core(election::lease_annotations(settings));
        flaws.core(election::needs_arp(settings));
        flaws.core(bgp::alone(settings, fixed));
        let (bgp, wrong) = bgp::bgp(settings);
        flaws.of(Capability::Bgp, wrong);
        flaws.of(Capability::ArpNd, subnet(settings));
        let http = Http {
            // Where it is not known where they are to be, they are nowhere.
            metrics: flaws.of(Capability::Http, http::metrics(settings)).flatten(),
            health: http::health(settings),
        };
        let eip = flaws.of(Capability::Eip, eip::eip(settings));
        let permits = flaws.of(Capability::Services, permits::permits(settings));
        flaws.of(Capability::Services, class(settings));
        let services = permits
            .map(|permits| services(settings, permits))
            .filter(|_| !flaws.has(Capability::Services));
        let (eip, services) = match has_services {
            false => (None, None),
            true => (eip.filter(|_| !flaws.has(Capability::Eip)), services),
        };
        // A node whose own way to its API servers is meant otherwise than it is read is to say so at once.
        let is_control_planes =
            control_plane::is_on(settings) || control_plane::is_unclear(settings);
        let needed = match fixed || is_control_planes {
            true if bgp.is_some() => {
                &[Capability::Core, Capability::ArpNd, Capability::Bgp, Capability::ControlPlane][..]
            }
            true => &[Capability::Core, Capability::ArpNd, Capability::ControlPlane],
            false => &[Capability::Core, Capability::ArpNd],
        };
        let idle = has_services && eip.is_none() && services.is_none();
        let whole = !idle && !needed.iter().any(|needed| flaws.has(*needed));
        match (node, instance, cluster, timing, annotations, drains) {
            (
                Some(node),
                Some(instance),
                Some(cluster),
                Some(timing),
                Some(annotations),
                Some(drains),
            ) if whole => {
                let level = log_level(settings.number("vip_loglevel").unwrap_or(0));
                // By kube-vip's word for BGP it is the loopback interface, which has no neighbours to be heard on.
                let interface =
                    interface.flatten().filter(|name| bgp.is_none() || name != LOOPBACK);
                Ok(Self {
                    core: Core { node, instance, log_level: level, interface },
                    cluster,
                    election: election::election(settings, fixed),
                    control_plane,
                    drains,
                    fence: election::fence(settings),
                    leases: Leases { timing, annotations },
                    services,
                    eip,
                    arp_nd: arp_nd(settings),
                    bgp,
                    http,
                    flaws: flaws.into_list(),
                })
            }
            _ => Err(flaws.into_problems()),
        }
    }

    /// When only what a claim names is served. What the operator names needs none.
    pub fn claims(&self) -> ClaimPolicy {
        match &self.cluster {
            Cluster::Api(api) if self.services.is_some() || self.eip.is_some() => api.claims,
            Cluster::Api(_) | Cluster::Fixed(_) => ClaimPolicy::Ignored,
        }
    }

    /// Whether objects of the cluster are served, and not the control plane's address alone.
    pub fn serves(&self) -> bool {
        self.services.is_some() || self.eip.is_some()
    }

    /// The interface on which addresses are bound that routers lead here; none where neighbours are told of them.
    pub fn routed(&self) -> Option<&str> {
        let bgp = self.bgp.as_ref()?;
        let named = self.core.interface.as_deref().filter(|_| bgp.attach);
        Some(named.unwrap_or(LOOPBACK))
    }

    /// Whether neighbours may be told of some addresses, and routers of others.
    pub fn is_mixed(&self) -> bool {
        self.bgp.as_ref().is_some_and(|bgp| bgp.is_mixed)
    }

    /// By readiness check, what is wrong with the capability.
    pub fn flaws_by_check(&self) -> BTreeMap<&'static str, String> {
        let mut told: BTreeMap<&'static str, String> = BTreeMap::new();
        for flaw in &self.flaws {
            let text = told.entry(flaw.capability.check()).or_default();
            let sep = if text.is_empty() { "" } else { "; " };
            *text = format!("{text}{sep}{}", flaw.problem);
        }
        told
    }
}

/// Who decides, with an API server.
pub fn elects(settings: &Settings) -> Election {
    election::election(settings, false)
}

fn node(settings: &Settings, hostname: &str) -> Result<String, Problem> {
    let node = settings.text("vip_nodename").unwrap_or(hostname).to_lowercase();
    match node.is_empty() {
        true => Err(settings.problem("vip_nodename", "not set, and the host has no name either")),
        false if settings.text("vip_nodename").is_some() && !is_node_name(&node) => Err(settings.problem(
            "vip_nodename",
            "accepted is the name of a Node: at most 253 small letters, digits, hyphens and dots",
        )),
        false => Ok(node),
    }
}

fn interface(settings: &Settings) -> Result<Option<String>, Problem> {
    let Some(name) = settings.first(&["vip_servicesinterface", "vip_interface"]) else {
        return Ok(None);
    };
    let value = settings.text(name).unwrap_or_default();
    match is_interface_name(value) {
        true => Ok(Some(value.to_owned())),
        false => Err(settings.problem(
            name,
            "accepted is the name of one interface, at most 15 octets, such as eth0",
        )),
    }
}

fn cluster(settings: &Settings, node: Option<&str>) -> Result<Cluster, Vec<Problem>> {
    if let Some(fixed) = fixed::fixed(settings, node)? {
        return Ok(Cluster::Fixed(fixed));
    }
    let mut problems = Vec::new();
    let kubeconfig = settings.text("k8s_config_file");
    let kubeconfig = match kubeconfig.map(|path| file(settings, path)) {
        None => None,
        // kubeadm may write it later.
        Some(Err(_)) if control_plane::is_on(settings) => kubeconfig.map(PathBuf::from),
        Some(Ok(path)) => Some(path),
        Some(Err(problem)) => {
            problems.push(problem);
            None
        }
    };
    problems.extend(url(settings).err());
    let server = settings.text("kubernetes_addr").map(str::to_owned);
    let claims = match settings.text("berth_claims") {
        Some("required") => ClaimPolicy::Required,
        Some("ignored") => ClaimPolicy::Ignored,
        _ => ClaimPolicy::Imported,
    };
    let namespace = election::namespace(settings);
    unless(problems, Cluster::Api(Api { kubeconfig, server, claims, namespace }))
}

fn file(settings: &Settings, path: &str) -> Result<PathBuf, Problem> {
    std::fs::File::open(path)
        .map(|_| PathBuf::from(path))
        .map_err(|error| settings.problem("k8s_config_file", format!("cannot be read: {error}")))
}

fn url(settings: &Settings) -> Result<(), Problem> {
    let Some(text) = settings.text("kubernetes_addr") else { return Ok(()) };
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(());
    }
    Err(settings.problem("kubernetes_addr", "accepted is a URL, such as https://192.0.2.1:6443"))
}

/// The name that was given; else that of the roles, or of the first address where there is no cluster.
fn instance(settings: &Settings, cluster: Option<&Cluster>) -> Result<Instance, Problem> {
    const NAME: &str = "instance_name";
    if let Some(name) = settings.text(NAME) {
        return Instance::named(name).map_err(|error| settings.problem(NAME, error.to_string()));
    }
    let roles = (control_plane::is_on(settings), settings.serves_services());
    match cluster {
        Some(Cluster::Fixed(fixed)) => Ok(fixed.instance()),
        _ => Ok(Instance::of_roles(roles.0, roles.1)),
    }
}

fn services(settings: &Settings, permits: Permits) -> Services {
    Services {
        classes: classes(settings),
        namespace: settings.text("svc_namespace").map(str::to_owned),
        publish: !settings.switch("disable_service_updates").unwrap_or(false),
        closes_host_ports: settings.switch("enable_service_security").unwrap_or(false),
        permits,
        labels: labels(settings),
    }
}

/// `address` is one of several, and may be a name, which no label has room for.
fn labels(settings: &Settings) -> Option<NodeLabels> {
    let address = settings.first(&["address", "vip_address"]);
    let text = address.and_then(|name| settings.text(name)).unwrap_or_default();
    let first = text.split(',').find_map(|part| part.trim().parse().ok());
    (settings.switch("enable_node_labeling") == Some(true)).then_some(NodeLabels { first })
}

fn class(settings: &Settings) -> Result<(), Problem> {
    match settings.text("lb_class_name") {
        Some(class) if !is_label_key(class) => Err(settings.problem(
            "lb_class_name",
            "accepted is a class as Services name one, such as kube-vip.io/kube-vip-class",
        )),
        _ => Ok(()),
    }
}

/// As kube-vip has it: without its older handling of classes, a Service is served that has the one that is named, or none
/// where that name is empty.
fn classes(settings: &Settings) -> ClassPolicy {
    let class = settings.text("lb_class_name").unwrap_or(class::DEFAULT).to_owned();
    let only = settings.switch("lb_class_only") == Some(true);
    match settings.switch("lb_class_legacy_handling") {
        Some(false) if settings.is_empty("lb_class_name") => ClassPolicy::UnsetOr(String::new()),
        Some(false) => ClassPolicy::Only(class),
        _ if only => ClassPolicy::Only(class),
        _ => ClassPolicy::UnsetOr(class),
    }
}

fn arp_nd(settings: &Settings) -> ArpNd {
    let millis = settings.number("vip_arpRate").unwrap_or(DEFAULT_REFRESH_MS);
    ArpNd {
        refresh: Duration::from_millis(millis.unsigned_abs()),
        probe: !settings.switch("vip_skipdad").unwrap_or(false),
        subnet: subnet(settings).ok().flatten(),
    }
}

/// What asks for another length of prefix than that of one address.
fn subnet(settings: &Settings) -> Result<Option<String>, Problem> {
    let Some(name) = settings.first(&["vip_subnet", "vip_cidr"]) else { return Ok(None) };
    let lengths = settings.text(name).unwrap_or_default();
    let each = || lengths.split(',').map(|length| length.trim().trim_start_matches('/'));
    let is_valid =
        |length: &str| length == "auto" || length.parse::<u8>().is_ok_and(|bits| bits <= 128);
    if each().all(is_valid) {
        let is_wide = each().any(|length| !matches!(length, "32" | "128" | "auto"));
        return Ok(is_wide.then(|| format!("{name}={lengths}")));
    }
    Err(settings.problem(name, "accepted are prefix lengths from 0 to 128, such as 32 or 32,128"))
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
mod page;
#[cfg(test)]
mod tests;
