//! `berth-announcer kubeadm`: the static Pod of the control plane's address beside `kubeadm init`, `join` and `reset`, as
//! kube-vip's command of this name prints it. What is printed is what `manifest` prints for the same settings.
//!
//! | module | owns |
//! |---|---|
//! | `pods` | what the Pods of a cluster, or a file of a node, are given |
//! | `reset` | taking the address, and what it left, off a node |

mod pods;
mod reset;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};

use crate::flags;
use crate::manifest::{self, ControlPlanePod};

/// Where kubeadm leaves the kubeconfig of a control-plane node: kube-vip's default of `--config`, too.
const ADMIN: &str = "/etc/kubernetes/admin.conf";

const INIT: &str = "The Pod belongs into /etc/kubernetes/manifests before `kubeadm init` is run there. What kubeadm is to be given goes to the \
    standard error. Every flag of kube-vip 1.2 is taken; --address has to be given.\n\n\
    Exit code:\n  0  the Pod is printed\n  1  settings are not accepted, and each is named\n  2  the arguments are wrong";

const JOIN: &str = "Without --address the Pods that have the control plane's address already say what this node is to have: those of other \
    nodes are asked for at the API server that --config names, a kubeconfig copied from a node that has joined. Flags and environment win over them. With --address no cluster is \
    asked, and --config need not be there.\n\n\
    Exit code:\n  0  the Pod is printed\n  1  settings are not accepted, or the cluster does not say; each is named\n  2  the arguments are wrong";

const RESET: &str = "To be run before `kubeadm reset`: the Pod is ended by the kubelet, and gives the address back. It needs root in the network of the \
    node. What of another program, or of an announcer of Services, is there stays.\n\n\
    Exit code:\n  0  nothing of it is left\n  1  it runs still, or something is left; it is named\n  2  the arguments are wrong";

/// The command and what it takes.
pub fn command() -> Command {
    let prints = |name: &'static str, about: &'static str, more: &'static str| {
        let image = manifest::image_flag();
        Command::new(name).about(about).after_help(more).args(flags::settings()).arg(image)
    };
    let file = |name: &'static str, default: &'static str, help: &'static str| {
        let file = Arg::new(name).long(name).value_name("FILE").default_value(default);
        file.value_parser(clap::value_parser!(PathBuf)).help(help)
    };
    Command::new("kubeadm")
        .about(
            "Helps kubeadm: the static Pod of the control plane's address at init, join and reset",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(prints("init", "Prints the Pod for the first node, by flags", INIT))
        .subcommand(
            prints("join", "Prints the Pod for a further node, as the others have it", JOIN)
                .arg(file("config", ADMIN, "kubeconfig by which the cluster is asked")),
        )
        .subcommand(
            Command::new("reset")
                .about("Takes the Pod, and what it has left, off this node")
                .after_help(RESET)
                .arg(file("manifest", reset::MANIFEST, "the file of the Pod")),
        )
}

/// Does what was asked.
///
/// # Errors
/// What is not accepted, or cannot be done.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let path = |matches: &ArgMatches, name| matches.get_one::<PathBuf>(name).cloned();
    match matches.subcommand() {
        Some(("init", matches)) => {
            let pod = written(matches, Vec::new(), None)?;
            let next = format!("kubeadm init {}", needed(&pod));
            tell(&pod, &next)
        }
        Some(("join", matches)) => {
            let config = path(matches, "config").unwrap_or_else(|| PathBuf::from(ADMIN));
            let pod = joining(matches, &config).await?;
            tell(&pod, &joined_by(&pod))
        }
        Some(("reset", matches)) => {
            let file = path(matches, "manifest").unwrap_or_else(|| PathBuf::from(reset::MANIFEST));
            reset::run(&file).await
        }
        _ => Ok(()),
    }
}

/// The Pod of a node that joins.
async fn joining(matches: &ArgMatches, config: &Path) -> anyhow::Result<ControlPlanePod> {
    let own = crate::config::Settings::gather(std::env::vars(), flags::given(matches));
    if own.first(&["address", "vip_address"]).is_some() {
        return written(matches, Vec::new(), None);
    }
    let namespace = own.text("cp_namespace").unwrap_or("kube-system");
    let found = pods::asked(config, namespace).await.map_err(anyhow::Error::msg)?;
    written(matches, found.environment.into_iter().collect(), found.image)
}

/// The Pod by flags and environment, over what other Pods are given.
fn written(
    matches: &ArgMatches,
    below: Vec<(String, String)>,
    image: Option<String>,
) -> anyhow::Result<ControlPlanePod> {
    let environment = below.into_iter().chain(std::env::vars());
    let image = matches.get_one::<String>("image").cloned().or(image);
    manifest::control_plane_pod(environment, flags::given(matches), image)
        .map_err(anyhow::Error::msg)
}

/// How kubeadm has a node join.
fn joined_by(pod: &ControlPlanePod) -> String {
    let port = bind_port(pod);
    let add = if port.is_empty() { "" } else { ", with" };
    format!(
        "kubeadm join {} --control-plane, as kubeadm init has printed it{add}{port}",
        pod.endpoint
    )
}

/// What kubeadm has to be given where the API server of its node has another port than 6443.
fn bind_port(pod: &ControlPlanePod) -> String {
    pod.bind_port.map(|port| format!(" --apiserver-bind-port {port}")).unwrap_or_default()
}

/// What kubeadm has to be given: it puts no further address into the certificate by itself.
fn needed(pod: &ControlPlanePod) -> String {
    let further = match pod.further.is_empty() {
        true => String::new(),
        false => format!(" --apiserver-cert-extra-sans {}", pod.further.join(",")),
    };
    format!("--control-plane-endpoint {} --upload-certs{}{further}", pod.endpoint, bind_port(pod))
}

/// The Pod where it can be redirected to a file, and what comes next where a person reads it.
fn tell(pod: &ControlPlanePod, next: &str) -> anyhow::Result<()> {
    // Whoever closed the pipe has read enough.
    _ = write!(io::stdout(), "{}", pod.text);
    pod.told.iter().for_each(|told| eprintln!("berth-announcer kubeadm: {told}"));
    eprintln!("berth-announcer kubeadm: the Pod belongs into {}, then: {next}", reset::MANIFEST);
    if let Some(told) = pods::told_of(&pods::beside(Path::new(reset::MANIFEST))) {
        eprintln!("berth-announcer kubeadm: {told}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
