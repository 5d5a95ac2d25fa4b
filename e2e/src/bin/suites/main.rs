//! Runs the tests of programs that `cargo test --no-run --message-format=json` has built, each in a process of its own and
//! several at a time: first those that may keep the processors busy, then those that have a time in their verdict, which
//! wait more than they work; and beside both one that does little but wait. The longest begin first. Ends with the seconds of each
//! suite and the slowest twenty tests.

mod found;
mod past;
mod report;

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use found::Test;
use past::Past;
use report::Outcome;

/// Runs tests and says what each cost.
#[derive(Parser)]
struct Arguments {
    /// The file with what cargo said.
    #[arg(long)]
    messages: PathBuf,
    /// Only these suites: `product`, `lab`, `berth_ccm`, ... May be given more than once.
    #[arg(long = "suite")]
    suites: Vec<String>,
    /// Leaves these suites out. May be given more than once.
    #[arg(long = "not")]
    not: Vec<String>,
    /// Shows what tests print, and runs one at a time.
    #[arg(long)]
    nocapture: bool,
    /// How many tests run at a time; one more of those that judge no time, and one that waits.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Takes all processors away for 120 to 220 ms every 30 s meanwhile, as a busy host of a virtual machine does.
    #[arg(long)]
    busy_host: bool,
    /// How often each test runs.
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Lists the tests and runs none.
    #[arg(long)]
    list: bool,
    /// Only tests whose name, e.g. `product::fenced::a_node`, contains one of these.
    filters: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let mut tests = found::tests(&arguments.messages)?;
    tests.retain(|test| is_wanted(test, &arguments));
    ensure!(!tests.is_empty(), "no test is called like that");
    if arguments.list {
        for test in &tests {
            println!("{}{}", test.name(), if test.timed { " (timed)" } else { "" });
        }
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.busy_host {
        berth_e2e::busy_host::be_busy()?;
    }
    let seconds = arguments.messages.with_file_name("seconds.json");
    let past = Past::read(&seconds);
    let mut tests = vec![tests; arguments.times].concat();
    past.sort(&mut tests);
    let (timed, busy): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(|test| test.timed);
    let mut outcomes = Vec::new();
    let more = usize::from(arguments.jobs > 1);
    for (tests, jobs) in [(busy, arguments.jobs + more), (timed, arguments.jobs)] {
        let workers = if arguments.nocapture { 1 } else { jobs };
        outcomes.extend(run_all(tests, workers, arguments.nocapture)?);
    }
    past.write(&outcomes, &seconds);
    print!("{}", report::render(&outcomes, start.elapsed()));
    Ok(if outcomes.iter().all(|o| o.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_wanted(test: &Test, arguments: &Arguments) -> bool {
    (arguments.suites.is_empty() || arguments.suites.contains(&test.suite))
        && !arguments.not.contains(&test.suite)
        && (arguments.filters.is_empty()
            || arguments.filters.iter().any(|part| test.name().contains(part)))
}

/// In the order given, as many at a time as there are workers, and one of those that wait beside them.
fn run_all(tests: Vec<Test>, workers: usize, show: bool) -> Result<Vec<Outcome>> {
    let (waiting, others): (Vec<Test>, Vec<Test>) =
        tests.into_iter().partition(|test| test.waits && workers > 1);
    let lists = [waiting, others].map(|tests| Mutex::new(tests.into_iter()));
    let outcomes = Mutex::new(Vec::new());
    let work = |list: &Mutex<std::vec::IntoIter<Test>>| -> Result<()> {
        loop {
            let next = list.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?.next();
            let Some(test) = next else { return Ok(()) };
            let outcome = run(test, show)?;
            outcomes.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?.push(outcome);
        }
    };
    thread::scope(|scope| {
        let all = (0..=workers).map(|worker| {
            let list = &lists[usize::from(worker > 0)];
            let work = &work;
            scope.spawn(move || work(list))
        });
        let all: Vec<_> = all.collect();
        all.into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    Ok(outcomes.into_inner().unwrap_or_default())
}

/// Runs one test to its end and says how it went; what a failed one printed follows.
fn run(test: Test, show: bool) -> Result<Outcome> {
    let mut command = Command::new(&test.program);
    command.args(["--exact", &test.test, "--test-threads=1"]).current_dir(&test.package);
    command.stdin(Stdio::null());
    let mut printed = None;
    if show {
        command.arg("--nocapture");
    } else {
        let file = unnamed_file()?;
        command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        printed = Some(file);
    }
    let start = Instant::now();
    let status = command.status().with_context(|| format!("start {}", test.program.display()))?;
    let took = start.elapsed();
    let passed = status.success();
    let mut text = String::new();
    if let Some(mut file) = printed.filter(|_| !passed) {
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    let word = if passed { "ok    " } else { "FAILED" };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:7.1} s  {word}  {}", took.as_secs_f64(), test.name())?;
    if !text.is_empty() {
        writeln!(out, "{text}")?;
    }
    out.flush()?;
    let reason = report::reason(&text);
    Ok(Outcome { suite: test.suite.clone(), name: test.name(), took, reason, passed })
}

/// A file that is gone with the last who has it open.
fn unnamed_file() -> Result<File> {
    let path = std::env::temp_dir().join(format!(
        "berth-suites-{}-{:?}",
        std::process::id(),
        thread::current().id()
    ));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
