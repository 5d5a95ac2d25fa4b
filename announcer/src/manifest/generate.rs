//! Manifests for settings: what `manifests/` has, with what was asked for and the rights for that and no more.

use std::collections::BTreeSet;

use berth_api::Quoted;
use berth_bgp::config::{self as bgp, Password};
use serde_json::{Value, json};

use super::modes::{Decides, Modes};
use super::rights::{Place, Right, needed};
use crate::config::{Config, Http, Problem, Settings, Verdict, beside_an_api, elects, find};

/// The name of everything that is generated.
const NAME: &str = "berth-announcer";
const METRICS: &str = "prometheus_server";
const HEALTH: &str = "health_check_port";
const IMAGE: &str = "localhost/berth/berth-announcer";
const GROUP: &str = "rbac.authorization.k8s.io";
/// Where probes ask where nothing else is said: not where the metrics are, for so are kube-vip's.
const HEALTH_PORT: &str = "2114";
/// The control plane's own announcer runs beside the other on its node: its name and its ports.
const OF_CONTROL_PLANE: (&str, &str, &str) = ("berth-control-plane", "2115", ":2122");
/// The kubeconfig of a control-plane node, which has rights before anybody has given any.
const ADMIN: &str = "/etc/kubernetes/admin.conf";
/// The number of `system-node-critical` (`scheduling.SystemCriticalPriority`, and 1000), by which a kubelet ends the Pods of its node
/// when that shuts down: no admission puts it into a Pod of a file, as kubeadm knows of its own.
const NODE_CRITICAL: i32 = 2_000_001_000;
/// Files that are read where the announcer runs, not where its manifest is written.
pub(super) const FILES: [&str; 5] = [
    "k8s_config_file",
    "config_file",
    "berth_members",
    "berth_key_file",
    "control_plane_health_check_ca_path",
];
/// Those of them that say what else is asked for.
const READ: [&str; 2] = ["k8s_config_file", "config_file"];

/// What is said besides settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// The image, with or without a tag.
    pub(super) image: Option<String>,
    /// Whether the account of the pod is used; if nothing is said, by a DaemonSet.
    pub(super) in_cluster: Option<bool>,
    /// Whether it runs on control-plane nodes alone.
    pub(super) taint: bool,
    /// Whether there are to be rights in namespaces alone.
    pub(super) role: bool,
}

/// Everything for which there is no manifest, with `more` that its kind does not take. `flags` are the settings that were given
/// as such.
pub(super) fn problems(settings: &Settings, flags: &[&str], more: Vec<Problem>) -> Vec<String> {
    let here = settings.clone().without(&READ);
    let mut problems = match Config::parse(&here, "node") {
        Ok(config) => {
            let wide = config.arp_nd.subnet.is_some().then(|| {
                let name = settings.first(&["vip_subnet", "vip_cidr"]).unwrap_or("vip_subnet");
                settings.problem(
                    name,
                    "addresses are bound as /32 and /128 whatever it says; leave it out",
                )
            });
            config.flaws.into_iter().map(|flaw| flaw.problem).chain(wide).collect()
        }
        Err(problems) => problems,
    };
    // Asked for by annotations of Services: an announcer starts with it, and does nothing of it.
    problems.extend(settings.given().filter_map(|(variable, _)| match variable.verdict {
        Verdict::NotYet(coming) if variable.with.contains('/') && settings.asks(variable) => {
            let accepted =
                format!("not supported yet, it comes with {}; leave it out", coming.name());
            Some(settings.problem(variable.name, accepted))
        }
        _ => None,
    }));
    problems.extend(here.check().into_iter().map(|(_, problem)| problem));
    let is_of_file = |name: &str| FILES.contains(&name) && settings.text(name).is_some();
    problems.retain(|problem| !is_of_file(&problem.name));
    if settings.text("berth_members").is_some() {
        problems.extend(beside_an_api(settings));
    }
    let is_path = |path: &str| path.starts_with('/') && path.split('/').all(|part| part != "..");
    let bare = FILES.iter().filter(|name| settings.text(name).is_some_and(|path| !is_path(path)));
    problems.extend(bare.map(|name| {
        settings.problem(name, "accepted is a path from the root, where it is mounted, without ..")
    }));
    problems.extend(more);
    let mut told = Vec::new();
    // Who has given it as a flag knows it by that name, mostly kube-vip's.
    let text = |problem: &Problem| {
        let flag = find(&problem.name).and_then(|variable| variable.aliases().next());
        match flag.filter(|_| flags.contains(&problem.name.as_str())) {
            Some(flag) => format!("--{flag}, {problem}"),
            None => problem.to_string(),
        }
    };
    for problem in problems.iter().map(text) {
        if !told.contains(&problem) {
            told.push(problem);
        }
    }
    told
}

