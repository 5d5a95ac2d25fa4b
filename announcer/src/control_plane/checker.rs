//! Asks the API server of this node whether it is healthy, and tells what is known of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use berth_runtime::client;
use berth_runtime::http::Health as Probes;
use kube::Client;
use tokio::sync::Notify;

use super::access::Way;
use super::alive::Alive;
use super::reach;
use crate::config::HealthCheck;
use crate::kernel::Listening;
use crate::ownership::health::{Health, Heard, Rules, Standing};

/// The name of the task, and of the readiness check.
pub(crate) const TASK: &str = "API server's health";

/// What is asked where nothing else is said: whether it can serve, and not only that it lives.
pub(super) const READY: &str = "/readyz";

/// Letters of an answer that are told.
const SHOWN: usize = 200;

/// Asks for ever, and at once when it is told to by `again` or the server has ended, and tells what is heard whenever that
/// changes. `client` is of the API server of this node, whose Leases in a namespace may be watched; another URL is asked by what
/// `way` says of who may answer.
/// One that answers at loopback alone is none for who comes by these `addresses`.
pub(crate) async fn ask(
    addresses: Vec<IpAddr>,
    check: HealthCheck,
    (client, namespace): (Client, String),
    way: Way,
    probes: Probes,
    again: Arc<Notify>,
    tell: impl Fn(Heard) + Send,
) {
    let rules = Rules { period: check.period, failures: check.failures };
    let mut health = Health::new(rules, Instant::now());
    let (mut other, mut told): (Option<(Client, String)>, _) = (None, Heard::default());
    let mut known_at = None;
    let mut alive = Alive::new(&client, &namespace, check.period);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(health.due().into()) => {}
            () = again.notified() => {}
            () = alive.ended() => {}
        }
        if other.is_none() {
            other = elsewhere(&check, &way).await;
        }
        let at = match (&check.url, known_at.take()) {
            (Some(url), _) => url.clone(),
            (None, Some(at)) => at,
            (None, None) => way.url(READY).await,
        };
        let asked = Instant::now();
        let answer = match (&check.url, &other) {
            (None, _) => answer(&client, READY, &at, &check).await,
            (Some(_), Some((client, path))) => answer(client, path, &at, &check).await,
            (Some(url), None) => Err(format!("is not known: {url} cannot be asked yet")),
        };
        let answer = match answer {
            Ok(()) => reach::met(&at, &addresses, way.port(), Listening::look),
            bad => bad,
        };
        health.answered(answer.is_ok(), asked, Instant::now());
        if answer.is_ok() && check.url.is_none() {
            alive.begin();
        }
        report(&answer, &health, told.good.is_some(), &probes);
        known_at = answer.is_ok().then_some(at);
        let good = if health.is_steady() { Some(asked) } else { told.good };
        let heard = Heard { standing: health.standing(), good };
        if std::mem::replace(&mut told, heard) != heard {
            tell(heard);
        }
    }
}

/// Whoever answers at the URL that is to be asked instead.
async fn elsewhere(check: &HealthCheck, way: &Way) -> Option<(Client, String)> {
    let url = check.url.as_deref()?;
    let like = way.config().await.ok()?;
    let (config, path) = client::for_url(url, check.authority.as_deref(), &like)?;
    Some((client::connect(config).ok()?, path))
}

/// What is wrong with the answer for a path, which is to be had `at` this URL, if anything.
async fn answer(client: &Client, path: &str, at: &str, check: &HealthCheck) -> Result<(), String> {
    let not_ready = |why: String| format!("is not ready: {at}: {why}");
    match tokio::time::timeout(check.timeout, client::get(client, path)).await {
        Ok(Ok((200..300, _))) => Ok(()),
        Ok(Ok((code @ (401 | 403), _))) => {
            Err(format!("answers, {}: {at}: {code}", refusal(code, check.url.is_none())))
        }
        Ok(Ok((code, text))) => Err(not_ready(format!("{code}{}", failing(&text)))),
        Ok(Err(why)) => Err(not_ready(why)),
        Err(_) => Err(not_ready(format!("no answer within {:?}", check.timeout))),
    }
}

/// What a refusal says: of who asks, and nothing of the server. Another URL than that of the API server is asked by nobody.
fn refusal(code: u16, is_known: bool) -> &'static str {
    match (is_known, code) {
        (true, 401) => {
            "and does not know this kubeconfig, whose certificate has run out or is another cluster's"
        }
        (true, _) => "and does not let this kubeconfig ask whether it is ready",
        (false, _) => {
            "and lets nobody ask whom it does not know, as control_plane_health_check_address has it"
        }
    }
}

/// The checks that fail, of the lines of an API server.
fn failing(text: &str) -> String {
    let lines = text.lines().filter(|line| line.starts_with("[-]"));
    let lines = lines.collect::<Vec<_>>().join(", ");
    match lines.is_empty() {
        true => String::new(),
        false => format!(
            " {}",
            lines.chars().filter(|c| !c.is_control()).take(SHOWN).collect::<String>()
        ),
    }
}

fn report(answer: &Result<(), String>, health: &Health, was_ready: bool, probes: &Probes) {
    match (health.standing(), answer) {
        (Standing::Healthy, _) => probes.ready(TASK),
        (_, Err(why)) if !was_ready => {
            probes.expects(TASK, format!("the API server of this node {why}; it is waited for"))
        }
        (_, Err(why)) => probes.waits(TASK, format!("the API server of this node {why}")),
        (_, Ok(())) => probes
            .unready(TASK, "the API server of this node is ready again, and has to be for a while"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_lines_of_an_api_server_those_are_told_that_fail() {
        let text = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\nreadyz check failed\n";
        assert_eq!(failing(text), " [-]etcd failed: reason withheld");
        assert_eq!(failing("no"), "");
        assert!(failing(&format!("[-]{}", "x".repeat(10_000))).len() <= SHOWN + 1);
    }

    #[tokio::test]
    async fn who_is_refused_is_told_that_and_not_that_the_server_is_not_ready() {
        let second = std::time::Duration::from_secs(1);
        let answers = async |code: u16, url: Option<&str>| {
            let (url, authority) = (url.map(str::to_owned), None);
            let check =
                HealthCheck { url, authority, period: second, timeout: second, failures: 3 };
            let server =
                tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
                    let body = kube::client::Body::empty();
                    Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body)?)
                });
            let at = check.url.clone().unwrap_or_else(|| format!("https://127.0.0.1:6443{READY}"));
            answer(&Client::new(server, "default"), READY, &at, &check).await
        };
        assert_eq!(answers(200, None).await, Ok(()));
        for (code, url, said) in [
            (401, None, "answers, and does not know this kubeconfig"),
            (403, None, "answers, and does not let this kubeconfig ask"),
            (401, Some("https://localhost:6443/readyz"), "answers, and lets nobody ask"),
            (500, None, "is not ready: https://127.0.0.1:6443/readyz: 500"),
        ] {
            let why = answers(code, url).await.unwrap_err();
            assert!(why.starts_with(said) && why.contains(&code.to_string()), "{said}: {why}");
        }
    }
}
