//! `sed`: addresses, `s`, `y`, `d`, `p`, `q`, `a`, `i`, `c`, `=`, the hold space and blocks. Not here: branches, and the commands
//! that read lines themselves (`n`, `N`).

mod parse;

use super::Tool;
use super::options::{Options, Order};
use super::stdio::{Outcome, reason};
use super::system::refuse;
use super::text::or_stdin;
use crate::program::Container;
use parse::{Action, Address, Command, Part, Reader};
use regex::bytes::Captures;

pub(super) const TOOLS: &[Tool] = &[Tool::new("sed", |c| Box::pin(sed(c)))];

/// What the commands made of a line.
struct Cycle {
    line: Vec<u8>,
    before: Vec<u8>,
    after: Vec<u8>,
    deleted: bool,
    quit: Option<i32>,
    /// Files that `w` writes to.
    written: Vec<(String, Vec<u8>)>,
}

struct Place {
    number: usize,
    last: bool,
}

fn fits(address: &Address, place: &Place, line: &[u8]) -> bool {
    match address {
        Address::Line(number) => *number == place.number,
        Address::Last => place.last,
        Address::Matches(expression) => expression.is_match(line),
        Address::Step(first, 0) => *first == place.number,
        Address::Step(first, step) => place.number >= *first && (place.number - first).is_multiple_of(*step),
    }
}

impl Command {
    fn applies(&mut self, place: &Place, line: &[u8]) -> bool {
        let chosen = match (&self.from, &self.to) {
            (None, _) => true,
            (Some(from), None) => fits(from, place, line),
            (Some(from), Some(to)) => {
                if self.inside {
                    let over = match to {
                        Address::Line(number) => place.number >= *number,
                        other => fits(other, place, line),
                    };
                    self.inside = !over;
                    !matches!(to, Address::Line(number) if place.number > *number && place.number != self.ends_at)
                } else if fits(from, place, line) {
                    self.inside = !matches!(to, Address::Line(number) if *number <= place.number);
                    self.ends_at = place.number;
                    true
                } else {
                    false
                }
            }
        };
        chosen != self.negated
    }
}

/// Runs the commands on a line; `true`: the cycle is over.
fn execute(commands: &mut [Command], place: &Place, cycle: &mut Cycle, hold: &mut Vec<u8>) -> bool {
    for command in commands {
        if !command.applies(place, &cycle.line) {
            continue;
        }
        match &mut command.action {
            Action::Substitute { expression, replacement, nth, all, print, write } => {
                let mut seen = 0;
                let mut changed = false;
                let first = (*nth).max(1);
                let replaced = expression
                    .replace_all(&cycle.line, |captures: &Captures<'_>| {
                        seen += 1;
                        if seen < first || (seen > first && !*all) {
                            return captures[0].to_vec();
                        }
                        changed = true;
                        let mut text = Vec::new();
                        for part in replacement.iter() {
                            match part {
                                Part::Text(part) => text.extend_from_slice(part),
                                Part::Group(number) => {
                                    text.extend_from_slice(captures.get(*number).map_or(b"", |group| group.as_bytes()));
                                }
                            }
                        }
                        text
                    })
                    .into_owned();
                if changed {
                    cycle.line = replaced;
                    if *print {
                        cycle.before.extend_from_slice(&cycle.line);
                        cycle.before.push(b'\n');
                    }
                    if let Some(path) = write {
                        cycle.written.push((path.clone(), [&cycle.line[..], b"\n"].concat()));
                    }
                }
            }
            Action::Transliterate(pairs) => {
                let text = String::from_utf8_lossy(&cycle.line).into_owned();
                let mapped = |c: char| pairs.iter().find(|(from, _)| *from == c).map_or(c, |(_, to)| *to);
                cycle.line = text.chars().map(mapped).collect::<String>().into_bytes();
            }
            Action::Delete => {
                cycle.deleted = true;
                return true;
            }
            Action::Print => {
                cycle.before.extend_from_slice(&cycle.line);
                cycle.before.push(b'\n');
            }
            Action::Quit(status) => {
                cycle.quit = Some(*status);
                return true;
            }
            Action::Append(text) => cycle.after.extend_from_slice(format!("{text}\n").as_bytes()),
            Action::Insert(text) => cycle.before.extend_from_slice(format!("{text}\n").as_bytes()),
            Action::Change(text) => {
                cycle.after.extend_from_slice(format!("{text}\n").as_bytes());
                cycle.deleted = true;
                return true;
            }
            Action::Number => cycle.before.extend_from_slice(format!("{}\n", place.number).as_bytes()),
            Action::Hold('h') => hold.clone_from(&cycle.line),
            Action::Hold('H') => {
                hold.push(b'\n');
                hold.extend_from_slice(&cycle.line);
            }
            Action::Hold('g') => cycle.line.clone_from(hold),
            Action::Hold('G') => {
                cycle.line.push(b'\n');
                cycle.line.extend_from_slice(hold);
            }
            Action::Hold(_) => std::mem::swap(hold, &mut cycle.line),
            Action::Block(inner) => {
                if execute(inner, place, cycle, hold) {
                    return true;
                }
            }
        }
    }
    false
}

