//! What the fields of a pod mean, besides the settings of its container.

use berth_api::Quoted;

use super::sheet::{Mark, Sheet};
use crate::config::Settings;
use crate::manifest::read::Node;

/// What the container has to have, and what is lost without.
const CAPABILITIES: [(&str, &str); 4] = [
    ("NET_ADMIN", "no address can be bound"),
    ("NET_RAW", "nothing can be announced"),
    ("BPF", "the weaker fence, nft-timeout, keeps an address silent (docs/fence.md)"),
    ("SYS_NICE", "heartbeats of a busy node may come too late"),
];
/// Where kubeadm leaves a kubeconfig, and where it is looked for.
const ADMIN: &str = "/etc/kubernetes/admin.conf";
/// Where metrics are where nothing else is said.
const METRICS: &str = ":2112";

/// Whether a container runs the announcer.
pub(super) fn is_announcer(container: &Node) -> bool {
    let text = |key: &str| container.get(key).and_then(Node::text).unwrap_or_default();
    let image = text("image").rsplit('/').next().unwrap_or_default().to_owned();
    let other = ["cloud-provider", "cloud-controller"];
    let is_other = other.iter().any(|other| image.contains(other));
    let env = container.get("env").map(Node::items).unwrap_or_default();
    let has_settings = env.iter().any(|entry| {
        entry.get("name").and_then(Node::text).is_some_and(|name| name.starts_with("vip_"))
    });
    !is_other
        && (image.contains("kube-vip")
            || image.contains("berth-announcer")
            || text("name") == "kube-vip"
            || has_settings)
}

/// Says what the fields of the pod mean.
pub(super) fn spec(sheet: &mut Sheet, spec: &Node, line: usize) {
    match spec.entry("hostNetwork") {
        Some(entry) if entry.1.text() == Some("true") => {
            sheet.entry(entry, Mark::Same, "addresses are those of the node");
        }
        Some(entry) => sheet.entry(entry, Mark::Refused, "accepted is hostNetwork: true"),
        None => sheet.at(line, Mark::Refused, "hostNetwork: true is missing"),
    }
    let said: [(&str, &str); 6] = [
        ("hostAliases", "not needed: the API server is asked by the name that the kubeconfig has"),
        ("tolerations", "nodes where no pod of it runs announce nothing"),
        ("affinity", "nodes where no pod of it runs announce nothing"),
        ("nodeSelector", "nodes where no pod of it runs announce nothing"),
        ("serviceAccountName", "the account, whose rights its roles give"),
        ("serviceAccount", "the account, whose rights its roles give"),
    ];
    for (key, text) in said {
        if let Some(entry) = spec.entry(key) {
            sheet.entry(entry, Mark::Same, text);
        }
    }
    if let Some(entry) = spec.entry("securityContext") {
        context(sheet, &entry.1);
    }
}

/// Says what the fields of its container mean.
pub(super) fn container(sheet: &mut Sheet, container: &Node, settings: &Settings) {
    if let Some(entry) = container.entry("image") {
        let image = entry.1.text().unwrap_or_default();
        let text = match image.contains("berth-announcer") {
            true => "Berth's image".to_owned(),
            false => "put Berth's image here: berth-announcer, from your registry".to_owned(),
        };
        sheet.entry(entry, Mark::Same, text);
    }
    let context_entry = container.entry("securityContext");
    let line = context_entry.map_or(container.first, |entry| entry.0.first);
    if let Some(entry) = context_entry {
        context(sheet, &entry.1);
    }
    let privileged = container.at(&["securityContext", "privileged"]).and_then(Node::text);
    if privileged != Some("true") {
        capabilities(sheet, container, settings, line);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(entry) = container.entry(probe) {
            let (mark, text) = probed(&entry.1, container, settings);
            sheet.entry(entry, mark, text);
        }
    }
    if let Some(entry) = container.entry("lifecycle") {
        let text = "commands in the container: Berth's image has no shell and no other program";
        sheet.entry(entry, Mark::Refused, text);
    }
}

fn context(sheet: &mut Sheet, context: &Node) {
    for entry in context.entries() {
        let (key, value) = (entry.0.text().unwrap_or_default(), entry.1.text());
        match (key, value) {
            ("privileged", Some("true")) => sheet.entry(
                entry,
                Mark::Better,
                "more than is needed: capabilities NET_ADMIN, NET_RAW, BPF and SYS_NICE are enough",
            ),
            ("runAsNonRoot", Some("true")) => {
                sheet.entry(
                    entry,
                    Mark::Refused,
                    "capabilities are given to root alone; accepted is false",
                );
            }
            ("runAsUser", Some(user)) if user != "0" => {
                sheet.entry(
                    entry,
                    Mark::Refused,
                    "capabilities are given to root alone; accepted is 0",
                );
            }
            _ => {}
        }
    }
}

fn capabilities(sheet: &mut Sheet, container: &Node, settings: &Settings, line: usize) {
    let added = container.at(&["securityContext", "capabilities", "add"]);
    let added = added.map(Node::items).unwrap_or_default();
    let name = |node: &Node| node.text().unwrap_or_default().trim_start_matches("CAP_").to_owned();
    for node in added {
        let name = name(node);
        let needed = name == "ALL" || CAPABILITIES.iter().any(|(needed, _)| *needed == name);
        match needed {
            true => sheet.node(node, Mark::Same, format!("{name}: needed")),
            false => sheet.node(node, Mark::Better, format!("{name}: not needed")),
        }
    }
    let has = |wanted: &str| added.iter().map(name).any(|name| name == wanted || name == "ALL");
    let weak = matches!(settings.text("berth_fence"), Some("nft-timeout" | "unfenced"));
    for (wanted, without) in CAPABILITIES {
        if !(has(wanted) || weak && wanted == "BPF") {
            let text = format!("add the capability {wanted}: without it {without}");
            sheet.at(line, Mark::MissingRight, text);
        }
    }
}

