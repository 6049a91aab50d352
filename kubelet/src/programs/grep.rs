//! `grep` and `sed`'s notion of a regular expression: POSIX basic and extended, translated for the `regex` crate.

use super::Tool;
use super::options::{Options, Order};
use super::stdio::{Outcome, reason};
use super::system::refuse;
use super::text::or_stdin;
use crate::files::Kind;
use crate::program::Container;
use regex::bytes::{Regex, RegexBuilder};
use tokio::io::{AsyncBufReadExt, BufReader};

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("egrep", |c| Box::pin(grep(c))),
    Tool::new("fgrep", |c| Box::pin(grep(c))),
    Tool::new("grep", |c| Box::pin(grep(c))),
];

/// A basic regular expression: `\(`, `\{`, `\|`, `\+` and `\?` are operators, the bare characters are not.
pub(super) fn basic_expression(text: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    compile(&translated(text, true), ignore_case)
}

/// An extended regular expression.
pub(super) fn extended_expression(text: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    compile(&translated(text, false), ignore_case)
}

fn compile(text: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).case_insensitive(ignore_case).unicode(false).build()
}

fn translated(text: &str, basic: bool) -> String {
    let mut output = String::new();
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        match c {
            '\\' => {
                let Some(escaped) = chars.get(at).copied() else {
                    output.push_str("\\\\");
                    break;
                };
                at += 1;
                match escaped {
                    '(' | ')' | '{' | '}' | '|' | '+' | '?' if basic => output.push(escaped),
                    '<' | '>' => output.push_str("\\b"),
                    'n' | 't' | 'r' | 'w' | 'W' | 's' | 'S' | 'b' | 'B' | 'd' | 'D' => {
                        output.push('\\');
                        output.push(escaped);
                    }
                    other => output.push_str(&regex::escape(&other.to_string())),
                }
            }
            '[' => {
                // A bracket expression: its members are literal, and `]` may come first.
                output.push('[');
                if chars.get(at) == Some(&'^') {
                    output.push('^');
                    at += 1;
                }
                let first = at;
                while let Some(member) = chars.get(at).copied() {
                    at += 1;
                    match member {
                        ']' if at - 1 > first => {
                            output.push(']');
                            break;
                        }
                        '[' if chars.get(at) == Some(&':') => {
                            let end =
                                chars[at..].iter().position(|c| *c == ']').map_or(chars.len(), |end| at + end + 1);
                            output.push('[');
                            output.extend(&chars[at..end]);
                            at = end;
                        }
                        '[' | ']' | '\\' | '&' | '~' => {
                            output.push('\\');
                            output.push(member);
                        }
                        member => output.push(member),
                    }
                }
            }
            '(' | ')' | '{' | '}' | '|' | '+' | '?' if basic => {
                output.push('\\');
                output.push(c);
            }
            // A star that has nothing to repeat is itself.
            '*' if basic && (output.is_empty() || output.ends_with('(') || output == "^") => output.push_str("\\*"),
            '^' if basic && !output.is_empty() && !output.ends_with(['(', '|']) => output.push_str("\\^"),
            '$' if basic && at < chars.len() && !matches!(chars[at..], ['\\', ')' | '|', ..]) => output.push_str("\\$"),
            '{' if !basic && !chars.get(at).is_some_and(char::is_ascii_digit) => output.push_str("\\{"),
            c => output.push(c),
        }
    }
    output
}

struct Search {
    expressions: Vec<Regex>,
    inverted: bool,
    whole_word: bool,
    only_matching: bool,
}

impl Search {
    fn matches(&self, line: &[u8]) -> bool {
        self.expressions.iter().any(|expression| {
            if !self.whole_word {
                return expression.is_match(line);
            }
            let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            expression.find_iter(line).any(|found| {
                let before = found.start().checked_sub(1).and_then(|at| line.get(at));
                !word(before) && !word(line.get(found.end()))
            })
        }) != self.inverted
    }
}

async fn grep(c: &mut Container) -> Outcome {
    let parsed = Options::parse(
        &c.args[1..],
        "e:|regexp: E|extended-regexp F|fixed-strings G P i|ignore-case v|invert-match c|count n|line-number q|quiet \
         o|only-matching l|files-with-matches L H h r|recursive R w|word-regexp x|line-regexp s|no-messages m:|max-count: \
         A:|after-context: B:|before-context: C:|context: color:|color: a f: |line-buffered silent|silent",
        Order::Permuted,
    );
    let options = match parsed {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 2).await,
    };
    let mut operands = options.operands.clone();
    let mut patterns: Vec<String> = options.values("e").map(str::to_owned).collect();
    if let Some(file) = options.value("f").map(str::to_owned) {
        match c.content(&file).await {
            Ok(bytes) => patterns.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned)),
            Err(error) => return refuse(c, format!("{file}: {}", reason(&error)), 2).await,
        }
    }
    if patterns.is_empty() && options.value("f").is_none() {
        if operands.is_empty() {
            c.complain(
                "Usage: grep [-HhnlLoqvsrRiwFE] [-m N] [-A|B|C N] { PATTERN | -e PATTERN... | -f FILE... } [FILE]...",
            )
            .await;
            return Ok(2);
        }
        patterns = operands.remove(0).lines().map(str::to_owned).collect();
        if patterns.is_empty() {
            patterns.push(String::new());
        }
    }
    let name = c.args[0].rsplit('/').next().unwrap_or_default().to_owned();
    let fixed = options.has("F") || name == "fgrep";
    let extended = options.has("E") || options.has("P") || name == "egrep";
    let ignore_case = options.has("i");
    let mut expressions = Vec::new();
    for pattern in &patterns {
        let text = match (fixed, extended) {
            (true, _) => regex::escape(pattern),
            (false, extended) => translated(pattern, !extended),
        };
        let text = if options.has("x") { format!("^(?:{text})$") } else { text };
        match compile(&text, ignore_case) {
            Ok(expression) => expressions.push(expression),
            Err(_) => return refuse(c, format!("bad regex '{pattern}'"), 2).await,
        }
    }
    let search = Search {
        expressions,
        inverted: options.has("v"),
        whole_word: options.has("w"),
        only_matching: options.has("o"),
    };
    let recursive = options.has("r") || options.has("R");
    let mut files = Vec::new();
    if recursive {
        let starts = if operands.is_empty() { vec![".".to_owned()] } else { operands };
        for start in starts {
            descend(c, &start, &mut files);
        }
    } else {
        files = or_stdin(&operands);
    }
    let named = (files.len() > 1 || recursive || options.has("H")) && !options.has("h");
    let (mut found, mut failed) = (false, false);
    for file in &files {
        match search_file(c, file, &search, &options, named).await {
            Ok(matched) => found |= matched,
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Err(error),
            Err(error) => {
                failed = true;
                if !options.has("s") {
                    refuse(c, format!("{file}: {}", reason(&error)), 2).await?;
                }
            }
        }
        if found && (options.has("q") || options.has("silent")) {
            return Ok(0);
        }
    }
    Ok(if failed { 2 } else { i32::from(!found) })
}

