use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const FLAGS: &str = "--address 192.0.2.100,2001:db8::100 --interface eth0 --leaseDuration 5 --leaseRenewDuration 3 --leaseRetry 1";

/// The Pod by these flags, over what another one is given.
fn pod(kind: &str, flags: &str, other: pods::Given) -> Result<ControlPlanePod, String> {
    let arguments = ["kubeadm", kind].into_iter().chain(flags.split_whitespace());
    let matches = command().try_get_matches_from(arguments).map_err(|error| error.to_string())?;
    let matches = matches.subcommand().unwrap().1;
    let image = matches.get_one::<String>("image").cloned().or(other.image);
    manifest::control_plane_pod(other.environment, flags::given(matches), image)
}

fn init(flags: &str) -> Result<ControlPlanePod, String> {
    pod("init", flags, pods::Given::default())
}

/// The Pod of a file as the kubelet of a node shows it.
fn mirrored(node: &str, text: &str) -> Value {
    let mut pod: Value = serde_saphyr::from_str(text).unwrap();
    pod["metadata"]["name"] = json!(format!("berth-control-plane-{node}"));
    pod["spec"]["nodeName"] = json!(node);
    pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "1" });
    pod
}

/// What a cluster with these Pods says, whose control plane are the nodes a and b.
async fn said(pods: Vec<Value>) -> Result<pods::Given, String> {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let body = match request.uri().path() {
            "/api/v1/namespaces/kube-system/pods" => json!({ "metadata": {}, "items": pods }),
            "/api/v1/nodes" => {
                let query = request.uri().query().unwrap_or_default();
                assert!(
                    query.contains("labelSelector=node-role.kubernetes.io%2Fcontrol-plane"),
                    "{query}"
                );
                let nodes = ["a", "b"].map(|name| json!({ "metadata": { "name": name } }));
                json!({ "metadata": {}, "items": nodes })
            }
            other => panic!("{other}"),
        };
        async move {
            let body = Body::from(serde_json::to_vec(&body)?);
            Ok::<_, tower::BoxError>(http::Response::new(body))
        }
    });
    pods::of_cluster(&Client::new(service, "default"), "kube-system").await
}

#[test]
fn init_prints_one_pod_and_says_what_kubeadm_is_to_be_given() {
    let pod = init(FLAGS).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&pod.text).unwrap();
    assert_eq!(documents.len(), 1, "the kubelet reads one of a file");
    assert_eq!(documents[0]["metadata"]["name"], "berth-control-plane");
    let expected = "--control-plane-endpoint 192.0.2.100:6443 --upload-certs --apiserver-cert-extra-sans 2001:db8::100";
    assert_eq!(needed(&pod), expected);
    let six = init("--vip 2001:db8::100 --port 8443").unwrap();
    let expected =
        "--control-plane-endpoint [2001:db8::100]:8443 --upload-certs --apiserver-bind-port 8443";
    assert_eq!(needed(&six), expected);
    let said = "as kubeadm init has printed it";
    assert!(joined_by(&six).ends_with(&format!("{said}, with --apiserver-bind-port 8443")));
    assert!(joined_by(&pod).ends_with(said), "{}", joined_by(&pod));
}

#[test]
fn what_is_not_accepted_is_named_at_once_and_elections_in_etcd_with_what_to_use() {
    let told = init("--leaderElectionType etcd --etcdCert /x --arp=false --controlplane=false");
    let told = told.err().unwrap();
    for name in ["leaderElectionType=", "use berth_election=membership"] {
        assert!(told.contains(name), "{name}: {told}");
    }
    let told = init("--leaderElectionType etcd --arp=false").err().unwrap();
    for name in ["address=", "vip_arp=", "leaderElectionType="] {
        assert!(told.contains(name), "{name}: {told}");
    }
    let off = init("--address 192.0.2.100 --controlplane=false").err().unwrap();
    assert!(off.contains("cp_enable"), "{off}");
    for (flag, why) in [
        ("--nodeName a", "--nodeName, vip_nodename=\"a\": the Pod is that of all nodes"),
        ("--inCluster", "inCluster=\"true\": a static pod has no account"),
        ("--taint", "taint=\"true\": a static pod runs where its file is"),
    ] {
        let told = init(&format!("--address 192.0.2.100 {flag}")).err().unwrap();
        assert!(told.contains(why), "{flag}: {told}");
    }
    assert!(init("--address 192.0.2.100 --image A/b").err().unwrap().contains("--image"));
}

