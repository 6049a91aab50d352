//! awk's tokens.

use super::parse::Parsed;
use std::iter::Peekable;
use std::str::Chars;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Text(String),
    Expression(String),
    Name(String),
    /// A name with a parenthesis directly behind it.
    Function(String),
    Mark(&'static str),
    Newline,
}

const MARKS: [&str; 39] = [
    "&&", "||", "++", "--", "+=", "-=", "*=", "/=", "%=", "^=", "==", "<=", ">=", "!=", "!~", "**", "{", "}", "(", ")",
    "[", "]", ";", ",", "+", "-", "*", "/", "%", "^", "!", ">", "<", "|", "?", ":", "~", "$", "=",
];

pub(super) fn tokens(source: &str) -> Parsed<Vec<Token>> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        // A slash begins an expression where a value cannot end.
        let value_before = match tokens.last() {
            Some(Token::Number(_) | Token::Text(_) | Token::Name(_) | Token::Expression(_)) => true,
            Some(Token::Mark(mark)) => matches!(*mark, ")" | "]" | "$" | "++" | "--"),
            _ => false,
        };
        match c {
            '\n' => {
                tokens.push(Token::Newline);
                rest = &rest[1..];
            }
            '\\' if rest.starts_with("\\\n") => rest = &rest[2..],
            '#' => rest = rest.find('\n').map_or("", |end| &rest[end..]),
            c if c.is_whitespace() => rest = &rest[c.len_utf8()..],
            '"' => {
                let (text, after) = quoted(&rest[1..], '"')?;
                let bytes = crate::programs::escapes::unescape(&text, crate::programs::escapes::Style::AnsiC).0;
                tokens.push(Token::Text(String::from_utf8_lossy(&bytes).into_owned()));
                rest = after;
            }
            '/' if !value_before => {
                let (text, after) = quoted(&rest[1..], '/')?;
                tokens.push(Token::Expression(text.replace("\\/", "/")));
                rest = after;
            }
            '0'..='9' | '.' => {
                let length = number_length(rest);
                let number = rest[..length].parse().map_err(|_| format!("bad number near '{rest}'"))?;
                tokens.push(Token::Number(number));
                rest = &rest[length..];
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let length = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count();
                let name = rest[..length].to_owned();
                rest = &rest[length..];
                let keyword = matches!(
                    name.as_str(),
                    "if" | "while" | "for" | "print" | "printf" | "in" | "exit" | "delete" | "return"
                );
                tokens.push(if rest.starts_with('(') && !keyword { Token::Function(name) } else { Token::Name(name) });
            }
            _ => {
                let mark =
                    MARKS.iter().find(|mark| rest.starts_with(**mark)).ok_or_else(|| format!("unexpected '{c}'"))?;
                tokens.push(Token::Mark(mark));
                rest = &rest[mark.len()..];
            }
        }
    }
    Ok(tokens)
}

/// Text up to an unescaped delimiter, escapes kept, and what follows it.
fn quoted(text: &str, delimiter: char) -> Parsed<(String, &str)> {
    let mut chars: Peekable<Chars<'_>> = text.chars().peekable();
    let mut found = String::new();
    let mut length = 0;
    while let Some(c) = chars.next() {
        length += c.len_utf8();
        if c == delimiter {
            return Ok((found, &text[length..]));
        }
        found.push(c);
        if c == '\\'
            && let Some(escaped) = chars.next()
        {
            length += escaped.len_utf8();
            found.push(escaped);
        }
    }
    Err(format!("unterminated {delimiter}"))
}

/// Length of the number a text starts with.
pub(super) fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut length = digits(0);
    if bytes.get(length) == Some(&b'.') {
        length += 1;
        length += digits(length);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = if length + 1 + sign < bytes.len() { digits(length + 1 + sign) } else { 0 };
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}
