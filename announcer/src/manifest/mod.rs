//! `berth-announcer manifest`: manifests for the settings that are given, as kube-vip's command of this name writes them, and
//! what manifests of kube-vip mean here. Nothing is asked of a cluster, and nothing is changed.
//!
//! | module | owns |
//! |---|---|
//! | `modes` | what settings ask for, as far as rights and pod depend on it |
//! | `rights` | the rights for that, and what is lost without each |
//! | `generate` | Pod, DaemonSet, ServiceAccount, roles |
//! | `kubeadm` | the Pod of control-plane nodes, with what kubeadm is to be given |
//! | `read` | YAML with the line of everything in it |
//! | `check` | what each line of a manifest means |

mod check;
mod generate;
mod kubeadm;
mod modes;
mod read;
mod rights;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Problem, Settings};
use crate::flags;
use check::Report;
use generate::Wish;
use kubeadm::Endpoint;

/// How the program ends; scripts rely on it.
const EXIT_CODES: &str = "Exit code:\n  0  the manifest is printed; with --check: every line is the same or better\n  \
    1  settings are not accepted, and each is named; with --check: something is refused or not built yet\n  \
    2  the arguments are wrong; with --check: the file cannot be read, or has nothing of kube-vip\n  \
    3  with --check: nothing but rights is missing, and each is named";

/// The same for one of them, and what it takes that is not listed.
const PRINTED: &str = "Every flag of kube-vip 1.2 is taken: what is not built yet, or never will be, is told by name.\n\n\
    Exit code:\n  0  the manifest is printed\n  1  settings are not accepted, and each is named\n  2  the arguments are wrong";

/// The command and what it takes.
pub fn command() -> Command {
    let kind = |name: &'static str, about: &'static str| {
        let command = Command::new(name).about(about).after_help(PRINTED);
        let command = command.args(flags::settings()).args(own(name));
        // Of `manager` they are met, and of these they are acted on.
        let shown = |command: Command, flag: &'static str, help: &'static str| {
            command.mut_arg(flag, |flag| flag.hide(false).help(help))
        };
        match name {
            "pod" => shown(
                command,
                "inCluster",
                "with the account of the pod, and no kubeconfig [default: false]",
            ),
            "daemonset" => {
                let help = "with the account of the pod, and no kubeconfig [default: true, without --k8s_config_file]";
                let command = shown(command, "inCluster", help);
                shown(command, "taint", "on control-plane nodes alone [default: false]")
            }
            _ => command,
        }
    };
    Command::new("manifest")
        .about("Prints manifests for the settings given, or says what a manifest of kube-vip means here")
        .after_help(EXIT_CODES)
        .arg_required_else_help(true)
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("check")
                .long("check")
                .value_name("FILE")
                .help("say, line by line, what a manifest of kube-vip means here; `-` is the standard input"),
        )
        .subcommand(kind("pod", "Prints a Pod, such as for /etc/kubernetes/manifests"))
        .subcommand(kind("daemonset", "Prints a DaemonSet"))
        .subcommand(kind(
            "kubeadm",
            "Prints the Pod of all control-plane nodes, and the configuration for kubeadm that goes with it",
        ))
        .subcommand(kind("rbac", "Prints the account and its rights, for what is asked and no more"))
}

/// The rights that an announcer with these settings has use for.
pub fn rights_for(settings: &Settings) -> Vec<berth_runtime::rights::Right> {
    rights::needed(&modes::Modes::of(settings)).iter().map(rights::Right::plain).collect()
}

/// The flag by which an image is named.
pub(crate) fn image_flag() -> Arg {
    Arg::new("image").long("image").value_name("IMAGE").help(
        "image, with or without a tag [default: localhost/berth/berth-announcer, of this version]",
    )
}

/// What only one of them takes.
fn own(kind: &str) -> Vec<Arg> {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(clap::value_parser!(bool))
            .action(ArgAction::Set)
            .value_name("true|false")
            .help(help)
    };
    let mut own = vec![image_flag()];
    if kind == "rbac" {
        own.push(switch(
            "role",
            "rights in namespaces alone: those of svc_namespace and cp_namespace [default: false]",
        ));
        own.push(switch("rolebinding", "the same as --role [default: false]"));
    }
    own
}

/// Does what was asked, and ends as `EXIT_CODES` says.
pub fn run(matches: &ArgMatches) -> ExitCode {
    let told = match matches.get_one::<String>("check") {
        Some(file) => checked(file),
        None => printed(matches),
    };
    match told {
        // Whoever closed the pipe has read enough.
        Ok((text, code)) => {
            _ = write!(io::stdout(), "{text}");
            ExitCode::from(code)
        }
        Err((why, code)) => {
            eprintln!("berth-announcer manifest: {why}");
            ExitCode::from(code)
        }
    }
}

