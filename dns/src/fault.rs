//! Faults that are injected into the answers to one pod: what its annotation [`FAULTS`] asks for.
//!
//! Rules, apart by `;` or line ends, are tried in their order. One that strikes ends the search, but for delays, which add up:
//!
//! ```text
//! delay=300ms; servfail share=0.2 names=*.example.com; nxdomain names=db.prod.svc.cluster.local types=A,AAAA; drop share=0.01
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | `delay=TIME`, `drop`, `servfail`, `nxdomain`, `refused` | what happens: a later answer (`250ms`, `2s`), none at all, or this one |
//! | `names=…` | patterns of full names, in which `*` stands for anything; all if not given |
//! | `types=…` | record types; all if not given |
//! | `share=…` | how many of those queries are struck, more than 0 and up to 1, by the seeded generator; all if not given |
//!
//! Pure; [`crate::front`] asks here once per query of a pod that has such rules.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use rand::Rng;
use std::str::FromStr;
use std::time::Duration;

/// The annotation of a pod that says which faults its DNS queries meet.
pub const FAULTS: &str = "net.coracle.dev/dns-faults";
/// The longest delay: clients have given up long before.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Rules of one pod.
const MOST_RULES: usize = 64;

/// Why an annotation cannot be read. Rules count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No rule at all.
    #[error("must have at least one rule, such as `servfail share=0.5 names=*.example.com`")]
    Empty,
    /// More than anybody writes.
    #[error("must have at most {MOST_RULES} rules, has {0}")]
    TooMany(usize),
    /// The rule's first word.
    #[error("rule {0}: {1:?} is no fault: must be `delay=TIME`, `drop`, `servfail`, `nxdomain` or `refused`")]
    Action(usize, String),
    /// The time of a delay.
    #[error("rule {0}: delay={1:?}: must be a time such as 250ms or 2s, from 1ms to 60s")]
    Delay(usize, String),
    /// A share.
    #[error("rule {0}: share={1:?}: must be a number greater than 0, up to 1")]
    Share(usize, String),
    /// A pattern of names.
    #[error("rule {0}: names={1:?}: must be patterns of domain names, apart by commas, such as *.example.com")]
    Names(usize, String),
    /// A record type.
    #[error("rule {0}: types={1:?}: must be record types, apart by commas, such as A,AAAA")]
    Types(usize, String),
    /// A word behind the first that is none of the known.
    #[error("rule {0}: {1:?} is not known: after the fault may stand `names=`, `types=` and `share=`, each once")]
    Word(usize, String),
}

/// Says whether the value of the annotation [`FAULTS`] can be read.
///
/// # Errors
/// It cannot; the error names the rule, the value and what is allowed.
pub fn check_faults(text: &str) -> Result<(), FaultError> {
    Faults::parse(text).map(drop)
}

/// The rules of one pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Faults(Vec<Rule>);

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    /// As it was written, with single spaces.
    text: String,
    action: Action,
    /// In lower case, without the last dot; none is all.
    names: Vec<String>,
    types: Vec<RecordType>,
    share: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Delay(Duration),
    End(End),
}

/// What a query comes to instead of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is said.
    Drop,
    /// This is said.
    Answer(ResponseCode),
}

/// What has struck a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Struck {
    pub(crate) delay: Duration,
    pub(crate) end: Option<End>,
    /// The rules that have, as they were written.
    pub(crate) by: Vec<String>,
}

impl Faults {
    /// Reads an annotation.
    pub(crate) fn parse(text: &str) -> Result<Faults, FaultError> {
        let texts = text.split([';', '\n']).map(str::trim).filter(|text| !text.is_empty());
        let rules = (1..).zip(texts).map(|(number, text)| Rule::parse(number, text));
        let rules = rules.collect::<Result<Vec<Rule>, FaultError>>()?;
        match rules.len() {
            0 => Err(FaultError::Empty),
            1..=MOST_RULES => Ok(Faults(rules)),
            count => Err(FaultError::TooMany(count)),
        }
    }

