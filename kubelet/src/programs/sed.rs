//! `sed`: addresses, `s`, `y`, `d`, `p`, `q`, `a`, `i`, `c`, `=`, the hold space and blocks. Not here: branches, and the commands
//! that read lines themselves (`n`, `N`).

use super::Tool;
use super::grep::{basic_expression, extended_expression};
use super::options::{Options, Order};
use super::stdio::{Outcome, reason};
use super::system::refuse;
use super::text::or_stdin;
use crate::program::Container;
use regex::bytes::{Captures, Regex};

pub(super) const TOOLS: &[Tool] = &[Tool::new("sed", |c| Box::pin(sed(c)))];

/// Blocks within one another.
const DEPTH: usize = 20;

enum Address {
    Line(usize),
    Last,
    Matches(Regex),
    /// `first~step`
    Step(usize, usize),
}

struct Command {
    from: Option<Address>,
    to: Option<Address>,
    negated: bool,
    action: Action,
    /// The range of this command is open.
    inside: bool,
    /// The line at which a numbered end closes the range.
    ends_at: usize,
}

enum Action {
    Substitute { expression: Regex, replacement: Vec<Part>, nth: usize, all: bool, print: bool, write: Option<String> },
    Transliterate(Vec<(char, char)>),
    Delete,
    Print,
    Quit(i32),
    Append(String),
    Insert(String),
    Change(String),
    Number,
    Hold(char),
    Block(Vec<Command>),
}

enum Part {
    Text(Vec<u8>),
    Group(usize),
}

/// Reads a script from left to right.
struct Reader<'s> {
    rest: &'s str,
    extended: bool,
    depth: usize,
}

