//! What was reported of other systems, done to Berth: each case is a file of `e2e/field/cases` with what is done and what is
//! right. Cases of one election share a world: those that change nothing but their own Services are played beside each other,
//! then the others one after the other, each of which leaves everything as it was.

mod case;
mod edits;
mod play;
mod stage;

use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_e2e::world::{by_lease, env};
use tokio::runtime::Handle;

use self::case::{Case, Election};
use self::stage::Stage;

/// All cases of one election.
async fn all(election: Election) -> Result<()> {
    let cases = case::read(election)?;
    ensure!(!cases.is_empty(), "no case for {election:?}");
    let start = Instant::now();
    let mut environment = match election {
        Election::Membership => env([]),
        Election::Global => by_lease(),
        Election::Service => {
            let mut environment = by_lease();
            environment.remove("vip_leaderelection");
            environment.insert("svc_election".to_owned(), "true".to_owned());
            environment
        }
    };
    environment.insert("berth_drain_taints".to_owned(), stage::TAINT.to_owned());
    let (apart, others): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.is_apart());
    let mut stage = Stage::up(election, environment, &apart).await?;
    println!("{election:?}: a world in {:.0?}", start.elapsed());
    let mut wrong = beside_each_other(&stage, &apart)?;
    for case in others {
        wrong.extend(played(&stage, case).await?);
        stage.restore().await.with_context(|| case.name.clone())?;
    }
    let (count, seconds) = (cases.len(), start.elapsed().as_secs());
    println!("{election:?}: {count} cases in 1 world, {seconds} s");
    ensure!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}\n{}",
        wrong.len(),
        wrong.join("\n"),
        stage.logs()
    );
    stage.down()
}

/// All of these at the same time; what went wrong.
fn beside_each_other(stage: &Stage, cases: &[&Case]) -> Result<Vec<String>> {
    let runtime = Handle::current();
    let played = |case| runtime.block_on(played(stage, case));
    let all = || {
        thread::scope(|scope| {
            let play = |case| scope.spawn(move || played(case));
            let all: Vec<_> = cases.iter().copied().map(play).collect();
            all.into_iter().map(|one| one.join().expect("a case panicked")).collect()
        })
    };
    let wrong: Result<Vec<Option<String>>> = tokio::task::block_in_place(all);
    Ok(wrong?.into_iter().flatten().collect())
}

/// What went wrong in this case, of which nothing is left but what it did to nodes.
async fn played(stage: &Stage, case: &Case) -> Result<Option<String>> {
    let Case { name, what, source, step, service, .. } = case;
    let begun = Instant::now();
    let mut play = stage.begin(case);
    let outcome = play.perform_all(service, step).await;
    let told = if outcome.is_ok() { "right" } else { "WRONG" };
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seconds:6.1} s  {told}  {name}: {what} ({})", source.join(", "));
    play.clear().await.with_context(|| name.clone())?;
    Ok(outcome.err().map(|error| format!("{name}: {what}: {error:#}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_is_right_where_membership_decides() -> Result<()> {
    all(Election::Membership).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_is_right_where_one_lease_decides() -> Result<()> {
    all(Election::Global).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_is_right_where_a_lease_of_each_service_decides() -> Result<()> {
    all(Election::Service).await
}
