//! Tokens of ServiceAccounts, as a kubelet asks for them, and kubeconfigs with them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::control_plane::url_for_nodes;
use crate::disk::{LabDir, replace};

/// A token for a day that is bound to nothing.
pub async fn of_account(client: &Client, namespace: &str, account: &str) -> Result<String> {
    token(client, namespace, account, None).await
}

/// A token of a pod of an account of `kube-system` on this node, which the API server tells of it (KEP-4193). The pod is
/// named by both and never runs.
pub async fn of_pod(client: &Client, account: &str, node: &str) -> Result<String> {
    of_pod_in(client, "kube-system", account, node).await
}

/// The same of an account of another namespace.
pub async fn of_pod_in(
    client: &Client,
    namespace: &str,
    account: &str,
    node: &str,
) -> Result<String> {
    let pod = json!({
        "metadata": { "name": format!("{account}-{node}") },
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{ "name": "none", "image": "none" }],
        },
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name,
        uid: pod.metadata.uid,
    };
    token(client, namespace, account, Some(bound)).await
}

async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    bound_object_ref: Option<BoundObjectReference>,
) -> Result<String> {
    let expiration_seconds = Some(86_400);
    let spec = TokenRequestSpec { expiration_seconds, bound_object_ref, ..Default::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("a token request without status")?.token)
}

/// Where the kubeconfig of an account is, in the folder of a lab.
pub(crate) fn kubeconfig(lab: &LabDir, account: &str) -> PathBuf {
    lab.join(format!("{account}.kubeconfig"))
}

/// Writes it, for programs on nodes and the control plane.
pub(crate) fn write_kubeconfig(lab: &LabDir, account: &str, token: &str) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": url_for_nodes(), "certificate-authority": lab.join("pki/ca.crt"),
        } }],
        "users": [{ "name": account, "user": { "token": token } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": account } }],
        "current-context": "lab",
    });
    replace(&kubeconfig(lab, account), config.to_string())
}
