//! Which addresses names have been answered with: what the `domainNames` of policies select.
//!
//! The cluster's DNS tells of every answer before its asker gets it ([`Policy::answered`](crate::Policy::answered)). From then
//! until the answer's time to live has run out the address belongs to the name, to the moment; refreshed answers prolong that. A
//! flow that was let in then stays with the name for as long as it is open, as NPEP-133 asks (and Cilium does). As in Cilium,
//! what one pod has been told counts for all that a policy selects, so that replicas share a resolver's cache.
//!
//! Unlike the tables this is not swapped but written to: an answer only adds, and a look-up sees all of it or nothing. It is
//! bounded: beyond that, what policies in force do not name goes first, and of that what runs out first. What has run out stays
//! until then, for open flows and for explanations.

use crate::domain_name::{DomainName, NameIndex};
use arc_swap::ArcSwap;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses of names that are kept, 5 MB with usual names.
const MOST: usize = 16_384;
/// Names of one address that are kept: what a new flow to it may cost.
const MOST_OF_ONE: usize = 256;
/// Names that an explanation looks at, those of policies and the longest lasting first: every denied packet is explained.
const LOOKED_AT: usize = 1_024;
/// An answer that may not be remembered may still be used: not even a connection could be opened otherwise.
const SHORTEST: Duration = Duration::from_secs(1);

/// Which addresses names have, and had, by the answers of the cluster's DNS.
#[derive(Debug, Default)]
pub struct AnsweredNames {
    book: RwLock<Book>,
    /// The names of policies in force. Written under the book's lock.
    wanted: ArcSwap<NameIndex<()>>,
}

#[derive(Debug, Default)]
struct Book {
    by_address: BTreeMap<IpAddr, Vec<Stay>>,
    /// All of them in the order in which they go.
    order: BTreeSet<Turn>,
}

/// A name that an address has.
#[derive(Clone, Debug)]
struct Stay {
    name: Arc<str>,
    /// Since the first answer.
    from: Instant,
    /// Until the last one runs out. A flow that another rule let in between two answers may stay too; a new one may not.
    until: Instant,
    /// When it was last answered.
    told: Instant,
    is_wanted: bool,
}

/// Whether it is wanted, until when it lasts, and which it is.
type Turn = (bool, Instant, IpAddr, Arc<str>);

/// The names as one flow sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamesView<'t> {
    pub(crate) names: &'t AnsweredNames,
    /// When the flow was let in, if it has been.
    pub(crate) since: Option<Instant>,
}

impl Stay {
    fn turn(&self, address: IpAddr) -> Turn {
        (self.is_wanted, self.until, address, self.name.clone())
    }
}

impl AnsweredNames {
    /// Pods are about to be told that `name` (in lower case, without the dot at its end) has `address`, for as long as `ttl`.
    /// Says whether that is news for a policy in force.
    pub fn add(&self, name: &str, address: IpAddr, ttl: Duration) -> bool {
        let now = Instant::now();
        let until = now + ttl.max(SHORTEST);
        let mut book = self.book.write();
        let is_wanted = self.wanted.load().matching(name).next().is_some();
        let Book { by_address, order } = &mut *book;
        let stays = by_address.entry(address).or_default();
        if let Some(stay) = stays.iter_mut().find(|stay| *stay.name == *name) {
            let was_over = stay.until <= now;
            stay.told = now;
            if stay.until < until {
                order.remove(&stay.turn(address));
                stay.until = until;
                order.insert(stay.turn(address));
            }
            return is_wanted && was_over;
        }
        let stay = Stay { name: name.into(), from: now, until, told: now, is_wanted };
        let turn = stay.turn(address);
        order.insert(turn.clone());
        stays.push(stay);
        if stays.len() > MOST_OF_ONE {
            let first = stays.iter().map(|stay| stay.turn(address)).min();
            first.into_iter().for_each(|turn| book.remove(&turn));
        }
        book.tidy();
        is_wanted && book.order.contains(&turn)
    }

    /// All names with their addresses, those that have run out included, in the order of the addresses.
    pub fn addresses(&self) -> Vec<(Arc<str>, IpAddr)> {
        let book = self.book.read();
        let all = book.by_address.iter();
        all.flat_map(|(address, stays)| stays.iter().map(|stay| (stay.name.clone(), *address))).collect()
    }

    /// From now on these are the names of policies in force.
    pub(crate) fn want(&self, wanted: NameIndex<()>) {
        let mut book = self.book.write();
        let Book { by_address, order } = &mut *book;
        for (address, stays) in by_address {
            for stay in stays {
                let is_wanted = wanted.matching(&stay.name).next().is_some();
                if is_wanted != stay.is_wanted {
                    order.remove(&stay.turn(*address));
                    stay.is_wanted = is_wanted;
                    order.insert(stay.turn(*address));
                }
            }
        }
        self.wanted.store(Arc::new(wanted));
    }

    /// Whether policies in force may name something in a zone.
    pub(crate) fn wants(&self, zone: &str) -> bool {
        self.wanted.load().reaches(zone)
    }

