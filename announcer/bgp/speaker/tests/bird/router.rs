//! A BIRD in a namespace of its own, on one cable with the speaker, and what it says.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// A network namespace without a name: it goes with whoever holds it.
pub(crate) struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: these tests need root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// Runs `work` on a thread inside; sockets and children that it makes stay inside.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run(&self, command: &str) -> String {
        self.within(|| run(command))
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let output = Command::new(program).args(words).env("PATH", SEARCHED).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {}: {said}{error}", output.status);
    said
}

pub(crate) const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Two hosts on one cable: `node` for the speaker at 192.0.2.11 and 2001:db8::11, and a BIRD at .1 and ::1.
pub(crate) struct Router {
    pub(crate) node: Namespace,
    _router: Namespace,
    bird: Child,
    folder: PathBuf,
}

/// Two hosts on one cable: the first at 192.0.2.11, 2001:db8::11 and fe80::11, the other at .1 and ::1.
pub(crate) fn cable() -> (Namespace, Namespace) {
    let (node, router) = (Namespace::new(), Namespace::new());
    for namespace in [&node, &router] {
        namespace.run("ip link set lo up");
        namespace.run("sysctl -qw net.ipv6.conf.default.accept_dad=0");
    }
    node.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", router.path()));
    for (namespace, last) in [(&node, 11), (&router, 1)] {
        // Of the link they have the address below, and no other.
        namespace.run("ip link set eth0 addrgenmode none");
        namespace.run("ip link set eth0 up");
        namespace.run(&format!("ip addr add 192.0.2.{last}/24 dev eth0"));
        namespace.run(&format!("ip addr add 2001:db8::{last}/64 dev eth0 nodad"));
        namespace.run(&format!("ip addr add fe80::{last}/64 dev eth0 nodad"));
    }
    (node, router)
}

impl Router {
    /// Starts BIRD with protocols that are told how to speak to the speaker.
    pub(crate) fn with(protocols: &str) -> Self {
        let (node, router) = cable();
        let folder = std::env::temp_dir().join(format!(
            "berth-bird-{}-{:?}",
            std::process::id(),
            thread::current().id()
        ));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        fs::write(
            file("conf"),
            format!("log \"{}\" all;\n{COMMON}{protocols}", file("log").display()),
        )
        .unwrap();
        let bird = router.within(|| {
            let mut bird = Command::new("bird");
            bird.env("PATH", SEARCHED)
                .arg("-f")
                .arg("-c")
                .arg(file("conf"))
                .arg("-s")
                .arg(file("ctl"));
            bird.stdin(Stdio::null()).spawn().expect("bird is needed: Debian's package bird2")
        });
        let mut router = Self { node, _router: router, bird, folder };
        let begun = Instant::now();
        while !router.file("ctl").exists() {
            let ended = router.bird.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{ended:?} {}", router.log());
            thread::sleep(Duration::from_millis(5));
        }
        router
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// What BIRD says to a command.
    pub(crate) fn says(&self, command: &str) -> String {
        let mut birdc = Command::new("birdc");
        birdc
            .env("PATH", SEARCHED)
            .arg("-s")
            .arg(self.file("ctl"))
            .args(command.split_whitespace());
        let output = birdc.output().expect("birdc is needed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until BIRD says something like that.
    pub(crate) fn until(&self, command: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let said = self.says(command);
            if is(&said) {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "{command}: {said}\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many routes it has of a protocol.
    pub(crate) fn count(&self, protocol: &str) -> usize {
        let said = self.says(&format!("show route protocol {protocol} count"));
        let numbers =
            said.lines().filter_map(|line| line.split(" of ").next()?.trim().parse::<usize>().ok());
        numbers.sum()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.bird.kill();
        let _ = self.bird.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const COMMON: &str = "
router id 192.0.2.1;
protocol device { scan time 1; }
";
