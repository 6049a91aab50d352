//! Text to commands: parsing with limits, and running what was parsed.

use super::{Descriptor, Interrupt, Shell, Step};
use brush_parser::{ParseError, ParserOptions, ast};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest text that is parsed at once, in bytes.
const TEXT_LIMIT: usize = 1 << 20;

/// Brackets and compound commands within one another. The parser descends for each of them.
const DEPTH_LIMIT: usize = 24;

/// What a `case` counts for: the parser tries the last item of each twice, so that its time doubles with every level.
const CASE_WEIGHT: usize = 3;

/// Why a text cannot be run.
pub(super) enum Mistake {
    /// More lines could make it whole.
    Incomplete,
    /// It is wrong whatever follows.
    Wrong(String),
}

/// The parser's options for all of the shell.
pub(super) fn parser_options() -> ParserOptions {
    ParserOptions {
        enable_extended_globbing: false,
        // `~` is expanded by `expand`, which knows the quoting and cannot overflow.
        tilde_expansion_at_word_start: false,
        ..ParserOptions::default()
    }
}

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<ast::Program, Mistake> {
    if text.len() > TEXT_LIMIT {
        return Err(Mistake::Wrong(format!("syntax error: more than {TEXT_LIMIT} bytes")));
    }
    if depth(text) > DEPTH_LIMIT {
        return Err(Mistake::Wrong(format!("syntax error: nested deeper than {DEPTH_LIMIT}")));
    }
    let parsed = guarded(|| brush_parser::Parser::new(text.as_bytes(), &parser_options()).parse_program());
    match parsed {
        Some(Ok(program)) => Ok(program),
        Some(Err(ParseError::ParsingAtEndOfInput)) => Err(Mistake::Incomplete),
        Some(Err(ParseError::Tokenizing { inner, .. })) if inner.is_incomplete() => Err(Mistake::Incomplete),
        Some(Err(ParseError::Tokenizing { inner, .. })) => Err(Mistake::Wrong(format!("syntax error: {inner}"))),
        Some(Err(ParseError::ParsingNear(position))) => Err(Mistake::Wrong(format!(
            "syntax error: unexpected {} (line {}, column {})",
            unexpected(text, position.index),
            position.line,
            position.column
        ))),
        None => Err(Mistake::Wrong("syntax error".to_owned())),
    }
}

/// Runs a parser of the library, some of whose rules panic on numbers that do not fit.
pub(super) fn guarded<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}

/// What stands where the parser stopped, as ash shows it.
fn unexpected(text: &str, index: usize) -> String {
    let rest: String = text.chars().skip(index).take(40).collect();
    match rest.chars().next() {
        None => "end of file".to_owned(),
        Some('\n') => "newline".to_owned(),
        Some(first) if "();|&<>".contains(first) => {
            let operator: String = rest.chars().take_while(|c| *c == first).take(2).collect();
            format!("\"{operator}\"")
        }
        Some(_) => format!("\"{}\"", rest.split_whitespace().next().unwrap_or_default()),
    }
}

/// An upper bound of how deep a text nests: quotes are not looked at.
pub(super) fn depth(text: &str) -> usize {
    let separator = |c: char| c.is_whitespace() || ";|&".contains(c);
    let (mut open, mut deepest) = (0usize, 0usize);
    let mut command_position = true;
    let mut negations = 0;
    for piece in text.split_inclusive(separator) {
        let word = piece.trim_end_matches(separator);
        match word {
            "if" | "while" | "until" | "for" if command_position => open += 1,
            "case" if command_position => open += CASE_WEIGHT,
            "fi" | "done" if command_position => open = open.saturating_sub(1),
            "esac" if command_position => open = open.saturating_sub(CASE_WEIGHT),
            _ => {
                for c in word.chars() {
                    match c {
                        '(' | '{' | '[' => open += 1,
                        ')' | '}' | ']' => open = open.saturating_sub(1),
                        _ => {}
                    }
                    deepest = deepest.max(open);
                }
            }
        }
        negations = if word == "!" { negations + 1 } else { 0 };
        deepest = deepest.max(open + negations);
        let ends_command = piece.ends_with(['\n', ';', '|', '&']);
        let opens_command = word.ends_with(['(', '{', ')', '!'])
            || matches!(word, "if" | "while" | "until" | "then" | "else" | "elif" | "do");
        command_position = ends_command || opens_command || word.is_empty() && command_position;
    }
    deepest
}

impl Shell {
    /// Runs a whole text: a script, `-c`, `eval`, a trap.
    pub(super) async fn run_text(&mut self, text: &str) -> Step {
        match parse(text) {
            Ok(program) => self.run_program(&program).await,
            Err(Mistake::Incomplete) => Err(self.mistake("syntax error: unexpected end of file").await),
            Err(Mistake::Wrong(message)) => Err(self.mistake(&message).await),
        }
    }

    /// Runs the text of `-c`. A single program takes the shell's place, so that signals reach it, as ash and bash do.
    pub(super) async fn run_command_string(&mut self, text: &str) -> Step {
        if let Ok(program) = parse(text)
            && let [list] = &program.complete_commands[..]
            && let [ast::CompoundListItem(and_or, ast::SeparatorOperator::Sequence)] = &list.0[..]
            && and_or.additional.is_empty()
            && let [ast::Command::Simple(command)] = &and_or.first.seq[..]
            && !and_or.first.bang
            && and_or.first.timed.is_none()
            && !self.settings.no_execution
        {
            return self.simple(command, true).await;
        }
        self.run_text(text).await
    }

    pub(super) async fn run_program(&mut self, program: &ast::Program) -> Step {
        if self.settings.no_execution {
            return Ok(0);
        }
        let mut status = 0;
        for list in &program.complete_commands {
            status = self.list(list).await?;
        }
        Ok(status)
    }

    /// Runs commands from standard input, each as soon as it is whole: what they read is what follows them.
    pub(super) async fn run_stdin(&mut self) -> Step {
        let mut text = String::new();
        let mut status = 0;
        loop {
            let Some(Descriptor::Input(input)) = self.descriptors.get(&0) else {
                return Ok(status);
            };
            let mut input = input.clone();
            let line = match input.line(TEXT_LIMIT).await {
                Ok(line) => line,
                Err(error) => return Err(self.mistake(&super::super::stdio::reason(&error)).await),
            };
            let ended = line.is_none();
            text.push_str(&String::from_utf8_lossy(&line.unwrap_or_default()));
            if !ended && ends_in_continuation(&text) {
                continue;
            }
            match parse(&text) {
                Ok(program) => {
                    text.clear();
                    status = self.run_program(&program).await?;
                }
                Err(Mistake::Incomplete) if !ended => {}
                Err(Mistake::Incomplete) => {
                    return Err(self.mistake("syntax error: unexpected end of file").await);
                }
                Err(Mistake::Wrong(message)) => return Err(self.mistake(&message).await),
            }
            if ended {
                return Ok(status);
            }
        }
    }
}

/// Whether the last line ends in a backslash that is not itself escaped.
pub(super) fn ends_in_continuation(text: &str) -> bool {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.len() != text.len() && (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

impl Interrupt {
    /// The status an interactive shell shows its prompt with; `None`: the shell ends.
    pub(super) fn prompt_status(&self) -> Option<i32> {
        match self {
            Interrupt::Exit(_) => None,
            Interrupt::Abandon(status) | Interrupt::Return(status) => Some(*status),
            Interrupt::Break(_) | Interrupt::Continue(_) => Some(0),
        }
    }
}
