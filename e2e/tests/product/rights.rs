//! What accounts may do, pods need, and overlays bring, asked of a real API server as docs/security.md tells it.

use anyhow::{Context, Result, ensure};
use berth_e2e::lab::{Lab, Spec};
use berth_e2e::tokens;
use berth_e2e::world::{eventually, kubectl, repository};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::AuthInfo;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::generated;
use crate::tenant::client_as;

/// The namespace of those who are bound to roles of Kubernetes.
const TENANTS: &str = "shop";
/// These roles, which are the names of ServiceAccounts here.
const ROLES: [&str; 3] = ["view", "edit", "admin"];

/// What stands behind a slash and is no name of an object.
const SUBRESOURCES: [&str; 3] = ["status", "token", "pins"];

/// The namespace of `overlays/own-namespace`.
const OWN: &str = "berth";

/// The account of the pods that are asked for.
const PODS: &str = "pods";
/// Those of Pod Security, and here namespaces that enforce them.
const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];

/// The namespace of tenants with an account bound to each role, and one of each level with an account for pods.
fn namespaces() -> Value {
    let account = |name: &str, namespace: &str| {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": name, "namespace": namespace },
        })
    };
    let namespace = |name: &str, labels: Value| {
        json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
        })
    };
    let binding = |role: &str| {
        let group = "rbac.authorization.k8s.io";
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": { "name": role, "namespace": TENANTS },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "namespace": TENANTS, "name": role }],
        })
    };
    let mut items = vec![namespace(TENANTS, json!({}))];
    items.extend(ROLES.into_iter().flat_map(|role| [account(role, TENANTS), binding(role)]));
    items.extend(LEVELS.into_iter().flat_map(|level| {
        let labels = json!({ "pod-security.kubernetes.io/enforce": level });
        [namespace(level, labels), account(PODS, level)]
    }));
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// The rows of the table of so many columns under a heading of docs/security.md.
pub(crate) fn table<const N: usize>(heading: &str) -> Result<Vec<[String; N]>> {
    let text = std::fs::read_to_string(repository().join("docs/security.md"))?;
    let (_, section) = text.split_once(&format!("{heading}\n")).context("no such section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    let rows = lines.skip(1).map(|line| {
        let cells: Vec<String> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().map_err(|cells| anyhow::anyhow!("no row of {N} cells: {cells:?}"))
    });
    let rows: Vec<[String; N]> = rows.collect::<Result<_>>()?;
    ensure!(rows.len() > 20, "{heading}: {rows:?}");
    Ok(rows)
}

/// Whether the account may, as the API server's authorizers say. `resource` is `resource.group`, with one of
/// [`SUBRESOURCES`] or the name of an object behind a slash; `*` as the namespace is all of them.
async fn may(client: &Client, asked: [&str; 4]) -> Result<bool> {
    let home = if ROLES.contains(&asked[0]) { TENANTS } else { "kube-system" };
    may_from(client, home, asked).await
}

