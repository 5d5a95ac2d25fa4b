//! What kube-vip takes: facts, from its public source.

/// The flags of kube-vip 1.2.0 to 1.2.3 that its `manifest` takes, as its public source has them, each with what follows.
#[rustfmt::skip]
pub(super) const SWITCHES: &[&str] = &[
    "allowInterfaceNotUp", "arp", "autodetectcp", "bgp", "bgpAttachIPToInterface", "cleanRoutingTable",
    "controlplane", "ddns", "disableServiceUpdates", "egressWithNftables", "enableEndpoints",
    "enableLoadBalancer", "enableNodeLabeling", "inCluster", "lbClassNameLegacyHandling", "lbClassOnly",
    "leaderElection", "loInterfaceGlobalScope", "loseLeadership", "multihop", "onlyAllowTrafficServicePorts",
    "perServiceElectionOnDemand", "preserveVipOnLeadershipLoss", "services", "servicesElection", "table",
    "taint", "wireguard", "zebra",
];
/// The same, with a value.
#[rustfmt::skip]
pub(super) const VALUES: &[&str] = &[
    "address", "annotations", "bgpHoldTimer", "bgpKeepAliveInterval", "bgpRouterID", "bgppeers", "config-file",
    "controlPlaneHealthCheckAddress", "controlPlaneHealthCheckCAPath",
    "controlPlaneHealthCheckFailureThreshold", "controlPlaneHealthCheckPeriodSeconds",
    "controlPlaneHealthCheckTimeoutSeconds", "debounceTime", "dhcpBackoffAttempts", "dhcpMode", "dnsMode",
    "etcdCACert", "etcdCert", "etcdEndpoints", "etcdKey", "healthCheckPort", "image", "instanceName",
    "interface", "k8sConfigPath", "lbClassName", "lbForwardingMethod", "lbPort", "leaderElectionType",
    "leaseDuration", "leaseName", "leaseRenewDuration", "leaseRetry", "localAS", "log",
    "loseLeadershiptTimeoutSeconds", "mirrorDestInterface", "namespace", "nodeName", "peerAS", "peerAddress",
    "peerPass", "port", "prometheusHTTPServer", "routingProtocol", "serviceInterface", "servicesLeaseName",
    "sourceIF", "sourceIP", "tableID", "tableType", "vip", "vipSubnet", "zebraSoftwareName", "zebraUrl",
    "zebraVersion",
];
/// Flags of the years before.
#[rustfmt::skip]
pub(super) const OLDER: &[&str] = &[
    "cidr=32", "enableEndpointSlices", "enableUPNP", "metal", "metalKey=x", "metalProject=x",
    "metalProjectID=x", "packet", "packetKey=x", "packetProject=x", "packetProjectID=x",
    "promethuesHTTPServer=:2112", "provider-config=x", "singleNode", "startAsLeader",
];
/// The variables that kube-vip 1.2.3 reads, and those that earlier ones read.
#[rustfmt::skip]
pub(super) const THEIRS: &[&str] = &[
    "address", "annotation", "backend_health_check_interval", "bgp_as", "bgp_attach_ip_to_interface",
    "bgp_enable", "bgp_hold_time", "bgp_keepalive_interval", "bgp_multihop", "bgp_peeraddress", "bgp_peeras",
    "bgp_peerpass", "bgp_peers", "bgp_routerid", "bgp_routerinterface", "bgp_sourceif", "bgp_sourceip",
    "config_file", "control_plane_health_check_address", "control_plane_health_check_ca_path",
    "control_plane_health_check_failure_threshold", "control_plane_health_check_period_seconds",
    "control_plane_health_check_timeout_seconds", "cp_detect", "cp_enable", "cp_namespace", "debounce_time",
    "dhcp_backoff_attempts", "dhcp_mode", "disable_service_updates", "dns_mode", "egress_clean",
    "egress_enableinternalsnat", "egress_podcidr", "egress_servicecidr", "egress_withnftables",
    "enable_endpoints", "enable_node_labeling", "enable_service_security", "enable_upnp", "health_check_port",
    "instance_name", "iptables_backend", "k8s_config_file", "kubernetes_addr", "lb_class_legacy_handling",
    "lb_class_name", "lb_class_only", "lb_enable", "lb_fwdmethod", "lb_port", "mirror_dest_interface",
    "mpbgp_ipv4", "mpbgp_ipv6", "mpbgp_nexthop", "per_service_election_on_demand", "port", "prometheus_server",
    "svc_election", "svc_enable", "svc_leasename", "svc_namespace", "vip_address", "vip_allow_interface_not_up",
    "vip_arp", "vip_arpRate", "vip_cleanroutingtable", "vip_configmap", "vip_ddns", "vip_interface",
    "vip_interfaceloglobal", "vip_leaderelection", "vip_leaseannotations", "vip_leaseduration", "vip_leasename",
    "vip_loglevel", "vip_loseleadership", "vip_loseleadership_timeout_seconds", "vip_nodename",
    "vip_preserve_on_leadership_loss", "vip_renewdeadline", "vip_retryperiod", "vip_routingprotocol",
    "vip_routingtable", "vip_routingtableid", "vip_routingtabletype", "vip_servicesinterface", "vip_singlenode",
    "vip_skipdad", "vip_startleader", "vip_subnet", "vip_wireguard", "zebra_enable", "zebra_software_name",
    "zebra_url", "zebra_version", "bgp_source_if", "bgp_source_ip", "enableUPNP", "enable_endpointslices",
    "provider_config", "vip_cidr", "vip_packet", "vip_packetproject", "vip_packetprojectid", "vip_localpeer",
    "vip_peers", "vip_remotepeers", "vip_addpeerstolb", "lb_bindtovip", "lb_name", "lb_type", "lb_backendport",
    "lb_backends",
];
