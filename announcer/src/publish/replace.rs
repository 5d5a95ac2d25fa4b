//! Writes a status by replacing the object as it was read, where the role has `update` and no `patch`: what kube-vip's
//! manifests grant. Untyped, so that a field which this program does not know stays.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::Status;
use kube::{Client, Error};
use serde_json::{Map, Value};

use crate::source::cluster::Name;

/// How long it is not asked again whether a patch is allowed.
const AGAIN: Duration = Duration::from_secs(600);

/// Whether the role lacks `patch` and has what stands in for it. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rights(Arc<Mutex<Option<Instant>>>);

impl Rights {
    /// Whether a patch is not to be tried now.
    pub(super) fn lack_patch(&self, now: Instant) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now < since + AGAIN)
    }

    /// Takes in that a patch was refused with these words, and what stands in for it was not. Where both are nothing is known
    /// of the role: an API server that has just begun refuses anything.
    pub(super) fn serve(&self, refused: &str, now: Instant) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if before.is_none() {
            tracing::warn!(
                why = refused,
                "statuses are replaced as the role allows, which costs two requests each: add the verb patch to \
                 services/status, as manifests/ has it"
            );
        }
    }

    /// Takes in that what stands in for a patch is refused.
    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether a patch was refused because the role lacks it, as far as the API server says, and not for what it says.
pub(super) fn is_lacking(refused: &Status) -> bool {
    refused.code == 403 && refused.message.contains("cannot patch resource")
}

/// So often what names no version is tried where somebody else's write comes between, as an API server does with a patch.
const TRIES: usize = 5;

/// Reads the Service, puts in what the patch says, and replaces its status.
///
/// # Errors
/// Those of the API server; 409 where the Service is not the one that the patch names.
pub(super) async fn status(client: Client, name: &Name, patch: &Value) -> kube::Result<Service> {
    let resource = ApiResource::erase::<Service>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, &name.namespace, &resource);
    let mut tries = if patch["metadata"]["resourceVersion"].is_null() { TRIES } else { 1 };
    loop {
        let mut object = api.get(&name.name).await?;
        if !put(&mut object, patch) {
            return Err(Error::Api(Box::new(Status { code: 409, ..Status::default() })));
        }
        tries -= 1;
        match api.replace_status(&name.name, &PostParams::default(), &object).await {
            Err(Error::Api(status)) if status.code == 409 && tries > 0 => {}
            answer => {
                let written = serde_json::to_value(answer?).and_then(serde_json::from_value);
                return written.map_err(Error::SerdeError);
            }
        }
    }
}

/// Puts what [`super::status::Update::patch`] says into the object; false if it says that of another, or of an older one.
fn put(object: &mut DynamicObject, patch: &Value) -> bool {
    let (said, metadata) = (&patch["metadata"], &mut object.metadata);
    let is_it =
        |own: &Option<String>, said: &Value| said.is_null() || own.as_deref() == said.as_str();
    if !is_it(&metadata.uid, &said["uid"])
        || !is_it(&metadata.resource_version, &said["resourceVersion"])
    {
        return false;
    }
    let annotations = metadata.annotations.get_or_insert_default();
    for (key, value) in said["annotations"].as_object().into_iter().flatten() {
        match value.as_str() {
            Some(text) => _ = annotations.insert(key.clone(), text.to_owned()),
            None => _ = annotations.remove(key),
        }
    }
    let status = patch["status"].as_object().into_iter().flatten();
    let own = &mut object.data["status"];
    for (key, value) in status {
        match key.as_str() {
            "conditions" => put_conditions(&mut own["conditions"], value),
            _ => put_fields(&mut own[key], value),
        }
    }
    true
}

/// By `type`, as a strategic merge patch has them.
fn put_conditions(own: &mut Value, said: &Value) {
    let mut all = own.as_array().cloned().unwrap_or_default();
    for condition in said.as_array().into_iter().flatten() {
        let at = all.iter().position(|one| one["type"] == condition["type"]);
        match (at, condition["$patch"] == "delete") {
            (Some(at), true) => _ = all.remove(at),
            (None, true) => {}
            (Some(at), false) => all[at] = condition.clone(),
            (None, false) => all.push(condition.clone()),
        }
    }
    *own = Value::Array(all);
}

