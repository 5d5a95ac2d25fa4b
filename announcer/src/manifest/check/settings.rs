//! What the settings of a container mean.

use std::collections::BTreeMap;

use berth_api::Quoted;

use super::given::{self, All, Given};
use super::sheet::{Mark, Sheet};
use crate::config::{Coming, Config, Kind, SECRET, Settings, Variable, Verdict, beside_an_api};
use crate::manifest::read::Node;

/// What is more here than it is there.
const BETTER: &[&str] = &[
    "vip_allow_interface_not_up",
    "vip_loseleadership",
    "vip_loseleadership_timeout_seconds",
    "vip_singlenode",
    "vip_startleader",
];

/// Files that are read where the announcer runs.
const FILES: [&str; 5] = [
    "k8s_config_file",
    "config_file",
    "berth_members",
    "berth_key_file",
    "control_plane_health_check_ca_path",
];

/// The address of the control plane, and its port, which Berth knows without a cluster alone.
const OF_CONTROL_PLANE: [&str; 3] = ["address", "vip_address", "port"];

/// What the file says of the settings.
pub(super) struct Read {
    /// Those whose values it has.
    pub(super) settings: Settings,
    /// Those that are set, and whose values are in objects that are not in the file.
    unseen: Vec<&'static str>,
    /// Whether there may be more, in such objects.
    is_open: bool,
}

impl Read {
    /// Whether nobody sets it.
    pub(super) fn leaves_out(&self, name: &str) -> bool {
        !self.is_open && self.settings.text(name).is_none() && !self.unseen.contains(&name)
    }
}

/// Says what each argument and each variable of a container means, and gives the settings. `config_map` finds what
/// `envFrom` and `valueFrom` name.
pub(super) fn read<'n>(
    sheet: &mut Sheet,
    container: &'n Node,
    config_map: impl Fn(&str) -> Option<&'n Node>,
) -> Read {
    let All { list: given, is_open } = given::all(sheet, container, config_map);
    let value = |given: &Given<'_>| given.value.clone().unwrap_or_default();
    let (flags, variables): (Vec<_>, Vec<_>) = given.iter().partition(|given| given.is_flag);
    let settings = Settings::gather(
        variables.iter().map(|given| (given.variable.name.to_owned(), value(given))),
        flags.iter().map(|given| (given.variable.name, value(given))),
    );
    let problems = problems(&settings);
    for (index, one) in given.iter().enumerate() {
        let (mark, text) =
            told(one, &given, index).unwrap_or_else(|| judge(&settings, &problems, one));
        let name = one.variable.name;
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
        let unseen = if one.is_elsewhere { "; its value is not in this file" } else { "" };
        sheet.node(&piece, mark, format!("{shown}: {text}{unseen}"));
    }
    let unseen = given.iter().filter(|given| given.value.is_none());
    let unseen = unseen.map(|given| given.variable.name).collect();
    Read { settings, unseen, is_open }
}

/// What is said of a setting whatever its value is.
fn told(one: &Given<'_>, given: &[Given<'_>], index: usize) -> Option<(Mark, String)> {
    let same = |other: &&Given<'_>| other.variable.name == one.variable.name;
    let others = || given.iter().filter(same);
    if others().any(|other| other.is_flag != one.is_flag && other.value != one.value) {
        let text = "given twice: kube-vip goes by the variable, Berth by the flag; take one out";
        return Some((Mark::Refused, text.to_owned()));
    }
    if one.is_flag && others().filter(|other| other.is_flag).count() > 1 {
        let text = "given twice: kube-vip goes by the last, Berth ends; take one out";
        return Some((Mark::Refused, text.to_owned()));
    }
    if let Some(unfit) = &one.unfit {
        return Some((Mark::Refused, unfit.clone()));
    }
    let again = given[index + 1..].iter().any(|other| same(&other) && !other.is_flag);
    (again && !one.is_flag).then(|| {
        (Mark::Better, "given once more, and that counts: this one may be taken out".to_owned())
    })
}

