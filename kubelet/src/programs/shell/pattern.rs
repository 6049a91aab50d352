//! Shell patterns (POSIX 2.13): `*`, `?`, `[…]`, and a backslash that makes the next character stand for itself.

use regex::{Regex, RegexBuilder};

enum Token {
    Literal(char),
    Any,
    Star,
    Class { negated: bool, members: Vec<Member> },
}

enum Member {
    Range(char, char),
    Named(&'static str, fn(char) -> bool),
}

/// A named class such as `[:alpha:]`, and what belongs to it.
type Named = (&'static str, fn(char) -> bool);

const NAMED: [Named; 11] = [
    ("alnum", |c| c.is_alphanumeric()),
    ("alpha", |c| c.is_alphabetic()),
    ("blank", |c| c == ' ' || c == '\t'),
    ("cntrl", |c| c.is_control()),
    ("digit", |c| c.is_ascii_digit()),
    ("graph", |c| c.is_ascii_graphic()),
    ("lower", |c| c.is_lowercase()),
    ("print", |c| c == ' ' || c.is_ascii_graphic()),
    ("punct", |c| c.is_ascii_punctuation()),
    ("space", |c| c.is_whitespace()),
    ("upper", |c| c.is_uppercase()),
];

/// Whether `text` as a whole matches. Takes time proportional to the product of the lengths, at worst.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let tokens = tokens(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut wanted) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match tokens.get(wanted) {
            Some(Token::Star) => {
                star = Some((wanted, at));
                wanted += 1;
            }
            Some(token) if token.accepts(text[at]) => {
                at += 1;
                wanted += 1;
            }
            _ => match star {
                Some((token, from)) => {
                    star = Some((token, from + 1));
                    wanted = token + 1;
                    at = from + 1;
                }
                None => return false,
            },
        }
    }
    tokens[wanted..].iter().all(|token| matches!(token, Token::Star))
}

/// Whether a pattern has an unescaped `*`, `?` or `[`.
pub(crate) fn is_wild(pattern: &str) -> bool {
    tokens(pattern).iter().any(|token| !matches!(token, Token::Literal(_)))
}

/// The pattern that matches just `text`.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '-' | '!' | '^') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The text of a pattern without wildcards.
pub(crate) fn unescape(pattern: &str) -> String {
    tokens(pattern).iter().filter_map(|token| if let Token::Literal(c) = token { Some(*c) } else { None }).collect()
}

/// Which match of several to take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Shortest,
    Longest,
}

/// `${text#pattern}` and `${text##pattern}`.
pub(crate) fn without_prefix(text: &str, pattern: &str, extent: Extent) -> String {
    let Some(regex) = regex(&tokens(pattern), extent, true) else {
        return text.to_owned();
    };
    match regex.find(text) {
        Some(found) => text[found.end()..].to_owned(),
        None => text.to_owned(),
    }
}

/// `${text%pattern}` and `${text%%pattern}`: the prefix of the reversed text that the reversed pattern matches.
pub(crate) fn without_suffix(text: &str, pattern: &str, extent: Extent) -> String {
    let mut tokens = tokens(pattern);
    tokens.reverse();
    let Some(regex) = regex(&tokens, extent, true) else {
        return text.to_owned();
    };
    let reversed: String = text.chars().rev().collect();
    match regex.find(&reversed) {
        Some(found) => text[..text.len() - found.end()].to_owned(),
        None => text.to_owned(),
    }
}

