//! Whether kube-proxy of this node leads to the endpoints here, as it says itself at the port that each Service with
//! `externalTrafficPolicy: Local` has for that (`spec.healthCheckNodePort`).
//!
//! It has a watch of its own, and writes its rules at most once a second: who is led here before that is lost, though there was
//! a way to another node. Who serves Services in its place need not answer there, and is not waited for longer than [`PATIENCE`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use berth_runtime::client::Plain;
use futures::StreamExt;
use tokio::sync::watch;

use crate::vip::Family;

/// The name of the task.
pub const TASK: &str = "kube-proxy";

/// How long it is waited for.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Between two times that it is asked.
const AGAIN: Duration = Duration::from_millis(25);

/// After so long it goes by what is there by now: it writes what is news once a second where nothing else is set
/// (`--iptables-min-sync-period` and the like).
const STALE: Duration = Duration::from_secs(2);

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_millis(500);

/// So many are asked at a time. Of more each is asked as much less often: Services cost nothing to who makes them.
const AT_ONCE: usize = 32;

/// Of each family kube-proxy has rules of its own, and says at addresses of that family whether they are there.
pub type Question = (Family, u16);

/// What is asked, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The addresses of this node: kube-proxy listens on loopback and on them, or on some (`--nodeport-addresses`).
    pub at: Vec<IpAddr>,
    /// The families and ports of the Services that have a ready endpoint here.
    pub ports: BTreeSet<Question>,
}

/// What kube-proxy says.
#[derive(Debug)]
pub struct Proxied {
    ask: watch::Sender<Questions>,
    answers: watch::Receiver<BTreeSet<Question>>,
}

impl Proxied {
    /// Nothing is asked yet. The task asks until nobody asks it any more.
    pub fn new(patience: Duration) -> (Self, impl Future<Output = ()> + Send) {
        let (ask, questions) = watch::channel(Questions::default());
        let (tell, answers) = watch::channel(BTreeSet::new());
        (Self { ask, answers }, keep(questions, tell, patience))
    }

    /// From now on this is asked, and what was known of anything else forgotten.
    pub fn ask(&self, questions: Questions) {
        self.ask.send_if_modified(|known| {
            let is_news = *known != questions;
            *known = questions;
            is_news
        });
    }

    /// Whether it says at all of these that it leads to endpoints here, or does not answer.
    pub fn leads(&self, questions: &BTreeSet<Question>) -> bool {
        questions.is_subset(&self.answers.borrow())
    }

    /// The ports at which it says that it leads to endpoints here, or does not answer.
    pub fn answers(&self) -> watch::Receiver<BTreeSet<Question>> {
        self.answers.clone()
    }
}

async fn keep(
    mut questions: watch::Receiver<Questions>,
    tell: watch::Sender<BTreeSet<Question>>,
    patience: Duration,
) {
    let mut since: BTreeMap<Question, Instant> = BTreeMap::new();
    let (client, mut known) = (Plain::default(), BTreeSet::new());
    // What was ready here and is no more, and since when. Until kube-proxy knows it leads to what was here, and says so.
    let mut left: BTreeMap<Question, Instant> = BTreeMap::new();
    loop {
        let Questions { at, ports } = questions.borrow_and_update().clone();
        left.extend(known.difference(&ports).map(|gone| (*gone, Instant::now())));
        left.retain(|_, since| since.elapsed() < STALE);
        known.retain(|port| ports.contains(port));
        since.retain(|port, _| ports.contains(port) && !known.contains(port));
        let open: BTreeSet<Question> =
            ports.difference(&known).chain(left.keys()).copied().collect();
        let again = AGAIN * u32::try_from(1 + open.len() / AT_ONCE).unwrap_or(u32::MAX);
        let asked = open.into_iter().map(|question| {
            let (client, at) = (&client, &at);
            async move { (question, leads(client, at, question).await) }
        });
        let answers: Vec<_> =
            futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        for (question, leads) in answers {
            if leads.is_err() {
                left.remove(&question);
            }
            if !ports.contains(&question) {
                continue;
            }
            let since = *since.entry(question).or_insert_with(Instant::now);
            let is_over = since.elapsed() >= patience;
            if is_over && leads.is_err() {
                let why = leads.as_ref().err();
                tracing::warn!(port = question.1, why, "kube-proxy is not waited for any longer");
            }
            if leads.is_ok() && !left.contains_key(&question) || is_over {
                known.insert(question);
            }
        }
        tell.send_if_modified(|told| {
            let is_news = *told != known;
            told.clone_from(&known);
            is_news
        });
        tokio::select! {
            changed = questions.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again), if known.len() < ports.len() || !left.is_empty() => {}
        }
    }
}

