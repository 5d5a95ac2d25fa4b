//! Owns the flags. Whatever is not accepted is named with its value and what would be.

use std::net::SocketAddr;
use std::path::PathBuf;

use berth_api::election::{Timing, TimingError};
use berth_api::names::{class, lease, pools};
use berth_runtime::logs::Format;
use clap::{Parser, Subcommand};

use crate::environment::{CLASS_NAME, ENABLE_CLASS};
use crate::theirs::Theirs;
use crate::{check, convert, import, uninstall};

/// Gives Services of type LoadBalancer their addresses out of the pools in a ConfigMap.
#[derive(Clone, Debug, Parser)]
#[command(name = "berth-ccm", version, max_term_width = 100, after_help = environment_help())]
pub struct Options {
    /// What to do instead of giving addresses out
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Kubeconfig file [default: KUBECONFIG, else the account of the pod]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Let only one of several instances give addresses out at a time
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub leader_elect: bool,
    /// Namespace of the Lease
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    pub leader_elect_resource_namespace: String,
    /// Name of the Lease; the default is that of kube-vip-cloud-provider, so that both never lead at once
    #[arg(long, default_value = lease::CLOUD_CONTROLLER, value_name = "NAME")]
    pub leader_elect_resource_name: String,
    /// Seconds after which others may take an unchanged Lease
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = seconds)]
    pub leader_elect_lease_duration: u64,
    /// Seconds without a renewal after which the leader stops
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = seconds)]
    pub leader_elect_renew_deadline: u64,
    /// Seconds between renewals
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = seconds)]
    pub leader_elect_retry_period: u64,
    /// Name in the Lease, which no other running instance may have [default: POD_NAME, else the host's name]
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Where /metrics, /healthz and /readyz listen
    #[arg(long, default_value = "[::]:8080", value_name = "ADDRESS:PORT")]
    pub http_address: SocketAddr,
    /// How many writes may be under way at once, 1 to 1000
    #[arg(long, default_value_t = 32, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrent_writes: u16,
    /// error, warn, info, debug or trace
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: tracing::Level,
    /// text or json
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub log_format: Format,
    /// Flags of kube-vip-cloud-provider that mean nothing here
    #[command(flatten)]
    pub theirs: Theirs,
}

/// What the program can do besides its work in the cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say what a pool ConfigMap would mean before it is applied
    #[command(after_help = check::EXIT_CODES)]
    Check(check::Arguments),
    /// Print pools and commands for what another controller's objects say, and name what has no counterpart
    #[command(after_help = convert::EXIT_CODES)]
    Convert(convert::Arguments),
    /// Print the EipBindings of kube-eip or virteip-operator as Berth's, with the same addresses
    #[command(after_help = import::EXIT_CODES)]
    ImportEip(import::Arguments),
    /// Take finalizers, claims and Leases out of a cluster when both programs are gone
    #[command(after_help = uninstall::EXIT_CODES)]
    Uninstall(uninstall::Arguments),
}

/// Seconds as a number, or as kube-vip-cloud-provider takes them: `90`, `90s`, `1m30s`.
fn seconds(text: &str) -> Result<u64, String> {
    let accepted = || "accepted are whole seconds, such as 15, 15s or 1m30s".to_owned();
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let (mut all, mut rest) = (0_u64, text);
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, after)) = rest.split_once(unit) else { continue };
        let number: u64 = number.parse().map_err(|_| accepted())?;
        all = number
            .checked_mul(length)
            .and_then(|part| all.checked_add(part))
            .ok_or_else(accepted)?;
        rest = after;
    }
    match rest.is_empty() && !text.is_empty() {
        true => Ok(all),
        false => Err(accepted()),
    }
}

fn environment_help() -> String {
    format!(
        "Environment:\n  {}  namespace of the pool ConfigMap [default: {}]\n  {}  its name [default: {}]\n  {ENABLE_CLASS}  \
         true: serve only Services of one loadBalancerClass [default: false, true where that is named]\n  {CLASS_NAME}  its name \
         [default: {}]\n  RUST_LOG  finer log levels [default: --log-level]",
        pools::NAMESPACE_VARIABLE,
        pools::NAMESPACE,
        pools::CONFIG_MAP_VARIABLE,
        pools::CONFIG_MAP,
        class::DEFAULT,
    )
}

/// Values that are not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The three durations of the election.
    #[error("--leader-elect-lease-duration, -renew-deadline, -retry-period: {0}")]
    Timing(#[from] TimingError),
}

impl Options {
    /// The durations of the election.
    ///
    /// # Errors
    /// When two instances could lead at once with them.
    pub fn timing(&self) -> Result<Timing, OptionsError> {
        let seconds = std::time::Duration::from_secs;
        Ok(Timing::new(
            seconds(self.leader_elect_lease_duration),
            seconds(self.leader_elect_renew_deadline),
            seconds(self.leader_elect_retry_period),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_well_formed() {
        Options::command().debug_assert();
        let options = Options::parse_from(["berth-ccm", "--leader-elect=false"]);
        assert!(!options.leader_elect);
        assert!(Options::parse_from(["berth-ccm"]).timing().is_ok());
    }

    #[test]
    fn seconds_are_read_as_the_stock_provider_reads_them() {
        for (text, number) in [("15", 15), ("60s", 60), ("1m", 60), ("1m30s", 90), ("1h0m5s", 3605)]
        {
            assert_eq!(seconds(text), Ok(number), "{text}");
        }
        for text in ["", "s", "500ms", "1.5s", "-1s", "15 s", "30s1m", "99999999999999999999h"] {
            let told = seconds(text).expect_err(text);
            assert!(told.contains("such as 15, 15s or 1m30s"), "{told}");
        }
    }

    #[test]
    fn flags_of_the_stock_provider_that_mean_nothing_here_end_nothing() {
        let given = [
            "berth-ccm",
            "--leader-elect-resource-name=kube-vip-cloud-controller",
            "--leader-elect-lease-duration=60s",
            "--leader-elect-resource-lock=leases",
            "--v=2",
            "--use-service-account-credentials",
            "--secure-port",
            "10258",
        ];
        let options = Options::try_parse_from(given).unwrap();
        assert_eq!(options.leader_elect_lease_duration, 60);
        assert_eq!(
            options.theirs.to_string(),
            "--leader-elect-resource-lock, --secure-port, --use-service-account-credentials, --v"
        );
        assert_eq!(Options::parse_from(["berth-ccm"]).theirs.to_string(), "");
        // Where the API server is is nothing to pass over.
        assert!(Options::try_parse_from(["berth-ccm", "--master=https://192.0.2.1"]).is_err());
    }

    #[test]
    fn the_help_tells_the_name_of_each_value_and_its_default() {
        let mut command = Options::command();
        command.build();
        for part in std::iter::once(&command).chain(command.get_subcommands()) {
            for argument in part.get_arguments() {
                let name = format!("{} {}", part.get_name(), argument.get_id());
                let is_listed = !argument.is_hide_set() && part.get_name() != "help";
                if !argument.get_action().takes_values() || !is_listed {
                    continue;
                }
                let values = argument.get_value_names().unwrap_or_default();
                let bare = argument.get_id().as_str().to_uppercase();
                let is_named = matches!(values, [only] if *only != bare.as_str());
                assert!(is_named || name.ends_with(" identity"), "{name}: {values:?}");
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let has_default = !argument.get_default_values().is_empty()
                    || help.contains("[default: ")
                    || argument.is_required_set();
                assert!(has_default, "{name}: {help}");
            }
        }
    }
}
