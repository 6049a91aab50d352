//! Search lists: the names that a stub resolver makes of one that was looked up, and which of its queries belong together.
//!
//! Follows resolv.conf(5) as glibc does it. A server sees full names only. That `example.com.default.svc.cluster.local` was the first
//! try of a look-up of `example.com` follows from the asking pod's search list; a name that was typed in full looks the same.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Largest `ndots`, as in glibc.
const MAX_NDOTS: usize = 15;
/// How long a look-up may be silent and still go on: a stub resolver waits 5 s for an answer and asks twice.
const SILENCE: Duration = Duration::from_secs(12);
/// Askers whose look-ups are remembered, and look-ups of each.
const MOST_ASKERS: usize = 1024;
const MOST_LOOKUPS: usize = 16;

/// What a pod's resolv.conf says about names that are not full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchPath {
    pub(crate) domains: Vec<Name>,
    ndots: usize,
}

impl SearchPath {
    /// Reads a resolv.conf(5): the last `search` line and `ndots`.
    pub(crate) fn of(resolv_conf: &str) -> SearchPath {
        let mut path = SearchPath { domains: Vec::new(), ndots: 1 };
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("search") => path.domains = words.filter_map(domain).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                    path.ndots = ndots.map_or(path.ndots, |ndots: usize| ndots.min(MAX_NDOTS));
                }
                _ => {}
            }
        }
        path
    }

    /// What was looked up, if `name` is what the first domain of the list makes of it.
    pub(crate) fn base(&self, name: &Name) -> Option<Name> {
        let first = self.domains.first().filter(|first| first.zone_of(name))?;
        let labels = usize::from(name.num_labels()).checked_sub(usize::from(first.num_labels()))?;
        let mut base = Name::from_labels(name.iter().take(labels)).ok()?;
        base.set_fqdn(true);
        (labels > 0).then_some(base)
    }

    /// The names that the list makes of one, in its order; what would be too long is left out.
    pub(crate) fn searched(&self, base: &Name) -> impl Iterator<Item = Name> {
        self.domains.iter().filter_map(move |domain| {
            let mut relative = base.clone();
            relative.set_fqdn(false);
            relative.append_domain(domain).ok()
        })
    }

    /// All names that are asked for in turn in the look-up to which `name` is the first question, and what was looked up.
    fn walk(&self, name: &Name) -> (Name, Vec<Name>) {
        let is_short = |base: &Name| usize::from(base.num_labels()) <= self.ndots;
        if let Some(base) = self.base(name).filter(is_short) {
            let names = self.searched(&base).chain([base.clone()]).collect();
            return (base, names);
        }
        let as_is = std::iter::once(name.clone());
        // A name with fewer dots is asked as it is first only if it ends in a dot, and then nothing follows.
        let names = if is_short(name) { as_is.collect() } else { as_is.chain(self.searched(name)).collect() };
        (name.clone(), names)
    }
}

fn domain(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok().filter(|name| !name.is_root())?;
    name.set_fqdn(true);
    Some(name)
}

/// A query's place in a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupStep {
    /// The same for all queries of one look-up; counts from 1.
    pub lookup: u64,
    /// What was looked up, without the dot at its end.
    pub name: String,
    /// Which of the names that may be asked for this one is, from 1.
    pub step: usize,
    /// How many there are.
    pub steps: usize,
    /// Queries of this look-up so far, before this one, that found no such name.
    pub in_vain: u32,
}

struct Lookup {
    number: u64,
    base: Name,
    names: Vec<Name>,
    at: usize,
    /// What has been answered at the step it is at.
    answered: Vec<RecordType>,
    /// What has failed there, and may be asked once more.
    failed: Vec<RecordType>,
    in_vain: u32,
    last: Instant,
}

/// The look-ups that may still go on, of all askers.
#[derive(Default)]
pub(crate) struct Lookups {
    askers: HashMap<IpAddr, VecDeque<Lookup>>,
    /// Those askers in the order of their first query.
    order: VecDeque<IpAddr>,
    last: u64,
}

impl std::fmt::Debug for Lookups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lookups of {} askers", self.askers.len())
    }
}