/// The same of an account of the namespace `home`.
async fn may_from(
    client: &Client,
    home: &str,
    [account, verb, resource, namespace]: [&str; 4],
) -> Result<bool> {
    let (resource, rest) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let is_subresource = SUBRESOURCES.contains(&rest);
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let attributes = ResourceAttributes {
        verb: given(verb),
        group: given(group),
        resource: given(resource),
        subresource: given(rest).filter(|_| is_subresource),
        name: given(rest).filter(|_| !is_subresource),
        namespace: given(namespace).filter(|namespace| namespace != "*"),
        ..ResourceAttributes::default()
    };
    let groups = ["system:authenticated", "system:serviceaccounts"].map(ToOwned::to_owned);
    let groups = groups.into_iter().chain([format!("system:serviceaccounts:{home}")]);
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{home}:{account}")),
        groups: Some(groups.collect()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let status = api.create(&PostParams::default(), &review).await?.status;
    let status = status.context("a review without an answer")?;
    ensure!(status.evaluation_error.is_none(), "{account} {verb} {resource}: {status:?}");
    Ok(status.allowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_pods_and_overlays_are_as_the_docs_say() -> Result<()> {
    let lab = Lab::up(Spec::bare(1)).await?;
    let file = lab.dir().join("namespaces.json");
    std::fs::write(&file, namespaces().to_string())?;
    let files = ["eipbinding-crd", "eipbinding-rbac", "announcer-rbac", "ccm-rbac"]
        .map(|file| repository().join(format!("manifests/{file}.yaml")));
    let files: Vec<String> =
        files.iter().map(|file| format!("--filename={}", file.display())).collect();
    let arguments = ["apply", "--namespace=kube-system"].into_iter();
    kubectl(&lab, &arguments.chain(files.iter().map(String::as_str)).collect::<Vec<_>>())?;
    kubectl(&lab, &["apply", "-f", &file.display().to_string()])?;
    the_accounts_may_do_what_the_docs_say_and_nothing_else_of_it(&lab).await?;
    who_may_edit_a_namespace_edits_elastic_ips_there_and_no_status(&lab).await?;
    the_pods_fit_the_levels_that_the_docs_name(&lab).await?;
    berth_in_another_namespace_has_its_rights_there(&lab).await?;
    every_overlay_is_accepted(&lab)?;
    // Last: what it applies is called as what was applied before.
    generated::every_manifest_is_accepted(&lab)?;
    lab.down()
}

async fn the_accounts_may_do_what_the_docs_say_and_nothing_else_of_it(lab: &Lab) -> Result<()> {
    let client = lab.client();
    // kube-controller-manager has put the rights of EipBindings into the roles of Kubernetes.
    let last = ["admin", "create", "eipbindings.berth.dev", TENANTS];
    eventually("roles are aggregated", 20, || async {
        Ok(may(&client, last).await?.then_some(()))
    })
    .await?;
    let known = kubectl(lab, &["api-resources", "--output=name"])?;
    for row in table::<5>("## Rights")? {
        let [account, verb, resource, namespace, said] = row.each_ref().map(String::as_str);
        let kind = resource.split('/').next().unwrap_or_default();
        ensure!(known.lines().any(|known| known == kind), "there is no resource {kind}");
        let answer = may(&client, [account, verb, resource, namespace]).await?;
        let answer = if answer { "yes" } else { "no" };
        ensure!(answer == said, "{account} {verb} {resource} in {namespace}: {answer}, not {said}");
    }
    Ok(())
}

/// By real tokens, and by what becomes of the objects.
async fn who_may_edit_a_namespace_edits_elastic_ips_there_and_no_status(lab: &Lab) -> Result<()> {
    let kind = GroupVersionKind::gvk("berth.dev", "v1alpha1", "EipBinding");
    let kind = ApiResource::from_gvk_with_plural(&kind, "eipbindings");
    let bindings = async |role: &str, namespace: &str| {
        let token = tokens::of_account(&lab.client(), TENANTS, role).await?;
        let client = client_as(lab, |info| {
            *info = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
        });
        anyhow::Ok(Api::<DynamicObject>::namespaced_with(client.await?, namespace, &kind))
    };
    let forbidden = |answer: kube::Result<DynamicObject>| match answer {
        Err(Error::Api(status)) if status.code == 403 => Ok(()),
        other => Err(anyhow::anyhow!("not forbidden: {other:?}")),
    };
    let binding: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
        "metadata": { "name": "vm" }, "spec": { "vmi": "vm" },
    }))?;
    let (make, patch) = (PostParams::default(), PatchParams::default());
    let (edit, view) = (bindings("edit", TENANTS).await?, bindings("view", TENANTS).await?);
    edit.create(&make, &binding).await?;
    let spec = Patch::Merge(json!({ "spec": { "retain": false } }));
    edit.patch("vm", &patch, &spec).await?;
    let status = json!({ "status": { "eips": ["192.0.2.1"], "node": "node0" } });
    let status = Patch::Merge(status);
    forbidden(edit.patch_status("vm", &patch, &status).await)?;
    forbidden(bindings("admin", TENANTS).await?.patch_status("vm", &patch, &status).await)?;
    forbidden(bindings("edit", "default").await?.create(&make, &binding).await)?;
    forbidden(view.patch("vm", &patch, &spec).await)?;
    let seen = view.get("vm").await?;
    ensure!(seen.data["spec"]["retain"] == json!(false), "{:?}", seen.data);
    ensure!(seen.data.get("status").is_none(), "{:?}", seen.data);
    Ok(())
}

/// Asks the admission of Pod Security for the pods of `manifests/`, with every level that a namespace can enforce.
async fn the_pods_fit_the_levels_that_the_docs_name(lab: &Lab) -> Result<()> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    for (file, fits) in [("ccm", ["yes", "yes", "yes"]), ("announcer", ["yes", "no", "no"])] {
        let path = repository().join(format!("manifests/{file}.yaml")).display().to_string();
        let workload = kubectl(lab, &["create", "--dry-run=client", "-o", "json", "-f", &path])?;
        let workload: Value = serde_json::from_str(&workload)?;
        let mut spec = workload["spec"]["template"]["spec"].clone();
        spec["serviceAccountName"] = json!(PODS);
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "asked" }, "spec": spec }))?;
        for (level, fits) in LEVELS.into_iter().zip(fits) {
            let pods: Api<Pod> = Api::namespaced(lab.client(), level);
            let answer = match pods.create(&dry, &pod).await {
                Ok(_) => "yes",
                Err(Error::Api(status)) if status.message.contains("violates PodSecurity") => "no",
                Err(error) => return Err(error.into()),
            };
            ensure!(answer == fits, "the pod of manifests/{file}.yaml, {level}: {answer}");
        }
    }
    Ok(())
}

