//! Time and chance: wall-clock time that follows tokio's clock, and identifiers from one generator.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::time::Instant;

/// The wall clock: the time at the start and what tokio's clock has counted since, so that a paused clock holds here too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: jiff::Timestamp,
    start: Instant,
}

impl Clock {
    pub(crate) fn starting_at(wall: jiff::Timestamp) -> Self {
        Clock { wall, start: Instant::now() }
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.wall.checked_add(self.start.elapsed()).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// `metav1.Time`: RFC 3339 in whole seconds.
pub(crate) fn rfc3339(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The source of identifiers.
pub(crate) struct Identifiers(Mutex<StdRng>);

impl Identifiers {
    /// The same ones in each run with a seed, others in each run without.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Identifiers(Mutex::new(seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64)))
    }

    /// A random UUID (RFC 9562, version 4).
    pub(crate) fn uid(&self) -> String {
        let mut bytes = [0; 16];
        self.0.lock().fill_bytes(&mut bytes);
        let number = u128::from_be_bytes(bytes);
        let number = number & !(0xf << 76) | 4 << 76; // version
        let number = number & !(3 << 62) | 2 << 62; // variant
        let hex = format!("{number:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// A seed for other chances.
    pub(crate) fn number(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// What is appended to a `generateName`: no vowels, so that no words come out.
    pub(crate) fn suffix(&self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut random = self.0.lock();
        (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_version_4_uuids_and_follow_the_seed() {
        let (one, other) = (Identifiers::new(Some(7)), Identifiers::new(Some(7)));
        let uid = one.uid();
        assert_eq!(uid, other.uid());
        assert_ne!(uid, one.uid());
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"), "{uid}");
        assert_eq!(one.suffix().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn wall_time_follows_the_paused_clock() {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().expect("a timestamp"));
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        assert_eq!(rfc3339(clock.now()), "2026-01-01T00:01:30Z");
    }
}