/// A Pod, as the kubelet runs it from a file of its node.
pub(super) fn pod(settings: &Settings, wish: &Wish) -> Vec<Value> {
    let modes = Modes::of(settings);
    let in_cluster = wish.in_cluster.unwrap_or(false);
    let name = name(&modes);
    let mut spec = pod_spec(settings, wish, in_cluster, settings.text("vip_nodename"));
    spec["priority"] = json!(NODE_CRITICAL);
    vec![json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": modes.namespace, "labels": labels(name) },
        "spec": spec,
    })]
}

/// Whether the control plane goes by a name.
fn has_names(settings: &Settings) -> bool {
    let config = Config::parse(&settings.clone().without(&FILES), "node").ok();
    let own = config.and_then(|config| config.control_plane);
    own.is_some_and(|own| own.names().next().is_some())
}

/// That of both halves, or of the control plane's alone.
fn name(modes: &Modes) -> &'static str {
    match modes.control_plane && !modes.services {
        true => OF_CONTROL_PLANE.0,
        false => NAME,
    }
}

/// Where probes ask.
fn health_port<'a>(settings: &'a Settings, modes: &Modes) -> &'a str {
    let own = if name(modes) == NAME { HEALTH_PORT } else { OF_CONTROL_PLANE.1 };
    settings.text(HEALTH).unwrap_or(own)
}

/// The metrics of the control plane's own announcer, where nothing else is said of them.
fn metrics(settings: &Settings, modes: &Modes) -> Option<&'static str> {
    let is_given = settings.given().any(|(other, _)| other.name == METRICS);
    Some(OF_CONTROL_PLANE.2).filter(|_| name(modes) != NAME && !is_given)
}

/// The port at which the announcer answers probes: where it has none for them, that of its metrics, or loopback's.
fn port_of_probes(settings: &Settings, modes: &Modes) -> u16 {
    let own = metrics(settings, modes).map(|address| (METRICS, address.to_owned()));
    let own = own.into_iter().chain([(HEALTH, health_port(settings, modes).to_owned())]);
    let given = settings.given().filter(|(variable, _)| variable.name == METRICS);
    let given = given.map(|(variable, value)| (variable.name.to_owned(), value.to_owned()));
    Http::of(&Settings::gather(given, own)).port_of_probes()
}

/// What is said of a DaemonSet that is printed all the same.
pub(super) fn advice(settings: &Settings, wish: &Wish) -> Option<String> {
    let modes = Modes::of(settings);
    let instead = match modes.services {
        true => "take one for Services and one with --taint for the control plane",
        false => "with --taint it goes to control-plane nodes alone",
    };
    (modes.control_plane && !wish.taint).then(|| {
        format!(
            "this DaemonSet goes to every node, and the control plane's address to any on which something answers as its API server \
             does, such as a balancer at loopback: {instead}"
        )
    })
}

/// What is said of a password that stands in what is printed all the same.
pub(super) fn in_the_clear(settings: &Settings) -> Option<String> {
    let (peers, _) = bgp::peers(settings.text("bgp_peers").unwrap_or_default());
    let alone = settings.text("bgp_peerpass").filter(|text| !text.is_empty());
    let in_peers = peers.iter().any(|peer| matches!(peer.password, Some(Password::Text(_))));
    let (name, file) = match in_peers {
        true => ("bgp_peers", "[file:/PATH]"),
        false => {
            (alone.filter(|text| !text.starts_with("file:")).map(|_| "bgp_peerpass")?, "file:/PATH")
        }
    };
    Some(format!(
        "{name} has a password in the clear: whoever may read Pods of the namespace reads it there; {file} in its place is read on each node"
    ))
}

