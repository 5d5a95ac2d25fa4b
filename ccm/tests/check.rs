//! `berth-ccm check` as a script sees it.

mod program;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use anyhow::Result;
use program::run;

/// Runs the program on this text; what it ended with, said, and complained.
fn check(text: &str, more: &[&str]) -> Result<(Option<i32>, String, String)> {
    run(&[&["check", "-"], more].concat(), text)
}

const HEAD: &str = "kind: ConfigMap\nmetadata: { name: kubevip, namespace: kube-system }\ndata:\n";

#[test]
fn good_pools_end_with_0() -> Result<()> {
    let pools = format!("{HEAD}  cidr-global: 192.0.2.0/24\n");
    let table = "POOL    FAMILY  SIZE  FREE\nglobal  IPv4     256   254\n\nno problem found\n";
    let (code, said, complained) = check(&pools, &[])?;
    assert_eq!((code, complained.as_str()), (Some(0), ""));
    assert!(said.starts_with(&format!("{table}2 notes:\n")), "{said}");
    let closed = format!("{pools}  pins-global: pool\n  namespace-quota: \"20\"\n");
    let (code, said, complained) = check(&closed, &[])?;
    assert_eq!((code, said.as_str(), complained.as_str()), (Some(0), table, ""));
    Ok(())
}

#[test]
fn a_key_that_a_template_left_empty_is_noted() -> Result<()> {
    let empty = "  cidr-global: \"\"\n";
    let (code, said, _) = check(&format!("{HEAD}{empty}  range-global: 192.0.2.0/24\n"), &[])?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("key `cidr-global` is an empty list: it adds no address"), "{said}");
    let (code, said, _) = check(&format!("{HEAD}{empty}"), &[])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody gets an address"), "{said}");
    Ok(())
}

#[test]
fn problems_end_with_1_and_are_named() -> Result<()> {
    let (code, said, _) = check(&format!("{HEAD}  cidr-global: 192.0.2.9-192.0.2.1\n"), &[])?;
    assert_eq!(code, Some(1));
    for word in ["cidr-global", "192.0.2.9-192.0.2.1", "reversed", "accepted is"] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_looked_at_ends_with_2_and_says_why() -> Result<()> {
    let good = format!("{HEAD}  cidr-global: 192.0.2.0/24\n");
    let cases: [(&str, &[&str], &str); 3] = [
        ("kind: [", &[], "neither YAML nor JSON"),
        ("kind: Pod\nmetadata: { name: web }\n", &[], "Pod web"),
        (&good, &["--against=/nowhere/config"], "/nowhere/config"),
    ];
    for (text, more, word) in cases {
        let (code, said, complained) = check(text, more)?;
        assert_eq!((code, said.as_str()), (Some(2), ""), "{text}");
        assert!(complained.contains(word), "{word} is missing: {complained}");
    }
    Ok(())
}

#[test]
fn why_a_cluster_is_not_reached_is_said_once() -> Result<()> {
    let good = format!("{HEAD}  cidr-global: 192.0.2.0/24\n");
    let (_, _, complained) = check(&good, &["--against=/nowhere/config"])?;
    assert_eq!(
        complained,
        "berth-ccm check: kubeconfig `/nowhere/config` cannot be read: No such file or directory (os error 2)\n"
    );
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = kubeconfig(nobody)?;
    let against = format!("--against={}", config.display());
    let (code, _, complained) = check(&good, &[&against])?;
    assert_eq!(code, Some(2));
    assert_eq!(complained.matches("Connection refused").count(), 1, "{complained}");
    assert_eq!(complained.matches("client error").count(), 1, "{complained}");
    assert!(!complained.contains("ServiceError"), "{complained}");
    let import = Command::new(env!("CARGO_BIN_EXE_berth-ccm"))
        .args(["import-eip", "--from", "/nowhere/config"])
        .output()?;
    let complained = String::from_utf8(import.stderr)?;
    assert_eq!(complained.matches("No such file").count(), 1, "{complained}");
    Ok(())
}

#[test]
fn who_has_no_kubeconfig_is_told_which_one_was_looked_for_and_what_to_do() -> Result<()> {
    let complains = |kubeconfig: Option<&str>| -> Result<String> {
        let mut program = Command::new(env!("CARGO_BIN_EXE_berth-ccm"));
        program.args(["import-eip", "--from", "current"]).env("HOME", "/nowhere");
        for name in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
            program.env_remove(name);
        }
        kubeconfig.map(|path| program.env("KUBECONFIG", path));
        Ok(String::from_utf8(program.output()?.stderr)?)
    };
    for (named, path) in [(None, "/nowhere/.kube/config"), (Some("/none"), "/none")] {
        let said = complains(named)?;
        let told = format!(
            "no cluster to talk to: kubeconfig `{path}` cannot be read: No such file or directory (os error 2), and this is \
             no pod that has an account; name a kubeconfig file, here or in KUBECONFIG\n"
        );
        assert!(said.ends_with(&told) && !said.contains("infer"), "{said}");
    }
    Ok(())
}

#[test]
fn pools_and_what_nodes_tell_are_looked_for_in_the_namespace_of_the_file() -> Result<()> {
    let own = "kind: ConfigMap\nmetadata: { name: kubevip, namespace: berth }\ndata:\n  cidr-global: 192.0.2.0/24\n";
    let bare = "kind: ConfigMap\nmetadata: { name: kubevip }\ndata:\n  cidr-global: 192.0.2.0/24\n";
    let cases: [(&str, &[&str], [&str; 2]); 3] = [
        (own, &[], ["berth", "berth"]),
        (own, &["--leases=other"], ["berth", "other"]),
        (bare, &[], ["kube-system", "kube-system"]),
    ];
    for (text, more, [pools, leases]) in cases {
        let (server, asked) = empty_cluster()?;
        let config = kubeconfig(server)?;
        let against = format!("--against={}", config.display());
        let (code, said, complained) = check(text, &[&[against.as_str()], more].concat())?;
        assert_ne!(code, Some(2), "{said}{complained}");
        let asked: Vec<String> = asked.try_iter().collect();
        for path in [
            format!("/api/v1/namespaces/{pools}/configmaps/kubevip"),
            format!("/apis/coordination.k8s.io/v1/namespaces/{leases}/leases"),
        ] {
            let found = asked.iter().any(|asked| asked.split('?').next() == Some(&path));
            assert!(found, "{path} is not in {asked:?}");
        }
    }
    Ok(())
}

/// A kubeconfig for an API server there.
fn kubeconfig(server: SocketAddr) -> Result<PathBuf> {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{ name: c, cluster: {{ server: \"http://{server}\" }} }}]\n\
         users: [{{ name: c, user: {{}} }}]\ncontexts: [{{ name: c, context: {{ cluster: c, user: c }} }}]\n"
    );
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.yaml", server.port()));
    std::fs::write(&path, text)?;
    Ok(path)
}

/// An API server that has nothing, and what it is asked for.
fn empty_cluster() -> Result<(SocketAddr, Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (told, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(&stream).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = match path.contains("/configmaps/") {
                true => (
                    "404 Not Found",
                    r#"{"kind":"Status","status":"Failure","reason":"NotFound","code":404}"#,
                ),
                false => {
                    ("200 OK", r#"{"kind":"List","apiVersion":"v1","metadata":{},"items":[]}"#)
                }
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            // Nobody listens at the end of the test.
            _ = told.send(path);
            _ = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
        }
    });
    Ok((address, asked))
}
