//! Tools over lines and bytes: `cat`, `head`, `tail`, `wc`, `tr`, `tee`, `rev`, `tac`.

use super::Tool;
use super::options::{Options, Order};
use super::stdio::{Outcome, reason};
use super::system::refuse;
use crate::program::{Container, Input};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("cat", |c| Box::pin(cat(c))),
    Tool::new("head", |c| Box::pin(head(c))),
    Tool::new("less", |c| Box::pin(cat(c))),
    Tool::new("more", |c| Box::pin(cat(c))),
    Tool::new("rev", |c| Box::pin(rev(c))),
    Tool::new("tac", |c| Box::pin(tac(c))),
    Tool::new("tail", |c| Box::pin(tail(c))),
    Tool::new("tee", |c| Box::pin(tee(c))),
    Tool::new("tr", |c| Box::pin(tr(c))),
    Tool::new("wc", |c| Box::pin(wc(c))),
];

const BUFFER: usize = 32 << 10;

/// How often `tail -f` looks at its file, as busybox does.
const FOLLOW: Duration = Duration::from_secs(1);

/// Opens an operand, or says in the tool's name why it cannot.
pub(super) async fn open_or_complain(c: &mut Container, operand: &str) -> Option<Input> {
    match c.open(operand) {
        Ok(input) => Some(input),
        Err(error) => {
            let name = c.args[0].rsplit('/').next().unwrap_or_default().to_owned();
            c.complain(format!("{name}: can't open '{operand}': {}", reason(&error))).await;
            None
        }
    }
}

/// The operands, or standard input.
pub(super) fn or_stdin(operands: &[String]) -> Vec<String> {
    if operands.is_empty() { vec!["-".to_owned()] } else { operands.to_vec() }
}

async fn copy(c: &mut Container, mut input: Input) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = input.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        c.print(&buffer[..length]).await?;
        tokio::task::coop::consume_budget().await;
    }
}

async fn cat(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "n u A v e t", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut status = 0;
    let mut number = 0;
    for operand in or_stdin(&options.operands) {
        let Some(input) = open_or_complain(c, &operand).await else {
            status = 1;
            continue;
        };
        if !options.has("n") {
            copy(c, input).await?;
            continue;
        }
        let mut lines = BufReader::new(input);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).await? > 0 {
            number += 1;
            c.print(format!("{number:6}\t").as_bytes()).await?;
            c.print(&line).await?;
            line.clear();
        }
    }
    Ok(status)
}

/// `-5` means `-n 5`.
fn with_count(args: &[String]) -> Vec<String> {
    let spell = |arg: &String| match arg.strip_prefix('-') {
        Some(digits) if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) => format!("-n{digits}"),
        _ => arg.clone(),
    };
    args.iter().map(spell).collect()
}