/// `${text/pattern/replacement}`, everywhere if `all`.
pub(crate) fn replace(text: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let tokens = tokens(pattern);
    if tokens.is_empty() {
        return text.to_owned();
    }
    let Some(regex) = regex(&tokens, Extent::Longest, false) else {
        return text.to_owned();
    };
    regex.replacen(text, usize::from(!all), regex::NoExpand(replacement)).into_owned()
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Token::Literal(wanted) => *wanted == c,
            Token::Any => true,
            Token::Star => false,
            Token::Class { negated, members } => {
                let listed = members.iter().any(|member| match member {
                    Member::Range(first, last) => (*first..=*last).contains(&c),
                    Member::Named(_, accepts) => accepts(c),
                });
                listed != *negated
            }
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let token = match chars[at] {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' if at + 1 < chars.len() => {
                at += 1;
                Token::Literal(chars[at])
            }
            '[' => match class(&chars[at..]) {
                Some((class, length)) => {
                    at += length - 1;
                    class
                }
                None => Token::Literal('['),
            },
            c => Token::Literal(c),
        };
        at += 1;
        // Stars in a row are one: matching stays cheap.
        if !(matches!(token, Token::Star) && matches!(tokens.last(), Some(Token::Star))) {
            tokens.push(token);
        }
    }
    tokens
}

/// A bracket expression and its length. `None`: the bracket stands for itself.
fn class(chars: &[char]) -> Option<(Token, usize)> {
    let mut at = 1;
    let negated = matches!(chars.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let first = at;
    let mut members = Vec::new();
    loop {
        match *chars.get(at)? {
            ']' if at > first => return Some((Token::Class { negated, members }, at + 1)),
            '[' if chars.get(at + 1) == Some(&':') => {
                let rest: String = chars[at + 2..].iter().take(10).collect();
                let name = rest.split(":]").next()?;
                let (name, accepts) = NAMED.iter().find(|(known, _)| *known == name)?;
                members.push(Member::Named(name, *accepts));
                at += name.len() + 4;
            }
            c => {
                let mut low = c;
                if c == '\\' && at + 1 < chars.len() {
                    at += 1;
                    low = chars[at];
                }
                let mut high = low;
                if chars.get(at + 1) == Some(&'-') && !matches!(chars.get(at + 2), None | Some(']')) {
                    at += 2;
                    if chars[at] == '\\' && at + 1 < chars.len() {
                        at += 1;
                    }
                    high = chars[at];
                }
                members.push(Member::Range(low, high));
                at += 1;
            }
        }
    }
}

/// The regular expression for tokens: it finds in linear time what a matcher of patterns would search for.
fn regex(tokens: &[Token], extent: Extent, anchored: bool) -> Option<Regex> {
    let mut text = String::from(if anchored { "^" } else { "" });
    for token in tokens {
        match token {
            Token::Literal(c) => text.push_str(&regex::escape(&c.to_string())),
            Token::Any => text.push('.'),
            Token::Star => text.push_str(if extent == Extent::Shortest { ".*?" } else { ".*" }),
            Token::Class { negated, members } => {
                text.push_str(if *negated { "[^" } else { "[" });
                for member in members {
                    match member {
                        Member::Range(first, last) if first <= last => {
                            let (first, last) = (u32::from(*first), u32::from(*last));
                            text.push_str(&format!("\\x{{{first:x}}}-\\x{{{last:x}}}"));
                        }
                        Member::Range(..) => {}
                        Member::Named(name, _) => text.push_str(&format!("[:{name}:]")),
                    }
                }
                text.push(']');
            }
        }
    }
    RegexBuilder::new(&text).dot_matches_new_line(true).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("?b", "ab", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[[:digit:]]*", "7up", true),
            ("[", "[", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("*a*b*", "xxaxxbxx", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn prefixes_and_suffixes_are_cut_as_short_or_as_long_as_asked() {
        assert_eq!(without_prefix("/usr/local/bin", "*/", Extent::Shortest), "usr/local/bin");
        assert_eq!(without_prefix("/usr/local/bin", "*/", Extent::Longest), "bin");
        assert_eq!(without_suffix("a.tar.gz", ".*", Extent::Shortest), "a.tar");
        assert_eq!(without_suffix("a.tar.gz", ".*", Extent::Longest), "a");
        assert_eq!(without_suffix("plain", ".*", Extent::Shortest), "plain");
        assert_eq!(replace("a-b-c", "-", "+", true), "a+b+c");
        assert_eq!(replace("a-b-c", "-", "$0", false), "a$0b-c");
    }
}
