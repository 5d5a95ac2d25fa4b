//! Owns how a conversion is printed. The same one is always printed the same.

use std::collections::BTreeMap;

use berth_api::NamespacedName;
use serde_json::json;

use super::metallb::Patch;

/// The ConfigMap.
pub(super) fn pools(keys: &BTreeMap<String, String>, place: &NamespacedName) -> String {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": place.name, "namespace": place.namespace },
        "data": keys,
    });
    let text = serde_saphyr::to_string(&object).unwrap_or_else(|_| object.to_string());
    format!("{}\n", text.trim_end())
}

/// Commands for sh.
pub(super) fn services(patches: &[Patch]) -> String {
    let command = |patch: &Patch| {
        let Patch { namespace, name, .. } = patch;
        let body = quoted(&patch.body().to_string());
        format!("keep {} {} {body}\n", quoted(namespace), quoted(name))
    };
    HEAD.to_owned() + &patches.iter().map(command).collect::<String>() + TAIL
}

/// One that is full, or gone, keeps no other Service from what it has.
const HEAD: &str = r#"#!/bin/sh
# What Services have they ask for, so that they keep it. Twice does no harm. Ends with 1 where one could not be told so.
failed=0
keep() {
	kubectl --namespace "$1" patch service --type merge --patch "$3" -- "$2" && return
	echo "Service $1/$2 is not told to keep what it has" >&2
	failed=1
}
"#;
const TAIL: &str = "exit $failed\n";

/// A word of sh, whatever is in it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn whatever_a_name_has_it_is_one_word_of_a_shell() {
        for (text, word) in [
            ("web", "web"),
            ("-x", "'-x'"),
            ("", "''"),
            ("a b;$(c)", "'a b;$(c)'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }
}
