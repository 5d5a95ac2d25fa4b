//! Gives Services of type LoadBalancer their addresses. See `berth-ccm --help`.

use std::process::ExitCode;

use berth_ccm::check;
use berth_ccm::options::{Command, Environment, Options};
use clap::Parser;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Command::Check(arguments)) = &options.command {
        return match Environment::read(|name| std::env::var(name).ok()) {
            Ok(environment) => {
                check::run(arguments, &environment.pools, &environment.classes).await
            }
            Err(error) => check::unusable(error.into()),
        };
    }
    if let Err(error) = berth_runtime::logs::init(options.log_level.as_str(), options.log_format) {
        eprintln!("berth-ccm: {error}");
        return ExitCode::FAILURE;
    }
    match berth_ccm::run::run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
