//! A client of the API server of this node that goes on with another kubeconfig, without a restart, when what the one that is
//! named may do changes ([`super::credentials`]), and when a file does. What was asked before goes on as it began.
//!
//! # Permissions
//!
//! `create` on `selfsubjectaccessreviews` of `authorization.k8s.io`, which every account has (`system:basic-user`): where it is
//! refused, too, nothing is granted yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_runtime::client::{self, ClientError, Exchange};
use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use berth_runtime::watch::chain;
use futures::FutureExt;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use kube::{Client, Config, Error};

use super::credentials::{Answer, Credentials, Whose};
use super::expiry;
use crate::config::ControlPlane;

/// The name of the task, and of the readiness check.
pub(crate) const TASK: &str = "credentials";

/// Where kubeadm leaves the kubeconfig of a control-plane node.
const ADMIN: &str = "/etc/kubernetes/admin.conf";
/// The other one, in the same folder.
const INITIAL: &str = "super-admin.conf";

/// How often the files are looked at.
const FILES: Duration = Duration::from_secs(2);
/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What says how the API server of this node is reached.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    kubeconfig: Option<PathBuf>,
    /// The API server that is named instead.
    server: Option<String>,
    port: u16,
    /// Where its Leases are.
    namespace: String,
}

impl Way {
    /// As settings have it.
    pub(crate) fn of(api: &crate::config::Api, own: &ControlPlane) -> Self {
        let (kubeconfig, server) = (api.kubeconfig.clone(), api.server.clone());
        Self { kubeconfig, server, port: own.port, namespace: api.namespace.clone() }
    }

    /// The configuration by the kubeconfig that is named, or as there is one.
    pub(crate) async fn config(&self) -> Result<Config, String> {
        let own = match client::configure(self.kubeconfig.as_deref()).await {
            // A static pod has no account.
            Err(ClientError::Nothing(_)) => client::configure(Some(Path::new(ADMIN))).await,
            configured => configured,
        };
        self.local(own)
    }

    /// A client of the API server of another node, at an address of that.
    pub(crate) async fn of_another(&self, address: IpAddr) -> Result<Client, String> {
        let mut config = self.config().await?;
        client::ask_another(&mut config, address, self.port);
        client::connect(config).map_err(|error| chain(&error))
    }

    /// The port of the API servers, at the control plane's address as on their nodes.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where this is asked for, as far as that is known.
    pub(crate) async fn url(&self, path: &str) -> String {
        let server = self.config().await.map(|config| config.cluster_url.to_string());
        server.unwrap_or_default().trim_end_matches('/').to_owned() + path
    }

    /// A client by that configuration.
    async fn client(&self) -> Result<Client, String> {
        client::connect(self.config().await?).map_err(|error| chain(&error))
    }

    /// The configuration by the kubeconfig of `kubeadm init`.
    async fn initial(&self, file: &Path) -> Result<Config, String> {
        self.local(client::configure(Some(file)).await)
    }

    /// Whoever has the control plane's address asks its own API server, and no other.
    fn local(&self, config: Result<Config, ClientError>) -> Result<Config, String> {
        let mut config = config.map_err(|error| chain(&error))?;
        match &self.server {
            Some(server) => {
                let url = server.parse();
                config.cluster_url =
                    url.map_err(|error| format!("kubernetes_addr={server}: {error}"))?;
            }
            None => client::ask_this_node(&mut config, self.port),
        }
        Ok(config)
    }

    /// The kubeconfig that is used; none for the account of the pod.
    fn own(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let has_account = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let own = self.kubeconfig.clone().or_else(named);
        own.or_else(|| (!has_account).then(|| PathBuf::from(ADMIN)))
    }

    /// Where the kubeconfig of `kubeadm init` is, if there is one: beside that of kubeadm, and of no other.
    fn beside(&self) -> Option<PathBuf> {
        let own = self.own()?;
        let is_admin = own.file_name().is_some_and(|name| name == "admin.conf");
        let beside = own.with_file_name(INITIAL);
        (is_admin && beside.is_file()).then_some(beside)
    }

    /// What is compared to see that a file was written: kubeconfigs, and what they name.
    fn seen(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut files: Vec<PathBuf> = self.own().into_iter().chain(self.beside()).collect();
        files.extend(files.clone().iter().flat_map(|file| client::files_of(file)));
        let read = |file: PathBuf| (std::fs::read(&file).ok(), file);
        files.into_iter().map(read).map(|(text, file)| (file, text)).collect()
    }
}

/// A client of the API server of this node, and the task that sees to what it goes by.
pub(crate) async fn open(way: Way, health: Health) -> (Client, Task) {
    let exchange = Exchange::default();
    let client = exchange.client();
    // What there is may do; where there is nothing yet, the task says so.
    if let Ok(own) = way.client().await {
        exchange.give(own);
    }
    (client, (TASK, keep(way, exchange, health).boxed()))
}

