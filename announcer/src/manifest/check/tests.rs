//! Manifests of the shapes that people have, in `inputs/`. Each is written for this test.

mod odd;

use super::*;

macro_rules! inputs {
    ($($name:literal),+ $(,)?) => { [$(($name, include_str!(concat!("inputs/", $name, ".yaml")))),+] };
}

const INPUTS: [(&str, &str); 12] = inputs![
    "daemonset-arp",
    "daemonset-bgp",
    "static-pod",
    "rbac-2023",
    "all-in-one",
    "chart",
    "years-ago",
    "equinix",
    "table",
    "list",
    "cluster-api",
    "named",
];

fn report(name: &str) -> Report {
    let text = INPUTS.iter().find(|(input, _)| *input == name).unwrap().1;
    Report::of(text).unwrap()
}

/// What is said where a text of the file stands.
fn said(name: &str, wanted: &str) -> Vec<(Mark, String)> {
    let text = INPUTS.iter().find(|(input, _)| *input == name).unwrap().1;
    let at = text.lines().position(|line| line.contains(wanted)).unwrap() + 1;
    let report = report(name);
    let rows = report.rows().filter(|row| row.first <= at && at <= row.last);
    rows.map(|row| (row.mark, row.text.clone())).collect()
}

#[track_caller]
fn is(name: &str, wanted: &str, mark: Mark, text: &str) {
    let rows = said(name, wanted);
    let found = rows.iter().any(|(found, told)| *found == mark && told.contains(text));
    assert!(found, "{name}, {wanted}: no {mark:?} with {text}, but {rows:#?}");
}

#[test]
fn no_line_is_without_a_verdict() {
    for (name, text) in INPUTS {
        let report = Report::of(text).unwrap();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line == "---" {
                continue;
            }
            let at = index + 1;
            let has = report.rows().any(|row| row.first <= at && at <= row.last);
            assert!(has, "{name}:{at}: {line}\n{report}");
        }
        assert!(report.rows().all(|row| !row.text.is_empty()), "{name}\n{report}");
    }
}

#[test]
fn every_setting_of_the_file_is_named_with_a_verdict_of_its_own() {
    for (name, text) in INPUTS {
        let report = Report::of(text).unwrap();
        for variable in crate::config::VARIABLES {
            let is_there = text.contains(&format!("name: {}\n", variable.name))
                || text.contains(&format!("name: {},", variable.name));
            let is_told = |row: &Row| row.text.starts_with(variable.name);
            assert!(!is_there || report.rows().any(is_told), "{name}: {}\n{report}", variable.name);
        }
    }
}

#[test]
fn what_is_the_same_is_said_to_be() {
    let name = "daemonset-arp";
    is(name, "name: vip_arp", Mark::Same, "vip_arp=\"true\": announce by ARP");
    is(name, "fieldPath: spec.nodeName", Mark::Same, "vip_nodename: this node's name");
    is(name, "name: dns_mode", Mark::Same, "which addresses are used where address is a name");
    is(name, "name: vip_address", Mark::Same, "empty");
    is(name, "image: ghcr.io", Mark::Same, "put Berth's image here");
    is(name, "  name: kube-vip-ds", Mark::Same, "Kubernetes goes by it");
    is(name, "securityContext:", Mark::MissingRight, "add the capability BPF");
    assert!(
        report(name).notes[0]
            .contains("no role of the account of DaemonSet kube-system/kube-vip-ds")
    );
    assert_eq!(report(name).code(), 3, "{}", report(name));
    is("all-in-one", "enable_node_labeling", Mark::Same, "label the Node that answers");
    is("all-in-one", "resources: [nodes]", Mark::Same, "patch nodes");
    is("chart", "name: vip_loseleadership", Mark::Better, "always gives its addresses up");
    is(
        "chart",
        "name: lb_class_legacy_handling",
        Mark::Same,
        "off: serve Services without a class as well",
    );
    is("chart", "value: directroute", Mark::Same, "counts with lb_enable alone");
    is("chart", "name: TZ", Mark::Same, "no setting");
    is("chart", "image: registry.example.com/busybox", Mark::Same, "Kubernetes goes by it");
}

