//! JUnit's XML, as CI servers read it.

use super::Check;
use std::fmt::Write;

/// The report of all checks: a `testsuite` per file, in the order of `checks`.
pub(super) fn report(checks: &[Check]) -> String {
    let failures = |checks: &[Check]| checks.iter().filter(|check| !check.passed()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(out, "<testsuites tests=\"{}\" failures=\"{}\">", checks.len(), failures(checks));
    for suite in checks.chunk_by(|a, b| a.suite == b.suite) {
        let name = escape(&suite[0].suite);
        let _ =
            writeln!(out, "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\">", suite.len(), failures(suite));
        for check in suite {
            let case = escape(&format!("{} → {}: {}", check.from, check.to, check.expected.word()));
            if check.passed() {
                let _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"{case}\"/>");
            } else {
                let message = escape(&check.found());
                let reasons = escape(&check.reasons.join("\n"));
                let _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"{case}\">");
                let _ = writeln!(out, "      <failure message=\"{message}\">{reasons}</failure>\n    </testcase>");
            }
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 (2.2) has no way to write these.
            control if control.is_control() && !matches!(control, '\n' | '\t') => out.push('\u{FFFD}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::suite::Verdict;
    use super::*;

    #[test]
    fn what_means_something_in_xml_is_escaped() {
        let check = Check {
            suite: "a<b".into(),
            from: "web".into(),
            to: "db:80".into(),
            expected: Verdict::Denied,
            computed: Verdict::Allowed,
            measured: None,
            reasons: vec!["\"x\" & \u{1}".into()],
        };
        let xml = report(&[check]);
        assert!(xml.contains("<testsuite name=\"a&lt;b\" tests=\"1\" failures=\"1\">"), "{xml}");
        assert!(xml.contains(">&quot;x&quot; &amp; \u{FFFD}</failure>"), "{xml}");
    }
}