    /// How far an address is from a name that it does not have, in words.
    pub(crate) fn problem(&self, wanted: &DomainName, address: IpAddr) -> String {
        let (book, now) = (self.book.read(), Instant::now());
        let own = book.by_address.get(&address).into_iter().flatten();
        if let Some(over) = own.filter(|stay| wanted.matches(&stay.name)).max_by_key(|stay| stay.until) {
            let (name, ago) = (&over.name, now.saturating_duration_since(over.until).as_secs());
            return format!(
                "`{name}` was answered with {address}, but that ran out {ago} s ago and nobody has asked again"
            );
        }
        let recent = book.order.iter().rev().take(LOOKED_AT).filter(|(.., name)| wanted.matches(name));
        let mut named: Vec<(IpAddr, &Stay)> = recent.filter_map(|turn| Some((turn.2, book.stay(turn)?))).collect();
        let Some((name, told)) = named.iter().map(|(_, stay)| (&stay.name, stay.told)).max_by_key(|(_, told)| *told)
        else {
            return format!("no pod has been answered `{wanted}` lately, so that it has no address");
        };
        let (name, told) = (name.clone(), told);
        named.retain(|(_, stay)| stay.name == name && stay.told == told);
        let mut addresses: Vec<IpAddr> = named.into_iter().map(|(address, _)| address).collect();
        addresses.sort_unstable();
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        format!("`{name}` was last answered with {}, and this is {address}", addresses.join(", "))
    }
}

impl Book {
    fn stay(&self, (_, _, address, name): &Turn) -> Option<&Stay> {
        self.by_address.get(address)?.iter().find(|stay| stay.name == *name)
    }

    fn remove(&mut self, turn: &Turn) {
        let (_, _, address, name) = turn;
        self.order.remove(turn);
        if let Some(stays) = self.by_address.get_mut(address) {
            stays.retain(|stay| stay.name != *name);
            if stays.is_empty() {
                self.by_address.remove(address);
            }
        }
    }

    /// Forgets what is too much.
    fn tidy(&mut self) {
        while self.order.len() > MOST
            && let Some(first) = self.order.first().cloned()
        {
            self.remove(&first);
        }
    }
}

impl NamesView<'_> {
    /// Shows every name that the address has, or had when the flow was let in.
    pub(crate) fn of(&self, address: IpAddr, mut show: impl FnMut(&str)) {
        let book = self.names.book.read();
        let Some(stays) = book.by_address.get(&address) else { return };
        let now = Instant::now();
        let is_within = |stay: &Stay, time: Instant| stay.from <= time && time < stay.until;
        let counts = |stay: &&Stay| is_within(stay, now) || self.since.is_some_and(|since| is_within(stay, since));
        stays.iter().filter(counts).for_each(|stay| show(&stay.name));
    }

    pub(crate) fn has(&self, wanted: &DomainName, address: IpAddr) -> bool {
        let mut found = false;
        self.of(address, |name| found |= wanted.matches(name));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    fn has(names: &AnsweredNames, name: &str, address: IpAddr) -> bool {
        let name = DomainName::compile(name).expect("a name");
        NamesView { names, since: None }.has(&name, address)
    }

    fn want(names: &AnsweredNames, rules: &[&str]) {
        let mut index = NameIndex::default();
        rules.iter().for_each(|rule| index.insert(&DomainName::compile(rule).expect("a name"), ()));
        names.want(index);
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_what_policies_name_stays_longest() {
        let names = AnsweredNames::default();
        want(&names, &["*.wanted.example"]);
        assert!(names.add("a.wanted.example", address(0), Duration::from_secs(30)));
        for number in 1..2 * MOST as u32 {
            assert!(!names.add(&format!("n{number}.other.example"), address(number), HOUR));
        }
        assert_eq!(names.book.read().order.len(), MOST);
        assert_eq!(names.book.read().by_address.len(), MOST);
        assert!(has(&names, "*.wanted.example", address(0)));
        for number in 0..2 * MOST as u32 {
            names.add(&format!("n{number}.wanted.example"), address(number), HOUR);
        }
        assert_eq!(names.book.read().order.len(), MOST);
        assert!(!has(&names, "a.wanted.example", address(0)), "it would have run out first");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_of_very_many_names_has_the_last_of_them() {
        let names = AnsweredNames::default();
        for number in 0..2 * MOST_OF_ONE {
            names.add(&format!("n{number}.example.com"), address(1), HOUR + Duration::from_secs(number as u64));
        }
        assert_eq!(names.book.read().order.len(), MOST_OF_ONE);
        assert!(!has(&names, "n0.example.com", address(1)));
        assert!(has(&names, &format!("n{}.example.com", 2 * MOST_OF_ONE - 1), address(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_news_once_until_it_runs_out() {
        let names = AnsweredNames::default();
        want(&names, &["a.example.com"]);
        assert!(names.add("a.example.com", address(1), Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!names.add("a.example.com", address(1), Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(has(&names, "a.example.com", address(1)), "prolonged");
        // A shorter answer takes nothing from whom has the longer one.
        assert!(!names.add("a.example.com", address(1), Duration::ZERO));
        assert!(has(&names, "a.example.com", address(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!has(&names, "a.example.com", address(1)));
        assert!(names.add("a.example.com", address(1), Duration::from_secs(10)));
        assert!(!names.add("b.example.com", address(1), HOUR), "no policy names it");
    }
}
