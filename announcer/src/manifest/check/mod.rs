//! `berth-announcer manifest --check`: what each line of a manifest of kube-vip means here.
//!
//! | module | owns |
//! |---|---|
//! | `sheet` | what is said of lines, and how it reads |
//! | `given` | arguments and variables of the container, where they stand |
//! | `settings` | what they mean |
//! | `pod` | the pod's other fields |
//! | `grants` | what roles give, against what is needed |

mod given;
mod grants;
mod pod;
mod settings;
mod sheet;

use self::grants::{kind, name, namespace};
use self::sheet::Mark;
pub(super) use self::sheet::{Report, Row, Sheet};
use super::modes::Modes;
use super::read::{Node, documents};
use super::rights::{Right, needed};
use crate::config::Settings;

/// Of lines that no program reads that runs in the pod.
const KUBERNETES: &str = "Kubernetes goes by it, whatever runs there";

/// How many objects are named of a file that has nothing to look at.
const SHOWN: usize = 3;

/// An announcer of the file.
struct Announcer<'n> {
    object: &'n Node,
    /// What is said of lines of other objects, such as of a ConfigMap with its settings.
    elsewhere: Vec<Row>,
    needed: Vec<Right>,
    roles: Vec<grants::Bound<'n>>,
}

impl Report {
    /// What the text means.
    ///
    /// # Errors
    /// When it is no YAML, or nothing in it is kube-vip's.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let documents = documents(text).map_err(|why| match text.contains("{{") {
            true => format!("{why}; a template has to be rendered first, as by `helm template`"),
            false => why,
        })?;
        // As cluster-api and Talos have manifests: a text in an object of theirs.
        let written: Vec<(&Node, Vec<Node>)> = documents.iter().flat_map(Node::written).collect();
        let (mut objects, mut wrappers): (Vec<&Node>, Vec<&Node>) = (Vec::new(), Vec::new());
        for document in documents.iter().chain(written.iter().flat_map(|(_, found)| found)) {
            match (kind(document).ends_with("List"), document.get("items")) {
                (true, Some(items)) => {
                    wrappers.push(document);
                    objects.extend(items.items());
                }
                _ => objects.push(document),
            }
        }
        let mut report = Self { sheets: Vec::new(), notes: Vec::new() };
        let announcers: Vec<(Sheet, Announcer<'_>)> =
            objects.iter().filter_map(|object| announcer(object, &objects)).collect();
        let has_roles = objects.iter().any(|object| is_role(object) && is_kube_vips(object));
        if announcers.is_empty() && !has_roles {
            return Err(nothing(&objects));
        }
        if announcers.is_empty() {
            report.notes.push("Note: no DaemonSet or Pod is in the file: its rights are judged as those of an announcer without settings".to_owned());
        }
        for object in &objects {
            let own = announcers.iter().find(|(_, found)| std::ptr::eq(found.object, *object));
            let sheet = match own {
                Some((sheet, found)) => {
                    report.notes.extend(noted(found));
                    sheet.clone()
                }
                None => other(object, &announcers, &written),
            };
            report.sheets.push(sheet);
        }
        for wrapper in wrappers {
            // What is in it has its own sheets.
            let outside: Vec<_> =
                wrapper.entries().iter().filter(|(key, _)| key.text() != Some("items")).collect();
            let mut sheet = Sheet::new(title(wrapper));
            outside.iter().for_each(|entry| sheet.entry(entry, Mark::Same, KUBERNETES));
            if let Some((key, _)) = wrapper.entry("items") {
                sheet.node(key, Mark::Same, KUBERNETES);
            }
            sheet.rows.sort_by_key(|row| row.first);
            report.sheets.push(sheet);
        }
        Ok(report)
    }
}

fn title(object: &Node) -> String {
    let place = namespace(object).map(|namespace| format!("{namespace}/")).unwrap_or_default();
    match kind(object) {
        "" => "No object of Kubernetes".to_owned(),
        kind => format!("{kind} {place}{}", name(object)).trim_end().to_owned(),
    }
}

/// Why a file is of no use, and what it has.
fn nothing(objects: &[&Node]) -> String {
    let named = |object: &&Node| match kind(object) {
        "" => "what is no object of Kubernetes".to_owned(),
        _ => title(object),
    };
    let mut titles: Vec<String> = objects.iter().map(named).collect();
    titles.dedup();
    let more = match titles.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    titles.truncate(SHOWN);
    let has = match titles.is_empty() {
        true => "nothing at all".to_owned(),
        false => titles.join(", ") + &more,
    };
    let is_chart = |object: &&Node| {
        kind(object).starts_with("Helm") || kind(object).is_empty() && object.get("env").is_some()
    };
    let hint = match objects.iter().any(is_chart) {
        true => "; of values of a chart look at what `helm template` makes of them",
        false => "",
    };
    format!("nothing in it is an announcer of kube-vip, or a role of one: it has {has}{hint}")
        .replace(char::is_control, "?")
}

