//! Settings of who decides which node owns an address.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use berth_api::election::{Timing, TimingError};
use berth_api::limits::is_object_name;
use berth_api::names::lease;

use super::settings::{Problem, Settings};
use super::{bgp, control_plane};

const DEFAULT_NAMESPACE: &str = "kube-system";
const DEFAULT_PEER_PORT: u16 = 2113;
/// A node may run both, each with its own port.
const PEER_PORT_OF_CONTROL_PLANE: u16 = 2123;

const DURATION: &str = "vip_leaseduration";
const DEADLINE: &str = "vip_renewdeadline";
const RETRY: &str = "vip_retryperiod";

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
    /// Grants of a majority of nodes.
    Membership(Fenced),
    /// Nobody: every node that can serve an address announces it, and routers choose.
    Everyone,
    /// There are no Services to decide on.
    Nothing,
}

/// How fenced membership runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Namespace of the key and of the view.
    pub namespace: String,
    /// UDP port of the peers, the same on every node.
    pub port: u16,
    /// The Lease by which others decide on all Services, in that namespace.
    pub lease: String,
    /// Whether to go by it where the key may not be read: not if membership was asked for by name.
    pub falls_back: bool,
    /// The folder where views, key and peers outlive the power of this node: where what is decided on is the control plane's
    /// address, without which there may be no API server. None where it is Services.
    pub folder: Option<PathBuf>,
}

impl Fenced {
    /// The name of the Secret with the key, and of the Lease with the view.
    pub fn name(&self) -> &'static str {
        if self.folder.is_some() { lease::VIEW_OF_CONTROL_PLANE } else { lease::VIEW }
    }
}

impl Election {
    /// Whether it is about Services.
    pub fn is_of_services(&self) -> bool {
        *self != Self::Nothing && self.of_control_plane().is_none()
    }

    /// How members decide on the control plane's address, where they do.
    pub fn of_control_plane(&self) -> Option<&Fenced> {
        match self {
            Self::Membership(fenced) => Some(fenced).filter(|fenced| fenced.folder.is_some()),
            _ => None,
        }
    }
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

/// Where Leases are that decide for the whole cluster.
pub(super) fn namespace(settings: &Settings) -> String {
    settings.text("cp_namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned()
}

/// What was asked for by name; else what kube-vip's settings ask for; else membership, but beside the control plane's
/// address. A list of members knows nothing else.
pub(super) fn election(settings: &Settings, fixed: bool) -> Election {
    let namespace = || namespace(settings);
    let name = || settings.text("svc_leasename").unwrap_or(lease::SERVICES).to_owned();
    let global = || Election::Global { namespace: namespace(), name: name() };
    let membership = |falls_back| {
        let port = peer_port(settings).unwrap_or(DEFAULT_PEER_PORT);
        let (namespace, lease) = (namespace(), name());
        Election::Membership(Fenced { namespace, port, lease, falls_back, folder: None })
    };
    match settings.text("berth_election") {
        _ if fixed => membership(false),
        Some("membership") if control_plane::is_alone(settings) && !bgp::is_asked(settings) => {
            Election::Membership(among_control_planes(settings))
        }
        _ if !settings.serves_services() && !control_plane::is_routed(settings) => {
            Election::Nothing
        }
        _ if bgp::is_alone(settings) => Election::Everyone,
        Some("membership") => membership(false),
        Some("service") => Election::PerService,
        Some(_) => global(),
        None if settings.switch("svc_election") == Some(true) => Election::PerService,
        None if settings.switch("vip_leaderelection") == Some(true) => global(),
        None if settings.text("svc_leasename").is_some() => global(),
        // Which goes by a Lease, and so does the other half of the same process.
        None if control_plane::is_on(settings) => global(),
        None => membership(true),
    }
}

/// How control-plane nodes decide among themselves.
fn among_control_planes(settings: &Settings) -> Fenced {
    let folder = settings.text(control_plane::FOLDER).unwrap_or(control_plane::DEFAULT_FOLDER);
    Fenced {
        namespace: namespace(settings),
        port: peer_port(settings).unwrap_or(PEER_PORT_OF_CONTROL_PLANE),
        lease: settings.text(control_plane::LEASE).unwrap_or(lease::CONTROL_PLANE).to_owned(),
        falls_back: false,
        folder: Some(folder.into()),
    }
}

fn peer_port(settings: &Settings) -> Option<u16> {
    settings.number("berth_peer_port").and_then(|port| u16::try_from(port).ok())
}

/// The strongest fence to try, whoever decides on owners.
pub(super) fn fence(settings: &Settings) -> Fence {
    match settings.text("berth_fence") {
        Some("nft-timeout") => Fence::NftTimeout,
        Some("unfenced") => Fence::Unfenced,
        _ => Fence::Bpf,
    }
}

/// Without ARP and without BGP nothing is left to do.
pub(super) fn needs_arp(settings: &Settings) -> Result<(), Problem> {
    if settings.switch("vip_arp") != Some(false) || bgp::is_asked(settings) {
        return Ok(());
    }
    let accepted =
        "accepted is true, or false beside bgp_enable: there is no other way of announcing yet";
    Err(settings.problem("vip_arp", accepted))
}

/// A Lease of a name that no object can have is never held, and nothing is served.
pub(super) fn lease_name(settings: &Settings) -> Result<(), Problem> {
    match settings.text("svc_leasename") {
        Some(name) if !is_object_name(name) => Err(settings.problem(
            "svc_leasename",
            "accepted is the name of a Lease: at most 253 small letters, digits, hyphens and dots",
        )),
        _ => Ok(()),
    }
}

pub(super) fn timing(settings: &Settings) -> Result<Timing, Problem> {
    // What is no number of seconds is told of by itself.
    let seconds = |name, default| {
        let number = settings.number(name).filter(|number| (1..=3600).contains(number));
        Duration::from_secs(number.map_or(default, i64::unsigned_abs))
    };
    let duration = seconds(DURATION, 15);
    let (deadline, retry) = (seconds(DEADLINE, 10), seconds(RETRY, 2));
    let is_given = |name: &str| settings.text(name).is_some();
    Timing::new(duration, deadline, retry).map_err(|error| match error {
        TimingError::NotWholeSeconds(_) => settings.problem(DURATION, error.to_string()),
        // Who has given one of them knows of no other.
        TimingError::DeadlineTooLong { .. } if is_given(DURATION) && !is_given(DEADLINE) => {
            let accepted = format!(
                "accepted is more than {DEADLINE}, which is {deadline:?} where it is not given; such as 5 with {DEADLINE}=3 and {RETRY}=1"
            );
            settings.problem(DURATION, accepted)
        }
        TimingError::DeadlineTooLong { .. } => settings.problem(DEADLINE, error.to_string()),
        TimingError::RetryTooLong { .. } if is_given(DEADLINE) && !is_given(RETRY) => {
            let accepted = format!(
                "accepted is more than {RETRY}, which is {retry:?} where it is not given; such as 3 with {RETRY}=1"
            );
            settings.problem(DEADLINE, accepted)
        }
        TimingError::RetryTooLong { .. } => settings.problem(RETRY, error.to_string()),
    })
}

pub(super) fn lease_annotations(settings: &Settings) -> Result<BTreeMap<String, String>, Problem> {
    let Some(text) = settings.text("vip_leaseannotations") else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|error| {
        let accepted = format!("accepted is a JSON object of strings ({error})");
        settings.problem("vip_leaseannotations", accepted)
    })
}
