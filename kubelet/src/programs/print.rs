//! `echo` and `printf`: the same for the shell's builtins and for the programs of that name.

use super::escapes::{Style, unescape};

/// Widest field `printf` makes.
const WIDTH: usize = 4096;
/// Most times `printf` uses its format again.
const ROUNDS: usize = 100_000;

/// The bytes that `echo` prints and whether a newline follows.
pub(super) fn echo(operands: &[String]) -> (Vec<u8>, bool) {
    let (mut newline, mut escapes) = (true, false);
    let mut operands = operands;
    while let Some((option, rest)) = operands.split_first() {
        let is_option = option.len() > 1 && option.starts_with('-') && option[1..].chars().all(|c| "neE".contains(c));
        if !is_option {
            break;
        }
        for letter in option[1..].chars() {
            match letter {
                'n' => newline = false,
                'e' => escapes = true,
                _ => escapes = false,
            }
        }
        operands = rest;
    }
    let text = operands.join(" ");
    if !escapes {
        return (text.into_bytes(), newline);
    }
    let (bytes, ended) = unescape(&text, Style::Echo);
    (bytes, newline && !ended)
}

/// The bytes that `printf` prints, and what it complains of.
pub(super) fn printf(format: &str, values: &[String]) -> (Vec<u8>, Vec<String>) {
    let mut printer = Printer { bytes: Vec::new(), errors: Vec::new(), values, used: 0, ended: false, lenient: false };
    for _ in 0..ROUNDS {
        let before = printer.used;
        printer.round(format);
        let more = printer.used < values.len() && printer.used > before;
        if printer.ended || !more {
            break;
        }
    }
    (printer.bytes, printer.errors)
}

/// `printf` of awk: the format is used once, its escapes are done, numbers lose their fractions where whole ones are wanted.
pub(super) fn awk_printf(format: &str, values: &[String]) -> Vec<u8> {
    let mut printer = Printer { bytes: Vec::new(), errors: Vec::new(), values, used: 0, ended: false, lenient: true };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        printer.bytes.extend_from_slice(&rest.as_bytes()[..at]);
        if printer.ended {
            return printer.bytes;
        }
        rest = printer.conversion(&rest[at + 1..]);
    }
    printer.bytes.extend_from_slice(rest.as_bytes());
    printer.bytes
}

struct Printer<'a> {
    bytes: Vec<u8>,
    errors: Vec<String>,
    values: &'a [String],
    used: usize,
    ended: bool,
    /// Numbers may have fractions, units and the like behind them.
    lenient: bool,
}

