//! Owns how the API server is reached. A connection that went silent is given up within seconds, never waited for.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// A peer that acknowledges nothing for so long is gone (RFC 5482). Without this a watch through a cut cable looks
/// like a cluster in which nothing happens.
const SILENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Connections that a burst opened and nobody uses cost memory.
const IDLE: Duration = Duration::from_secs(20);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file that was asked for cannot be read.
    #[error("kubeconfig `{path}` cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The same file is not usable.
    #[error("kubeconfig `{path}` cannot be used: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// Neither a kubeconfig nor a pod's account was found.
    #[error(
        "no cluster to talk to: {0}, and this is no pod that has an account; name a kubeconfig file, here or in KUBECONFIG"
    )]
    Nothing(String),
    /// The client cannot be made from what the configuration says.
    #[error("cannot make a client for {server}: {source}")]
    Unusable {
        /// The address of the API server.
        server: String,
        /// Why not.
        source: kube::Error,
    },
}

/// Reads the file if one is given, else `KUBECONFIG`, else takes the account of the pod.
///
/// # Errors
/// When the file is not readable, or nothing says where the cluster is.
pub async fn configure(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    let Some(path) = kubeconfig else { return Config::infer().await.map_err(nothing) };
    let unusable = |error| {
        let path = path.display().to_string();
        match error {
            // It names the file as well.
            KubeconfigError::ReadConfig(source, _) => ClientError::Unreadable { path, source },
            source => ClientError::Kubeconfig { path, source },
        }
    };
    let file = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)
}

/// Why neither the kubeconfig that kubectl would take nor a pod's account is usable. Of the two the file is what somebody may
/// have meant.
fn nothing(error: InferConfigError) -> ClientError {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
    ClientError::Nothing(match cause {
        Some(KubeconfigError::ReadConfig(why, path)) => {
            format!("kubeconfig `{}` cannot be read: {why}", path.display())
        }
        Some(other) => format!("the kubeconfig cannot be used: {other}"),
        None => "there is no kubeconfig".to_owned(),
    })
}

/// Makes the client. It retries nothing by itself: whoever sends knows better what a refusal means.
///
/// # Errors
/// When the configuration names certificates or a proxy that cannot be used.
pub fn connect(mut config: Config) -> Result<Client, ClientError> {
    let server = config.cluster_url.to_string();
    let unusable = |source| ClientError::Unusable { server: server.clone(), source };
    config.default_retry = false;
    if config.proxy_url.is_some() {
        return Client::try_from(config).map_err(unusable);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(SILENCE / 2));
    tcp.set_keepalive_interval(Some(SILENCE / 4));
    tcp.set_keepalive_retries(Some(2));
    tcp.set_tcp_user_timeout(Some(SILENCE));
    let https = config.rustls_https_connector_with_connector(tcp).map_err(unusable)?;
    let mut http = HttpClient::builder(TokioExecutor::new());
    let http = http.pool_idle_timeout(IDLE).build::<_, Body>(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(unusable)?)
        .layer(config.extra_headers_layer().map_err(unusable)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let error = configure(Some(Path::new("/nowhere/config"))).await.unwrap_err();
        let said = crate::watch::chain(&error);
        assert_eq!(
            said,
            "kubeconfig `/nowhere/config` cannot be read: No such file or directory (os error 2)"
        );
    }

    #[tokio::test]
    async fn a_plain_configuration_makes_a_client() {
        assert!(connect(Config::new(::http::Uri::from_static("https://192.0.2.1:6443"))).is_ok());
    }
}
