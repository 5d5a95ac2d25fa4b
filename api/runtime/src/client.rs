//! Owns how the API server is reached. A connection that went silent is given up within seconds, never waited for.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use crate::watch::chain;

/// A peer that acknowledges nothing for so long is gone (RFC 5482). Without this a watch through a cut cable looks
/// like a cluster in which nothing happens.
const SILENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Connections that a burst opened and nobody uses cost memory.
const IDLE: Duration = Duration::from_secs(20);
/// Octets of an answer in words that are read.
const LONGEST: usize = 64 << 10;

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

/// The files of certificates and keys that a kubeconfig names, which are read whenever a client is made by it.
pub fn files_of(kubeconfig: &Path) -> Vec<PathBuf> {
    let Ok(file) = Kubeconfig::read_from(kubeconfig) else { return Vec::new() };
    let clusters = file.clusters.into_iter().filter_map(|one| one.cluster);
    let authorities = clusters.filter_map(|cluster| cluster.certificate_authority);
    let users = file.auth_infos.into_iter().filter_map(|one| one.auth_info);
    let own = users.flat_map(|user| [user.client_certificate, user.client_key]).flatten();
    authorities.chain(own).map(PathBuf::from).collect()
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

/// The name that an API server has in its certificate wherever it is (kubeadm, and all who make what kubeadm makes).
const SERVER_NAME: &str = "kubernetes";

/// Has the API server of this node asked instead of the one that is named: at loopback and this port, by the name that all of
/// them have in their certificates, so that no name has to be resolved and no route has to be there. What names loopback stays
/// as it is. No proxy is asked: loopback there is another host.
pub fn ask_this_node(config: &mut Config, port: u16) {
    config.proxy_url = None;
    let uri = &config.cluster_url;
    if uri.host().is_some_and(is_loopback) {
        return;
    }
    let scheme = uri.scheme_str().unwrap_or("https");
    if let Ok(local) = format!("{scheme}://127.0.0.1:{port}").parse() {
        config.cluster_url = local;
        config.tls_server_name.get_or_insert_with(|| SERVER_NAME.to_owned());
    }
}

/// Has the API server of another node asked, at this address of that and at the port of this one's, or `port` where that has
/// none, by the name that all of them have in their certificates. Without TLS, or where any certificate does, nobody is told who
/// asks: the address is what a Node says. No proxy is asked.
pub fn ask_another(config: &mut Config, address: IpAddr, port: u16) {
    config.proxy_url = None;
    let uri = &config.cluster_url;
    let scheme = uri.scheme_str().unwrap_or("https").to_owned();
    let at = SocketAddr::new(address, uri.port_u16().unwrap_or(port));
    if let Ok(there) = format!("{scheme}://{at}").parse() {
        config.cluster_url = there;
        config.tls_server_name.get_or_insert_with(|| SERVER_NAME.to_owned());
    }
    if scheme != "https" || config.accept_invalid_certs {
        config.auth_info = Default::default();
    }
}

/// The configuration for whatever answers at a URL of this node or another, and the path that is asked for there. Nobody is told
/// who asks. Who answers is known by the certificates in the file, or by those of `like`; at loopback by the name that API servers
/// have in theirs.
pub fn for_url(url: &str, authority: Option<&Path>, like: &Config) -> Option<(Config, String)> {
    let whole: axum::http::Uri = url.parse().ok()?;
    let path = whole.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let server = format!("{}://{}", whole.scheme_str()?, whole.authority()?);
    let mut config = Config::new(server.parse().ok()?);
    config.root_cert = like.root_cert.clone();
    config.root_cert_file = authority.map(Path::to_owned).or_else(|| like.root_cert_file.clone());
    config.accept_invalid_certs = like.accept_invalid_certs;
    if whole.host().is_some_and(is_loopback) {
        config.tls_server_name = Some(SERVER_NAME.to_owned());
    }
    Some((config, path))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Asks for a path. Gives the code and the beginning of the text of the answer, whichever they are.
///
/// # Errors
/// When there is none, in words.
pub async fn get(client: &Client, path: &str) -> Result<(u16, String), String> {
    let request = axum::http::Request::get(path).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| chain(&error))?;
    let code = answer.status().as_u16();
    let text = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), LONGEST).await;
    Ok((code, text.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()))
}

/// Asks servers of this host whom anybody may ask, without TLS.
#[derive(Clone, Debug)]
pub struct Plain(HttpClient<HttpConnector, Body>);

impl Default for Plain {
    fn default() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        Self(HttpClient::builder(TokioExecutor::new()).build(tcp))
    }
}

impl Plain {
    /// Asks for a path. Gives the code of the answer.
    ///
    /// # Errors
    /// When there is none, in words.
    pub async fn get(&self, at: SocketAddr, path: &str) -> Result<u16, String> {
        let request = axum::http::Request::get(format!("http://{at}{path}")).body(Body::empty());
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.0.request(request).await.map_err(|error| chain(&error))?;
        Ok(answer.status().as_u16())
    }
}

/// Clients that go by whichever was given last, when they ask.
#[derive(Clone, Default)]
pub struct Exchange(Arc<Mutex<Option<Client>>>);

