use super::*;

fn settings(given: &[(&str, &str)]) -> Settings {
    Settings::gather(given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), [])
}

fn parse(given: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    Config::parse(&settings(given), "node-a")
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refused(given: &[(&str, &str)]) -> Vec<String> {
    parse(given).expect_err("a refusal")
}

#[test]
fn nothing_set_gives_the_defaults_of_kube_vip_and_an_owner_by_membership() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.core.node, "node-a");
    assert_eq!(config.core.interface, None);
    assert_eq!(config.leases.timing, Timing::DEFAULT);
    let services = config.services.as_ref().unwrap();
    assert_eq!(services.classes, ClassPolicy::UnsetOr("kube-vip.io/kube-vip-class".to_owned()));
    assert_eq!(config.core.instance, Instance::services());
    let (claims, namespace) = (ClaimPolicy::Imported, "kube-system".to_owned());
    assert_eq!(config.cluster, Cluster::Api(Api { claims, namespace, ..Api::default() }));
    assert_eq!((config.eip.as_ref(), config.flaws.len()), (Some(&Eip::default()), 0));
    assert_eq!(config.fence, Fence::Bpf);
    let Election::Membership(fenced) = config.election else { panic!("{:?}", config.election) };
    assert_eq!((fenced.namespace.as_str(), fenced.port), ("kube-system", 2113));
    assert!(fenced.falls_back && fenced.lease == "plndr-svcs-lock", "where there is no key");
    assert_eq!(config.http.metrics, Some("[::]:2112".parse().unwrap()));
    assert_eq!(config.http.health, None);
    assert_eq!(config.arp_nd.refresh, Duration::from_secs(60));
}

#[test]
fn a_prefix_that_is_asked_for_is_told_to_be_none_and_what_is_no_prefix_is_refused() {
    for name in ["vip_subnet", "vip_cidr"] {
        let told = |value: &str| parse(&[(name, value)]).unwrap().arp_nd.subnet;
        for narrow in ["32", "/32", "128", "32,128", "auto", ""] {
            assert_eq!(told(narrow), None, "{name}={narrow}");
        }
        for wide in ["29", "/24", "32,64", "auto,64"] {
            assert_eq!(told(wide), Some(format!("{name}={wide}")));
        }
        for wrong in ["129", "255.255.255.0", "x"] {
            let told = refused(&[(name, wrong)]);
            assert!(told.len() == 1 && told[0].contains("lengths from 0 to 128"), "{told:?}");
        }
    }
}

#[test]
fn a_daemonset_written_for_kube_vip_is_taken_as_it_is() {
    let config = parse(&[
        ("vip_arp", "true"),
        ("port", "6443"),
        ("vip_nodename", "Worker-1"),
        ("vip_interface", "ens18"),
        ("vip_cidr", "32"),
        ("vip_subnet", "32"),
        ("dns_mode", "first"),
        ("svc_enable", "true"),
        ("svc_leasename", "plndr-svcs-lock"),
        ("svc_election", "true"),
        ("vip_leaderelection", "true"),
        ("vip_leasename", "plndr-cp-lock"),
        ("vip_leaseduration", "5"),
        ("vip_renewdeadline", "3"),
        ("vip_retryperiod", "1"),
        ("vip_loglevel", "-4"),
        ("bgp_as", "65000"),
        ("bgp_enable", "false"),
        ("cp_enable", "0"),
        ("cp_namespace", "kube-system"),
        ("prometheus_server", "127.0.0.1:2112"),
        ("health_check_port", "8089"),
        ("vip_arpRate", "3000"),
        ("berth_fence", "nft-timeout"),
    ])
    .unwrap();
    assert_eq!(config.election, Election::PerService);
    assert_eq!(config.fence, Fence::NftTimeout, "whoever decides");
    assert_eq!(config.core.node, "worker-1");
    assert_eq!(config.core.interface.as_deref(), Some("ens18"));
    assert_eq!(config.core.log_level, "debug");
    assert_eq!(config.leases.timing.renew_deadline(), Duration::from_secs(3));
    assert_eq!(config.arp_nd.refresh, Duration::from_secs(3));
    assert_eq!(config.http.metrics, Some("127.0.0.1:2112".parse().unwrap()));
    assert_eq!(config.http.health.map(|address| address.port()), Some(8089));
}

