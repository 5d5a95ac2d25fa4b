//! Settings from a file, which count where neither a flag nor a variable says otherwise: YAML or JSON with the keys of
//! kube-vip's, whatever the case of their letters, or with the names of variables and flags.

use serde_json::Value;

use super::settings::Settings;
use super::table::VARIABLES;
use super::variables::Variable;

const NAME: &str = "config_file";

/// Keys that are neither a variable nor a flag, in small letters; what is below another key after a dot.
#[rustfmt::skip]
const KEYS: &[(&str, &str)] = &[
    ("logging", "vip_loglevel"), ("enablearp", "vip_arp"), ("enablebgp", "bgp_enable"),
    ("enablewireguard", "vip_wireguard"), ("enableroutingtable", "vip_routingtable"),
    ("enablecontrolplane", "cp_enable"), ("detectcontrolplane", "cp_detect"), ("enableservices", "svc_enable"),
    ("enableserviceselection", "svc_election"), ("enableleaderelection", "vip_leaderelection"),
    ("loadbalancerclassonly", "lb_class_only"), ("loadbalancerclassname", "lb_class_name"),
    ("loadbalancerclasslegacyhandling", "lb_class_legacy_handling"), ("arpbroadcastrate", "vip_arpRate"),
    ("loseleadershiptimeoutseconds", "vip_loseleadership_timeout_seconds"), ("leasenodename", "vip_nodename"),
    ("servicesinterface", "vip_servicesinterface"), ("loadbalancerport", "lb_port"),
    ("loadbalancerforwardingmethod", "lb_fwdmethod"), ("routingtableid", "vip_routingtableid"),
    ("routingtabletype", "vip_routingtabletype"), ("k8sconfigfile", "k8s_config_file"),
    ("dnsdualstackmode", "dns_mode"), ("dhcpdualstackmode", "dhcp_mode"), ("renewdeadline", "vip_renewdeadline"),
    ("retryperiod", "vip_retryperiod"), ("enableinternalsnat", "egress_enableinternalsnat"),
    ("etcd.cafile", "etcdCACert"), ("etcd.clientcertfile", "etcdCert"), ("etcd.clientkeyfile", "etcdKey"),
    ("etcd.endpoints", "etcdEndpoints"), ("bgpconfig.as", "bgp_as"), ("bgpconfig.routerid", "bgp_routerid"),
    ("bgpconfig.sourceif", "bgp_sourceif"), ("bgpconfig.sourceip", "bgp_sourceip"),
    ("bgpconfig.holdtime", "bgp_hold_time"), ("bgpconfig.keepaliveinterval", "bgp_keepalive_interval"),
    ("bgpconfig.mpbgpnexthop", "mpbgp_nexthop"), ("bgpconfig.mpbgpipv4", "mpbgp_ipv4"),
    ("bgpconfig.mpbgpipv6", "mpbgp_ipv6"), ("bgpconfig.zebra.enabled", "zebra_enable"),
    ("bgpconfig.zebra.url", "zebra_url"), ("bgpconfig.zebra.version", "zebra_version"),
    ("bgpconfig.zebra.softwarename", "zebra_software_name"), ("bgppeerconfig.address", "bgp_peeraddress"),
    ("bgppeerconfig.as", "bgp_peeras"), ("bgppeerconfig.password", "bgp_peerpass"),
    ("bgppeerconfig.multihop", "bgp_multihop"),
    ("controlplanehealthcheck.address", "control_plane_health_check_address"),
    ("controlplanehealthcheck.periodseconds", "control_plane_health_check_period_seconds"),
    ("controlplanehealthcheck.timeoutseconds", "control_plane_health_check_timeout_seconds"),
    ("controlplanehealthcheck.failurethreshold", "control_plane_health_check_failure_threshold"),
    ("controlplanehealthcheck.capath", "control_plane_health_check_ca_path"),
];

/// The settings with those of the file that they name, if they name one. What is wrong with it is a problem of theirs.
#[must_use]
pub fn with_file(mut settings: Settings) -> Settings {
    let Some(path) = settings.text(NAME).map(str::to_owned) else { return settings };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}"));
    if let Err(why) = text.and_then(|text| add(&mut settings, &text)) {
        settings.note(settings.problem(NAME, why));
    }
    settings
}

fn add(settings: &mut Settings, text: &str) -> Result<(), String> {
    let file: Value = serde_saphyr::from_str(text)
        .map_err(|error| format!("neither YAML nor JSON: {}", first_line(&error.to_string())))?;
    match file {
        Value::Null => Ok(()),
        Value::Object(_) => add_below(settings, "", &file),
        _ => Err("accepted is a mapping of settings to values".to_owned()),
    }
}