impl Exchange {
    /// From now on every request goes by this one; what was begun goes on as it began.
    pub fn give(&self, client: Client) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    /// A client that goes by what was given last. Where nothing was yet, it says so.
    pub fn client(&self) -> Client {
        let exchange = self.0.clone();
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let client = exchange.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move {
                match client {
                    Some(client) => client.send(request).await.map_err(BoxError::from),
                    None => Err(BoxError::from("there is no kubeconfig yet")),
                }
            }
        });
        Client::new(service, "default")
    }
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

    #[tokio::test]
    async fn a_client_goes_by_what_was_given_last() {
        let of = |code: u16| {
            let server = tower::service_fn(move |_: ::http::Request<Body>| async move {
                Ok::<_, BoxError>(::http::Response::builder().status(code).body(Body::empty())?)
            });
            Client::new(server, "default")
        };
        let exchange = Exchange::default();
        let client = exchange.client();
        assert!(get(&client, "/").await.unwrap_err().contains("no kubeconfig yet"));
        for code in [200, 403] {
            exchange.give(of(code));
            assert_eq!(get(&client, "/").await.unwrap().0, code);
        }
    }

    fn local(url: &'static str, name: Option<&str>) -> (String, Option<String>) {
        let mut config = Config::new(::http::Uri::from_static(url));
        config.tls_server_name = name.map(str::to_owned);
        config.proxy_url = Some(::http::Uri::from_static("http://proxy.example.org:3128"));
        ask_this_node(&mut config, 8443);
        assert_eq!(config.proxy_url, None, "its loopback is another one");
        (config.cluster_url.to_string(), config.tls_server_name)
    }

    #[test]
    fn the_api_server_of_this_node_is_asked_by_the_name_that_all_of_them_have() {
        let here = || "https://127.0.0.1:8443/".to_owned();
        let kubernetes = Some("kubernetes".to_owned());
        assert_eq!(local("https://192.0.2.100:6443", None), (here(), kubernetes.clone()));
        assert_eq!(local("https://vip.example.org", None), (here(), kubernetes));
        let named = Some("api.example.org".to_owned());
        assert_eq!(local("https://192.0.2.100:6443", named.as_deref()), (here(), named));
        for loopback in ["https://127.0.0.1:6443/", "https://[::1]:6443/", "https://localhost/"] {
            assert_eq!(local(loopback, None), (loopback.to_owned(), None));
        }
    }

    #[test]
    fn the_api_server_of_another_node_is_asked_by_the_same_name_and_without_tls_by_nobody() {
        let asked = |url: &'static str, address: &str, is_anybody: bool| {
            let mut config = Config::new(::http::Uri::from_static(url));
            config.accept_invalid_certs = is_anybody;
            config.proxy_url = Some(::http::Uri::from_static("http://proxy.example.org:3128"));
            config.auth_info.token = Some("secret".to_owned().into());
            ask_another(&mut config, address.parse().unwrap(), 8443);
            let is_told = config.auth_info.token.is_some();
            assert_eq!(config.proxy_url, None);
            (config.cluster_url.to_string(), config.tls_server_name.unwrap_or_default(), is_told)
        };
        let another = |url: &'static str, address: &str| asked(url, address, false);
        let name = "kubernetes".to_owned();
        let there = |url: &str, is_told| (url.to_owned(), name.clone(), is_told);
        assert_eq!(
            another("https://127.0.0.1:6443", "192.0.2.12"),
            there("https://192.0.2.12:6443/", true)
        );
        assert_eq!(
            another("https://localhost", "2001:db8::12"),
            there("https://[2001:db8::12]:8443/", true)
        );
        assert_eq!(
            another("http://127.0.0.1:6443", "192.0.2.12"),
            there("http://192.0.2.12:6443/", false)
        );
        assert_eq!(
            asked("https://127.0.0.1:6443", "192.0.2.12", true),
            there("https://192.0.2.12:6443/", false),
            "whoever answers there is believed"
        );
    }

    #[test]
    fn of_another_url_nothing_is_known_but_its_path_and_who_may_answer() {
        let mut like = Config::new(::http::Uri::from_static("https://192.0.2.100:6443"));
        like.root_cert = Some(vec![vec![1]]);
        like.auth_info.token = Some("secret".to_owned().into());
        let of = |url: &str| for_url(url, None, &like);
        let (config, path) = of("https://localhost:6443/readyz?verbose").unwrap();
        assert_eq!(
            (config.cluster_url.to_string(), path.as_str()),
            ("https://localhost:6443/".to_owned(), "/readyz?verbose")
        );
        assert_eq!(config.tls_server_name.as_deref(), Some("kubernetes"));
        assert_eq!(config.root_cert, like.root_cert);
        assert!(config.auth_info.token.is_none(), "nobody is told who asks");
        let (other, path) = of("http://192.0.2.7:8080").unwrap();
        assert_eq!((other.tls_server_name, path.as_str()), (None, "/"));
        assert!(of("/readyz").is_none() && of("not a url").is_none());
    }

    #[tokio::test]
    async fn an_answer_is_told_with_its_code_and_its_text_whichever_they_are() {
        let server = tower::service_fn(|request: ::http::Request<Body>| async move {
            let path = request.uri().path().to_owned();
            let code = if path == "/readyz" { 500 } else { 200 };
            let body = Body::from(format!("[-]etcd failed at {path}").into_bytes());
            Ok::<_, BoxError>(::http::Response::builder().status(code).body(body)?)
        });
        let client = Client::new(server, "default");
        assert_eq!(get(&client, "/livez").await, Ok((200, "[-]etcd failed at /livez".to_owned())));
        assert_eq!(get(&client, "/readyz").await.unwrap().0, 500);
    }
}
