//! The control plane's own address: settings of `cp_enable`.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use berth_api::Quoted;
use berth_api::limits::{is_interface_name, is_object_name};
use berth_api::names::lease;

use super::http::Http;
use super::settings::{Problem, Settings, unless};
use super::wished::{self, Families, Wished};
use super::{addresses, bgp};

const ENABLE: &str = "cp_enable";
pub(super) const LEASE: &str = "vip_leasename";
pub(super) const FOLDER: &str = "berth_cp_folder";

/// Where what outlives the power of a control-plane node is.
pub(crate) const DEFAULT_FOLDER: &str = "/var/lib/berth/control-plane";
const URL: &str = "control_plane_health_check_address";
const CA: &str = "control_plane_health_check_ca_path";
const SERVER: &str = "kubernetes_addr";

/// How often the local API server is asked, how long it may take, and how many times in a row it may fail. kube-vip's 5, 3
/// and 3 seconds leave an address for a quarter of a minute with a server that hangs.
const PERIOD: i64 = 1;
const TIMEOUT: i64 = 1;
const FAILURES: i64 = 3;

/// The control plane's own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// What is wished for: addresses, and names that have some.
    pub wished: Vec<Wished>,
    /// Which addresses of a name are used.
    pub families: Families,
    /// Its addresses, in their order: one owner has all of them. Those of names are there once they were asked for.
    pub addresses: Vec<IpAddr>,
    /// The port of the API servers, there and on their nodes.
    pub port: u16,
    /// The interface of the addresses; none for that of the default route.
    pub interface: Option<String>,
    /// The name of the Lease that decides.
    pub lease: String,
    /// How the API server of this node is asked whether it is healthy.
    pub health: HealthCheck,
}

/// How the API server of this node is asked whether it is healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked; none for `/readyz` of the API server of this node.
    pub url: Option<String>,
    /// The certificates of who may answer there; none for those of the kubeconfig.
    pub authority: Option<PathBuf>,
    /// How often.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many times in a row it may fail.
    pub failures: u32,
}

impl ControlPlane {
    /// The names that have to be asked for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.wished.iter().filter_map(|wished| match wished {
            Wished::Name(name) => Some(name.as_str()),
            Wished::Address(_) => None,
        })
    }
}

/// Whether it is asked for.
pub(super) fn is_on(settings: &Settings) -> bool {
    settings.switch(ENABLE) == Some(true)
}

/// Whether it may be meant, by a word that is no switch.
pub(super) fn is_unclear(settings: &Settings) -> bool {
    settings.text(ENABLE).is_some() && settings.switch(ENABLE).is_none()
}

/// Whether routers are told of it: no Lease decides then.
pub(super) fn is_routed(settings: &Settings) -> bool {
    is_on(settings) && bgp::is_asked(settings)
}

/// Whether it is asked for, and nothing else is.
pub(super) fn is_alone(settings: &Settings) -> bool {
    is_on(settings) && !settings.serves_services()
}

