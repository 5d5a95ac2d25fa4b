//! Reads the API server's own count of requests, so that cost is judged by whoever pays it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

/// Requests that the API server has answered, by verb and resource.
///
/// Source: the metric `apiserver_request_total`. WATCH counts once per watch, when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<(String, String), u64>);

impl Requests {
    /// Reads the counters as they stand.
    ///
    /// # Errors
    /// When `/metrics` cannot be read.
    pub async fn read(client: &Client) -> Result<Self> {
        Ok(Self::parse(&metrics(client).await?))
    }

    fn parse(text: &str) -> Self {
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let Some((labels, value)) = line.rsplit_once("} ") else { continue };
            let Ok(value) = value.trim().parse::<f64>() else { continue };
            let key = (label(labels, "verb"), label(labels, "resource"));
            // The counter is a float on the wire and whole by nature.
            *counts.entry(key).or_insert(0) += value as u64;
        }
        Self(counts)
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = self.0.iter().filter_map(|(key, count)| {
            let before = earlier.0.get(key).copied().unwrap_or(0);
            (*count > before).then(|| (key.clone(), count - before))
        });
        Self(grown.collect())
    }

    /// The count of one verb (`GET`, `LIST`, `POST`, `PUT`, `PATCH`, `DELETE`, `WATCH`) on one resource (`services`).
    #[must_use]
    pub fn count(&self, verb: &str, resource: &str) -> u64 {
        self.0.get(&(verb.to_owned(), resource.to_owned())).copied().unwrap_or(0)
    }

    /// All requests of one verb.
    #[must_use]
    pub fn of_verb(&self, verb: &str) -> u64 {
        self.0.iter().filter(|((counted, _), _)| counted == verb).map(|(_, count)| count).sum()
    }

    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Every count above zero, in order of verb and resource.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.0.iter().map(|((verb, resource), count)| (verb.as_str(), resource.as_str(), *count))
    }
}

/// Requests of one ServiceAccount of `kube-system`, of all processes that run as it.
///
/// Source: the metric `apiserver_flowcontrol_dispatched_requests_total` of a flow schema that takes them and nothing
/// else (API priority and fairness). A WATCH counts when it begins.
#[derive(Clone, Copy, Debug)]
pub struct RequestsOf(&'static str);

impl RequestsOf {
    /// Makes the API server count them apart, a second later at the latest.
    ///
    /// # Errors
    /// When the flow schema cannot be made.
    pub async fn account(client: &Client, account: &'static str) -> Result<Self> {
        let schema: FlowSchema = serde_json::from_value(json!({
            "metadata": { "name": account },
            "spec": {
                // Before those that look at Leases alone.
                "matchingPrecedence": 50,
                "priorityLevelConfiguration": { "name": "workload-low" },
                "distinguisherMethod": { "type": "ByUser" },
                "rules": [{
                    "subjects": [{
                        "kind": "ServiceAccount",
                        "serviceAccount": { "name": account, "namespace": "kube-system" },
                    }],
                    "resourceRules": [{
                        "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                        "clusterScope": true, "namespaces": ["*"],
                    }],
                    "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
                }],
            },
        }))?;
        let created = Api::all(client.clone()).create(&PostParams::default(), &schema).await;
        created.with_context(|| format!("make a flow schema for {account}"))?;
        Ok(Self(account))
    }

    /// The counter as it stands.
    ///
    /// # Errors
    /// When `/metrics` cannot be read.
    pub async fn read(&self, client: &Client) -> Result<u64> {
        let text = metrics(client).await?;
        let metric = "apiserver_flowcontrol_dispatched_requests_total{";
        let counts = text.lines().filter_map(|line| line.strip_prefix(metric)?.rsplit_once("} "));
        let own = counts.filter(|(labels, _)| label(labels, "flow_schema") == self.0);
        Ok(own.filter_map(|(_, value)| Some(value.trim().parse::<f64>().ok()? as u64)).sum())
    }
}

async fn metrics(client: &Client) -> Result<String> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    client.request_text(request).await.context("read the API server's /metrics")
}

/// The value of one label; empty when it is not there.
fn label(labels: &str, name: &str) -> String {
    let wanted = format!("{name}=\"");
    labels
        .split([',', '{'])
        .find_map(|part| part.strip_prefix(&wanted))
        .map(|value| value.trim_end_matches('"').to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE apiserver_request_total counter
apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="services",scope="resource",subresource="",verb="POST",version="v1"} 3
apiserver_request_total{code="409",component="apiserver",dry_run="",group="",resource="services",scope="resource",subresource="",verb="POST",version="v1"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="services",scope="cluster",subresource="",verb="LIST",version="v1"} 2
"#;

    #[test]
    fn counts_add_up_over_answers_of_every_code() {
        let requests = Requests::parse(TEXT);
        assert_eq!(requests.count("POST", "services"), 4);
        assert_eq!(requests.of_verb("LIST"), 2);
    }

    #[test]
    fn a_difference_names_only_what_grew() {
        let before = Requests::parse(TEXT);
        let after = Requests::parse(
            &TEXT.replace("\"LIST\",version=\"v1\"} 2", "\"LIST\",version=\"v1\"} 5"),
        );
        let grown: Vec<_> =
            after.since(&before).iter().map(|(v, r, n)| (v.to_owned(), r.to_owned(), n)).collect();
        assert_eq!(grown, [("LIST".to_owned(), "services".to_owned(), 3)]);
    }
}
