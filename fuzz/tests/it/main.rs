//! Every file of every corpus, and seeded mutations of them, as a plain test.

use fuzz::mutation::Mutations;
use fuzz::{TARGETS, Target, corpus};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many mutations of each corpus are tried, from which seed. `FUZZ_RUNS` and `FUZZ_SEED` say otherwise.
const RUNS: u64 = 150;
const SEED: u64 = 1;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let entries = std::fs::read_dir(folder).expect("the corpora");
    let mut found: Vec<String> =
        entries.map(|entry| entry.expect("a corpus").file_name().to_string_lossy().into_owned()).collect();
    found.sort();
    assert_eq!(found, TARGETS.map(|(name, _)| name), "sorted by name, both");
    for (name, _) in TARGETS {
        assert!(corpus(name).len() >= 5, "{name} has hardly anything to begin with");
        let program = format!("{}/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(std::fs::exists(&program).is_ok_and(|there| there), "{program} is missing");
    }
}

fn hold(target: &str, function: Target) {
    let files = corpus(target);
    for (name, data) in &files {
        let held = catch_unwind(|| function(data));
        assert!(held.is_ok(), "{target}: corpus/{target}/{name} breaks a rule");
    }
    let (seed, runs) = (setting("FUZZ_SEED", SEED), setting("FUZZ_RUNS", RUNS));
    let contents: Vec<Vec<u8>> = files.into_iter().map(|(_, data)| data).collect();
    for (run, data) in (0..runs).zip(Mutations::new(&contents, seed)) {
        let held = catch_unwind(AssertUnwindSafe(|| function(&data)));
        assert!(held.is_ok(), "{target}: mutation {run} of seed {seed} breaks a rule: {}", data.escape_ascii());
    }
}

macro_rules! hold {
    ($($target:ident),+) => {
        $( #[test] fn $target() {
            let name = stringify!($target);
            let (_, function) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
            hold(name, *function);
        } )+
    };
}

mod the_rules_hold_for {
    use super::{TARGETS, hold};

    hold!(
        accept,
        apply_patch,
        archive,
        certificate,
        checkpoint,
        continue_token,
        dns_answer,
        dns_request,
        json_body,
        json_patch,
        jwt,
        log_segment,
        log_transactions,
        merge_patch,
        path,
        protobuf_body,
        quantity,
        selector,
        strategic_patch,
        yaml_body
    );
}
