//! What a container is given: its arguments and its environment, each where it stands.

use berth_api::Quoted;

use super::sheet::{Mark, Sheet};
use crate::config::{Kind, LOG_FORMAT, Variable, find, find_flag};
use crate::manifest::read::{Is, Node};

/// A setting where it stands.
pub(super) struct Given<'n> {
    pub(super) variable: &'static Variable,
    /// Its value, if the file says it.
    pub(super) value: Option<String>,
    /// Where.
    pub(super) nodes: Vec<&'n Node>,
    pub(super) is_flag: bool,
    /// Why neither Kubernetes nor a program takes it, whatever the setting is.
    pub(super) unfit: Option<String>,
    /// Whether its value stands in an object that is not in the file.
    pub(super) is_elsewhere: bool,
}

/// All of it.
#[derive(Default)]
pub(super) struct All<'n> {
    /// In the order in which the last one counts.
    pub(super) list: Vec<Given<'n>>,
    /// Whether there is more, in objects that are not in the file.
    pub(super) is_open: bool,
}

/// Where the value of a variable stands.
struct Value {
    text: Option<String>,
    unfit: Option<String>,
    is_elsewhere: bool,
}

/// What a container is given. Says of what is no setting what it is. `config_map` finds what `envFrom` and `valueFrom` name.
pub(super) fn all<'n>(
    sheet: &mut Sheet,
    container: &'n Node,
    config_map: impl Fn(&str) -> Option<&'n Node>,
) -> All<'n> {
    let mut all = All::default();
    for key in ["command", "args"] {
        if let Some(list) = list(sheet, container, key) {
            arguments(sheet, list, key == "command", &mut all.list);
        }
    }
    // What stands in `env` counts over what comes from elsewhere.
    for entry in list(sheet, container, "envFrom").map(Node::items).unwrap_or_default() {
        whole(sheet, entry, &config_map, &mut all);
    }
    for entry in list(sheet, container, "env").map(Node::items).unwrap_or_default() {
        variable(sheet, entry, &config_map, &mut all.list);
    }
    all
}

/// A field that has to be a list, if it is there.
fn list<'n>(sheet: &mut Sheet, container: &'n Node, key: &str) -> Option<&'n Node> {
    let entry = container.entry(key)?;
    match &entry.1.is {
        Is::List(_) => Some(&entry.1),
        Is::Nothing => None,
        Is::Map(_) | Is::Text(_) => {
            sheet.entry(entry, Mark::Refused, format!("{key}: accepted is a list"));
            None
        }
    }
}

fn variable<'n>(
    sheet: &mut Sheet,
    entry: &'n Node,
    config_map: &impl Fn(&str) -> Option<&'n Node>,
    given: &mut Vec<Given<'n>>,
) {
    let name = entry.get("name").and_then(Node::text).unwrap_or_default();
    let Some(variable) = find(name) else {
        let (mark, text) = other(name);
        sheet.node(entry, mark, text);
        return;
    };
    let Value { text, unfit, is_elsewhere } = match (entry.get("value"), entry.get("valueFrom")) {
        (Some(value), _) => literal(value),
        (None, Some(from)) => referred(from, config_map),
        (None, None) => Value { text: Some(String::new()), unfit: None, is_elsewhere: false },
    };
    let nodes = vec![entry];
    given.push(Given { variable, value: text, nodes, is_flag: false, unfit, is_elsewhere });
}

fn literal(value: &Node) -> Value {
    let (text, unfit) = match &value.is {
        Is::Text(text) => (Some(text.clone()), value.is_no_text().then(unquoted)),
        Is::Nothing => (Some(String::new()), None),
        Is::Map(_) | Is::List(_) => {
            let unfit = "Kubernetes takes a text alone, and this is none; a template has to be rendered first";
            (None, Some(unfit.to_owned()))
        }
    };
    Value { text, unfit, is_elsewhere: false }
}

/// Without the value, which may be a password.
fn unquoted() -> String {
    "Kubernetes takes a text alone: write it in quotes".to_owned()
}

/// What another object says, or the pod itself, as the name of its node.
fn referred<'n>(from: &Node, config_map: &impl Fn(&str) -> Option<&'n Node>) -> Value {
    let Some(reference) = from.get("configMapKeyRef") else {
        let is_elsewhere = from.get("secretKeyRef").is_some();
        return Value { text: None, unfit: None, is_elsewhere };
    };
    let text = |key: &str| reference.get(key).and_then(Node::text).unwrap_or_default();
    let (name, key) = (text("name"), text("key"));
    match config_map(name).map(|map| map.at(&["data", key])) {
        None => Value { text: None, unfit: None, is_elsewhere: true },
        Some(Some(value)) => literal(value),
        Some(None) if text("optional") == "true" => {
            Value { text: Some(String::new()), unfit: None, is_elsewhere: false }
        }
        Some(None) => {
            let unfit = format!(
                "ConfigMap {} has no key {}, without which Kubernetes starts no container",
                Quoted::of(name),
                Quoted::of(key)
            );
            Value { text: None, unfit: Some(unfit), is_elsewhere: false }
        }
    }
}

