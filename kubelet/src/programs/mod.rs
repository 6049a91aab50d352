//! The programs compiled into the binary: `sh`, the busybox, curl and dnsutils tools of daily use, and agnhost.
//!
//! [`builtins`] finds them by name; [`images`] says which image starts which of them with what; [`standin`] takes the place of images
//! that are not run. Each tool prints what the real one prints, so that scripts and eyes find what they look for, and reaches the
//! network only through its container's [`Host`](netstack::Host). [`resolver`] is the stub resolver they share, for in-process pods too.
//!
//! A tool is a function over a [`Container`] in the table of its family. What it does not do is not in its usage.

mod agnhost;
mod awk;
mod changing;
mod clock;
mod curl;
mod demo;
mod dig;
mod digest;
mod escapes;
mod grep;
mod http;
pub mod images;
pub(crate) mod launch;
mod listing;
mod net;
mod nslookup;
mod options;
mod print;
pub mod resolver;
mod sed;
mod shell;
mod sort;
pub mod standin;
pub(crate) mod stdio;
mod system;
mod tar;
mod tar_reader;
mod terminal;
mod text;
mod wget;

use crate::program::{Container, ExitStatus, Program, Programs};
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use stdio::{Outcome, reason};
use terminal::OnTerminal;
use tokio::io::AsyncWriteExt;

/// The body of a tool.
type Run = for<'a> fn(&'a mut Container) -> BoxFuture<'a, Outcome>;

/// One tool of a family: its name and what it does.
struct Tool {
    name: &'static str,
    run: Run,
    handles_signals: bool,
}

impl Tool {
    const fn new(name: &'static str, run: Run) -> Self {
        Tool { name, run, handles_signals: false }
    }

    /// A tool that watches the container's signals.
    const fn watching(name: &'static str, run: Run) -> Self {
        Tool { name, run, handles_signals: true }
    }
}

#[async_trait]
impl Program for Tool {
    async fn run(&self, mut container: Container) -> ExitStatus {
        let status = match (self.run)(&mut container).await {
            Ok(status) => status,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Err(error) => {
                container.complain(format!("{}: {}", self.name, reason(&error))).await;
                1
            }
        };
        let _ = container.stdout.flush().await;
        status
    }

    fn handles_signals(&self) -> bool {
        self.handles_signals
    }
}

/// The programs of this binary by name.
struct Builtins(BTreeMap<&'static str, Arc<dyn Program>>);

/// Directories in which programs are found; elsewhere only by their full path.
const DIRECTORIES: [&str; 7] =
    ["/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/", "/"];

impl Programs for Builtins {
    fn program(&self, name: &str) -> Option<Arc<dyn Program>> {
        let name = match name.rfind('/') {
            Some(slash) if DIRECTORIES.contains(&&name[..=slash]) => &name[slash + 1..],
            Some(_) => return None,
            None => name,
        };
        self.0.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().map(|name| (*name).to_owned()).collect()
    }
}

/// All programs of this binary.
pub fn builtins() -> Arc<dyn Programs> {
    static BUILTINS: OnceLock<Arc<Builtins>> = OnceLock::new();
    let builtins = BUILTINS.get_or_init(|| {
        let mut programs: BTreeMap<&'static str, Arc<dyn Program>> = BTreeMap::new();
        let families = [
            agnhost::TOOLS,
            awk::TOOLS,
            changing::TOOLS,
            curl::TOOLS,
            demo::TOOLS,
            dig::TOOLS,
            digest::TOOLS,
            grep::TOOLS,
            launch::TOOLS,
            listing::TOOLS,
            net::TOOLS,
            nslookup::TOOLS,
            sed::TOOLS,
            sort::TOOLS,
            system::TOOLS,
            tar::TOOLS,
            text::TOOLS,
            wget::TOOLS,
        ];
        for tool in families.into_iter().flatten() {
            let plain: Arc<dyn Program> =
                Arc::new(Tool { name: tool.name, run: tool.run, handles_signals: tool.handles_signals });
            programs.insert(tool.name, Arc::new(OnTerminal(plain)));
        }
        let shell: Arc<dyn Program> = Arc::new(OnTerminal(Arc::new(shell::Sh)));
        for name in ["sh", "ash", "bash", "dash"] {
            programs.insert(name, shell.clone());
        }
        Arc::new(Builtins(programs))
    });
    builtins.clone()
}

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod text_tests;
