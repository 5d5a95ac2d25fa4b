//! Holds a fence as it is told on standard input, one command a line, and answers each with one line.
//!
//! Its arguments are the strongest kind to try, and the name and number of an instance, if it is not that of Services.
//!
//! A process of its own, so that tests can stop it, kill it and let another follow it. It ends with its input, leaving
//! the fence in place as a crash would.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use berth_fence::{BootTime, Fence, Instance, Kind, Options, open};
use nix::sys::signal::{Signal, raise};

fn main() {
    let strongest = match std::env::args().nth(1).as_deref() {
        Some("nft-timeout") => Kind::NftTimeout,
        Some("unfenced") => Kind::Unfenced,
        _ => Kind::Bpf,
    };
    let instance = match (std::env::args().nth(2), std::env::args().nth(3)) {
        (Some(name), Some(number)) => number
            .parse()
            .map_err(|_| format!("no number of an instance: {number}"))
            .and_then(|number| Instance::of(&name, number).map_err(|error| error.to_string())),
        _ => Ok(Instance::services()),
    };
    let instance = match instance {
        Ok(instance) => instance,
        Err(error) => return say(&error),
    };
    let opened = open(&Options { strongest, instance, ..Options::default() });
    let refusals: Vec<_> = opened.refusals.iter().map(|refusal| refusal.to_string()).collect();
    say(&format!("{} {}", opened.fence.kind(), refusals.join(" | ")));
    Holder { fence: opened.fence, keep: None }.serve();
}

/// What to refresh in the background.
struct Keep {
    addresses: Vec<IpAddr>,
    grant: Duration,
    every: Duration,
    next: Instant,
    deadline: BootTime,
}

struct Holder {
    fence: Box<dyn Fence>,
    keep: Option<Keep>,
}

impl Holder {
    fn serve(&mut self) {
        let (lines, commands) = mpsc::channel();
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut due = None;
        loop {
            let poll = due.map(|due| BootTime::now().until(due));
            let keep =
                self.keep.as_ref().map(|keep| keep.next.saturating_duration_since(Instant::now()));
            let wait =
                [poll, keep].into_iter().flatten().min().unwrap_or(Duration::from_secs(3600));
            match commands.recv_timeout(wait) {
                Ok(line) => {
                    say(&self.perform(&line).unwrap_or_else(|error| format!("error {error}")))
                }
                Err(RecvTimeoutError::Timeout) => self.refresh(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            due = self.fence.poll(BootTime::now()).unwrap_or_else(|error| {
                say(&format!("poll {error}"));
                None
            });
        }
    }

    /// The answer to a command. A deadline that was armed is told in nanoseconds since boot.
    fn perform(&mut self, line: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        match command {
            "attach" => all(self.fence.attach(&rest.iter().map(ToString::to_string).collect())),
            "cover" => {
                self.fence
                    .cover(&addresses(&rest)?.into_iter().collect())
                    .map_err(|error| error.to_string())?;
                Ok("ok".into())
            }
            "settle" => all(self.fence.settle()),
            "arm" => {
                let deadline = BootTime::now().after(millis(rest.first())?);
                self.arm(&addresses(&rest[1..])?, deadline)
            }
            "stop-and-arm" => {
                let deadline = BootTime::now().after(millis(rest.first())?);
                raise(Signal::SIGSTOP).map_err(|error| error.to_string())?;
                self.arm(&addresses(&rest[1..])?, deadline)
            }
            "keep" => {
                let (grant, every) = (millis(rest.first())?, millis(rest.get(1))?);
                let (next, deadline) = (Instant::now(), BootTime::now().after(grant));
                self.keep =
                    Some(Keep { addresses: addresses(&rest[2..])?, grant, every, next, deadline });
                Ok("ok".into())
            }
            "mute" => match addresses(&rest)?.as_slice() {
                [] => self.fence.mute_all(),
                some => some.iter().try_for_each(|&address| self.fence.mute(address)),
            }
            .map(|()| format!("{}", BootTime::now().as_nanos()))
            .map_err(|error| error.to_string()),
            "inspect" => Ok(format!("{:?}", self.fence.inspection()())),
            "remove" => {
                self.keep = None;
                all(self.fence.remove())
            }
            other => Err(format!("unknown command {other}")),
        }
    }

    fn arm(&mut self, addresses: &[IpAddr], deadline: BootTime) -> Result<String, String> {
        for &address in addresses {
            self.fence.arm(address, deadline).map_err(|error| error.to_string())?;
        }
        Ok(deadline.as_nanos().to_string())
    }

    fn refresh(&mut self) {
        let Some(mut keep) = self.keep.take() else { return };
        if keep.next <= Instant::now() {
            let now = BootTime::now();
            if keep.deadline <= now {
                // A lapsed grant never revives: others may have it.
                return say("lapsed");
            }
            keep.deadline = now.after(keep.grant);
            if let Err(error) = self.arm(&keep.addresses, keep.deadline) {
                return say(&format!("error {error}"));
            }
            keep.next = Instant::now() + keep.every;
        }
        self.keep = Some(keep);
    }
}

fn all(errors: Vec<berth_fence::AttachError>) -> Result<String, String> {
    let texts: BTreeSet<_> = errors.iter().map(|error| error.to_string()).collect();
    if texts.is_empty() {
        Ok("ok".into())
    } else {
        Err(texts.into_iter().collect::<Vec<_>>().join(" | "))
    }
}

fn addresses(words: &[&str]) -> Result<Vec<IpAddr>, String> {
    words.iter().map(|word| word.parse().map_err(|_| format!("no address: {word}"))).collect()
}

fn millis(word: Option<&&str>) -> Result<Duration, String> {
    let word = word.ok_or("milliseconds are missing")?;
    word.parse()
        .map(Duration::from_millis)
        .map_err(|_| format!("no number of milliseconds: {word}"))
}

fn say(line: &str) {
    // Whoever listens may be gone; the fence is not.
    let _ = writeln!(io::stdout(), "{line}");
    let _ = io::stdout().flush();
}
