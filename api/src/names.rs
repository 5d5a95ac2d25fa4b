//! Names that users already have in their clusters. None of them ever changes its spelling.

/// Annotations of Services, and of the objects that Berth makes.
pub mod annotation {
    /// The addresses of a Service: `v4`, `v6` or `v4,v6`. See [`crate::address`].
    pub const LOADBALANCER_IPS: &str = "kube-vip.io/loadbalancerIPs";
    /// The interface for the addresses of a Service, or `auto`.
    pub const SERVICE_INTERFACE: &str = "kube-vip.io/serviceInterface";
    /// The node that holds the addresses of a Service.
    pub const VIP_HOST: &str = "kube-vip.io/vipHost";
    /// `true`: Berth leaves the Service alone.
    pub const IGNORE: &str = "kube-vip.io/ignore";
    /// The VLAN for the addresses of a Service.
    pub const SERVICE_VLAN: &str = "kube-vip.io/serviceVLAN";
    /// The Lease for a Service, in place of `kubevip-<service>`.
    pub const LEASE_NAME: &str = "kube-vip.io/leaseName";
    /// `true`: announce without a ready endpoint.
    pub const ALLOW_WITHOUT_ENDPOINTS: &str = "kube-vip.io/allow-reconcile-without-endpoints";
    /// `true`: leave `spec.loadBalancerSourceRanges` alone.
    pub const IGNORE_SERVICE_SECURITY: &str = "kube-vip.io/ignore-service-security";
    /// Written by kube-vip: the endpoint that egress goes by.
    pub const ACTIVE_ENDPOINT: &str = "kube-vip.io/active-endpoint";
    /// Written by kube-vip: the same for IPv6.
    pub const ACTIVE_ENDPOINT_IPV6: &str = "kube-vip.io/active-endpoint-ipv6";
    /// Nodes that should hold the addresses of a Service if they can. See [`crate::preference`].
    pub const PREFERRED_NODES: &str = "berth.dev/preferred-nodes";
    /// What all annotations of kube-vip begin with.
    pub const KUBE_VIP: &str = "kube-vip.io/";
    /// On the Lease of the CCM: the addresses that rest, as JSON, for whoever leads next. It is there from when whatever had
    /// an address is claimed, and stays. See [`crate::claim::is_import_complete`].
    pub const RESTING: &str = "berth.dev/resting";
    /// On the Lease of the CCM: the holder that wrote [`RESTING`].
    pub const RESTING_BY: &str = "berth.dev/resting-by";
    /// On a Service: the addresses that another host answers for. See [`crate::conflict`].
    pub const CONFLICT: &str = "berth.dev/conflict";
    /// On a claim: `metadata.uid` of each owner that asked for this very address, separated by commas.
    pub const PINNED: &str = "berth.dev/pinned";
    /// On a Node, `"true"`: it hands over the addresses that it has, and takes one where nobody else can.
    pub const DRAIN: &str = "berth.dev/drain";
    /// On a claim: `metadata.uid` of its owner.
    pub const OWNER_UID: &str = "berth.dev/owner-uid";
    /// On a claim that Services share: who they are, with the ports of each, as JSON.
    pub const HOLDERS: &str = "berth.dev/holders";
    /// On a claim: the pool its address came from, `global` or a namespace.
    pub const POOL: &str = "berth.dev/pool";
    /// On a claim, `"true"`: whoever holds the address had it before there were claims. See [`crate::claim::is_imported`].
    pub const IMPORTED: &str = "berth.dev/imported";
    /// On a Lease that a group holds: who renewed it last leaves, and another one is to go on. See
    /// [`crate::election::Election::of_group`].
    pub const LEAVING: &str = "berth.dev/leaving";
    /// On the Lease of a node: the addresses of the node. See [`crate::host`].
    pub const HOST_ADDRESSES: &str = "berth.dev/host-addresses";
    /// On the Lease of a node: which host goes by its name. See [`crate::host::HostId`].
    pub const HOST_ID: &str = "berth.dev/host-id";
    /// On the Lease of a node: the hardware addresses by which it answers for addresses. See [`crate::host`].
    pub const HOST_MACS: &str = "berth.dev/host-macs";
    /// On the Lease of a node: the routers of its default routes. See [`crate::host`].
    pub const HOST_GATEWAYS: &str = "berth.dev/host-gateways";
    /// On the Lease of a control-plane node: `healthy`, or not. See [`crate::host::ControlPlane`].
    pub const API_SERVER: &str = "berth.dev/api-server";
    /// On the Lease of a control-plane node: the control plane's own addresses. See [`crate::host::ControlPlane`].
    pub const CONTROL_PLANE_ADDRESSES: &str = "berth.dev/control-plane-addresses";
    /// On the same, while there are any: those of these addresses that the node announces now. For people.
    pub const CONTROL_PLANE_ANNOUNCED: &str = "berth.dev/control-plane-announced";
    /// On the Lease of a node that tells routers where addresses are: the sessions that are up. See [`crate::host::Routers`].
    pub const BGP_SESSIONS: &str = "berth.dev/bgp-sessions";
    /// On the same: for how many seconds routers may lead addresses there of which nothing is heard any more.
    pub const BGP_KEEPS: &str = "berth.dev/bgp-keeps";
    /// On the same: the addresses of these routers, and those by which they know nodes.
    pub const BGP_ADDRESSES: &str = "berth.dev/bgp-addresses";
    /// On the Lease of a node: addresses that the network gave it for Services. See [`crate::host`].
    pub const OFFERS: &str = "berth.dev/offers";
}