#[test]
fn what_is_not_built_yet_names_what_it_comes_with() {
    is("daemonset-bgp", "name: cp_enable", Mark::Same, "off: an address for the control plane");
    is("static-pod", "name: cp_enable", Mark::Same, "an address for the control plane");
    is("static-pod", "name: address", Mark::Same, "those of the control plane, with cp_enable");
    is(
        "static-pod",
        "name: dns_mode",
        Mark::Same,
        "which addresses are used where address is a name",
    );
    is("static-pod", "- args:", Mark::Better, "no health check is named");
    is("static-pod", "mountPath: /etc/kubernetes/admin.conf", Mark::Same, "mount its folder");
    assert_eq!(report("static-pod").code(), 3, "capabilities: {}", report("static-pod"));
    is("static-pod", "mountPath: /etc/kubernetes/admin.conf", Mark::Same, "the kubeconfig");
    is("static-pod", "name: svc_enable", Mark::Same, "svc_enable=\"false\": off: serve Services");
    is("daemonset-bgp", "name: vip_arp", Mark::Same, "vip_arp=\"false\": off: announce by ARP");
    is("static-pod", "super-admin.conf", Mark::Better, "the first node alone has super-admin.conf");
    is("years-ago", "name: enableUPNP", Mark::NotYet, "UPnP");
    is("table", "--table\n".trim(), Mark::NotYet, "routing-table mode");
    is("table", "egress_podcidr", Mark::NotYet, "kube-vip.io/egress");
}

#[test]
fn what_asks_for_bgp_is_as_in_kube_vip() {
    is("daemonset-bgp", "name: bgp_enable", Mark::Same, "announce by BGP");
    is("daemonset-bgp", "name: bgp_as", Mark::Same, "own AS");
    is("daemonset-bgp", "name: annotation", Mark::Same, "annotations of nodes");
    is("list", "bgp_enable: ", Mark::Same, "announce by BGP");
}

#[test]
fn what_is_refused_says_what_to_use_instead() {
    is("equinix", "name: vip_packet\n".trim(), Mark::Refused, "Equinix Metal has closed");
    is("equinix", "name: provider_config", Mark::Refused, "Equinix Metal has closed");
    is("equinix", "\"0000\"", Mark::Refused, "Equinix Metal has closed");
    is("equinix", "--inCluster", Mark::Same, "the account of the pod");
    is("table", "name: mirror_dest_interface", Mark::Refused, "mirror port of the switch");
    is("table", "- etcd", Mark::Refused, "berth_election=membership");
    is("table", "--etcdEndpoints", Mark::Refused, "not held in etcd");
    is("table", "--surprise", Mark::Refused, "no flag of kube-vip");
    is("table", "command: [/kube-vip]", Mark::Refused, "take the command out");
    is("table", "vip_renewdeadline", Mark::Refused, "must be shorter than the Lease");
    is("table", "runAsUser: 1000", Mark::Refused, "accepted is 0");
    is("table", "port: 8089", Mark::Refused, "set health_check_port");
    is("table", "\nspec:".trim(), Mark::Refused, "no kubeconfig is mounted");
    is("chart", "exec:", Mark::Refused, "accepted is httpGet");
    is("all-in-one", "vip_cidr", Mark::Refused, "bound as /32");
    is("list", "      spec:", Mark::Refused, "hostNetwork: true is missing");
    is("years-ago", "- --log", Mark::Refused, "kube-vip goes by the variable, Berth by the flag");
}

#[test]
fn what_a_manifest_in_a_text_means_is_said_at_its_lines() {
    let name = "cluster-api";
    let own = "a text with objects of its own";
    is(name, "- name: cp_enable", Mark::Same, "an address for the control plane");
    is(name, "- name: cp_enable", Mark::Same, own);
    is(name, "mountPath: /etc/kubernetes/admin.conf", Mark::Same, "the kubeconfig");
    is(name, "securityContext:", Mark::MissingRight, "add the capability BPF");
    is(name, "preKubeadmCommands", Mark::Same, "nothing of an announcer");
    is(name, "path: /etc/kube-vip.hosts", Mark::Same, "nothing of an announcer");
    assert_eq!(report(name).code(), 3);
}

