//! Files which only their owner may read, and directories that are on the disk when a function returns.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

/// How a directory ends that nobody needs after the process which made it.
pub(crate) const SCRATCH: &str = "scratch";

/// Options which create a file with mode 0600.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates a directory and those above it, with mode 0700; one that exists is left as it is.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Reads the whole buffer from `offset` on.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }
    #[cfg(not(unix))]
    {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}

/// Makes the names in a directory durable: files created, renamed and removed.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    // Windows opens no directory as a file, and needs no such sync.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Makes a whole tree durable, and private: what a library wrote there may be neither.
pub(crate) fn secure_tree(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(if is_dir { 0o700 } else { 0o600 });
            std::fs::set_permissions(entry.path(), mode)?;
        }
        if is_dir {
            secure_tree(&entry.path())?;
        } else if cfg!(not(target_os = "linux")) {
            OpenOptions::new().write(true).open(entry.path())?.sync_all()?;
        }
    }
    // One call for the tree instead of one for each of perhaps thousands of files.
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(path)?)?;
    sync_dir(path)
}