/// A DaemonSet.
pub(super) fn daemonset(settings: &Settings, wish: &Wish) -> Vec<Value> {
    let in_cluster = wish.in_cluster.unwrap_or(settings.text("k8s_config_file").is_none());
    let mut spec = pod_spec(settings, wish, in_cluster, None);
    if wish.taint {
        let role = |role: &str| json!({ "matchExpressions": [{ "key": format!("node-role.kubernetes.io/{role}"), "operator": "Exists" }] });
        let terms = ["control-plane", "master"].map(role);
        spec["affinity"] = json!({ "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms },
        } });
    }
    let modes = Modes::of(settings);
    let name = name(&modes);
    vec![json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": name, "namespace": modes.namespace, "labels": labels(name),
        },
        "spec": {
            "selector": { "matchLabels": labels(name) },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "template": { "metadata": { "labels": labels(name) }, "spec": spec },
        },
    })]
}

/// The folder of a file, with a slash; none where the container has one of its own there, as every folder of the root may be.
fn folder_of(file: &str) -> Option<&str> {
    let folder = &file[..=file.rfind('/')?];
    (folder.split('/').filter(|part| !part.is_empty()).count() > 1).then_some(folder)
}

/// The files that have passwords of routers, each once, by the names of their volumes.
fn passwords(settings: &Settings) -> Vec<(String, String)> {
    if settings.switch("bgp_enable") != Some(true) {
        return Vec::new();
    }
    let (_, peers, _) = berth_bgp::config::settings(|name| settings.text(name));
    let files = peers.into_iter().filter_map(|peer| match peer.password? {
        Password::File(path) => Some(path.display().to_string()),
        Password::Text(_) | Password::Secret { .. } => None,
    });
    let files: BTreeSet<String> = files.collect();
    files.into_iter().enumerate().map(|(index, file)| (format!("password-{index}"), file)).collect()
}

fn labels(name: &str) -> Value {
    json!({ "app.kubernetes.io/name": name })
}

