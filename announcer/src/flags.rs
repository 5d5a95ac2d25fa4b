//! Flags: each setting by its name in the environment, and by kube-vip's name for the flag. A flag wins over both.

use berth_announcer::config::{Kind, LOG_FORMAT, Support, VARIABLES};
use berth_runtime::logs::Format;
use clap::{Arg, ArgAction, ArgMatches};

/// Every flag.
pub(crate) fn all() -> Vec<Arg> {
    let mut flags: Vec<Arg> = VARIABLES
        .iter()
        .map(|variable| {
            let flag = Arg::new(variable.name)
                .long(variable.name)
                .alias(variable.flag)
                .help(variable.help_text())
                .value_name(variable.kind.value())
                .allow_hyphen_values(true)
                .action(ArgAction::Set)
                .hide(variable.support != Support::Served);
            match variable.kind {
                // As Go's flags: `--arp` alone means true, and a value is given with `=`.
                Kind::Switch => {
                    flag.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
                _ => flag,
            }
        })
        .collect();
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

/// The settings that were given as flags.
pub(crate) fn given(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    let value = |name: &str| matches.get_one::<String>(name).cloned();
    let mut given: Vec<(&'static str, String)> = VARIABLES
        .iter()
        .filter_map(|variable| Some((variable.name, value(variable.name)?)))
        .collect();
    given.extend(value("kubeconfig").map(|file| ("k8s_config_file", file)));
    given
}

/// How a line of the log is to look.
pub(crate) fn log_format(matches: &ArgMatches) -> Format {
    let text = matches.get_one::<String>("log-format").map(String::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
