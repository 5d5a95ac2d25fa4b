//! Reads passwords of routers in Secrets, each when it is asked for. What was read last counts while the API server gives no
//! answer: a session that is lost then comes back. Nothing of a Secret is told.
//!
//! # Permissions
//!
//! `get` on each Secret that the ConfigMap `berth-bgp` names, which `manifests/` does not give.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_runtime::watch::chain;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Client, Error};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was read last, by the name of the Secret and the key.
type Last = BTreeMap<(String, String), Vec<u8>>;

/// Passwords of one namespace.
#[derive(Clone)]
pub struct Passwords {
    secrets: Api<Secret>,
    namespace: Arc<str>,
    last: Arc<Mutex<Last>>,
}

impl Passwords {
    /// Nothing was read yet.
    pub fn new(client: Client, namespace: &str) -> Self {
        let secrets = Api::namespaced(client, namespace);
        Self { secrets, namespace: namespace.into(), last: Arc::default() }
    }

    /// What a Secret has under a key.
    ///
    /// # Errors
    /// What is in the way, for people: the Secret, and what is accepted.
    pub async fn read(&self, name: &str, key: &str) -> Result<Vec<u8>, String> {
        let read = tokio::time::timeout(PATIENCE, self.secrets.get(name)).await;
        let place = format!("Secret {}/{name}", self.namespace);
        let why = match read {
            Ok(Ok(secret)) => {
                let found = secret.data.unwrap_or_default().remove(key).map(|value| value.0);
                self.keep(name, key, found.clone());
                return found.ok_or_else(|| format!("{place} has no key {key}"));
            }
            Ok(Err(Error::Api(status))) if status.code == 403 => {
                self.keep(name, key, None);
                return Err(format!(
                    "no permission to get {place}: {}; grant this program's ServiceAccount the verb get on secrets, \
                     resourceNames [{name}], by a Role there (docs/bgp-config.md)",
                    status.message
                ));
            }
            Ok(Err(Error::Api(status))) if status.code == 404 => {
                self.keep(name, key, None);
                return Err(format!("there is no {place}"));
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.get(&(name.to_owned(), key.to_owned())).cloned();
        last.ok_or_else(|| format!("reading {place}: {why}"))
    }

    fn keep(&self, name: &str, key: &str, found: Option<Vec<u8>>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (name.to_owned(), key.to_owned());
        match found {
            Some(found) => last.insert(place, found),
            None => last.remove(&place),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// An API server that says this, or does not answer.
    fn answering(code: u16, body: Value) -> Passwords {
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let body = serde_json::to_vec(&body).unwrap();
            let response = http::Response::builder().status(code);
            let response = response.body(kube::client::Body::from(body)).unwrap();
            std::future::ready(Ok::<_, tower::BoxError>(response))
        });
        Passwords::new(Client::new(service, "default"), "kube-system")
    }

    fn status(code: u16, message: &str) -> Value {
        json!({ "kind": "Status", "status": "Failure", "message": message, "reason": "", "code": code })
    }

    /// The same that has read this before.
    fn after(passwords: &Passwords, other: Passwords) -> Passwords {
        Passwords { last: passwords.last.clone(), ..other }
    }

    #[tokio::test]
    async fn a_password_is_what_the_secret_has_and_stays_while_nobody_answers_and_goes_with_the_secret()
     {
        let secret = json!({ "metadata": { "name": "tor" }, "data": { "password": "c2VjcmV0" } });
        let passwords = answering(200, secret);
        assert_eq!(passwords.read("tor", "password").await, Ok(b"secret".to_vec()));
        let absent = passwords.read("tor", "other").await;
        assert_eq!(absent.unwrap_err(), "Secret kube-system/tor has no key other");

        let broken = after(&passwords, answering(500, status(500, "etcd is away")));
        assert_eq!(broken.read("tor", "password").await, Ok(b"secret".to_vec()));
        let unread = broken.read("core", "password").await.unwrap_err();
        assert!(unread.starts_with("reading Secret kube-system/core: "), "{unread}");

        let denied = after(&passwords, answering(403, status(403, "secrets is forbidden")));
        let denied = denied.read("tor", "password").await.unwrap_err();
        assert!(denied.contains("forbidden") && denied.contains("resourceNames [tor]"), "{denied}");
        let unread = broken.read("tor", "password").await;
        assert!(unread.is_err(), "what may not be read any more is forgotten");
        let gone = answering(404, status(404, "not found")).read("tor", "password").await;
        assert_eq!(gone.unwrap_err(), "there is no Secret kube-system/tor");
    }
}
