//! The in-memory file tree of a virtual container: images' files, mounted volumes, and what programs write.

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Largest tree in bytes; writes beyond it fail with "No space left on device".
pub const CAPACITY: usize = 256 << 20;

/// A file tree with other trees mounted in it. Cheap to clone: all clones are one tree.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tree: RwLock<Tree>,
    mounts: RwLock<BTreeMap<String, Mount>>,
}

#[derive(Clone, Debug)]
struct Mount {
    files: Files,
    /// The directory of `files` that is mounted.
    sub_path: String,
    read_only: bool,
}

#[derive(Debug, Default)]
struct Tree {
    /// Absolute, normalised path to entry; directories exist implicitly when something is below them, or as entries.
    entries: BTreeMap<String, Entry>,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Entry {
    Directory,
    File { content: Bytes, mode: u32, read_only: bool },
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file of this many bytes, with these permission bits.
    File {
        /// Length in bytes.
        length: usize,
        /// Permission bits such as 0o644.
        mode: u32,
    },
}

/// `path` seen from `cwd`: absolute, without `.`, `..` and double slashes.
pub fn resolve(cwd: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{cwd}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Files {
    /// An empty tree.
    pub fn new() -> Self {
        Files::default()
    }

    /// Mounts the directory `sub_path` of another tree at `path`: a volume shared between containers.
    pub fn mount_tree(&self, path: &str, files: Files, sub_path: &str, read_only: bool) {
        let mount = Mount { files, sub_path: resolve("/", sub_path), read_only };
        self.0.mounts.write().insert(resolve("/", path), mount);
    }

    /// The tree that a path belongs to, the path inside it, and whether programs may not write there.
    fn locate(&self, path: &str) -> (Files, String, bool) {
        let path = resolve("/", path);
        let mounts = self.0.mounts.read();
        let mount = mounts
            .iter()
            .filter(|(point, _)| path == **point || is_below(&path, point))
            .max_by_key(|(point, _)| point.len());
        match mount {
            None => (self.clone(), path, false),
            Some((point, mount)) => {
                let inside = resolve(&mount.sub_path, path[point.len()..].trim_start_matches('/'));
                let (files, inside, read_only) = mount.files.locate(&inside);
                (files, inside, read_only || mount.read_only)
            }
        }
    }

    /// What stands at this absolute path.
    pub fn kind(&self, path: &str) -> Option<Kind> {
        let whole = resolve("/", path);
        let (files, path, _) = self.locate(&whole);
        let tree = files.0.tree.read();
        match tree.entries.get(&path) {
            Some(Entry::File { content, mode, .. }) => Some(Kind::File { length: content.len(), mode: *mode }),
            Some(Entry::Directory) => Some(Kind::Directory),
            None if path == "/" || tree.has_children(&path) => Some(Kind::Directory),
            None => {
                let mounts = self.0.mounts.read();
                mounts.keys().any(|point| *point == whole || is_below(point, &whole)).then_some(Kind::Directory)
            }
        }
    }

    /// A file's content.
    pub fn read(&self, path: &str) -> io::Result<Bytes> {
        let (files, inside, _) = self.locate(path);
        match files.0.tree.read().entries.get(&inside) {
            Some(Entry::File { content, .. }) => return Ok(content.clone()),
            Some(Entry::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            None => {}
        }
        match self.kind(path) {
            Some(_) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Creates or replaces a file; its directories are made.
    pub fn write(&self, path: &str, content: impl Into<Bytes>) -> io::Result<()> {
        self.put(path, content.into(), None, false, false)
    }

    /// Adds to the end of a file, creating it if need be.
    pub fn append(&self, path: &str, more: &[u8]) -> io::Result<()> {
        {
            let (files, path, read_only) = self.locate(path);
            let mut guard = files.0.tree.write();
            let tree = &mut *guard;
            if let Some(Entry::File { content, read_only: false, .. }) = tree.entries.get_mut(&path)
                && !read_only
            {
                if tree.bytes + more.len() > CAPACITY {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                // In place unless a reader holds the old content: a log grows without being copied.
                let mut grown =
                    std::mem::take(content).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                grown.extend_from_slice(more);
                *content = grown.freeze();
                tree.bytes += more.len();
                return Ok(());
            }
        }
        let mut content = match self.read(path) {
            Ok(content) => content.to_vec(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        content.extend_from_slice(more);
        self.write(path, content)
    }

    /// Changes a file's permission bits; directories have none.
    pub fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let (files, inside, read_only) = self.locate(path);
        match files.0.tree.write().entries.get_mut(&inside) {
            Some(Entry::File { read_only: locked, .. }) if read_only || *locked => {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            Some(Entry::File { mode: old, .. }) => {
                *old = mode & 0o7777;
                return Ok(());
            }
            Some(Entry::Directory) => return Ok(()),
            None => {}
        }
        match self.kind(path) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Puts a file that programs in the container cannot change (a volume, /etc/hosts); replaces what was there.
    pub fn mount(&self, path: &str, content: impl Into<Bytes>, mode: u32) {
        let _ = self.put(path, content.into(), Some(mode), true, true);
    }

    fn put(&self, path: &str, content: Bytes, mode: Option<u32>, lock: bool, force: bool) -> io::Result<()> {
        let (files, path, read_only) = self.locate(path);
        if read_only && !force {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut tree = files.0.tree.write();
        let (old_length, old_mode) = match tree.entries.get(&path) {
            Some(Entry::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Entry::File { read_only: true, .. }) if !force => return Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Some(Entry::File { content, mode, .. }) => (content.len(), *mode),
            None if path == "/" || tree.has_children(&path) => return Err(io::ErrorKind::IsADirectory.into()),
            None if tree.is_below_a_file(&path) => return Err(io::ErrorKind::NotADirectory.into()),
            None => (0, 0o644),
        };
        let bytes = tree.bytes - old_length + content.len();
        if bytes > CAPACITY && !force {
            return Err(io::ErrorKind::StorageFull.into());
        }
        tree.bytes = bytes;
        tree.entries.insert(path, Entry::File { content, mode: mode.unwrap_or(old_mode), read_only: lock });
        Ok(())
    }

    /// Makes a directory and those above it.
    pub fn make_directory(&self, path: &str) -> io::Result<()> {
        let (files, path, read_only) = self.locate(path);
        if read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut tree = files.0.tree.write();
        match tree.entries.get(&path) {
            Some(Entry::File { .. }) => Err(io::ErrorKind::AlreadyExists.into()),
            None if tree.is_below_a_file(&path) => Err(io::ErrorKind::NotADirectory.into()),
            _ => {
                tree.entries.insert(path, Entry::Directory);
                Ok(())
            }
        }
    }

    /// Removes a file, or a directory with all that is in it.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        if self.kind(path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (files, path, read_only) = self.locate(path);
        if read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut tree = files.0.tree.write();
        let gone: Vec<String> =
            tree.entries.keys().filter(|name| **name == path || is_below(name, &path)).cloned().collect();
        for name in gone {
            if let Some(Entry::File { content, .. }) = tree.entries.remove(&name) {
                tree.bytes -= content.len();
            }
        }
        Ok(())
    }

    /// Removes everything, so that a volume can be filled anew.
    pub fn clear(&self) {
        let mut tree = self.0.tree.write();
        tree.entries.clear();
        tree.bytes = 0;
    }

    /// The names directly in a directory, in order.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        match self.kind(path) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(Kind::File { .. }) => return Err(io::ErrorKind::NotADirectory.into()),
            Some(Kind::Directory) => {}
        }
        let whole = below(&resolve("/", path));
        let (files, inside, _) = self.locate(path);
        let prefix = below(&inside);
        let tree = files.0.tree.read();
        let own = tree.entries.range(prefix.clone()..).map(|(name, _)| name.as_str());
        let own = own.take_while(|name| name.starts_with(&prefix)).map(|name| &name[prefix.len()..]);
        let mounts = self.0.mounts.read();
        let mounted = mounts.keys().filter_map(|point| point.strip_prefix(whole.as_str()));
        let names: std::collections::BTreeSet<&str> =
            own.chain(mounted).filter_map(|rest| rest.split('/').next()).filter(|name| !name.is_empty()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }
}

/// The prefix of everything below a directory.
fn below(directory: &str) -> String {
    format!("{}/", directory.trim_end_matches('/'))
}

fn is_below(path: &str, directory: &str) -> bool {
    path.starts_with(&below(directory))
}

impl Tree {
    fn is_below_a_file(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above.filter(|above| !above.is_empty()).any(|above| matches!(self.entries.get(above), Some(Entry::File { .. })))
    }

    fn has_children(&self, path: &str) -> bool {
        let below = below(path);
        self.entries.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_against_the_working_directory_and_cannot_leave_the_root() {
        assert_eq!(resolve("/a/b", "../c/./d"), "/a/c/d");
        assert_eq!(resolve("/a", "/x//y/"), "/x/y");
        assert_eq!(resolve("/", "../../etc"), "/etc");
    }

    #[test]
    fn a_mounted_file_cannot_be_changed_from_inside() {
        let files = Files::new();
        files.mount("/etc/hosts", "127.0.0.1 localhost\n", 0o644);
        assert_eq!(files.write("/etc/hosts", "x").expect_err("read-only").kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(files.list("/etc").expect("a directory"), ["hosts"]);
        assert_eq!(files.read("/etc").expect_err("a directory").kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_file_grows_by_appending_and_is_no_directory() {
        let files = Files::new();
        files.append("/log", b"a").expect("created");
        let held = files.read("/log").expect("there");
        files.append("/log", b"b").expect("grown");
        assert_eq!((&held[..], &files.read("/log").expect("there")[..]), (&b"a"[..], &b"ab"[..]));
        assert_eq!(files.write("/log/x", "x").expect_err("below a file").kind(), io::ErrorKind::NotADirectory);
        files.set_mode("/log", 0o755).expect("there");
        assert_eq!(files.kind("/log"), Some(Kind::File { length: 2, mode: 0o755 }));
    }

    #[test]
    fn a_shared_volume_is_seen_by_every_container_that_mounts_it() {
        let (volume, one, two) = (Files::new(), Files::new(), Files::new());
        one.mount_tree("/data", volume.clone(), "/", false);
        two.mount_tree("/srv/in", volume.clone(), "/", true);
        one.write("/data/a", "1").expect("writable");
        assert_eq!(two.read("/srv/in/a").expect("there"), "1");
        assert_eq!(two.write("/srv/in/b", "x").expect_err("read-only").kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(two.list("/srv").expect("a directory"), ["in"]);
        assert_eq!(one.list("/").expect("a directory"), ["data"]);
    }
}
