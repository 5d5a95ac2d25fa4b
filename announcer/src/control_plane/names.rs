//! Asks for the addresses of names that the control plane goes by. Whatever went wrong with asking changes nothing: what is known
//! is kept (kube-vip#1655), and a name has moved once it says so several times in a row.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_runtime::http::Health;

use crate::config::{ControlPlane, Families, Wished, choose, unless};

/// The name of the task, and of what is told.
pub(crate) const TASK: &str = "control plane's name";

/// How often a name is asked for.
const LOOK: Duration = Duration::from_secs(5);
/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often in a row a name has to say that it has other addresses: for a minute, for all nodes go by it, and a resolver may be led astray
/// for a moment.
const BELIEVED: u32 = 12;

/// Asks for all names once, and takes in what is found, in the order of the settings, also where something lacks.
///
/// # Errors
/// Which names have no address that is wanted, and why.
pub(crate) async fn resolve(own: &mut ControlPlane) -> Result<(), Vec<String>> {
    let (mut addresses, mut problems) = (Vec::new(), Vec::new());
    for wished in &own.wished {
        let found = match wished {
            Wished::Address(address) => Ok(vec![*address]),
            Wished::Name(name) => of(name, own.families, &[]).await,
        };
        match found {
            Ok(found) => {
                for address in found {
                    match addresses.contains(&address) {
                        true => problems.push(format!(
                            "address={wished}: it has {address}, which stands there besides"
                        )),
                        false => addresses.push(address),
                    }
                }
            }
            Err(why) => problems.push(why),
        }
    }
    own.addresses = addresses;
    unless(problems, ())
}

/// Asks again and again. Gives what has changed, once it has.
pub(crate) async fn follow(own: ControlPlane, health: Health) -> String {
    let mut moved: BTreeMap<&str, u32> = BTreeMap::new();
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let mut why = None;
        for name in own.names() {
            match of(name, own.families, &own.addresses).await {
                Ok(found) if found.iter().all(|address| own.addresses.contains(address)) => {
                    moved.remove(name);
                }
                Ok(found) => {
                    let times = moved.entry(name).or_default();
                    *times += 1;
                    if *times >= BELIEVED {
                        return format!("{name} has the address {} now", list(&found));
                    }
                }
                // It says nothing, not even that it has moved.
                Err(error) => why = Some(format!("{error}; {} is kept", list(&own.addresses))),
            }
        }
        match &why {
            Some(why) => health.missing(TASK, why.clone()),
            None => health.forget(TASK),
        }
        if told.is_some() != why.is_some() {
            match &why {
                Some(why) => tracing::warn!("{why}"),
                None => tracing::info!("the control plane's name is answered for again"),
            }
        }
        told = why;
    }
}

/// The addresses of one name that are used.
async fn of(name: &str, families: Families, known: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
    let told = |why: String| format!("address={name}: {why}");
    let asked = tokio::net::lookup_host((name, 0));
    let answer: Vec<IpAddr> = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(found)) => found.map(|at| at.ip()).collect(),
        Ok(Err(error)) => return Err(told(format!("the name has no address: {error}"))),
        Err(_) => {
            return Err(told(format!("nobody says within {TIMEOUT:?} which address the name has")));
        }
    };
    choose(families, &answer, known).map_err(|lacks| {
        let has = if answer.is_empty() { "none".to_owned() } else { list(&answer) };
        let lacks = lacks.map_or_else(|| "address".to_owned(), |family| format!("{family} address"));
        told(format!(
            "the name has no {lacks} that one host of a LAN can have, it has {has}; accepted for dns_mode are first, ipv4, ipv6 and dual"
        ))
    })
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().take(8).map(ToString::to_string).collect();
    texts.join(", ")
}
