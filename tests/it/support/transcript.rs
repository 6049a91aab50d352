//! Transcripts: what a terminal shows, commands and their output, checked against the real thing.
//!
//! ```text
//! $ kubectl create configmap settings --from-literal=mode=fast
//! configmap/settings created
//! $ kubectl get configmap nothing
//! Error from server (NotFound): configmaps "nothing" not found
//! [exit 1]
//! ```
//!
//! A line that starts with `$ ` is given to `sh`, with the lines after it that start with `> `. What follows is all it prints, on
//! standard output and standard error, and its exit status unless that is 0. `…` stands for anything within a line; on a line of its
//! own, for any lines. Any number of spaces is as good as any other, so that columns may be as wide as they like.

use super::{Ran, Terminal, run};
use regex::Regex;
use std::panic::Location;

struct Step {
    command: String,
    expected: Vec<String>,
}

/// Runs every command in order; panics at the first whose output is another.
pub(crate) async fn check(terminal: &Terminal, text: &str, at: &Location<'_>) {
    if let Err(difference) = compare(terminal, text).await {
        panic!("the transcript at {at} is not what happens.\n{difference}");
    }
}

/// Runs every command in order; an error shows the first whose output is another, with what was expected.
pub(crate) async fn compare(terminal: &Terminal, text: &str) -> Result<(), String> {
    for step in steps(text) {
        let mut command = terminal.command("sh");
        command.args(["-c", &format!("exec 2>&1\n{}", step.command)]).process_group(0);
        let ran = run(command, &step.command).await;
        if !agrees(&step.expected, &ran) {
            return Err(format!("expected:\n{}\n\nhappened:\n{ran}", step.expected.join("\n")));
        }
    }
    Ok(())
}

/// The commands of a transcript.
pub(crate) fn commands(text: &str) -> Vec<String> {
    steps(text).into_iter().map(|step| step.command).collect()
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("> ") {
                Some(more) if step.expected.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ if line.is_empty() => {}
                _ => step.expected.push(line.to_owned()),
            }
        } else {
            assert!(line.is_empty(), "a transcript begins with a command, not with {line:?}");
        }
    }
    steps
}

fn agrees(expected: &[String], ran: &Ran) -> bool {
    let mut shown = squeezed(&ran.stdout);
    if ran.code != 0 {
        shown.push(format!("[exit {}]", ran.code));
    }
    let shown: String = shown.into_iter().map(|line| line + "\n").collect();
    let pattern: String = expected.iter().map(|line| pattern(line)).collect();
    Regex::new(&format!("^{pattern}$")).expect("a pattern of literals and wildcards").is_match(&shown)
}

/// Lines with something on them, and single spaces in them.
fn squeezed(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect()
}

fn pattern(line: &str) -> String {
    if line == "…" {
        return "(?:[^\n]*\n)*".to_owned();
    }
    let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
    words.split('…').map(regex::escape).collect::<Vec<_>>().join("[^\n]*") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(stdout: &str, code: i32) -> Ran {
        Ran { command: String::new(), stdout: stdout.to_owned(), stderr: String::new(), code }
    }

    #[test]
    fn a_transcript_agrees_with_what_it_describes_and_with_nothing_else() {
        let steps = steps("$ a\n> b\nNAME   AGE\nx …s\n…\n$ c\n[exit 3]");
        assert_eq!(steps[0].command, "a\nb");
        assert!(agrees(&steps[0].expected, &ran("NAME      AGE\nx    12s\nmore\nlines\n", 0)));
        assert!(agrees(&steps[0].expected, &ran("NAME AGE\nx 1s\n", 0)));
        assert!(!agrees(&steps[0].expected, &ran("NAME AGE\ny 1s\n", 0)));
        assert!(agrees(&steps[1].expected, &ran("", 3)));
        assert!(!agrees(&steps[1].expected, &ran("", 0)));
        assert!(!agrees(&steps[1].expected, &ran("talk\n", 3)));
    }
}
