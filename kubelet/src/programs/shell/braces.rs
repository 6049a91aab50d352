//! Brace expansion: `{a,b}` and `{1..3}`.

use super::expand::WORD_DEPTH;
use super::source::{depth, guarded, parser_options};
use brush_parser::word::{self, BraceExpressionMember, BraceExpressionOrText};

/// Most fields that braces make of one word.
const BRACES: usize = 10_000;

/// The words that the braces of a word make; mostly the word itself.
pub(super) fn braces(word: &str) -> Vec<String> {
    let digits = word.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    let plausible = word.contains('{') && (word.contains(',') || word.contains("..")) && digits < 10;
    if !plausible || depth(word) > WORD_DEPTH {
        return vec![word.to_owned()];
    }
    match guarded(|| word::parse_brace_expansions(word, &parser_options())) {
        Some(Ok(Some(pieces))) => concatenated(&pieces),
        _ => vec![word.to_owned()],
    }
}

/// Every combination of the pieces' alternatives, the first piece varying slowest.
fn concatenated(pieces: &[BraceExpressionOrText]) -> Vec<String> {
    let mut words = vec![String::new()];
    for piece in pieces {
        let alternatives = match piece {
            BraceExpressionOrText::Text(text) => vec![text.clone()],
            BraceExpressionOrText::Expr(members) => members.iter().flat_map(member).take(BRACES).collect(),
        };
        words = words
            .iter()
            .flat_map(|word| alternatives.iter().map(move |alternative| format!("{word}{alternative}")))
            .take(BRACES)
            .collect();
    }
    words
}

fn member(member: &BraceExpressionMember) -> Vec<String> {
    let steps = |start: i64, end: i64, increment: i64| {
        let step = increment.unsigned_abs().max(1) as i64;
        let count = (end - start).unsigned_abs() / step.unsigned_abs() + 1;
        let sign = if end < start { -1 } else { 1 };
        (0..count.min(BRACES as u64)).map(move |at| start + sign * step * at as i64)
    };
    match member {
        BraceExpressionMember::NumberSequence { start, end, increment } => {
            steps(*start, *end, *increment).map(|number| number.to_string()).collect()
        }
        BraceExpressionMember::CharSequence { start, end, increment } => {
            steps(i64::from(u32::from(*start)), i64::from(u32::from(*end)), *increment)
                .filter_map(|code| char::from_u32(code as u32))
                .map(String::from)
                .collect()
        }
        BraceExpressionMember::Child(pieces) => concatenated(pieces),
    }
}
