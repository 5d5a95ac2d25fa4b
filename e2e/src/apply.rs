//! Objects of files, made as `kubectl apply` makes what is new, with its annotation and the API server's strict validation. A
//! kubectl of its own for each file of each world, with all that it reads first, costs as much as the control plane's start.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use serde_json::Value;

/// By what `kubectl apply` knows later what it has to take away.
const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
const QUERY: &str = "fieldManager=kubectl-client-side-apply&fieldValidation=Strict";

/// Makes all objects of a text of YAML. Those of a namespace are made in this one. A resource that is new is served when this
/// returns.
///
/// # Errors
/// When one of them is there already, is refused, or is of a kind that this does not know.
pub async fn create(client: &Client, yaml: &str, namespace: &str) -> Result<()> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    let objects = || objects.iter().filter(|object| !object.is_null());
    for object in objects() {
        let what = || format!("{} {}", object["kind"], object["metadata"]["name"]);
        make(client, object.clone(), namespace).await.with_context(what)?;
    }
    for object in objects().filter(|object| object["kind"] == "CustomResourceDefinition") {
        served(client, &object["spec"]).await?;
    }
    Ok(())
}

async fn make(client: &Client, mut object: Value, namespace: &str) -> Result<()> {
    let at = format!("{}?{QUERY}", collection(&object, namespace)?);
    let last = format!("{object}\n");
    let annotations = object["metadata"].as_object_mut().context("no metadata")?;
    let annotations =
        annotations.entry("annotations").or_insert_with(|| Value::Object(<_>::default()));
    annotations[LAST] = last.into();
    let request = http::Request::post(at).header("Content-Type", "application/json");
    client.request::<Value>(request.body(serde_json::to_vec(&object)?)?).await?;
    Ok(())
}

/// Where objects of its kind are made.
fn collection(object: &Value, namespace: &str) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let root = if version.contains('/') { "apis" } else { "api" };
    let plural = format!("{}s", kind.to_lowercase());
    let of_a_namespace = match kind.as_str() {
        "ClusterRole" | "ClusterRoleBinding" | "CustomResourceDefinition" => false,
        "Deployment" | "Role" | "RoleBinding" | "Secret" | "ServiceAccount" => true,
        other => bail!("{other:?} is no kind that this makes"),
    };
    Ok(match of_a_namespace {
        true => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        false => format!("/{root}/{version}/{plural}"),
    })
}

/// Waits until the objects of a new resource can be listed.
async fn served(client: &Client, spec: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned).context("no text");
    let (group, plural) = (text(&spec["group"])?, text(&spec["names"]["plural"])?);
    let version = text(&spec["versions"][0]["name"])?;
    let at = format!("/apis/{group}/{version}/{plural}?limit=1");
    let start = Instant::now();
    loop {
        let request = http::Request::get(&at).body(Vec::new())?;
        let Err(error) = client.request::<Value>(request).await else { return Ok(()) };
        if start.elapsed() > Duration::from_secs(30) {
            return Err(error).with_context(|| format!("{plural}.{group} is not served in 30 s"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until all pods of a Deployment are of its template and Ready, as `kubectl rollout status` does.
pub async fn rolled_out(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let is_there = |deployment: Option<&Deployment>| deployment.is_some_and(is_rolled_out);
    let wait = await_condition(deployments, name, is_there);
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.context("its pods are not Ready within 60 s")??;
    Ok(())
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        let pods = [status.replicas, status.updated_replicas, status.available_replicas];
        status.observed_generation >= deployment.metadata.generation
            && pods.iter().all(|pods| pods.unwrap_or_default() == wanted)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_object_that_a_world_has_of_the_manifests_can_be_made() {
        let files = ["manifests/ccm-rbac.yaml", "manifests/eipbinding-crd.yaml"];
        let read = |file| std::fs::read_to_string(crate::world::repository().join(file)).unwrap();
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&files.map(read).join("\n---\n")).unwrap();
        let at: Vec<_> = objects.iter().map(|o| collection(o, "kube-system").unwrap()).collect();
        assert_eq!(at[0], "/api/v1/namespaces/kube-system/serviceaccounts");
        assert_eq!(at[5], "/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
        assert_eq!(objects[5]["spec"]["group"], "berth.dev");
    }

    #[test]
    fn an_object_is_made_where_its_kind_and_version_say() {
        let at = |version: &str, kind: &str| {
            collection(&json!({ "apiVersion": version, "kind": kind }), "shop").ok()
        };
        let secrets = at("v1", "Secret");
        assert_eq!(secrets.as_deref(), Some("/api/v1/namespaces/shop/secrets"));
        let deployments = at("apps/v1", "Deployment");
        assert_eq!(deployments.as_deref(), Some("/apis/apps/v1/namespaces/shop/deployments"));
        let roles = at("rbac.authorization.k8s.io/v1", "ClusterRole");
        assert_eq!(roles.as_deref(), Some("/apis/rbac.authorization.k8s.io/v1/clusterroles"));
        assert_eq!(at("v1", "Endpoints"), None);
    }
}
