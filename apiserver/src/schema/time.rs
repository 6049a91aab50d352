//! Canonical text of `metav1.Time`, `metav1.MicroTime` and `metav1.Duration`.

use jiff::Timestamp;

/// RFC 3339 in UTC with whole seconds, as `metav1.Time` is written.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 in UTC with six digits after the second, as `metav1.MicroTime` is written.
pub fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Reads RFC 3339 text; the error is in the words of Go's `time.Parse`.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    // RFC 3339 wants a date, `T`, a time with seconds and an offset; jiff alone would take more.
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20 && bytes[10] == b'T' && bytes[4] == b'-' && bytes[13] == b':' && bytes[16] == b':';
    let parsed = shaped.then(|| text.parse::<Timestamp>().ok()).flatten();
    parsed.ok_or_else(|| format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"))
}

/// Whether this is a Go duration such as `1h15m30.5s`.
pub(crate) fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if digits == 0 || rest[..digits] == *"." {
            return false;
        }
        rest = &rest[digits..];
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().find(|unit| {
            rest.strip_prefix(**unit)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| !c.is_alphabetic()))
        });
        let Some(unit) = unit else { return false };
        rest = &rest[unit.len()..];
    }
    true
}

/// The nanoseconds of a Go duration; `None` if it is none, or does not fit.
pub(crate) fn nanos(text: &str) -> Option<i64> {
    if !is_duration(text) {
        return None;
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut sum = 0i128;
    while !rest.is_empty() && rest != "0" {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let units =
            [("ns", 1), ("us", 1000), ("µs", 1000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000)];
        let mut units = units.into_iter().chain([("h", 3_600_000_000_000i128)]);
        let starts =
            |unit: &str| after.strip_prefix(unit).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphabetic()));
        let (unit, scale) = units.find(|(unit, _)| starts(unit))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        sum = sum.checked_add(whole.parse::<i128>().unwrap_or(0).checked_mul(scale)?)?;
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            sum += i128::from(digit.saturating_sub(b'0')) * place;
        }
        rest = &after[unit.len()..];
    }
    i64::try_from(sign * sum).ok()
}

/// A Go duration from nanoseconds, the way Go prints it.
pub(crate) fn duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |whole: u64, rest: u64, width: usize| {
        let digits = format!("{rest:0width$}");
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() { format!("{whole}") } else { format!("{whole}.{digits}") }
    };
    match n {
        0..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(n / 1_000, n % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(n / 1_000_000, n % 1_000_000, 6)),
        _ => {
            let whole = n / 1_000_000_000;
            let seconds = fraction(whole % 60, n % 1_000_000_000, 9);
            match (whole / 3600, whole / 60 % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_in_utc_with_their_precision() {
        let time = parse("2026-11-23T06:04:02.123456789+01:00").expect("a time");
        assert_eq!(seconds(time), "2026-11-23T05:04:02Z");
        assert_eq!(micros(time), "2026-11-23T05:04:02.123456Z");
        for wrong in ["", "yesterday", "2026-11-23", "2026-11-23 05:04:02Z", "2026-11-23T05:04Z", "2026-11-23T05:04:02"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for right in ["0", "1s", "1h15m30.5s", "-2m", "100ms", "10µs"] {
            assert!(is_duration(right), "{right}");
        }
        for wrong in ["", "1", "s", "1 s", "1x", ".s"] {
            assert!(!is_duration(wrong), "{wrong}");
        }
        assert_eq!(duration(90_500_000_000), "1m30.5s");
        assert_eq!(duration(1_500_000), "1.5ms");
        assert_eq!(duration(3_600_000_000_000), "1h0m0s");
    }

    proptest! {
        #[test]
        fn a_duration_comes_back_from_its_text(value in any::<i64>(), small in -5_000_000_000i64..5_000_000_000) {
            for value in [value, small] {
                prop_assert!(is_duration(&duration(value)), "{}", duration(value));
                prop_assert_eq!(nanos(&duration(value)), Some(value), "{}", duration(value));
            }
        }

        #[test]
        fn a_time_comes_back_from_its_text(micros_since in -60_000_000_000_000_000i64..200_000_000_000_000_000) {
            let time = Timestamp::from_microsecond(micros_since).unwrap();
            prop_assert_eq!(parse(&micros(time)), Ok(time));
            let whole = Timestamp::from_second(micros_since / 1_000_000).unwrap();
            prop_assert_eq!(parse(&seconds(whole)), Ok(whole), "{}", seconds(whole));
        }

        #[test]
        fn garbage_is_no_time_and_no_reason_to_panic(text in "[-+0-9a-zµ.:TZ ]{0,24}|\\PC*") {
            let _ = parse(&text);
            prop_assert_eq!(nanos(&text).is_some() || !is_duration(&text) || text.len() > 17, true, "{}", text);
        }
    }
}