impl Printer<'_> {
    fn next(&mut self) -> String {
        let value = self.values.get(self.used).cloned().unwrap_or_default();
        self.used += 1;
        value
    }

    fn literal(&mut self, text: &str) {
        let (bytes, ended) = unescape(text, Style::Printf);
        self.bytes.extend(bytes);
        self.ended |= ended;
    }

    fn round(&mut self, format: &str) {
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            self.literal(&rest[..at]);
            if self.ended {
                return;
            }
            rest = self.conversion(&rest[at + 1..]);
        }
        self.literal(rest);
    }

    /// One conversion; gives back what follows it.
    fn conversion<'f>(&mut self, specification: &'f str) -> &'f str {
        let mut rest = specification;
        let (mut left, mut zero, mut plus, mut space, mut alternate) = (false, false, false, false, false);
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => left = true,
                '0' => zero = true,
                '+' => plus = true,
                ' ' => space = true,
                '#' => alternate = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        let width = self.size(&mut rest);
        let precision = match rest.strip_prefix('.') {
            Some(after) => {
                rest = after;
                Some(self.size(&mut rest).unwrap_or(0))
            }
            None => None,
        };
        rest = rest.trim_start_matches(['l', 'h', 'z', 'j']);
        let Some(kind) = rest.chars().next() else {
            self.bytes.push(b'%');
            return "";
        };
        rest = &rest[kind.len_utf8()..];
        let sign = |negative: bool| match negative {
            true => "-",
            false if plus => "+",
            false if space => " ",
            false => "",
        };
        let text = match kind {
            '%' => "%".to_owned(),
            'c' => self.next().chars().next().map(String::from).unwrap_or_default(),
            's' => cut(self.next(), precision),
            'q' => super::shell::quoted_word(&self.next()),
            'b' => {
                let value = self.next();
                let (bytes, ended) = unescape(&value, Style::Echo);
                self.ended |= ended;
                let padding = width.unwrap_or(0).saturating_sub(bytes.len());
                if !left {
                    self.bytes.extend(std::iter::repeat_n(b' ', padding));
                }
                self.bytes.extend(bytes);
                if left {
                    self.bytes.extend(std::iter::repeat_n(b' ', padding));
                }
                return rest;
            }
            'd' | 'i' => {
                let number = self.integer();
                let digits = format!("{:0>1$}", number.unsigned_abs(), precision.unwrap_or(1));
                format!("{}{digits}", sign(number < 0))
            }
            'u' => (self.integer() as u64).to_string(),
            'o' => format!("{:o}", self.integer()),
            'x' if alternate => format!("{:#x}", self.integer()),
            'x' => format!("{:0>1$}", format!("{:x}", self.integer()), precision.unwrap_or(1)),
            'X' => format!("{:0>1$}", format!("{:X}", self.integer()), precision.unwrap_or(1)),
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' => {
                let number = self.real();
                let digits = precision.unwrap_or(6).min(WIDTH);
                let text = match kind {
                    'e' | 'E' => exponential(number.abs(), digits),
                    'g' | 'G' => number.abs().to_string(),
                    _ => format!("{:.*}", digits, number.abs()),
                };
                format!("{}{text}", sign(number < 0.0))
            }
            other => {
                self.errors.push(format!("%{other}: invalid format"));
                self.ended = true;
                return "";
            }
        };
        let width = width.unwrap_or(0);
        let missing = width.saturating_sub(text.chars().count());
        let numeric = !matches!(kind, 's' | 'c' | '%' | 'q');
        if left {
            self.bytes.extend(text.as_bytes());
            self.bytes.extend(std::iter::repeat_n(b' ', missing));
        } else if zero && numeric {
            let signs = text.len() - text.trim_start_matches(['-', '+', ' ']).len();
            self.bytes.extend(&text.as_bytes()[..signs]);
            self.bytes.extend(std::iter::repeat_n(b'0', missing));
            self.bytes.extend(&text.as_bytes()[signs..]);
        } else {
            self.bytes.extend(std::iter::repeat_n(b' ', missing));
            self.bytes.extend(text.as_bytes());
        }
        rest
    }

    /// A width or precision: digits or `*`.
    fn size(&mut self, rest: &mut &str) -> Option<usize> {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            return Some(self.integer().unsigned_abs().min(WIDTH as u64) as usize);
        }
        let length = rest.chars().take_while(char::is_ascii_digit).count();
        let (digits, after) = rest.split_at(length);
        *rest = after;
        if digits.is_empty() { None } else { Some(digits.parse().unwrap_or(WIDTH).min(WIDTH)) }
    }

    fn integer(&mut self) -> i64 {
        let value = self.next();
        let mut text = value.trim();
        if self.lenient {
            let digits = text.trim_start_matches(['-', '+']);
            let length = digits.chars().take_while(char::is_ascii_digit).count();
            text = &text[..text.len() - digits.len() + length];
            return text.parse().unwrap_or(0);
        }
        if let Some(character) = text.strip_prefix(['\'', '"']) {
            return character.chars().next().map_or(0, |c| i64::from(u32::from(c)));
        }
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let parsed = if digits.is_empty() && !negative {
            Some(0)
        } else if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            u64::from_str_radix(hex, 16).ok().map(|number| number as i64)
        } else if digits.len() > 1 && digits.starts_with('0') {
            i64::from_str_radix(digits, 8).ok()
        } else {
            digits.parse::<u64>().ok().map(|number| number as i64)
        };
        match parsed {
            Some(number) if negative => number.wrapping_neg(),
            Some(number) => number,
            None => {
                self.errors.push(format!("invalid number '{value}'"));
                0
            }
        }
    }

    fn real(&mut self) -> f64 {
        let value = self.next();
        match value.trim() {
            "" => 0.0,
            text => text.parse().unwrap_or_else(|_| {
                if self.lenient {
                    return 0.0;
                }
                self.errors.push(format!("invalid number '{value}'"));
                0.0
            }),
        }
    }
}

fn cut(text: String, precision: Option<usize>) -> String {
    match precision {
        Some(length) => text.chars().take(length).collect(),
        None => text,
    }
}

/// `1.500000e+01` as C prints it.
fn exponential(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: &str, values: &[&str]) -> String {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        String::from_utf8(printf(format, &values).0).expect("text")
    }

    #[test]
    fn printf_uses_its_format_until_the_values_are_used_up() {
        assert_eq!(printed("%s=%d\\n", &["a", "1", "b", "2"]), "a=1\nb=2\n");
        assert_eq!(printed("%s\\n", &[]), "\n");
        assert_eq!(printed("x\\n", &["a", "b"]), "x\n");
    }

    #[test]
    fn printf_pads_and_converts() {
        assert_eq!(printed("%5s|%-5s|%05d|%x|%o", &["ab", "ab", "42", "255", "8"]), "   ab|ab   |00042|ff|10");
        assert_eq!(printed("%.2f %5.1f%%", &["3.14159", "2"]), "3.14   2.0%");
        assert_eq!(printed("%b", &["a\\tb"]), "a\tb");
        assert_eq!(printed("%.3s", &["abcdef"]), "abc");
        assert_eq!(printed("%d", &["-7"]), "-7");
    }

    #[test]
    fn printf_says_what_is_not_a_number() {
        assert_eq!(printf("%d", &["x".to_owned()]).1, ["invalid number 'x'"]);
    }
}
