//! The table that is printed, row by row as figures come.

/// The printed table; [`Table::begin`] has printed its head.
pub(crate) struct Table;

/// A target; whether more or less is better follows from its two values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) at_least: f64,
    pub(crate) aim: f64,
}

impl Table {
    pub(crate) fn begin() -> Table {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or("?").to_owned();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("{cores} cores, load {load} before the first figure\n");
        println!("{:<46}{:>14}{:>12}{:>10}   {:<8}beside it", "figure", "measured", "at least", "aim", "");
        Table
    }

    /// One figure with its target.
    pub(crate) fn row(&self, figure: &str, value: f64, unit: &str, target: Target, beside: &str) {
        let less = target.aim < target.at_least;
        let reaches = |bound: f64| if less { value <= bound } else { value >= bound };
        let verdict = match (reaches(target.aim), reaches(target.at_least)) {
            (true, _) => "aim",
            (_, true) => "ok",
            _ => "MISSED",
        };
        let number = |value: f64| format!("{} {unit}", short(value));
        println!(
            "{figure:<46}{:>14}{:>12}{:>10}   {verdict:<8}{beside}",
            number(value),
            number(target.at_least),
            number(target.aim)
        );
    }

    /// A figure nobody has set a target for.
    pub(crate) fn note(&self, figure: &str, value: f64, unit: &str, beside: &str) {
        println!("{figure:<46}{:>14}{:>12}{:>10}   {:<8}{beside}", format!("{} {unit}", short(value)), "", "", "");
    }

    /// Why figures are missing.
    pub(crate) fn remark(&self, text: &str) {
        println!("({text})");
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
