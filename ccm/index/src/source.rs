//! Owns the names of what is listed and watched.

/// What was listed and is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The pool ConfigMap.
    Pools,
    /// The Services.
    Services,
    /// The EipBindings, where the cluster has such a resource.
    Eips,
    /// The claims.
    Claims,
    /// The Nodes, whose addresses and pods are never in anybody's way.
    Nodes,
    /// The ranges of cluster IPs.
    ServiceCidrs,
    /// What nodes tell of themselves ([`berth_api::host`]), where that may be listed.
    Hosts,
    /// The addresses of the API servers themselves, where those may be listed.
    ApiServers,
    /// How the API server is reached.
    ControlPlane,
    /// What announcers of the control plane tell in a namespace that is not berth-ccm's, where that may be listed.
    ControlPlaneHosts,
    /// The virtual machines, where KubeVirt is installed. No address depends on them, so nobody waits for their list.
    Machines,
}

impl Source {
    /// Those without which nothing is given out.
    pub const REQUIRED: [Self; 10] = [
        Self::Pools,
        Self::Services,
        Self::Eips,
        Self::Claims,
        Self::Nodes,
        Self::ServiceCidrs,
        Self::Hosts,
        Self::ApiServers,
        Self::ControlPlane,
        Self::ControlPlaneHosts,
    ];

    /// Its name in `/readyz`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pools => "configmap",
            Self::Services => "services",
            Self::Eips => "eipbindings",
            Self::Claims => "ipaddresses",
            Self::Nodes => "nodes",
            Self::ServiceCidrs => "servicecidrs",
            Self::Hosts => "leases",
            Self::ApiServers => "endpointslices",
            Self::ControlPlane => "controlplane",
            Self::ControlPlaneHosts => "controlplaneleases",
            Self::Machines => "virtualmachineinstances",
        }
    }
}
