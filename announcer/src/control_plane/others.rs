//! Asks the API servers of other nodes whether they are healthy, while that of this node is not, and tells what they answer. Each is
//! asked by itself: one that hangs holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_runtime::client;
use futures::FutureExt;
use futures::future::select_ok;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::access::Way;
use super::checker::READY;
use crate::config::HealthCheck;
use crate::ownership::health::{Health, Rules, Standing};
use crate::ownership::{Answers, Whom};

/// The name of the task.
pub(crate) const TASK: &str = "API servers of other nodes";

/// How soon one that answers well is asked again until it has done so often enough: clients of this node are waiting.
const SOON: Duration = Duration::from_millis(100);

/// Asks whoever is to be asked as long as it is, and tells what is known of those that have ever answered well.
pub(crate) async fn ask(
    check: HealthCheck,
    way: Way,
    mut whom: watch::Receiver<Whom>,
    tell: watch::Sender<Answers>,
) {
    let mut tasks = JoinSet::new();
    let mut asked: BTreeMap<String, (BTreeSet<IpAddr>, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = whom.borrow_and_update().clone();
        asked.retain(|node, (addresses, task)| {
            let stays = wanted.get(node) == Some(addresses);
            if !stays {
                task.abort();
                tell.send_if_modified(|answers| answers.remove(node).is_some());
            }
            stays
        });
        for (node, addresses) in wanted {
            asked.entry(node).or_insert_with_key(|node| {
                let following = follow(
                    node.clone(),
                    addresses.clone(),
                    check.clone(),
                    way.clone(),
                    tell.clone(),
                );
                (addresses, tasks.spawn(following))
            });
        }
        if whom.changed().await.is_err() {
            // The announcer leaves, and this process with it.
            std::future::pending::<()>().await;
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// Asks one of them for ever.
async fn follow(
    node: String,
    addresses: BTreeSet<IpAddr>,
    check: HealthCheck,
    way: Way,
    tell: watch::Sender<Answers>,
) {
    // One that was ended a moment ago may have told it since.
    tell.send_if_modified(|answers| answers.remove(&node).is_some());
    let rules = Rules { period: check.period, failures: check.failures };
    let mut health = Health::doubted(rules, Instant::now());
    let mut is_reached = false;
    loop {
        let asked = Instant::now();
        let each = addresses.iter().map(|address| is_ready(&way, *address).boxed());
        let answer = tokio::time::timeout(check.timeout, select_ok(each)).await;
        let is_good = matches!(&answer, Ok(Ok(_)));
        if let Ok(Err(why)) = &answer {
            tracing::debug!(node, why, "its API server is not healthy");
        }
        health.answered(is_good, asked, Instant::now());
        is_reached |= is_good;
        let standing = health.standing();
        // One that has begun to answer is neither yet.
        if is_reached && standing != Standing::Recovering {
            let is_healthy = standing == Standing::Healthy;
            tell.send_if_modified(|answers| {
                answers.insert(node.clone(), is_healthy) != Some(is_healthy)
            });
        }
        let due = match standing {
            Standing::Recovering => (asked + SOON).min(health.due()),
            _ => health.due(),
        };
        tokio::time::sleep_until(due.into()).await;
    }
}

/// A connection is made each time: one that was made before tells nothing of who would be led there now.
async fn is_ready(way: &Way, address: IpAddr) -> Result<(), String> {
    let client = way.of_another(address).await?;
    match client::get(&client, READY).await? {
        (200..300, _) => Ok(()),
        (code, _) => Err(format!("{READY}: {code}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{Api, Config, Settings};

    const SECOND: Duration = Duration::from_secs(1);

    /// How API servers at this port are reached, and how they are asked.
    fn way(port: u16) -> (Way, HealthCheck) {
        let settings = [("cp_enable", "true"), ("address", "192.0.2.100")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::parse(&Settings::gather(settings, []), "a").unwrap();
        let own = config.control_plane.unwrap();
        let folder = std::env::temp_dir();
        let file = folder.join(format!("berth-others-{}-{port}", std::process::id()));
        let server = format!("http://127.0.0.1:{port}");
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: a, users: [{{name: a, user: {{}}}}], clusters: [{{name: a, cluster: {{server: '{server}'}}}}], contexts: [{{name: a, context: {{cluster: a, user: a}}}}]}}"
        );
        std::fs::write(&file, kubeconfig).unwrap();
        let api =
            Api { kubeconfig: Some(file), namespace: "kube-system".to_owned(), ..Api::default() };
        (Way::of(&api, &own), own.health)
    }

    /// A server that answers the first `bad` questions with 500 and all others well, and how many there were.
    async fn server(at: &str, bad: usize) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind(at).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let code = if counted.fetch_add(1, Ordering::Relaxed) < bad { 500 } else { 200 };
                let _ = stream.read(&mut [0; 4096]).await;
                let answer =
                    format!("HTTP/1.1 {code} -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (port, count)
    }

    fn one(node: &str, address: &str) -> Whom {
        [(node.to_owned(), [address.parse().unwrap()].into())].into()
    }

    #[tokio::test]
    async fn who_answers_well_three_times_is_healthy_and_nobody_is_asked_before_or_after() {
        let (port, count) = server("127.0.0.2:0", 0).await;
        let (way, check) = way(port);
        let (set, whom) = watch::channel(Whom::new());
        let (tell, mut answers) = watch::channel(Answers::new());
        let asking = tokio::spawn(ask(check, way, whom, tell));
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(count.load(Ordering::Relaxed), 0);
        let begun = Instant::now();
        set.send_replace(one("b", "127.0.0.2"));
        answers.wait_for(|answers| answers.get("b") == Some(&true)).await.unwrap();
        assert!(count.load(Ordering::Relaxed) >= 3);
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        set.send_replace(Whom::new());
        answers.wait_for(Answers::is_empty).await.unwrap();
        let asked = count.load(Ordering::Relaxed);
        tokio::time::sleep(2 * SECOND).await;
        assert!(count.load(Ordering::Relaxed) <= asked + 1);
        asking.abort();
    }

    #[tokio::test]
    async fn who_never_answered_well_is_not_told_of_and_one_that_hangs_holds_up_no_other() {
        // It accepts, and says nothing.
        let silent = TcpListener::bind("127.0.0.3:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let (_, count) = server(&format!("127.0.0.4:{port}"), 1).await;
        let (way, check) = way(port);
        let whom: Whom = one("b", "127.0.0.3").into_iter().chain(one("c", "127.0.0.4")).collect();
        let (_set, whom) = watch::channel(whom);
        let (tell, mut answers) = watch::channel(Answers::new());
        let asking = tokio::spawn(ask(check, way, whom, tell));
        let begun = Instant::now();
        let told = answers.wait_for(|answers| answers.get("c") == Some(&true)).await.unwrap();
        assert_eq!(*told, [("c".to_owned(), true)].into());
        assert!(begun.elapsed() < 3 * SECOND && count.load(Ordering::Relaxed) >= 4);
        asking.abort();
    }
}
