//! Command-line options in the manner of `getopt_long`: clusters of short ones, long ones, and their values.

/// The options and operands of a command line.
#[derive(Debug, Default)]
pub(crate) struct Options {
    found: Vec<(&'static str, String)>,
    /// What is not an option.
    pub(crate) operands: Vec<String>,
}

/// Where options end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Options may stand behind operands, as with GNU and busybox tools.
    Permuted,
    /// The first operand ends them: what follows is somebody else's command line.
    OptionsFirst,
}

impl Options {
    /// Parses `args` (without the program's name) by `specification`: words such as `s|silent`, `o:|output:` or `|retry:`, where a
    /// colon means that a value follows. The name in [`Options::has`] and [`Options::value`] is the short one if there is one.
    ///
    /// # Errors
    /// The text that musl's `getopt` prints.
    pub(crate) fn parse(args: &[String], specification: &'static str, order: Order) -> Result<Options, String> {
        let mut options = Options::default();
        let mut rest = args.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                options.operands.extend(rest.cloned());
                break;
            } else if let Some(long) = argument.strip_prefix("--") {
                let (name, inline) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let Some((key, takes_value)) = find_long(specification, name) else {
                    return Err(format!("unrecognized option: {name}"));
                };
                let value = match (takes_value, inline) {
                    (true, Some(value)) => value,
                    (true, None) => {
                        rest.next().cloned().ok_or_else(|| format!("option requires an argument: {name}"))?
                    }
                    (false, None) => String::new(),
                    (false, Some(_)) => return Err(format!("option does not take an argument: {name}")),
                };
                options.found.push((key, value));
            } else if argument.len() > 1 && argument.starts_with('-') {
                let cluster = &argument[1..];
                for (at, letter) in cluster.char_indices() {
                    let Some((key, takes_value)) = find_short(specification, letter) else {
                        return Err(format!("unrecognized option: {letter}"));
                    };
                    if !takes_value {
                        options.found.push((key, String::new()));
                        continue;
                    }
                    let inline = &cluster[at + letter.len_utf8()..];
                    let value = if inline.is_empty() {
                        rest.next().cloned().ok_or_else(|| format!("option requires an argument: {letter}"))?
                    } else {
                        inline.to_owned()
                    };
                    options.found.push((key, value));
                    break;
                }
            } else {
                options.operands.push(argument.clone());
                if order == Order::OptionsFirst {
                    options.operands.extend(rest.cloned());
                    break;
                }
            }
        }
        Ok(options)
    }

    /// Whether the option was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.found.iter().any(|(key, _)| *key == name)
    }

    /// The last value given.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.found.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// All values given, in order.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.found.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// All options in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.found.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// The last value as a number.
    ///
    /// # Errors
    /// A message that names the value.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| format!("invalid number '{value}'")),
        }
    }
}

/// One word of the specification: short and long name without colons, and whether it takes a value.
fn entry(word: &'static str) -> (&'static str, &'static str, bool) {
    let (short, long) = word.split_once('|').unwrap_or((word, ""));
    (short.trim_end_matches(':'), long.trim_end_matches(':'), word.ends_with(':'))
}

fn find_short(specification: &'static str, letter: char) -> Option<(&'static str, bool)> {
    let mut bytes = [0; 4];
    let letter: &str = letter.encode_utf8(&mut bytes);
    specification
        .split_whitespace()
        .map(entry)
        .find(|(short, ..)| *short == letter)
        .map(|(short, _, value)| (short, value))
}

fn find_long(specification: &'static str, name: &str) -> Option<(&'static str, bool)> {
    let (short, long, value) =
        specification.split_whitespace().map(entry).find(|(_, long, _)| !long.is_empty() && *long == name)?;
    Some((if short.is_empty() { long } else { short }, value))
}

/// A duration as busybox's `sleep` and curl's `--max-time` read it: seconds with a fraction, or with a suffix `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Option<std::time::Duration> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1.0),
        (at, 'm') => (&text[..at], 60.0),
        (at, 'h') => (&text[..at], 3600.0),
        (at, 'd') => (&text[..at], 86400.0),
        _ => (text, 1.0),
    };
    if matches!(number, "inf" | "infinity") || text == "infinity" {
        return Some(std::time::Duration::from_secs(u64::from(u32::MAX)));
    }
    if !number.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let seconds = number.parse::<f64>().ok()? * unit;
    std::time::Duration::try_from_secs_f64(seconds.min(f64::from(u32::MAX))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, order: Order) -> Result<Options, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args, "s|silent o:|output: |retry: v", order)
    }

    #[test]
    fn short_options_cluster_and_the_rest_of_a_cluster_is_a_value() {
        let options = parse("-svofile x --retry=3 --output other", Order::Permuted).expect("a valid line");
        assert!(options.has("s") && options.has("v"));
        assert_eq!(options.value("o"), Some("other"));
        assert_eq!(options.value("retry"), Some("3"));
        assert_eq!(options.operands, ["x"]);
    }

    #[test]
    fn an_operand_ends_the_options_of_programs_that_run_others() {
        let options = parse("-s cmd -v", Order::OptionsFirst).expect("a valid line");
        assert!(!options.has("v"));
        assert_eq!(options.operands, ["cmd", "-v"]);
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert_eq!(parse("-sx", Order::Permuted).expect_err("unknown"), "unrecognized option: x");
        assert_eq!(parse("-o", Order::Permuted).expect_err("no value"), "option requires an argument: o");
    }

    #[test]
    fn durations_have_fractions_and_units() {
        let millis = |text| duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("0.25"), Some(250));
        assert_eq!(millis("2m"), Some(120_000));
        assert_eq!(millis("x"), None);
        assert_eq!(millis("-1"), None);
        assert_eq!(millis(""), None);
    }
}
