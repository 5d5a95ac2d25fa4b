//! Builds the lab's Kubernetes and prints the folder it is in.

fn main() -> anyhow::Result<()> {
    println!("{}", lab_programs::kubernetes::build()?.display());
    Ok(())
}