fn pod_spec(settings: &Settings, wish: &Wish, in_cluster: bool, node: Option<&str>) -> Value {
    let modes = Modes::of(settings);
    let kubeconfig = settings.text("k8s_config_file").unwrap_or(ADMIN);
    let kubeconfig = (modes.cluster && !in_cluster).then_some(kubeconfig);
    let mut files = vec![("kubeconfig", kubeconfig)];
    files.extend([
        ("settings", settings.text("config_file")),
        ("members", settings.text("berth_members")),
        ("key", settings.text("berth_key_file")),
        ("authority", settings.text("control_plane_health_check_ca_path")),
    ]);
    let passwords = passwords(settings);
    files.extend(passwords.iter().map(|(name, file)| (name.as_str(), Some(file.as_str()))));
    // What is in this folder is written while this runs, and one of kubeadm's files on the first node alone.
    let folder = kubeconfig.filter(|_| modes.control_plane).and_then(folder_of);
    let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
    for (name, file) in files {
        let Some(file) = file else { continue };
        let (file, kind) = match folder {
            Some(folder) if name == "kubeconfig" => (folder, "Directory"),
            Some(folder) if file.starts_with(folder) => continue,
            _ => (file, "File"),
        };
        mounts.push(json!({ "name": name, "mountPath": file, "readOnly": true }));
        volumes.push(json!({ "name": name, "hostPath": { "path": file, "type": kind } }));
    }
    // What members have kept is there when the node is back, and no API server is yet.
    let election = elects(settings);
    let kept = election.of_control_plane().and_then(|own| own.folder.as_ref());
    if let Some(folder) = kept {
        mounts.push(json!({ "name": "membership", "mountPath": folder }));
        volumes.push(json!({
            "name": "membership", "hostPath": { "path": folder, "type": "DirectoryOrCreate" },
        }));
    }
    // The older iptables knows no transactions: who changes it holds this lock, kube-proxy as well.
    mounts.push(json!({ "name": "xtables-lock", "mountPath": "/run/xtables.lock" }));
    volumes.push(json!({
        "name": "xtables-lock", "hostPath": { "path": "/run/xtables.lock", "type": "FileOrCreate" },
    }));
    let port = port_of_probes(settings, &modes);
    let probe =
        |path: &str| json!({ "httpGet": { "path": path, "port": port, "host": "127.0.0.1" } });
    let mut liveness = probe("/healthz");
    liveness["periodSeconds"] = json!(10);
    liveness["failureThreshold"] = json!(3);
    let mut readiness = probe("/readyz");
    readiness["periodSeconds"] = json!(2);
    let capabilities: &[&str] = match settings.text("berth_fence") {
        Some("nft-timeout" | "unfenced") => &["NET_ADMIN", "NET_RAW", "SYS_NICE"],
        _ => &["NET_ADMIN", "NET_RAW", "BPF", "SYS_NICE"],
    };
    let mut spec = json!({
        "priorityClassName": "system-node-critical",
        "hostNetwork": true,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "terminationGracePeriodSeconds": 15,
        "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
        "tolerations": [{ "operator": "Exists" }],
        "containers": [{
            "name": name(&modes),
            "image": image(wish.image.as_deref()),
            "imagePullPolicy": "IfNotPresent",
            "args": ["manager"],
            "env": environment(settings, node, kubeconfig),
            "livenessProbe": liveness,
            "readinessProbe": readiness,
            "resources": {
                "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "256Mi" },
            },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "runAsUser": 0,
                "capabilities": { "drop": ["ALL"], "add": capabilities },
            },
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    });
    if folder.is_some() || kept.is_some() {
        // Where SELinux is in force no other type of a container may read what is the host's, which no kubelet relabels
        // (kubernetes/kubeadm#279). Elsewhere nothing comes of it.
        let options = json!({ "type": "spc_t" });
        spec["containers"][0]["securityContext"]["seLinuxOptions"] = options;
    }
    if has_names(settings) {
        // The DNS of a cluster is behind the address whose name is asked for.
        spec["dnsPolicy"] = json!("Default");
    }
    if in_cluster && modes.cluster {
        spec["serviceAccountName"] = json!(name(&modes));
    }
    spec
}

/// What is wrong with the name of an image, as a reference of the distribution of containers has it: small letters but in
/// the host and the tag.
pub(super) fn unfit(image: &str) -> Option<String> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last..].split_once(':') {
        Some((name, tag)) => (&rest[..last + name.len()], Some(tag)),
        None => (rest, None),
    };
    let is = |text: &str, more: &str, letter: fn(char) -> bool| {
        text.starts_with(|c: char| letter(c) || c.is_ascii_digit())
            && text.chars().all(|c| letter(c) || c.is_ascii_digit() || more.contains(c))
    };
    let any = |c: char| c.is_ascii_alphabetic();
    let small = |c: char| c.is_ascii_lowercase();
    let is_host =
        |part: &str| is(part, ".-:", any) && (part.contains(['.', ':']) || part == "localhost");
    let mut parts = name.split('/').enumerate();
    let is_name = parts.all(|(index, part)| is(part, "._-", small) || index == 0 && is_host(part));
    let is_tag =
        tag.is_none_or(|tag| tag.len() <= 128 && (is(tag, "._-", any) || tag.starts_with('_')));
    let is_digest = digest.is_none_or(|digest| {
        digest.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    });
    (!is_name || !is_tag || !is_digest).then(|| {
        format!(
            "--image={}: accepted is the name of an image, with or without a tag or digest, such as \
             registry.example:5000/berth/berth-announcer:0.1.0",
            Quoted::of(image)
        )
    })
}

/// kube-vip takes the version of its program where no tag is named.
fn image(given: Option<&str>) -> String {
    let image = given.unwrap_or(IMAGE);
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.contains([':', '@']) {
        true => image.to_owned(),
        false => format!("{image}:{}", env!("CARGO_PKG_VERSION")),
    }
}

