//! What settings ask an announcer to do, as far as its rights and its pod depend on that.

use berth_api::names::lease;

use crate::config::{Election, Settings, elects};

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decides {
    /// The members.
    Membership,
    /// One Lease.
    Lease,
    /// A Lease for each Service.
    LeasePerService,
    /// Nobody.
    Everyone,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Modes {
    /// Who decides on Services, or on the control plane's address where there are none.
    pub(super) decides: Decides,
    /// The Secret with the key of membership.
    pub(super) secret: &'static str,
    /// Whether routers are told.
    pub(super) routed: bool,
    /// Whether Services and elastic IPs are served.
    pub(super) services: bool,
    /// Whether the control plane has an address.
    pub(super) control_plane: bool,
    /// The only namespace whose Services are served.
    pub(super) services_in: Option<String>,
    /// Whether the status of Services is written.
    pub(super) publishes: bool,
    /// Whether Nodes are labelled.
    pub(super) labels: bool,
    /// Whether claims may decide.
    pub(super) claims: bool,
    /// Whether the networks of Services are asked for, for elastic IPs.
    pub(super) networks: bool,
    /// Where its Leases are, and its key.
    pub(super) namespace: String,
    /// Whether there is an API server at all.
    pub(super) cluster: bool,
}

impl Modes {
    /// Those of settings.
    pub(super) fn of(settings: &Settings) -> Self {
        let is = |name: &str| settings.switch(name) == Some(true);
        let election = elects(settings);
        let decides = match &election {
            Election::Membership(_) => Decides::Membership,
            Election::Global { .. } | Election::Nothing => Decides::Lease,
            Election::PerService => Decides::LeasePerService,
            Election::Everyone => Decides::Everyone,
        };
        let services = settings.serves_services();
        let secret = match &election {
            Election::Membership(fenced) => fenced.name(),
            _ => lease::VIEW,
        };
        Self {
            decides,
            secret,
            routed: (services || is("cp_enable")) && is("bgp_enable"),
            services,
            control_plane: is("cp_enable"),
            services_in: settings.text("svc_namespace").map(str::to_owned),
            publishes: services && !is("disable_service_updates"),
            labels: services && is("enable_node_labeling"),
            claims: services && settings.text("berth_claims") != Some("ignored"),
            networks: services && settings.text("berth_eip_internal_net").is_none(),
            namespace: settings.text("cp_namespace").unwrap_or("kube-system").to_owned(),
            cluster: settings.text("berth_members").is_none(),
        }
    }
}
