//! Resource quantities: `500m`, `1Gi`, `2e3`. Read, compared, and written in the one form the server answers with.
//!
//! Follows `k8s.io/apimachinery/pkg/api/resource`.

use super::json::object;
use serde_json::Value;
use std::cmp::Ordering;

/// What is said of a text that is none.
pub(crate) const NOT_A_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

/// A quantity, exact to a billionth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantity {
    nano: i128,
    form: Form,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.nano.partial_cmp(&other.nano)
    }
}

impl Quantity {
    /// Nothing.
    pub(crate) const ZERO: Quantity = Quantity { nano: 0, form: Form::Decimal };

    /// Reads a text, or a number as YAML users write it.
    pub(crate) fn of(value: &Value) -> Option<Quantity> {
        match value {
            Value::String(text) => Quantity::parse(text),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            _ => None,
        }
    }

    /// Reads a text; `None` if it is no quantity, or one beyond all measure.
    pub(crate) fn parse(text: &str) -> Option<Quantity> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let split = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (form, base, power) = Self::scale(suffix)?;
        // mantissa · 10^-digits · base^power, in billionths, rounded away from zero.
        let digits: String = [whole, fraction].concat();
        let mantissa: i128 = if digits.len() > 30 { return None } else { digits.parse().ok()? };
        let mut numerator = mantissa.checked_mul(NANO)?;
        let mut denominator = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let factor = base_power(base, power.unsigned_abs())?;
        if power >= 0 {
            // Shorten first, so that what fits in the end does not overflow on the way.
            let common = gcd(numerator.max(1), denominator);
            numerator /= common;
            denominator /= common;
            numerator = numerator.checked_mul(factor)?;
        } else {
            denominator = denominator.checked_mul(factor)?;
        }
        let nano = numerator / denominator + i128::from(numerator % denominator != 0);
        Some(Quantity { nano: if negative { -nano } else { nano }, form })
    }

    fn scale(suffix: &str) -> Option<(Form, i128, i32)> {
        if let Some(index) = DECIMAL.iter().position(|known| *known == suffix) {
            return Some((Form::Decimal, 1000, index as i32 - 3));
        }
        if let Some(index) = BINARY.iter().position(|known| *known == suffix) {
            return Some((Form::Binary, 1024, index as i32));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        let power: i32 = exponent.parse().ok()?;
        (power.abs() <= 27).then_some((Form::Exponent, 10, power))
    }

    /// Whether it is below zero.
    pub(crate) fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Whether it is a whole number.
    pub(crate) fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }
}

fn base_power(base: i128, power: u32) -> Option<i128> {
    base.checked_pow(power)
}

fn gcd(one: i128, other: i128) -> i128 {
    if other == 0 { one } else { gcd(other, one % other) }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let small = self.nano.abs() < 1024 * NANO;
        if self.form == Form::Binary && !small {
            let mut units = self.nano / NANO + i128::from(self.nano % NANO > 0);
            let mut index = 0;
            while units % 1024 == 0 && index + 1 < BINARY.len() {
                units /= 1024;
                index += 1;
            }
            return write!(f, "{units}{}", BINARY[index]);
        }
        let (mut mantissa, mut index) = (self.nano, 0);
        while mantissa % 1000 == 0 && index + 1 < DECIMAL.len() {
            mantissa /= 1000;
            index += 1;
        }
        match (self.form, index as i32 * 3 - 9) {
            (Form::Exponent, 0) => write!(f, "{mantissa}"),
            (Form::Exponent, power) => write!(f, "{mantissa}e{power}"),
            _ => write!(f, "{mantissa}{}", DECIMAL[index]),
        }
    }
}

/// Writes the quantities of the map at `pointer` in their one form.
pub(crate) fn canonicalize(value: &mut Value, pointer: &str) {
    if let Some(quantities) = value.pointer_mut(pointer).and_then(Value::as_object_mut) {
        for quantity in quantities.values_mut() {
            if let Some(read) = Quantity::of(quantity) {
                *quantity = read.to_string().into();
            }
        }
    }
}

/// The names and quantities of the map at `pointer`; what is no quantity is left out.
pub(crate) fn quantities(value: &Value, pointer: &str) -> Vec<(String, Quantity)> {
    object(value, pointer)
        .into_iter()
        .flatten()
        .filter_map(|(name, quantity)| Some((name.clone(), Quantity::of(quantity)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_has_one_form() {
        for (text, canonical) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("2000", "2k"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1536", "1536"),
            ("1.5Ki", "1536"),
            ("1e3", "1e3"),
            ("12E", "12E"),
            ("100e-3", "100e-3"),
            ("-1", "-1"),
            ("+.1", "100m"),
            ("0.0000000001", "1n"),
            ("7Ei", "7Ei"),
        ] {
            assert_eq!(
                Quantity::parse(text).map(|quantity| quantity.to_string()).as_deref(),
                Some(canonical),
                "{text}"
            );
        }
        for bad in ["", "-", ".", "1.2.3", "1x", "1 Gi", "Gi", "1ki", "e3", "1e99", "9999999999999999999999999999999Ei"]
        {
            assert!(Quantity::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn quantities_compare_by_what_they_are() {
        let quantity = |text| Quantity::parse(text).unwrap();
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!(quantity("0.1"), quantity("100m"));
        assert!(quantity("1k").is_whole() && !quantity("1m").is_whole() && quantity("-1m").is_negative());
    }
}
