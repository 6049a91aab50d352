//! `resource.Quantity`: exact amounts such as `500m`, `1Gi`, `2e3`.
//!
//! Kubernetes stores the canonical form: no fraction, the largest suffix that keeps a whole number, the suffix's family kept.
//! Amounts are kept in nano-units; what is finer is rounded up, what is larger than 2^63 − 1 is capped, as there.

/// The words for text that is not an amount.
pub const NOT_A_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANOS: i128 = 1_000_000_000;
const LIMIT: i128 = i64::MAX as i128 * NANOS;

/// How an amount's suffix is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// An amount in nano-units.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Reads an amount; `None` if it is none.
    pub fn parse(text: &str) -> Option<Quantity> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        // (numerator, exponent of ten): the amount is `digits × 10^exponent × factor`.
        let (format, factor, exponent): (Format, i128, i32) = match suffix {
            "" => (Format::Decimal, 1, 0),
            "n" => (Format::Decimal, 1, -9),
            "u" => (Format::Decimal, 1, -6),
            "m" => (Format::Decimal, 1, -3),
            "k" => (Format::Decimal, 1, 3),
            "M" => (Format::Decimal, 1, 6),
            "G" => (Format::Decimal, 1, 9),
            "T" => (Format::Decimal, 1, 12),
            "P" => (Format::Decimal, 1, 15),
            "E" => (Format::Decimal, 1, 18),
            "Ki" => (Format::Binary, 1 << 10, 0),
            "Mi" => (Format::Binary, 1 << 20, 0),
            "Gi" => (Format::Binary, 1 << 30, 0),
            "Ti" => (Format::Binary, 1 << 40, 0),
            "Pi" => (Format::Binary, 1 << 50, 0),
            "Ei" => (Format::Binary, 1 << 60, 0),
            other => {
                let digits = other.strip_prefix(['e', 'E'])?;
                let sane = !digits.is_empty() && digits.len() <= 5;
                (Format::Exponent, 1, sane.then(|| digits.parse().ok()).flatten()?)
            }
        };
        let nanos = amount(whole, fraction, factor, exponent)?;
        Some(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// The canonical text.
    pub fn canonical(&self) -> String {
        let binary = self.format == Format::Binary && self.nanos % NANOS == 0 && self.nanos.abs() >= 1024 * NANOS;
        if self.nanos == 0 {
            return "0".to_owned();
        }
        if binary {
            let mut amount = self.nanos / NANOS;
            let mut suffix = 0;
            while amount % 1024 == 0 && suffix < 6 {
                amount /= 1024;
                suffix += 1;
            }
            return format!("{amount}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][suffix]);
        }
        let mut amount = self.nanos;
        let mut exponent = -9i32;
        while amount % 1000 == 0 && exponent < 18 {
            amount /= 1000;
            exponent += 3;
        }
        if self.format == Format::Exponent {
            return if exponent == 0 { amount.to_string() } else { format!("{amount}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        format!("{amount}{suffix}")
    }

    /// Both together, in this amount's form.
    pub fn plus(self, other: Quantity) -> Quantity {
        Quantity { nanos: (self.nanos + other.nanos).clamp(-LIMIT, LIMIT), ..self }
    }

    /// This one less the other, in this amount's form.
    pub fn minus(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: (self.nanos - other.nanos).clamp(-LIMIT, LIMIT), format }
    }

    /// The amount in thousandths, rounded up.
    pub fn millis(&self) -> i128 {
        self.nanos.div_euclid(1_000_000) + i128::from(self.nanos.rem_euclid(1_000_000) != 0)
    }

    /// The amount, rounded up to a whole number.
    pub fn value(&self) -> i128 {
        self.nanos.div_euclid(NANOS) + i128::from(self.nanos.rem_euclid(NANOS) != 0)
    }

    /// The amount in nano-units, to compare and add exactly.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }
}

/// `whole.fraction × factor × 10^exponent` in nano-units, rounded up and capped. With a factor there is no exponent.
fn amount(whole: &str, fraction: &str, factor: i128, exponent: i32) -> Option<i128> {
    if factor > 1 {
        return Some(binary(whole, fraction, factor));
    }
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0').collect();
    if digits.is_empty() {
        return Some(0);
    }
    // Where the last digit stands, in powers of ten of a nano-unit.
    let shift = exponent + 9 - i32::try_from(fraction.len()).ok()?;
    let magnitude = i32::try_from(digits.len()).ok()? + shift;
    if magnitude > 30 {
        return Some(LIMIT);
    }
    if magnitude < 0 {
        return Some(1);
    }
    // At most 19 digits before and 9 after the point matter; a rest that is not zero rounds up.
    let kept = digits.len().min(30);
    let mut rest = digits[kept..].iter().any(|digit| *digit != b'0');
    let mut value = number(&digits[..kept]);
    let mut shift = shift + i32::try_from(digits.len() - kept).ok()?;
    while shift < 0 {
        rest |= value % 10 != 0;
        value /= 10;
        shift += 1;
    }
    while shift > 0 {
        value = value.checked_mul(10).unwrap_or(LIMIT);
        shift -= 1;
    }
    Some((value + i128::from(rest)).min(LIMIT))
}

fn number(digits: &[u8]) -> i128 {
    digits.iter().fold(0, |value, digit| value * 10 + i128::from(digit - b'0'))
}

/// `whole.fraction × factor`, at most 2^60, in nano-units, rounded up and capped.
fn binary(whole: &str, fraction: &str, factor: i128) -> i128 {
    let whole = whole.trim_start_matches('0').as_bytes();
    if whole.len() > 19 {
        return LIMIT;
    }
    // Digits after the thirtieth are less than a nano-unit together, whatever the factor. The others are taken in two halves, so that
    // every product fits into 128 bits: (high × 10^15 + low) × factor / 10^21 nano-units.
    let digit = |place: usize| fraction.as_bytes().get(place).copied().unwrap_or(b'0');
    let half = |start: usize| number(&(start..start + 15).map(digit).collect::<Vec<u8>>());
    let (high, low) = (half(0) * factor, half(15) * factor);
    let beyond = fraction.bytes().skip(30).any(|digit| digit != b'0');
    let below = high % 1_000_000 * 1_000_000_000_000_000 + low;
    let unit = 1_000_000_000_000_000_000_000;
    let rounded = below / unit + i128::from(below % unit != 0 || beyond);
    let nanos = number(whole).checked_mul(factor).and_then(|value| value.checked_mul(NANOS));
    nanos.map_or(LIMIT, |value| (value + high / 1_000_000 + rounded).min(LIMIT))
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> Option<String> {
        Quantity::parse(text).map(|quantity| quantity.canonical())
    }

    #[test]
    fn amounts_take_the_largest_suffix_that_keeps_a_whole_number() {
        for (given, stored) in [
            ("0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("100000k", "100M"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("1e3", "1e3"),
            ("0.1Gi", "107374182400m"),
            ("512Ki", "512Ki"),
            ("1023", "1023"),
            ("0Gi", "0"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.0000000001", "1n"),
            ("99999999999999999999", "9223372036854775807"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(stored), "{given}");
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        for wrong in ["", "x", "1x", "1 Gi", "1.2.3", "Gi", "1kk", "-", "1e", "1e1.5", "1Gi5", "1e999999999"] {
            assert!(canonical(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(text in "[+-]?[0-9]{0,12}\\.?[0-9]{0,12}(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|e-[0-9])") {
            if let Some(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Some(once.clone()));
                prop_assert_eq!(Quantity::parse(&once).unwrap().nanos(), Quantity::parse(&text).unwrap().nanos());
            }
        }

        #[test]
        fn garbage_is_no_reason_to_panic(text in "\\PC*") {
            let _ = canonical(&text);
        }
    }
}
