//! Runs programs of the host, each with a limit on its time: what hangs is killed and named, and holds up nobody for
//! longer. A busy kernel may take seconds: somebody's large transaction may hold the rule set.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a program did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("starting {program}: {source}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It refused.
    #[error("{program}: {said}")]
    Refused {
        /// Its name.
        program: String,
        /// The first line that it wrote.
        said: String,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {} s and was killed", limit.as_secs())]
    Late {
        /// Its name.
        program: String,
        /// How long it was given.
        limit: Duration,
    },
}

/// Runs a program and gives what it prints.
pub(crate) async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    within(LIMIT, program, arguments, input).await
}

async fn within(
    limit: Duration,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, Error> {
    let start = |source| Error::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that refuses early does not read to the end; what it says counts.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    // Fed while it is read from: it may say much before it has read all. The limit drops the child, which kills it.
    let ended = async { tokio::join!(feed, child.wait_with_output()).1 };
    let Ok(output) = tokio::time::timeout(limit, ended).await else {
        return Err(Error::Late { program: program.to_owned(), limit });
    };
    let output = output.map_err(start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.starts_with('#')).unwrap_or("failed without a word");
    Err(Error::Refused { program: program.to_owned(), said: said.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_and_named() {
        let marker = format!("{}.5", 100_000 + std::process::id());
        let error = within(Duration::from_millis(100), "sleep", &[&marker], "").await.unwrap_err();
        assert_eq!(error.to_string(), "sleep did not end within 0 s and was killed");
        let lives = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let commands = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
            commands.filter(|command| command.ends_with(format!("\0{marker}\0").as_bytes())).count()
        };
        let start = std::time::Instant::now();
        while lives() > 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "it goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_is_fed_and_what_is_said_may_both_be_more_than_a_pipe_holds() {
        let input = "x".repeat(1 << 20);
        assert_eq!(run("cat", &[], &input).await.unwrap(), input);
    }

    #[tokio::test]
    async fn a_program_that_refuses_is_quoted_and_one_that_is_not_there_is_named() {
        let error = run("sh", &["-c", "echo '# hint' >&2; echo no >&2; exit 1"], "").await;
        assert_eq!(error.unwrap_err().to_string(), "sh: no");
        let error = run("no-such-program", &[], "").await.unwrap_err().to_string();
        assert!(error.starts_with("starting no-such-program: "), "{error}");
    }
}