async fn head(c: &mut Container) -> Outcome {
    let options = match Options::parse(&with_count(&c.args[1..]), "n:|lines: c:|bytes: q v", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let (lines, bytes) = match (options.number::<i64>("n"), options.number::<u64>("c")) {
        (Ok(lines), Ok(bytes)) => (lines.unwrap_or(10), bytes),
        (Err(message), _) | (_, Err(message)) => return refuse(c, message, 1).await,
    };
    let operands = or_stdin(&options.operands);
    let titled = operands.len() > 1 && !options.has("q");
    let mut status = 0;
    for (at, operand) in operands.iter().enumerate() {
        let Some(input) = open_or_complain(c, operand).await else {
            status = 1;
            continue;
        };
        if titled {
            c.print(format!("{}==> {operand} <==\n", if at > 0 { "\n" } else { "" })).await?;
        }
        if let Some(bytes) = bytes {
            copy(c, Box::new(input.take(bytes))).await?;
        } else if lines < 0 {
            let all = super::stdio::read_all(input).await?;
            let kept: Vec<&[u8]> = all.split_inclusive(|byte| *byte == b'\n').collect();
            let end = kept.len().saturating_sub(lines.unsigned_abs() as usize);
            c.print(kept[..end].concat()).await?;
        } else {
            let mut reader = BufReader::new(input);
            let mut line = Vec::new();
            for _ in 0..lines {
                line.clear();
                if reader.read_until(b'\n', &mut line).await? == 0 {
                    break;
                }
                c.print(&line).await?;
            }
        }
    }
    Ok(status)
}

async fn tail(c: &mut Container) -> Outcome {
    let spelled = with_count(&c.args[1..]);
    let options = match Options::parse(&spelled, "n:|lines: c:|bytes: f|follow F q v s:", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let counted = options.value("c").or(options.value("n")).unwrap_or("10").to_owned();
    let from_start = counted.starts_with('+');
    let Ok(count) = counted.trim_start_matches(['+', '-']).parse::<usize>() else {
        return refuse(c, format!("invalid number '{counted}'"), 1).await;
    };
    let operands = or_stdin(&options.operands);
    let mut status = 0;
    let mut followed = Vec::new();
    for (at, operand) in operands.iter().enumerate() {
        let bytes = match c.content(operand).await {
            Ok(bytes) => bytes,
            Err(error) => {
                refuse(c, format!("can't open '{operand}': {}", reason(&error)), 1).await?;
                status = 1;
                if options.has("F") {
                    followed.push((c.path(operand), 0));
                }
                continue;
            }
        };
        if operands.len() > 1 && !options.has("q") {
            c.print(format!("{}==> {operand} <==\n", if at > 0 { "\n" } else { "" })).await?;
        }
        let shown = if options.has("c") {
            let start = if from_start { count.saturating_sub(1) } else { bytes.len().saturating_sub(count) };
            bytes[start.min(bytes.len())..].to_vec()
        } else {
            let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
            let start = if from_start { count.saturating_sub(1) } else { lines.len().saturating_sub(count) };
            lines[start.min(lines.len())..].concat()
        };
        c.print(shown).await?;
        if operand != "-" {
            followed.push((c.path(operand), bytes.len()));
        }
    }
    if !options.has("f") && !options.has("F") || followed.is_empty() {
        return Ok(status);
    }
    loop {
        tokio::time::sleep(FOLLOW).await;
        for (path, seen) in &mut followed {
            let Ok(bytes) = c.files.read(path) else { continue };
            if bytes.len() < *seen {
                *seen = 0;
            }
            if bytes.len() > *seen {
                c.print(&bytes[*seen..]).await?;
                *seen = bytes.len();
            }
        }
    }
}

async fn wc(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "l w c m L", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let all = options.iter().next().is_none();
    let operands = or_stdin(&options.operands);
    let mut totals = [0usize; 3];
    let mut status = 0;
    let chosen = |counts: [usize; 3]| {
        let columns = [("l", counts[0]), ("w", counts[1]), ("c", counts[2])];
        let shown: Vec<usize> = columns
            .iter()
            .filter(|(flag, _)| all || options.has(flag) || (*flag == "c" && options.has("m")))
            .map(|(_, count)| *count)
            .collect();
        match shown[..] {
            [one] => one.to_string(),
            _ => shown.iter().map(|count| format!("{count:>9}")).collect::<Vec<_>>().join(" "),
        }
    };
    for operand in &operands {
        let bytes = match c.content(operand).await {
            Ok(bytes) => bytes,
            Err(error) => {
                refuse(c, format!("{operand}: {}", reason(&error)), 1).await?;
                status = 1;
                continue;
            }
        };
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let words = bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
        let counts = [lines, words, bytes.len()];
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        let name = if operand == "-" && options.operands.is_empty() { String::new() } else { format!(" {operand}") };
        c.print(format!("{}{name}\n", chosen(counts))).await?;
    }
    if operands.len() > 1 {
        c.print(format!("{} total\n", chosen(totals))).await?;
    }
    Ok(status)
}

/// The lines of all operands, without line ends.
pub(super) async fn all_lines(c: &mut Container, operands: &[String]) -> io::Result<Option<Vec<Vec<u8>>>> {
    let mut lines = Vec::new();
    for operand in or_stdin(operands) {
        match c.content(&operand).await {
            Ok(mut bytes) => {
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                } else if bytes.is_empty() {
                    continue;
                }
                lines.extend(bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
            }
            Err(error) => {
                refuse(c, format!("can't open '{operand}': {}", reason(&error)), 1).await?;
                return Ok(None);
            }
        }
    }
    Ok(Some(lines))
}

pub(super) async fn print_lines(c: &mut Container, lines: impl IntoIterator<Item = Vec<u8>>) -> io::Result<()> {
    let mut text = Vec::new();
    for line in lines {
        text.extend(line);
        text.push(b'\n');
        if text.len() > BUFFER {
            c.print(std::mem::take(&mut text)).await?;
        }
    }
    c.print(text).await
}

/// The characters of a `tr` set.
fn character_set(text: &str) -> Vec<u8> {
    let mut bytes = super::escapes::unescape(text, super::escapes::Style::Printf).0;
    type Class = (&'static str, fn(&u8) -> bool);
    let classes: [Class; 6] = [
        ("[:upper:]", u8::is_ascii_uppercase),
        ("[:lower:]", u8::is_ascii_lowercase),
        ("[:digit:]", u8::is_ascii_digit),
        ("[:alpha:]", u8::is_ascii_alphabetic),
        ("[:alnum:]", u8::is_ascii_alphanumeric),
        ("[:space:]", u8::is_ascii_whitespace),
    ];
    for (name, accepts) in classes {
        while let Some(at) = bytes.windows(name.len()).position(|window| window == name.as_bytes()) {
            let members: Vec<u8> = (0..=127).filter(accepts).collect();
            bytes.splice(at..at + name.len(), members);
        }
    }
    let mut set = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes.get(at + 1), bytes.get(at + 2)) {
            (Some(b'-'), Some(last)) if *last >= bytes[at] => {
                set.extend(bytes[at]..=*last);
                at += 3;
            }
            _ => {
                set.push(bytes[at]);
                at += 1;
            }
        }
    }
    set
}

async fn tr(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "d s c C", Order::OptionsFirst) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let Some(first) = options.operands.first() else {
        return refuse(c, "missing operand", 1).await;
    };
    let mut from = character_set(first);
    if options.has("c") || options.has("C") {
        let listed = from;
        from = (0..=255).filter(|byte| !listed.contains(byte)).collect();
    }
    let to = options.operands.get(1).map(|text| character_set(text)).unwrap_or_default();
    let squeezed = if options.operands.len() > 1 { to.clone() } else { from.clone() };
    let mut input = c.take_stdin();
    let mut buffer = vec![0; BUFFER];
    let mut previous = None;
    loop {
        let length = input.read(&mut buffer).await?;
        if length == 0 {
            return Ok(0);
        }
        let mut output = Vec::with_capacity(length);
        for byte in &buffer[..length] {
            let mut byte = *byte;
            if let Some(at) = from.iter().position(|member| *member == byte) {
                if options.has("d") {
                    continue;
                }
                if let Some(mapped) = to.get(at).or(to.last()) {
                    byte = *mapped;
                }
            }
            if options.has("s") && previous == Some(byte) && squeezed.contains(&byte) {
                continue;
            }
            previous = Some(byte);
            output.push(byte);
        }
        c.print(output).await?;
        tokio::task::coop::consume_budget().await;
    }
}

