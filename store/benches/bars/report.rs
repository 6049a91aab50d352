//! The table: ours, etcd's, the ratio, the bar, and whether it was cleared.

use std::io::{self, Write};

/// Lines on standard output.
pub(crate) struct Report {
    out: io::Stdout,
}

impl Report {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { out: io::stdout() }
    }

    /// What follows.
    pub(crate) fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        writeln!(self.out, "{:<52} {:>10} {:>10} {:>7}  bar", "", "store", "etcd", "ratio")
    }

    /// More is better: at least `bar` times etcd's.
    pub(crate) fn at_least(&mut self, name: &str, ours: f64, etcd: f64, bar: f64) -> io::Result<()> {
        let ratio = ours / etcd;
        self.line(name, ours, Some(etcd), &format!("at least {bar:.1}× {}", verdict(ratio >= bar)))
    }

    /// Less is better: at most `bar` times etcd's.
    pub(crate) fn no_more(&mut self, name: &str, ours: f64, etcd: f64, bar: Option<f64>) -> io::Result<()> {
        let ratio = ours / etcd;
        let bar = bar.map(|bar| format!("at most {bar:.2}× {}", verdict(ratio <= bar))).unwrap_or_default();
        self.line(name, ours, Some(etcd), &bar)
    }

    /// Less is better: below `bar`, whatever etcd's is.
    pub(crate) fn below(&mut self, name: &str, ours: f64, etcd: Option<f64>, bar: f64) -> io::Result<()> {
        self.line(name, ours, etcd, &format!("below {bar:.0} {}", verdict(ours < bar)))
    }

    /// A figure to read the others by.
    pub(crate) fn yardstick(&mut self, name: &str, figure: f64) -> io::Result<()> {
        self.line(name, figure, None, "")
    }

    fn line(&mut self, name: &str, ours: f64, etcd: Option<f64>, bar: &str) -> io::Result<()> {
        let ratio = etcd.map(|etcd| format!("{:.2}", ours / etcd)).unwrap_or_default();
        let etcd = etcd.map(figure).unwrap_or_default();
        writeln!(self.out, "{name:<52} {:>10} {etcd:>10} {ratio:>7}  {bar}", figure(ours))?;
        self.out.flush()
    }
}

fn figure(figure: f64) -> String {
    if figure.abs() >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

fn verdict(cleared: bool) -> &'static str {
    if cleared { "✓" } else { "MISSED" }
}
