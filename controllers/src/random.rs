//! Names: random suffixes as generateName makes them, and the stable hash behind `pod-template-hash`.
//!
//! Both use Kubernetes' alphabet without vowels and look-alikes, so that no name spells a word.

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::sync::Arc;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest base of a generated name: 63 characters less the suffix.
const LONGEST_BASE: usize = 58;

/// The seeded source of all chance in one controller. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Random(Arc<Mutex<SmallRng>>);

impl Random {
    /// The generator of the component `name` in a cluster with this seed: components do not disturb one another.
    pub(crate) fn of(seed: u64, name: &str) -> Self {
        Random(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed ^ fnv1a_64(name.as_bytes())))))
    }

    /// `base` with five random characters behind it.
    pub(crate) fn name(&self, base: &str) -> String {
        let mut rng = self.0.lock();
        let suffix: String = (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
        format!("{}{suffix}", self::base(base))
    }
}

/// As much of `base` as a generated name begins with.
pub(crate) fn base(base: &str) -> &str {
    let end = base.char_indices().map(|(at, _)| at).nth(LONGEST_BASE).unwrap_or(base.len());
    &base[..end]
}

/// A short name for the content of `value`: equal values have equal hashes, in every run and on every machine.
/// `collisions` makes another one when the first is taken by something else.
pub(crate) fn content_hash(value: &impl Serialize, collisions: i32) -> String {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    if collisions > 0 {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let digits = fnv1a_32(&bytes).to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A 64-bit hash which is the same in every run: for ties that chance decides.
pub(crate) fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_names() {
        let (one, two) = (Random::of(7, "replicaset"), Random::of(7, "replicaset"));
        let name = one.name("web-");
        assert_eq!(name, two.name("web-"));
        assert_ne!(name, one.name("web-"));
        assert_ne!(name, Random::of(8, "replicaset").name("web-"));
        assert_eq!(name.len(), "web-".len() + 5);
        assert!(name["web-".len()..].bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn a_long_base_leaves_room_for_the_suffix() {
        assert_eq!(Random::of(7, "x").name(&"a".repeat(80)).len(), 63);
    }

    #[test]
    fn content_decides_the_hash_and_a_collision_changes_it() {
        assert_eq!(content_hash(&"a", 0), content_hash(&"a", 0));
        assert_ne!(content_hash(&"a", 0), content_hash(&"b", 0));
        assert_ne!(content_hash(&"a", 0), content_hash(&"a", 1));
    }
}
