//! Flags: each setting by its name in the environment, and by kube-vip's name for the flag. A flag wins over both.

use berth_runtime::logs::Format;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Error};

use crate::config::{Kind, LOG_FORMAT, VARIABLES, Verdict};

/// Every flag of `manager`.
pub fn all() -> Vec<Arg> {
    let mut flags = settings();
    flags.push(
        Arg::new("log-format")
            .long("log-format")
            .env(LOG_FORMAT)
            .value_parser(["text", "json"])
            .default_value("text")
            .value_name("FORMAT")
            .help("how a line of the log looks"),
    );
    flags.push(
        Arg::new("kubeconfig")
            .long("kubeconfig")
            .value_name("FILE")
            .help("the same as --k8s_config_file [default: what that is]"),
    );
    flags
}

/// The flags of the settings.
pub fn settings() -> Vec<Arg> {
    let flags = VARIABLES.iter().map(|variable| {
        let flag = Arg::new(variable.name)
            .long(variable.name)
            .visible_aliases(variable.aliases())
            .help(variable.help_text())
            .value_name(variable.kind.value())
            .allow_hyphen_values(true)
            .action(ArgAction::Set)
            .hide(variable.verdict != Verdict::ActedOn);
        // kube-vip's two short ones.
        let flag = match variable.name {
            "cp_namespace" => flag.short('n'),
            "vip_configmap" => flag.short('c'),
            _ => flag,
        };
        match variable.kind {
            // As Go's flags: `--arp` alone means true, and a value is given with `=`.
            Kind::Switch => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => flag,
        }
    });
    flags.collect()
}

/// The settings that were given as flags.
pub fn given(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    // `manifest` has no flag of its own for the kubeconfig.
    let value = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
    let mut given: Vec<(&'static str, String)> = VARIABLES
        .iter()
        .filter_map(|variable| Some((variable.name, value(variable.name)?)))
        .collect();
    given.extend(value("kubeconfig").map(|file| ("k8s_config_file", file)));
    given
}

/// The same error, and where a switch was given its value as the next word, how to write that.
pub fn explained(mut error: Error) -> Error {
    let is_value = |value: &ContextValue| match value {
        ContextValue::String(word) => ["true", "false"].contains(&word.as_str()),
        _ => false,
    };
    if error.kind() == ErrorKind::UnknownArgument
        && error.get(ContextKind::InvalidArg).is_some_and(is_value)
    {
        let tip = StyledStr::from("the value of a switch stands behind `=`, as in '--arp=false'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// How a line of the log is to look.
pub fn log_format(matches: &ArgMatches) -> Format {
    let text = matches.get_one::<String>("log-format").map(String::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
