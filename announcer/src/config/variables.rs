//! Every setting of kube-vip's DaemonSet, by its environment name and its flag: what it takes, and how far it is served.

use Capability::{ArpNd, Bgp, ControlPlane, Core, Egress, Eip, Http, Routes, Services};
use Kind::{Number, Switch, Text, Word};
use Support::{Harmless, NotYet, Served};

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, and the other spellings that Go's `strconv.ParseBool` knows.
    Switch,
    /// A whole number between two bounds, both included.
    Number(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text, and what it is in a word for `--help`; where it has a form, whoever uses it parses it.
    Text(&'static str),
}

/// How far a setting is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it does in kube-vip.
    Served,
    /// It changes nothing here, and leaving it out would change nothing: it is checked and else ignored.
    Harmless,
    /// Switched on it asks for something that is not built yet, which is an error rather than a silence.
    NotYet,
}

/// What a setting is for. One that is wrong takes away what it is for, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// The whole process: who this node is, which interface it uses, who decides on owners.
    Core,
    /// Addresses of Services.
    Services,
    /// Elastic IPs.
    Eip,
    /// Announcing by ARP and neighbour discovery, by which everything is announced yet.
    ArpNd,
    /// `/metrics`, `/healthz` and `/readyz`.
    Http,
    /// The address of the control plane.
    ControlPlane,
    /// Announcing by BGP.
    Bgp,
    /// Routes in a table of their own, and WireGuard.
    Routes,
    /// Addresses of traffic that leaves.
    Egress,
}

impl Capability {
    /// Its readiness check, which fails while a setting of it is wrong.
    pub fn check(self) -> &'static str {
        match self {
            Core => "config/core",
            Services => "config/services",
            Eip => "config/eip",
            ArpNd => "config/arp_nd",
            Http => "config/http",
            ControlPlane => "config/control_plane",
            Bgp => "config/bgp",
            Routes => "config/routes",
            Egress => "config/egress",
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// What it is for.
    pub of: Capability,
    /// Its name in the environment; also taken as a flag.
    pub name: &'static str,
    /// kube-vip's name for the flag, empty where it has none.
    pub flag: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// How far it is served.
    pub support: Support,
    /// One line for `--help`.
    pub help: &'static str,
}

impl Kind {
    /// What a value is, in a word.
    pub fn value(self) -> &'static str {
        match self {
            Switch => "true|false",
            Number(..) => "NUMBER",
            Word(_) => "WORD",
            Text(value) => value,
        }
    }
}

impl Variable {
    /// What it is for, which numbers or words it takes, and what it is without.
    pub fn help_text(&self) -> String {
        let takes = match self.kind {
            Number(first, last) => format!(", {first} to {last}"),
            Word(words) => format!(", {}", words.join("|")),
            Switch | Text(_) => String::new(),
        };
        match self.help.split_once(" [default: ") {
            Some((what, default)) => format!("{what}{takes} [default: {default}"),
            None => format!("{}{takes}", self.help),
        }
    }
}

/// Finds a setting by its name in the environment.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// How a line of the log looks: of the process, not of what it serves, so it is in no list.
pub const LOG_FORMAT: &str = "berth_log_format";

/// How the names of settings begin: a variable that begins so and is not listed is probably misspelt.
pub(super) const FAMILIES: &[&str] = &[
    "vip_",
    "svc_",
    "cp_",
    "bgp_",
    "mpbgp_",
    "egress_",
    "lb_",
    "berth_",
    "control_plane_",
    "zebra_",
];

const fn row(
    of: Capability,
    name: &'static str,
    flag: &'static str,
    kind: Kind,
    support: Support,
    help: &'static str,
) -> Variable {
    Variable { of, name, flag, kind, support, help }
}

const TEXT: Kind = Text("VALUE");
const SECONDS: Kind = Number(1, 3600);
const PORT: Kind = Number(0, 65535);
const ASN: Kind = Number(1, u32::MAX as i64);
const RTM: Kind = Number(0, 255);

