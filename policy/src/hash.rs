//! A fast hash for keys that the cluster itself hands out, addresses and numbers of identities and rules: nobody outside
//! can choose them so that they collide.

use std::hash::{BuildHasher, Hasher};

/// A table by such keys.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, Folded>;

/// A persistent table by such keys.
pub(crate) type PersistentMap<K, V> = imbl::GenericHashMap<K, V, Folded, imbl::shared_ptr::DefaultSharedPtr>;

/// Builds [`Folding`] hashers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Folded;

impl BuildHasher for Folded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding(0x9e37_79b9_7f4a_7c15)
    }
}

/// A 64×64→128-bit multiplication for every word, folded in half.
pub(crate) struct Folding(u64);

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
