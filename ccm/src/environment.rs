//! Owns what the environment says, as users of kube-vip-cloud-provider have it. Whatever is not accepted is named with its
//! value and what would be.

use berth_api::limits::is_namespace;
use berth_api::names::{class, pools};
use berth_api::service::ClassPolicy;
use berth_api::{NamespacedName, Quoted};

pub(crate) const ENABLE_CLASS: &str = "KUBEVIP_ENABLE_LOADBALANCERCLASS";
pub(crate) const CLASS_NAME: &str = "KUBEVIP_CUSTOM_LOADBALANCERCLASS_NAME";

/// A variable whose value is not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: value {} is not accepted; accepted is {accepted}", Quoted::of(.value))]
pub struct EnvironmentError {
    /// The variable.
    variable: &'static str,
    /// Its value.
    value: String,
    /// What would be right.
    accepted: &'static str,
}

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The pool ConfigMap.
    pub pools: NamespacedName,
    /// Whether its namespace is said, and not the default.
    pub names_namespace: bool,
    /// Which classes are ours.
    pub classes: ClassPolicy,
}

impl Environment {
    /// Reads the variables by `get`. An empty one counts as unset.
    ///
    /// # Errors
    /// The first variable whose value is not accepted.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let value = |variable| get(variable).filter(|value| !value.is_empty());
        let namespace = value(pools::NAMESPACE_VARIABLE);
        let names_namespace = namespace.is_some();
        let namespace = checked(
            pools::NAMESPACE_VARIABLE,
            namespace.unwrap_or_else(|| pools::NAMESPACE.to_owned()),
            is_namespace,
            "the name of a namespace: at most 63 lower-case letters, digits and hyphens",
        )?;
        let name = checked(
            pools::CONFIG_MAP_VARIABLE,
            value(pools::CONFIG_MAP_VARIABLE).unwrap_or_else(|| pools::CONFIG_MAP.to_owned()),
            |name| name.len() <= 253 && name.split('.').all(is_namespace),
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
                return Err(EnvironmentError { variable, value, accepted: "true or false" });
            }
        };
        let classes = match enabled {
            true => ClassPolicy::Only(custom.unwrap_or_else(|| class::DEFAULT.to_owned())),
            false => ClassPolicy::default(),
        };
        Ok(Self { pools: NamespacedName { namespace, name }, names_namespace, classes })
    }
}

fn checked(
    variable: &'static str,
    value: String,
    is_good: impl Fn(&str) -> bool,
    accepted: &'static str,
) -> Result<String, EnvironmentError> {
    if is_good(&value) { Ok(value) } else { Err(EnvironmentError { variable, value, accepted }) }
}

/// A label-style identifier with an optional prefix, as `spec.loadBalancerClass` has to be.
fn is_class(text: &str) -> bool {
    let name = match text.split_once('/') {
        Some((prefix, name)) if prefix.len() <= 253 && prefix.split('.').all(is_namespace) => name,
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

    fn read(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Environment::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
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
