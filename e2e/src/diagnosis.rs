//! What somebody asks a cluster in which a test failed, asked while it is still there.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;

/// What is asked of every cluster.
const QUESTIONS: [&[&str]; 4] = [
    &["get", "nodes", "--output=wide"],
    &["get", "pods", "--all-namespaces", "--output=wide"],
    &["get", "services,configmaps,leases,ipaddresses", "--all-namespaces"],
    &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
];
/// The logs of Berth, those of containers that ended as well.
const LOGS: [&str; 2] = ["daemonset/berth-announcer", "statefulset/berth-ccm"];

/// What shows why a test failed: pods, events, what is not Ready in detail, the logs of Berth. What cannot be asked is
/// told in its place.
pub fn of(cluster: &dyn Cluster) -> String {
    let mut questions: Vec<Vec<String>> = QUESTIONS.iter().map(|q| owned(q)).collect();
    let mut text = String::new();
    match unready(cluster) {
        Ok(unready) => questions.extend(unready),
        Err(e) => text += &format!("--- what is not Ready: {e:#}\n"),
    }
    for object in LOGS {
        let log = [
            "--namespace=kube-system",
            "logs",
            object,
            "--all-pods",
            "--tail=30",
            "--ignore-errors",
        ];
        questions.push(owned(&log));
        questions.push(owned(&[&log[..], &["--previous"]].concat()));
    }
    for question in questions {
        let arguments: Vec<&str> = question.iter().map(String::as_str).collect();
        let answer = cluster.run_kubectl(&arguments).unwrap_or_else(|e| format!("{e:#}"));
        text += &format!("--- kubectl {}\n{}\n", question.join(" "), answer.trim_end());
    }
    text
}

/// `describe` for each node and pod that is not Ready.
fn unready(cluster: &dyn Cluster) -> Result<Vec<Vec<String>>> {
    let list = cluster.run_kubectl(&["get", "nodes,pods", "--all-namespaces", "--output=json"])?;
    Ok(questions(&serde_json::from_str(&list).context("kubectl get nodes,pods")?))
}

fn questions(list: &Value) -> Vec<Vec<String>> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter(|item| !is_ready(item)).map(describe).collect()
}

/// What has run to its end is Ready no more, and nothing is wrong with it.
fn is_ready(item: &Value) -> bool {
    let conditions = item["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|c| c["type"] == "Ready");
    item["status"]["phase"] == "Succeeded" || ready.any(|c| c["status"] == "True")
}

fn describe(item: &Value) -> Vec<String> {
    let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &item["metadata"];
    let mut question = owned(&["describe", &field(&item["kind"]), &field(&metadata["name"])]);
    question.extend(metadata["namespace"].as_str().map(|name| format!("--namespace={name}")));
    question
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_ready_is_described_and_nothing_else() {
        let pod = |name: &str, phase: &str, ready: &str| {
            json!({"kind": "Pod", "metadata": {"name": name, "namespace": "n"}, "status": {
                "phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let list = json!({"items": [
            {"kind": "Node", "metadata": {"name": "up"},
             "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"kind": "Node", "metadata": {"name": "new"}},
            pod("serves", "Running", "True"), pod("waits", "Running", "False"), pod("ended", "Succeeded", "False"),
        ]});
        assert_eq!(
            questions(&list),
            [
                owned(&["describe", "Node", "new"]),
                owned(&["describe", "Pod", "waits", "--namespace=n"])
            ]
        );
    }
}
