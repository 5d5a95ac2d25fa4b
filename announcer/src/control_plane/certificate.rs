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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_api::claim::ClaimPolicy;
    use rcgen::generate_simple_self_signed;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::config::{Api, Config, Settings};

    /// An API server whose certificate has these names, and how it is reached.
    async fn server(names: &[&str]) -> (Way, Folder) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let own = generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let answer =
                    b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        let folder =
            std::env::temp_dir().join(format!("berth-certificate-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (authority, file) = (folder.join("ca.crt"), folder.join("admin.conf"));
        std::fs::write(&authority, own.cert.pem()).unwrap();
        let cluster = json!({
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority,
        });
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": cluster }],
            "users": [{ "name": "lab", "user": {} }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
        });
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        let settings = [("cp_enable", "true"), ("address", "192.0.2.100")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::parse(&Settings::gather(settings, []), "a").unwrap();
        let api = Api {
            kubeconfig: Some(file),
            server: None,
            claims: ClaimPolicy::Ignored,
            namespace: "kube-system".to_owned(),
        };
        (Way::of(&api, &config.control_plane.unwrap()), Folder(folder))
    }

    /// Gone with who holds it.
    struct Folder(std::path::PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn what_a_certificate_does_not_have_is_told_by_name() {
        let (way, _folder) = server(&["kubernetes", "192.0.2.100", "api.example.org"]).await;
        let all = names(&["192.0.2.100", "2001:db8::100", "api.example.org", "other.example.org"]);
        let found = lacking(&all, &way).await.unwrap();
        assert_eq!(found, names(&["2001:db8::100", "other.example.org"]));
        let told = remark(&found).unwrap();
        assert!(told.contains("does not have 2001:db8::100, other.example.org"), "{told}");
        assert_eq!(lacking(&all[..1], &way).await, Some(Vec::new()));
        assert_eq!(remark(&[]), None);
    }

    #[tokio::test]
    async fn it_is_told_beside_readiness_which_it_does_not_fail() {
        let (way, _folder) = server(&["kubernetes"]).await;
        let health = Health::new([]);
        let watching = tokio::spawn(watch(names(&["192.0.2.100"]), way, health.clone()));
        let begun = std::time::Instant::now();
        while health.missing_checks().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is not told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let told = health.missing_checks();
        assert!(told[0].0 == TASK && told[0].1.contains("192.0.2.100"), "{told:?}");
        assert!(health.unready_checks(std::time::Instant::now()).is_empty());
        watching.abort();
    }
}