/// Whether it says at one of these addresses that it leads to endpoints here; else what it says, or why nothing.
async fn leads(client: &Plain, at: &[IpAddr], (family, port): Question) -> Result<(), String> {
    let mut why = "it has no address".to_owned();
    for address in at.iter().filter(|address| Family::of(address) == family) {
        let at = SocketAddr::new(*address, port);
        match tokio::time::timeout(TIMEOUT, client.get(at, "/healthz")).await {
            Ok(Ok(200)) => return Ok(()),
            Ok(Ok(code)) => why = format!("{at}: {code}"),
            Ok(Err(error)) => why = format!("{at}: {error}"),
            Err(_) => why = format!("{at}: no answer within {TIMEOUT:?}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// Answers at a port of its own with these codes in turn, and with the last for ever.
    async fn kube_proxy(codes: &'static [u16]) -> Question {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let code = codes[number.min(codes.len() - 1)];
                let _ = stream.read(&mut [0; 1024]).await;
                let answer =
                    format!("HTTP/1.1 {code} -\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (Family::V4, port)
    }

    fn questions(ports: &[Question]) -> Questions {
        Questions { at: vec![Ipv4Addr::LOCALHOST.into()], ports: ports.iter().copied().collect() }
    }

    #[tokio::test]
    async fn a_port_is_known_once_kube_proxy_leads_and_forgotten_with_its_endpoints() {
        let (early, late) = (kube_proxy(&[200]).await, kube_proxy(&[503, 503, 503, 200]).await);
        let never = kube_proxy(&[503]).await;
        let (proxied, task) = Proxied::new(LONG);
        let mut answers = proxied.answers();
        let task = tokio::spawn(task);
        proxied.ask(questions(&[early, late, never]));
        answers.wait_for(|known| known.contains(&early) && !known.contains(&late)).await.unwrap();
        answers.wait_for(|known| *known == [early, late].into()).await.unwrap();
        proxied.ask(questions(&[late, never]));
        answers.wait_for(|known| *known == [late].into()).await.unwrap();
        drop(proxied);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_it_says_of_what_was_here_before_is_not_believed() {
        let port = kube_proxy(&[200, 200, 200, 200, 503, 200]).await;
        let (proxied, task) = Proxied::new(LONG);
        let mut answers = proxied.answers();
        tokio::spawn(task);
        proxied.ask(questions(&[port]));
        answers.wait_for(|known| known.contains(&port)).await.unwrap();
        proxied.ask(questions(&[]));
        answers.wait_for(BTreeSet::is_empty).await.unwrap();
        let began = Instant::now();
        proxied.ask(questions(&[port]));
        answers.wait_for(|known| known.contains(&port)).await.unwrap();
        assert!(began.elapsed() >= AGAIN, "it has heard of the end of what was here");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_waited_for_for_ever() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = (Family::V6, nobody.local_addr().unwrap().port());
        drop(nobody);
        let (proxied, task) = Proxied::new(Duration::from_millis(100));
        let mut answers = proxied.answers();
        tokio::spawn(task);
        proxied.ask(questions(&[port]));
        answers.wait_for(|known| known.contains(&port)).await.unwrap();
    }
}