fn is_role(object: &Node) -> bool {
    matches!(kind(object), "Role" | "ClusterRole")
}

/// By its name: where nothing else says whose it is.
fn is_kube_vips(object: &Node) -> bool {
    let name = name(object);
    let is_other = name.contains("cloud");
    !is_other && (name.contains("kube-vip") || name.contains("berth-announcer"))
}

/// The spec of the pods of a workload.
fn pod_spec(object: &Node) -> Option<&Node> {
    match kind(object) {
        "Pod" => object.get("spec"),
        "DaemonSet" | "Deployment" | "StatefulSet" | "ReplicaSet" => {
            object.at(&["spec", "template", "spec"])
        }
        _ => None,
    }
}

/// Whether it runs kube-vip's cloud provider.
fn is_allocator(object: &Node) -> bool {
    let containers = pod_spec(object).and_then(|spec| spec.get("containers"));
    containers.map(Node::items).unwrap_or_default().iter().any(|container| {
        let image = container.get("image").and_then(Node::text).unwrap_or_default();
        image.contains("kube-vip-cloud-provider")
    })
}

/// An announcer, if the object is one, with what is said of it.
fn announcer<'n>(object: &'n Node, objects: &[&'n Node]) -> Option<(Sheet, Announcer<'n>)> {
    let spec = pod_spec(object)?;
    let containers = spec.get("containers").map(Node::items).unwrap_or_default();
    let container = containers.iter().find(|container| pod::is_announcer(container))?;
    let mut sheet = Sheet::new(title(object));
    let config_map = |wanted: &str| {
        // A pod reads none of another namespace. A file may leave the namespace to whoever applies it.
        let is_beside = |other: &Node| match (namespace(object), namespace(other)) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        let is_it = |other: &&&Node| {
            kind(other) == "ConfigMap" && name(other) == wanted && is_beside(other)
        };
        objects.iter().find(is_it).copied()
    };
    let mut aside = Sheet::new(String::new());
    let read = settings::read(&mut aside, container, config_map);
    let settings = &read.settings;
    let here = |row: &Row| object.first <= row.first && row.last <= object.last;
    let (own, elsewhere): (Vec<_>, Vec<_>) = aside.rows.into_iter().partition(here);
    sheet.rows.extend(own);
    let line = match kind(object) {
        "Pod" => object.entry("spec").map(|(key, _)| key.first),
        _ => object
            .at(&["spec", "template"])
            .and_then(|pod| pod.entry("spec"))
            .map(|(key, _)| key.first),
    };
    let line = line.unwrap_or(object.first);
    pod::spec(&mut sheet, spec, line);
    pod::container(&mut sheet, container, settings);
    unsaid(&mut sheet, &read, container.first);
    let text = |key: &str| spec.get(key).and_then(Node::text);
    let account = text("serviceAccountName").or(text("serviceAccount"));
    let by_file = pod::kubeconfig(&mut sheet, spec, container, settings);
    let modes = Modes::of(settings);
    if kind(object) == "Pod" && account.is_none() && !by_file && modes.cluster {
        let text = "a static pod has no account, and no kubeconfig is mounted where k8s_config_file says: mount /etc/kubernetes/admin.conf";
        sheet.at(line, Mark::Refused, text);
    }
    let home = namespace(object).unwrap_or("kube-system");
    let roles = match by_file {
        true => Vec::new(),
        false => grants::bound(objects, account.unwrap_or("default"), home),
    };
    let needed = match by_file {
        true => Vec::new(),
        false => needed(&modes),
    };
    if !roles.is_empty() {
        let at = spec.entry("serviceAccountName").or(spec.entry("serviceAccount"));
        let at = at.map_or(line, |(key, _)| key.first);
        for (right, verbs) in grants::missing(&roles, &needed) {
            sheet.at(at, Mark::MissingRight, grants::told(right, &verbs));
        }
    }
    Some((sheet.fill(object, KUBERNETES), Announcer { object, elsewhere, needed, roles }))
}

