//! `stock KUBE_VIP CCM [WORD...]`: `make compat-stock`. Each half of kube-vip beside ours, in labs of the same kind with the same
//! objects: who serves beside whom, what a client sees of each move from one to the other and back, what a crashed one leaves, and
//! the reports of kube-vip's users. With words only the parts whose name contains one.
//!
//! Prints a Markdown report. What is ours is judged, and fails the run at its end; what is theirs is shown beside it.

mod crashed;
mod halves;
mod moves;
mod reports;
mod seen;
mod told;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use berth_e2e::pauses;
use berth_e2e::stock::Stock;

use told::Told;

/// So many parts at a time, as tests that judge times are run (docs/decisions/0017).
const JOBS: usize = 3;

/// What has a lab of its own. The number is that of a plan, or of a sort.
#[derive(Clone, Copy)]
enum Part {
    Moves(usize),
    Crashed,
    Few(usize),
    Many(usize),
}

impl Part {
    /// The longest first.
    fn all() -> Vec<(String, Self)> {
        let moves = (0..moves::PLANS).map(|plan| (format!("moves {plan}"), Self::Moves(plan)));
        let sorts = || reports::SORTS.iter().enumerate();
        let few = sorts().map(|(i, sort)| (format!("reports: {}", sort.name), Self::Few(i)));
        let many = sorts().map(|(i, sort)| (format!("reports many: {}", sort.name), Self::Many(i)));
        moves.chain(many).chain(few).chain([("crashed".to_owned(), Self::Crashed)]).collect()
    }

    async fn run(self, stock: &Stock, told: &mut Told) -> Result<()> {
        match self {
            Self::Moves(plan) => moves::one(stock, plan, told).await,
            Self::Crashed => crashed::look(stock, told).await,
            Self::Few(sort) => reports::few(stock, sort, told).await,
            Self::Many(sort) => reports::many(stock, sort, told).await,
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kube_vip, ccm, words @ ..] = &arguments[..] else {
        bail!("usage: stock KUBE_VIP CCM [WORD...]");
    };
    let stock = Stock::of(kube_vip, ccm)?;
    pauses::watch();
    let mut parts = Part::all();
    parts.retain(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(&**word)));
    let (next, ended) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..JOBS.min(parts.len()) {
            scope.spawn(|| {
                while let Some((name, part)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut told = Told::default();
                    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
                    let run = |runtime: tokio::runtime::Runtime| {
                        runtime.block_on(part.run(&stock, &mut told))
                    };
                    let ran = runtime.map_err(Into::into).and_then(run);
                    told.word(name, true, ran);
                    eprintln!("{name} has ended");
                    if let Ok(mut ended) = ended.lock() {
                        ended.push((name, told));
                    }
                }
            });
        }
    });
    let mut ended = ended.into_inner().map_err(|_| anyhow!("a part panicked"))?;
    ended.sort_by_key(|(name, _)| *name);
    let mut told = Told::default();
    ended.into_iter().for_each(|(_, part)| told.add(part));
    println!(
        "kube-vip {}, beside Berth. A gap is the longest time without an answer to a client that connects each 20 ms;",
        stock.version()?
    );
    println!("two answering is for how long two nodes answered for one address at once.");
    told.print(&reports::REPORTS, &reports::SORTS.map(|sort| sort.name));
    if let [first, rest @ ..] = &told.failed[..] {
        let more = rest.iter().map(|failed| format!("{failed}\n")).collect::<String>();
        eprintln!("{more}");
        return Err(anyhow!("{first}")).context(format!("{} did not hold", told.failed.len()));
    }
    println!("All that is Berth's held.");
    Ok(())
}
