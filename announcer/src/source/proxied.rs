//! Whether kube-proxy of this node leads to the endpoints here, as it says itself at the port that each Service with
//! `externalTrafficPolicy: Local` has for that (`spec.healthCheckNodePort`).
//!
//! It has a watch of its own, and writes its rules at most once a second: who is led here before that is lost, though there was
//! a way to another node. Who serves Services in its place need not answer there, and is not waited for longer than [`PATIENCE`];
//! who answers that nothing is led here yet is, ten times as long: on a busy node kube-proxy takes its time, and to go there meanwhile
//! is to be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::{Duration, Instant};

use berth_runtime::client::Plain;
use futures::StreamExt;
use tokio::sync::watch;

use crate::vip::Family;

/// The name of the task.
pub const TASK: &str = "kube-proxy";

/// How long it is waited for since it last answered.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How many times as long one is waited for that goes on to answer that it does not lead here.
const AT_MOST: u32 = 10;

/// Between two times that it is asked.
const AGAIN: Duration = Duration::from_millis(25);

/// After so long it goes by what is there by now: it writes what is news once a second where nothing else is set
/// (`--iptables-min-sync-period` and the like).
const STALE: Duration = Duration::from_secs(2);

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_millis(250);

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
        tell_news(&self.ask, &questions);
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

fn tell_news<T: Clone + PartialEq>(tell: &watch::Sender<T>, now: &T) {
    tell.send_if_modified(|told| {
        let is_news = told != now;
        told.clone_from(now);
        is_news
    });
}

async fn keep(
    mut questions: watch::Receiver<Questions>,
    tell: watch::Sender<BTreeSet<Question>>,
    patience: Duration,
) {
    let mut waits: BTreeMap<Question, Wait> = BTreeMap::new();
    let (client, mut known) = (Plain::default(), BTreeSet::new());
    // What was ready here and is no more, and since when. Until kube-proxy knows it leads to what was here, and says so.
    let mut left: BTreeMap<Question, Instant> = BTreeMap::new();
    loop {
        let Questions { at, ports } = questions.borrow_and_update().clone();
        let now = Instant::now();
        left.extend(known.difference(&ports).map(|gone| (*gone, now)));
        left.retain(|_, since| since.elapsed() < STALE);
        known.retain(|port| ports.contains(port));
        waits.retain(|port, _| ports.contains(port) && !known.contains(port));
        for question in ports.difference(&known) {
            waits.entry(*question).or_insert(Wait { since: now, heard: now, told: false });
        }
        for ((_, port), wait) in &mut waits {
            if wait.since + patience <= now && !std::mem::replace(&mut wait.told, true) {
                let port = *port;
                tracing::warn!(
                    port,
                    "kube-proxy does not lead to endpoints here yet: it is waited for"
                );
            }
        }
        let late = waits.iter().filter(|(_, wait)| wait.is_over(now, patience));
        let late: BTreeSet<Question> = late.map(|(question, _)| *question).collect();
        if let Some((_, port)) = late.first() {
            tracing::warn!(port, count = late.len(), "kube-proxy is not waited for any longer");
            known.extend(&late);
        }
        tell_news(&tell, &known);
        let open: BTreeSet<Question> =
            ports.difference(&known).chain(left.keys()).copied().collect();
        let again = AGAIN * u32::try_from(1 + open.len() / AT_ONCE).unwrap_or(u32::MAX);
        let asked = open.into_iter().map(|question| {
            let (client, at) = (&client, &at);
            async move { (question, ask(client, at, question).await) }
        });
        let mut answers = pin!(futures::stream::iter(asked).buffer_unordered(AT_ONCE));
        // Who does not answer keeps nobody waiting for others.
        while let Ok(Some((question, says))) =
            tokio::time::timeout_at((now + patience).into(), answers.next()).await
        {
            match says {
                Says::Leads if ports.contains(&question) && !left.contains_key(&question) => {
                    known.insert(question);
                    tell_news(&tell, &known);
                }
                Says::Otherwise => {
                    left.remove(&question);
                    if let Some(wait) = waits.get_mut(&question) {
                        wait.heard = Instant::now();
                    }
                }
                Says::Leads | Says::Nothing => {}
            }
        }
        tokio::select! {
            changed = questions.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again), if known.len() < ports.len() || !left.is_empty() => {}
        }
    }
}

/// That it is waited for.
#[derive(Debug)]
struct Wait {
    since: Instant,
    /// When it said last that it does not lead here.
    heard: Instant,
    told: bool,
}

impl Wait {
    fn is_over(&self, now: Instant, patience: Duration) -> bool {
        self.heard + patience <= now || self.since + patience * AT_MOST <= now
    }
}

/// What kube-proxy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// It leads to endpoints here.
    Leads,
    /// There are none, as far as it knows.
    Otherwise,
    /// No answer.
    Nothing,
}

/// Asks at these addresses until one of them answers.
async fn ask(client: &Plain, at: &[IpAddr], (family, port): Question) -> Says {
    let mut says = Says::Nothing;
    for address in at.iter().filter(|address| Family::of(address) == family) {
        let asked = client.get(SocketAddr::new(*address, port), "/healthz");
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(200)) => return Says::Leads,
            Ok(Ok(_)) => says = Says::Otherwise,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    says
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

    #[tokio::test]
    async fn who_answers_that_nothing_is_led_here_is_waited_for_longer_and_not_for_ever() {
        let (slow, patience) = (kube_proxy(&[503]).await, Duration::from_millis(300));
        let (proxied, task) = Proxied::new(patience);
        let mut answers = proxied.answers();
        tokio::spawn(task);
        let began = Instant::now();
        proxied.ask(questions(&[slow]));
        answers.wait_for(|known| known.contains(&slow)).await.unwrap();
        assert!(began.elapsed() >= patience * AT_MOST, "{:?}", began.elapsed());
    }

    #[test]
    fn patience_begins_anew_with_each_answer_and_ends() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let wait = |heard: u32| Wait { since: began, heard: began + second * heard, told: false };
        let is_over = |heard: u32, at: u32| wait(heard).is_over(began + second * at, 3 * second);
        assert_eq!([is_over(0, 2), is_over(0, 3)], [false, true], "it never answered");
        assert_eq!([is_over(7, 9), is_over(7, 10)], [false, true], "it answers no more");
        assert_eq!([is_over(29, 29), is_over(29, 30)], [false, true], "it never leads here");
    }
}
