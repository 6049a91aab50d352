//! sed's grammar.

use crate::programs::grep::{basic_expression, extended_expression};
use regex::bytes::Regex;

/// Blocks within one another.
const DEPTH: usize = 20;

type Parsed<T> = Result<T, String>;

pub(super) enum Address {
    Line(usize),
    Last,
    Matches(Regex),
    /// `first~step`
    Step(usize, usize),
}

pub(super) struct Command {
    pub(super) from: Option<Address>,
    pub(super) to: Option<Address>,
    pub(super) negated: bool,
    pub(super) action: Action,
    /// The range of this command is open.
    pub(super) inside: bool,
    /// The line at which a numbered end closes the range.
    pub(super) ends_at: usize,
}

pub(super) enum Action {
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

pub(super) enum Part {
    Text(Vec<u8>),
    Group(usize),
}

/// Reads a script from left to right.
pub(super) struct Reader<'s> {
    pub(super) rest: &'s str,
    pub(super) extended: bool,
    pub(super) depth: usize,
}

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

    pub(super) fn commands(&mut self) -> Parsed<Vec<Command>> {
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
