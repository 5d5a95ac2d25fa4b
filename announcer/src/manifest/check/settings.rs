//! What the settings of a container mean: its arguments and its environment.

use std::collections::BTreeMap;

use berth_api::Quoted;

use super::sheet::{Mark, Sheet};
use crate::config::{Coming, Config, Kind, Settings, Variable, Verdict, find, find_flag};
use crate::manifest::read::Node;

/// What is more here than it is there.
const BETTER: &[&str] = &[
    "vip_allow_interface_not_up",
    "vip_loseleadership",
    "vip_loseleadership_timeout_seconds",
    "vip_singlenode",
    "vip_startleader",
];

/// What is, or may have in it, a password.
const SECRET: &[&str] = &["bgp_peerpass", "bgp_peers", "metalKey"];

/// Files that are read where the announcer runs.
const FILES: [&str; 4] = ["k8s_config_file", "config_file", "berth_members", "berth_key_file"];

/// A setting where it stands.
struct Given<'n> {
    variable: &'static Variable,
    /// Its value, if the file says it.
    value: Option<String>,
    /// Where.
    nodes: Vec<&'n Node>,
    is_flag: bool,
    /// Whether the API server takes it: only a text is the value of a variable.
    is_text: bool,
}

/// Says what each argument and each variable of a container means, and gives the settings. `config_map` finds what
/// `envFrom` names.
pub(super) fn read<'n>(
    sheet: &mut Sheet,
    container: &'n Node,
    config_map: impl Fn(&str) -> Option<&'n Node>,
) -> Settings {
    let mut given = Vec::new();
    for key in ["command", "args"] {
        if let Some(list) = container.get(key) {
            arguments(sheet, list, &mut given);
        }
    }
    for entry in container.get("env").map(Node::items).unwrap_or_default() {
        environment(sheet, entry, &mut given);
    }
    for entry in container.get("envFrom").map(Node::items).unwrap_or_default() {
        all_of(sheet, entry, &config_map, &mut given);
    }
    let value = |given: &Given| given.value.clone().unwrap_or_default();
    let (flags, variables): (Vec<_>, Vec<_>) = given.iter().partition(|given| given.is_flag);
    let settings = Settings::gather(
        variables.iter().map(|given| (given.variable.name.to_owned(), value(given))),
        flags.iter().map(|given| (given.variable.name, value(given))),
    );
    let problems = problems(&settings);
    for one in &given {
        let name = one.variable.name;
        let twice = |other: &&Given| {
            other.variable.name == name && other.is_flag != one.is_flag && other.value != one.value
        };
        let (mark, text) = match given.iter().find(twice) {
            Some(_) => {
                let text =
                    "given twice: kube-vip goes by the variable, Berth by the flag; take one out";
                (Mark::Refused, text.to_owned())
            }
            None if !one.is_text => {
                let value = one.value.as_deref().unwrap_or_default();
                let text = format!("Kubernetes takes a text alone: write \"{value}\" in quotes");
                (Mark::Refused, text)
            }
            None => judge(&settings, &problems, one),
        };
        let shown = match &one.value {
            Some(value) if SECRET.contains(&name) && !value.is_empty() => {
                format!("{name} (not shown)")
            }
            Some(value) => format!("{name}={}", Quoted::of(value)),
            None => name.to_owned(),
        };
        let (first, last) = (
            one.nodes.iter().map(|node| node.first).min(),
            one.nodes.iter().map(|node| node.last).max(),
        );
        let piece = Node::lines(first.unwrap_or(1), last.unwrap_or(1));
        sheet.node(&piece, mark, format!("{shown}: {text}"));
    }
    settings
}

/// What is wrong with each, by its name.
pub(super) fn problems(settings: &Settings) -> BTreeMap<String, String> {
    let here = settings.clone().without(&FILES);
    let found = match Config::parse(&here, "node") {
        Ok(config) => config.flaws.into_iter().map(|flaw| flaw.problem).collect(),
        Err(problems) => problems,
    };
    // Another way of announcing, and the control plane alone, are told of by themselves; and files are not here.
    let is_told = |name: &str| match name {
        "vip_arp" => settings.switch("vip_arp").is_some() && settings.announces_elsewhere(),
        "svc_enable" => {
            settings.switch("cp_enable") == Some(true) || settings.text("berth_members").is_some()
        }
        _ => false,
    };
    let kept = found.into_iter().filter(|problem| !is_told(&problem.name));
    kept.map(|problem| (problem.name, problem.accepted)).collect()
}

