//! A network namespace that lives as long as one test, with two ends of one cable: `eth0` and `peer0`.

use std::process::{Command, Output};
use std::thread;

use berth_announcer::instance::Instance;
use berth_announcer::kernel::{Door, Netlink};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Runs `test` in a namespace of its own. A panic in it is a panic here.
pub(crate) fn alone<T: Send>(test: impl AsyncFnOnce() -> T + Send) -> T {
    assert!(nix::unistd::geteuid().is_root(), "needs root, to make network namespaces");
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            for command in [
                "ip link set lo up",
                // Without it the kernel would keep IPv6 addresses tentative for a second.
                "sysctl -qw net.ipv6.conf.default.accept_dad=0",
                "ip link add eth0 type veth peer name peer0",
                "ip link set eth0 up",
                "ip link set peer0 up",
                "ip addr add 192.0.2.250/24 dev eth0",
                "ip addr add 2001:db8::250/64 dev eth0 nodad",
            ] {
                run(command);
            }
            // One thread: whatever it starts is in this namespace too.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The way into the kernel of this namespace.
pub(crate) fn door() -> Door {
    let (door, tasks) = Door::open().unwrap();
    for (_, task) in tasks {
        tokio::spawn(task);
    }
    door
}

/// Addresses and links, as the announcer for Services tags them.
pub(crate) fn kernel() -> Netlink {
    door().netlink(&Instance::services())
}

/// Runs a command, which must succeed; gives what it prints.
pub(crate) fn run(command: &str) -> String {
    let output = attempt(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command.
pub(crate) fn attempt(command: &str) -> Output {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let result = Command::new(program).args(words).output();
    result.unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// The addresses of an interface as `ip -N -j` shows them, by numbers.
pub(crate) fn addresses(interface: &str) -> Vec<Value> {
    let shown = run(&format!("ip -N -j addr show dev {interface}"));
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    shown[0]["addr_info"].as_array().cloned().unwrap_or_default()
}

/// One of them.
pub(crate) fn address(interface: &str, address: &str) -> Option<Value> {
    addresses(interface).into_iter().find(|shown| shown["local"] == address)
}
