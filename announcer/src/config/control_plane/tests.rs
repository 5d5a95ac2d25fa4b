use berth_api::claim::ClaimPolicy;

use super::super::{Cluster, Config, Election};
use super::*;

/// What comes of `cp_enable=true`, an address and these settings.
fn parse(other: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let usual = [("cp_enable", "true"), ("address", "192.0.2.100")];
    let given = usual.iter().chain(other);
    let given = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(&Settings::gather(given, []), "node-a")
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refused(other: &[(&str, &str)]) -> Vec<String> {
    parse(other).expect_err("a refusal")
}

fn control_plane(other: &[(&str, &str)]) -> ControlPlane {
    parse(other).unwrap().control_plane.unwrap()
}

#[test]
fn the_control_plane_alone_goes_by_its_own_lease_under_its_own_name_and_serves_nothing_else() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.core.instance.name(), "cp");
    assert!(config.services.is_none() && config.eip.is_none());
    assert_eq!((&config.election, config.claims()), (&Election::Nothing, ClaimPolicy::Ignored));
    let own = config.control_plane.unwrap();
    assert_eq!((own.addresses[0].to_string(), own.port), ("192.0.2.100".to_owned(), 6443));
    assert_eq!(own.lease, "plndr-cp-lock");
    let HealthCheck { url, authority, period, timeout, failures } = own.health;
    assert_eq!((url, authority, failures), (None, None, 3));
    assert_eq!((period, timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    let off = parse(&[("svc_enable", "false")]).unwrap();
    assert!(off.services.is_none() && off.control_plane.is_some());
}

#[test]
fn control_plane_nodes_decide_among_themselves_where_that_is_asked_for_and_there_are_no_services() {
    let config = parse(&[("berth_election", "membership")]).unwrap();
    let fenced = config.election.of_control_plane().expect("membership").clone();
    assert_eq!((fenced.name(), fenced.port), ("berth-membership-cp", 2123));
    assert_eq!((fenced.lease.as_str(), fenced.falls_back), ("plndr-cp-lock", false));
    assert_eq!(fenced.folder, Some("/var/lib/berth/control-plane".into()));
    assert!(!config.election.is_of_services() && config.services.is_none());
    let other = parse(&[
        ("berth_election", "membership"),
        ("berth_cp_folder", "/srv/berth"),
        ("berth_peer_port", "7000"),
        ("vip_leasename", "other"),
    ]);
    let other = other.unwrap().election.of_control_plane().unwrap().clone();
    assert_eq!((other.port, other.lease.as_str()), (7000, "other"));
    assert_eq!(other.folder, Some("/srv/berth".into()));
    for election in ["global", "service"] {
        let by_lease = parse(&[("berth_election", election)]).unwrap();
        assert_eq!(by_lease.election, Election::Nothing);
    }
    let told = refused(&[("berth_election", "membership"), ("svc_enable", "true")]);
    let why =
        "with cp_enable and svc_enable in one process accepted are global and service, or none";
    assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
    assert!(told[0].contains("a static pod beside the DaemonSet"), "{told:?}");
}

#[test]
fn beside_services_one_process_goes_by_leases_and_each_has_its_own_interface() {
    let interfaces = [("vip_interface", "eth0"), ("vip_servicesinterface", "eth1")];
    let config = parse(&[&[("svc_enable", "true")][..], &interfaces].concat()).unwrap();
    assert_eq!(config.core.instance.name(), "cp-svc");
    assert!(config.services.is_some() && config.eip.is_some());
    assert!(matches!(&config.election, Election::Global { name, .. } if name == "plndr-svcs-lock"));
    let own = config.control_plane.unwrap();
    assert_eq!(own.interface.as_deref(), Some("eth0"));
    assert_eq!(config.core.interface.as_deref(), Some("eth1"));
    let each = [("svc_enable", "true"), ("svc_election", "true")];
    assert_eq!(parse(&each).unwrap().election, Election::PerService);
}

#[test]
fn a_static_pod_written_for_kube_vip_is_taken_as_it_is() {
    let own = control_plane(&[
        ("vip_arp", "true"),
        ("port", "8443"),
        ("vip_interface", "ens18"),
        ("vip_cidr", "32"),
        ("vip_subnet", "32"),
        ("dns_mode", "first"),
        ("dhcp_mode", "ipv4"),
        ("cp_detect", "true"),
        ("cp_namespace", "kube-system"),
        ("svc_enable", "false"),
        ("svc_leasename", "plndr-svcs-lock"),
        ("vip_leaderelection", "true"),
        ("vip_leasename", "plndr-cp-lock"),
        ("vip_leaseduration", "5"),
        ("vip_renewdeadline", "3"),
        ("vip_retryperiod", "1"),
        ("address", ""),
        ("vip_address", "192.0.2.100,2001:db8::100"),
        ("control_plane_health_check_address", "https://localhost:8443/livez"),
        ("control_plane_health_check_period_seconds", "5"),
        ("control_plane_health_check_timeout_seconds", "3"),
        ("control_plane_health_check_failure_threshold", "2"),
    ]);
    assert_eq!((own.addresses.len(), own.port), (2, 8443));
    assert_eq!(own.health.url.as_deref(), Some("https://localhost:8443/livez"));
    assert_eq!(own.health.timeout, Duration::from_secs(3));
}

#[test]
fn by_bgp_no_lease_decides_alone_or_beside_services_and_a_wrong_peer_ends_it() {
    let by_bgp = [("bgp_enable", "true"), ("bgp_as", "65000"), ("bgp_peers", "192.0.2.1:65001")];
    let parse = |more: &[(&str, &str)]| parse(&[&by_bgp, more].concat());
    for (more, name) in [
        // As kube-vip's manifests have it.
        (&[("vip_arp", "false"), ("vip_interface", "lo")][..], "cp"),
        (&[("vip_leaderelection", "true"), ("svc_enable", "false")], "cp"),
        (&[("svc_enable", "true")], "cp-svc"),
    ] {
        let config = parse(more).unwrap();
        assert_eq!((&config.election, config.core.instance.name()), (&Election::Everyone, name));
        assert_eq!(config.routed(), Some("lo"), "{more:?}");
        assert_eq!(config.serves(), name == "cp-svc");
        assert!(config.control_plane.is_some());
    }
    for (name, value, why) in [
        ("vip_arp", "true", "take an announcer for each"),
        ("berth_election", "membership", "nobody is elected"),
        ("berth_election", "membership", "routers choose; leave it out"),
        ("bgp_peers", "192.0.2.1:x", "192.0.2.1"),
        ("bgp_attach_ip_to_interface", "true", "vip_interface names no interface"),
    ] {
        let told = parse(&[(name, value)]).expect_err("a refusal");
        let is_told = |line: &String| line.starts_with(&format!("{name}=")) && line.contains(why);
        assert!(told.len() == 1 && told.iter().any(is_told), "{name}: {told:#?}");
        assert!(name == "vip_arp" || !told[0].contains("vip_arp=true"), "it is refused: {told:?}");
    }
}

#[test]
fn a_name_is_asked_for_later_and_is_no_server_of_its_own() {
    let own = control_plane(&[("address", "api.example.org,192.0.2.9"), ("dns_mode", "IPv6")]);
    assert_eq!(own.names().collect::<Vec<_>>(), ["api.example.org"]);
    assert_eq!(own.families, Families::Only(berth_api::Family::V6));
    assert_eq!(own.addresses, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
    let told = refused(&[
        ("address", "api.example.org"),
        ("kubernetes_addr", "https://API.example.org:6443"),
    ]);
    assert!(told[0].contains("it is the control plane's own address"), "{told:?}");
    let told = refused(&[
        ("address", "api.example.org"),
        ("control_plane_health_check_address", "http://API.example.org.:8080/healthz"),
    ]);
    assert!(told.len() == 1 && told[0].contains("others would answer"), "{told:?}");
    let told = refused(&[("dns_mode", "both")]);
    assert!(told[0].contains("accepted are first, ipv4, ipv6, dual"), "{told:?}");
}

#[test]
fn a_kubeconfig_that_is_not_there_yet_is_waited_for() {
    let later = [("k8s_config_file", "/nowhere/admin.conf")];
    let Cluster::Api(api) = parse(&later).unwrap().cluster else { panic!("an API server") };
    assert_eq!(api.kubeconfig, Some(PathBuf::from("/nowhere/admin.conf")));
}

#[test]
fn every_bad_combination_is_named_at_once_with_what_is_accepted() {
    let told = refused(&[
        ("address", "vip_example.org"),
        ("vip_interface", "eth0/1"),
        ("vip_arp", "false"),
        ("vip_leasename", "plndr-svcs-lock"),
        ("control_plane_health_check_address", "localhost:6443/livez"),
        ("control_plane_health_check_ca_path", "/nowhere/ca.crt"),
        ("control_plane_health_check_period_seconds", "0"),
        ("leaderElectionType", "etcd"),
    ]);
    for (name, why) in [
        (
            "address",
            "\"vip_example.org\" is no address, and no name that could have one; accepted beside cp_enable",
        ),
        ("vip_interface", "the name of one interface"),
        ("vip_arp", "accepted is true, or false beside bgp_enable"),
        ("vip_leasename", "a Lease of its own"),
        ("control_plane_health_check_address", "is no URL"),
        ("control_plane_health_check_ca_path", "cannot be read"),
        ("control_plane_health_check_period_seconds", "1 to 3600"),
        (
            "leaderElectionType",
            "elections are not held in etcd; leave it out: use berth_election=membership",
        ),
    ] {
        let is_it = |line: &&String| line.starts_with(&format!("{name}=")) && line.contains(why);
        assert!(told.iter().any(|line| is_it(&line)), "{name}: {told:#?}");
    }
}

#[test]
fn without_an_address_or_with_its_own_for_a_server_nothing_begins() {
    for (name, value, at, why) in [
        ("address", "", "address=", "\"\" is no address, and no name"),
        ("address", "127.0.0.1", "address=", "is a loopback address"),
        ("address", "192.0.2.1,192.0.2.1", "address=", "stands there twice"),
        ("health_check_port", "6443", "health_check_port=", "6443 is the port of the API server"),
        ("prometheus_server", ":6443", "prometheus_server=", "6443 is the port of the API server"),
        ("port", "2112", "prometheus_server=", "2112 is the port of the API server of this node"),
        ("cp_enable", "yes", "cp_enable=", "accepted are true and false"),
        ("kubernetes_addr", "https://192.0.2.100:6443", "kubernetes_addr=", "own address"),
        (
            "control_plane_health_check_address",
            "https://192.0.2.100:6443/readyz",
            "control_plane_health_check_address=",
            "so that others would answer for this node; accepted is the API server of this node",
        ),
        ("vip_leasename", "Lock", "vip_leasename=", "the name of a Lease"),
        ("vip_leasename", "berth-membership", "vip_leasename=", "a Lease of its own"),
        ("vip_leasename", "berth-membership-cp", "vip_leasename=", "a Lease of its own"),
        ("vip_leasename", "berth-control-plane-a", "vip_leasename=", "a Lease of its own"),
        ("berth_cp_folder", "var/lib", "berth_cp_folder=", "a path from the root"),
        ("berth_cp_folder", "/", "berth_cp_folder=", "to a folder of its own"),
        ("berth_cp_folder", "/etc/", "berth_cp_folder=", "to a folder of its own"),
        ("berth_cp_folder", "/srv/../etc", "berth_cp_folder=", "without .."),
        (
            "berth_cp_folder",
            "/proc/berth/x",
            "berth_cp_folder=",
            "such as /var/lib/berth/control-plane",
        ),
        ("berth_members", "/nowhere", "berth_members=", "cp_enable=\"true\" asks for"),
    ] {
        let told = refused(&[(name, value)]);
        let is_told = told.iter().any(|line| line.starts_with(at) && line.contains(why));
        assert!(is_told, "{name}: {told:#?}");
    }
    let told = refused(&[("berth_members", "/nowhere")]);
    let is_of_services = |line: &String| line.contains("svc_enable");
    assert!(!told.iter().any(is_of_services), "nobody asks for Services: {told:#?}");
    assert!(parse(&[("kubernetes_addr", "https://192.0.2.11:6443")]).is_ok(), "of this node");
}

#[test]
fn an_authority_is_a_file_with_a_certificate_and_for_https_alone() {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("berth-authority-{}", std::process::id()));
    let file = path.display().to_string();
    let ca = ("control_plane_health_check_ca_path", file.as_str());
    std::fs::write(&path, "no certificate").unwrap();
    assert!(refused(&[ca])[0].contains("it has no certificate"));
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n").unwrap();
    assert_eq!(control_plane(&[ca]).health.authority, Some(path.clone()));
    let plain = ("control_plane_health_check_address", "http://127.0.0.1:8080/healthz");
    assert!(refused(&[ca, plain])[0].contains("nobody shows a certificate"));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_host_of_a_url_is_found_without_brackets_and_port() {
    for (url, expected) in [
        ("https://192.0.2.1:6443/readyz", Some("192.0.2.1")),
        ("https://[2001:db8::1]:6443", Some("2001:db8::1")),
        ("http://localhost", Some("localhost")),
        ("https://", None),
        ("https://:6443", None),
        ("https://[::1", None),
        ("tcp://localhost:6443", None),
        ("localhost:6443", None),
    ] {
        assert_eq!(host(url), expected, "{url}");
    }
}
