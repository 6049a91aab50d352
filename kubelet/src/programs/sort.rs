//! Tools over lines with fields: `sort`, `uniq`, `cut`.

use super::Tool;
use super::options::{Options, Order};
use super::stdio::Outcome;
use super::system::refuse;
use super::text::{all_lines, print_lines};
use crate::program::Container;

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("cut", |c| Box::pin(cut(c))),
    Tool::new("sort", |c| Box::pin(sort(c))),
    Tool::new("uniq", |c| Box::pin(uniq(c))),
];

async fn sort(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "n r u k: t: f o: b s V h R", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let Some(mut lines) = all_lines(c, &options.operands).await? else { return Ok(2) };
    let key = options.value("k").unwrap_or_default().to_owned();
    let field: usize = key
        .split([',', '.'])
        .next()
        .and_then(|field| field.trim_end_matches(char::is_alphabetic).parse().ok())
        .unwrap_or(0);
    let to: usize = key
        .split(',')
        .nth(1)
        .and_then(|field| field.trim_end_matches(char::is_alphabetic).parse().ok())
        .unwrap_or(usize::MAX);
    let numeric = options.has("n") || options.has("h") || key.contains('n');
    let reversed = options.has("r") || key.contains('r');
    let separator = options.value("t").and_then(|text| text.chars().next());
    let key_of = |line: &[u8]| -> String {
        let text = String::from_utf8_lossy(line);
        let part = if field == 0 {
            text.into_owned()
        } else {
            let fields: Vec<&str> = match separator {
                Some(separator) => text.split(separator).collect(),
                None => text.split_whitespace().collect(),
            };
            let end = to.min(fields.len());
            fields.get(field - 1..end.max(field - 1)).unwrap_or_default().join(" ")
        };
        if options.has("f") { part.to_uppercase() } else { part }
    };
    let leading_number = |text: &str| -> f64 {
        let text = text.trim_start();
        let end = text.char_indices().find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && *c == '-')));
        text[..end.map_or(text.len(), |(at, _)| at)].parse().unwrap_or(0.0)
    };
    let compare = |left: &(String, f64, Vec<u8>), right: &(String, f64, Vec<u8>)| {
        let order = if numeric { left.1.total_cmp(&right.1) } else { left.0.cmp(&right.0) };
        if reversed { order.reverse() } else { order }
    };
    let mut keyed: Vec<(String, f64, Vec<u8>)> = lines
        .drain(..)
        .map(|line| {
            let key = key_of(&line);
            let number = if numeric { leading_number(&key) } else { 0.0 };
            (key, number, line)
        })
        .collect();
    keyed.sort_by(|left, right| {
        let order = compare(left, right);
        if order.is_eq() && !options.has("s") && !options.has("u") {
            let last = left.2.cmp(&right.2);
            return if options.has("r") { last.reverse() } else { last };
        }
        order
    });
    if options.has("u") {
        keyed.dedup_by(|later, earlier| compare(earlier, later).is_eq());
    }
    let sorted = keyed.into_iter().map(|(_, _, line)| line);
    match options.value("o").map(str::to_owned) {
        Some(path) => {
            let mut text = Vec::new();
            sorted.for_each(|line| {
                text.extend(line);
                text.push(b'\n');
            });
            let path = c.path(&path);
            c.files.write(&path, text)?;
        }
        None => print_lines(c, sorted).await?,
    }
    Ok(0)
}

async fn uniq(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "c d u i f: s:", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let input = options.operands.first().cloned().into_iter().collect::<Vec<_>>();
    let Some(lines) = all_lines(c, &input).await? else { return Ok(1) };
    let mut groups: Vec<(usize, Vec<u8>)> = Vec::new();
    for line in lines {
        match groups.last_mut() {
            Some((count, same)) if *same == line || options.has("i") && same.eq_ignore_ascii_case(&line) => *count += 1,
            _ => groups.push((1, line)),
        }
    }
    let shown = groups.into_iter().filter(|(count, _)| match (options.has("d"), options.has("u")) {
        (true, _) => *count > 1,
        (false, true) => *count == 1,
        (false, false) => true,
    });
    let counted = options.has("c");
    let lines: Vec<Vec<u8>> = shown
        .map(|(count, line)| if counted { [format!("{count:7} ").into_bytes(), line].concat() } else { line })
        .collect();
    print_lines(c, lines).await?;
    Ok(0)
}

/// Ranges such as `1,3-5,7-`.
fn ranges(text: &str) -> Option<Vec<(usize, usize)>> {
    text.split(',')
        .map(|range| match range.split_once('-') {
            None => range.parse().ok().map(|at: usize| (at, at)),
            Some((from, to)) => {
                let from = if from.is_empty() { 1 } else { from.parse().ok()? };
                let to = if to.is_empty() { usize::MAX } else { to.parse().ok()? };
                Some((from, to))
            }
        })
        .collect::<Option<Vec<_>>>()
        .filter(|ranges| ranges.iter().all(|(from, _)| *from > 0))
}

async fn cut(c: &mut Container) -> Outcome {
    let options =
        match Options::parse(&c.args[1..], "d: f: c: b: s output-delimiter:|output-delimiter:", Order::Permuted) {
            Ok(options) => options,
            Err(message) => return refuse(c, message, 1).await,
        };
    let list = options.value("f").or(options.value("c")).or(options.value("b")).unwrap_or_default();
    let Some(ranges) = ranges(list) else {
        return refuse(c, "expected a list of bytes, characters, or fields", 1).await;
    };
    let wanted = |at: usize| ranges.iter().any(|(from, to)| (*from..=*to).contains(&at));
    let Some(lines) = all_lines(c, &options.operands).await? else { return Ok(1) };
    let by_field = options.has("f");
    let separator = options.value("d").unwrap_or("\t").to_owned();
    let mut shown = Vec::new();
    for line in lines {
        let text = String::from_utf8_lossy(&line).into_owned();
        if by_field && !separator.is_empty() {
            if !text.contains(&separator) {
                if !options.has("s") {
                    shown.push(line);
                }
                continue;
            }
            let fields: Vec<&str> =
                text.split(&separator).enumerate().filter(|(at, _)| wanted(at + 1)).map(|(_, field)| field).collect();
            shown.push(fields.join(&separator).into_bytes());
        } else {
            let kept: String = text.chars().enumerate().filter(|(at, _)| wanted(at + 1)).map(|(_, c)| c).collect();
            shown.push(kept.into_bytes());
        }
    }
    print_lines(c, shown).await?;
    Ok(0)
}
