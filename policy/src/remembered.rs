//! What a set of rules remembers of the peers it has met: which of its rules select them, compiled to a map of ports.
//!
//! Identities are immutable, so that what is remembered is never wrong: it may be forgotten at any time, and is found anew then.
//! A set has a table in which each identity has one place, by its number, and who comes later takes the place of who was there.
//! Numbers are given one after the other, so few identities of a cluster share a place. A table grows as more are met, as long
//! as the tables and maps of all sets in the process together stay within [`MOST`].

use crate::hash::Map;
use crate::ports::PortMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all sets may remember together: a thousand policies have room for four thousand peers each.
const MOST: usize = 32 << 20;
/// Places of the first table of a set, and of the largest.
const FIRST: usize = 64;
/// A table with fewer places grows whenever two peers want the same, rather than let them push each other out.
const EAGER: usize = 512;
const LARGEST: usize = 1 << 14;
/// A place is the map's number below, and above what the place itself does not say of the identity's number, plus one.
const MAP_BITS: u32 = 12;
const MOST_MAPS: usize = 1 << MAP_BITS;
const LARGEST_TAG: u64 = (1 << (u32::BITS - MAP_BITS)) - 2;
/// Bytes of a map beside its ports and the numbers of its rules.
const PER_MAP: usize = 256;

/// What may be remembered together.
#[derive(Debug)]
pub(crate) struct Budget {
    held: AtomicUsize,
    most: usize,
}

static SHARED: Budget = Budget::new(MOST);

