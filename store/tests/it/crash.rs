//! Crashes: this test binary starts itself as a writer, ends it in the middle, and looks at what is left.
//!
//! kill -9 proves that an acknowledged write does not live in the process alone. It cannot show what a loss of power
//! would, as the kernel keeps its page cache. That is shown by an ext4 file system which is shut down without writing
//! anything back; it needs Linux, root, a loop device, `mkfs.ext4` and `python3`. Where these are not, the test says on
//! standard error that it did not run.
//!
//! A run of the suite tries a few rounds. For many, with values of 1 byte to 1 MiB:
//! `STORE_TEST_KILLS=100 STORE_TEST_POWER_CUTS=100 cargo test -p store crash`; a number that is given has to be reached.

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

/// The value of write `number`: every byte and the length follow from it, and one of more than a byte begins with it.
fn value(number: u64) -> Vec<u8> {
    let length = match number % 50 {
        0 => (1 << 20) - 8,
        1..=5 => 40_000,
        6..=10 => return vec![number as u8],
        _ => (number * 131) % 4000,
    };
    let mut value = number.to_le_bytes().to_vec();
    value.extend((0..length).map(|byte| (byte * 31 + number) as u8));
    value
}

/// The write that made a value, if it says so.
fn number_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.get(..8)?.try_into().expect("8 bytes")))
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
                let acknowledged = format!("acknowledged {key} {number} {revision} {}\n", nanoseconds());
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
    /// Revisions of what was said too late to count.
    late: Vec<u64>,
}

impl Acknowledged {
    /// Runs a writer in `dir`, ends it after so many acknowledgements, and adds all it has said before `end` says that it
    /// was ended.
    fn write(&mut self, dir: &Path, after: usize, mut end: impl FnMut(&mut Child) -> u128) {
        let mut child = start_writer(dir).stderr(Stdio::null()).spawn().expect("the test binary runs");
        let mut said = Vec::new();
        let mut ended = u128::MAX;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        // What is in the pipe after the end has been acknowledged too.
        for line in lines.map_while(Result::ok).filter(|line| line.starts_with("acknowledged ")) {
            said.push(line);
            if said.len() == after {
                ended = end(&mut child);
            }
        }
        child.wait().expect("the child ends");
        assert!(said.len() >= after, "the writer has failed after {} writes", said.len());
        said.iter().for_each(|line| self.add(line, ended));
    }

    /// Adds an acknowledgement, unless it came too late. The last one may be cut short.
    fn add(&mut self, line: &str, ended: u128) {
        let fields: Vec<_> = line.split(' ').collect();
        let ["acknowledged", key, number, revision, at] = fields[..] else { return };
        let (Ok(number), Ok(revision), Ok(at)) = (number.parse(), revision.parse::<u64>(), at.parse::<u128>()) else {
            return;
        };
        if at < ended {
            let newest = self.writes.entry(key.to_owned()).or_default();
            *newest = (*newest).max((number, revision));
        } else {
            self.late.push(revision);
        }
    }

    /// Everything is there, and the store goes on.
    async fn verify(&mut self, dir: &Path, round: usize) {
        let store = EmbeddedStore::open(dir, CRASHING).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let highest = self.writes.values().map(|(_, revision)| *revision).max().unwrap_or_default();
        let found = store.revision().0;
        assert!(found >= highest, "round {round}: revision {highest} was acknowledged, but {found} is the newest");
        assert!(found > self.newest, "round {round}: nothing was written");
        let lost = self.late.drain(..).filter(|revision| *revision > found).count();
        if lost > 0 {
            say(&format!("round {round}: {lost} acknowledgements after the cut came to nothing"));
        }
        for (key, (number, revision)) in &self.writes {
            let kv = store.get(key).await.unwrap().unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            assert!(kv.mod_revision.0 >= *revision, "round {round}: {key} is old");
            // A later write may have become durable without having been acknowledged.
            let later = kv.mod_revision.0 > *revision;
            let found = number_of(&kv.value).filter(|found| later && found > number);
            let one_byte = later && kv.value.len() == 1;
            assert!(one_byte || kv.value == value(found.unwrap_or(*number)), "round {round}: {key} is damaged");
        }
        let newest = store.revision();
        let mut watch = store.watch("", Revision(newest.0 - 1));
        self.newest = put(&store, "after", round.to_string()).await;
        assert_eq!(self.newest, newest.0 + 1);
        for expected in [newest.0, self.newest] {
            let batch = next(&mut watch).await;
            assert!(batch.starts_with(&format!("{expected} ")), "round {round}: the history goes on");
        }
        store.close().await;
    }
}