/// A Role is bound to the accounts of the namespace that it is in, what settings name is there, and nothing is left that
/// names `kube-system` but what berth-ccm reads there of the control plane.
async fn berth_in_another_namespace_has_its_rights_there(lab: &Lab) -> Result<()> {
    let folder = repository().join("overlays/own-namespace").display().to_string();
    let text = kubectl(lab, &["create", "--dry-run=client", "--output=json", "-k", &folder])?;
    let objects: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<_, _>>()?;
    let (there, others): (Vec<&Value>, Vec<&Value>) =
        objects.iter().partition(|object| object["metadata"]["name"] == "berth-ccm-control-plane");
    let stay = there.iter().all(|object| object["metadata"]["namespace"] == "kube-system");
    ensure!(there.len() == 2 && stay, "{there:?}");
    ensure!(others.iter().all(|object| !object.to_string().contains("kube-system")), "{others:?}");
    let workloads = ["DaemonSet", "StatefulSet"];
    let is_workload = |object: &&Value| workloads.iter().any(|kind| object["kind"] == *kind);
    let (named, arguments): (Vec<_>, Vec<_>) = objects
        .iter()
        .filter(is_workload)
        .map(|object| &object["spec"]["template"]["spec"]["containers"][0])
        .map(|container| (container["env"].to_string(), container["args"].to_string()))
        .unzip();
    let places = [
        r#"{"name":"cp_namespace","value":"berth"}"#,
        r#"{"name":"KUBEVIP_NAMESPACE","value":"berth"}"#,
    ];
    let is_named = |place: &&str| named.iter().any(|env| env.contains(*place));
    ensure!(places.iter().all(is_named), "{named:?}");
    let lease = "--leader-elect-resource-namespace=$(KUBEVIP_NAMESPACE)";
    ensure!(arguments.iter().any(|all| all.contains(lease)), "{arguments:?}");

    // Its pods are for nodes that have its images.
    let items: Vec<_> = objects.iter().filter(|object| !is_workload(object)).collect();
    let file = lab.dir().join("own-namespace.json");
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    std::fs::write(&file, list.to_string())?;
    kubectl(lab, &["apply", "-f", &file.display().to_string()])?;
    let client = lab.client();
    for row in table::<5>("## Rights")? {
        let [account, verb, resource, namespace, said] = row.each_ref().map(String::as_str);
        if ROLES.contains(&account) {
            continue;
        }
        let namespace = if namespace == "kube-system" { OWN } else { namespace };
        let answer = may_from(&client, OWN, [account, verb, resource, namespace]).await?;
        let answer = if answer { "yes" } else { "no" };
        ensure!(answer == said, "{account} of {OWN} {verb} {resource} in {namespace}: {answer}");
    }
    let elsewhere = [
        ("berth-announcer", "update", false),
        ("berth-announcer", "create", false),
        ("berth-ccm", "list", true),
        ("berth-ccm", "watch", true),
        ("berth-ccm", "create", false),
        ("berth-ccm", "update", false),
    ];
    for (account, verb, said) in elsewhere {
        let asked = [account, verb, "leases.coordination.k8s.io", "kube-system"];
        ensure!(may_from(&client, OWN, asked).await? == said, "{asked:?}");
    }
    the_policies_hold_it_to_its_namespace(lab).await
}

/// By real tokens of pods there.
async fn the_policies_hold_it_to_its_namespace(lab: &Lab) -> Result<()> {
    let policies = repository().join("overlays/policies").display().to_string();
    kubectl(lab, &["apply", "-k", &policies])?;
    let token = tokens::of_pod_in(&lab.client(), OWN, "berth-announcer", "node0").await?;
    let client = client_as(lab, |info| {
        *info = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
    });
    let leases: Api<Lease> = Api::namespaced(client.await?, OWN);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let make = async |name: &str| {
        let spec = json!({ "holderIdentity": "node0" });
        let lease = json!({ "metadata": { "name": name }, "spec": spec });
        anyhow::Ok(leases.create(&dry, &serde_json::from_value(lease)?).await)
    };
    // They hold a moment after they were written.
    eventually("another node's Lease is denied", 20, || async {
        let answer = make("berth-announcer-node1").await?;
        let is_denied = |error: &Error| matches!(error, Error::Api(status) if status.message.contains("Policy 'berth-"));
        Ok(answer.err().filter(is_denied).map(drop))
    })
    .await?;
    for name in ["berth-announcer-node0", "plndr-svcs-lock", "kubevip-web"] {
        make(name).await?.with_context(|| name.to_owned())?;
    }
    kubectl(lab, &["delete", "-k", &policies]).map(drop)
}

/// Each with the manifests that it builds on, if it does; what is applied beside them by itself.
fn every_overlay_is_accepted(lab: &Lab) -> Result<()> {
    let overlays = std::fs::read_dir(repository().join("overlays"))?;
    let mut count = 0;
    for overlay in overlays {
        let overlay = overlay?;
        let folder = overlay.path().display().to_string();
        let brings = match overlay.file_name().to_str() {
            Some("network-policy") => "networkpolicy.networking.k8s.io/berth-ccm",
            Some("policies") => "validatingadmissionpolicy.admissionregistration.k8s.io/berth-ccm",
            Some("tenants") => "validatingadmissionpolicy.admissionregistration.k8s.io/berth-pins",
            _ => "daemonset.apps/berth-announcer",
        };
        let said = kubectl(lab, &["apply", "--dry-run=server", "-k", &folder])?;
        ensure!(said.contains(brings), "{folder}: {said}");
        count += 1;
    }
    ensure!(count == 7, "{count} overlays");
    Ok(())
}