fn descend(c: &Container, path: &str, files: &mut Vec<String>) {
    match c.files.kind(&c.path(path)) {
        Some(Kind::Directory) => {
            for name in c.files.list(&c.path(path)).unwrap_or_default() {
                descend(c, &format!("{}/{name}", path.trim_end_matches('/')), files);
            }
        }
        _ => files.push(path.to_owned()),
    }
}

async fn search_file(
    c: &mut Container,
    file: &str,
    search: &Search,
    options: &Options,
    named: bool,
) -> std::io::Result<bool> {
    let mut reader = BufReader::new(c.open(file)?);
    let shown_name = if file == "-" { "(standard input)" } else { file };
    let number = |name: &str| options.value(name).and_then(|text| text.parse::<usize>().ok());
    let before = number("B").or(number("C")).unwrap_or(0);
    let after = number("A").or(number("C")).unwrap_or(0);
    let most = number("m").unwrap_or(usize::MAX);
    let quiet = options.has("q") || options.has("silent");
    let listing = options.has("l") || options.has("L") || options.has("c") || quiet;
    let (mut matched, mut at, mut context_left) = (0, 0, 0);
    let mut earlier: std::collections::VecDeque<(usize, Vec<u8>)> = Default::default();
    let mut last_shown = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if matched >= most && context_left == 0 || reader.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        at += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let hit = matched < most && search.matches(&line);
        matched += usize::from(hit);
        if hit && quiet {
            return Ok(true);
        }
        if listing {
            if hit && options.has("l") {
                break;
            }
            continue;
        }
        let prefix = |at: usize, mark: char| {
            let mut prefix = String::new();
            if named {
                prefix.push_str(&format!("{shown_name}{mark}"));
            }
            if options.has("n") {
                prefix.push_str(&format!("{at}{mark}"));
            }
            prefix.into_bytes()
        };
        if hit && search.only_matching && !search.inverted {
            for expression in &search.expressions {
                for piece in expression.find_iter(&line).filter(|piece| !piece.is_empty()) {
                    c.print([&prefix(at, ':'), piece.as_bytes(), b"\n"].concat()).await?;
                }
            }
        } else if hit {
            let gap = last_shown > 0 && earlier.front().map_or(at, |(first, _)| *first) > last_shown + 1;
            if gap && before + after > 0 {
                c.print("--\n").await?;
            }
            for (number, line) in earlier.drain(..) {
                c.print([&prefix(number, '-'), &line[..], b"\n"].concat()).await?;
            }
            c.print([&prefix(at, ':'), &line[..], b"\n"].concat()).await?;
            last_shown = at;
            context_left = after;
        } else if context_left > 0 {
            c.print([&prefix(at, '-'), &line[..], b"\n"].concat()).await?;
            last_shown = at;
            context_left -= 1;
        } else if before > 0 {
            if earlier.len() == before {
                earlier.pop_front();
            }
            earlier.push_back((at, line.clone()));
        }
        tokio::task::coop::consume_budget().await;
    }
    if quiet {
        return Ok(matched > 0);
    }
    if options.has("c") {
        let prefix = if named { format!("{shown_name}:") } else { String::new() };
        c.print(format!("{prefix}{matched}\n")).await?;
    } else if options.has("l") && matched > 0 || options.has("L") && matched == 0 {
        c.print(format!("{shown_name}\n")).await?;
    }
    Ok(matched > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(expression: Result<Regex, regex::Error>, text: &str) -> bool {
        expression.expect("a valid expression").is_match(text.as_bytes())
    }

    #[test]
    fn basic_expressions_have_their_operators_behind_a_backslash() {
        assert!(finds(basic_expression(r"a\(b\)\{2\}", false), "abb"));
        assert!(finds(basic_expression("a+b", false), "a+b"));
        assert!(!finds(basic_expression("a+b", false), "aab"));
        assert!(finds(basic_expression(r"x\|y", false), "y"));
        assert!(finds(basic_expression("*a", false), "*a"));
        assert!(finds(basic_expression("[]x]", false), "]"));
        assert!(finds(basic_expression("[[:digit:]]$", false), "a1"));
    }

    #[test]
    fn extended_expressions_have_bare_operators() {
        assert!(finds(extended_expression("^(a|b)+$", false), "abab"));
        assert!(finds(extended_expression("A", true), "a"));
        assert!(finds(extended_expression(r"\{x", false), "{x"));
    }
}