#[test]
fn the_address_of_the_control_plane_is_none_of_services() {
    is("cluster-api", "- name: address", Mark::Same, "those of the control plane, with cp_enable");
    is("cluster-api", "- name: port", Mark::Same, "port of that address");
    let told = |more: &str| {
        let text = format!(
            "kind: Pod\nmetadata: {{name: kube-vip}}\nspec: {{containers: [{{image: kube-vip, args: [manager, \"--vip=192.0.2.1\", {more}]}}]}}\n"
        );
        Report::of(&text).unwrap().to_string()
    };
    assert!(
        told("--services").contains("address of the control plane; counts with cp_enable alone")
    );
    assert!(told("--enableNodeLabeling").contains("has it in kube-vip.io/has-ip"));
    assert!(told("--members=/m").contains("older name of address"));
}

/// A static pod with the control plane's address, with this probe, these settings and this volume.
fn static_pod(probe: &str, env: &[(&str, &str)], volume: &str) -> Report {
    let env = [("cp_enable", "true"), ("address", "192.0.2.100"), ("vip_leaderelection", "true")]
        .iter()
        .chain(env)
        .map(|(name, value)| format!("    - {{name: {name}, value: \"{value}\"}}\n"));
    let text = format!(
        "kind: Pod\nmetadata: {{name: kube-vip, namespace: kube-system}}\nspec:\n  hostNetwork: true\n  containers:\n  - name: kube-vip\n    image: kube-vip\n    args: [manager]\n    env:\n{}    livenessProbe: {probe}\n    volumeMounts:\n    - {{name: kubeconfig, mountPath: /etc/kubernetes/admin.conf}}\n  volumes:\n  - {volume}\n",
        env.collect::<String>()
    );
    Report::of(&text).unwrap()
}

#[test]
fn what_a_static_pod_gets_wrong_of_the_control_plane_is_told() {
    let good = "{httpGet: {path: /healthz, port: 2112, host: 127.0.0.1}}";
    let volume = |more: &str, path: &str| {
        format!("{{name: kubeconfig, hostPath: {{path: /etc/kubernetes/{path}{more}}}}}")
    };
    let plain = volume("", "admin.conf");
    let told = static_pod(good, &[], &plain).to_string();
    assert!(
        told.contains("mount its folder instead, and what kubeadm writes later is seen"),
        "{told}"
    );
    assert!(told.contains("set another port here, such as :2122"), "{told}");
    assert!(told.contains("no health check is named"), "{told}");
    let apart =
        static_pod(good, &[("prometheus_server", ":2122"), ("health_check_port", "2112")], &plain);
    assert!(!apart.to_string().contains("set another port here"), "{apart}");
    let there = good.replace("127.0.0.1", "192.0.2.100");
    let told = static_pod(&there, &[], &plain);
    assert!(told.to_string().contains("write host: 127.0.0.1"), "{told}");
    assert_eq!(told.code(), 1);
    let created = static_pod(good, &[], &volume(", type: FileOrCreate", "admin.conf"));
    assert!(created.to_string().contains("FileOrCreate leaves an empty file"), "{created}");
    assert_eq!(created.code(), 1);
    let initial = static_pod(good, &[], &volume("", "super-admin.conf")).to_string();
    assert!(initial.contains("it is used by itself"), "{initial}");
}

#[test]
fn a_static_pod_that_announces_to_routers_is_taken_as_it_is() {
    let good = "{httpGet: {path: /healthz, port: 2112, host: 127.0.0.1}}";
    let volume = "{name: kubeconfig, hostPath: {path: /etc/kubernetes/admin.conf}}";
    let by_bgp = [
        ("bgp_enable", "true"),
        ("vip_arp", "false"),
        ("vip_interface", "lo"),
        ("bgp_as", "65000"),
        ("bgp_peers", "192.0.2.1:65001::false"),
    ];
    let report = static_pod(good, &by_bgp, volume);
    let told = report.to_string();
    assert!(told.contains("kube-vip then has one node announce the control plane's"), "{told}");
    assert!(!told.contains("Berth goes by its Lease"), "{told}");
    assert_ne!(report.code(), 1, "{told}");
    let both = static_pod(good, &[&by_bgp[..], &[("vip_arp", "true")]].concat(), volume);
    assert!(both.to_string().contains("take an announcer for each"), "{both}");
    assert_eq!(both.code(), 1, "{both}");
}

