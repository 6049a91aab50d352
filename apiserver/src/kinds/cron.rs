//! Whether a text is a cron schedule: five fields, or a descriptor such as `@daily`.
//!
//! Only the check; when a CronJob is next due is its controller's business.

const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// `Ok`, or why it is none.
pub(crate) fn check(schedule: &str) -> Result<(), String> {
    if let Some(descriptor) = schedule.strip_prefix('@') {
        return match descriptor {
            "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly" => Ok(()),
            _ if descriptor.strip_prefix("every ").is_some_and(is_duration) => Ok(()),
            _ => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(FIELDS).try_for_each(|(field, (first, last, names))| {
        field.split(',').try_for_each(|range| check_range(range, first, last, names))
    })
}

fn check_range(text: &str, first: u32, last: u32, names: &[&str]) -> Result<(), String> {
    let number = |part: &str| -> Result<u32, String> {
        let lower = part.to_ascii_lowercase();
        match names.iter().position(|name| *name == lower) {
            Some(index) => Ok(first + index as u32),
            None => part.parse().map_err(|why| format!("failed to parse int from {part}: {why}")),
        }
    };
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => (range, Some(number(step)?)),
        None => (text, None),
    };
    let (low, high) = match range.split_once('-') {
        _ if matches!(range, "*" | "?") => (first, last),
        Some((low, high)) => (number(low)?, number(high)?),
        None => {
            let low = number(range)?;
            (low, if step.is_some() { last } else { low })
        }
    };
    if step == Some(0) {
        Err(format!("step of range should be a positive number: {text}"))
    } else if low < first {
        Err(format!("beginning of range ({low}) below minimum ({first}): {text}"))
    } else if high > last {
        Err(format!("end of range ({high}) above maximum ({last}): {text}"))
    } else if low > high {
        Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"))
    } else {
        Ok(())
    }
}

// Go's form: `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits =
            rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.').len();
        let units = ["ns", "us", "ms", "h", "m", "s"];
        let Some(unit) = units.into_iter().find(|unit| rest[digits..].starts_with(unit)) else { return false };
        if digits == 0 {
            return false;
        }
        rest = &rest[digits + unit.len()..];
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_schedule_has_five_fields_within_their_bounds() {
        for good in ["* * * * *", "*/5 0-6,12 1 jan-mar MON", "0 0 ? * 0", "5/15 * * * *", "@daily", "@every 1h30m"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "expected exactly 5 fields, found 0: []"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("x * * * *", "failed to parse int from x: invalid digit found in string"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every x", "unrecognized descriptor: @every x"),
        ] {
            assert_eq!(check(bad), Err(why.to_owned()), "{bad}");
        }
    }
}