/// What the kubelet asks.
fn probed(probe: &Node, container: &Node, settings: &Settings) -> (Mark, String) {
    let get = |key: &str| probe.at(&["httpGet", key]).and_then(Node::text);
    if get("host").is_some_and(|host| is_of_control_plane(host, settings)) {
        let text = "it asks at the control plane's own address, so whichever node has that, and each is judged by another one; write host: 127.0.0.1";
        return (Mark::Refused, text.to_owned());
    }
    let Some(path) = get("path") else {
        return match probe.get("tcpSocket") {
            Some(_) => (Mark::Same, "a port that is listened on".to_owned()),
            None => (
                Mark::Refused,
                "accepted is httpGet: Berth's image has no other program to run".to_owned(),
            ),
        };
    };
    let asked = get("port").unwrap_or_default();
    let Some(port) = port_of(container, asked) else {
        let text = format!("the container has no port of the name {}", Quoted::of(asked));
        return (Mark::Refused, text);
    };
    let health = settings.text("health_check_port").filter(|port| *port != "0");
    let metrics = match settings.is_empty("prometheus_server") {
        true => None,
        false => settings.text("prometheus_server").unwrap_or(METRICS).rsplit(':').next(),
    };
    // Where nothing listens they are on loopback all the same.
    let alone = health.is_none() && metrics.is_none() && port == METRICS.trim_start_matches(':');
    let is_there = [health, metrics].contains(&Some(port)) || alone;
    match path {
        "/healthz" | "/readyz" if is_there => (Mark::Same, format!("{path} is answered there")),
        "/healthz" | "/readyz" => (
            Mark::Refused,
            format!("nothing answers at {}: set health_check_port to it", Quoted::of(port)),
        ),
        "/metrics" if metrics == Some(port) => (Mark::Same, format!("{path} is answered there")),
        _ => (
            Mark::Refused,
            format!(
                "{} is not answered there; accepted are /healthz and /readyz",
                Quoted::of(path)
            ),
        ),
    }
}

/// The number of a port that is asked, by number or by a name of the container's.
fn port_of<'n>(container: &'n Node, asked: &'n str) -> Option<&'n str> {
    if asked.bytes().all(|digit| digit.is_ascii_digit()) {
        return Some(asked);
    }
    let ports = container.get("ports").map(Node::items).unwrap_or_default();
    let named = ports.iter().find(|port| port.get("name").and_then(Node::text) == Some(asked));
    named.and_then(|port| port.get("containerPort")).and_then(Node::text)
}

/// Whether a kubeconfig is there for it, and says so of its mount.
pub(super) fn kubeconfig(
    sheet: &mut Sheet,
    spec: &Node,
    container: &Node,
    settings: &Settings,
) -> bool {
    let wanted = settings.text("k8s_config_file").unwrap_or(ADMIN);
    let mounts = container.get("volumeMounts").map(Node::items).unwrap_or_default();
    let covers = |mount: &&Node| {
        let path = mount.get("mountPath").and_then(Node::text).unwrap_or_default();
        wanted == path || wanted.starts_with(&format!("{}/", path.trim_end_matches('/')))
    };
    let Some(mount) = mounts.iter().find(covers) else { return false };
    let text = match settings.switch("cp_enable") == Some(true) && mount_is(mount, wanted) {
        true => format!(
            "the kubeconfig, {wanted}: its user's rights count; mount its folder instead, and what kubeadm writes later is seen, \
             and super-admin.conf used while this one has no rights yet"
        ),
        false => format!("the kubeconfig, {wanted}: its user's rights count"),
    };
    sheet.node(mount, Mark::Same, text);
    let name = mount.get("name").and_then(Node::text);
    let volumes = spec.get("volumes").map(Node::items).unwrap_or_default();
    let volume = volumes.iter().find(|volume| volume.get("name").and_then(Node::text) == name);
    if let Some(volume) = volume {
        let (mark, text) = match settings.switch("cp_enable") == Some(true) {
            true => on_node(volume),
            false => (Mark::Same, "the kubeconfig on the node"),
        };
        sheet.node(volume, mark, text);
    }
    true
}

/// What it means where kubeadm writes its files while the pod runs already, or has not run yet.
fn on_node(volume: &Node) -> (Mark, &'static str) {
    let of = |key: &str| volume.at(&["hostPath", key]).and_then(Node::text).unwrap_or_default();
    let is_initial = of("path").ends_with("/super-admin.conf");
    match of("type") {
        "FileOrCreate" => (
            Mark::Refused,
            "the kubeconfig on the node: FileOrCreate leaves an empty file where there is none yet, which kubeadm then finds; mount \
             the folder /etc/kubernetes, of type Directory",
        ),
        _ if is_initial => (
            Mark::Better,
            "the kubeconfig on the node: the first node alone has super-admin.conf; with the folder /etc/kubernetes mounted, and \
             admin.conf for k8s_config_file, it is used by itself while that has no rights yet",
        ),
        _ => (Mark::Same, "the kubeconfig on the node"),
    }
}

/// Whether this is an address of the control plane, as the settings have it.
fn is_of_control_plane(host: &str, settings: &Settings) -> bool {
    let own = settings.first(&["address", "vip_address"]).and_then(|name| settings.text(name));
    let mut own = own.unwrap_or_default().split(',').map(str::trim);
    settings.switch("cp_enable") == Some(true) && own.any(|own| own == host)
}

/// Whether a mount is of this very file.
fn mount_is(mount: &Node, file: &str) -> bool {
    mount.get("mountPath").and_then(Node::text) == Some(file)
}
