//! Settings of the announcer as it is shipped: what is wrong with one capability leaves the others running.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::alone;

/// A running announcer, in the namespace of the thread that starts it.
struct Announcer {
    process: Child,
    folder: PathBuf,
}

impl Announcer {
    /// Starts with a kubeconfig whose API server never answers.
    fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_with(9, name, settings)
    }

    /// The same, with the API server at this port.
    fn start_with(api: u16, name: &str, settings: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("berth-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: x, \
             contexts: [{{name: x, context: {{cluster: x, user: x}}}}], \
             clusters: [{{name: x, cluster: {{server: 'http://127.0.0.1:{api}'}}}}], \
             users: [{{name: x, user: {{}}}}]}}"
        );
        fs::write(folder.join("kubeconfig"), kubeconfig).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_berth-announcer"))
            .arg("manager")
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("k8s_config_file", folder.join("kubeconfig"))
            .env("vip_interface", "eth0")
            .env("berth_election", "global")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("out")).unwrap())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn();
        Self { process: process.unwrap(), folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Waits until its readiness is as it should be.
    fn readiness(&mut self, port: u16, is: impl Fn(&str) -> bool) -> String {
        self.ready_at(("127.0.0.1", port), is)
    }

    /// The same, asked there.
    fn ready_at(&mut self, at: (&str, u16), is: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let said = get(at, "/readyz").unwrap_or_default();
            if is(&said) {
                return said;
            }
            let ended = self.process.try_wait().unwrap();
            let waited = start.elapsed().as_secs();
            assert!(ended.is_none() && waited < 10, "{ended:?} {said}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts an API server that has nothing, and gives its port.
fn empty_api() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let body =
                    r#"{"kind":"Status","code":404,"reason":"NotFound","message":"nothing"}"#;
                let head =
                    "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: application/json";
                let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            });
        }
    });
    port
}

fn get(at: (&str, u16), path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn a_wrong_setting_of_one_capability_leaves_the_others_running_and_readiness_names_it() {
    alone(async || {
        let wrong = [("berth_eip_gateway", "gateway"), ("bgp_as", "many")];
        let mut announcer = Announcer::start_with(empty_api(), "eip", &wrong);
        // Once the interface was looked at, rounds go on.
        let goes_on = |said: &str| said.contains("config/eip: ") && !said.contains("interface");
        let said = announcer.readiness(2112, goes_on);
        assert!(said.starts_with("HTTP/1.1 503"), "{said}");
        let accepted = "accepted is one address of each family, such as 192.0.2.1,2001:db8::1";
        let told = format!("config/eip: berth_eip_gateway=\"gateway\": {accepted}\n");
        assert!(said.contains(&told), "{said}");
        assert!(said.contains("config/bgp: bgp_as=\"many\": accepted is a whole number"), "{said}");
        assert!(said.contains("services: not yet"), "Services are watched: {said}");
        assert!(announcer.log().contains("berth_eip_gateway"), "{}", announcer.log());
    });
}

#[test]
fn probes_are_answered_on_loopback_wherever_metrics_are() {
    alone(async || {
        let page = |host: &str, path: &str| get((host, 2112), path).unwrap_or_default();
        let is_there = |said: &str| said.starts_with("HTTP/1.1 200");
        for (metrics, elsewhere) in [
            (":2112", Some("127.0.0.1")),
            ("127.0.0.1:2112", Some("127.0.0.1")),
            ("192.0.2.250:2112", Some("192.0.2.250")),
            ("[2001:db8::250]:2112", Some("2001:db8::250")),
            ("", None),
            ("198.51.100.1:2112", None),
            ("2112", None),
        ] {
            let mut announcer = Announcer::start("probes", &[("prometheus_server", metrics)]);
            announcer.readiness(2112, |said| said.contains("services: not yet"));
            for own in ["127.0.0.1", "::1"] {
                assert!(is_there(&page(own, "/healthz")), "{metrics:?}, {own}");
                assert!(page(own, "/readyz").contains("services: not yet"), "{metrics:?}, {own}");
                let shows = matches!(metrics, ":2112") || elsewhere == Some(own);
                assert_eq!(is_there(&page(own, "/metrics")), shows, "{metrics:?}, {own}");
            }
            if let Some(host) = elsewhere {
                announcer.ready_at((host, 2112), |said| said.contains("services: not yet"));
                assert!(is_there(&page(host, "/metrics")), "{metrics:?}");
            }
        }
    });
}

#[test]
fn a_port_that_somebody_has_is_told_where_probes_are_answered_still() {
    alone(async || {
        let taken = TcpListener::bind("192.0.2.250:2112").unwrap();
        let mut announcer = Announcer::start("taken", &[]);
        let told = "prometheus_server: cannot listen on [::]:2112: Address already in use";
        announcer.readiness(2112, |said| said.contains(told));
        drop((taken, announcer));

        let _taken = TcpListener::bind("127.0.0.1:2112").unwrap();
        let metrics = ("prometheus_server", "192.0.2.250:9100");
        let mut announcer = Announcer::start("taken", &[metrics, ("health_check_port", "2114")]);
        announcer.readiness(2114, |said| said.contains("services: not yet"));
        announcer.ready_at(("192.0.2.250", 9100), |said| said.contains("services: not yet"));
        assert!(get(("192.0.2.250", 9100), "/metrics").unwrap().contains("# EOF"));
        assert!(get(("127.0.0.1", 2114), "/metrics").unwrap().starts_with("HTTP/1.1 404"));
        drop(announcer);

        let mut announcer = Announcer::start("taken", &[metrics]);
        let told = "probes: cannot listen on 127.0.0.1:2112: Address already in use";
        announcer.ready_at(("::1", 2112), |said| said.contains(told));
    });
}

#[test]
fn where_metrics_cannot_listen_the_other_port_says_why() {
    alone(async || {
        let wrong = [("prometheus_server", "2112"), ("health_check_port", "8089")];
        let mut announcer = Announcer::start("http", &wrong);
        let told = "config/http: prometheus_server=\"2112\": accepted is ADDRESS";
        announcer.readiness(8089, |said| said.contains(told));
    });
}

#[test]
fn a_wrong_setting_of_the_whole_process_ends_it_with_everything_that_is_wrong() {
    alone(async || {
        let wrong = [("vip_leaseduration", "soon"), ("berth_eip_gateway", "gateway")];
        let mut announcer = Announcer::start("core", &wrong);
        assert!(!announcer.process.wait().unwrap().success());
        let log = announcer.log();
        assert!(log.contains("not accepted, 2 in all"), "{log}");
        assert!(log.contains("vip_leaseduration=\"soon\": accepted is a whole number"), "{log}");
        assert!(log.contains("berth_eip_gateway=\"gateway\": accepted is one address"), "{log}");
    });
}

#[test]
fn a_list_of_members_beside_an_api_server_ends_the_process_and_names_both() {
    alone(async || {
        let mut announcer = Announcer::start("beside", &[("berth_members", "/nowhere")]);
        assert!(!announcer.process.wait().unwrap().success());
        let log = announcer.log();
        for name in ["svc_enable", "k8s_config_file", "berth_election"] {
            let told = |line: &str| line.contains("berth_members=") && line.contains(name);
            assert!(log.lines().any(told), "{name}: {log}");
        }
    });
}
