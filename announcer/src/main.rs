//! `berth-announcer`: binds and advertises the addresses of Services.

use std::process::ExitCode;

use anyhow::{Context, bail};
use berth_announcer::config::{Config, Settings, with_file};
use berth_announcer::instance::Instance;
use berth_announcer::{flags, kubeadm, manifest, run, sweep};
use berth_runtime::supervise::{self, Supervisor};
use berth_runtime::watch::chain;
use berth_runtime::{logs, shutdown};
use clap::{Arg, ArgMatches, Command};

/// What it needs, and how it ends; scripts rely on it.
const SWEPT: &str = "It needs root in the network of the node, and changes nothing of an announcer that runs.\n\n\
    Exit code:\n  0  nothing of them is left\n  1  an announcer of Services runs here, or something is left; it is named\n  2  the arguments are wrong";

fn main() -> ExitCode {
    let command = Command::new("berth-announcer")
        .about("Binds and advertises the addresses of Services of type LoadBalancer")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommand(
            Command::new("manager")
                .about("Announces Services until it is stopped")
                .args(flags::all()),
        )
        .subcommand(manifest::command())
        .subcommand(kubeadm::command())
        .subcommand(
            Command::new("sweep")
                .about("Removes from this node what announcers have left that were killed, where none comes after them")
                .after_help(SWEPT),
        )
        .subcommand(check_bgp())
        .subcommand(Command::new("version").about("Prints the version"));
    let matches = command.try_get_matches().unwrap_or_else(|error| flags::explained(error).exit());
    let result = match matches.subcommand() {
        Some(("manager", matches)) => block_on(manager(matches)),
        Some(("manifest", matches)) => return manifest::run(matches),
        Some(("kubeadm", matches)) => block_on(kubeadm::run(matches)),
        Some(("sweep", _)) => block_on(swept()),
        Some(("check-bgp", matches)) => return checked(matches),
        _ => {
            println!("berth-announcer {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
    };
    match result {
        Ok(()) => {
            logs::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            logs::last(&format!("berth-announcer: {}", chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting threads")?;
    let result = runtime.block_on(work);
    // Whatever is stuck in a system call keeps nobody from ending.
    runtime.shutdown_background();
    result
}

fn check_bgp() -> Command {
    Command::new("check-bgp")
        .about("Says what a file for the ConfigMap berth-bgp means, and all that is wrong with it; nothing is applied")
        .arg(Arg::new("FILE").required(true).help("the ConfigMap as a manifest, or the text of its key config.yaml; - for standard input"))
        .after_help("Exit code:\n  0  nothing is wrong\n  1  something is, or the file cannot be read\n  2  the arguments are wrong")
}

fn checked(matches: &ArgMatches) -> ExitCode {
    let path = matches.get_one::<String>("FILE").map(String::as_str).unwrap_or_default();
    let read = match path {
        "-" => std::io::read_to_string(std::io::stdin()),
        path => std::fs::read_to_string(path),
    };
    let report = match read {
        Ok(text) => berth_bgp::config::report(&text),
        Err(error) => {
            eprintln!("berth-announcer check-bgp: {path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    print!("{report}");
    if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn swept() -> anyhow::Result<()> {
    logs::init("info", logs::Format::Text).map_err(|error| anyhow::anyhow!(error))?;
    let mut supervisor = Supervisor::new();
    sweep::node(&Instance::services(), &mut supervisor).await
}

async fn manager(matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = with_file(Settings::gather(std::env::vars(), flags::given(matches)));
    let hostname = nix::unistd::gethostname().context("reading the host name")?;
    let config = match Config::parse(&settings, &hostname.to_string_lossy()) {
        Ok(config) => config,
        Err(problems) => {
            let lines: Vec<String> =
                problems.iter().map(|problem| format!("  {problem}")).collect();
            bail!("settings that are not accepted, {} in all:\n{}", lines.len(), lines.join("\n"));
        }
    };
    let format = flags::log_format(matches);
    logs::init(config.core.log_level, format).map_err(|error| anyhow::anyhow!(error))?;
    supervise::name_panics();
    for name in settings.unknown() {
        tracing::warn!(name, "no such setting; it is ignored");
    }
    let mut supervisor = Supervisor::new();
    let (stop, signals) = shutdown::on_signals().context("listening for signals")?;
    supervisor.spawn("signals", signals);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = config.core.node, "berth-announcer");
    run::run(config, manifest::rights_for(&settings), stop, supervisor).await
}