/// What follows from settings that are not there.
fn unsaid(sheet: &mut Sheet, read: &settings::Read, line: usize) {
    let settings = &read.settings;
    if read.leaves_out("vip_arp") && !settings.announces_elsewhere() {
        sheet.at(line, Mark::Better, "vip_arp is not set: kube-vip ends where no way of announcing is named, Berth announces by ARP and neighbour discovery");
    }
    if read.leaves_out("svc_enable") {
        let (mark, text) = match settings.serves_services() {
            true => (
                Mark::Better,
                "svc_enable is not set: kube-vip ends where nothing is to be served, Berth serves Services",
            ),
            false => (Mark::Same, "svc_enable is not set: beside cp_enable no Service is served"),
        };
        sheet.at(line, mark, text);
    }
    let control_plane = settings.switch("cp_enable") == Some(true);
    let is_elected = settings.switch("vip_leaderelection") == Some(true);
    let is_routed = settings.switch("bgp_enable") == Some(true);
    if control_plane && is_elected && is_routed {
        sheet.at(line, Mark::Better, "vip_leaderelection is set: by BGP kube-vip then has one node announce the control plane's address, Berth each whose API server is healthy");
    }
    if control_plane && !is_elected && !is_routed {
        let goes = match settings.text("berth_election") {
            Some("membership") => "Berth's control-plane nodes decide among themselves",
            _ => "Berth goes by its Lease",
        };
        let text = format!(
            "vip_leaderelection is not set: kube-vip then takes the control plane's address on every node; {goes}"
        );
        sheet.at(line, Mark::Better, text);
    }
    if control_plane && settings.text("control_plane_health_check_address").is_none() {
        sheet.at(line, Mark::Better, "no health check is named: kube-vip then keeps the address, or goes on to announce it, where the API server hangs; Berth asks it at /readyz (docs/control-plane.md)");
    }
    if control_plane && !settings.serves_services() && is_met_by_others(settings) {
        sheet.at(line, Mark::Same, "prometheus_server is where an announcer of Services has its metrics, too: where one runs on this node, as that of manifests/ does, set another port here, such as :2122");
    }
    let names_none = ["svc_election", "vip_leaderelection", "berth_election"]
        .iter()
        .all(|name| read.leaves_out(name) || settings.switch(name) == Some(false));
    let is_member = Modes::of(settings).decides == super::modes::Decides::Membership;
    if settings.announces_by_arp() && settings.serves_services() && is_member && names_none {
        sheet.at(line, Mark::Better, "no election is named: kube-vip holds one Lease for all Services, Berth's nodes decide on each address among themselves, within a second (docs/failover.md)");
    }
}

/// Whether metrics are where they are where nothing is said.
fn is_met_by_others(settings: &Settings) -> bool {
    let port = |text: &str| text.rsplit(':').next() == Some("2112");
    !settings.is_empty("prometheus_server") && settings.text("prometheus_server").is_none_or(port)
}

fn noted(announcer: &Announcer<'_>) -> Option<String> {
    (announcer.roles.is_empty() && !announcer.needed.is_empty()).then(|| {
        format!(
            "Note: no role of the account of {} is in the file: check both as one file, and what it may do is judged as well",
            title(announcer.object)
        )
    })
}

/// What is said of an object that is no announcer.
fn other(
    object: &Node,
    announcers: &[(Sheet, Announcer<'_>)],
    written: &[(&Node, Vec<Node>)],
) -> Sheet {
    let mut sheet = Sheet::new(title(object));
    for (text, _) in written {
        if object.first <= text.first && text.last <= object.last {
            let told = "a text with objects of its own, each of which is judged by itself";
            sheet.node(text, Mark::Same, told);
        }
    }
    let bound =
        |found: &Announcer<'_>| found.roles.iter().any(|bound| std::ptr::eq(bound.role, object));
    match kind(object) {
        "Role" | "ClusterRole" => {
            let of: Vec<Right> = announcers
                .iter()
                .filter(|(_, found)| bound(found))
                .flat_map(|(_, found)| found.needed.clone())
                .collect();
            let alone = announcers.is_empty() && is_kube_vips(object);
            if of.is_empty() && !alone {
                return sheet.fill(object, "no right of an announcer of this file: as it is");
            }
            let of = if alone { needed(&Modes::of(&Settings::default())) } else { of };
            grants::rules(&mut sheet, object, &of);
            if alone && kind(object) == "ClusterRole" {
                let line = object.entry("rules").map_or(object.first, |(key, _)| key.first);
                let all = [grants::Bound::everywhere(object)];
                for (right, verbs) in grants::missing(&all, &of) {
                    sheet.at(line, Mark::MissingRight, grants::told(right, &verbs));
                }
            }
            sheet.fill(object, KUBERNETES)
        }
        "ConfigMap" => {
            let here = |row: &&Row| object.first <= row.first && row.last <= object.last;
            let rows = announcers.iter().flat_map(|(_, found)| &found.elsewhere).filter(here);
            sheet.rows.extend(rows.cloned());
            sheet.fill(object, "no setting of an announcer; of pools `berth-ccm check` tells")
        }
        "ServiceAccount" | "ClusterRoleBinding" | "RoleBinding" | "Namespace" | "Secret" => {
            sheet.fill(object, "as it is")
        }
        _ if is_allocator(object) => sheet.fill(
            object,
            "the half that gives addresses: as it is, or berth-ccm in its place (docs/migrating-from-kube-vip-cloud-provider.md)",
        ),
        _ => sheet.fill(object, "nothing of an announcer: as it is"),
    }
}

#[cfg(test)]
mod tests;