fn environment(settings: &Settings, node: Option<&str>, kubeconfig: Option<&str>) -> Vec<Value> {
    let node = match node {
        Some(node) => json!({ "name": "vip_nodename", "value": node }),
        None => json!({
            "name": "vip_nodename", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } },
        }),
    };
    let apart = ["vip_nodename", "cp_namespace", HEALTH, "k8s_config_file"];
    let own = settings
        .given()
        .filter(|(variable, _)| !variable.flag_only && !apart.contains(&variable.name))
        .map(|(variable, value)| json!({ "name": variable.name, "value": value }));
    let mut environment = vec![node];
    environment.extend(own);
    let modes = Modes::of(settings);
    let (namespace, port) = (&modes.namespace, health_port(settings, &modes));
    if let Some(address) = metrics(settings, &modes) {
        environment.push(json!({ "name": METRICS, "value": address }));
    }
    if let Some(kubeconfig) = kubeconfig {
        environment.push(json!({ "name": "k8s_config_file", "value": kubeconfig }));
    }
    environment.push(json!({ "name": "cp_namespace", "value": namespace }));
    environment.push(json!({ "name": HEALTH, "value": port }));
    environment
}

/// The account, its roles and what binds them.
///
/// # Errors
/// Where rights in namespaces alone were asked for, and are not enough.
pub(super) fn rbac(settings: &Settings, wish: &Wish) -> Result<Vec<Value>, String> {
    let modes = Modes::of(settings);
    if !modes.cluster {
        return Err("berth_members: without a cluster there are no rights to give".to_owned());
    }
    let mut rights = needed(&modes);
    if wish.role {
        let Some(services) = &modes.services_in else {
            return Err("--role, --rolebinding: rights in namespaces alone serve the Services of one; name it by --serviceNamespace".to_owned());
        };
        match modes.decides {
            Decides::Membership => return Err("--role, --rolebinding: membership reads Nodes, which are in no namespace; add --leaderElection or --servicesElection".to_owned()),
            Decides::Everyone => return Err("--role, --rolebinding: by BGP Nodes are read, which are in no namespace; leave it out".to_owned()),
            Decides::Lease | Decides::LeasePerService => {}
        }
        // Of objects that are in no namespace nothing can be given so; Events are where the Services are.
        for right in rights.iter_mut().filter(|right| right.resource == "events") {
            right.place = Place::Namespace(services.clone());
        }
        rights.retain(|right| right.place != Place::Everywhere);
    }
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": name(&modes), "namespace": modes.namespace },
    });
    let mut documents = vec![account];
    if modes.decides == Decides::Membership {
        // It comes empty: the first announcer puts a random key into it, so none may create Secrets.
        documents.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": modes.secret, "namespace": modes.namespace },
        }));
    }
    let mut places: Vec<Place> = rights.iter().map(|right| right.place.clone()).collect();
    places.sort();
    places.dedup();
    for place in places {
        let of_place: Vec<&Right> = rights.iter().filter(|right| right.place == place).collect();
        documents.extend(role(name(&modes), &place, &of_place, &modes.namespace));
    }
    Ok(documents)
}

fn role(name: &str, place: &Place, rights: &[&Right], home: &str) -> [Value; 2] {
    let (kind, binding, mut metadata) = match place {
        Place::Everywhere => ("ClusterRole", "ClusterRoleBinding", json!({ "name": name })),
        Place::Namespace(namespace) => {
            ("Role", "RoleBinding", json!({ "name": name, "namespace": namespace }))
        }
    };
    let rule = |right: &&Right| {
        let mut rule = json!({
            "apiGroups": [right.group], "resources": [right.resource], "verbs": right.verbs,
        });
        if let Some(name) = right.name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    };
    let rules: Vec<Value> = rights.iter().map(rule).collect();
    let api = format!("{GROUP}/v1");
    let role = json!({ "apiVersion": api, "kind": kind, "metadata": metadata, "rules": rules });
    let binding = json!({
        "apiVersion": api, "kind": binding, "metadata": metadata.take(),
        "roleRef": { "apiGroup": GROUP, "kind": kind, "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": home }],
    });
    [role, binding]
}

/// As YAML, one document after another.
pub(super) fn print(documents: &[Value]) -> String {
    let text = |document: &Value| {
        serde_saphyr::to_string(document).unwrap_or_else(|_| document.to_string())
    };
    let texts: Vec<String> = documents.iter().map(text).collect();
    texts.iter().map(|text| format!("---\n{}\n", text.trim_end())).collect()
}