type Told = Result<(String, u8), (String, u8)>;

fn checked(file: &str) -> Told {
    let text = match file {
        "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        file => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| (format!("cannot read `{file}`: {error}"), 2))?;
    let report = Report::of(&text).map_err(|why| (unusable(file, &why), 2))?;
    Ok((report.to_string(), report.code()))
}

/// On one line of a terminal, which is told nothing by what the file has.
fn unusable(file: &str, why: &str) -> String {
    format!("cannot use `{file}`: {}", why.replace(char::is_control, "?"))
}

fn printed(matches: &ArgMatches) -> Told {
    let Some((kind, matches)) = matches.subcommand() else {
        return Err(("nothing to do: see --help".to_owned(), 2));
    };
    documents(kind, matches, std::env::vars()).map(|text| (text, 0)).map_err(|why| (why, 1))
}

fn documents(
    kind: &str,
    matches: &ArgMatches,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String, String> {
    let given = flags::given(matches);
    let given = if kind == "kubeadm" { of_control_plane(given) } else { given };
    let image = matches.get_one::<String>("image").cloned();
    let unfit = |settings: &Settings| match kind {
        "kubeadm" => kubeadm::unfit(settings),
        _ => Vec::new(),
    };
    let settings = accepted(environment, given, image.as_deref(), unfit)?;
    let is = |name: &str| matches.try_get_one::<bool>(name).ok().flatten() == Some(&true);
    let wish = Wish {
        image,
        in_cluster: settings.switch("inCluster"),
        taint: settings.switch("taint") == Some(true),
        role: is("role") || is("rolebinding"),
    };
    let advise = |advice: Option<String>| {
        advice.iter().for_each(|told| eprintln!("berth-announcer manifest: {told}"))
    };
    if kind != "rbac" {
        advise(generate::in_the_clear(&settings));
    }
    let documents = match kind {
        "pod" => generate::pod(&settings, &wish),
        "daemonset" => {
            advise(generate::advice(&settings, &wish));
            generate::daemonset(&settings, &wish)
        }
        "kubeadm" => kubeadm::documents(&settings, &wish)?,
        _ => generate::rbac(&settings, &wish)?,
    };
    Ok(generate::print(&documents))
}

/// Flags that ask for the control plane's address, whatever they say of it.
fn of_control_plane(mut given: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    if !given.iter().any(|(name, _)| *name == "cp_enable") {
        given.push(("cp_enable", "true".to_owned()));
    }
    given
}

/// The settings, if all of them are accepted, and the image is one. `unfit` has what the kind of manifest does not take.
fn accepted(
    environment: impl IntoIterator<Item = (String, String)>,
    given: Vec<(&'static str, String)>,
    image: Option<&str>,
    unfit: impl FnOnce(&Settings) -> Vec<Problem>,
) -> Result<Settings, String> {
    let flags: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
    let settings = Settings::gather(environment, given.clone());
    let mut problems = generate::problems(&settings, &flags, unfit(&settings));
    problems.extend(image.and_then(generate::unfit));
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
        let count = lines.len();
        return Err(format!(
            "settings that are not accepted, {count} in all:\n{}",
            lines.join("\n")
        ));
    }
    Ok(settings)
}

/// The Pod that has the control plane's address, as the kubelet runs it from a file, and what kubeadm has to know of it.
pub(crate) struct ControlPlanePod {
    /// As YAML, one document.
    pub(crate) text: String,
    /// What is said of it on the side.
    pub(crate) told: Option<String>,
    /// The first address with its port, as `--control-plane-endpoint` takes it.
    pub(crate) endpoint: String,
    /// The other addresses, which kubeadm puts into no certificate by itself.
    pub(crate) further: Vec<String>,
    /// The port of the API servers, where kubeadm has to be told it on each node.
    pub(crate) bind_port: Option<u16>,
}

/// That Pod for these settings.
///
/// # Errors
/// Each setting that is not accepted, in words.
pub(crate) fn control_plane_pod(
    environment: impl IntoIterator<Item = (String, String)>,
    given: Vec<(&'static str, String)>,
    image: Option<String>,
) -> Result<ControlPlanePod, String> {
    let settings =
        accepted(environment, of_control_plane(given), image.as_deref(), kubeadm::unfit)?;
    let endpoint = Endpoint::of(&settings)?;
    let wish = Wish { image, ..Wish::default() };
    let text = generate::print(&generate::pod(&settings, &wish));
    Ok(ControlPlanePod {
        text,
        told: generate::in_the_clear(&settings),
        endpoint: endpoint.first,
        further: endpoint.names.into_iter().skip(1).collect(),
        bind_port: endpoint.bind_port,
    })
}

#[cfg(test)]
mod tests;
