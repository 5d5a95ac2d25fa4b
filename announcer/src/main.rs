//! `berth-announcer`: binds and advertises the addresses of Services.

use std::process::ExitCode;

use anyhow::{Context, bail};
use berth_announcer::config::{Config, Settings};
use berth_announcer::run;

use berth_runtime::{logs, shutdown};
use clap::{ArgMatches, Command};

mod flags;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let matches = Command::new("berth-announcer")
        .about("Binds and advertises the addresses of Services of type LoadBalancer")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommand(
            Command::new("manager")
                .about("Announces Services until it is stopped")
                .args(flags::all()),
        )
        .subcommand(Command::new("version").about("Prints the version"))
        .get_matches();
    let Some(("manager", matches)) = matches.subcommand() else {
        println!("berth-announcer {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    };
    match manager(matches).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-announcer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn manager(matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = Settings::gather(std::env::vars(), flags::given(matches));
    let hostname = nix::unistd::gethostname().context("reading the host name")?;
    let config = match Config::parse(&settings, &hostname.to_string_lossy()) {
        Ok(config) => config,
        Err(problems) => {
            let lines: Vec<String> =
                problems.iter().map(|problem| format!("  {problem}")).collect();
            bail!("{} settings are not accepted:\n{}", lines.len(), lines.join("\n"));
        }
    };
    let format = flags::log_format(matches);
    logs::init(config.log_level, format).map_err(|error| anyhow::anyhow!(error))?;
    for name in settings.unknown() {
        tracing::warn!(name, "no such setting; it is ignored");
    }
    let stop = shutdown::on_signals().context("listening for signals")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = config.node, "berth-announcer");
    run::run(config, stop).await
}