impl Budget {
    const fn new(most: usize) -> Budget {
        Budget { held: AtomicUsize::new(0), most }
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.most);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// The memory of one set.
#[derive(Debug)]
pub(crate) struct Remembered {
    budget: &'static Budget,
    /// Bytes that are taken of the budget.
    held: usize,
    /// A power of two of them, or none yet; 0 is vacant.
    places: Vec<u32>,
    used: usize,
    maps: Vec<PortMap>,
    /// Peers that meet the same rules share their map.
    by_rules: Map<Box<[u32]>, u32>,
}

impl Default for Remembered {
    fn default() -> Remembered {
        Remembered::within(&SHARED)
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl Remembered {
    fn within(budget: &'static Budget) -> Remembered {
        Remembered { budget, held: 0, places: Vec::new(), used: 0, maps: Vec::new(), by_rules: Map::default() }
    }

    /// The map of an identity, if it is remembered.
    pub(crate) fn get(&self, identity: u64) -> Option<&PortMap> {
        let place = *self.places.get(self.place(identity))?;
        let (tag, map) = (place >> MAP_BITS, place & (MOST_MAPS as u32 - 1));
        (u64::from(tag) == self.tag(identity)).then(|| &self.maps[map as usize])
    }

    /// Remembers the rules that select an identity; the map of them.
    pub(crate) fn put(&mut self, identity: u64, rules: Vec<u32>, compile: impl FnOnce(&[u32]) -> PortMap) -> &PortMap {
        let map = match self.by_rules.get(&*rules) {
            Some(map) => *map,
            None => {
                let map = compile(&rules);
                let size = PER_MAP + map.bytes() + size_of_val(&*rules);
                if self.maps.len() >= MOST_MAPS || !self.take(size) {
                    *self = Remembered::within(self.budget);
                    self.take(size);
                }
                self.maps.push(map);
                let map = self.maps.len() as u32 - 1;
                self.by_rules.insert(rules.into(), map);
                map
            }
        };
        self.make_room(identity);
        let (place, tag) = (self.place(identity), self.tag(identity));
        // Not even the largest table tells numbers beyond 2^34 apart: those are not remembered.
        if tag <= LARGEST_TAG + 1 {
            self.used += usize::from(self.places[place] == 0);
            self.places[place] = (tag as u32) << MAP_BITS | map;
        }
        &self.maps[map as usize]
    }

    fn take(&mut self, bytes: usize) -> bool {
        let taken = self.budget.take(bytes);
        self.held += if taken { bytes } else { 0 };
        taken
    }

    fn place(&self, identity: u64) -> usize {
        identity as usize & self.places.len().wrapping_sub(1)
    }

    fn tag(&self, identity: u64) -> u64 {
        (identity >> self.places.len().max(1).ilog2()) + 1
    }

    /// A larger table, if somebody else is at the identity's place and there are many already.
    fn make_room(&mut self, identity: u64) {
        if self.places.is_empty() {
            // So little that it is given in any case.
            self.places = vec![0; FIRST];
        }
        loop {
            let (place, tag) = (self.places[self.place(identity)], self.tag(identity));
            let is_taken = place != 0 && u64::from(place >> MAP_BITS) != tag;
            let is_full = is_taken && (self.places.len() < EAGER || self.used * 2 >= self.places.len());
            let larger = self.places.len() * 2;
            if !(is_full || tag > LARGEST_TAG + 1) || larger > LARGEST || !self.take(larger / 2 * size_of::<u32>()) {
                return;
            }
            let before = std::mem::replace(&mut self.places, vec![0; larger]);
            let bits = before.len().ilog2();
            for (at, place) in before.into_iter().enumerate().filter(|(_, place)| *place != 0) {
                let identity = (u64::from(place >> MAP_BITS) - 1) << bits | at as u64;
                let (to, tag) = (self.place(identity), self.tag(identity));
                self.places[to] = (tag as u32) << MAP_BITS | place & (MOST_MAPS as u32 - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::PortMatch;
    use netstack::Protocol;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn budget(most: usize) -> &'static Budget {
        Box::leak(Box::new(Budget::new(most)))
    }

    /// The rules are the identity's number in this base, so that a wrong answer shows.
    fn rules(identity: u64, kinds: u64) -> Vec<u32> {
        vec![(identity % kinds) as u32]
    }

    fn compile(rules: &[u32]) -> PortMap {
        PortMap::compile(rules.iter().map(|rule| (*rule, &[PortMatch::Range(Protocol::Tcp, 0, 1)][..])))
    }

    fn first(map: &PortMap) -> Option<u32> {
        map.first(Protocol::Tcp, 1, &[])
    }

    #[test]
    fn what_is_remembered_is_right_whatever_is_forgotten_and_stays_within_the_budget() {
        for (seed, most, kinds, least_hits) in [
            (1, 1 << 20, 10, 20_000),
            (2, 2_000, 10, 0),
            (3, 1 << 20, 10_000, 5_000),
            (4, 100_000, 10_000, 1_000),
            (5, 0, 7, 0),
        ] {
            let (budget, mut dice) = (budget(most), SmallRng::seed_from_u64(seed));
            let mut memory = Remembered::within(budget);
            let mut hits = 0;
            for round in 0..60_000u64 {
                // Some come again and again, among ever newer ones; a few numbers are far away.
                let identity = match dice.random_range(0..8) {
                    0 => 1 + round * 1_000_003,
                    1..4 => 1 + round,
                    _ => 1 + dice.random_range(0..500),
                };
                let wanted = Some((identity % kinds) as u32);
                match memory.get(identity) {
                    Some(map) => {
                        hits += 1;
                        assert_eq!(first(map), wanted, "seed {seed}, identity {identity}");
                    }
                    None => assert_eq!(first(memory.put(identity, rules(identity, kinds), compile)), wanted),
                }
                assert!(budget.held.load(Ordering::Relaxed) <= most);
                assert!(memory.places.len() <= LARGEST && memory.maps.len() <= MOST_MAPS);
            }
            assert!(hits >= least_hits, "seed {seed}: {hits} hits");
            drop(memory);
            assert_eq!(budget.held.load(Ordering::Relaxed), 0, "seed {seed}");
        }
    }

    #[test]
    fn identities_whose_numbers_follow_one_another_do_not_push_each_other_out() {
        let mut memory = Remembered::within(budget(1 << 20));
        for identity in 1..=5_000 {
            memory.put(identity, rules(identity, 10), compile);
        }
        assert!((1..=5_000).all(|identity| memory.get(identity).and_then(first) == Some((identity % 10) as u32)));
        assert_eq!(memory.places.len(), 8_192);
    }
}