/// An error may show the lines around it, and a password in them.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn add_below(settings: &mut Settings, above: &str, object: &Value) -> Result<(), String> {
    for (key, value) in object.as_object().into_iter().flatten() {
        let path = match above {
            "" => key.clone(),
            above => format!("{above}.{key}"),
        };
        match (variable(&path), value) {
            (Some(variable), value) => {
                let value = given(value).ok_or_else(|| {
                    format!(
                        "{path}: accepted is a text, a number, true or false, or a list of texts"
                    )
                })?;
                settings.below(variable.name, value);
            }
            (None, Value::Object(_)) => add_below(settings, &path, value)?,
            (None, _) => settings.ignore(format!("{NAME}: {path}")),
        }
    }
    Ok(())
}

fn variable(path: &str) -> Option<&'static Variable> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(path);
    let listed = KEYS.iter().find(|(key, _)| *key == wanted).map(|(_, name)| *name);
    VARIABLES.iter().find(|variable| match listed {
        Some(name) => variable.name == name,
        None => {
            plain(variable.name) == wanted || variable.aliases().any(|flag| plain(flag) == wanted)
        }
    })
}

fn given(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        // Of the annotations of Leases, which are JSON in a variable as well.
        Value::Object(_) => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let mut settings = Settings::gather(environment, [("vip_leaseduration", "7".to_owned())]);
        add(&mut settings, text).map(|()| settings)
    }

    #[test]
    fn keys_of_kube_vip_are_read_whatever_their_letters_and_so_are_names_of_variables() {
        let text = "enableARP: true\ninterface: eth0\nenableServices: true\nlbClassOnly: false\nport: 6443\n\
                    BGPConfig: {AS: 64512, zebra: {enabled: false}}\nbgpPeers: [a, b]\n\
                    controlPlaneHealthCheck:\n  periodSeconds: 5\nleaseAnnotations: {a: b}\nberth_fence: nft-timeout\n";
        let settings = read(text, &[]).unwrap();
        for (name, value) in [
            ("vip_arp", "true"),
            ("vip_interface", "eth0"),
            ("svc_enable", "true"),
            ("lb_class_only", "false"),
            ("port", "6443"),
            ("bgp_as", "64512"),
            ("zebra_enable", "false"),
            ("bgp_peers", "a,b"),
            ("control_plane_health_check_period_seconds", "5"),
            ("vip_leaseannotations", r#"{"a":"b"}"#),
            ("berth_fence", "nft-timeout"),
        ] {
            assert_eq!(settings.text(name), Some(value), "{name}");
        }
        assert_eq!(read(r#"{"enableARP": false}"#, &[]).unwrap().text("vip_arp"), Some("false"));
    }

    #[test]
    fn a_flag_and_a_variable_win_over_the_file_and_an_empty_variable_does_not() {
        let text = "leaseDuration: 9\ninterface: eth0\nservicesInterface: eth1\n";
        let given = [("vip_interface", "eth2"), ("vip_servicesinterface", "")];
        let settings = read(text, &given).unwrap();
        assert_eq!(settings.text("vip_leaseduration"), Some("7"));
        assert_eq!(settings.text("vip_interface"), Some("eth2"));
        assert_eq!(settings.text("vip_servicesinterface"), Some("eth1"));
    }

    #[test]
    fn what_is_no_setting_is_told_and_what_is_no_file_of_settings_is_a_problem() {
        let unknown = read("isDualStack: true\nloadBalancers: [{name: a}]\n", &[]).unwrap();
        assert_eq!(unknown.unknown(), ["config_file: isDualStack", "config_file: loadBalancers"]);
        assert!(read("- a\n", &[]).is_err() && read("a: [b\n", &[]).is_err());
        assert!(read("interface: [{a: b}]\n", &[]).unwrap_err().starts_with("interface: accepted"));
        assert!(read("", &[]).is_ok());
        let named = [("config_file".to_owned(), "/nowhere/kube-vip.yaml".to_owned())];
        let settings = with_file(Settings::gather(named, []));
        let told = settings.check().into_iter().map(|(_, problem)| problem.to_string());
        let told: Vec<_> = told.collect();
        assert!(
            told[0].starts_with("config_file=\"/nowhere/kube-vip.yaml\": cannot be read"),
            "{told:?}"
        );
    }

    #[test]
    fn every_key_that_is_listed_leads_to_a_setting() {
        for (key, name) in KEYS {
            assert!(find(name).is_some(), "{key}: {name}");
        }
    }
}
