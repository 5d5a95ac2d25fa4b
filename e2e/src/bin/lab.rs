//! `lab`: makes, shows and removes labs.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_e2e::cli::main()
}