/// What a variable is that is no setting.
fn other(name: &str) -> (Mark, String) {
    let (mark, text) = match name {
        "KUBERNETES_SERVICE_HOST" | "KUBERNETES_SERVICE_PORT" => {
            (Mark::Same, "where the account of the pod asks for the API server")
        }
        "KUBECONFIG" => (Mark::Better, "Berth goes by it where k8s_config_file says nothing"),
        "RUST_LOG" | LOG_FORMAT => (Mark::Better, "Berth's own, of its log"),
        "PACKET_AUTH_TOKEN" => (Mark::Same, "counts with vip_packet alone, which is refused"),
        _ => (Mark::Same, "no setting of Berth, nor of kube-vip 1.2"),
    };
    let shown = match name.chars().nth(64) {
        Some(_) => Quoted::of(name).to_string(),
        None => name.to_owned(),
    };
    (mark, format!("{shown}: {text}"))
}

/// What a ConfigMap gives as variables: its lines are judged where they stand, if they are in this file.
fn whole<'n>(
    sheet: &mut Sheet,
    entry: &'n Node,
    config_map: &impl Fn(&str) -> Option<&'n Node>,
    all: &mut All<'n>,
) {
    let prefix = entry.get("prefix").and_then(Node::text).unwrap_or_default();
    let name = entry.at(&["configMapRef", "name"]).and_then(Node::text);
    let Some(map) = name.and_then(config_map) else {
        all.is_open = true;
        let text = match name {
            Some(_) => {
                "settings from an object that is not in this file: put it in, and they are judged as well"
            }
            None => "settings from a Secret, which is not looked into",
        };
        sheet.node(entry, Mark::Same, text);
        return;
    };
    for (key, value) in map.get("data").map(Node::entries).unwrap_or_default() {
        let name = format!("{prefix}{}", key.text().unwrap_or_default());
        let Some(variable) = find(&name) else { continue };
        let Value { text, unfit, is_elsewhere } = literal(value);
        let nodes = vec![key, value];
        all.list.push(Given { variable, value: text, nodes, is_flag: false, unfit, is_elsewhere });
    }
    sheet.node(
        entry,
        Mark::Same,
        "settings from a ConfigMap of this file, each judged at its line",
    );
}

/// The arguments: a flag and its value may be one of them or two.
fn arguments<'n>(sheet: &mut Sheet, list: &'n Node, is_command: bool, given: &mut Vec<Given<'n>>) {
    let first = list.items().first().and_then(Node::text).unwrap_or("manager");
    if is_command && !first.starts_with('-') && !PROGRAMS.contains(&program(first)) {
        let text = format!(
            "{}: Berth's image has no program but its own; accepted is no command, and args that begin with manager",
            Quoted::of(first)
        );
        sheet.node(list, Mark::Refused, text);
        return;
    }
    let mut items = list.items().iter().peekable();
    let mut switch = None;
    while let Some(item) = items.next() {
        let text = item.text().unwrap_or_default();
        let before = switch.take();
        let Some(flag) = text.strip_prefix('-').map(|flag| flag.trim_start_matches('-')) else {
            match before.filter(|_| ["true", "false"].contains(&text)) {
                Some(flag) => sheet.node(item, Mark::Refused, format!("{text}: kube-vip passes over it, for a switch takes no word after it; write --{flag}={text}")),
                None => word(sheet, item, text),
            }
            continue;
        };
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (flag, None),
        };
        let flag = match flag {
            "n" => "namespace",
            "c" => "configMap",
            flag => flag,
        };
        let Some(variable) = find_flag(flag) else {
            let text = format!(
                "{}: no flag of kube-vip or of Berth, which ends with it; take it out",
                Quoted::of(text)
            );
            sheet.node(item, Mark::Refused, text);
            continue;
        };
        let mut nodes = vec![item];
        let mut unfit = None;
        let value = match (value, variable.kind) {
            (Some(value), _) => value.to_owned(),
            (None, Kind::Switch) => {
                switch = Some(flag);
                "true".to_owned()
            }
            (None, _) => match items.next() {
                Some(next) => {
                    nodes.push(next);
                    next.text().unwrap_or_default().to_owned()
                }
                None => {
                    unfit = Some("its value is missing".to_owned());
                    String::new()
                }
            },
        };
        unfit = unfit.or_else(|| nodes.iter().any(|node| node.is_no_text()).then(unquoted));
        let value = Some(value);
        given.push(Given { variable, value, nodes, is_flag: true, unfit, is_elsewhere: false });
    }
}

/// What runs: kube-vip's image and Berth's have one program.
const PROGRAMS: [&str; 3] = ["kube-vip", "berth-announcer", "manager"];

fn program(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or_default()
}

fn word(sheet: &mut Sheet, item: &Node, text: &str) {
    let shown = Quoted::of(text);
    match program(text) {
        "manager" => sheet.node(item, Mark::Same, "manager"),
        "kube-vip" => sheet.node(
            item,
            Mark::Refused,
            format!("{shown}: the program of kube-vip's image; take the command out, Berth's image has its own"),
        ),
        "berth-announcer" => sheet.node(item, Mark::Same, "the program"),
        _ => sheet.node(
            item,
            Mark::Refused,
            format!("{shown}: no command of Berth; accepted is manager"),
        ),
    }
}