/// Labels.
pub mod label {
    /// On a Service that has an address; its value is [`IMPLEMENTATION_VALUE`].
    pub const IMPLEMENTATION: &str = "implementation";
    /// The value of [`IMPLEMENTATION`].
    pub const IMPLEMENTATION_VALUE: &str = "kube-vip";
    /// On an `IPAddress`: who manages it (`networkingv1.LabelManagedBy`).
    pub const IP_ADDRESS_MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
    /// On everything else that Berth creates.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The value of [`IP_ADDRESS_MANAGED_BY`] and [`MANAGED_BY`].
    pub const BERTH: &str = "berth";
    /// On the Lease of a node, with an empty value: an announcer keeps it. See [`crate::host`].
    pub const HOST: &str = "berth.dev/host";
    /// On the Lease of a control-plane node, with an empty value: it may have the control plane's address. See
    /// [`crate::host::ControlPlane`].
    pub const CONTROL_PLANE: &str = "berth.dev/control-plane";
    /// On a Node: an address that it answers for. An IPv6 address stands as 32 hexadecimal digits, since a colon is none of what
    /// the value of a label has.
    pub const HAS_IP: &str = "kube-vip.io/has-ip";
    /// On a Node, before `/NAME.NAMESPACE` of a Service: the addresses of that Service which it answers for.
    pub const SERVICE_PROVIDED: &str = "service-provided.kube-vip.io";
    /// On an EndpointSlice: its Service (`discoveryv1.LabelServiceName`).
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// On a Service, and its EndpointSlices: kube-proxy passes it over, for another proxy (`apis.LabelServiceProxyName`).
    pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
    /// On a Service: kube-proxy passes it over (`corev1.IsHeadlessService`).
    pub const HEADLESS: &str = "service.kubernetes.io/headless";
}

/// Finalizers.
pub mod finalizer {
    /// On a Service that holds addresses (KEP-980).
    pub const LOAD_BALANCER_CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";
}

/// Types of conditions.
pub mod condition {
    /// On a Service: whether it has the addresses it asks for. Its reason is one of [`crate::reason`].
    pub const ADDRESS_ALLOCATED: &str = "berth.dev/AddressAllocated";
    /// On a Service: whether its addresses are answered for. It is there from when they are not. berth-ccm says that nobody
    /// does, with a reason of [`crate::reason::OF_SILENCE`].
    pub const ANNOUNCED: &str = "berth.dev/Announced";
    /// On a Service, while it is so: another host answers for an address of it. Its reason is
    /// [`crate::reason::ADDRESS_CONFLICT`].
    pub const ADDRESS_CONFLICT: &str = "berth.dev/AddressConflict";
}

/// Values of `spec.loadBalancerClass`.
pub mod class {
    /// The class that is ours unless another is configured.
    pub const DEFAULT: &str = "kube-vip.io/kube-vip-class";
}

/// Leases.
pub mod lease {
    /// Who allocates addresses. It is the one of kube-vip-cloud-provider's manifest, so that both never allocate at
    /// the same time.
    pub const CLOUD_CONTROLLER: &str = "kube-vip-cloud-controller";
    /// Who announces all Services.
    pub const SERVICES: &str = "plndr-svcs-lock";
    /// Who has the address of the control plane.
    pub const CONTROL_PLANE: &str = "plndr-cp-lock";
    /// Which nodes vote on who announces what.
    pub const VIEW: &str = "berth-membership";
    /// Which of the nodes that may have the address of the control plane vote on who has it.
    pub const VIEW_OF_CONTROL_PLANE: &str = "berth-membership-cp";
    /// Under this identity the members of that hold [`SERVICES`] together, and those of the other [`CONTROL_PLANE`]. It has a slash, as no name of a node has.
    pub const MEMBERS: &str = "berth.dev/membership";

    /// Whose announcer lives and which addresses are the node's own. See [`crate::host`].
    pub fn of_host(node: &str) -> String {
        format!("berth-announcer-{node}")
    }

    /// Which host goes by a name among those that may have the address of the control plane.
    pub fn of_control_plane(node: &str) -> String {
        format!("berth-control-plane-{node}")
    }

    /// Who announces one Service.
    pub fn of_service(service: &str) -> String {
        format!("kubevip-{service}")
    }
}

/// The pool ConfigMap, and the variables that name it.
pub mod pools {
    /// Variable: the namespace of the ConfigMap.
    pub const NAMESPACE_VARIABLE: &str = "KUBEVIP_NAMESPACE";
    /// Variable: the name of the ConfigMap.
    pub const CONFIG_MAP_VARIABLE: &str = "KUBEVIP_CONFIG_MAP";
    /// The namespace of the ConfigMap unless another is configured.
    pub const NAMESPACE: &str = "kube-system";
    /// The name of the ConfigMap unless another is configured.
    pub const CONFIG_MAP: &str = "kubevip";
}