/// What is wrong with each, by its name.
pub(super) fn problems(settings: &Settings) -> BTreeMap<String, String> {
    let here = settings.clone().without(&FILES);
    let found = match Config::parse(&here, "node") {
        Ok(config) => config.flaws.into_iter().map(|flaw| flaw.problem).collect::<Vec<_>>(),
        Err(problems) => problems,
    };
    // Another way of announcing, and the control plane alone, are told of by themselves; and files are not here.
    let is_told = |name: &str| match name {
        "vip_arp" => settings.switch("vip_arp") == Some(false) && settings.announces_elsewhere(),
        "svc_enable" if settings.switch("svc_enable").is_some() => {
            settings.switch("cp_enable") == Some(true) || settings.text("berth_members").is_some()
        }
        _ => false,
    };
    let beside = settings.text("berth_members").map(|_| beside_an_api(settings));
    let found = found.into_iter().chain(beside.into_iter().flatten());
    let kept = found.filter(|problem| !is_told(&problem.name));
    kept.map(|problem| (problem.name, problem.accepted)).collect()
}

fn judge(
    settings: &Settings,
    problems: &BTreeMap<String, String>,
    given: &Given<'_>,
) -> (Mark, String) {
    let variable = given.variable;
    let what = variable.help_and_default().0;
    if given.value.as_deref().is_some_and(|value| value.contains("${")) {
        let text =
            "not filled in yet: check what fills it in, as clusterctl generate cluster prints it";
        return (Mark::Refused, text.to_owned());
    }
    if let Some(problem) = problems.get(variable.name).filter(|_| given.value.is_some()) {
        let waits = matches!(variable.verdict, Verdict::NotYet(_)) && settings.asks(variable);
        return (if waits { Mark::NotYet } else { Mark::Refused }, problem.clone());
    }
    let unset = given.value.as_deref().is_some_and(|value| value.trim().is_empty());
    let of = |coming: Coming| match variable.with {
        "" => format!("{what}; it comes with {}", coming.name()),
        with => format!("{what}; counts with {with}, which comes with {}", coming.name()),
    };
    if !unset && let Some(told) = among_others(settings, variable) {
        return told;
    }
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
        Verdict::NotYet(coming)
            if variable.with.contains('/')
                && (given.value.is_none() || settings.asks(variable)) =>
        {
            (Mark::NotYet, of(coming))
        }
        Verdict::NotYet(coming) if !variable.with.is_empty() && settings.counts(variable) => {
            (Mark::NotYet, of(coming))
        }
        Verdict::Refused(instead) if !variable.with.is_empty() && settings.counts(variable) => {
            (Mark::Refused, format!("counts with {}, which is refused: {instead}", variable.with))
        }
        Verdict::NotYet(_) | Verdict::Refused(_) if !variable.with.is_empty() => {
            (Mark::Same, format!("counts with {} alone, which is not asked for", variable.with))
        }
        Verdict::NotYet(_) | Verdict::Refused(_)
            if variable.kind == Kind::Switch && given.value.is_some() =>
        {
            (Mark::Same, format!("off, as it is here: {what}"))
        }
        Verdict::NotYet(coming) if given.value.is_none() => (Mark::NotYet, of(coming)),
        Verdict::Refused(instead) if given.value.is_none() => (Mark::Refused, instead.to_owned()),
        Verdict::NotYet(_) | Verdict::Refused(_) => (Mark::Same, format!("as without it: {what}")),
    }
}

/// What settings mean that mean something else beside others.
fn among_others(settings: &Settings, variable: &Variable) -> Option<(Mark, String)> {
    let is = |name: &str| settings.switch(name) == Some(true);
    let name = variable.name;
    let is_own = is("cp_enable") || settings.text("berth_members").is_some();
    if OF_CONTROL_PLANE.contains(&name) && !is_own {
        let what = match name {
            "port" => "port of the control plane",
            _ => "address of the control plane",
        };
        let text = match is("enable_node_labeling") && name != "port" {
            true => {
                "the node that answers for it has it in kube-vip.io/has-ip (enable_node_labeling)"
            }
            false => "counts with cp_enable alone, which is not asked for",
        };
        return Some((Mark::Same, format!("{what}; {text}")));
    }
    let is_idle = name == "svc_leasename" || name == "vip_leaderelection" && is(name);
    (is_idle && is("svc_election") && settings.text("berth_election").is_none()).then(|| {
        let text = match name {
            "svc_leasename" => "one Lease for all Services, which svc_election has for each",
            _ => "of Services svc_election decides; of the control plane, with cp_enable alone",
        };
        (Mark::Same, text.to_owned())
    })
}

/// Whether it asks for addresses with a subnet.
fn is_wide(given: &Given<'_>) -> bool {
    let lengths = given.value.as_deref().unwrap_or_default();
    let is_one =
        |length: &str| matches!(length.trim().trim_start_matches('/'), "" | "32" | "128" | "auto");
    matches!(given.variable.name, "vip_subnet" | "vip_cidr") && !lengths.split(',').all(is_one)
}