type Parsed<T> = Result<T, String>;

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn expression(&self, text: &str, ignore_case: bool) -> Parsed<Regex> {
        let compiled =
            if self.extended { extended_expression(text, ignore_case) } else { basic_expression(text, ignore_case) };
        compiled.map_err(|_| format!("bad regex '{text}'"))
    }

    /// Text up to an unescaped delimiter; `\n` and the delimiter itself lose their backslash.
    fn until(&mut self, delimiter: char) -> Parsed<String> {
        let mut text = String::new();
        let mut in_class = false;
        while let Some(c) = self.next() {
            match c {
                '\\' => match self.next() {
                    Some(escaped) if escaped == delimiter => text.push(escaped),
                    Some('n') => text.push_str("\\n"),
                    Some(escaped) => {
                        text.push('\\');
                        text.push(escaped);
                    }
                    None => break,
                },
                '[' if !in_class && delimiter != '[' => {
                    in_class = true;
                    text.push(c);
                }
                ']' if in_class => {
                    in_class = false;
                    text.push(c);
                }
                c if c == delimiter && !in_class => return Ok(text),
                c if c == delimiter => {
                    // A delimiter in an unfinished bracket ends the text after all.
                    if !self.rest.contains(']') {
                        return Ok(text);
                    }
                    text.push(c);
                }
                c => text.push(c),
            }
        }
        Err("unterminated address or command".to_owned())
    }

    fn number(&mut self) -> Option<usize> {
        let length = self.rest.chars().take_while(char::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(length);
        let number = digits.parse().ok()?;
        self.rest = rest;
        Some(number)
    }

    fn address(&mut self) -> Parsed<Option<Address>> {
        match self.rest.chars().next() {
            Some('0'..='9') => {
                let line = self.number().ok_or("bad line number")?;
                if self.rest.starts_with('~') {
                    self.next();
                    let step = self.number().ok_or("bad step")?;
                    return Ok(Some(Address::Step(line, step)));
                }
                Ok(Some(Address::Line(line)))
            }
            Some('$') => {
                self.next();
                Ok(Some(Address::Last))
            }
            Some(delimiter @ ('/' | '\\')) => {
                self.next();
                let delimiter = if delimiter == '\\' { self.next().ok_or("bad address")? } else { delimiter };
                let text = self.until(delimiter)?;
                let ignore_case = self.rest.starts_with('I');
                if ignore_case {
                    self.next();
                }
                Ok(Some(Address::Matches(self.expression(&text, ignore_case)?)))
            }
            _ => Ok(None),
        }
    }

    fn commands(&mut self) -> Parsed<Vec<Command>> {
        let mut commands = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
            if self.rest.is_empty() {
                return if self.depth == 0 { Ok(commands) } else { Err("unmatched '{'".to_owned()) };
            }
            if self.rest.starts_with('}') {
                if self.depth == 0 {
                    return Err("unexpected '}'".to_owned());
                }
                self.next();
                return Ok(commands);
            }
            if self.rest.starts_with('#') {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
                continue;
            }
            let from = self.address()?;
            let mut to = None;
            if from.is_some() && self.rest.trim_start().starts_with(',') {
                self.rest = self.rest.trim_start()[1..].trim_start();
                to = self.address()?;
                if to.is_none() {
                    return Err("unexpected ','".to_owned());
                }
            }
            self.rest = self.rest.trim_start();
            let negated = self.rest.starts_with('!');
            if negated {
                self.next();
                self.rest = self.rest.trim_start();
            }
            let action = self.action()?;
            commands.push(Command { from, to, negated, action, inside: false, ends_at: 0 });
        }
    }

    fn action(&mut self) -> Parsed<Action> {
        let name = self.next().ok_or("missing command")?;
        Ok(match name {
            's' => self.substitute()?,
            'y' => {
                let delimiter = self.next().ok_or("unterminated y command")?;
                let from = self.until(delimiter)?.replace("\\n", "\n");
                let to = self.until(delimiter)?.replace("\\n", "\n");
                if from.chars().count() != to.chars().count() {
                    return Err("strings for y command are different lengths".to_owned());
                }
                Action::Transliterate(from.chars().zip(to.chars()).collect())
            }
            'd' | 'D' => Action::Delete,
            'p' | 'P' => Action::Print,
            'q' | 'Q' => {
                self.rest = self.rest.trim_start_matches(' ');
                Action::Quit(self.number().unwrap_or(0) as i32)
            }
            '=' => Action::Number,
            'h' | 'H' | 'g' | 'G' | 'x' => Action::Hold(name),
            'a' | 'i' | 'c' => {
                let text = self.rest.trim_start_matches([' ', '\t']);
                let text = text.strip_prefix('\\').map_or(text, |text| text.strip_prefix('\n').unwrap_or(text));
                let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
                self.rest = rest;
                let line = line.to_owned();
                match name {
                    'a' => Action::Append(line),
                    'i' => Action::Insert(line),
                    _ => Action::Change(line),
                }
            }
            '{' => {
                if self.depth >= DEPTH {
                    return Err("blocks nest too deep".to_owned());
                }
                self.depth += 1;
                let commands = self.commands()?;
                self.depth -= 1;
                Action::Block(commands)
            }
            other => return Err(format!("unsupported command {other}")),
        })
    }

    fn substitute(&mut self) -> Parsed<Action> {
        let delimiter = self.next().ok_or("unterminated s command")?;
        let pattern = self.until(delimiter).map_err(|_| "unterminated s command")?;
        let replacement = self.replacement(delimiter)?;
        let (mut nth, mut all, mut print, mut ignore_case, mut write) = (0, false, false, false, None);
        loop {
            match self.rest.chars().next() {
                Some('g') => all = true,
                Some('p') => print = true,
                Some('i' | 'I') => ignore_case = true,
                Some('0'..='9') => {
                    nth = self.number().unwrap_or(1);
                    continue;
                }
                Some('w') => {
                    let (path, rest) = self.rest[1..].split_once('\n').unwrap_or((&self.rest[1..], ""));
                    write = Some(path.trim().to_owned());
                    self.rest = rest;
                    break;
                }
                Some('e' | 'm' | 'M') => return Err("unknown option to s command".to_owned()),
                Some(c) if !(c.is_whitespace() || matches!(c, ';' | '}' | '#')) => {
                    return Err("unknown option to s command".to_owned());
                }
                _ => break,
            }
            self.next();
        }
        Ok(Action::Substitute {
            expression: self.expression(&pattern, ignore_case)?,
            replacement,
            nth,
            all,
            print,
            write,
        })
    }

    fn replacement(&mut self, delimiter: char) -> Parsed<Vec<Part>> {
        let mut parts = Vec::new();
        let mut text = String::new();
        while let Some(c) = self.next() {
            if c == delimiter {
                parts.push(Part::Text(text.into_bytes()));
                return Ok(parts);
            }
            let group = match c {
                '&' => Some(0),
                '\\' => match self.next() {
                    Some(digit @ '0'..='9') => digit.to_digit(10).map(|digit| digit as usize),
                    Some('n') => {
                        text.push('\n');
                        continue;
                    }
                    Some('t') => {
                        text.push('\t');
                        continue;
                    }
                    Some(escaped) => {
                        text.push(escaped);
                        continue;
                    }
                    None => break,
                },
                c => {
                    text.push(c);
                    continue;
                }
            };
            parts.push(Part::Text(std::mem::take(&mut text).into_bytes()));
            parts.extend(group.map(Part::Group));
        }
        Err("unterminated s command".to_owned())
    }
}

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
