//! Owns the key of the members' heartbeats: in the Secret of the cluster, or in a file. The Secret comes empty with the
//! manifests; the first announcer that finds it so puts a random key into it (docs/decisions/0007). That of the control plane's
//! members is made by the first of them: it is there before anybody has applied anything. Its uid is the
//! incarnation of the cluster that the key is for (docs/decisions/0022).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

use berth_api::names::label;
use berth_api::names::lease::{VIEW, VIEW_OF_CONTROL_PLANE};
use berth_membership::{KeyError, Keyring};
use berth_runtime::refusals::Refusals;
use berth_runtime::watch::chain;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use serde::{Deserialize, Serialize};

use crate::config::Fixed;

/// The entry that signs; every other entry is taken too, so that keys can be changed while nodes run.
const SIGNING: &str = "key";

/// How long one look at the Secret may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Octets of a key that is made here: as many as HMAC-SHA256 gives (RFC 2104 section 3).
const OCTETS: usize = 32;

/// Pauses between attempts while the cluster does not answer.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2)];

/// Where the key comes from.
pub enum KeySource {
    /// The Secret of the cluster.
    Secret {
        /// How the API server is reached.
        client: Client,
        /// Where the Secret is.
        namespace: String,
        /// Its name.
        name: &'static str,
    },
    /// The file of a list of members.
    File(Keyring),
}

impl KeySource {
    /// The key of a list of members.
    ///
    /// # Errors
    /// When the key is too short.
    pub fn file(fixed: &Fixed) -> Result<Self, KeyError> {
        // Lists of members tell themselves apart by what is in them.
        Ok(Self::File(Keyring::new("", [fixed.key.octets()])?))
    }

    /// Reads the key, and makes it if there is none. Waits as long as the cluster does not answer.
    ///
    /// # Errors
    /// When the Secret is not there, may not be read, or holds no key.
    pub async fn obtain(&self) -> Result<Keyring, Unavailable> {
        match self {
            Self::Secret { client, namespace, name } => {
                let keys = obtain(client, namespace, name, false).await?;
                keys.ring().map_err(|source| Unavailable::unfit(namespace, name, source))
            }
            Self::File(keyring) => Ok(keyring.clone()),
        }
    }
}

/// The keys of a Secret, the one that signs first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Its uid: the same keys in another Secret are for another cluster.
    pub incarnation: String,
    /// The octets of each.
    keys: Vec<ByteString>,
}

impl Keys {
    /// Of a Secret.
    fn of(secret: &Secret) -> Self {
        let keys = keys(secret).into_iter().map(ByteString).collect();
        Self { incarnation: secret.metadata.uid.clone().unwrap_or_default(), keys }
    }

    /// To sign and verify with.
    ///
    /// # Errors
    /// When there is none, or one is too short.
    pub fn ring(&self) -> Result<Keyring, KeyError> {
        Keyring::new(&self.incarnation, self.keys.iter().map(|key| key.0.as_slice()))
    }
}

/// The keys of the Secret of this name, which is made where there is none, and what is in it too.
///
/// # Errors
/// When it may not be read or made, or holds no key.
pub async fn make(client: &Client, namespace: &str, name: &str) -> Result<Keys, Unavailable> {
    obtain(client, namespace, name, true).await
}

/// The keys of the Secret of this name as they are; nothing if there is no such Secret. Waits as long as the cluster does not
/// answer.
pub async fn look(client: &Client, namespace: &str, name: &str) -> Option<Keys> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        if let Ok(Ok(found)) = tokio::time::timeout(TIMEOUT, api.get_opt(name)).await {
            return found.as_ref().map(Keys::of);
        }
        tokio::time::sleep(PAUSES[2]).await;
    }
}

/// Why there is no key, and will be none.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The manifests that bring the Secret, or the right to it, are not applied.
    #[error("Secret {namespace}/{name}: {message}; {}", brings(name))]
    Refused {
        /// Where it should be.
        namespace: String,
        /// What it is called.
        name: String,
        /// What the API server said.
        message: String,
    },
    /// What it holds is no key.
    #[error("Secret {namespace}/{name}: {source}")]
    Unfit {
        /// Where it is.
        namespace: String,
        /// What it is called.
        name: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The host gives no random numbers.
    #[error("reading /dev/urandom: {0}")]
    Random(#[from] io::Error),
}

impl Unavailable {
    fn unfit(namespace: &str, name: &str, source: KeyError) -> Self {
        Self::Unfit { namespace: namespace.to_owned(), name: name.to_owned(), source }
    }
}

/// What gives the right to a Secret.
fn brings(name: &str) -> &'static str {
    match name {
        VIEW_OF_CONTROL_PLANE => "manifest rbac --controlplane --election membership brings it",
        _ => "manifests/announcer-rbac.yaml brings it",
    }
}

