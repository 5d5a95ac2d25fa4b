//! What was reported of other systems, done to Berth: each case is a file of `e2e/field/cases` with what is done and what is
//! right. Cases of one election share a world, in which each leaves everything as it was.

mod case;
mod stage;

use std::time::Instant;

use anyhow::{Result, ensure};
use berth_e2e::world::{by_lease, env};

use self::case::{Case, Election};
use self::stage::Stage;

/// All cases of one election, one after the other.
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
    let mut stage = Stage::up(election, environment).await?;
    println!("{election:?}: a world in {:.0?}", start.elapsed());
    let mut wrong = Vec::new();
    for Case { name, what, source, step, service, .. } in &cases {
        let begun = Instant::now();
        let outcome = stage.play(service, step).await;
        let told = if outcome.is_ok() { "right" } else { "WRONG" };
        println!(
            "{:6.1} s  {told}  {name}: {what} ({})",
            begun.elapsed().as_secs_f64(),
            source.join(", ")
        );
        if let Err(error) = outcome {
            wrong.push(format!("{name}: {what}: {error:#}"));
        }
        stage.clear().await?;
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