async fn keep(way: Way, exchange: Exchange, health: Health) {
    let mut credentials = Credentials::new(Instant::now());
    let mut seen = way.seen();
    let (mut used, mut is_stale, mut ends) = (None, false, None);
    loop {
        let beside = way.beside();
        let answer = ask(&way).await;
        let now = Instant::now();
        credentials.answered(&answer, beside.is_some(), now);
        let using = credentials.using();
        let config = match (using, &beside) {
            (Whose::Initial, Some(file)) => way.initial(file).await,
            _ => way.config().await,
        };
        #[allow(clippy::disallowed_methods, reason = "a certificate runs out by the wall clock")]
        let today = jiff::Timestamp::now();
        let remark = config.as_ref().ok().and_then(|own| expiry::remark(own, today));
        match config.and_then(|config| client::connect(config).map_err(|error| chain(&error))) {
            Ok(client) => {
                // A client has connections, which go on to be used.
                if std::mem::take(&mut is_stale) || used != Some(using) {
                    exchange.give(client);
                    tell(used.replace(using), using, &answer);
                }
            }
            Err(why) if used.is_none() => health.expects(TASK, why + "; it is waited for"),
            Err(why) => health.waits(TASK, why),
        }
        if used.is_some() {
            match (&answer, &remark) {
                (Answer::Refused(why), remark) if using == Whose::Own => {
                    let remark = remark.as_ref().map(|remark| format!("; {remark}"));
                    health.waits(TASK, format!("{why}{}", remark.unwrap_or_default()));
                }
                (_, Some(remark)) => health.missing(TASK, remark.clone()),
                (_, None) => health.ready(TASK),
            }
        }
        if remark != ends {
            remark.iter().for_each(|remark| tracing::warn!("{remark}"));
            ends = remark;
        }
        loop {
            let due = credentials.due();
            tokio::time::sleep_until(due.min(Instant::now() + FILES).into()).await;
            let found = way.seen();
            if found != seen {
                (seen, is_stale) = (found, true);
                credentials.changed(Instant::now());
            }
            if credentials.due() <= Instant::now() {
                break;
            }
        }
    }
}

fn tell(before: Option<Whose>, using: Whose, answer: &Answer) {
    match (before, using, answer) {
        (_, Whose::Initial, Answer::Refused(why)) => {
            tracing::warn!(
                why,
                "admin.conf may not do what is needed: going by {INITIAL} until it may"
            );
        }
        (Some(Whose::Initial), Whose::Own, _) => {
            tracing::info!("admin.conf may do what is needed: going by it from now on");
        }
        _ => {}
    }
}

/// Whether the kubeconfig that is named may write Leases.
async fn ask(way: &Way) -> Answer {
    let client = match way.client().await {
        Ok(client) => client,
        Err(why) => return Answer::Nothing(why),
    };
    match tokio::time::timeout(TIMEOUT, may(&client, &way.namespace)).await {
        Ok(Ok(true)) => Answer::Granted,
        Ok(Ok(false)) => Answer::Refused(format!(
            "the kubeconfig may not create and update leases.coordination.k8s.io in the namespace {}",
            way.namespace
        )),
        Ok(Err(Error::Api(status))) if matches!(status.code, 401 | 403) => {
            Answer::Refused(format!("{} ({})", status.message, status.code))
        }
        Ok(Err(error)) => Answer::Nothing(chain(&error)),
        Err(_) => Answer::Nothing(format!("no answer within {TIMEOUT:?}")),
    }
}

async fn may(client: &Client, namespace: &str) -> kube::Result<bool> {
    for verb in ["create", "update"] {
        let attributes = ResourceAttributes {
            group: Some("coordination.k8s.io".to_owned()),
            resource: Some("leases".to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_kubeconfig_names_is_seen_when_it_is_written_anew() {
        let folder = std::env::temp_dir().join(format!("berth-access-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        let write = |name: &str, text: &str| std::fs::write(file(name), text).unwrap();
        let cluster = json!({
            "server": "https://127.0.0.1:6443", "certificate-authority": file("ca.crt"),
        });
        let user = json!({ "client-certificate": "own.pem", "client-key": file("own.key") });
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": cluster }],
            "users": [{ "name": "lab", "user": user }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
        });
        write("kubelet.conf", &kubeconfig.to_string());
        let namespace = "kube-system".to_owned();
        let kubeconfig = Some(file("kubelet.conf"));
        let way = Way { kubeconfig, server: None, port: 6443, namespace };
        let mut seen = way.seen();
        assert_eq!(seen.len(), 4, "those that are not there yet, too: {seen:?}");
        for name in ["ca.crt", "own.pem", "own.key", "kubelet.conf"] {
            assert_eq!(way.seen(), seen);
            let before = std::fs::read_to_string(file(name)).unwrap_or_default();
            write(name, &(before + "\n"));
            assert_ne!(way.seen(), seen, "{name}");
            seen = way.seen();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