async fn tee(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "a|append i", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut outputs = Vec::new();
    let mut status = 0;
    for operand in &options.operands {
        match c.create(operand, options.has("a")) {
            Ok(output) => outputs.push(output),
            Err(error) => {
                refuse(c, format!("{operand}: {}", reason(&error)), 1).await?;
                status = 1;
            }
        }
    }
    let mut input = c.take_stdin();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = input.read(&mut buffer).await?;
        if length == 0 {
            return Ok(status);
        }
        c.print(&buffer[..length]).await?;
        for output in &mut outputs {
            output.write_all(&buffer[..length]).await?;
        }
        tokio::task::coop::consume_budget().await;
    }
}

async fn rev(c: &mut Container) -> Outcome {
    let operands = c.args[1..].to_vec();
    let Some(lines) = all_lines(c, &operands).await? else { return Ok(1) };
    let reversed = |line: Vec<u8>| String::from_utf8_lossy(&line).chars().rev().collect::<String>().into_bytes();
    print_lines(c, lines.into_iter().map(reversed)).await?;
    Ok(0)
}

async fn tac(c: &mut Container) -> Outcome {
    let operands = c.args[1..].to_vec();
    let Some(lines) = all_lines(c, &operands).await? else { return Ok(1) };
    print_lines(c, lines.into_iter().rev()).await?;
    Ok(0)
}
