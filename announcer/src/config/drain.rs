//! The taints with which a node is emptied: none unless the operator lists them.

use berth_api::limits::{is_label_key, is_label_value};
use k8s_openapi::api::core::v1::Taint;

use super::settings::{Problem, Settings};

const NAME: &str = "berth_drain_taints";

/// Taints with which a node hands over what it has and goes last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drains(Vec<Drain>);

/// One of them, as `kubectl taint` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Drain {
    key: String,
    /// None for any.
    value: Option<String>,
    /// None for any.
    effect: Option<String>,
}

impl Drains {
    /// Whether a taint is one of them.
    pub fn has(&self, taint: &Taint) -> bool {
        let value = taint.value.as_deref().unwrap_or_default();
        self.0.iter().any(|drain| {
            drain.key == taint.key
                && drain.value.as_deref().is_none_or(|own| own == value)
                && drain.effect.as_deref().is_none_or(|own| own == taint.effect)
        })
    }
}

pub(super) fn drains(settings: &Settings) -> Result<Drains, Problem> {
    let accepted = "accepted is a comma list of taints, each KEY, KEY=VALUE, KEY:EFFECT or KEY=VALUE:EFFECT, such as \
                    node.kubernetes.io/out-of-service,shop/upkeep=now:NoSchedule";
    let text = settings.text(NAME).unwrap_or_default();
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let drains: Option<Vec<Drain>> = entries.map(drain).collect();
    drains.map(Drains).ok_or_else(|| settings.problem(NAME, accepted))
}

fn drain(text: &str) -> Option<Drain> {
    let (rest, effect) = match text.split_once(':') {
        Some((rest, effect)) => (rest, Some(effect)),
        None => (text, None),
    };
    let (key, value) = match rest.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (rest, None),
    };
    let is_effect =
        |effect: &str| ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    let drain = Drain {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.map(str::to_owned),
    };
    let is_value = |value: &str| value.is_empty() || is_label_value(value);
    (is_label_key(key) && value.is_none_or(is_value) && effect.is_none_or(is_effect))
        .then_some(drain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Drains, String> {
        let given = [(NAME.to_owned(), text.to_owned())];
        drains(&Settings::gather(given, [])).map_err(|problem| problem.to_string())
    }

    fn taint(key: &str, value: Option<&str>, effect: &str) -> Taint {
        let value = value.map(str::to_owned);
        Taint { key: key.to_owned(), value, effect: effect.to_owned(), ..Taint::default() }
    }

    #[test]
    fn only_the_taints_that_are_listed_empty_a_node() {
        let drains = parse("a, b=now ,c:NoExecute,d=now:NoSchedule").unwrap();
        for (key, value, effect, has) in [
            ("a", None, "NoSchedule", true),
            ("a", Some("x"), "NoExecute", true),
            ("b", Some("now"), "NoSchedule", true),
            ("b", None, "NoSchedule", false),
            ("c", Some("x"), "NoExecute", true),
            ("c", None, "NoSchedule", false),
            ("d", Some("now"), "NoSchedule", true),
            ("d", Some("now"), "NoExecute", false),
            ("e", None, "NoSchedule", false),
        ] {
            assert_eq!(drains.has(&taint(key, value, effect)), has, "{key} {value:?} {effect}");
        }
        assert_eq!(parse(""), Ok(Drains::default()));
        for wrong in ["=x", "a:Never", "a b", "a,:NoSchedule", "a=b=c", "a/b/c=d"] {
            assert!(
                parse(wrong).is_err_and(|told| told.contains("accepted is a comma list")),
                "{wrong}"
            );
        }
    }
}