/// Each as it is said; what is null goes.
fn put_fields(own: &mut Value, said: &Value) {
    if !own.is_object() {
        *own = Value::Object(Map::new());
    }
    for (key, value) in said.as_object().into_iter().flatten() {
        own[key] = value.clone();
    }
    own.as_object_mut().into_iter().for_each(|own| own.retain(|_, value| !value.is_null()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> DynamicObject {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "uid": "uid", "resourceVersion": "7",
                "annotations": { "own": "stays", "kube-vip.io/vipHost": "b" },
            },
            "spec": { "type": "LoadBalancer", "new": true },
            "status": {
                "loadBalancer": { "ingress": [{ "ip": "192.0.2.9" }] },
                "conditions": [{ "type": "other" }, { "type": "ours", "status": "True" }],
                "new": 1,
            },
        });
        serde_json::from_value(object).unwrap()
    }

    fn after(patch: Value) -> Option<Value> {
        let mut object = service();
        put(&mut object, &patch).then(|| serde_json::to_value(object).unwrap())
    }

    #[test]
    fn what_a_patch_says_is_put_in_and_all_else_stays() {
        let written = after(json!({
            "metadata": {
                "uid": "uid", "resourceVersion": "7",
                "annotations": { "kube-vip.io/vipHost": "a", "berth.dev/conflict": null },
            },
            "status": {
                "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "VIP" }] },
                "conditions": [
                    { "type": "ours", "status": "False" }, { "type": "gone", "$patch": "delete" },
                    { "type": "third" },
                ],
            },
        }))
        .unwrap();
        let mut expected = serde_json::to_value(service()).unwrap();
        expected["metadata"]["annotations"]["kube-vip.io/vipHost"] = json!("a");
        expected["status"]["loadBalancer"]["ingress"] =
            json!([{ "ip": "192.0.2.1", "ipMode": "VIP" }]);
        expected["status"]["conditions"] = json!([
            { "type": "other" }, { "type": "ours", "status": "False" }, { "type": "third" },
        ]);
        assert_eq!(written, expected);
        let cleared = after(json!({
            "metadata": { "uid": "uid", "annotations": { "kube-vip.io/vipHost": null } },
            "status": {
                "loadBalancer": { "ingress": null },
                "conditions": [{ "type": "ours", "$patch": "delete" }],
            },
        }))
        .unwrap();
        assert_eq!(cleared["metadata"]["annotations"], json!({ "own": "stays" }));
        assert_eq!(cleared["metadata"]["resourceVersion"], "7", "as it was read");
        assert_eq!(cleared["status"]["loadBalancer"], json!({}));
        assert_eq!(cleared["status"]["conditions"], json!([{ "type": "other" }]));
    }

    #[test]
    fn what_is_said_of_another_object_or_of_an_older_one_is_not_put_in() {
        let said = |uid, version| {
            after(json!({ "metadata": { "uid": uid, "resourceVersion": version } })).is_some()
        };
        assert!(said("uid", "7") && !said("uid", "6") && !said("former", "7"));
    }

    /// How a write of this patch ends where others come before it so many times, and how many requests it takes.
    async fn overtaken(times: usize, patch: Value) -> (bool, usize) {
        let asked = Arc::new(Mutex::new((0, times)));
        let counted = asked.clone();
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let mut asked = counted.lock().unwrap();
            asked.0 += 1;
            let is_late = request.method() == http::Method::PUT && asked.1 > 0;
            asked.1 -= usize::from(is_late);
            let conflict = json!({ "code": 409, "message": "", "reason": "", "status": "Failure" });
            let found = json!({ "metadata": { "uid": "uid", "resourceVersion": "7" } });
            let body = if is_late { conflict } else { found };
            let code = if is_late { 409 } else { 200 };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            let answer = http::Response::builder().status(code).body(body).unwrap();
            std::future::ready(Ok::<_, tower::BoxError>(answer))
        });
        let client = Client::new(server, "d");
        let written = status(client, &Name::new("d", "web"), &patch).await.is_ok();
        let count = asked.lock().unwrap().0;
        (written, count)
    }

    #[tokio::test]
    async fn what_names_no_version_is_tried_again_where_another_write_comes_between() {
        let insists = || json!({ "metadata": { "uid": "uid" }, "status": { "loadBalancer": {} } });
        assert_eq!(overtaken(4, insists()).await, (true, 10));
        assert_eq!(overtaken(5, insists()).await, (false, 10), "but not for ever");
        let mut decided = insists();
        decided["metadata"]["resourceVersion"] = json!("7");
        assert_eq!(overtaken(1, decided).await, (false, 2));
        let another = json!({ "metadata": { "uid": "former" } });
        assert_eq!(overtaken(0, another).await, (false, 1));
    }

    #[test]
    fn only_a_role_without_patch_makes_it_replace_and_not_what_a_policy_denies() {
        let refused =
            |code, message: &str| Status { code, message: message.to_owned(), ..Status::default() };
        let policy =
            "services \"web\" is forbidden: ValidatingAdmissionPolicy 'berth' denied request";
        assert!(!is_lacking(&refused(403, policy)));
        let role =
            "services \"web\" is forbidden: User \"u\" cannot patch resource \"services/status\"";
        assert!(is_lacking(&refused(403, role)));
        let (rights, now) = (Rights::default(), Instant::now());
        rights.serve(role, now);
        assert!(rights.lack_patch(now) && !rights.lack_patch(now + AGAIN), "granted since");
        rights.end();
        assert!(!rights.lack_patch(now));
    }
}