/// The control plane's own address, if it is asked for. Everything that is wrong is told at once.
pub(super) fn control_plane(settings: &Settings) -> Result<Option<ControlPlane>, Vec<Problem>> {
    if !is_on(settings) {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let mut note = |problem: Problem| problems.push(problem);
    let wished = wished::wished(settings, ENABLE).map_err(&mut note).ok();
    let lease = named_lease(settings).map_err(&mut note).ok();
    let health = health(settings).map_err(|all| all.into_iter().for_each(&mut note)).ok();
    let interface = interface(settings).map_err(&mut note).ok();
    decides(settings).unwrap_or_else(&mut note);
    let apart = own_address(settings, wished.as_deref().unwrap_or_default());
    for checked in [apart, ports(settings)] {
        checked.unwrap_or_else(|all| all.into_iter().for_each(&mut note));
    }
    let (Some(wished), Some(lease), Some(health), Some(interface)) =
        (wished, lease, health, interface)
    else {
        return Err(problems);
    };
    let (port, families) = (addresses::port(settings), wished::families(settings));
    let known = wished.iter().filter_map(|wished| match wished {
        Wished::Address(address) => Some(*address),
        Wished::Name(_) => None,
    });
    let addresses = known.collect();
    let own = ControlPlane { wished, families, addresses, port, interface, lease, health };
    unless(problems, Some(own))
}

/// The interface of the control plane; that of Services is another setting.
fn interface(settings: &Settings) -> Result<Option<String>, Problem> {
    match settings.text("vip_interface") {
        Some(name) if !is_interface_name(name) => Err(settings.problem(
            "vip_interface",
            "accepted is the name of one interface, at most 15 octets, such as eth0",
        )),
        name => Ok(name.map(str::to_owned)),
    }
}

fn named_lease(settings: &Settings) -> Result<String, Problem> {
    let Some(name) = settings.text(LEASE) else { return Ok(lease::CONTROL_PLANE.to_owned()) };
    if !is_object_name(name) {
        let accepted =
            "accepted is the name of a Lease: at most 253 small letters, digits, hyphens and dots";
        return Err(settings.problem(LEASE, accepted));
    }
    let services = settings.text("svc_leasename").unwrap_or(lease::SERVICES);
    // What views and hosts have begins so, whatever the name of the node.
    match name == services || name.starts_with("berth-") {
        true => Err(settings.problem(
            LEASE,
            "accepted is a Lease of its own: this one, as each whose name begins with berth-, is for something else",
        )),
        false => Ok(name.to_owned()),
    }
}

/// One process is a member of one membership, and what it keeps is found where it was.
fn decides(settings: &Settings) -> Result<(), Problem> {
    let is_member = settings.text("berth_election") == Some("membership");
    match settings.text(FOLDER) {
        // Told with all that is said of BGP.
        _ if is_routed(settings) => Ok(()),
        _ if is_member && !is_alone(settings) => Err(settings.problem(
            "berth_election",
            "with cp_enable and svc_enable in one process accepted are global and service, or none, by which Leases decide on both; \
             for membership let the control plane's announcer be a process of its own, without svc_enable: a static pod beside the DaemonSet",
        )),
        Some(folder) if !is_own_folder(Path::new(folder)) => Err(settings.problem(
            FOLDER,
            format!("accepted is a path from the root to a folder of its own, without .., such as {DEFAULT_FOLDER}"),
        )),
        _ => Ok(()),
    }
}

/// Whether a folder may be made for the announcer alone, and put into its container: the root has what every program needs, and
/// so has each folder in it; some have no files at all.
fn is_own_folder(path: &Path) -> bool {
    let parts: Vec<Component<'_>> = path.components().collect();
    let is_plain = parts.iter().skip(1).all(|part| matches!(part, Component::Normal(_)));
    let is_on_disk = !["/proc", "/sys", "/dev"].iter().any(|other| path.starts_with(other));
    path.is_absolute() && parts.len() > 2 && is_plain && is_on_disk
}

/// Who asks for it by itself hears nothing while nobody has it, and the API server of another node while that one does.
fn own_address(settings: &Settings, wished: &[Wished]) -> Result<(), Vec<Problem>> {
    let is_own = |name: &str| {
        let host = settings.text(name).and_then(host);
        let host = host.map(|host| match host.parse() {
            Ok(address) => Wished::Address(address),
            Err(_) => Wished::Name(host.strip_suffix('.').unwrap_or(host).to_lowercase()),
        });
        host.is_some_and(|host| wished.contains(&host))
    };
    let accepted = "accepted is the API server of this node, as it is where this is left out";
    let all = [
        (SERVER, "it is the control plane's own address"),
        (URL, "it is the control plane's own address, so that others would answer for this node"),
    ];
    let wrong = all.into_iter().filter(|(name, _)| is_own(name));
    let wrong = wrong.map(|(name, why)| settings.problem(name, format!("{why}; {accepted}")));
    let wrong: Vec<Problem> = wrong.collect();
    unless(wrong, ())
}

/// The API server of this node comes later than what listens here, and has every address.
fn ports(settings: &Settings) -> Result<(), Vec<Problem>> {
    let http = Http::of(settings);
    let port = addresses::port(settings);
    let all = [("health_check_port", http.health), ("prometheus_server", http.metrics)];
    let wrong = all.into_iter().filter(|(_, listens)| listens.is_some_and(|at| at.port() == port));
    let accepted =
        format!("{port} is the port of the API server of this node (port); accepted is another");
    let wrong: Vec<Problem> =
        wrong.map(|(name, _)| settings.problem(name, accepted.clone())).collect();
    unless(wrong, ())
}

fn health(settings: &Settings) -> Result<HealthCheck, Vec<Problem>> {
    let mut problems = Vec::new();
    let url = settings.text(URL);
    if let Some(text) = url.filter(|text| host(text).is_none()) {
        let accepted = format!(
            "{} is no URL; accepted is one of http or https, such as https://localhost:6443/readyz",
            Quoted::of(text)
        );
        problems.push(settings.problem(URL, accepted));
    }
    let authority = settings.text(CA);
    if let Some(path) = authority {
        match certificates(Path::new(path)) {
            _ if url.is_some_and(|url| url.starts_with("http://")) => {
                let accepted = format!(
                    "nobody shows a certificate at {URL}, which is no https; leave one of them out"
                );
                problems.push(settings.problem(CA, accepted));
            }
            Ok(()) => {}
            Err(why) => problems.push(settings.problem(CA, why)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let number = |what: &str, default: i64| {
        let name = format!("control_plane_health_check_{what}");
        settings.number(&name).unwrap_or(default).unsigned_abs()
    };
    Ok(HealthCheck {
        url: url.map(str::to_owned),
        authority: authority.map(PathBuf::from),
        period: Duration::from_secs(number("period_seconds", PERIOD)),
        timeout: Duration::from_secs(number("timeout_seconds", TIMEOUT)),
        failures: u32::try_from(number("failure_threshold", FAILURES)).unwrap_or(u32::MAX),
    })
}

/// The host of a URL of http or https, without the brackets of IPv6.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split_once(']').map(|(host, _)| host)?,
        None => authority.split(':').next().unwrap_or_default(),
    };
    (!host.is_empty() && !host.contains(char::is_whitespace)).then_some(host)
}

/// Whether a file has a certificate, as it has to where it is to say who may answer.
fn certificates(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    match text.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(()),
        false => Err("it has no certificate; accepted is a file in PEM".to_owned()),
    }
}

#[cfg(test)]
mod tests;
