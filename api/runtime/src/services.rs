//! Owns how a Service is patched: by a patch, or, where the role has `update` and no `patch`, by replacing the object as it was
//! read. That is what the roles of kube-vip and of its cloud provider grant. Untyped, so that a field which this program does not
//! know stays.
//!
//! # Permissions
//!
//! `patch` on `services/status` or `services`; else `get` on `services`, and `update` on the same.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_api::NamespacedName;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// How long it is not asked again whether a patch is allowed.
const AGAIN: Duration = Duration::from_secs(600);

/// What of a Service is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but its status.
    Object,
    /// Its status, and of its metadata what an API server takes beside that.
    Status,
}

impl Part {
    /// The resource that a role names.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Object => "services",
            Self::Status => "services/status",
        }
    }
}

/// Patches Services. Clones share what they learned of the role.
#[derive(Clone)]
pub struct Services {
    client: Client,
    manager: Option<&'static str>,
    object: Rights,
    status: Rights,
}

impl Services {
    /// In the name of this manager of fields; of the user agent where there is none.
    pub fn new(client: Client, manager: Option<&'static str>) -> Self {
        Self { client, manager, object: Rights::default(), status: Rights::default() }
    }

    /// Does what this strategic merge patch says. Of lists that are merged it may name the finalizers and the conditions.
    ///
    /// # Errors
    /// Those of the API server; 409 where the Service is not the one, or not in the version, that the patch names.
    pub async fn patch<K>(
        &self,
        name: &NamespacedName,
        part: Part,
        patch: &Value,
    ) -> kube::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let rights = match part {
            Part::Object => &self.object,
            Part::Status => &self.status,
        };
        let mut refused = None;
        if !rights.lack_patch(Instant::now()) {
            let api: Api<K> = Api::namespaced(self.client.clone(), &name.namespace);
            let manager = self.manager.map(str::to_owned);
            let parameters = PatchParams { field_manager: manager, ..PatchParams::default() };
            let merge = Patch::Strategic(patch);
            let answer = match part {
                Part::Object => api.patch(&name.name, &parameters, &merge).await,
                Part::Status => api.patch_status(&name.name, &parameters, &merge).await,
            };
            match answer {
                Err(Error::Api(status)) if is_lacking(&status) => refused = Some(status.message),
                answer => return answer,
            }
        }
        let replaced = self.replace(name, part, patch).await;
        match (&replaced, refused) {
            (Ok(_), Some(refused)) => rights.serve(part, &refused, Instant::now()),
            (Err(Error::Api(status)), _) if status.code == 403 => rights.end(),
            _ => {}
        }
        let written = serde_json::to_value(replaced?).and_then(serde_json::from_value);
        written.map_err(Error::SerdeError)
    }

    /// Reads the Service, puts in what the patch says, and replaces it.
    async fn replace(
        &self,
        name: &NamespacedName,
        part: Part,
        patch: &Value,
    ) -> kube::Result<DynamicObject> {
        let resource = ApiResource::erase::<Service>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &name.namespace, &resource);
        let insists = patch["metadata"]["resourceVersion"].is_null();
        let mut tries = if insists { TRIES } else { 1 };
        let manager = self.manager.map(str::to_owned);
        let parameters = PostParams { field_manager: manager, ..PostParams::default() };
        loop {
            let mut object = api.get(&name.name).await?;
            if !put(&mut object, patch) {
                return Err(Error::Api(Box::new(Status { code: 409, ..Status::default() })));
            }
            tries -= 1;
            if insists && tries == 0 {
                object.metadata.resource_version = None;
            }
            let answer = match part {
                Part::Object => api.replace(&name.name, &parameters, &object).await,
                Part::Status => api.replace_status(&name.name, &parameters, &object).await,
            };
            match answer {
                Err(Error::Api(status)) if status.code == 409 && tries > 0 => {}
                answer => return answer,
            }
        }
    }
}

/// Whether the role lacks `patch` and has what stands in for it. Clones share it.
#[derive(Clone, Debug, Default)]
struct Rights(Arc<Mutex<Option<Instant>>>);

impl Rights {
    /// Whether a patch is not to be tried now.
    fn lack_patch(&self, now: Instant) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now < since + AGAIN)
    }

    /// Takes in that a patch was refused with these words, and what stands in for it was not. Where both are nothing is known
    /// of the role: an API server that has just begun refuses anything.
    fn serve(&self, part: Part, refused: &str, now: Instant) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if before.is_none() {
            tracing::warn!(
                why = refused,
                "{resource} are replaced as the role allows, which costs two requests each: add the verb patch to {resource}, as \
                 manifests/ has it",
                resource = part.resource()
            );
        }
    }

    /// Takes in that what stands in for a patch is refused.
    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether a patch was refused because the role lacks it, as far as the API server says, and not for what it says.
pub fn is_lacking(refused: &Status) -> bool {
    refused.code == 403 && refused.message.contains("cannot patch resource")
}

