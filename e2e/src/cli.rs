//! The program `lab`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::{
    agent,
    disk::LabDir,
    image, keeper, kind_node,
    lab::{Lab, Spec},
    programs, supervisor,
};

/// The name of a lab where none is given.
const DEFAULT_NAME: &str = "berth";

#[derive(Parser)]
#[command(
    name = "lab",
    about = "A real Kubernetes control plane and nodes in network namespaces of this machine"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a lab and leave it up
    Up {
        /// The lab's name
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
        /// How many nodes with kubelet and containerd
        #[arg(long, default_value_t = 0)]
        nodes: usize,
        /// How many bare nodes: kube-proxy and a stand-in for the kubelet
        #[arg(long, default_value_t = 0)]
        bare: usize,
        /// The folder of image archives for the nodes, as `lab image` writes them
        #[arg(long)]
        images: Option<PathBuf>,
        /// Stay in the foreground: the lab goes when this ends, however it ends
        #[arg(long)]
        foreground: bool,
    },
    /// Pack the images of all programs beside this one as OCI archives
    Image {
        /// Where to write them
        folder: PathBuf,
    },
    /// Remove a lab
    Down {
        /// The lab's name
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
    },
    /// Run a command on a node, or in client, router, fabric or control
    Exec {
        /// The lab's name
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
        /// Where
        place: String,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<String>,
    },
    /// Show a lab: nodes, addresses, processes
    Status {
        /// The lab's name
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
        /// Print the path of the kubeconfig only
        #[arg(long, conflicts_with = "bin")]
        kubeconfig: bool,
        /// Print the folder of kubectl only
        #[arg(long)]
        bin: bool,
    },
    /// Build the Kubernetes programs and print their folder
    Build,
    /// Build kind, Docker and a node image, and print the folders for PATH and the image's archive
    Kind,
    /// Hold a lab's life (used by `up`)
    #[command(hide = true)]
    Supervise {
        /// The lab's name
        name: String,
    },
    /// Be the first process of a PID namespace (used by the supervisor)
    #[command(hide = true)]
    Keep {
        /// What to arrange, as JSON
        setup: String,
    },
    /// Stand in for the kubelet of a bare node
    #[command(hide = true)]
    Agent {
        /// The node's name
        #[arg(long)]
        node: String,
        /// The node's number
        #[arg(long)]
        index: usize,
        /// The kubeconfig of `system:node:<node>`
        #[arg(long)]
        kubeconfig: PathBuf,
    },
}

/// Runs the program on its command line.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("lab: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { name, nodes, bare, images, foreground } => {
            if nodes + bare == 0 {
                bail!("a lab of no nodes: give --nodes N, --bare N, or both");
            }
            let spec = Spec { real: nodes, bare, images, ..Spec::default() }.named(&name);
            let runtime = runtime()?;
            let lab = runtime.block_on(Lab::up(spec))?;
            println!("lab {name} is up: export KUBECONFIG={}", lab.kubeconfig().display());
            if foreground {
                runtime.block_on(tokio::signal::ctrl_c()).context("wait for Ctrl-C")?;
                lab.down()?;
            } else {
                lab.detach()?;
            }
        }
        Command::Down { name } => {
            let swept = supervisor::sweep()?;
            let dir = LabDir::new(&name)?;
            if !supervisor::down(&dir)? && !swept.contains(&name) {
                bail!("no lab {name:?} is up");
            }
        }
        Command::Exec { name, place, argv } => {
            let lab = runtime()?.block_on(Lab::attach(&name))?;
            let code = lab.place_named(&place)?.interactive(argv)?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        Command::Status { name, kubeconfig, bin } => {
            let lab = runtime()?.block_on(Lab::attach(&name))?;
            match (kubeconfig, bin) {
                (true, _) => println!("{}", lab.kubeconfig().display()),
                (_, true) => println!("{}", lab.programs().display()),
                _ => print!("{}", crate::status::render(&lab)?),
            }
        }
        Command::Image { folder } => {
            let this = std::env::current_exe()?;
            for archive in image::berth::write_all(this.parent().unwrap_or(&folder), &folder)? {
                println!("{}", archive.display());
            }
        }
        Command::Build => println!("{}", programs::build()?.display()),
        Command::Kind => {
            let parts = kind_node::prepare()?;
            let path = std::env::join_paths(&parts.programs).context("a folder with a colon")?;
            println!("{}", path.display());
            println!("{}", parts.archive.display());
        }
        Command::Supervise { name } => supervisor::supervise(&LabDir::new(&name)?)?,
        Command::Keep { setup } => {
            keeper::keep(&serde_json::from_str(&setup).context("parse the setup")?)?
        }
        Command::Agent { node, index, kubeconfig } => {
            runtime()?.block_on(agent::run(&node, index, &kubeconfig))?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start tokio")
}
