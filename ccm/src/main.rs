//! Gives Services of type LoadBalancer and virtual machines their addresses. See `berth-ccm --help`.

use std::process::ExitCode;

use berth_ccm::environment::Environment;
use berth_ccm::options::{Command, Options};
use berth_ccm::{check, convert, import, uninstall};
use berth_runtime::watch::chain;
use clap::Parser;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    match &options.command {
        None => {}
        Some(Command::ImportEip(arguments)) => return import::run(arguments).await,
        Some(Command::Uninstall(arguments)) => return uninstall::run(arguments).await,
        Some(Command::Convert(arguments)) => {
            return match Environment::read(|name| std::env::var(name).ok()) {
                Ok(environment) => convert::run(arguments, &environment),
                Err(error) => convert::unusable(error.into()),
            };
        }
        Some(Command::Check(arguments)) => {
            return match Environment::read(|name| std::env::var(name).ok()) {
                Ok(environment) => check::run(arguments, &environment).await,
                Err(error) => check::unusable(error.into()),
            };
        }
    }
    if let Err(error) = berth_runtime::logs::init(options.log_level.as_str(), options.log_format) {
        eprintln!("berth-ccm: {error}");
        return ExitCode::FAILURE;
    }
    if !options.theirs.is_empty() {
        tracing::warn!(flags = %options.theirs, "flags of kube-vip-cloud-provider that mean nothing here");
    }
    let ended = match berth_ccm::run::run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    };
    berth_runtime::logs::flush();
    ended
}
