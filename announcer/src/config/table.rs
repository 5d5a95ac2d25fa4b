//! Every setting, by what it is for: those of kube-vip, of today and of before, and Berth's own. docs/settings.md shows it.

use super::variables::Capability::{
    self, ArpNd, Bgp, ControlPlane, Core, Egress, Eip, Http, Routes, Services,
};
use super::variables::Kind::{self, Namespace, Number, Switch, Text, Word};
use super::variables::Verdict::{ActedOn, Met, NotYet, Refused};
use super::variables::{Coming, Variable, Verdict};

/// Acted on. `theirs` is what kube-vip takes where it is not given.
const fn act(
    of: Capability,
    name: &'static str,
    flags: &'static str,
    kind: Kind,
    theirs: &'static str,
    help: &'static str,
) -> Variable {
    row(of, name, flags, kind, theirs, ActedOn, help)
}

/// Met: `help` says how.
const fn met(
    of: Capability,
    name: &'static str,
    flags: &'static str,
    kind: Kind,
    theirs: &'static str,
    help: &'static str,
) -> Variable {
    row(of, name, flags, kind, theirs, Met, help)
}

const fn row(
    of: Capability,
    name: &'static str,
    flags: &'static str,
    kind: Kind,
    theirs: &'static str,
    verdict: Verdict,
    help: &'static str,
) -> Variable {
    Variable { of, name, flags, kind, theirs, verdict, with: "", flag_only: false, help }
}

/// Counts for nothing without `with`, and shares its fate where that is on.
const fn part(with: &'static str, variable: Variable) -> Variable {
    Variable { with, ..variable }
}

/// kube-vip has no name for it in the environment.
const fn flag(variable: Variable) -> Variable {
    Variable { flag_only: true, ..variable }
}

const TEXT: Kind = Text("VALUE");
const SECONDS: Kind = Number(1, 3600);
const PORT: Kind = Number(0, 65535);
const ASN: Kind = Number(1, u32::MAX as i64);
const RTM: Kind = Number(0, 255);

const LB: Verdict = NotYet(Coming::Balancing);
const TABLE: Verdict = NotYet(Coming::Routes);
const EGRESS: Verdict = NotYet(Coming::Egress);
const DHCP: Verdict = NotYet(Coming::Dhcp);
const UPNP: Verdict = NotYet(Coming::Upnp);

/// Asked for by annotations of Services.
const EGRESS_OF_A_SERVICE: &str = "kube-vip.io/egress";

const EQUINIX: Verdict = Refused(
    "Equinix Metal has closed, and its API with it; use BGP with the peers in node annotations or in bgp_peers",
);
const ETCD: Verdict = Refused(
    "elections are not held in etcd; leave it out: use berth_election=membership, where the nodes decide among themselves, or a Lease",
);
const ZEBRA: Verdict = Refused(
    "zebra is not spoken to; use routing-table mode, when it is built, and let FRR redistribute that table",
);

const RAFT: &str = "of elections by Raft, which kube-vip holds no more either";
const OLD_LB: &str = "of kube-vip's balancer of before, which kube-vip reads no more either";

/// Those that are, or may have in them, a password: their values are shown to nobody.
pub(crate) const SECRET: &[&str] = &["bgp_peerpass", "bgp_peers", "metalKey"];

