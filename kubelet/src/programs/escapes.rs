//! Backslash escapes of `echo -e`, `printf` and `$'…'`.

/// Whose escapes: they differ in octal digits and in `\c`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `\0nnn`; `\c` ends the output.
    Echo,
    /// `\nnn`; `\c` ends the output.
    Printf,
    /// `\nnn` and quotes.
    AnsiC,
}

/// The bytes that a text with escapes stands for, and whether `\c` ended it.
pub(crate) fn unescape(text: &str, style: Style) -> (Vec<u8>, bool) {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let Some(escape) = rest.chars().next() else {
            bytes.push(b'\\');
            return (bytes, false);
        };
        rest = &rest[escape.len_utf8()..];
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'e' | 'E' => bytes.push(27),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            '\'' | '"' | '?' if style != Style::Echo => bytes.push(escape as u8),
            'c' if style != Style::AnsiC => return (bytes, true),
            'x' => match digits(&mut rest, 16, 2) {
                Some(code) => bytes.push(code as u8),
                None => bytes.extend_from_slice(b"\\x"),
            },
            'u' | 'U' => {
                let code = digits(&mut rest, 16, if escape == 'u' { 4 } else { 8 });
                let c = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.extend_from_slice(c.to_string().as_bytes());
            }
            '0' if style != Style::AnsiC => bytes.push(digits(&mut rest, 8, 3).unwrap_or(0) as u8),
            '0'..='7' if style != Style::Echo => {
                let mut with_first = &text[text.len() - rest.len() - 1..];
                bytes.push(digits(&mut with_first, 8, 3).unwrap_or(0) as u8);
                rest = with_first;
            }
            other => {
                bytes.push(b'\\');
                bytes.extend_from_slice(other.to_string().as_bytes());
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    (bytes, false)
}

/// Takes up to `most` digits of a base.
fn digits(rest: &mut &str, base: u32, most: usize) -> Option<u32> {
    let length = rest.chars().take(most).take_while(|c| c.is_digit(base)).count();
    let (number, after) = rest.split_at(length);
    let value = u32::from_str_radix(number, base).ok()?;
    *rest = after;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape(r"a\tb\n", Style::Echo).0, b"a\tb\n");
        assert_eq!(unescape(r"\x41\0101", Style::Echo).0, b"AA");
        assert_eq!(unescape(r"\101\'", Style::AnsiC).0, b"A'");
        assert_eq!(unescape(r"x\cy", Style::Printf), (b"x".to_vec(), true));
        assert_eq!(unescape(r"\q\", Style::Echo).0, br"\q\");
        assert_eq!(unescape(r"\u00e9", Style::AnsiC).0, "é".as_bytes());
    }
}