/// So often what names no version is tried where somebody else's write comes between, as an API server does with a patch. The
/// last one goes by no version either: who edits a Service without end keeps nothing in its status by it. What it has written
/// into the metadata in the moment since the Service was read is lost.
const TRIES: usize = 3;

/// Puts what the patch says into the object; false if it says that of another, or of an older one.
fn put(object: &mut DynamicObject, patch: &Value) -> bool {
    let (said, metadata) = (&patch["metadata"], &mut object.metadata);
    let is_it =
        |own: &Option<String>, said: &Value| said.is_null() || own.as_deref() == said.as_str();
    if !is_it(&metadata.uid, &said["uid"])
        || !is_it(&metadata.resource_version, &said["resourceVersion"])
    {
        return false;
    }
    put_texts(&mut metadata.annotations, &said["annotations"]);
    put_texts(&mut metadata.labels, &said["labels"]);
    let names = |list: &str| {
        let list = said[list].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let (new, gone) = (names("finalizers"), names("$deleteFromPrimitiveList/finalizers"));
    if !new.is_empty() || !gone.is_empty() {
        let own = metadata.finalizers.get_or_insert_default();
        own.retain(|name| !gone.contains(name) && !new.contains(name));
        own.extend(new);
    }
    if patch["spec"].is_object() {
        put_fields(&mut object.data["spec"], &patch["spec"]);
    }
    for (key, value) in patch["status"].as_object().into_iter().flatten() {
        let own = &mut object.data["status"];
        match key.as_str() {
            "conditions" => put_conditions(&mut own["conditions"], value),
            _ => put_fields(&mut own[key], value),
        }
    }
    true
}

/// Each as it is said; what is null goes.
fn put_texts(own: &mut Option<BTreeMap<String, String>>, said: &Value) {
    for (key, value) in said.as_object().into_iter().flatten() {
        let own = own.get_or_insert_default();
        match value.as_str() {
            Some(text) => _ = own.insert(key.clone(), text.to_owned()),
            None => _ = own.remove(key),
        }
    }
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
    fn labels_finalizers_and_the_field_of_the_address_are_put_in_and_taken_out() {
        let ours = "service.kubernetes.io/load-balancer-cleanup";
        let mut object = service();
        object.metadata.finalizers = Some(vec!["other".to_owned()]);
        let given = json!({
            "metadata": { "labels": { "implementation": "kube-vip" }, "finalizers": [ours] },
            "spec": { "loadBalancerIP": "192.0.2.1" },
        });
        for _ in 0..2 {
            assert!(put(&mut object, &given));
            assert_eq!(object.metadata.finalizers.as_ref().unwrap(), &["other", ours]);
        }
        assert_eq!(object.metadata.labels.as_ref().unwrap()["implementation"], "kube-vip");
        let spec = json!({ "type": "LoadBalancer", "new": true, "loadBalancerIP": "192.0.2.1" });
        assert_eq!(object.data["spec"], spec);
        let taken = json!({
            "metadata": {
                "labels": { "implementation": null },
                "$deleteFromPrimitiveList/finalizers": [ours],
            },
            "spec": { "loadBalancerIP": null },
        });
        assert!(put(&mut object, &taken));
        assert_eq!(object.metadata.finalizers.as_ref().unwrap(), &["other"]);
        assert!(object.metadata.labels.as_ref().unwrap().is_empty());
        assert_eq!(object.data["spec"], json!({ "type": "LoadBalancer", "new": true }));
        assert_eq!(object.data["status"], service().data["status"]);
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
            let counted = counted.clone();
            async move {
                let is_write = request.method() == http::Method::PUT;
                let sent = request.into_body().collect_bytes().await?;
                let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
                let mut asked = counted.lock().unwrap();
                asked.0 += 1;
                let is_late = is_write && asked.1 > 0;
                asked.1 -= usize::from(is_late);
                let is_late = is_late && !sent["metadata"]["resourceVersion"].is_null();
                let conflict =
                    json!({ "code": 409, "message": "", "reason": "", "status": "Failure" });
                let found = json!({ "metadata": { "uid": "uid", "resourceVersion": "7" } });
                let body = if is_late { conflict } else { found };
                let code = if is_late { 409 } else { 200 };
                let body = kube::client::Body::from(body.to_string().into_bytes());
                Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body)?)
            }
        });
        let client = Client::new(server, "d");
        let services = Services::new(client, None);
        let web = NamespacedName::new("d", "web");
        let written = services.replace(&web, Part::Status, &patch).await.is_ok();
        let count = asked.lock().unwrap().0;
        (written, count)
    }

    #[tokio::test]
    async fn what_names_no_version_is_tried_again_where_another_write_comes_between() {
        let insists = || json!({ "metadata": { "uid": "uid" }, "status": { "loadBalancer": {} } });
        assert_eq!(overtaken(1, insists()).await, (true, 4));
        assert_eq!(overtaken(9999, insists()).await, (true, 6), "whoever edits it without end");
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
        rights.serve(Part::Status, role, now);
        assert!(rights.lack_patch(now) && !rights.lack_patch(now + AGAIN), "granted since");
        rights.end();
        assert!(!rights.lack_patch(now));
    }
}
