//! Manifests for settings: what `manifests/` has, with what was asked for and the rights for that and no more.

use berth_api::Quoted;
use serde_json::{Value, json};

use super::modes::{Decides, Modes};
use super::rights::{Place, Right, needed};
use crate::config::{Config, Settings};

/// The name of everything that is generated.
const NAME: &str = "berth-announcer";
const IMAGE: &str = "localhost/berth/berth-announcer";
const GROUP: &str = "rbac.authorization.k8s.io";
/// Where probes ask where nothing else is said: not where the metrics are, for so are kube-vip's.
const HEALTH_PORT: &str = "2114";
/// The kubeconfig of a control-plane node, which has rights before anybody has given any.
const ADMIN: &str = "/etc/kubernetes/admin.conf";
/// Files that are read where the announcer runs, not where its manifest is written.
const FILES: [&str; 4] = ["k8s_config_file", "config_file", "berth_members", "berth_key_file"];
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

/// Everything for which there is no manifest.
pub(super) fn problems(settings: &Settings) -> Vec<String> {
    let here = settings.clone().without(&READ);
    let mut problems = match Config::parse(&here, "node") {
        Ok(config) => config.flaws.into_iter().map(|flaw| flaw.problem).collect(),
        Err(problems) => problems,
    };
    problems.extend(here.check().into_iter().map(|(_, problem)| problem));
    let is_of_file = |name: &str| FILES.contains(&name) && settings.text(name).is_some();
    problems.retain(|problem| !is_of_file(&problem.name));
    let bare =
        FILES.iter().filter(|name| settings.text(name).is_some_and(|path| !path.starts_with('/')));
    problems.extend(bare.map(|name| {
        settings.problem(name, "accepted is a path from the root, where it is mounted")
    }));
    let mut told = Vec::new();
    for problem in problems.iter().map(ToString::to_string) {
        if !told.contains(&problem) {
            told.push(problem);
        }
    }
    told
}

/// A Pod, as the kubelet runs it from a file of its node.
pub(super) fn pod(settings: &Settings, wish: &Wish) -> Vec<Value> {
    let namespace = Modes::of(settings).namespace;
    let in_cluster = wish.in_cluster.unwrap_or(false);
    vec![json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": NAME, "namespace": namespace, "labels": labels() },
        "spec": pod_spec(settings, wish, in_cluster, settings.text("vip_nodename")),
    })]
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
    vec![json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": NAME, "namespace": Modes::of(settings).namespace, "labels": labels(),
        },
        "spec": {
            "selector": { "matchLabels": labels() },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "template": { "metadata": { "labels": labels() }, "spec": spec },
        },
    })]
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME })
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
    ]);
    let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
    for (name, file) in files {
        let Some(file) = file else { continue };
        mounts.push(json!({ "name": name, "mountPath": file, "readOnly": true }));
        volumes.push(json!({ "name": name, "hostPath": { "path": file, "type": "File" } }));
    }
    // The older iptables knows no transactions: who changes it holds this lock, kube-proxy as well.
    mounts.push(json!({ "name": "xtables-lock", "mountPath": "/run/xtables.lock" }));
    volumes.push(json!({
        "name": "xtables-lock", "hostPath": { "path": "/run/xtables.lock", "type": "FileOrCreate" },
    }));
    let port = match settings.text("health_check_port").unwrap_or(HEALTH_PORT) {
        // The announcer then answers on loopback all the same.
        "0" => 2112,
        port => port.parse().unwrap_or(2112),
    };
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
            "name": NAME,
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
    if in_cluster && modes.cluster {
        spec["serviceAccountName"] = json!(NAME);
    }
    spec
}

/// What is wrong with the name of an image, as a reference of the distribution of containers has it.
pub(super) fn unfit(image: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
    let begins = image.starts_with(|c: char| c.is_ascii_alphanumeric());
    (!begins || !image.chars().all(fits)).then(|| {
        format!(
            "--image={}: accepted is the name of an image, with or without a tag",
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
    let apart = ["vip_nodename", "cp_namespace", "health_check_port", "k8s_config_file"];
    let own = settings
        .given()
        .filter(|(variable, _)| !variable.flag_only && !apart.contains(&variable.name))
        .map(|(variable, value)| json!({ "name": variable.name, "value": value }));
    let mut environment = vec![node];
    environment.extend(own);
    let namespace = Modes::of(settings).namespace;
    let port = settings.text("health_check_port").unwrap_or(HEALTH_PORT);
    if let Some(kubeconfig) = kubeconfig {
        environment.push(json!({ "name": "k8s_config_file", "value": kubeconfig }));
    }
    environment.push(json!({ "name": "cp_namespace", "value": namespace }));
    environment.push(json!({ "name": "health_check_port", "value": port }));
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
        if modes.decides == Decides::Membership {
            return Err("--role, --rolebinding: membership reads Nodes, which are in no namespace; add --leaderElection or --servicesElection".to_owned());
        }
        // Of objects that are in no namespace nothing can be given so; Events are where the Services are.
        for right in rights.iter_mut().filter(|right| right.resource == "events") {
            right.place = Place::Namespace(services.clone());
        }
        rights.retain(|right| right.place != Place::Everywhere);
    }
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": NAME, "namespace": modes.namespace },
    });
    let mut documents = vec![account];
    if modes.decides == Decides::Membership {
        // It comes empty: the first announcer puts a random key into it, so none may create Secrets.
        documents.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "berth-membership", "namespace": modes.namespace },
        }));
    }
    let mut places: Vec<Place> = rights.iter().map(|right| right.place.clone()).collect();
    places.sort();
    places.dedup();
    for place in places {
        let of_place: Vec<&Right> = rights.iter().filter(|right| right.place == place).collect();
        documents.extend(role(&place, &of_place, &modes.namespace));
    }
    Ok(documents)
}

fn role(place: &Place, rights: &[&Right], home: &str) -> [Value; 2] {
    let (kind, binding, mut metadata) = match place {
        Place::Everywhere => ("ClusterRole", "ClusterRoleBinding", json!({ "name": NAME })),
        Place::Namespace(namespace) => {
            ("Role", "RoleBinding", json!({ "name": NAME, "namespace": namespace }))
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
        "roleRef": { "apiGroup": GROUP, "kind": kind, "name": NAME },
        "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": home }],
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
