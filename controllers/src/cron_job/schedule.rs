//! Cron expressions: when next.
//!
//! Five fields (minute, hour, day of month, month, day of week) with lists, ranges, steps and names, and the `@` macros, as
//! Kubernetes takes them. As in every cron: if both days are restricted, either is enough.

use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::{Timestamp, ToSpan, tz::TimeZone};

/// The longest gap between two days that exist: a 29 February that is also skipped at the turn of a century.
const YEARS: i16 = 9;

/// A parsed expression. Bit n of a field: the value n is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    days_are_any: bool,
    weekdays_are_any: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// # Errors
    /// Which field is wrong, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expanded = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: {text:?}", fields.len()));
        };
        let is_any = |field: &str| field.starts_with('*') || field.starts_with('?');
        let weekday_bits = field(weekdays, 0, 7, &WEEKDAYS, 0)?;
        Ok(Schedule {
            minutes: field(minutes, 0, 59, &[], 0)?,
            hours: field(hours, 0, 23, &[], 0)?,
            days: field(days, 1, 31, &[], 0)?,
            months: field(months, 1, 12, &MONTHS, 1)?,
            // Sunday is 0 and 7.
            weekdays: weekday_bits | (weekday_bits >> 7 & 1),
            days_are_any: is_any(days),
            weekdays_are_any: is_any(weekdays),
        })
    }

    /// The first moment after `after`; nothing if there is none, as on 30 February.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = after.to_zoned(zone.clone()).datetime();
        let mut at = start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let last_year = start.year() + YEARS;
        while at.year() <= last_year {
            if self.months >> at.month() & 1 == 0 {
                let month = at.date().first_of_month().checked_add(1.month()).ok()?;
                at = month.at(0, 0, 0, 0);
            } else if !self.has_day(at) {
                at = at.date().checked_add(1.day()).ok()?.at(0, 0, 0, 0);
            } else if self.hours >> at.hour() & 1 == 0 {
                at = at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?;
            } else if self.minutes >> at.minute() & 1 == 0 {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                let found = at.to_zoned(zone.clone()).ok()?.timestamp();
                if found > after {
                    return Some(found);
                }
                at = at.checked_add(1.minute()).ok()?;
            }
        }
        None
    }

    fn has_day(&self, at: DateTime) -> bool {
        let day = self.days >> at.day() & 1 == 1;
        let weekday = self.weekdays >> at.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.days_are_any || self.weekdays_are_any { day && weekday } else { day || weekday }
    }
}

fn field(text: &str, least: u32, most: u32, names: &[&str], first_name: u32) -> Result<u64, String> {
    let number = |text: &str| -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let named = names.iter().position(|name| *name == lower).and_then(|at| u32::try_from(at).ok());
        let value = named.map(|at| at + first_name).or_else(|| text.parse().ok());
        value
            .filter(|value| (least..=most).contains(value))
            .ok_or_else(|| format!("{text:?} is not within {least}-{most}"))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, ""));
        let step: u32 = match step {
            "" if part.contains('/') => return Err(format!("step is missing in {part:?}")),
            "" => 1,
            step => step
                .parse()
                .ok()
                .filter(|step| *step > 0)
                .ok_or_else(|| format!("step of {part:?} must be a positive number"))?,
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (least, most),
            Some((first, last)) => (number(first)?, number(last)?),
            // `5/15`: from 5 to the end.
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(format!("beginning of range {range:?} is beyond its end"));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        for value in (first..=last).step_by(step) {
            bits |= 1 << value;
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three next times after Wednesday 2026-01-28 10:30:30.
    fn next(expression: &str) -> Vec<String> {
        let schedule = Schedule::parse(expression).expect("an expression");
        let mut at: Timestamp = "2026-01-28T10:30:30Z".parse().expect("a time");
        let mut times = vec![];
        while times.len() < 3
            && let Some(next) = schedule.next(at, &TimeZone::UTC)
        {
            at = next;
            times.push(at.strftime("%m-%d %H:%M").to_string());
        }
        times
    }

    #[test]
    fn expressions_mean_what_cron_says() {
        assert_eq!(next("* * * * *"), ["01-28 10:31", "01-28 10:32", "01-28 10:33"]);
        assert_eq!(next("*/15 * * * *"), ["01-28 10:45", "01-28 11:00", "01-28 11:15"]);
        assert_eq!(next("30 10 * * *"), ["01-29 10:30", "01-30 10:30", "01-31 10:30"]);
        assert_eq!(next("0 0 1 * *"), ["02-01 00:00", "03-01 00:00", "04-01 00:00"]);
        assert_eq!(next("0 9-17/4 * * mon-fri"), ["01-28 13:00", "01-28 17:00", "01-29 09:00"]);
        assert_eq!(next("0 0 * * 7"), ["02-01 00:00", "02-08 00:00", "02-15 00:00"]);
        assert_eq!(next("0 0 31 * *"), ["01-31 00:00", "03-31 00:00", "05-31 00:00"]);
        assert_eq!(next("@hourly"), ["01-28 11:00", "01-28 12:00", "01-28 13:00"]);
        assert_eq!(next("5/20 1,2 * FEB *"), ["02-01 01:05", "02-01 01:25", "02-01 01:45"]);
    }

    #[test]
    fn either_day_is_enough_when_both_are_restricted() {
        assert_eq!(next("0 0 30 * thu"), ["01-29 00:00", "01-30 00:00", "02-05 00:00"]);
    }

    #[test]
    fn leap_days_are_waited_for_and_impossible_days_are_not() {
        let leap = Schedule::parse("0 0 29 2 *").expect("an expression");
        let at: Timestamp = "2026-01-28T00:00:00Z".parse().expect("a time");
        assert_eq!(leap.next(at, &TimeZone::UTC).expect("a leap day").to_string(), "2028-02-29T00:00:00Z");
        assert_eq!(next("0 0 30 2 *"), [""; 0]);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for nonsense in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "*/ * * * *",
            "x * * * *",
            "* * * * 8",
        ] {
            assert!(Schedule::parse(nonsense).is_err(), "{nonsense}");
        }
        assert_eq!(Schedule::parse("61 * * * *"), Err("\"61\" is not within 0-59".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = Schedule::parse(&text);
        }
    }
}