#[test]
fn ways_of_the_control_plane_that_are_not_built_yet_are_named() {
    let good = "{httpGet: {path: /healthz, port: 2112, host: 127.0.0.1}}";
    let volume = "{name: kubeconfig, hostPath: {path: /etc/kubernetes/admin.conf}}";
    for (name, value) in [
        ("vip_routingtable", "true"),
        ("lb_enable", "true"),
        ("vip_ddns", "true"),
        ("vip_leasename", "plndr-svcs-lock"),
        ("address", "vip_example.org"),
        ("vip_arp", "false"),
    ] {
        let report = static_pod(good, &[(name, value)], volume);
        assert_eq!(report.code(), 1, "{name}\n{report}");
    }
}

#[test]
fn values_and_ports_are_found_where_they_stand() {
    let name = "named";
    is(name, "interface: enp1s0", Mark::Better, "vip_interface=\"enp1s0\": given once more");
    is(name, "arp: \"true\"", Mark::Same, "vip_arp=\"true\": announce by ARP");
    is(name, "vip_loglevel: ", Mark::Same, "no setting of an announcer");
    is(name, "key: election", Mark::Same, "svc_election=\"true\": one Lease for each Service");
    is(name, "key: services", Mark::Same, "its value is not in this file");
    is(
        name,
        "key: duration",
        Mark::Refused,
        "ConfigMap \"kube-vip-settings\" has no key \"duration\"",
    );
    is(name, "secretRef", Mark::Same, "a Secret, which is not looked into");
    is(name, "name: KUBERNETES_SERVICE_HOST", Mark::Same, "where the account of the pod asks");
    is(name, "name: vip_leaderelection", Mark::Same, "of Services svc_election decides");
    is(name, "name: vip_localpeer", Mark::Same, "which kube-vip holds no more either");
    is(name, "value: {{ interface }}", Mark::Refused, "a template has to be rendered first");
    is(name, "port: metrics}", Mark::Same, "/healthz is answered there");
    is(name, "path: /metrics", Mark::Same, "/metrics is answered there");
    is(name, "port: nowhere", Mark::Refused, "has no port of the name \"nowhere\"");
    assert!(!report(name).to_string().contains("is not set"), "{}", report(name));
}

#[test]
fn what_kubernetes_reads_as_no_text_is_refused() {
    let pod = |value: &str, flag: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: kube-vip}}\nspec:\n  hostNetwork: true\n  containers:\n  - name: \
             kube-vip\n    image: ghcr.io/kube-vip/kube-vip\n    args: [manager, --port, {flag}]\n    env:\n    - name: \
             vip_arp\n      value: {value}\n"
        )
    };
    let refused = |text: &str| {
        let report = Report::of(text).unwrap();
        let told = report.rows().filter(|row| row.text.contains("Kubernetes takes a text alone"));
        told.map(|row| (row.mark, row.first)).collect::<Vec<_>>()
    };
    assert_eq!(refused(&pod("\"true\"", "\"6443\"")), []);
    assert_eq!(refused(&pod("true", "\"6443\"")), [(Mark::Refused, 11)]);
    assert_eq!(refused(&pod("'true'", "6443")), [(Mark::Refused, 9)]);
    assert_eq!(refused(&pod("No", "'1'")).len(), 1);
    assert_eq!(refused(&pod("1.5", "x")).len(), 1);
}

#[test]
fn what_is_needed_no_more_is_better_without() {
    is("all-in-one", "SYS_TIME", Mark::Better, "SYS_TIME: not needed");
    is("chart", "CAP_SYS_ADMIN", Mark::Better, "SYS_ADMIN: not needed");
    is("years-ago", "privileged: true", Mark::Better, "are enough");
    is("all-in-one", "resources: [pods]", Mark::Better, "not needed: list pods");
    let second = "needed where a better right is not given: update services/status";
    is("rbac-2023", "\"services/status\"", Mark::Same, second);
}

