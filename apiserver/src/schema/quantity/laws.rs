//! Quantities against a naive exact reader: long multiplication on decimal digits.

use super::*;
use proptest::prelude::*;

/// Digits, the lowest first, times a number.
fn times(digits: &[u8], factor: u64) -> Vec<u8> {
    let (mut out, mut carry) = (Vec::new(), 0u128);
    for digit in digits {
        let value = u128::from(*digit) * u128::from(factor) + carry;
        out.push((value % 10) as u8);
        carry = value / 10;
    }
    while carry > 0 {
        out.push((carry % 10) as u8);
        carry /= 10;
    }
    out
}

/// The amount in nano-units, rounded away from zero and capped; `None` if the text is no amount.
fn naive(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let suffix = &text[number.len()..];
    if number.matches('.').count() > 1 || !number.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let fraction = number.split_once('.').map_or(0, |(_, fraction)| fraction.len()) as i64;
    let mut digits: Vec<u8> = number.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').rev().collect();
    let mut power = 9 - fraction;
    let decimal =
        [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|known| *known == suffix);
    if let Some((_, exponent)) = decimal.iter().find(|(known, _)| *known == suffix) {
        power += exponent;
    } else if let Some(index) = binary {
        digits = times(&digits, 1 << (10 * (index + 1)));
    } else {
        power += suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
    }
    // The digit at place p counts 10^(p + power) nano-units.
    let mut amount = 0i128;
    let mut rest = false;
    for (place, digit) in digits.iter().enumerate().filter(|(_, digit)| **digit != 0) {
        match place as i64 + power {
            exponent @ 0..=30 => amount += i128::from(*digit) * 10i128.pow(exponent as u32),
            31.. => amount = i128::MAX / 2,
            _ => rest = true,
        }
        amount = amount.min(i128::MAX / 2);
    }
    let amount = (amount + i128::from(rest)).min(i128::from(i64::MAX) * 1_000_000_000);
    Some(if negative { -amount } else { amount })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_amount_is_what_long_multiplication_makes_of_it(
        text in "[+-]?[0-9]{0,22}\\.?[0-9]{0,22}(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]{1,2}|e-[0-9]{1,2}|K|i|e)"
    ) {
        prop_assert_eq!(Quantity::parse(&text).map(|quantity| quantity.nanos()), naive(&text), "{}", text);
    }

    #[test]
    fn the_canonical_form_is_whole_and_has_the_largest_suffix(number in 1..i64::MAX / 1024, suffix in "(|m|k|M|Ki|Mi)") {
        let text = format!("{}{suffix}", number % 100_000_000);
        let quantity = Quantity::parse(&text).unwrap();
        let canonical = quantity.canonical();
        let digits: String = canonical.chars().take_while(char::is_ascii_digit).collect();
        prop_assert!(!canonical.contains('.'));
        prop_assert_eq!(naive(&canonical), naive(&text));
        if quantity.nanos() != 0 && !canonical.ends_with('i') {
            prop_assert!(!digits.ends_with("000"), "{} becomes {}", text, canonical);
        }
    }
}