    /// What strikes this query; draws from `chance` for the rules that are about it and have a share.
    pub(crate) fn strike(&self, name: &Name, kind: RecordType, chance: &mut impl Rng) -> Struck {
        let name = plain(name);
        let mut struck = Struck::default();
        for rule in self.0.iter().filter(|rule| rule.is_about(&name, kind)) {
            if rule.share.is_some_and(|share| !chance.random_bool(share)) {
                continue;
            }
            struck.by.push(rule.text.clone());
            match rule.action {
                Action::Delay(delay) => struck.delay = (struck.delay + delay).min(LONGEST_DELAY),
                Action::End(end) => {
                    struck.end = Some(end);
                    break;
                }
            }
        }
        struck
    }

    /// Whether a rule could keep this query from its answer.
    pub(crate) fn may_end(&self, name: &Name, kind: RecordType) -> bool {
        let name = plain(name);
        self.0.iter().any(|rule| matches!(rule.action, Action::End(_)) && rule.is_about(&name, kind))
    }
}

impl Rule {
    fn parse(number: usize, text: &str) -> Result<Rule, FaultError> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let action = match first.split_once('=') {
            Some(("delay", time)) => {
                Action::Delay(duration(time).ok_or_else(|| FaultError::Delay(number, time.to_owned()))?)
            }
            None if first == "drop" => Action::End(End::Drop),
            None if first == "servfail" => Action::End(End::Answer(ResponseCode::ServFail)),
            None if first == "nxdomain" => Action::End(End::Answer(ResponseCode::NXDomain)),
            None if first == "refused" => Action::End(End::Answer(ResponseCode::Refused)),
            _ => return Err(FaultError::Action(number, first.to_owned())),
        };
        let (mut names, mut types, mut share) = (Vec::new(), Vec::new(), None);
        for word in words {
            let unknown = || FaultError::Word(number, word.to_owned());
            let (key, value) = word.split_once('=').ok_or_else(unknown)?;
            match key {
                "names" if names.is_empty() => {
                    let read = value.split(',').map(pattern).collect::<Option<_>>();
                    names = read.ok_or_else(|| FaultError::Names(number, value.to_owned()))?;
                }
                "types" if types.is_empty() => {
                    let read = value.split(',').map(|text| RecordType::from_str(&text.to_ascii_uppercase()).ok());
                    let read = read.collect::<Option<_>>();
                    types = read.ok_or_else(|| FaultError::Types(number, value.to_owned()))?;
                }
                "share" if share.is_none() => {
                    let read = value.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
                    share = Some(read.ok_or_else(|| FaultError::Share(number, value.to_owned()))?);
                }
                _ => return Err(unknown()),
            }
        }
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Rule { text, action, names, types, share })
    }

    fn is_about(&self, name: &str, kind: RecordType) -> bool {
        (self.types.is_empty() || self.types.contains(&kind))
            && (self.names.is_empty() || self.names.iter().any(|pattern| matches(pattern, name)))
    }
}

/// A name as patterns have it: lower case, without the last dot.
fn plain(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    text.truncate(text.trim_end_matches('.').len());
    text
}

fn pattern(text: &str) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*');
    let bare = text.strip_suffix('.').unwrap_or(text);
    (!bare.is_empty() && bare.bytes().all(good)).then(|| bare.to_ascii_lowercase())
}

fn duration(text: &str) -> Option<Duration> {
    let read = match text.strip_suffix("ms") {
        Some(number) => Duration::from_millis(number.parse().ok()?),
        None => Duration::from_secs(text.strip_suffix('s')?.parse().ok()?),
    };
    (!read.is_zero() && read <= LONGEST_DELAY).then_some(read)
}