/// Whether the Secret of Services' members is there and holds a key. An empty one gets its key from an announcer that starts. Asked once, in silence.
pub async fn may_be_had(client: &Client, namespace: &str) -> bool {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match tokio::time::timeout(TIMEOUT, api.get(VIEW)).await {
        Ok(Ok(secret)) => Keys::of(&secret).ring().is_ok(),
        _ => false,
    }
}

async fn obtain(
    client: &Client,
    namespace: &str,
    name: &str,
    is_made: bool,
) -> Result<Keys, Unavailable> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let refused = |message: &str| Unavailable::Refused {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        message: message.to_owned(),
    };
    let (mut failures, mut refusals) = (0, Refusals::default());
    loop {
        let found = match api.get(name).await {
            Ok(secret) if keys(&secret).is_empty() => {
                api.replace(name, &PostParams::default(), &filled(secret)?).await
            }
            Ok(secret) => {
                let keys = Keys::of(&secret);
                return match keys.ring() {
                    Ok(_) => Ok(keys),
                    Err(source) => Err(Unavailable::unfit(namespace, name, source)),
                };
            }
            Err(Error::Api(status)) if is_made && status.code == 404 => {
                api.create(&PostParams::default(), &filled(empty(name))?).await
            }
            Err(error) => Err(error),
        };
        match found {
            // Read it again: what counts is what everybody reads.
            Ok(_) => continue,
            Err(Error::Api(status)) if matches!(status.code, 403 | 404) => {
                let pause = refusals.again();
                if refusals.are_believed() {
                    return Err(refused(&status.message));
                }
                tokio::time::sleep(pause).await;
            }
            // Another announcer was first.
            Err(Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read the key yet");
                tokio::time::sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
                failures += 1;
            }
        }
    }
}

fn empty(name: &str) -> Secret {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some([(label::MANAGED_BY.to_owned(), label::BERTH.to_owned())].into()),
        ..ObjectMeta::default()
    };
    Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() }
}

/// The keys of a Secret, the one that signs first.
fn keys(secret: &Secret) -> Vec<Vec<u8>> {
    let none = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&none);
    let others = data.iter().filter(|(name, _)| *name != SIGNING).map(|(_, value)| value);
    let all = data.get(SIGNING).into_iter().chain(others);
    all.map(|value| value.0.clone()).filter(|key| !key.is_empty()).collect()
}

fn filled(mut secret: Secret) -> io::Result<Secret> {
    let key = ByteString(random::<OCTETS>()?.to_vec());
    secret.data.get_or_insert_default().insert(SIGNING.to_owned(), key);
    Ok(secret)
}

/// Octets that nobody can guess.
///
/// # Errors
/// When the host gives none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use berth_membership::{Input, Moment, Node, NodeId, Output, Parameters, View, Voters};

    use super::*;

    /// Whether nodes that have read these Secrets hear each other.
    fn hear(secrets: [&Secret; 2]) -> bool {
        let ids = ["node-a", "node-b"].map(NodeId::of);
        let (now, parameters) = (Moment::from_nanos(1), Parameters::default());
        let view = View::new(1, Voters::new(ids).unwrap(), Vec::new()).unwrap();
        let mut nodes = [0, 1].map(|at| {
            let keyring = Keys::of(secrets[at]).ring().unwrap();
            Node::new(ids[at], parameters, keyring, at as u64, now).unwrap()
        });
        let begin = |node: &mut Node| node.handle(now, Input::View(view.clone()));
        let mut outputs: Vec<_> = nodes.iter_mut().flat_map(begin).collect();
        for _ in 0..8 {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Heard { .. } => return true,
                    Output::Send { to, datagram } => {
                        let node = &mut nodes[usize::from(to == ids[1])];
                        outputs.extend(node.handle(now, Input::Datagram(&datagram)));
                    }
                    _ => {}
                }
            }
        }
        false
    }

    #[test]
    fn the_same_key_in_a_secret_that_was_made_anew_is_for_another_cluster() {
        let made = filled(Secret::default()).unwrap();
        let with = |uid: &str| {
            let metadata = ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() };
            Secret { metadata, ..made.clone() }
        };
        assert!(hear([&with("one"), &with("one")]));
        assert!(!hear([&with("one"), &with("two")]));
    }

    #[test]
    fn the_signing_key_comes_first_and_an_empty_secret_has_none() {
        assert!(keys(&Secret::default()).is_empty());
        let entry = |name: &str, key: &[u8]| (name.to_owned(), ByteString(key.to_vec()));
        let data = [entry("former", b"b"), entry("key", b"a"), entry("none", b"")];
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        assert_eq!(keys(&secret), [b"a", b"b"]);
        let made = filled(Secret::default()).unwrap();
        assert_eq!(keys(&made)[0].len(), OCTETS);
        assert_ne!(keys(&made), keys(&filled(Secret::default()).unwrap()));
    }
}
