//! Builds the lab's Kubernetes and prints the folder it is in; and what tests run beside it.

fn main() -> anyhow::Result<()> {
    lab_programs::gobgp::build()?;
    println!("{}", lab_programs::kubernetes::build()?.display());
    Ok(())
}