/// All of them, by what they are for.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    // Core
    act(Core, "vip_loglevel", "log", Number(-8, 8), "0", "below 0 debug, from 0 info, from 4 warnings, from 8 errors [default: 0]"),
    act(Core, "vip_nodename", "nodeName", Text("NAME"), "the host name", "this node's name [default: the host name]"),
    act(Core, "vip_interface", "interface", Text("INTERFACE"), "that of the default route", "interface of the addresses [default: that of the default route]"),
    act(Core, "vip_servicesinterface", "serviceInterface", Text("INTERFACE"), "vip_interface", "interface of the Services' addresses [default: vip_interface]"),
    met(Core, "vip_allow_interface_not_up", "allowInterfaceNotUp", Switch, "false", "it starts whatever the state of the interface, and announces when it has a carrier"),
    met(ArpNd, "vip_interfaceloglobal", "loInterfaceGlobalScope", Switch, "false", "addresses are always of global scope"),
    met(ArpNd, "vip_subnet", "vipSubnet", TEXT, "32, 128", "addresses are always bound as /32 and /128; another length is told at the start, and else ignored"),
    met(ArpNd, "vip_cidr", "cidr", TEXT, "32", "older name of vip_subnet"),
    act(Core, "instance_name", "instanceName", Text("NAME"), "none", "name of this announcer on the node [default: by its roles]"),
    act(ControlPlane, "vip_address", "vip", Text("ADDRESSES"), "none", "older name of address [default: none]"),
    act(ControlPlane, "address", "address", Text("ADDRESSES"), "none", "addresses to announce, a comma list: those of the control plane, with cp_enable, by themselves or by name, or without a cluster, with berth_members [default: none]"),
    act(ControlPlane, "port", "port", PORT, "6443", "port of that address, and with cp_enable of the API server of this node [default: 6443]"),
    row(ControlPlane, "vip_ddns", "ddns", Switch, "false", DHCP, "address of the control plane by DHCP and dynamic DNS"),
    part("vip_ddns", row(ControlPlane, "dhcp_mode", "dhcpMode", Word(&["ipv4", "ipv6", "dual"]), "dns_mode, else ipv4", DHCP, "families asked for by DHCP")),
    part("vip_ddns", row(ControlPlane, "dhcp_backoff_attempts", "dhcpBackoffAttempts", Number(0, i32::MAX as i64), "3", DHCP, "how often a DHCP server is asked")),
    part("cp_enable", act(ControlPlane, "dns_mode", "dnsMode", Word(&["first", "ipv4", "ipv6", "dual"]), "first", "which addresses are used where address is a name, in letters of any size; first is one of IPv4 where there is one [default: first]")),
    act(Core, "k8s_config_file", "k8sConfigPath", Text("FILE"), "/etc/kubernetes/admin.conf", "kubeconfig [default: KUBECONFIG, else the account of the pod, else /etc/kubernetes/admin.conf]"),
    act(Core, "kubernetes_addr", "kubernetesAddr", Text("URL"), "that of the kubeconfig", "URL of the API server, instead of the one in the kubeconfig [default: that of the kubeconfig; with cp_enable the API server of this node]"),
    flag(met(Core, "inCluster", "", Switch, "false", "where no kubeconfig is named the account of the pod is taken; `manifest` goes by it")),
    flag(met(Core, "taint", "", Switch, "false", "of `manifest daemonset`: on control-plane nodes alone")),
    part("bgp_enable", act(Bgp, "annotation", "annotations", Text("PREFIX"), "none", "prefix of annotations of nodes that name peers [default: none]")),
    act(Core, "config_file", "config-file", Text("FILE"), "none", "YAML or JSON with settings, which count where no flag and no variable says otherwise [default: none]"),
    met(Core, "vip_configmap", "configMap", TEXT, "plndr", "no announcer reads its settings from a ConfigMap any more, kube-vip's neither"),
    // Election
    act(Core, "vip_leaderelection", "leaderElection", Switch, "false", "one Lease for all Services [default: false]"),
    flag(row(Core, "leaderElectionType", "", Word(&["kubernetes", "etcd"]), "kubernetes", ETCD, "where elections are held")),
    part("leaderElectionType", flag(row(Core, "etcdCACert", "", TEXT, "none", ETCD, "certificate of etcd"))),
    part("leaderElectionType", flag(row(Core, "etcdCert", "", TEXT, "none", ETCD, "certificate for etcd"))),
    part("leaderElectionType", flag(row(Core, "etcdKey", "", TEXT, "none", ETCD, "key for etcd"))),
    part("leaderElectionType", flag(row(Core, "etcdEndpoints", "", TEXT, "none", ETCD, "where etcd is"))),
    part("cp_enable", act(ControlPlane, "vip_leasename", "leaseName", Text("NAME"), "plndr-cp-lock", "Lease of the control plane's address [default: plndr-cp-lock]")),
    act(Core, "vip_leaseduration", "leaseDuration", SECONDS, "15", "seconds after which others may take a Lease [default: 15]"),
    act(Core, "vip_renewdeadline", "leaseRenewDuration", SECONDS, "10", "seconds without renewal after which an owner stops [default: 10]"),
    act(Core, "vip_retryperiod", "leaseRetry", SECONDS, "2", "seconds between renewals [default: 2]"),
    act(Core, "vip_leaseannotations", "leaseAnnotations", Text("JSON"), "none", "annotations of Leases, as a JSON object [default: none]"),
    act(Core, "svc_election", "servicesElection", Switch, "false", "one Lease for each Service [default: false]"),
    act(Core, "svc_leasename", "servicesLeaseName", Text("NAME"), "plndr-svcs-lock", "one Lease for all Services, of this name [default: plndr-svcs-lock]"),
    met(Core, "per_service_election_on_demand", "perServiceElectionOnDemand", Switch, "false", "by membership each address is decided on by itself; by one Lease a Service that asks for its own is told NotSupported"),
    act(Core, "berth_election", "election", Word(&["membership", "global", "service"]), "", "who decides on the owner; wins over the elections above; beside bgp_enable with vip_arp=true, of what layer2 of ConfigMap berth-bgp leaves to neighbours; with cp_enable alone, membership or a Lease for the control plane's address [default: theirs, else membership; with cp_enable a Lease]"),
    act(Core, "berth_claims", "claims", Word(&["required", "ignored"]), "", "whether only what an IPAddress of berth-ccm names is served [default: once berth-ccm has claimed what there was]"),
    act(Core, "berth_drain_taints", "drainTaints", Text("TAINTS"), "", "taints with which a node is emptied, such as node.kubernetes.io/out-of-service,shop/upkeep=now:NoSchedule [default: none]"),
    act(Core, "berth_peer_port", "peerPort", Number(1, 65535), "", "UDP port of the peers, with membership [default: 2113, and 2123 where they decide on the control plane's address]"),
    act(Core, "berth_members", "members", Text("FILE"), "", "file with the members of a cluster without API server, one a line: NAME ADDRESS[,ADDRESS...] [default: none]"),
    act(Core, "berth_key_file", "keyFile", Text("FILE"), "", "file with the key of these members, 16 octets or more, not readable by others [default: none]"),
    act(Core, "berth_fence", "fence", Word(&["bpf", "nft-timeout", "unfenced"]), "", "the strongest fence to try [default: bpf]"),
    act(Eip, "berth_eip_internal_net", "eipInternalNet", Text("NETWORKS"), "", "networks where machines are met under their own addresses [default: the cluster's pods and Services]"),
    act(Eip, "berth_eip_gateway", "eipGateway", Text("ADDRESSES"), "", "gateways of machines with elastic IPs [default: those of the interface's default routes]"),
    row(Core, "vip_preserve_on_leadership_loss", "preserveVipOnLeadershipLoss preserveOnLeadershipLoss", Switch, "false", Refused("a node that may not answer for an address does not keep it; leave it out"), "keep addresses without a Lease"),
    met(Core, "vip_loseleadership", "loseLeadership", Switch, "false", "an owner whose interface has no carrier always gives its addresses up"),
    met(Core, "vip_loseleadership_timeout_seconds", "loseLeadershiptTimeoutSeconds", Number(0, i32::MAX as i64), "30", "it does so at once"),
    met(Core, "vip_singlenode", "singleNode", Switch, "false", "a node alone needs no setting"),
    met(Core, "vip_startleader", "startAsLeader", Switch, "false", "the first to come takes the Lease at once"),
    met(Core, "vip_localpeer", "", TEXT, "none", RAFT),
    met(Core, "vip_peers", "", TEXT, "none", RAFT),
    met(Core, "vip_remotepeers", "", TEXT, "none", RAFT),
    met(Core, "vip_addpeerstolb", "", Switch, "false", RAFT),
    // Control plane
    act(ControlPlane, "cp_enable", "controlplane", Switch, "false", "an address for the control plane (docs/control-plane.md) [default: false]"),
    act(Core, "cp_namespace", "namespace", Namespace, "kube-system", "namespace of the Leases and of the Secret berth-membership [default: kube-system]"),
    part("cp_enable", met(ControlPlane, "cp_detect", "autodetectcp", Switch, "false", "the API server of this node is asked in any case, unless kubernetes_addr names another")),
    part("cp_enable", act(ControlPlane, "berth_cp_folder", "controlPlaneFolder", Text("FOLDER"), "", "where, with berth_election=membership, view, key and peers are kept on the disk of this node [default: /var/lib/berth/control-plane]")),
    part("cp_enable", act(ControlPlane, "control_plane_health_check_address", "controlPlaneHealthCheckAddress", Text("URL"), "none", "what is asked for the API server's health [default: /readyz of the API server of this node]")),
    part("cp_enable", act(ControlPlane, "control_plane_health_check_period_seconds", "controlPlaneHealthCheckPeriodSeconds", SECONDS, "5", "how often, in seconds [default: 1]")),
    part("cp_enable", act(ControlPlane, "control_plane_health_check_timeout_seconds", "controlPlaneHealthCheckTimeoutSeconds", SECONDS, "3", "how long an answer may take, in seconds [default: 1]")),
    part("cp_enable", act(ControlPlane, "control_plane_health_check_failure_threshold", "controlPlaneHealthCheckFailureThreshold", SECONDS, "3", "how many may fail in a row [default: 3]")),
    part("cp_enable", act(ControlPlane, "control_plane_health_check_ca_path", "controlPlaneHealthCheckCAPath", Text("FILE"), "none", "by which authority it is known [default: that of the kubeconfig]")),
    part("lb_enable", row(ControlPlane, "backend_health_check_interval", "backendHealthCheckInterval", SECONDS, "5", LB, "how often the API servers are asked")),
    row(ControlPlane, "lb_enable", "enableLoadBalancer", Switch, "false", LB, "balance the control plane by IPVS"),
    part("lb_enable", row(ControlPlane, "lb_port", "lbPort", PORT, "6443", LB, "port of the balanced address")),
    part("lb_enable", row(ControlPlane, "lb_fwdmethod", "lbForwardingMethod", Word(&["local", "masquerade", "tunnel", "directroute", "direct", "bypass"]), "local", LB, "how packets reach the API servers")),
    met(ControlPlane, "lb_bindtovip", "", Switch, "false", OLD_LB),
    met(ControlPlane, "lb_name", "", TEXT, "none", OLD_LB),
    met(ControlPlane, "lb_type", "", TEXT, "none", OLD_LB),
    met(ControlPlane, "lb_backendport", "", TEXT, "none", OLD_LB),
    met(ControlPlane, "lb_backends", "", TEXT, "none", OLD_LB),
    // Services
    act(Core, "svc_enable", "services", Switch, "false", "serve Services [default: true, but false where cp_enable is on]"),
    act(Services, "svc_namespace", "serviceNamespace", Namespace, "all", "serve Services of this namespace only [default: all]"),
    act(Services, "lb_class_only", "lbClassOnly", Switch, "false", "leave alone Services without a class [default: false]"),
    act(Services, "lb_class_name", "lbClassName", Text("CLASS"), "kube-vip.io/kube-vip-class", "the class that is served [default: kube-vip.io/kube-vip-class]"),
    act(Services, "lb_class_legacy_handling", "lbClassNameLegacyHandling", Switch, "true", "serve Services without a class as well, unless lb_class_only; without it, those alone where lb_class_name is empty and none where it is not [default: true]"),
    act(Services, "disable_service_updates", "disableServiceUpdates", Switch, "false", "leave the status of Services alone [default: false]"),
    act(Services, "berth_service_interfaces", "serviceInterfaces", Text("INTERFACES"), "", "interfaces that Services may name besides that of the announcer, such as eth1,shop/bond0 (bond0 in the namespace shop); empty for none [default: all]"),
    act(Services, "berth_service_vlans", "serviceVlans", Text("NUMBERS"), "", "VLANs that Services may name, such as 5,shop/100-199; empty for none [default: all]"),
    met(Services, "enable_endpoints", "enableEndpoints", Switch, "false", "EndpointSlices are read in any case"),
    met(Services, "enable_endpointslices", "enableEndpointSlices", Switch, "false", "EndpointSlices are read in any case"),
    act(Services, "enable_service_security", "onlyAllowTrafficServicePorts", Switch, "false", "close the ports of the host behind addresses of Services [default: false]"),
    act(Services, "enable_node_labeling", "enableNodeLabeling", Switch, "false", "label the Node that answers for a Service, service-provided.kube-vip.io/NAME.NAMESPACE, and kube-vip.io/has-ip with `address` where it answers for that, else with the lowest it answers for [default: false]"),
    row(Services, "enable_upnp", "", Switch, "false", UPNP, "open ports of an internet gateway"),
    row(Services, "enableUPNP", "", Switch, "false", UPNP, "older name of enable_upnp"),
    row(Services, "mirror_dest_interface", "mirrorDestInterface", TEXT, "none", Refused("traffic is not copied; use a filter of the node (tc, mirred) or a mirror port of the switch"), "copy the interface's traffic to another"),
    met(Services, "debounce_time", "debounceTime", Text("DURATION"), "0s", "changes that come together are always taken together"),
    // ARP
    act(ArpNd, "vip_arp", "arp", Switch, "false", "announce by ARP and neighbour discovery; beside bgp_enable what layer2 of ConfigMap berth-bgp leaves to neighbours [default: true, but false where bgp_enable or vip_routingtable is on]"),
    act(ArpNd, "vip_arpRate", "arpRate", Number(100, 3_600_000), "3000", "milliseconds between announcements after the first burst [default: 60000]"),
    act(ArpNd, "vip_skipdad", "skipDAD", Switch, "false", "take an address into use without asking whether another host has it [default: false]"),
    // BGP
    act(Bgp, "bgp_enable", "bgp", Switch, "false", "announce by BGP, from every node that can serve an address; beside vip_arp=true all but what layer2 of ConfigMap berth-bgp leaves to neighbours [default: false]"),
    part("bgp_enable", act(Bgp, "bgp_attach_ip_to_interface", "bgpAttachIPToInterface", Switch, "false", "bind addresses on vip_interface, and not on lo; refused beside vip_arp [default: false]")),
    part("bgp_enable", act(Bgp, "bgp_routerid", "bgpRouterID", Text("ADDRESS"), "none", "id of this router [default: the IPv4 address of the interface of the default route, else one made of the name of the node]")),
    part("bgp_enable", act(Bgp, "bgp_routerinterface", "bgpRouterInterface", Text("INTERFACE"), "none", "interface whose IPv4 address is that id [default: none]")),
    part("bgp_enable", act(Bgp, "bgp_as", "localAS", ASN, "65000", "own AS [default: 65000]")),
    part("bgp_enable", act(Bgp, "bgp_peeraddress", "peerAddress", Text("ADDRESS"), "none", "address of the one peer [default: none]")),
    part("bgp_enable", act(Bgp, "bgp_peers", "bgppeers", Text("PEERS"), "none", "peers, a comma list in either grammar of kube-vip [default: none]")),
    part("bgp_enable", act(Bgp, "bgp_peeras", "peerAS", ASN, "65000", "AS of the one peer [default: 65000]")),
    part("bgp_enable", act(Bgp, "bgp_peerpass", "peerPass", Text("PASSWORD"), "none", "password of the one peer, or file:/PATH [default: none]")),
    part("bgp_enable", act(Bgp, "bgp_multihop", "multihop", Switch, "false", "the peer is more than one hop away [default: false]")),
    part("bgp_enable", act(Bgp, "bgp_sourceif", "sourceIF", Text("INTERFACE"), "none", "interface of the sessions [default: none]")),
    part("bgp_enable", act(Bgp, "bgp_sourceip", "sourceIP", Text("ADDRESS"), "none", "own address of the sessions [default: that of the route to the peer]")),
    part("bgp_enable", act(Bgp, "bgp_source_if", "", Text("INTERFACE"), "none", "older name of bgp_sourceif [default: none]")),
    part("bgp_enable", act(Bgp, "bgp_source_ip", "", Text("ADDRESS"), "none", "older name of bgp_sourceip [default: none]")),
    part("bgp_enable", act(Bgp, "bgp_hold_time", "bgpHoldTimer", PORT, "30", "seconds until a silent peer is given up; 0 for never [default: 30]")),
    part("bgp_enable", act(Bgp, "bgp_keepalive_interval", "bgpKeepAliveInterval", PORT, "10", "seconds between signs of life; 0 for a third of what is agreed on [default: 10]")),
    part("bgp_enable", act(Bgp, "mpbgp_nexthop", "mpbgpNexthop", Text("MODE"), "none", "fixed, auto_sourceip or auto_sourceif: routes of both families are announced, and where they lead [default: none]")),
    part("bgp_enable", act(Bgp, "mpbgp_ipv4", "mpbgpIPv4", Text("ADDRESS"), "none", "where routes of IPv4 lead, with fixed [default: none]")),
    part("bgp_enable", act(Bgp, "mpbgp_ipv6", "mpbgpIPv6", Text("ADDRESS"), "none", "where routes of IPv6 lead, with fixed [default: none]")),
    row(Bgp, "zebra_enable", "zebra", Switch, "false", ZEBRA, "hand routes to FRR's zebra"),
    part("zebra_enable", row(Bgp, "zebra_url", "zebraUrl", TEXT, "unix:/var/run/frr/zserv.api", ZEBRA, "where zebra listens")),
    part("zebra_enable", row(Bgp, "zebra_version", "zebraVersion", RTM, "6", ZEBRA, "version of its protocol")),
    part("zebra_enable", row(Bgp, "zebra_software_name", "zebraSoftwareName", TEXT, "frr8.3", ZEBRA, "name of its release")),
    row(Bgp, "vip_packet", "metal packet", Switch, "false", EQUINIX, "elastic IPs by the API of Equinix Metal"),
    part("vip_packet", row(Bgp, "vip_packetproject", "metalProject packetProject", TEXT, "none", EQUINIX, "project there, by name")),
    part("vip_packet", row(Bgp, "vip_packetprojectid", "metalProjectID packetProjectID", TEXT, "none", EQUINIX, "project there, by id")),
    part("vip_packet", flag(row(Bgp, "metalKey", "packetKey", TEXT, "none", EQUINIX, "token of that API"))),
    row(Bgp, "provider_config", "provider-config", TEXT, "none", EQUINIX, "file with that project and token"),
    // Routes and WireGuard
    row(Routes, "vip_routingtable", "table", Switch, "false", TABLE, "routes in a table of their own"),
    part("vip_routingtable", row(Routes, "vip_routingtableid", "tableID", Number(0, u32::MAX as i64), "198", TABLE, "number of the table")),
    part("vip_routingtable", row(Routes, "vip_routingtabletype", "tableType", RTM, "1", TABLE, "type of its routes")),
    part("vip_routingtable", row(Routes, "vip_routingprotocol", "routingProtocol", RTM, "248", TABLE, "protocol of its routes")),
    part("vip_routingtable", row(Routes, "vip_cleanroutingtable", "cleanRoutingTable", Switch, "false", TABLE, "sweep it at the start")),
    row(Routes, "vip_wireguard", "wireguard", Switch, "false", Refused("no tunnel is made; use a WireGuard interface that the node has, and BGP over it, or routing-table mode when that is built"), "addresses behind a WireGuard tunnel"),
    // Egress
    part(EGRESS_OF_A_SERVICE, row(Egress, "egress_podcidr", "egressPodCidr", TEXT, "10.0.0.0/16", EGRESS, "networks of pods")),
    part(EGRESS_OF_A_SERVICE, row(Egress, "egress_servicecidr", "egressServiceCidr", TEXT, "10.96.0.0/12", EGRESS, "networks of Services")),
    part(EGRESS_OF_A_SERVICE, row(Egress, "egress_withnftables", "egressWithNftables", Switch, "true", EGRESS, "by nftables, which is all there will be")),
    part(EGRESS_OF_A_SERVICE, row(Egress, "egress_enableinternalsnat", "", Switch, "false", EGRESS, "for traffic inside the cluster as well")),
    part(EGRESS_OF_A_SERVICE, row(Egress, "egress_clean", "egressClean", Switch, "false", EGRESS, "sweep rules at the start")),
    part(EGRESS_OF_A_SERVICE, row(Egress, "iptables_backend", "iptablesBackend", Word(&["", "nft", "legacy"]), "found out", EGRESS, "which iptables")),
    // Operations
    act(Http, "prometheus_server", "prometheusHTTPServer promethuesHTTPServer", Text("ADDRESS:PORT"), ":2112", "where /metrics, /healthz and /readyz listen; empty for no metrics: the others are on loopback all the same [default: :2112]"),
    act(Http, "health_check_port", "healthCheckPort", PORT, "0", "one more port for /healthz and /readyz, on all addresses; 0 for none [default: 0]"),
];