/// Tells whoever runs the suite, past the harness, which would keep it for itself.
fn say(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").expect("standard error is open");
}

fn nanoseconds() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later than 1970").as_nanos()
}

/// kill -9. What had been said by then, and what is still in the pipe, has been acknowledged.
fn kill(child: &mut Child) -> u128 {
    child.kill().expect("it is a child of ours");
    u128::MAX
}

/// How many writes a round lets pass: few and many.
fn writes(round: usize) -> usize {
    1 + (round * 379) % 1000
}

/// How many rounds, if somebody has said so.
fn rounds(variable: &str) -> Option<usize> {
    let rounds = std::env::var(variable).ok()?;
    Some(rounds.parse().unwrap_or_else(|_| panic!("{variable}: invalid value {rounds:?}: must be a number")))
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds = rounds("STORE_TEST_KILLS").unwrap_or(3);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds {
        acknowledged.write(dir.path(), writes(round), kill);
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

#[cfg(unix)]
#[tokio::test]
async fn a_log_that_cannot_be_written_stops_the_store_with_the_reason_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    acknowledged.write(dir.path(), 30, kill);
    let stopped = |line: &str| line.contains("cannot write the log") && line.contains("File too large");
    // Files no longer than half a MiB (1 MiB in bash), and no signal for those who try: write number 0 is larger.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" --exact crash::writer --nocapture"]);
    let output = limited.arg(std::env::current_exe().unwrap()).env(DIRECTORY, dir.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.lines().any(stopped), "{stderr}");
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| acknowledged.add(line, u128::MAX));
    acknowledged.verify(dir.path(), 0).await;
}

/// An ext4 file system in a file, whose power can be cut.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// What is missing, if it cannot be had.
    fn new(dir: &Path) -> Result<Self, String> {
        let disk = Self { image: dir.join("image"), mount: dir.join("mount") };
        std::fs::create_dir(&disk.mount).map_err(|error| error.to_string())?;
        std::fs::File::create(&disk.image)
            .and_then(|file| file.set_len(512 << 20))
            .map_err(|error| error.to_string())?;
        succeed(Command::new("python3").arg("--version"))?;
        succeed(Command::new("mkfs.ext4").arg("-q").arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        succeed(Command::new("mount").args(["-o", "loop"]).args([&self.image, &self.mount])).map(drop)
    }

    /// Nothing that is not on the disk by now will ever be: EXT4_IOC_SHUTDOWN without flushing the journal. Says when.
    ///
    /// Where the power is really cut, nobody acknowledges anything afterwards. Here the writer goes on for a moment, and
    /// a sync that was under way may say that all is well although its journal has been aborted (jbd2 takes a
    /// transaction that it no longer knows for one that is committed). So what it says from then on does not count.
    fn cut_power(&self) -> Result<u128, String> {
        const SHUTDOWN: &str = "import fcntl, os, struct, sys, time
mount = os.open(sys.argv[1], os.O_RDONLY)
print(time.time_ns())
fcntl.ioctl(mount, 0x8004587d, struct.pack('I', 2))";
        let output = succeed(Command::new("python3").args(["-c", SHUTDOWN]).arg(&self.mount))?;
        output.trim().parse().map_err(|_| format!("the time is no number: {output:?}"))
    }

    fn unmount(&self) -> Result<(), String> {
        succeed(Command::new("umount").arg(&self.mount)).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted if the test has failed between two rounds.
        let _ = Command::new("umount").arg(&self.mount).stderr(Stdio::null()).status();
    }
}

fn succeed(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_loss_of_power() {
    const NAME: &str = "crash::what_was_acknowledged_survives_a_loss_of_power";
    let wanted = rounds("STORE_TEST_POWER_CUTS");
    let dir = tempfile::tempdir().unwrap();
    let disk = match Disk::new(dir.path()) {
        Ok(disk) => disk,
        Err(missing) if wanted.is_none() => {
            return say(&format!("{NAME}: NOT RUN: no ext4 file system can be mounted here: {missing}"));
        }
        Err(missing) => panic!("no ext4 file system can be mounted here: {missing}"),
    };
    let store = disk.mount.join("store");
    let mut acknowledged = Acknowledged::default();
    for round in 0..wanted.unwrap_or(3) {
        acknowledged.write(&store, writes(round), |child| {
            let cut = disk.cut_power().unwrap();
            child.kill().unwrap();
            cut
        });
        disk.unmount().unwrap();
        disk.mount().unwrap();
        acknowledged.verify(&store, round).await;
    }
}
