//! The in-memory file tree of a virtual container: images' files, mounted volumes, and what programs write.

use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Largest tree in bytes; writes beyond it fail with "No space left on device".
pub const CAPACITY: usize = 64 << 20;

/// A file tree. Cheap to clone: all clones are one tree.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<RwLock<Tree>>);

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

    /// What stands at this absolute path.
    pub fn kind(&self, path: &str) -> Option<Kind> {
        let path = resolve("/", path);
        let tree = self.0.read();
        match tree.entries.get(&path) {
            Some(Entry::File { content, mode, .. }) => Some(Kind::File { length: content.len(), mode: *mode }),
            Some(Entry::Directory) => Some(Kind::Directory),
            None if path == "/" || tree.has_children(&path) => Some(Kind::Directory),
            None => None,
        }
    }

    /// A file's content.
    pub fn read(&self, path: &str) -> io::Result<Bytes> {
        let path = resolve("/", path);
        match self.0.read().entries.get(&path) {
            Some(Entry::File { content, .. }) => Ok(content.clone()),
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None if self.kind(&path).is_some() => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Creates or replaces a file; its directories are made.
    pub fn write(&self, path: &str, content: impl Into<Bytes>) -> io::Result<()> {
        self.put(path, content.into(), None, false, false)
    }

    /// Adds to the end of a file, creating it if need be.
    pub fn append(&self, path: &str, more: &[u8]) -> io::Result<()> {
        let mut content = match self.read(path) {
            Ok(content) => content.to_vec(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        content.extend_from_slice(more);
        self.write(path, content)
    }

    /// Mounts a file that programs in the container cannot change (a volume, /etc/hosts); replaces what was there.
    pub fn mount(&self, path: &str, content: impl Into<Bytes>, mode: u32) {
        let _ = self.put(path, content.into(), Some(mode), true, true);
    }

    fn put(&self, path: &str, content: Bytes, mode: Option<u32>, read_only: bool, force: bool) -> io::Result<()> {
        let path = resolve("/", path);
        let mut tree = self.0.write();
        let (old_length, old_mode) = match tree.entries.get(&path) {
            Some(Entry::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Entry::File { read_only: true, .. }) if !force => return Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Some(Entry::File { content, mode, .. }) => (content.len(), *mode),
            None if path == "/" || tree.has_children(&path) => return Err(io::ErrorKind::IsADirectory.into()),
            None => (0, 0o644),
        };
        let bytes = tree.bytes - old_length + content.len();
        if bytes > CAPACITY && !force {
            return Err(io::ErrorKind::StorageFull.into());
        }
        tree.bytes = bytes;
        tree.entries.insert(path, Entry::File { content, mode: mode.unwrap_or(old_mode), read_only });
        Ok(())
    }

    /// Makes a directory and those above it.
    pub fn make_directory(&self, path: &str) -> io::Result<()> {
        let path = resolve("/", path);
        let mut tree = self.0.write();
        match tree.entries.get(&path) {
            Some(Entry::File { .. }) => Err(io::ErrorKind::AlreadyExists.into()),
            _ => {
                tree.entries.insert(path, Entry::Directory);
                Ok(())
            }
        }
    }

    /// Removes a file, or a directory with all that is in it.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let path = resolve("/", path);
        if self.kind(&path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let below = format!("{}/", path.trim_end_matches('/'));
        let mut tree = self.0.write();
        let gone: Vec<String> =
            tree.entries.keys().filter(|name| **name == path || name.starts_with(&below)).cloned().collect();
        for name in gone {
            if let Some(Entry::File { content, .. }) = tree.entries.remove(&name) {
                tree.bytes -= content.len();
            }
        }
        Ok(())
    }

    /// The names directly in a directory, in order.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let path = resolve("/", path);
        match self.kind(&path) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(Kind::File { .. }) => return Err(io::ErrorKind::NotADirectory.into()),
            Some(Kind::Directory) => {}
        }
        let below = format!("{}/", path.trim_end_matches('/'));
        let tree = self.0.read();
        let mut names: Vec<String> = tree
            .entries
            .range(below.clone()..)
            .take_while(|(name, _)| name.starts_with(&below))
            .filter_map(|(name, _)| name[below.len()..].split('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        names.dedup();
        Ok(names)
    }
}

impl Tree {
    fn has_children(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
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
}
