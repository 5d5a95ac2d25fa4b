//! Owns the settings: flags, and the environment that users of kube-vip-cloud-provider have. Whatever is not accepted
//! is named with its value and what would be.

use std::net::SocketAddr;
use std::path::PathBuf;

use berth_api::election::{Timing, TimingError};
use berth_api::names::{class, lease, pools};
use berth_api::service::ClassPolicy;
use berth_api::{NamespacedName, Quoted};
use berth_runtime::logs::Format;
use clap::{Parser, Subcommand};

use crate::{check, import};

const ENABLE_CLASS: &str = "KUBEVIP_ENABLE_LOADBALANCERCLASS";
const CLASS_NAME: &str = "KUBEVIP_CUSTOM_LOADBALANCERCLASS_NAME";

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
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    pub leader_elect_lease_duration: u64,
    /// Seconds without a renewal after which the leader stops
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub leader_elect_renew_deadline: u64,
    /// Seconds between renewals
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
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
}

/// What the program can do besides its work in the cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say what a pool ConfigMap would mean before it is applied
    #[command(after_help = check::EXIT_CODES)]
    Check(check::Arguments),
    /// Print the EipBindings of kube-eip or virteip-operator as Berth's, with the same addresses
    #[command(after_help = import::EXIT_CODES)]
    ImportEip(import::Arguments),
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

/// A value that is not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A variable of the environment.
    #[error("{variable}: value {} is not accepted; accepted is {accepted}", Quoted::of(.value))]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        accepted: &'static str,
    },
    /// The three durations of the election.
    #[error("--leader-elect-lease-duration, -renew-deadline, -retry-period: {0}")]
    Timing(#[from] TimingError),
}

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The pool ConfigMap.
    pub pools: NamespacedName,
    /// Which classes are ours.
    pub classes: ClassPolicy,
}

impl Environment {
    /// Reads the variables by `get`. An empty one counts as unset.
    ///
    /// # Errors
    /// The first variable whose value is not accepted.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let value = |variable| get(variable).filter(|value| !value.is_empty());
        let namespace = checked(
            pools::NAMESPACE_VARIABLE,
            value(pools::NAMESPACE_VARIABLE).unwrap_or_else(|| pools::NAMESPACE.to_owned()),
            is_label,
            "the name of a namespace: at most 63 lower-case letters, digits and hyphens",
        )?;
        let name = checked(
            pools::CONFIG_MAP_VARIABLE,
            value(pools::CONFIG_MAP_VARIABLE).unwrap_or_else(|| pools::CONFIG_MAP.to_owned()),
            |name| name.len() <= 253 && name.split('.').all(is_label),
            "the name of a ConfigMap: lower-case letters, digits, hyphens and dots",
        )?;
        let custom = value(CLASS_NAME)
            .map(|name| {
                let accepted = "the name of a loadBalancerClass, such as example.org/class";
                checked(CLASS_NAME, name, is_class, accepted)
            })
            .transpose()?;
        let enabled = match value(ENABLE_CLASS).as_deref() {
            // A class that is named is meant.
            None => custom.is_some(),
            Some("true" | "1") => true,
            Some("false" | "0") => false,
            Some(other) => {
                let (variable, value) = (ENABLE_CLASS, other.to_owned());
                return Err(OptionsError::Variable { variable, value, accepted: "true or false" });
            }
        };
        let classes = match enabled {
            true => ClassPolicy::Only(custom.unwrap_or_else(|| class::DEFAULT.to_owned())),
            false => ClassPolicy::default(),
        };
        Ok(Self { pools: NamespacedName { namespace, name }, classes })
    }
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

fn checked(
    variable: &'static str,
    value: String,
    is_good: impl Fn(&str) -> bool,
    accepted: &'static str,
) -> Result<String, OptionsError> {
    if is_good(&value) {
        Ok(value)
    } else {
        Err(OptionsError::Variable { variable, value, accepted })
    }
}

/// RFC 1123, as Kubernetes reads it.
fn is_label(text: &str) -> bool {
    (1..64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A label-style identifier with an optional prefix, as `spec.loadBalancerClass` has to be.
fn is_class(text: &str) -> bool {
    let name = match text.split_once('/') {
        Some((prefix, name)) if prefix.len() <= 253 && prefix.split('.').all(is_label) => name,
        Some(_) => return false,
        None => text,
    };
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() < 64
        && bytes.iter().copied().all(inner)
        && ends(bytes.first())
        && ends(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, OptionsError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Environment::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn flags_are_well_formed() {
        Options::command().debug_assert();
        let options = Options::parse_from(["berth-ccm", "--leader-elect=false"]);
        assert!(!options.leader_elect);
        assert!(Options::parse_from(["berth-ccm"]).timing().is_ok());
    }

    #[test]
    fn the_help_tells_the_name_of_each_value_and_its_default() {
        let mut command = Options::command();
        command.build();
        for part in std::iter::once(&command).chain(command.get_subcommands()) {
            for argument in part.get_arguments() {
                let name = format!("{} {}", part.get_name(), argument.get_id());
                if !argument.get_action().takes_values() || part.get_name() == "help" {
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

    #[test]
    fn the_names_of_the_stock_provider_work() {
        let plain = read(&[]).unwrap();
        assert_eq!(
            (plain.pools.to_string().as_str(), plain.classes),
            ("kube-system/kubevip", ClassPolicy::default())
        );
        let named = read(&[
            ("KUBEVIP_NAMESPACE", "lb"),
            ("KUBEVIP_CONFIG_MAP", "pools.v1"),
            (ENABLE_CLASS, "true"),
        ]);
        let named = named.unwrap();
        assert_eq!(named.pools.to_string(), "lb/pools.v1");
        assert_eq!(named.classes, ClassPolicy::Only(class::DEFAULT.to_owned()));
        let custom = read(&[(ENABLE_CLASS, "true"), (CLASS_NAME, "example.org/lan")]).unwrap();
        assert_eq!(custom.classes, ClassPolicy::Only("example.org/lan".to_owned()));
    }

    #[test]
    fn a_value_that_is_not_accepted_is_named() {
        for (variable, value) in [
            ("KUBEVIP_NAMESPACE", "Kube System"),
            ("KUBEVIP_CONFIG_MAP", "-x"),
            (ENABLE_CLASS, "perhaps"),
            (CLASS_NAME, "a/b/c"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err().to_string();
            assert!(
                error.contains(variable) && error.contains(value) && error.contains("accepted is"),
                "{error}"
            );
        }
    }
}
