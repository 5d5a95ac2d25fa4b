//! Flags of kube-vip-cloud-provider, which has those of every cloud controller. What means nothing here is told once and
//! ends nothing: its manifest serves with the image alone exchanged.

use std::fmt;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// Those of 0.0.12 that are not Berth's too, as its `--help` lists them. `--master` is none: it says where the API server is.
#[rustfmt::skip]
const FLAGS: &[&str] = &[
    "allocate-node-cidrs", "authentication-kubeconfig", "authentication-skip-lookup",
    "authentication-token-webhook-cache-ttl", "authentication-tolerate-lookup-failure", "authorization-always-allow-paths",
    "authorization-kubeconfig", "authorization-webhook-cache-authorized-ttl",
    "authorization-webhook-cache-unauthorized-ttl", "bind-address", "cert-dir", "cidr-allocator-type", "client-ca-file",
    "cloud-config", "cloud-provider", "cluster-cidr", "cluster-name", "concurrent-node-syncs", "concurrent-service-syncs",
    "configure-cloud-routes", "contention-profiling", "controller-start-interval", "controllers", "disable-http2-serving",
    "enable-leader-migration", "external-cloud-volume-plugin", "feature-gates", "http2-max-streams-per-connection",
    "kube-api-burst", "kube-api-content-type", "kube-api-qps", "leader-elect-resource-lock", "leader-migration-config",
    "log-flush-frequency", "log-text-info-buffer-size", "log-text-split-stream", "logging-format", "min-resync-period",
    "node-monitor-period", "node-status-update-frequency", "permit-address-sharing", "permit-port-sharing", "profiling",
    "requestheader-allowed-names", "requestheader-client-ca-file", "requestheader-extra-headers-prefix",
    "requestheader-group-headers", "requestheader-uid-headers", "requestheader-username-headers",
    "route-reconciliation-period", "secure-port", "tls-cert-file", "tls-cipher-suites", "tls-min-version",
    "tls-private-key-file", "tls-sni-cert-key", "use-service-account-credentials", "v", "vmodule", "webhook-bind-address",
    "webhook-cert-dir", "webhook-secure-port", "webhook-tls-cert-file", "webhook-tls-private-key-file", "webhooks",
];

/// Those of them that were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Theirs(Vec<&'static str>);

impl Theirs {
    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Theirs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags: Vec<String> = self.0.iter().map(|flag| format!("--{flag}")).collect();
        f.write_str(&flags.join(", "))
    }
}

impl Args for Theirs {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|flag| {
            let argument =
                Arg::new(*flag).long(*flag).num_args(0..=1).value_name("VALUE").hide(true);
            if *flag == "v" { argument.short('v') } else { argument }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Theirs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |flag: &&&str| matches.value_source(flag) == Some(ValueSource::CommandLine);
        Ok(Self(FLAGS.iter().filter(is_given).copied().collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