impl Lookups {
    /// Finds the place of a query that has just come.
    pub(crate) fn place(
        &mut self,
        (asker, path): (IpAddr, &SearchPath),
        (name, kind): (&Name, RecordType),
        now: Instant,
    ) -> LookupStep {
        if !self.askers.contains_key(&asker) {
            if self.order.len() >= MOST_ASKERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.askers.remove(&oldest);
            }
            self.order.push_back(asker);
        }
        let known = self.askers.entry(asker).or_default();
        known.retain(|lookup| now.saturating_duration_since(lookup.last) < SILENCE);
        let going_on = known.iter_mut().rev().find_map(|lookup| {
            let at = lookup.names.iter().position(|known| known == name)?;
            // Whoever has been answered and asks the same again looks it up again.
            let goes_on = at > lookup.at || at == lookup.at && !lookup.answered.contains(&kind);
            goes_on.then_some((lookup, at))
        });
        let lookup = match going_on {
            Some((lookup, at)) => {
                if at > lookup.at {
                    lookup.answered.clear();
                    lookup.failed.clear();
                    lookup.at = at;
                }
                lookup.last = now;
                lookup
            }
            None => {
                if known.len() >= MOST_LOOKUPS {
                    known.pop_front();
                }
                self.last += 1;
                let (base, names) = path.walk(name);
                let (answered, failed) = (Vec::new(), Vec::new());
                known.push_back(Lookup {
                    number: self.last,
                    base,
                    names,
                    at: 0,
                    answered,
                    failed,
                    in_vain: 0,
                    last: now,
                });
                known.back_mut().expect("one was just put there")
            }
        };
        LookupStep {
            lookup: lookup.number,
            name: lookup.base.to_ascii().trim_end_matches('.').to_owned(),
            step: lookup.at + 1,
            steps: lookup.names.len(),
            in_vain: lookup.in_vain,
        }
    }

    /// A query has been answered with this, or not at all. How many of its look-up were in vain before it.
    pub(crate) fn answered(
        &mut self,
        asker: IpAddr,
        step: &LookupStep,
        kind: RecordType,
        code: Option<ResponseCode>,
    ) -> u32 {
        let lookups = self.askers.get_mut(&asker).into_iter().flatten();
        let Some(lookup) = lookups.into_iter().find(|lookup| lookup.number == step.lookup) else { return step.in_vain };
        let before = lookup.in_vain;
        lookup.in_vain += u32::from(code == Some(ResponseCode::NXDomain));
        if lookup.at + 1 == step.step {
            let is_answer = matches!(code, Some(ResponseCode::NoError | ResponseCode::NXDomain));
            // A stub resolver asks twice (`attempts:2`) before it gives up.
            let known =
                if is_answer || lookup.failed.contains(&kind) { &mut lookup.answered } else { &mut lookup.failed };
            known.push(kind);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(ndots: usize) -> SearchPath {
        SearchPath::of(&format!(
            "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:{ndots}\n"
        ))
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    /// Queries of one pod in turn, each answered with "no such name" but those of `found`: the place of each.
    fn places(path: &SearchPath, queries: &[(&str, RecordType)], found: &str) -> Vec<String> {
        let (mut lookups, asker) = (Lookups::default(), IpAddr::from([10, 244, 1, 2]));
        let place = |(text, kind): &(&str, RecordType)| {
            let name = name(text);
            let step = lookups.place((asker, path), (&name, *kind), Instant::now());
            let code = match *text {
                text if text == found => ResponseCode::NoError,
                text if text.starts_with("broken.") => ResponseCode::ServFail,
                _ => ResponseCode::NXDomain,
            };
            let before = lookups.answered(asker, &step, *kind, Some(code));
            format!("{} {} {}/{} {before}", step.lookup, step.name, step.step, step.steps)
        };
        queries.iter().map(place).collect()
    }

    #[test]
    fn all_names_that_the_search_list_makes_of_one_belong_to_one_lookup() {
        let steps =
            ["example.com.default.svc.cluster.local.", "example.com.svc.cluster.local.", "example.com.cluster.local."];
        let all: Vec<(&str, RecordType)> = steps
            .into_iter()
            .chain(["example.com."])
            .flat_map(|step| [(step, RecordType::A), (step, RecordType::AAAA)])
            .collect();
        let told = places(&path(5), &all, "example.com.");
        let expected: Vec<String> = (0..8).map(|n| format!("1 example.com {}/4 {}", n / 2 + 1, n.min(6))).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_name_with_enough_dots_is_looked_up_as_it_is_first() {
        let queries = [("example.com.", RecordType::A), ("example.com.default.svc.cluster.local.", RecordType::A)];
        assert_eq!(places(&path(1), &queries, ""), ["1 example.com 1/4 0", "1 example.com 2/4 1"]);
    }

    #[test]
    fn a_full_name_is_a_lookup_of_one_step() {
        assert_eq!(places(&path(5), &[("example.com.", RecordType::A)], ""), ["1 example.com 1/1 0"]);
    }

    #[test]
    fn the_same_question_after_its_answer_begins_another_lookup() {
        let web = "web.default.svc.cluster.local.";
        let queries = [(web, RecordType::A), (web, RecordType::AAAA), (web, RecordType::A), (web, RecordType::AAAA)];
        assert_eq!(places(&path(5), &queries, web), ["1 web 1/4 0", "1 web 1/4 0", "2 web 1/4 0", "2 web 1/4 0"]);
    }

    #[test]
    fn a_question_that_failed_is_asked_once_more_in_the_same_lookup() {
        let queries = [("broken.example.", RecordType::A); 3];
        assert_eq!(
            places(&path(5), &queries, ""),
            ["1 broken.example 1/1 0", "1 broken.example 1/1 0", "2 broken.example 1/1 0"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_was_silent_for_long_does_not_go_on() {
        let (mut lookups, path, asker) = (Lookups::default(), path(5), IpAddr::from([10, 244, 1, 2]));
        let mut number =
            |text: &str| lookups.place((asker, &path), (&name(text), RecordType::A), Instant::now()).lookup;
        assert_eq!(number("a.default.svc.cluster.local."), 1);
        tokio::time::advance(SILENCE - Duration::from_secs(1)).await;
        assert_eq!(number("a.svc.cluster.local."), 1);
        tokio::time::advance(SILENCE).await;
        assert_eq!(number("a.cluster.local."), 2);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut lookups, path) = (Lookups::default(), path(5));
        for asker in 0..2000_u32 {
            for number in 0..20 {
                let name = name(&format!("n{number}.default.svc.cluster.local."));
                lookups.place((IpAddr::from(asker.to_be_bytes()), &path), (&name, RecordType::A), Instant::now());
            }
        }
        assert_eq!((lookups.askers.len(), lookups.order.len()), (MOST_ASKERS, MOST_ASKERS));
        assert!(lookups.askers.values().all(|known| known.len() == MOST_LOOKUPS));
    }
}