/// All of them, by what they are for.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    // Core
    row(Core, "vip_loglevel", "log", Number(-8, 8), Served, "below 0 debug, from 0 info, from 4 warnings, from 8 errors [default: 0]"),
    row(Core, "vip_nodename", "nodeName", Text("NAME"), Served, "this node's name [default: the host name]"),
    row(Core, "vip_interface", "interface", Text("INTERFACE"), Served, "interface of the addresses [default: that of the default route]"),
    row(Core, "vip_servicesinterface", "serviceInterface", Text("INTERFACE"), Served, "interface of the Services' addresses [default: vip_interface]"),
    row(ArpNd, "vip_interfaceloglobal", "loInterfaceGlobalScope", Switch, Harmless, "addresses are always of global scope"),
    row(ArpNd, "vip_subnet", "vipSubnet", TEXT, Harmless, "addresses are always bound as /32 and /128; another length is told at the start, and else ignored"),
    row(ArpNd, "vip_cidr", "cidr", TEXT, Harmless, "older name of vip_subnet"),
    row(Core, "instance_name", "instanceName", Text("NAME"), Served, "name of this announcer on the node [default: by its roles]"),
    row(ControlPlane, "vip_address", "vip", Text("ADDRESSES"), Served, "older name of address [default: none]"),
    row(ControlPlane, "address", "address", Text("ADDRESSES"), Served, "addresses to announce without a cluster, a comma list; used with berth_members [default: none]"),
    row(ControlPlane, "port", "port", PORT, Served, "port of that address, for people [default: 6443]"),
    row(ControlPlane, "vip_ddns", "ddns", Switch, NotYet, "address of the control plane by DHCP and dynamic DNS"),
    row(ControlPlane, "dhcp_mode", "dhcpMode", Word(&["ipv4", "ipv6", "dual"]), Harmless, "families asked for by DHCP"),
    row(ControlPlane, "dns_mode", "dnsMode", Word(&["first", "ipv4", "ipv6", "dual"]), Harmless, "which of a name's addresses are used"),
    row(Core, "k8s_config_file", "k8sConfigPath", Text("FILE"), Served, "kubeconfig [default: KUBECONFIG, else the account of the pod]"),
    row(Core, "kubernetes_addr", "kubernetesAddr", Text("URL"), Served, "URL of the API server, instead of the one in the kubeconfig [default: that of the kubeconfig]"),
    row(Bgp, "annotation", "annotations", TEXT, Harmless, "prefix of node annotations that hold BGP settings"),
    row(Core, "config_file", "config-file", TEXT, NotYet, "settings from a file"),
    // Election
    row(Core, "vip_leaderelection", "leaderElection", Switch, Served, "one Lease for all Services [default: false]"),
    row(ControlPlane, "vip_leasename", "leaseName", TEXT, Harmless, "Lease of the control plane; used with cp_enable"),
    row(Core, "vip_leaseduration", "leaseDuration", SECONDS, Served, "seconds after which others may take a Lease [default: 15]"),
    row(Core, "vip_renewdeadline", "leaseRenewDuration", SECONDS, Served, "seconds without renewal after which an owner stops [default: 10]"),
    row(Core, "vip_retryperiod", "leaseRetry", SECONDS, Served, "seconds between renewals [default: 2]"),
    row(Core, "vip_leaseannotations", "leaseAnnotations", Text("JSON"), Served, "annotations of Leases, as a JSON object [default: none]"),
    row(Core, "svc_election", "servicesElection", Switch, Served, "one Lease for each Service [default: false]"),
    row(Core, "svc_leasename", "servicesLeaseName", Text("NAME"), Served, "one Lease for all Services, of this name [default: plndr-svcs-lock]"),
    row(Core, "berth_election", "election", Word(&["membership", "global", "service"]), Served, "who decides on the owner; wins over the elections above [default: theirs, else membership]"),
    row(Core, "berth_claims", "claims", Word(&["required", "ignored"]), Served, "whether only what an IPAddress of berth-ccm names is served [default: once berth-ccm has claimed what there was]"),
    row(Core, "berth_drain_taints", "drainTaints", Text("TAINTS"), Served, "taints with which a node is emptied, such as node.kubernetes.io/out-of-service,shop/upkeep=now:NoSchedule [default: none]"),
    row(Core, "berth_peer_port", "peerPort", Number(1, 65535), Served, "UDP port of the peers, with membership [default: 2113]"),
    row(Core, "berth_members", "members", Text("FILE"), Served, "file with the members of a cluster without API server, one a line: NAME ADDRESS[,ADDRESS...] [default: none]"),
    row(Core, "berth_key_file", "keyFile", Text("FILE"), Served, "file with the key of these members, 16 octets or more, not readable by others [default: none]"),
    row(Core, "berth_fence", "fence", Word(&["bpf", "nft-timeout", "unfenced"]), Served, "the strongest fence to try [default: bpf]"),
    row(Eip, "berth_eip_internal_net", "eipInternalNet", Text("NETWORKS"), Served, "networks where machines are met under their own addresses [default: the cluster's pods and Services]"),
    row(Eip, "berth_eip_gateway", "eipGateway", Text("ADDRESSES"), Served, "gateways of machines with elastic IPs [default: those of the interface's default routes]"),
    row(Core, "vip_preserve_on_leadership_loss", "preserveOnLeadershipLoss", Switch, NotYet, "keep addresses without a Lease"),
    row(Core, "vip_singlenode", "singleNode", Switch, Harmless, "a node alone needs no setting"),
    row(Core, "vip_startleader", "startAsLeader", Switch, Harmless, "the first to come takes the Lease at once"),
    // Control plane
    row(ControlPlane, "cp_enable", "controlplane", Switch, NotYet, "an address for the control plane"),
    row(Core, "cp_namespace", "namespace", Text("NAMESPACE"), Served, "namespace of the Leases and of the Secret berth-membership [default: kube-system]"),
    row(ControlPlane, "cp_detect", "autodetectcp", Switch, Harmless, "used with cp_enable"),
    row(ControlPlane, "control_plane_health_check_address", "controlPlaneHealthCheckAddress", TEXT, Harmless, "used with cp_enable"),
    row(ControlPlane, "control_plane_health_check_period_seconds", "controlPlaneHealthCheckPeriodSeconds", SECONDS, Harmless, "used with cp_enable"),
    row(ControlPlane, "control_plane_health_check_timeout_seconds", "controlPlaneHealthCheckTimeoutSeconds", SECONDS, Harmless, "used with cp_enable"),
    row(ControlPlane, "control_plane_health_check_failure_threshold", "controlPlaneHealthCheckFailureThreshold", SECONDS, Harmless, "used with cp_enable"),
    row(ControlPlane, "control_plane_health_check_ca_path", "controlPlaneHealthCheckCAPath", TEXT, Harmless, "used with cp_enable"),
    row(ControlPlane, "backend_health_check_interval", "backendHealthCheckInterval", SECONDS, Harmless, "used with lb_enable"),
    row(ControlPlane, "lb_enable", "enableLoadBalancer", Switch, NotYet, "balance the control plane by IPVS"),
    row(ControlPlane, "lb_port", "lbPort", PORT, Harmless, "used with lb_enable"),
    row(ControlPlane, "lb_fwdmethod", "lbForwardingMethod", Word(&["local", "masquerade", "tunnel", "direct", "bypass"]), Harmless, "used with lb_enable"),
    // Services
    row(Core, "svc_enable", "services", Switch, Served, "serve Services [default: true]"),
    row(Services, "svc_namespace", "serviceNamespace", Text("NAMESPACE"), Served, "serve Services of this namespace only [default: all]"),
    row(Services, "lb_class_only", "lbClassOnly", Switch, Served, "leave alone Services without a class [default: false]"),
    row(Services, "lb_class_name", "lbClassName", Text("CLASS"), Served, "the class that is served [default: kube-vip.io/kube-vip-class]"),
    row(Services, "lb_class_legacy_handling", "lbClassNameLegacyHandling", Switch, Harmless, "Services without a class are served unless lb_class_only"),
    row(Services, "disable_service_updates", "disableServiceUpdates", Switch, Served, "leave the status of Services alone [default: false]"),
    row(Services, "berth_service_interfaces", "serviceInterfaces", Text("INTERFACES"), Served, "interfaces that Services may name besides that of the announcer, such as eth1,shop/bond0 (bond0 in the namespace shop); empty for none [default: all]"),
    row(Services, "berth_service_vlans", "serviceVlans", Text("NUMBERS"), Served, "VLANs that Services may name, such as 5,shop/100-199; empty for none [default: all]"),
    row(Services, "enable_endpoints", "enableEndpoints", Switch, Harmless, "EndpointSlices are read in any case"),
    row(Services, "enable_service_security", "onlyAllowTrafficServicePorts", Switch, Served, "close the ports of the host behind addresses of Services [default: false]"),
    row(Services, "enable_node_labeling", "enableNodeLabeling", Switch, NotYet, "label the owner's Node with its addresses"),
    row(Services, "enable_upnp", "enableUPNP", Switch, NotYet, "open ports of an internet gateway"),
    row(Services, "mirror_dest_interface", "mirrorDestInterface", TEXT, NotYet, "copy the interface's traffic to another"),
    // ARP
    row(ArpNd, "vip_arp", "arp", Switch, Served, "announce by ARP and neighbour discovery [default: true]"),
    row(ArpNd, "vip_arpRate", "arpRate", Number(100, 3_600_000), Served, "milliseconds between announcements after the first burst [default: 60000]"),
    row(ArpNd, "vip_skipdad", "skipDAD", Switch, Served, "take an address into use without asking whether another host has it [default: false]"),
    // BGP
    row(Bgp, "bgp_enable", "bgp", Switch, NotYet, "announce by BGP"),
    row(Bgp, "bgp_attach_ip_to_interface", "bgpAttachIPToInterface", Switch, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_routerid", "bgpRouterID", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_routerinterface", "bgpRouterInterface", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_as", "localAS", ASN, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_peeraddress", "peerAddress", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_peers", "bgppeers", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_peeras", "peerAS", ASN, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_peerpass", "peerPass", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_multihop", "multihop", Switch, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_sourceif", "sourceIF", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_sourceip", "sourceIP", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_hold_time", "bgpHoldTimer", PORT, Harmless, "used with bgp_enable"),
    row(Bgp, "bgp_keepalive_interval", "bgpKeepAliveInterval", PORT, Harmless, "used with bgp_enable"),
    row(Bgp, "mpbgp_nexthop", "mpbgpNexthop", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "mpbgp_ipv4", "mpbgpIPv4", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "mpbgp_ipv6", "mpbgpIPv6", TEXT, Harmless, "used with bgp_enable"),
    row(Bgp, "zebra_enable", "zebra", Switch, NotYet, "hand routes to FRR's zebra"),
    row(Bgp, "zebra_url", "zebraUrl", TEXT, Harmless, "used with zebra_enable"),
    row(Bgp, "zebra_version", "zebraVersion", RTM, Harmless, "used with zebra_enable"),
    row(Bgp, "zebra_software_name", "zebraSoftwareName", TEXT, Harmless, "used with zebra_enable"),
    // Routes and WireGuard
    row(Routes, "vip_routingtable", "table", Switch, NotYet, "routes in a table of their own"),
    row(Routes, "vip_routingtableid", "tableID", Number(0, u32::MAX as i64), Harmless, "used with vip_routingtable"),
    row(Routes, "vip_routingtabletype", "tableType", RTM, Harmless, "used with vip_routingtable"),
    row(Routes, "vip_routingprotocol", "routingProtocol", RTM, Harmless, "used with vip_routingtable"),
    row(Routes, "vip_cleanroutingtable", "cleanRoutingTable", Switch, Harmless, "used with vip_routingtable"),
    row(Routes, "vip_wireguard", "wireguard", Switch, NotYet, "addresses behind a WireGuard tunnel"),
    // Egress
    row(Egress, "egress_podcidr", "egressPodCidr", TEXT, Harmless, "used with a Service's egress annotation"),
    row(Egress, "egress_servicecidr", "egressServiceCidr", TEXT, Harmless, "used with a Service's egress annotation"),
    row(Egress, "egress_withnftables", "egressWithNftables", Switch, Harmless, "used with a Service's egress annotation"),
    row(Egress, "egress_clean", "egressClean", Switch, Harmless, "used with a Service's egress annotation"),
    row(Egress, "iptables_backend", "iptablesBackend", Word(&["", "nft", "legacy"]), Harmless, "used with a Service's egress annotation"),
    // Operations
    row(Http, "prometheus_server", "prometheusHTTPServer", Text("ADDRESS:PORT"), Served, "where /metrics, /healthz and /readyz listen; empty for no metrics: the others are on loopback all the same [default: :2112]"),
    row(Http, "health_check_port", "healthCheckPort", PORT, Served, "one more port for /healthz and /readyz, on all addresses; 0 for none [default: 0]"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_and_no_flag_stands_for_two_settings() {
        let mut seen = BTreeSet::new();
        for variable in VARIABLES {
            assert!(seen.insert(variable.name), "{}", variable.name);
            if variable.flag != variable.name {
                assert!(seen.insert(variable.flag), "{}", variable.flag);
            }
        }
    }

    #[test]
    fn each_setting_that_is_served_tells_what_it_takes_and_what_it_is_without() {
        for variable in VARIABLES.iter().filter(|variable| variable.support == Served) {
            let Variable { name, kind, help, .. } = variable;
            assert!(help.contains(" [default: ") && help.ends_with(']'), "{name}: {help}");
            assert_ne!(*kind, TEXT, "{name}");
        }
        let told = |name: &str| {
            let variable = find(name).unwrap();
            format!("{}: {}", variable.kind.value(), variable.help_text())
        };
        assert_eq!(
            told("berth_peer_port"),
            "NUMBER: UDP port of the peers, with membership, 1 to 65535 [default: 2113]"
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
