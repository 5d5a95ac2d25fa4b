mod kube_vip;

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use kube_vip::{OLDER, SWITCHES, THEIRS, VALUES};

fn matches(kind: &str, flags: &[String]) -> Result<ArgMatches, clap::Error> {
    let arguments = ["manifest", kind].into_iter().map(str::to_owned).chain(flags.iter().cloned());
    command().try_get_matches_from(arguments)
}

fn given(kind: &str, flags: &str) -> Result<String, String> {
    let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
    let matches = matches(kind, &flags).map_err(|error| error.to_string())?;
    documents(kind, matches.subcommand().unwrap().1, [])
}

fn parsed(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

/// The rights in roles: where, which, what.
fn rights(text: &str) -> BTreeSet<String> {
    let texts = |value: &Value| {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = BTreeSet::new();
    for document in parsed(text) {
        let kind = document["kind"].as_str().unwrap_or_default();
        for rule in document["rules"].as_array().into_iter().flatten() {
            let names = texts(&rule["resourceNames"]);
            for (group, resource) in texts(&rule["apiGroups"]).into_iter().flat_map(|group| {
                texts(&rule["resources"]).into_iter().map(move |resource| (group.clone(), resource))
            }) {
                for verb in texts(&rule["verbs"]) {
                    all.insert(format!("{kind} {verb} {resource}.{group} {names:?}"));
                }
            }
        }
    }
    all
}

fn env(text: &str) -> Vec<(String, String)> {
    let document = parsed(text).remove(0);
    let spec = match document["kind"].as_str() {
        Some("Pod") => &document["spec"],
        _ => &document["spec"]["template"]["spec"],
    };
    let entries = spec["containers"][0]["env"].as_array().unwrap();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("(of the pod)").to_owned();
    entries.iter().map(|entry| (text(entry, "name"), text(entry, "value"))).collect()
}

#[test]
fn every_flag_of_kube_vip_is_taken_and_none_of_its_variables_is_unknown() {
    let flags = SWITCHES.iter().map(|flag| format!("--{flag}"));
    let flags = flags.chain(SWITCHES.iter().map(|flag| format!("--{flag}=false")));
    let flags = flags.chain(VALUES.iter().map(|flag| format!("--{flag}=x")));
    let flags: Vec<_> = flags.chain(OLDER.iter().map(|flag| format!("--{flag}"))).collect();
    for kind in ["pod", "daemonset", "rbac"] {
        for flag in &flags {
            let taken = matches(kind, std::slice::from_ref(flag));
            assert!(taken.is_ok(), "{kind} {flag}: {}", taken.unwrap_err());
        }
    }
    for flag in ["--role", "--rolebinding"] {
        assert!(matches("rbac", &[flag.to_owned()]).is_ok());
    }
    assert!(matches("pod", &["-n".to_owned(), "berth".to_owned()]).is_ok());
    assert!(matches("pod", &["--surprise".to_owned()]).is_err());
    for name in THEIRS {
        assert!(crate::config::find(name).is_some(), "{name}");
    }
}

#[test]
fn what_no_cluster_and_no_node_takes_is_refused_by_name() {
    for (kind, flags, told) in [
        (
            "pod",
            "--namespace Kube_System",
            "cp_namespace=\"Kube_System\": accepted is the name of a namespace",
        ),
        (
            "rbac",
            "--serviceNamespace a,b",
            "svc_namespace=\"a,b\": accepted is the name of a namespace",
        ),
        ("pod", "--image=", "--image=\"\": accepted is the name of an image"),
        ("daemonset", "--image=a$b", "--image=\"a$b\": accepted is the name of an image"),
        ("pod", "--config-file c.yaml", "config_file=\"c.yaml\": accepted is a path from the root"),
        ("pod", "--members /m", "needed beside berth_members"),
        ("pod", "--members /m --keyFile /k --interface a/b", "vip_interface=\"a/b\": accepted is"),
        ("pod", "--members /m --keyFile /k --address 192.0.2.1", "accepted is svc_enable=false"),
        (
            "pod",
            "--k8sConfigPath /etc/../k",
            "accepted is a path from the root, where it is mounted, without ..",
        ),
        ("pod", "--image=a:b:c", "--image=\"a:b:c\": accepted is the name of an image"),
        ("pod", "--image=a/b:", "accepted is the name of an image"),
        ("pod", "--image=a/B", "accepted is the name of an image"),
        ("pod", "--image=a@sha256:0", "accepted is the name of an image"),
        ("pod", "--metal", "--metal, vip_packet=\"true\": refused: "),
        ("pod", "--cidr 24", "--cidr, vip_cidr=\"24\": addresses are bound as /32 and /128"),
        ("pod", "--egressClean", "egress_clean=\"true\": not supported yet, it comes with egress"),
        (
            "pod",
            "--servicesLeaseName A_B",
            "svc_leasename=\"A_B\": accepted is the name of a Lease",
        ),
        ("pod", "--leaseDuration 0", "1 in all"),
        (
            "kubeadm",
            "--address 192.0.2.1 --controlplane=false",
            "cp_enable=\"false\": accepted beside `kubeadm` is true, or nothing",
        ),
        (
            "kubeadm",
            "--address 192.0.2.1 --inCluster",
            "inCluster=\"true\": a static pod has no account; accepted beside `kubeadm` is",
        ),
        (
            "kubeadm",
            "--address 192.0.2.1 --nodeName a",
            "the Pod is that of all nodes; leave it out",
        ),
        ("kubeadm", "--address 192.0.2.1 --taint", "taint=\"true\": a static pod runs where its"),
    ] {
        let refused = given(kind, flags).expect_err(flags);
        assert!(refused.contains(told), "{kind} {flags}: {refused}");
    }
    let members = "--members /etc/m --services=false --address 192.0.2.1 --keyFile /etc/k";
    assert!(given("pod", members).is_ok(), "{:?}", given("pod", members));
}

#[test]
fn the_daemonset_of_manifests_is_what_its_settings_give() {
    let flags = "--vip_interface= --arp --services --onlyAllowTrafficServicePorts --berth_service_interfaces= \
                 --berth_service_vlans= --berth_claims required";
    let ours = parsed(include_str!("../../../manifests/announcer.yaml"));
    let generated = given("daemonset", flags).unwrap();
    let (mut theirs, mut ours) = (parsed(&generated), ours);
    for document in theirs.iter_mut().chain(&mut ours) {
        document["metadata"].as_object_mut().unwrap().remove("namespace");
        let pod = &mut document["spec"]["template"]["spec"];
        let list = |value: &mut Value| {
            value.as_array_mut().unwrap().sort_by_key(|entry| entry["name"].to_string());
        };
        list(&mut pod["containers"][0]["env"]);
        list(&mut pod["volumes"]);
    }
    assert_eq!(theirs, ours);
    assert_eq!(given("daemonset", flags), Ok(generated), "the same each time");
}

#[test]
fn the_rights_are_those_of_manifests_and_overlays_for_what_is_asked_and_no_more() {
    let is_of_bgp =
        |right: &String| ["configmaps", "daemonsets"].iter().any(|kind| right.contains(kind));
    let of_manifests = rights(include_str!("../../../manifests/announcer-rbac.yaml"));
    let all: BTreeSet<_> = of_manifests.iter().filter(|right| !is_of_bgp(right)).cloned().collect();
    assert_eq!(rights(&given("rbac", "").unwrap()), all);
    let by_bgp = rights(&given("rbac", "--bgp").unwrap());
    assert!(by_bgp.is_subset(&of_manifests) && by_bgp.iter().any(is_of_bgp), "{by_bgp:#?}");
    let overlay = include_str!("../../../overlays/svc-election/rbac.yaml");
    let per_service = rights(&given("rbac", "--servicesElection").unwrap());
    let is_of_members = |right: &String| right.contains("secrets");
    let expected: BTreeSet<_> = all.union(&rights(overlay)).cloned().collect();
    assert_eq!(per_service, expected.into_iter().filter(|right| !is_of_members(right)).collect());
    let by_lease = rights(&given("rbac", "--leaderElection").unwrap());
    for asked in [&by_lease, &by_bgp] {
        assert!(!asked.iter().any(is_of_members), "{asked:#?}");
        let is_wide =
            |right: &String| right.starts_with("ClusterRole ") && right.contains("leases");
        assert!(!asked.iter().any(is_wide), "{asked:#?}");
    }
    let labels = include_str!("../../../overlays/node-labels/rbac.yaml");
    let labelling = rights(&given("rbac", "--enableNodeLabeling").unwrap());
    assert_eq!(labelling, all.union(&rights(labels)).cloned().collect());
    let less = rights(
        &given("rbac", "--claims ignored --disableServiceUpdates --eipInternalNet 10.0.0.0/8")
            .unwrap(),
    );
    for gone in ["ipaddresses", "services/status", "servicecidrs"] {
        assert!(less.iter().all(|right| !right.contains(gone)), "{gone}");
    }
}

#[test]
fn rights_in_namespaces_alone_are_given_where_they_are_enough() {
    let flags = "--role --serviceNamespace shop --leaderElection -n berth";
    let text = given("rbac", flags).unwrap();
    let places = parsed(&text);
    let of = |kind: &str| {
        let roles = places.iter().filter(|document| document["kind"] == kind);
        roles
            .map(|role| role["metadata"]["namespace"].as_str().unwrap_or("all").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (of("Role"), of("ClusterRole")),
        (vec!["berth".to_owned(), "shop".to_owned()], vec![])
    );
    assert_eq!(given("rbac", &flags.replace("--role", "--rolebinding")), Ok(text));
    assert!(given("rbac", "--role").unwrap_err().contains("--serviceNamespace"));
    assert!(
        given("rbac", "--role --serviceNamespace shop").unwrap_err().contains("--leaderElection")
    );
    assert!(given("rbac", "--role --serviceNamespace shop --bgp").unwrap_err().contains("Nodes"));
    assert!(
        given("rbac", "--members /m --berth_key_file /k --address 192.0.2.1 --services=false")
            .is_err()
    );
}

#[test]
fn settings_stand_in_the_environment_as_they_were_given() {
    let flags = "--interface eth0 --arp --services --leaderElection --leaseDuration 5 --leaseRenewDuration 3 --leaseRetry 1";
    let had = env(&given("daemonset", flags).unwrap());
    let has = |name: &str, value: &str| had.contains(&(name.to_owned(), value.to_owned()));
    assert!(
        has("vip_interface", "eth0") && has("vip_arp", "true") && has("vip_leaseduration", "5"),
        "{had:?}"
    );
    assert!(has("vip_nodename", "(of the pod)") && has("health_check_port", "2114"));
    assert!(has("cp_namespace", "kube-system"));
    // A name of one node is of a Pod alone.
    assert!(
        env(&given("pod", "--nodeName a").unwrap()).contains(&("vip_nodename".into(), "a".into()))
    );
    assert!(
        env(&given("daemonset", "--nodeName a").unwrap())
            .contains(&("vip_nodename".into(), "(of the pod)".into()))
    );
    let probes = given("daemonset", "--healthCheckPort 8089").unwrap();
    assert_eq!(probes.matches("port: 8089").count(), 2, "{probes}");
}

#[test]
fn probes_ask_where_the_announcer_answers_and_not_where_another_does() {
    for (kind, flags, port) in [
        ("kubeadm", "--address 192.0.2.100", 2115),
        ("kubeadm", "--address 192.0.2.100 --healthCheckPort 0", 2122),
        ("daemonset", "--controlplane --address 192.0.2.100 --healthCheckPort 0", 2122),
        ("kubeadm", "--address 192.0.2.100 --healthCheckPort 0 --prometheusHTTPServer :3333", 3333),
        ("kubeadm", "--address 192.0.2.100 --healthCheckPort 0 --prometheusHTTPServer=", 2112),
        ("daemonset", "--healthCheckPort 0", 2112),
        ("daemonset", "--healthCheckPort 0 --prometheusHTTPServer 127.0.0.1:3333", 3333),
        ("daemonset", "--healthCheckPort 0 --prometheusHTTPServer 192.0.2.11:3333", 2112),
        ("daemonset", "--prometheusHTTPServer :3333", 2114),
    ] {
        let text = given(kind, flags).unwrap();
        assert_eq!(text.matches(&format!(" port: {port}\n")).count(), 2, "{kind} {flags}: {text}");
    }
}

#[test]
fn a_pod_has_the_kubeconfig_of_its_node_and_a_daemonset_an_account() {
    let pod = given("pod", "--interface eth0").unwrap();
    assert!(
        pod.contains("path: /etc/kubernetes/admin.conf") && !pod.contains("serviceAccountName")
    );
    assert!(env(&pod).contains(&("k8s_config_file".into(), "/etc/kubernetes/admin.conf".into())));
    let pod = given("pod", "--k8sConfigPath /etc/kubernetes/super-admin.conf").unwrap();
    assert!(pod.contains("path: /etc/kubernetes/super-admin.conf"));
    let daemonset = given("daemonset", "").unwrap();
    assert!(daemonset.contains("serviceAccountName") && !daemonset.contains("admin.conf"));
    assert!(given("pod", "--inCluster").unwrap().contains("serviceAccountName"));
    assert!(given("daemonset", "--inCluster=false").unwrap().contains("admin.conf"));
    let alone = given("pod", "--members /etc/berth/members --berth_key_file /etc/berth/key --address 192.0.2.1 --services=false").unwrap();
    assert!(alone.contains("path: /etc/berth/members") && alone.contains("path: /etc/berth/key"));
    assert!(!alone.contains("admin.conf"));
    let from_file = given("daemonset", "--config-file /etc/kube-vip/config.yaml").unwrap();
    assert!(from_file.contains("path: /etc/kube-vip/config.yaml"), "{from_file}");
}

#[test]
fn image_and_nodes_are_those_that_were_asked_for() {
    let image = |flags: &str| {
        let text = given("daemonset", flags).unwrap();
        let line = text.lines().find(|line| line.contains("image: ")).unwrap().to_owned();
        line.rsplit("image: ").next().unwrap().trim_matches('"').to_owned()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(""), format!("localhost/berth/berth-announcer:{version}"));
    assert_eq!(image("--image r.example:5000/berth"), format!("r.example:5000/berth:{version}"));
    assert_eq!(image("--image r.example/berth:1"), "r.example/berth:1");
    let digest = format!("r.example:5000/a/b_c:V1@sha256:{}", "0a".repeat(32));
    let text = given("daemonset", &format!("--image {digest}")).unwrap();
    assert_eq!(parsed(&text)[0]["spec"]["template"]["spec"]["containers"][0]["image"], digest);
    assert!(
        given("daemonset", "--taint").unwrap().contains("node-role.kubernetes.io/control-plane")
    );
    assert!(!given("daemonset", "--berth_fence nft-timeout").unwrap().contains("- BPF"));
}

#[test]
fn a_daemonset_of_the_control_plane_that_goes_to_every_node_is_told() {
    let advice = |given: &[(&str, &str)], taint| {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = Settings::gather(given.collect::<Vec<_>>(), []);
        generate::advice(&settings, &Wish { taint, ..Wish::default() }).unwrap_or_default()
    };
    let own = [("cp_enable", "true"), ("address", "192.0.2.100")];
    assert!(advice(&own, false).ends_with("with --taint it goes to control-plane nodes alone"));
    assert_eq!(advice(&own, true), "");
    assert_eq!(advice(&[], false), "");
    let both = [own[0], own[1], ("svc_enable", "true")];
    assert!(advice(&both, false).ends_with("one with --taint for the control plane"));
}

#[test]
fn a_password_that_stands_in_what_is_printed_is_told_and_not_shown() {
    let told = |name: &str, value: &str| {
        let settings = Settings::gather([(name.to_owned(), value.to_owned())], []);
        generate::in_the_clear(&settings).unwrap_or_default()
    };
    for (name, value) in [
        ("bgp_peers", "192.0.2.1:65001:hunter2"),
        ("bgp_peers", "192.0.2.1:65001,192.0.2.2:65001:[hunter2]"),
        ("bgp_peerpass", "hunter2"),
    ] {
        let told = told(name, value);
        assert!(told.starts_with(&format!("{name} has a password in the clear")), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    for (name, value) in [
        ("bgp_peers", "192.0.2.1:65001"),
        ("bgp_peers", "192.0.2.1:65001:[file:/etc/berth/password]"),
        ("bgp_peerpass", "file:/etc/berth/password"),
        ("bgp_peerpass", ""),
    ] {
        assert_eq!(told(name, value), "", "{name}={value}");
    }
}

#[test]
fn what_is_not_accepted_gives_no_manifest_and_is_named_with_all_else() {
    let told = given("daemonset", "--bgp --arp=perhaps --zebra --controlplane").unwrap_err();
    for name in ["vip_arp=", "zebra_enable=", "address="] {
        assert!(told.contains(name), "{name}: {told}");
    }
    assert!(told.starts_with("settings that are not accepted, 3 in all:"), "{told}");
    assert!(
        given("rbac", "--etcdCert x --leaderElectionType etcd")
            .unwrap_err()
            .contains("berth_election=membership")
    );
}

#[test]
fn what_is_generated_is_checked_as_the_same_throughout() {
    for flags in ["", "--leaderElection", "--servicesElection", "--arp --services --lbClassOnly"] {
        let both = given("daemonset", flags).unwrap() + &given("rbac", flags).unwrap();
        let report = Report::of(&both).unwrap();
        assert_eq!(report.code(), 0, "{flags}\n{report}");
    }
    let alone = "--members /m --keyFile /k --address 192.0.2.1 --services=false";
    let of_control_plane = "--controlplane --address 192.0.2.100 --interface eth0";
    let by_bgp = "--controlplane --address 10.99.0.100 --interface lo --bgp --localAS 65000 --bgppeers 192.0.2.1:65001";
    for flags in
        ["--interface eth0", "--interface eth0 --vip 192.0.2.1", alone, of_control_plane, by_bgp]
    {
        let report = Report::of(&given("pod", flags).unwrap()).unwrap();
        assert_eq!(report.code(), 0, "{flags}\n{report}");
    }
    for flags in [of_control_plane, by_bgp] {
        let both = given("daemonset", flags).unwrap() + &given("rbac", flags).unwrap();
        let report = Report::of(&both).unwrap();
        assert_eq!(report.code(), 0, "{report}");
    }
    let rights = given("rbac", by_bgp).unwrap();
    assert!(rights.contains("- berth-bgp") && rights.contains("- berth-control-plane"), "{rights}");
    let kubeadm = given("kubeadm", by_bgp).unwrap();
    assert!(kubeadm.contains("controlPlaneEndpoint: 10.99.0.100:6443"), "{kubeadm}");
    assert!(kubeadm.contains("name: bgp_peers") && !kubeadm.contains("vip_arp"), "{kubeadm}");
}

#[test]
fn files_with_passwords_of_routers_are_mounted_each_once() {
    let peers = "192.0.2.1:65001:[file:/run/bgp/one],192.0.2.2:65001:[file:/run/bgp/one],192.0.2.3:65001:[file:/etc/kubernetes/two]";
    let flags = format!(
        "--controlplane --address 10.99.0.100 --interface lo --bgp --localAS 65000 --bgppeers {peers}"
    );
    let pod = given("pod", &flags).unwrap();
    assert_eq!(pod.matches("mountPath: /run/bgp/one").count(), 1, "{pod}");
    assert!(!pod.contains("mountPath: /etc/kubernetes/two"), "its folder is there\n{pod}");
}

#[test]
fn help_has_the_flags_of_kube_vip_and_says_how_a_switch_is_given() {
    let help = |kind: &str| {
        let mut command = command();
        command.find_subcommand_mut(kind).unwrap().render_long_help().to_string()
    };
    for (kind, flags) in [
        ("pod", &["--arp", "--interface", "--k8sConfigPath", "--inCluster"][..]),
        ("daemonset", &["--servicesElection", "--leaderElection", "--inCluster", "--taint"]),
        ("rbac", &["--role", "--rolebinding", "--serviceNamespace"]),
    ] {
        let help = help(kind);
        for flag in flags {
            assert!(help.contains(flag), "{kind} {flag}: {help}");
        }
        assert!(help.contains("Every flag of kube-vip 1.2 is taken"), "{help}");
    }
    let told = |word: &str| {
        let flags = ["--arp".to_owned(), word.to_owned()];
        flags::explained(matches("pod", &flags).unwrap_err()).to_string()
    };
    assert!(told("false").contains("--arp=false"), "{}", told("false"));
    assert!(!told("eth0").contains("--arp=false"), "{}", told("eth0"));
}

#[test]
fn why_a_file_cannot_be_used_tells_a_terminal_nothing() {
    let twice = "\"\\e]2;mine\\a\": 1\n";
    let why = Report::of(&twice.repeat(2)).unwrap_err();
    let said = unusable("x", &why);
    assert!(said.contains("mine") && !said.contains(char::is_control), "{said:?}");
}

#[test]
fn the_control_planes_pod_has_a_name_and_ports_of_its_own_and_sees_what_kubeadm_writes_later() {
    let flags = "--address 192.0.2.100,2001:db8::100 --interface eth0 --port 8443";
    let text = given("kubeadm", flags).unwrap();
    let documents = parsed(&text);
    let [pod, kubeadm, of_node] = &documents[..] else { panic!("{text}") };
    assert_eq!(pod["metadata"]["name"], "berth-control-plane");
    let spec = &pod["spec"];
    let volume = spec["volumes"].as_array().unwrap().iter();
    let volume = volume.clone().find(|volume| volume["name"] == "kubeconfig").unwrap();
    assert_eq!(
        volume["hostPath"],
        serde_json::json!({ "path": "/etc/kubernetes/", "type": "Directory" })
    );
    assert!(spec["hostAliases"].is_null());
    assert_eq!(spec["priority"], 2_000_001_000, "no admission gives it a number");
    assert!(!given("daemonset", "").unwrap().contains("priority: "));
    let port = &spec["containers"][0]["livenessProbe"]["httpGet"]["port"];
    assert_eq!(*port, 2115);
    for (name, value) in [
        ("cp_enable", "true"),
        ("prometheus_server", ":2122"),
        ("health_check_port", "2115"),
        ("k8s_config_file", "/etc/kubernetes/admin.conf"),
    ] {
        let is_there = env(&text).contains(&(name.to_owned(), value.to_owned()));
        assert!(is_there, "{name}: {text}");
    }
    assert_eq!(kubeadm["apiVersion"], "kubeadm.k8s.io/v1beta4");
    assert_eq!(kubeadm["controlPlaneEndpoint"], "192.0.2.100:8443");
    assert_eq!(kubeadm["apiServer"]["certSANs"][1], "2001:db8::100");
    assert_eq!(
        (&of_node["apiVersion"], &of_node["kind"]),
        (&kubeadm["apiVersion"], &"InitConfiguration".into())
    );
    assert_eq!(of_node["localAPIEndpoint"]["bindPort"], 8443);
    let six = parsed(&given("kubeadm", "--address 2001:db8::100").unwrap());
    assert_eq!(six.len(), 2, "kubeadm's own port is told to nobody");
    assert_eq!(six[1]["controlPlaneEndpoint"], "[2001:db8::100]:6443");
    assert!(given("kubeadm", "").unwrap_err().contains("address="));
}

#[test]
fn a_kubeconfig_that_is_written_later_is_seen_wherever_it_is() {
    for (file, path, kind) in [
        ("/etc/rancher/rke2/rke2.yaml", "/etc/rancher/rke2/", "Directory"),
        // There a container has what is its own.
        ("/root/admin.conf", "/root/admin.conf", "File"),
        ("/admin.conf", "/admin.conf", "File"),
    ] {
        let flags = format!("--address 192.0.2.100 --k8sConfigPath {file}");
        let text = given("kubeadm", &flags).unwrap();
        let volumes = &parsed(&text)[0]["spec"]["volumes"];
        let mut volumes = volumes.as_array().unwrap().iter();
        let volume = volumes.find(|volume| volume["name"] == "kubeconfig").unwrap();
        assert_eq!(volume["hostPath"], serde_json::json!({ "path": path, "type": kind }));
        assert!(env(&text).contains(&("k8s_config_file".into(), file.into())), "{text}");
    }
    let of_services = given("pod", "--k8sConfigPath /etc/rancher/rke2/rke2.yaml").unwrap();
    assert!(of_services.contains("path: /etc/rancher/rke2/rke2.yaml"), "{of_services}");
}

#[test]
fn the_control_plane_alone_needs_leases_of_its_namespace_and_little_else() {
    let text = given("rbac", "--controlplane --address 192.0.2.100").unwrap();
    let all = rights(&text);
    assert!(
        all.iter().all(|right| !right.contains("services") && !right.contains("secrets")),
        "{all:#?}"
    );
    assert!(all.contains("Role update leases.coordination.k8s.io []"), "{all:#?}");
    let both = given("rbac", "--controlplane --address 192.0.2.100 --services").unwrap();
    assert!(rights(&both).iter().any(|right| right.contains("services/status")));
}

#[test]
fn members_of_the_control_plane_find_on_disk_what_they_have_kept_and_have_a_key_of_their_own() {
    let flags = "--address 192.0.2.100 --interface eth0 --election membership";
    let pod = &parsed(&given("kubeadm", flags).unwrap())[0];
    let kept =
        serde_json::json!({ "path": "/var/lib/berth/control-plane", "type": "DirectoryOrCreate" });
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["hostPath"] == kept), "{volumes:#?}");
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "membership").unwrap();
    assert_eq!(
        (&mount["mountPath"], &mount["readOnly"]),
        (&kept["path"], &serde_json::Value::Null)
    );
    let text = given("rbac", &format!("{flags} --controlplane")).unwrap();
    let secret = parsed(&text).into_iter().find(|one| one["kind"] == "Secret").unwrap();
    assert_eq!(secret["metadata"]["name"], "berth-membership-cp");
    let all = rights(&text);
    assert!(all.iter().all(|right| !right.contains("ClusterRole list leases")), "{all:#?}");
    assert!(all.contains("ClusterRole list nodes. []"), "{all:#?}");
    assert!(
        all.iter().any(|right| right.contains("secrets") && right.contains("berth-membership-cp")),
        "{all:#?}"
    );
    let by_lease = given("kubeadm", "--address 192.0.2.100").unwrap();
    assert!(!by_lease.contains("/var/lib/berth"), "{by_lease}");
}

#[test]
fn the_example_of_the_control_plane_is_what_is_printed_for_it() {
    let flags = "--address 192.0.2.100 --interface eth0 --leaseDuration 5 --leaseRenewDuration 3 --leaseRetry 1";
    let [pod, kubeadm] = [
        include_str!("../../../examples/08-control-plane/berth-control-plane.yaml"),
        include_str!("../../../examples/08-control-plane/kubeadm.yaml"),
    ];
    let printed = given("kubeadm", flags).unwrap();
    let image = berth_image(&printed);
    assert_eq!(
        printed.replace(&image, "IMAGE"),
        format!("---\n{pod}---\n{kubeadm}").replace(&berth_image(pod), "IMAGE")
    );
}

/// The image of a Pod, whose tag is that of the release.
fn berth_image(text: &str) -> String {
    text.lines().find(|line| line.contains("image: ")).unwrap().to_owned()
}
