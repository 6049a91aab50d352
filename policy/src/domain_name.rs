//! The names of a rule's `domainNames`, compiled, and which of many match a name.

use crate::hash::Map;
use std::collections::HashSet;

/// `example.com`, or `*.example.com`: every name below it, by one or more labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DomainName {
    /// In lower case, without the dot at its end and without the `*.`.
    base: String,
    is_wildcard: bool,
}

impl DomainName {
    /// `None` for what is no name, or has an asterisk anywhere but in front.
    pub(crate) fn compile(text: &str) -> Option<DomainName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let (base, is_wildcard) = match text.strip_prefix("*.") {
            Some(base) => (base, true),
            None => (text, false),
        };
        let is_label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !label.is_empty() && label.bytes().all(plain)
        };
        let is_name = base.contains('.') && base.split('.').all(is_label);
        is_name.then(|| DomainName { base: base.to_ascii_lowercase(), is_wildcard })
    }

    /// Whether it means that name, which is in lower case.
    pub(crate) fn matches(&self, name: &str) -> bool {
        if self.is_wildcard { is_below(name, &self.base) } else { name == self.base }
    }

    /// Whether there can be a name that both mean.
    pub(crate) fn meets(&self, other: &DomainName) -> bool {
        match (self.is_wildcard, other.is_wildcard) {
            (true, true) => {
                self.base == other.base || is_below(&self.base, &other.base) || is_below(&other.base, &self.base)
            }
            (true, false) => self.matches(&other.base),
            (false, _) => other.matches(&self.base),
        }
    }
}

impl std::fmt::Display for DomainName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.is_wildcard { "*." } else { "" }, self.base)
    }
}

fn is_below(name: &str, base: &str) -> bool {
    name.strip_suffix(base).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
}

/// The names that a name is below: of `a.b.c` they are `b.c` and `c`.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[at + 1..])
}

/// Many names of rules, each with something: a look-up costs as much as the name has labels.
#[derive(Debug, Default)]
pub(crate) struct NameIndex<T> {
    exact: Map<String, Vec<T>>,
    below: Map<String, Vec<T>>,
    /// Every name of the two and what it is below.
    within: HashSet<String, foldhash::fast::FixedState>,
}

impl<T> NameIndex<T> {
    pub(crate) fn insert(&mut self, name: &DomainName, value: T) {
        let names = if name.is_wildcard { &mut self.below } else { &mut self.exact };
        names.entry(name.base.clone()).or_default().push(value);
        self.within.extend(std::iter::once(&*name.base).chain(parents(&name.base)).map(str::to_owned));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.within.is_empty()
    }

    /// What stands at those that match `name`, which is in lower case.
    pub(crate) fn matching(&self, name: &str) -> impl Iterator<Item = &T> {
        let exact = self.exact.get(name).into_iter().flatten();
        exact.chain(parents(name).filter_map(|parent| self.below.get(parent)).flatten())
    }

    /// Whether one of them may match a name of a zone.
    pub(crate) fn reaches(&self, zone: &str) -> bool {
        let around = || std::iter::once(zone).chain(parents(zone)).any(|parent| self.below.contains_key(parent));
        !self.is_empty() && (self.within.contains(zone) || around())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::compile(text).unwrap_or_else(|| panic!("{text} is a name"))
    }

    #[test]
    fn a_name_means_itself_and_a_wildcard_every_name_below_by_one_or_more_labels() {
        let cases = [
            ("kubernetes.io", "kubernetes.io", true),
            ("Kubernetes.IO.", "kubernetes.io", true),
            ("kubernetes.io", "www.kubernetes.io", false),
            ("kubernetes.io", "my-kubernetes.io", false),
            ("*.kubernetes.io", "www.kubernetes.io", true),
            ("*.kubernetes.io", "latest.blog.kubernetes.io", true),
            ("*.kubernetes.io", "kubernetes.io", false),
            ("*.kubernetes.io", "my-kubernetes.io", false),
            ("*.kubernetes.io", "wikipedia.org", false),
        ];
        for (rule, asked, matches) in cases {
            let mut index = NameIndex::default();
            index.insert(&name(rule), 7);
            assert_eq!(name(rule).matches(asked), matches, "{rule} {asked}");
            assert_eq!(index.matching(asked).collect::<Vec<_>>(), if matches { vec![&7] } else { vec![] });
        }
        for wrong in ["", ".", "*", "*.", "localhost", "a.*.b", "*a.b", "*.*.a.b", "a..b", "ä.example", "a b.c"] {
            assert_eq!(DomainName::compile(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_index_tells_whether_it_may_match_names_of_a_zone() {
        for (rule, reaches) in [
            ("example.com", false),
            ("*.example.com", false),
            ("web.default.svc.cluster.local", true),
            ("*.svc.cluster.local", true),
            ("*.cluster.local", true),
            ("*.my.cluster.local", true),
            ("*.cluster.localhost", false),
        ] {
            let mut index = NameIndex::default();
            index.insert(&name(rule), ());
            assert_eq!(index.reaches("cluster.local"), reaches, "{rule}");
        }
        assert!(!NameIndex::<()>::default().reaches("cluster.local"));
    }

    #[test]
    fn two_rules_meet_where_a_name_may_be_meant_by_both() {
        for (one, other, meet) in [
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "*.example.com", true),
            ("example.com", "*.example.com", false),
            ("*.example.com", "*.b.example.com", true),
            ("*.example.com", "*.example.org", false),
        ] {
            assert_eq!((name(one).meets(&name(other)), name(other).meets(&name(one))), (meet, meet), "{one} {other}");
        }
    }
}
