//! Mutations of a corpus, from a seed: what a fuzzer does without looking at the program.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Larger inputs are cut.
const MAX_LENGTH: usize = 16 << 10;

/// Bytes and words that mean something to one decoder or another.
const WORDS: [&[u8]; 46] = [
    b"\0",
    b"\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\x0f",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"9223372036854775808",
    b"1e400",
    b"1e-400",
    b"-0",
    b"\\u0000",
    b"\\ud800",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"<<: ",
    b"---\n",
    b"\n",
    b"\r\n",
    b"\t",
    b"%00",
    b"%2e%2e",
    b"/",
    b"..",
    b"!",
    b" in (",
    b" notin (",
    b"==",
    b"$patch",
    b"$retainKeys",
    b"$setElementOrder/",
    b"metadata",
    b"apiVersion",
    b"name",
    b"Ki",
    b"e",
    b"m",
];

/// An endless row of inputs, each made of one or two of the corpus; the same seed makes the same row.
pub struct Mutations<'a> {
    corpus: &'a [Vec<u8>],
    random: SmallRng,
}

impl<'a> Mutations<'a> {
    /// Of this corpus.
    ///
    /// # Panics
    /// If it is empty.
    pub fn new(corpus: &'a [Vec<u8>], seed: u64) -> Self {
        assert!(!corpus.is_empty(), "there is nothing to mutate");
        Mutations { corpus, random: SmallRng::seed_from_u64(seed) }
    }

    fn some(&mut self) -> &'a [u8] {
        self.corpus.choose(&mut self.random).map(Vec::as_slice).unwrap_or_default()
    }

    /// A part of a piece of the corpus.
    fn part(&mut self) -> &'a [u8] {
        let from = self.some();
        let (one, other) = (self.random.random_range(0..=from.len()), self.random.random_range(0..=from.len()));
        &from[one.min(other)..one.max(other)]
    }

    fn change(&mut self, data: &mut Vec<u8>) {
        let at = self.random.random_range(0..=data.len());
        let end = (at + self.random.random_range(1..=8)).min(data.len());
        match self.random.random_range(0..9) {
            0 if at < data.len() => data[at] ^= 1 << self.random.random_range(0..8),
            1 if at < data.len() => data[at] = self.random.random(),
            2 => drop(data.drain(at..end)),
            3 => {
                let repeated: Vec<u8> = data[at..end].repeat(self.random.random_range(1..=200));
                data.splice(at..at, repeated);
            }
            4 => data.truncate(at),
            5 => {
                let part = self.part();
                data.splice(at..at, part.iter().copied());
            }
            6 => {
                let part = self.part();
                data.splice(at..end, part.iter().copied());
            }
            _ => {
                let word = WORDS.choose(&mut self.random).copied().unwrap_or_default();
                data.splice(at..at, word.iter().copied());
            }
        }
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut data = self.some().to_vec();
        for _ in 0..self.random.random_range(1..=6) {
            self.change(&mut data);
        }
        data.truncate(MAX_LENGTH);
        Some(data)
    }
}