async fn sed(c: &mut Container) -> Outcome {
    // `-i` may carry a suffix, which is not kept.
    let args: Vec<String> =
        c.args[1..].iter().map(|arg| if arg.starts_with("-i") { "-i".to_owned() } else { arg.clone() }).collect();
    let parsed =
        Options::parse(&args, "n|quiet e:|expression: f:|file: E|regexp-extended r i|in-place s u z", Order::Permuted);
    let options = match parsed {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut operands = options.operands.clone();
    let mut scripts: Vec<String> = options.values("e").map(str::to_owned).collect();
    if let Some(file) = options.value("f").map(str::to_owned) {
        match c.content(&file).await {
            Ok(bytes) => scripts.push(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => return refuse(c, format!("can't open '{file}': {}", reason(&error)), 1).await,
        }
    }
    if scripts.is_empty() {
        if operands.is_empty() {
            c.complain("Usage: sed [-i] [-nrE] [-f FILE]... [-e CMD]... [FILE]...").await;
            return Ok(1);
        }
        scripts.push(operands.remove(0));
    }
    let script = scripts.join("\n");
    let extended = options.has("E") || options.has("r");
    let mut commands = match (Reader { rest: &script, extended, depth: 0 }).commands() {
        Ok(commands) => commands,
        Err(message) => return refuse(c, message, 1).await,
    };
    let in_place = options.has("i");
    let mut status = 0;
    let mut number = 0;
    let mut hold = Vec::new();
    let files = or_stdin(&operands);
    for (at, file) in files.iter().enumerate() {
        let bytes = match c.content(file).await {
            Ok(bytes) => bytes,
            Err(error) => {
                refuse(c, format!("{file}: {}", reason(&error)), 1).await?;
                status = 1;
                continue;
            }
        };
        let unended = !bytes.is_empty() && bytes.last() != Some(&b'\n');
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        if !unended {
            lines.pop();
        }
        let mut edited = Vec::new();
        if in_place {
            number = 0;
        }
        let count = lines.len();
        for (index, line) in lines.into_iter().enumerate() {
            number += 1;
            let last = index + 1 == count && (in_place || at + 1 == files.len());
            let mut cycle = Cycle {
                line: line.to_vec(),
                before: Vec::new(),
                after: Vec::new(),
                deleted: false,
                quit: None,
                written: Vec::new(),
            };
            execute(&mut commands, &Place { number, last }, &mut cycle, &mut hold);
            let mut text = cycle.before;
            if !cycle.deleted && !options.has("n") {
                text.extend_from_slice(&cycle.line);
                if !(last && unended && cycle.after.is_empty()) {
                    text.push(b'\n');
                }
            }
            text.extend_from_slice(&cycle.after);
            for (path, line) in cycle.written {
                match path.as_str() {
                    "/dev/stdout" => text.extend(line),
                    path => c.files.append(&c.path(path), &line)?,
                }
            }
            if in_place {
                edited.extend(text);
            } else if !text.is_empty() {
                c.print(text).await?;
            }
            if let Some(quit) = cycle.quit {
                return Ok(quit);
            }
            tokio::task::coop::consume_budget().await;
        }
        if in_place {
            let path = c.path(file);
            c.files.write(&path, edited)?;
        }
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::Machine;

    #[tokio::test(start_paused = true)]
    async fn scripts_edit_their_lines() {
        let machine = Machine::new();
        for (script, input, output) in [
            ("s/a/b/", "aa\n", "ba\n"),
            ("s/a/b/g", "aa\n", "bb\n"),
            ("s/a/b/2", "aaa\n", "aba\n"),
            ("s|/x|/y|", "/x/z\n", "/y/z\n"),
            (r"s/\(a*\)b/[\1]&/", "aab\n", "[aa]aab\n"),
            ("2d", "1\n2\n3\n", "1\n3\n"),
            ("$d", "1\n2\n", "1\n"),
            ("/b/,/d/d", "a\nb\nc\nd\ne\n", "a\ne\n"),
            ("2,3!d", "1\n2\n3\n4\n", "2\n3\n"),
            ("/x/s/1/2/", "x1\ny1\n", "x2\ny1\n"),
            ("1i top", "a\n", "top\na\n"),
            ("$a end", "a\nb\n", "a\nb\nend\n"),
            ("y/abc/xyz/", "cab\n", "zxy\n"),
            ("2q", "1\n2\n3\n", "1\n2\n"),
            ("/a/{s/a/b/;p}", "a\n", "b\nb\n"),
            ("s/$/!/", "no newline", "no newline!"),
            ("s/[/]/-/", "a/b\n", "a-b\n"),
            ("s/A/x/I", "a\n", "x\n"),
        ] {
            let ran = machine.run(&["sed", script], input).await;
            assert_eq!(ran.stdout, output, "{script}: {}", ran.stderr);
        }
        let ran = machine.run(&["sed", "-n", "2,3p"], "1\n2\n3\n4\n").await;
        assert_eq!(ran.stdout, "2\n3\n");
        let ran = machine.run(&["sed", "-E", "s/(a|b)+/x/"], "abab\n").await;
        assert_eq!(ran.stdout, "x\n");
        assert_eq!(machine.run(&["sed", "s/a"], "").await.stderr, "sed: unterminated s command\n");
        machine.files.write("/f", "old\n").expect("room");
        machine.run(&["sed", "-i", "s/old/new/", "/f"], "").await;
        assert_eq!(machine.files.read("/f").expect("there"), "new\n");
    }
}
