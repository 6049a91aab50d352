//! Runs a target on mutations of its corpus, without a fuzzer: `cargo run --release -p fuzz --example mutate -- TARGET RUNS [SEED]`.
//!
//! The first input that breaks a rule is written to a file, whose name is said, and the program ends with 1.

use fuzz::mutation::Mutations;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// An input that takes longer is said.
const SLOW: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, runs, rest @ ..] = arguments.as_slice() else {
        let _ = writeln!(std::io::stderr(), "usage: mutate TARGET RUNS [SEED]");
        return ExitCode::from(2);
    };
    let number = |text: &String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no number"));
    let (runs, seed) = (number(runs), rest.first().map_or(1, number));
    let corpus: Vec<Vec<u8>> = fuzz::corpus(target).into_iter().map(|(_, data)| data).collect();
    let start = Instant::now();
    let keep = |name: &str, data: &[u8]| {
        let file = format!("{target}-{name}-{seed}");
        std::fs::write(&file, data).unwrap_or_else(|why| panic!("{file} cannot be written: {why}"));
        let _ = writeln!(std::io::stderr(), "{name}: {file}");
    };
    for (run, data) in (0..runs).zip(Mutations::new(&corpus, seed)) {
        let begun = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| fuzz::run(target, &data))).is_err() {
            keep(&format!("broken-{run}"), &data);
            return ExitCode::FAILURE;
        }
        if begun.elapsed() > SLOW {
            keep(&format!("slow-{run}"), &data);
        }
    }
    let _ = writeln!(
        std::io::stdout(),
        "{target}: {runs} runs held, {:.0} a second",
        runs as f64 / start.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