fn judge(
    settings: &Settings,
    problems: &BTreeMap<String, String>,
    given: &Given<'_>,
) -> (Mark, String) {
    let variable = given.variable;
    let what = variable.help_and_default().0;
    if let Some(problem) = problems.get(variable.name).filter(|_| given.value.is_some()) {
        let waits = matches!(variable.verdict, Verdict::NotYet(_)) && settings.asks(variable);
        return (if waits { Mark::NotYet } else { Mark::Refused }, problem.clone());
    }
    let unset = given.value.as_deref().is_some_and(|value| value.trim().is_empty());
    let of = |coming: Coming| match variable.with {
        "" => format!("{what}; it comes with {}", coming.name()),
        with => format!("{what}; counts with {with}, which comes with {}", coming.name()),
    };
    match variable.verdict {
        _ if unset => (Mark::Same, format!("empty: {what}")),
        Verdict::ActedOn if settings.switch(variable.name) == Some(false) && given.value.is_some() => {
            (Mark::Same, format!("off: {what}"))
        }
        Verdict::ActedOn => (Mark::Same, what.to_owned()),
        Verdict::Met if is_wide(given) => (
            Mark::Refused,
            "addresses are bound as /32 and /128 whatever it says; take it out, and see that each node has an address of its own with that subnet".to_owned(),
        ),
        Verdict::Met if BETTER.contains(&variable.name) => (Mark::Better, what.to_owned()),
        Verdict::Met => (Mark::Same, what.to_owned()),
        // Asked for by Services, not by a setting.
        Verdict::NotYet(coming) if variable.with.contains('/') => (Mark::NotYet, of(coming)),
        Verdict::NotYet(coming) if !variable.with.is_empty() && settings.counts(variable) => {
            (Mark::NotYet, of(coming))
        }
        Verdict::Refused(instead) if !variable.with.is_empty() && settings.counts(variable) => {
            (Mark::Refused, format!("counts with {}, which is refused: {instead}", variable.with))
        }
        Verdict::NotYet(_) | Verdict::Refused(_) if !variable.with.is_empty() => {
            (Mark::Same, format!("counts with {} alone, which is not asked for", variable.with))
        }
        Verdict::NotYet(_) | Verdict::Refused(_) if variable.kind == Kind::Switch => {
            (Mark::Same, format!("off, as it is here: {what}"))
        }
        Verdict::NotYet(coming) if given.value.is_none() => (Mark::NotYet, of(coming)),
        Verdict::Refused(instead) if given.value.is_none() => (Mark::Refused, instead.to_owned()),
        Verdict::NotYet(_) | Verdict::Refused(_) => (Mark::Same, format!("as without it: {what}")),
    }
}

/// Whether it asks for addresses with a subnet.
fn is_wide(given: &Given<'_>) -> bool {
    let lengths = given.value.as_deref().unwrap_or_default();
    let is_one =
        |length: &str| matches!(length.trim().trim_start_matches('/'), "" | "32" | "128" | "auto");
    matches!(given.variable.name, "vip_subnet" | "vip_cidr") && !lengths.split(',').all(is_one)
}

fn environment<'n>(sheet: &mut Sheet, entry: &'n Node, given: &mut Vec<Given<'n>>) {
    let name = entry.get("name").and_then(Node::text).unwrap_or_default();
    let value = entry.get("value").map(|value| value.text().unwrap_or_default().to_owned());
    let value = value.or_else(|| entry.get("valueFrom").is_none().then(String::new));
    match find(name) {
        Some(variable) => {
            let is_text = !entry.get("value").is_some_and(Node::is_no_text);
            given.push(Given { variable, value, nodes: vec![entry], is_flag: false, is_text });
        }
        None => sheet.node(
            entry,
            Mark::Same,
            format!("{name}: no setting of kube-vip or of Berth; neither goes by it"),
        ),
    }
}

/// What a ConfigMap gives as variables: its lines are judged where they stand, if they are in this file.
fn all_of<'n>(
    sheet: &mut Sheet,
    entry: &'n Node,
    config_map: impl Fn(&str) -> Option<&'n Node>,
    given: &mut Vec<Given<'n>>,
) {
    let name = entry.at(&["configMapRef", "name"]).and_then(Node::text);
    match name.and_then(&config_map) {
        Some(map) => {
            let data = map.get("data").map(Node::entries).unwrap_or_default();
            for (key, value) in data {
                let Some(variable) = key.text().and_then(find) else { continue };
                let is_text = !value.is_no_text();
                let value = value.text().unwrap_or_default().to_owned();
                let nodes = vec![key];
                given.push(Given { variable, value: Some(value), nodes, is_flag: false, is_text });
            }
            sheet.node(entry, Mark::Same, "settings from a ConfigMap of this file, each judged at its line");
        }
        None => sheet.node(entry, Mark::Same, "settings from an object that is not in this file: put it in, and they are judged as well"),
    }
}

/// The arguments: a flag and its value may be one of them or two.
fn arguments<'n>(sheet: &mut Sheet, list: &'n Node, given: &mut Vec<Given<'n>>) {
    let mut items = list.items().iter().peekable();
    while let Some(item) = items.next() {
        let text = item.text().unwrap_or_default();
        let Some(flag) = text.strip_prefix('-').map(|flag| flag.trim_start_matches('-')) else {
            word(sheet, item, text);
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
            let text =
                format!("{text}: no flag of kube-vip or of Berth, which ends with it; take it out");
            sheet.node(item, Mark::Refused, text);
            continue;
        };
        let mut nodes = vec![item];
        let value = match (value, variable.kind) {
            (Some(value), _) => value.to_owned(),
            (None, Kind::Switch) => "true".to_owned(),
            (None, _) => match items.next() {
                Some(next) => {
                    nodes.push(next);
                    next.text().unwrap_or_default().to_owned()
                }
                None => String::new(),
            },
        };
        let is_text = !nodes.iter().any(|node| node.is_no_text());
        given.push(Given { variable, value: Some(value), nodes, is_flag: true, is_text });
    }
}

fn word(sheet: &mut Sheet, item: &Node, text: &str) {
    match text.rsplit('/').next().unwrap_or_default() {
        "manager" => sheet.node(item, Mark::Same, "manager"),
        "kube-vip" => sheet.node(
            item,
            Mark::Refused,
            format!("{text}: the program of kube-vip's image; take the command out, Berth's image has its own"),
        ),
        "berth-announcer" => sheet.node(item, Mark::Same, "the program"),
        _ => sheet.node(
            item,
            Mark::Refused,
            format!("{text}: no command of Berth; accepted is manager"),
        ),
    }
}
