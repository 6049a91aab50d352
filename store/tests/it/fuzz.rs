//! The corpus of the fuzz targets as a plain test, and mutations of it: no decoder panics, whatever it is given.

use crate::support::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use store::fuzz;

/// Whole files as they are written: a segment, an archive; and the payload of the segment's first frame.
fn corpus() -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut files = vec![Vec::new(), vec![0; 100], vec![0xff; 100]];
    runtime.block_on(async {
        let OnDisk { store, dir } = OnDisk::new(OPTIONS);
        put(&store, "a", "1").await;
        txn(&store, [], [put_operation("a", "2"), put_operation("/b/é", vec![7; 300])]).await.unwrap();
        delete(&store, "a").await;
        files.push(store.archive().flat_map(Vec::from).collect());
        store.close().await;
        for segment in fs::read_dir(dir.path().join("log")).unwrap() {
            let mut bytes = fs::read(segment.unwrap().path()).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes.truncate(end + 64);
            // A segment's header and a frame's take 32 bytes each.
            files.push(bytes[64..].to_vec());
            files.push(bytes);
        }
    });
    files
}

fn all(bytes: &[u8]) {
    fuzz::segment(bytes);
    fuzz::transactions(bytes);
    fuzz::checkpoint(bytes);
    fuzz::archive(bytes);
}

#[test]
fn the_corpus_cut_at_any_byte_is_decoded_without_a_panic() {
    for file in corpus() {
        for end in 0..=file.len() {
            all(&file[..end]);
        }
    }
}

/// What is done to a file, in order.
#[derive(Clone, Debug)]
enum Mutation {
    Set(usize, u8),
    Number(usize, u64),
    Remove(usize, usize),
    Repeat(usize, usize),
    Insert(usize, Vec<u8>),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: usize, bytes: &Vec<u8>| at % (bytes.len() + 1);
        match self {
            Self::Set(at, byte) => {
                let at = place(*at, bytes);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Self::Number(at, number) => {
                let at = place(*at, bytes);
                if let Some(place) = bytes.get_mut(at..at + 8) {
                    place.copy_from_slice(&number.to_le_bytes());
                }
            }
            Self::Remove(at, length) => {
                let at = place(*at, bytes);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Self::Repeat(at, length) => {
                let at = place(*at, bytes);
                let part = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            Self::Insert(at, part) => {
                let at = place(*at, bytes);
                bytes.splice(at..at, part.iter().copied());
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Lengths, counts and revisions that overflow, underflow or ask for too much memory.
    let number = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX / 2), Just(1 << 40), any::<u64>()];
    let at = 0usize..2000;
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at.clone(), number).prop_map(|(at, number)| Mutation::Number(at, number)),
        (at.clone(), 1usize..40).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (at.clone(), 1usize..200).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (at, vec(any::<u8>(), 1..40)).prop_map(|(at, part)| Mutation::Insert(at, part)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_the_corpus_makes_a_decoder_panic(file in 0usize..6, mutations in vec(mutation(), 1..6)) {
        thread_local! {
            static CORPUS: Vec<Vec<u8>> = corpus();
        }
        CORPUS.with(|corpus| {
            let mut bytes = corpus[file % corpus.len()].clone();
            mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
            all(&bytes);
        });
    }
}
