//! Targets for fuzzing: what strangers send, through the server's real edge; what the store reads from a disk; and DNS, both
//! what is asked and what upstream servers answer.
//!
//! A target is a plain function of bytes; it panics when a rule is broken: a 5xx, an answer that is no JSON, an object that cannot
//! be written back as it was read, a token that nobody signed and somebody accepts. [`TARGETS`] has them all. They are run by
//! `cargo fuzz` (the programs in `fuzz_targets/` are one line each), by the example `mutate` without any fuzzer, and by the plain
//! test, which runs every file of `corpus/TARGET/` and a bounded number of seeded mutations of it.
//!
//! What a fuzzer finds goes into the corpus under a name which says what it was.

mod bodies;
mod credentials;
mod house;
pub mod mutation;
mod patches;
mod requests;
mod scalars;

use std::path::PathBuf;

/// Takes bytes, and panics when a rule is broken.
pub type Target = fn(&[u8]);

/// Name and function of every target. A name is also that of its corpus.
pub const TARGETS: [(&str, Target); 20] = [
    ("accept", requests::accept),
    ("apply_patch", patches::apply),
    ("archive", store::fuzz::archive),
    ("certificate", credentials::certificate),
    ("checkpoint", store::fuzz::checkpoint),
    ("continue_token", requests::continue_token),
    ("dns_answer", dns::fuzz::answer),
    ("dns_request", dns::fuzz::request),
    ("json_body", bodies::json),
    ("json_patch", patches::json),
    ("jwt", credentials::jwt),
    ("log_segment", store::fuzz::segment),
    ("log_transactions", store::fuzz::transactions),
    ("merge_patch", patches::merge),
    ("path", requests::path),
    ("protobuf_body", bodies::protobuf),
    ("quantity", scalars::quantity),
    ("selector", requests::selector),
    ("strategic_patch", patches::strategic),
    ("yaml_body", bodies::yaml),
];

/// Runs a target.
///
/// # Panics
/// If there is no such target, or if one of its rules is broken.
pub fn run(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, function) = found.unwrap_or_else(|| panic!("{target} is no target"));
    function(data);
}

/// The corpus of a target: file name and content, in the order of the names.
///
/// # Panics
/// If it cannot be read.
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{} cannot be read: {why}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file of the corpus").path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (name, std::fs::read(&path).expect("a readable file of the corpus"))
        })
        .collect()
}
