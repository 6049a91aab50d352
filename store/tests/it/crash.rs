//! Crashes: this test binary starts itself as a writer, ends it in the middle, and looks at what is left.
//!
//! kill -9 proves that an acknowledged write does not live in the process alone. It cannot show what a loss of power
//! would, as the kernel keeps its page cache. That is shown by an ext4 file system which is shut down without writing
//! anything back; it needs root, a loop device, `mkfs.ext4` and `python3`, so it runs where `STORE_TEST_POWER_CUTS`
//! says how often.

use crate::support::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{EmbeddedStore, Options, Retention, Revision, Store};

const DIRECTORY: &str = "STORE_TEST_WRITER_DIRECTORY";
/// Small, so that a round changes segments and makes checkpoints.
const CRASHING: Options = Options {
    segment_bytes: 256 << 10,
    checkpoint_bytes: 1 << 20,
    retention: Retention { bytes: 4 << 20, ..RETENTION },
    ring_bytes: 1 << 20,
};
const WRITERS: u64 = 4;
const KEYS: u64 = 10;

/// The value of write `number`: it begins with the number, and every byte and the length follow from it.
fn value(number: u64) -> Vec<u8> {
    let length = match number % 50 {
        0 => 1 << 20,
        1..=5 => 40_000,
        6..=10 => 0,
        _ => (number * 131) % 4000,
    };
    let mut value = number.to_le_bytes().to_vec();
    value.extend((0..length).map(|byte| (byte * 31 + number) as u8));
    value
}

/// Not a test: what the child does. It writes until it is ended, and says what has been acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let store = Arc::new(EmbeddedStore::open(dir, CRASHING).unwrap_or_else(|error| panic!("{error}")));
    let next = Arc::new(AtomicU64::new(store.revision().0 * 1000));
    let writers = (0..WRITERS).map(|writer| {
        let (store, next) = (store.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let key = format!("{writer}/{}", number % KEYS);
                let revision = put(&*store, &key, value(number)).await;
                let acknowledged = format!("acknowledged {key} {number} {revision}\n");
                std::io::stdout().lock().write_all(acknowledged.as_bytes()).unwrap();
            }
        })
    });
    // They end with the process, or with the disk.
    futures::future::join_all(writers).await;
}

fn start_writer(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test binary has a path"));
    command.args(["--exact", "crash::writer", "--nocapture"]).env(DIRECTORY, dir).stdout(Stdio::piped());
    command
}

/// What has been acknowledged over all rounds.
#[derive(Default)]
struct Acknowledged {
    /// Key → (number, revision) of the last write.
    writes: HashMap<String, (u64, u64)>,
    /// The newest revision that was seen.
    newest: u64,
}

impl Acknowledged {
    /// Runs a writer in `dir`, ends it after so many acknowledgements, and adds all it has said.
    fn write(&mut self, dir: &Path, after: usize, mut end: impl FnMut(&mut Child)) {
        let mut child = start_writer(dir).stderr(Stdio::null()).spawn().expect("the test binary runs");
        let mut count = 0;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        // What is in the pipe after the end has been acknowledged too; its last line may be cut short.
        for line in lines.map_while(Result::ok) {
            let fields: Vec<_> = line.split(' ').collect();
            let ["acknowledged", key, number, revision] = fields[..] else { continue };
            let (Ok(number), Ok(revision)) = (number.parse(), revision.parse()) else { continue };
            let newest = self.writes.entry(key.to_owned()).or_default();
            *newest = (*newest).max((number, revision));
            count += 1;
            if count == after {
                end(&mut child);
            }
        }
        child.wait().expect("the child ends");
        assert!(count >= after, "the writer has failed after {count} writes");
    }

    /// Everything is there, and the store goes on.
    async fn verify(&mut self, dir: &Path, round: usize) {
        let store = EmbeddedStore::open(dir, CRASHING).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let highest = self.writes.values().map(|(_, revision)| *revision).max().unwrap_or_default();
        assert!(store.revision().0 >= highest && highest > self.newest, "round {round}: revisions go on");
        for (key, (number, revision)) in &self.writes {
            let kv = store.get(key).await.unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            let found = u64::from_le_bytes(kv.value[..8].try_into().unwrap());
            // A later write may have become durable without having been acknowledged.
            assert!(found >= *number && kv.mod_revision.0 >= *revision, "round {round}: {key} is old");
            assert!(kv.value == value(found), "round {round}: {key} is damaged");
        }
        let newest = store.revision();
        let mut watch = store.watch("", Revision(newest.0 - 1));
        self.newest = put(&store, "after", round.to_string()).await;
        assert_eq!(self.newest, newest.0 + 1);
        assert_eq!(ready(&mut watch).len(), 2, "round {round}: the history goes on");
        store.close().await;
    }
}

/// How many writes a round lets pass: few and many.
fn writes(round: usize) -> usize {
    1 + (round * 379) % 1000
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds = std::env::var("STORE_TEST_KILLS").map_or(5, |rounds| rounds.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds {
        acknowledged.write(dir.path(), writes(round), |child| child.kill().unwrap());
        acknowledged.verify(dir.path(), round).await;
    }
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_holder() {
    let on_disk = OnDisk::new(CRASHING);
    let output = start_writer(on_disk.dir.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = format!("{} is in use by process {}", on_disk.dir.path().display(), std::process::id());
    assert!(!output.status.success() && stderr.contains(&expected), "{stderr}");
}

/// An ext4 file system in a file, whose power can be cut.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Self {
        let disk = Self { image: dir.join("image"), mount: dir.join("mount") };
        std::fs::create_dir(&disk.mount).unwrap();
        std::fs::File::create(&disk.image).unwrap().set_len(512 << 20).unwrap();
        succeed(Command::new("mkfs.ext4").arg("-q").arg(&disk.image));
        disk.mount();
        disk
    }

    fn mount(&self) {
        succeed(Command::new("mount").args(["-o", "loop"]).args([&self.image, &self.mount]));
    }

    /// Nothing that is not on the disk by now will ever be: EXT4_IOC_SHUTDOWN without flushing the journal.
    fn cut_power(&self) {
        const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        succeed(Command::new("python3").args(["-c", SHUTDOWN]).arg(&self.mount));
    }

    fn unmount(&self) {
        succeed(Command::new("umount").arg(&self.mount));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted if the test has failed between two rounds.
        let _ = Command::new("umount").arg(&self.mount).stderr(Stdio::null()).status();
    }
}

fn succeed(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_loss_of_power() {
    let Ok(rounds) = std::env::var("STORE_TEST_POWER_CUTS") else { return };
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    let store = disk.mount.join("store");
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds.parse().expect("a number") {
        acknowledged.write(&store, writes(round), |child| {
            disk.cut_power();
            child.kill().unwrap();
        });
        disk.unmount();
        disk.mount();
        acknowledged.verify(&store, round).await;
    }
}
