//! Tells of addresses and names of the control plane that the certificate of its API server does not have: whoever asks there by TLS, as
//! every kubelet and kubectl does, takes it for somebody else.

use std::time::Duration;

use berth_runtime::client;
use berth_runtime::http::Health;

use super::access::Way;

/// The name of the task, and of what is told.
pub(crate) const TASK: &str = "API server's certificate";

/// How often it is looked at, and how soon again where nobody answers.
const LOOK: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

/// What rustls says of a certificate that is another's (`CertificateError::NotValidForName`).
const ANOTHERS: &str = "not valid for name";

/// Looks for ever.
pub(crate) async fn watch(names: Vec<String>, way: Way, health: Health) {
    let mut told = None;
    loop {
        let lacking = lacking(&names, &way).await;
        let pause = if lacking.is_some() { LOOK } else { AGAIN };
        if let Some(lacking) = lacking {
            let why = remark(&lacking);
            match &why {
                Some(why) => health.missing(TASK, why.clone()),
                None => health.forget(TASK),
            }
            if told != why {
                why.iter().for_each(|why| tracing::warn!("{why}"));
                told = why;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

fn remark(lacking: &[String]) -> Option<String> {
    (!lacking.is_empty()).then(|| {
        format!(
            "the certificate of this node's API server does not have {}: whoever asks there does not believe it; kubeadm puts in \
             what apiServer.certSANs of its ClusterConfiguration lists",
            lacking.join(", ")
        )
    })
}

/// Those that it does not have; `None` where nobody answers by TLS.
async fn lacking(names: &[String], way: &Way) -> Option<Vec<String>> {
    let config = way.config().await.ok()?;
    if config.cluster_url.scheme_str() != Some("https") || config.accept_invalid_certs {
        return Some(Vec::new());
    }
    let mut lacking = Vec::new();
    for name in names {
        let mut named = config.clone();
        named.tls_server_name = Some(name.clone());
        let client = client::connect(named).ok()?;
        match tokio::time::timeout(TIMEOUT, client::get(&client, "/readyz")).await {
            // Whatever it answers, it was believed.
            Ok(Ok(_)) => {}
            Ok(Err(why)) if why.contains(ANOTHERS) => lacking.push(name.clone()),
            Ok(Err(_)) | Err(_) => return None,
        }
    }
    Some(lacking)
}