#[test]
fn each_right_that_is_missing_is_named_with_its_rule_and_what_is_lost() {
    let name = "rbac-2023";
    let rule = r#"add {apiGroups: [""], resources: [services/status], verbs: [patch]}: without it each status is read"#;
    is(name, "rules:", Mark::MissingRight, rule);
    is(name, "rules:", Mark::MissingRight, "resources: [endpointslices], verbs: [list, watch]}");
    let key = "resources: [secrets], resourceNames: [berth-membership], verbs: [get, update]}, in the namespace kube-system";
    is(name, "rules:", Mark::MissingRight, key);
    is(
        name,
        "\"services\", \"endpoints\"",
        Mark::Same,
        "needed: list services, watch services; needed where a better right is not given: get services, list endpoints",
    );
    assert_eq!(report(name).code(), 3);
    // By one Lease neither the key nor all Leases are needed; of Leases `*` is enough in any case.
    let missing = |name: &str| {
        let report = report(name);
        let rows = report.rows().filter(|row| row.mark == Mark::MissingRight);
        rows.map(|row| row.text.clone())
            .filter(|text| text.contains("apiGroups"))
            .collect::<Vec<_>>()
    };
    let all = missing("all-in-one");
    assert!(
        !all.iter().any(|text| text.contains("secrets") || text.contains("leases")),
        "{all:#?}"
    );
    assert!(all.iter().any(|text| text.contains("ipaddresses")), "{all:#?}");
    assert!(!all.iter().any(|text| text.contains("services/status")), "{all:#?}");
    let chart = missing("chart");
    assert!(!chart.iter().any(|text| text.contains("leases")), "{chart:#?}");
    assert!(chart.iter().any(|text| text.contains("secrets")), "{chart:#?}");
}

#[test]
fn the_other_half_and_what_belongs_to_nobody_are_left_as_they_are() {
    is("all-in-one", "kube-vip-cloud-provider:v0.0.11", Mark::Same, "berth-ccm in its place");
    is("all-in-one", "configmaps, services", Mark::Same, "no right of an announcer");
    is("all-in-one", "cidr-global", Mark::Same, "berth-ccm check");
    is("list", "resourceVersion: \"7\"", Mark::Same, "no setting");
}

#[test]
fn our_own_manifests_are_the_same_throughout() {
    for files in [
        concat!(
            include_str!("../../../../manifests/announcer.yaml"),
            "\n---\n",
            include_str!("../../../../manifests/announcer-rbac.yaml")
        ),
        include_str!("../../../../manifests/announcer.yaml"),
    ] {
        let report = Report::of(files).unwrap();
        assert_eq!(report.code(), 0, "{report}");
    }
}

#[test]
fn no_password_is_shown_and_nothing_of_the_file_speaks_to_the_terminal() {
    for name in ["metalKey (not shown): ", "bgp_peers (not shown): "] {
        let told = report("equinix").to_string() + &report("daemonset-bgp").to_string();
        assert!(
            told.contains(name) && !told.contains("0000\n") && !told.contains("192.0.2.1:64513")
        );
    }
    let text = "kind: Pod\nspec: {containers: [{image: kube-vip, args: [\"--\\e[2J\"], env: [{name: \"vip_interface\", value: \"\\e]0;x\"}]}]}\n";
    let told = Report::of(text).unwrap().to_string();
    assert!(told.lines().count() > 3 && !told.contains('\u{1b}'), "{told:?}");
}

#[test]
fn a_configmap_of_another_namespace_says_nothing_of_an_announcer() {
    let map = |namespace: &str, value: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: {namespace}}}\ndata:\n  bgp_enable: '{value}'\n"
        )
    };
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: kube-vip, namespace: kube-system}\nspec:\n  hostNetwork: true\n  \
        containers:\n  - {name: kube-vip, image: kube-vip, args: [manager], envFrom: [{configMapRef: {name: settings}}]}\n";
    let judged = |text: &str| {
        let report = Report::of(text).unwrap();
        report.rows().any(|row| row.text.contains("bgp_enable=\"true\""))
    };
    let own = map("kube-system", "true");
    assert!(judged(&(own.clone() + pod)));
    assert!(judged(&(map("a-tenants", "false") + &own + pod)), "its own counts");
    assert!(!judged(&(map("a-tenants", "true") + pod)), "and no other");
}

#[test]
fn a_template_that_is_not_filled_in_is_told_so_and_a_member_goes_by_no_lease() {
    let probe = "{httpGet: {host: 127.0.0.1, path: /healthz, port: 2114}}";
    let volume =
        "{name: kubeconfig, hostPath: {path: /etc/kubernetes/admin.conf, type: FileOrCreate}}";
    let env = [
        ("vip_interface", "${VIP_NETWORK_INTERFACE:=}"),
        ("vip_leaderelection", "false"),
        ("berth_election", "membership"),
    ];
    let told = static_pod(probe, &env, volume).to_string();
    assert!(told.contains("not filled in yet: check what fills it in"), "{told}");
    assert!(told.contains("Berth's control-plane nodes decide among themselves"), "{told}");
}