#[tokio::test]
async fn join_prints_what_the_others_have_and_flags_win_over_it() {
    let first = init(&format!("{FLAGS} --image r.example/berth:2")).unwrap();
    let mut of_one_node = mirrored("a", &first.text);
    of_one_node["spec"]["containers"][0]["env"][0] =
        json!({ "name": "vip_nodename", "value": "a" });
    let found = said(vec![of_one_node, mirrored("b", &first.text)]).await.unwrap();
    assert!(!found.environment.contains_key("vip_nodename"));
    let joined = pod("join", "", found.clone()).unwrap();
    let same = init(&format!("{FLAGS} --image r.example/berth:2")).unwrap();
    let parsed = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    assert_eq!(parsed(&joined.text), parsed(&same.text));
    let other = pod("join", "--interface eth1 --image r.example/berth:3", found).unwrap();
    assert!(other.text.contains("value: eth1") && other.text.contains("berth:3"), "{}", other.text);
}

#[tokio::test]
async fn where_the_others_differ_or_are_none_that_is_said() {
    let [one, other] =
        [FLAGS, "--address 192.0.2.100 --interface eth1"].map(|all| init(all).unwrap().text);
    let told = said(vec![mirrored("a", &one), mirrored("b", &other)]).await.unwrap_err();
    assert!(
        told.contains("Pods berth-control-plane-a and berth-control-plane-b differ in"),
        "{told}"
    );
    let newer = one.replace("berth-announcer:", "berth-announcer:9");
    let told = said(vec![mirrored("a", &one), mirrored("b", &newer)]).await.unwrap_err();
    assert!(told.contains("differ in image"), "{told}");
    let by_bgp = |password: &str| {
        let peers = format!("192.0.2.1:65001:{password}");
        init(&format!("--address 192.0.2.100 --bgp --localAS 65000 --bgppeers {peers}")).unwrap()
    };
    let [one_of, other_of] = ["hunter2", "hunter3"].map(|password| by_bgp(password).text);
    let told = said(vec![mirrored("a", &one_of), mirrored("b", &other_of)]).await.unwrap_err();
    assert!(told.contains("differ in bgp_peers, whose values are not shown;"), "{told}");
    assert!(!told.contains("hunter"), "{told}");
    assert!(said(vec![]).await.unwrap_err().contains("no Pod of berth-announcer"));
    let mut of_daemonset = mirrored("a", &one);
    of_daemonset["metadata"]["annotations"] = json!({});
    assert!(said(vec![of_daemonset]).await.unwrap_err().contains("a DaemonSet brings it"));
    let of_services = one.replace("name: cp_enable", "name: svc_enable");
    assert!(said(vec![mirrored("a", &of_services)]).await.unwrap_err().contains("no Pod"));
}

#[tokio::test]
async fn what_the_kubelet_of_another_node_shows_counts_for_nothing() {
    let own = init(FLAGS).unwrap().text;
    let theirs = init(&format!("{FLAGS} --image evil.example/x:1")).unwrap().text;
    let found = said(vec![mirrored("worker", &theirs), mirrored("a", &own)]).await.unwrap();
    assert!(!found.image.unwrap().contains("evil"));
    assert!(said(vec![mirrored("worker", &theirs)]).await.unwrap_err().contains("no Pod"));
}

#[tokio::test]
async fn a_kubeconfig_that_only_a_node_has_that_joined_is_told_with_where_to_have_it_from() {
    let told = pods::asked(Path::new("/nowhere/admin.conf"), "kube-system").await.unwrap_err();
    assert!(told.starts_with("--config: ") && told.contains("/nowhere/admin.conf"), "{told}");
    assert!(told.contains("copy it from a node that has joined, or give the settings"), "{told}");
}

#[tokio::test]
async fn who_may_not_ask_is_told_in_the_words_of_the_api_server() {
    let service = tower::service_fn(|_: http::Request<Body>| async {
        let message = "pods is forbidden: User \"a\" cannot list resource \"pods\"";
        let body = json!({
            "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message,
        });
        let body = Body::from(serde_json::to_vec(&body)?);
        Ok::<_, tower::BoxError>(http::Response::builder().status(403).body(body)?)
    });
    let told = pods::of_cluster(&Client::new(service, "default"), "kube-system").await;
    let expected =
        "Pods of kube-system: pods is forbidden: User \"a\" cannot list resource \"pods\"";
    assert_eq!(told.unwrap_err(), expected);
}

#[tokio::test]
async fn a_pod_that_has_it_by_another_word_for_true_counts() {
    let own = init(FLAGS).unwrap().text;
    let mut other = mirrored("a", &own);
    let env = other["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    let enable = env.iter_mut().find(|variable| variable["name"] == "cp_enable").unwrap();
    enable["value"] = json!("1");
    assert!(said(vec![other]).await.is_ok());
}