#[test]
fn every_wrong_value_is_told_at_once_with_what_is_accepted() {
    let told = refused(&[
        ("vip_leaseduration", "soon"),
        ("vip_arp", "yes"),
        ("berth_election", "raft"),
        ("vip_interface", "eth0/1"),
        ("prometheus_server", "2112"),
        ("vip_leaseannotations", "a=b"),
    ]);
    assert_eq!(told.len(), 6, "{told:#?}");
    assert!(told.iter().any(|t| t == r#"vip_arp="yes": accepted are true and false"#), "{told:#?}");
    let duration = r#"vip_leaseduration="soon": accepted is a whole number from 1 to 3600"#;
    assert!(told.iter().any(|t| t == duration), "{told:#?}");
    let election = r#"berth_election="raft": accepted are membership, global, service"#;
    assert!(told.iter().any(|t| t == election), "{told:#?}");
}

#[test]
fn what_is_not_built_yet_is_an_error_that_names_what_it_comes_with() {
    for (name, coming) in [
        ("enable_upnp", "ports opened at an internet gateway (UPnP, PCP)"),
        ("enableUPNP", "ports opened at an internet gateway (UPnP, PCP)"),
        ("vip_routingtable", "routing-table mode"),
        ("vip_ddns", "addresses by DHCP"),
    ] {
        let out = "leave it out or set it to false";
        let why = format!("{name}=\"true\": not supported yet, it comes with {coming}; {out}");
        assert_eq!(refused(&[(name, "true")]), [why]);
        assert!(parse(&[(name, "false")]).is_ok(), "{name}");
    }
    let nothing = refused(&[("svc_enable", "false")]);
    assert!(nothing.len() == 1 && nothing[0].contains("beside cp_enable=true"), "{nothing:?}");
}

#[test]
fn what_will_not_be_built_is_refused_by_name_with_what_to_use_instead() {
    for (name, value, instead) in [
        ("vip_wireguard", "true", "a WireGuard interface that the node has"),
        ("zebra_enable", "true", "let FRR redistribute"),
        ("mirror_dest_interface", "eth1", "a mirror port of the switch"),
        ("vip_packet", "true", "use BGP"),
        ("provider_config", "/etc/cloud-sa.json", "use BGP"),
        ("leaderElectionType", "etcd", "use berth_election=membership"),
        ("vip_preserve_on_leadership_loss", "true", "leave it out"),
    ] {
        let told = refused(&[(name, value)]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("{name}=\"{value}\": refused: ")), "{told:?}");
        assert!(told[0].contains(instead), "{told:?}");
    }
    assert!(parse(&[("leaderElectionType", "kubernetes"), ("vip_packet", "false")]).is_ok());
}

#[test]
fn what_counts_with_a_switch_is_no_error_without_it_and_leaves_the_word_to_it() {
    let parts = [
        ("bgp_as", "65000"),
        ("annotation", "metal.equinix.com"),
        ("zebra_url", "unix:/run/zserv"),
        ("vip_packetproject", "x"),
        ("etcdCert", "/c"),
        ("lb_fwdmethod", "directroute"),
        ("vip_routingtableid", "198"),
        ("dhcp_backoff_attempts", "0"),
        ("egress_enableinternalsnat", "true"),
    ];
    assert_eq!(parse(&parts).unwrap().flaws, []);
    let told = refused(&[parts.as_slice(), &[("vip_routingtable", "true")]].concat());
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn what_is_met_changes_nothing() {
    let met = [
        ("vip_loseleadership", "true"),
        ("vip_loseleadership_timeout_seconds", "30"),
        ("vip_allow_interface_not_up", "true"),
        ("per_service_election_on_demand", "true"),
        ("debounce_time", "500ms"),
        ("vip_configmap", "plndr"),
        ("enable_endpointslices", "true"),
    ];
    assert_eq!(parse(&met).unwrap(), parse(&[]).unwrap());
}

#[test]
fn another_way_of_announcing_leaves_arp_out_and_the_control_plane_services_unless_they_are_named() {
    let arp = |given: &[(&str, &str)]| settings(given).announces_by_arp();
    assert!(arp(&[]) && arp(&[("bgp_enable", "false")]));
    assert!(!arp(&[("bgp_enable", "true")]) && !arp(&[("vip_routingtable", "true")]));
    assert!(arp(&[("bgp_enable", "true"), ("vip_arp", "true")]) && !arp(&[("vip_arp", "false")]));
    let services = |given: &[(&str, &str)]| settings(given).serves_services();
    assert!(services(&[]) && services(&[("cp_enable", "false")]));
    assert!(!services(&[("cp_enable", "true")]));
    assert!(services(&[("cp_enable", "true"), ("svc_enable", "true")]));
}

#[test]
fn without_the_older_handling_of_classes_the_one_that_is_named_is_served_alone() {
    let classes = |given: &[(&str, &str)]| parse(given).unwrap().services.unwrap().classes;
    let off = ("lb_class_legacy_handling", "false");
    let ours = "kube-vip.io/kube-vip-class".to_owned();
    assert_eq!(classes(&[off]), ClassPolicy::Only(ours.clone()));
    assert_eq!(classes(&[off, ("lb_class_name", "lan")]), ClassPolicy::Only("lan".to_owned()));
    // A Service that has a class has one with a name.
    assert_eq!(classes(&[off, ("lb_class_name", "")]), ClassPolicy::UnsetOr(String::new()));
    assert_eq!(classes(&[("lb_class_legacy_handling", "true")]), ClassPolicy::UnsetOr(ours));
}

#[test]
fn two_names_are_read_in_capitals_where_they_are_not_there_in_small_letters() {
    let name = |given: &[(&str, &str)]| parse(given).unwrap().core.instance.name().to_owned();
    assert_eq!(name(&[("INSTANCE_NAME", "edge")]), "edge");
    assert_eq!(name(&[("INSTANCE_NAME", "edge"), ("instance_name", "lan")]), "lan");
    assert_eq!(name(&[("instance_name", "lan"), ("INSTANCE_NAME", "edge")]), "lan");
}

#[test]
fn times_of_a_lease_must_be_in_order() {
    let told = refused(&[("vip_renewdeadline", "15")]);
    let why =
        r#"vip_renewdeadline="15": the renew deadline (15s) must be shorter than the Lease (15s)"#;
    assert_eq!(told, [why]);
    assert_eq!(refused(&[("vip_retryperiod", "10")]).len(), 1);
}

#[test]
fn an_election_of_kube_vip_is_kept_and_berths_own_name_wins() {
    let election = |given: &[(&str, &str)]| parse(given).unwrap().election;
    let global = |name: &str| Election::Global {
        namespace: "kube-system".to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(election(&[("vip_leaderelection", "true")]), global("plndr-svcs-lock"));
    assert_eq!(election(&[("svc_leasename", "mine")]), global("mine"));
    let both = [("vip_leaderelection", "true"), ("svc_election", "true")];
    assert_eq!(election(&both), Election::PerService);
    assert_eq!(election(&[("berth_election", "global")]), global("plndr-svcs-lock"));
    let named = [("vip_leaderelection", "true"), ("berth_election", "membership")];
    let Election::Membership(fenced) = election(&named) else { panic!() };
    assert!(!fenced.falls_back, "who asks for it by name gets it or an error");
    let off = [("vip_leaderelection", "false"), ("svc_election", "false"), ("svc_leasename", "")];
    assert!(matches!(election(&off), Election::Membership(_)));
}

#[test]
fn flags_win_over_the_environment() {
    let environment = [("vip_interface".to_owned(), "eth0".to_owned())];
    let settings = Settings::gather(environment, [("vip_interface", "eth1".to_owned())]);
    let config = Config::parse(&settings, "n").unwrap();
    assert_eq!(config.core.interface.as_deref(), Some("eth1"));
}

#[test]
fn the_interface_of_services_wins_over_that_of_the_control_plane() {
    let config = parse(&[("vip_interface", "eth0"), ("vip_servicesinterface", "eth1")]).unwrap();
    assert_eq!(config.core.interface.as_deref(), Some("eth1"));
}

#[test]
fn an_empty_value_counts_as_not_given_but_silences_the_metrics() {
    let config = parse(&[("vip_interface", ""), ("prometheus_server", "")]).unwrap();
    assert_eq!(config.core.interface, None);
    assert_eq!(config.http.metrics, None);
    assert_eq!(config.http.probes()[0], "127.0.0.1:2112".parse().unwrap());
}

#[test]
fn a_misspelt_name_is_noticed() {
    let given = settings(&[("vip_intreface", "eth0"), ("PATH", "/bin"), ("KUBECONFIG", "/x")]);
    assert_eq!(given.unknown(), ["vip_intreface"]);
}

#[test]
fn what_is_wrong_with_one_capability_leaves_the_others_running_and_is_named() {
    let config = parse(&[("berth_eip_gateway", "gateway")]).unwrap();
    assert!(config.services.is_some() && config.eip.is_none());
    let accepted = "accepted is one address of each family, such as 192.0.2.1,2001:db8::1";
    let told = format!("berth_eip_gateway=\"gateway\": {accepted}");
    assert_eq!(config.flaws_by_check(), [("config/eip", told)].into());

    let config = parse(&[("lb_class_only", "perhaps"), ("disable_service_updates", "no")]).unwrap();
    assert!(config.services.is_none() && config.eip.is_some());
    let told = &config.flaws_by_check()["config/services"];
    assert!(told.contains("lb_class_only=\"perhaps\": accepted are true and false; "), "{told}");

    let config = parse(&[("prometheus_server", "2112"), ("health_check_port", "8089")]).unwrap();
    assert!(config.services.is_some() && config.http.health.is_some());
    assert_eq!(config.flaws_by_check().into_keys().collect::<Vec<_>>(), ["config/http"]);
    for wrong in ["2112", ":99999", "nowhere:2112"] {
        let config = parse(&[("prometheus_server", wrong)]).unwrap();
        assert_eq!(config.http.metrics, None);
        assert_eq!(config.http.probes()[0], "127.0.0.1:2112".parse().unwrap());
        assert!(config.flaws_by_check()["config/http"].starts_with("prometheus_server="));
    }

    let config = parse(&[("bgp_as", "many"), ("cp_detect", "x"), ("egress_clean", "x")]).unwrap();
    assert!(config.services.is_some() && config.eip.is_some());
    let checks: Vec<_> = config.flaws_by_check().into_keys().collect();
    assert_eq!(checks, ["config/bgp", "config/control_plane", "config/egress"]);
}

#[test]
fn what_is_wrong_for_the_whole_process_is_told_with_everything_else() {
    let told = refused(&[("vip_loglevel", "loud"), ("berth_eip_gateway", "x"), ("bgp_as", "x")]);
    assert_eq!(told.len(), 3, "{told:#?}");
    // Without ARP nothing can be announced yet.
    assert_eq!(refused(&[("vip_arpRate", "often")]).len(), 1);
    let nothing_left = [("lb_class_only", "perhaps"), ("berth_eip_internal_net", "x")];
    assert_eq!(refused(&nothing_left).len(), 2);
}

#[test]
fn a_time_that_does_not_fit_the_others_is_told_by_the_name_that_was_given() {
    let told = refused(&[("vip_leaseduration", "5")]);
    let expected = "vip_leaseduration=\"5\": accepted is more than vip_renewdeadline, which is 10s where it is not given";
    assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    let told = refused(&[("vip_renewdeadline", "2")]);
    let expected =
        "vip_renewdeadline=\"2\": accepted is more than vip_retryperiod, which is 2s where";
    assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    let told = refused(&[("vip_leaseduration", "5"), ("vip_renewdeadline", "6")]);
    assert!(told[0].starts_with("vip_renewdeadline=\"6\": the renew deadline (6s)"), "{told:?}");
    assert!(refused(&[("vip_retryperiod", "10")])[0].starts_with("vip_retryperiod=\"10\": "));
}

#[test]
fn a_long_value_is_cut() {
    let told = refused(&[("vip_leaseannotations", &"x".repeat(1000))]);
    let cut = format!("vip_leaseannotations=\"{}…\": ", "x".repeat(64));
    assert!(told[0].starts_with(&cut), "{told:?}");
}

#[test]
fn an_instance_has_the_name_that_was_given_if_names_can_be_made_of_it() {
    assert_eq!(parse(&[("instance_name", "edge")]).unwrap().core.instance.name(), "edge");
    let told = refused(&[("instance_name", "a/b")]);
    assert!(told[0].starts_with("instance_name=\"a/b\": accepted are 1 to 40"), "{told:?}");
}

#[test]
fn a_list_of_members_needs_every_setting_that_it_uses() {
    let told = refused(&[("berth_members", "/nowhere"), ("svc_enable", "false"), ("port", "many")]);
    for name in ["berth_members=", "berth_key_file=", "address=", "port="] {
        assert!(told.iter().any(|problem| problem.starts_with(name)), "{name} {told:#?}");
    }
}

#[test]
fn whether_claims_decide_is_set_by_a_word() {
    let of = |text| parse(&[("berth_claims", text)]).map(|config| config.claims());
    assert_eq!(of("required"), Ok(ClaimPolicy::Required));
    assert_eq!(of("ignored"), Ok(ClaimPolicy::Ignored));
    let refused = refused(&[("berth_claims", "always")]);
    assert!(refused[0].contains("required"), "{refused:?}");
}

#[test]
fn by_bgp_nobody_is_elected_and_a_peer_that_is_wrong_costs_no_other() {
    let on = ("bgp_enable", "true");
    let parse_with = |more: &[(&str, &str)]| parse(&[&[on], more].concat());
    let list = "192.0.2.1:64513:hunter2,192.0.2.2:x:hunter2,unnumbered:eth1:64513,192.0.2.3:64513:::::true;300;300;3";
    let config =
        parse_with(&[("vip_arp", "false"), ("vip_interface", "lo"), ("bgp_peers", list)]).unwrap();
    let bgp = config.bgp.as_ref().unwrap();
    let names: Vec<&str> = bgp.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["192.0.2.1", "eth1"]);
    assert_eq!(config.election, Election::Everyone);
    assert_eq!((config.core.interface.as_deref(), config.routed()), (None, Some("lo")));
    let told = &config.flaws_by_check()["config/bgp"];
    assert!(told.contains("peer 2 (192.0.2.2)") && !told.contains("hunter2"), "{told}");
    assert!(told.contains("BFD"), "{told}");

    let attached = [
        ("bgp_attach_ip_to_interface", "true"),
        ("vip_interface", "eth1"),
        ("bgp_peers", "192.0.2.1:1"),
    ];
    let config = parse_with(&attached).unwrap();
    assert_eq!((config.routed(), config.flaws.len()), (Some("eth1"), 0));
    assert_eq!(parse(&[]).unwrap().routed(), None);
    let alone = parse_with(&[]).unwrap();
    assert!(alone.flaws.is_empty() && alone.bgp.unwrap().peers.is_empty(), "it waits");
    let noted = parse_with(&[("annotation", "example.com")]).unwrap();
    assert_eq!(noted.bgp.unwrap().notes.as_deref(), Some("example.com"));
    let beside = [("bgp_peers", "192.0.2.1:1"), ("berth_election", "membership")];
    let told = parse_with(&beside).expect_err("a refusal");
    assert!(told.len() == 1 && told[0].starts_with("berth_election"), "{told:?}");
}

#[test]
fn beside_routers_neighbours_may_be_told_and_then_somebody_is_elected_for_them() {
    let both = [("bgp_enable", "true"), ("vip_arp", "true"), ("vip_interface", "eth1")];
    let parse_with = |more: &[(&str, &str)]| parse(&[&both, more].concat());
    let config = parse_with(&[]).unwrap();
    assert!(config.is_mixed() && matches!(config.election, Election::Membership(_)));
    assert_eq!((config.core.interface.as_deref(), config.routed()), (Some("eth1"), Some("lo")));
    let config = parse_with(&[("berth_election", "service")]).unwrap();
    assert_eq!(config.election, Election::PerService);
    let config = parse_with(&[("svc_election", "true")]).unwrap();
    assert_eq!((config.election, config.bgp.unwrap().elected_by), (Election::PerService, None));
    let told = parse_with(&[("bgp_attach_ip_to_interface", "true")]).expect_err("a refusal");
    assert!(told.len() == 1 && told[0].starts_with("bgp_attach_ip_to_interface"), "{told:?}");
    let alone = parse(&[("bgp_enable", "true")]).unwrap();
    assert!(!alone.is_mixed() && alone.election == Election::Everyone);
}