/// Finds a setting by its name in the environment; two have a second one in capitals, as kube-vip reads them.
pub fn find(name: &str) -> Option<&'static Variable> {
    let name = match name {
        "INSTANCE_NAME" => "instance_name",
        "EGRESS_CLEAN" => "egress_clean",
        name => name,
    };
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// Finds a setting by a flag, without the dashes.
pub fn find_flag(flag: &str) -> Option<&'static Variable> {
    let is_it = |variable: &&Variable| {
        variable.name == flag || variable.aliases().any(|alias| alias == flag)
    };
    VARIABLES.iter().find(is_it)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_and_no_flag_stands_for_two_settings() {
        let mut seen = BTreeSet::new();
        for variable in VARIABLES {
            assert!(seen.insert(variable.name), "{}", variable.name);
            for flag in variable.aliases() {
                assert!(seen.insert(flag), "{flag}");
            }
        }
    }

    #[test]
    fn what_counts_with_another_setting_names_one_that_is_there() {
        let of_settings =
            |variable: &&Variable| !variable.with.is_empty() && !variable.with.contains('/');
        for variable in VARIABLES.iter().filter(of_settings) {
            let other = find(variable.with);
            assert!(other.is_some_and(|other| other.with.is_empty()), "{}", variable.name);
        }
    }

    #[test]
    fn each_setting_that_is_served_tells_what_it_takes_and_what_it_is_without() {
        for variable in VARIABLES.iter().filter(|variable| variable.verdict == Verdict::ActedOn) {
            let Variable { name, kind, help, .. } = variable;
            assert!(help.contains(" [default: ") && help.ends_with(']'), "{name}: {help}");
            assert_ne!(*kind, Text("VALUE"), "{name}");
        }
        let told = |name: &str| {
            let variable = find(name).unwrap();
            format!("{}: {}", variable.kind.value(), variable.help_text())
        };
        assert_eq!(
            told("berth_peer_port"),
            "NUMBER: UDP port of the peers, with membership, 1 to 65535 [default: 2113, and 2123 where they decide on the control plane's address]"
        );
        assert_eq!(
            told("berth_fence"),
            "WORD: the strongest fence to try, bpf|nft-timeout|unfenced [default: bpf]"
        );
        assert!(
            told("vip_interface").starts_with("INTERFACE: interface of the addresses [default: ")
        );
    }
}