/// Whether a name is as the pattern says. Each `*` takes as little as it can, and is widened when the rest does not match: time
/// is at most the product of both lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, read));
            at += 1;
        } else if pattern.get(at) == Some(&name[read]) {
            (at, read) = (at + 1, read + 1);
        } else if let Some((of, taken)) = star {
            star = Some((of, taken + 1));
            (at, read) = (of + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn struck(rules: &str, name: &str, kind: RecordType) -> Struck {
        let faults = Faults::parse(rules).expect("rules");
        faults.strike(&Name::from_ascii(name).expect("a name"), kind, &mut SmallRng::seed_from_u64(1))
    }

    #[test]
    fn the_first_rule_that_strikes_decides_and_delays_add_up() {
        let rules = "delay=200ms; delay=1s types=AAAA\nservfail names=*.example.com,web.*; nxdomain names=*.com; drop types=TXT";
        let servfail = Some(End::Answer(ResponseCode::ServFail));
        for (name, kind, delay, end) in [
            ("a.b.Example.COM.", RecordType::A, 200, servfail),
            ("example.com.", RecordType::AAAA, 1200, Some(End::Answer(ResponseCode::NXDomain))),
            ("web.default.svc.cluster.local.", RecordType::A, 200, servfail),
            ("web.", RecordType::TXT, 200, Some(End::Drop)),
            ("other.org.", RecordType::A, 200, None),
        ] {
            let struck = struck(rules, name, kind);
            assert_eq!((struck.delay.as_millis(), struck.end), (delay, end), "{name} {kind}");
        }
        assert_eq!(struck(rules, "other.org.", RecordType::A).by, ["delay=200ms"]);
    }

    #[test]
    fn a_pattern_is_about_the_whole_name_and_a_star_stands_for_anything() {
        for (pattern, name, is) in [
            ("example.com", "example.com", true),
            ("example.com", "www.example.com", false),
            ("*.example.com", "example.com", false),
            ("*example.com", "example.com", true),
            ("*", "", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("db.*.svc.*", "db.prod.svc.cluster.local", true),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }

    #[test]
    fn about_the_share_of_queries_is_struck_and_the_same_ones_by_the_same_seed() {
        let faults = Faults::parse("drop share=0.25").expect("rules");
        let name = Name::from_ascii("example.com.").expect("a name");
        let run = |seed| -> Vec<bool> {
            let mut chance = SmallRng::seed_from_u64(seed);
            (0..4000).map(|_| faults.strike(&name, RecordType::A, &mut chance).end.is_some()).collect()
        };
        let struck = run(7).iter().filter(|struck| **struck).count();
        assert!((850..1150).contains(&struck), "{struck} of 4000");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn what_cannot_be_read_is_told_by_rule_value_and_what_is_allowed() {
        for (text, error) in [
            (" ; \n", FaultError::Empty),
            ("drop; sevfail", FaultError::Action(2, "sevfail".into())),
            ("drop=1", FaultError::Action(1, "drop=1".into())),
            ("delay", FaultError::Action(1, "delay".into())),
            ("delay=2", FaultError::Delay(1, "2".into())),
            ("delay=0ms", FaultError::Delay(1, "0ms".into())),
            ("delay=61s", FaultError::Delay(1, "61s".into())),
            ("drop share=0", FaultError::Share(1, "0".into())),
            ("drop share=1.5", FaultError::Share(1, "1.5".into())),
            ("drop share=NaN", FaultError::Share(1, "NaN".into())),
            ("drop names=a,", FaultError::Names(1, "a,".into())),
            ("drop names=é.com", FaultError::Names(1, "é.com".into())),
            ("drop types=A,B", FaultError::Types(1, "A,B".into())),
            ("drop share=1 share=1", FaultError::Word(1, "share=1".into())),
            ("drop always", FaultError::Word(1, "always".into())),
        ] {
            assert_eq!(check_faults(text), Err(error), "{text}");
        }
        assert_eq!(check_faults(&"drop;".repeat(65)), Err(FaultError::TooMany(65)));
        let told = check_faults("delay=2h").expect_err("no time").to_string();
        assert_eq!(told, "rule 1: delay=\"2h\": must be a time such as 250ms or 2s, from 1ms to 60s");
    }
}
