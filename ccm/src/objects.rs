//! Owns reading objects of a cluster out of a file: what kubectl prints, in JSON or YAML, or YAML as people keep it. Whoever
//! wrote one of them keeps no other from being read.

use serde_json::Value;
use serde_saphyr::options::NonFiniteFloatPolicy;

use crate::check::manifest::items;

/// What a file has, however it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects(Vec<Value>);

impl Objects {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it is neither JSON nor YAML, on one line.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if let Ok(document) = serde_json::from_str(text) {
            return Ok(Self(vec![document]));
        }
        // Texts that kubectl leaves without quotes, for they are nothing else to it, as `-.nan` and `1e400`, are numbers here. And
        // a cluster has as many objects as it has: a file is no larger when it is read than it is, but for what aliases repeat.
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 4 * text.len() + 64,
                max_nodes: 4 * text.len() + 64,
                max_total_scalar_bytes: 4 * text.len() + 64,
                max_documents: text.len() + 1,
                max_aliases: 100,
            },
            non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        };
        let documents = serde_saphyr::from_multiple_with_options(text, options);
        let one_line = |error: serde_saphyr::Error| {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().replace(char::is_control, "?")
        };
        documents.map(Self).map_err(one_line)
    }

    /// Each of them: those of a List, too.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().flat_map(items)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let objects = Objects::read(text).unwrap();
        objects.all().map(|object| object["metadata"]["name"].to_string()).collect()
    }

    #[test]
    fn what_one_author_writes_keeps_no_other_object_from_being_read() {
        // As kubectl prints annotations whose values, or whose names, are these.
        for odd in [
            "x: -.nan",
            "x: .nAn",
            "x: 1e400",
            "x: +.NAN",
            "x: \"\\e[2J\"",
            "? a.b/long\n      : \"y\"",
        ] {
            let text = format!(
                "apiVersion: v1\nitems:\n- kind: Service\n  metadata:\n    annotations:\n      {odd}\n    name: odd\n\
                 - kind: Service\n  metadata:\n    name: web\nkind: List\n"
            );
            assert_eq!(names(&text), ["\"odd\"", "\"web\""], "{odd}");
        }
    }

    #[test]
    fn a_cluster_may_be_as_large_as_it_is() {
        let annotations: Value = (0..45_000)
            .map(|number| (format!("a{number}"), json!("")))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let full = |name: &str| json!({ "kind": "Service", "metadata": { "name": name, "annotations": annotations } });
        let items: Vec<Value> = ["a", "b", "c", "d"].map(full).into();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        assert_eq!(names(&list.to_string()).len(), 4);
        let yaml = serde_saphyr::to_string(&list).unwrap();
        assert_eq!(names(&yaml).len(), 4);
    }

    #[test]
    fn what_is_no_file_of_objects_is_said_on_one_line_that_a_terminal_may_be_shown() {
        let scalar = "x".repeat(100_000);
        let bomb = format!("a: &a {scalar}\nb: [{}]\n", vec!["*a"; 5000].join(", "));
        for text in ["kind: [", "{ \"kind\": ", "a: [\u{1b}]2;mine\u{7}\n", &bomb] {
            let said = Objects::read(text).unwrap_err();
            assert!(!said.contains(char::is_control) && !said.is_empty(), "{said:?}");
        }
    }
}
