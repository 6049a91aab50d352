//! Tools that look at the file tree: `ls`, `find`, `stat`, `du`, `df`, `realpath`.

use super::launch;
use super::options::{Options, Order};
use super::shell::pattern;
use super::stdio::{Outcome, SharedOutput};
use super::system::refuse;
use super::{Tool, clock};
use crate::files::{CAPACITY, Kind};
use crate::program::Container;

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("df", |c| Box::pin(df(c))),
    Tool::new("du", |c| Box::pin(du(c))),
    Tool::new("find", |c| Box::pin(find(c))),
    Tool::new("ls", |c| Box::pin(ls(c))),
    Tool::new("readlink", |c| Box::pin(realpath(c))),
    Tool::new("realpath", |c| Box::pin(realpath(c))),
    Tool::new("stat", |c| Box::pin(stat(c))),
    Tool::new("tree", |c| Box::pin(tree(c))),
];

/// Directories that exist in every container, with what is built in.
fn built_in(c: &Container, path: &str) -> Option<Vec<String>> {
    match path {
        "/bin" | "/usr/bin" => {
            let mut names = c.programs.names();
            names.retain(|name| name != "agnhost");
            Some(names)
        }
        _ => None,
    }
}

/// What stands at a path, built-in programs included.
pub(super) fn kind_of(c: &Container, path: &str) -> Option<Kind> {
    if let Some(kind) = c.files.kind(path) {
        return Some(kind);
    }
    if matches!(path, "/bin" | "/usr/bin" | "/usr" | "/tmp" | "/root" | "/dev" | "/var" | "/etc" | "/home" | "/run") {
        return Some(Kind::Directory);
    }
    c.programs.program(path).filter(|_| path.contains("bin/")).map(|_| Kind::File { length: 0, mode: 0o755 })
}

/// Names in a directory, built-in programs included.
fn names_in(c: &Container, path: &str) -> Vec<String> {
    let mut names: std::collections::BTreeSet<String> = c.files.list(path).unwrap_or_default().into_iter().collect();
    names.extend(built_in(c, path).unwrap_or_default());
    if path == "/" {
        names.extend(["bin", "dev", "etc", "home", "root", "tmp", "usr", "var"].map(str::to_owned));
    }
    names.into_iter().collect()
}

fn letters(mode: u32) -> String {
    (0..9).rev().map(|bit| if mode >> bit & 1 == 1 { ['x', 'w', 'r'][bit as usize % 3] } else { '-' }).collect()
}

fn long_line(name: &str, kind: &Kind, human: bool) -> String {
    let (start, mode, length) = match kind {
        Kind::Directory => ('d', 0o755, 4096),
        Kind::File { length, mode } => ('-', *mode, *length),
    };
    let size = if human { human_size(length) } else { length.to_string() };
    // Files of the tree carry no times: the container's are as old as it is, which is young.
    let when = clock::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%b %e %H:%M").to_string();
    format!("{start}{}    1 root     root     {size:>9} {when} {name}", letters(mode))
}

fn human_size(bytes: usize) -> String {
    match bytes {
        0..1024 => bytes.to_string(),
        1024..1_048_576 => format!("{:.1}K", bytes as f64 / 1024.0),
        _ => format!("{:.1}M", bytes as f64 / 1_048_576.0),
    }
}

async fn ls(c: &mut Container) -> Outcome {
    let options =
        match Options::parse(&c.args[1..], "l a A 1 R d h t r S F C x p n i s color:|color: u c k", Order::Permuted) {
            Ok(options) => options,
            Err(message) => return refuse(c, message, 1).await,
        };
    let operands = if options.operands.is_empty() { vec![".".to_owned()] } else { options.operands.clone() };
    let mut status = 0;
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for operand in operands {
        match kind_of(c, &c.path(&operand)) {
            Some(Kind::Directory) if !options.has("d") => directories.push(operand),
            Some(kind) => files.push((operand, kind)),
            None => {
                c.complain(format!("ls: {operand}: No such file or directory")).await;
                status = 1;
            }
        }
    }
    let titled = directories.len() + files.len() > 1 || options.has("R");
    show(c, &options, &files).await?;
    let mut first = files.is_empty();
    while !directories.is_empty() {
        let directory = directories.remove(0);
        let path = c.path(&directory);
        let mut entries: Vec<(String, Kind)> = Vec::new();
        if options.has("a") {
            entries.extend([(".".to_owned(), Kind::Directory), ("..".to_owned(), Kind::Directory)]);
        }
        for name in names_in(c, &path) {
            if name.starts_with('.') && !options.has("a") && !options.has("A") {
                continue;
            }
            let whole = format!("{}/{name}", path.trim_end_matches('/'));
            if let Some(kind) = kind_of(c, &whole) {
                entries.push((name, kind));
            }
        }
        if options.has("R") {
            let below = entries.iter().filter(|(name, kind)| *kind == Kind::Directory && name != "." && name != "..");
            let below: Vec<String> =
                below.map(|(name, _)| format!("{}/{name}", directory.trim_end_matches('/'))).collect();
            directories.splice(0..0, below);
        }
        if titled {
            c.print(format!("{}{directory}:\n", if first { "" } else { "\n" })).await?;
        }
        if options.has("l") {
            c.print(format!("total {}\n", entries.len() * 4)).await?;
        }
        first = false;
        show(c, &options, &entries).await?;
        tokio::task::coop::consume_budget().await;
    }
    Ok(status)
}

async fn show(c: &mut Container, options: &Options, entries: &[(String, Kind)]) -> std::io::Result<()> {
    let mut entries: Vec<&(String, Kind)> = entries.iter().collect();
    if options.has("S") {
        let size = |kind: &Kind| if let Kind::File { length, .. } = kind { *length } else { 4096 };
        entries.sort_by_key(|(_, kind)| std::cmp::Reverse(size(kind)));
    }
    if options.has("r") {
        entries.reverse();
    }
    let marked = |(name, kind): &(String, Kind)| match kind {
        Kind::Directory if options.has("F") || options.has("p") => format!("{name}/"),
        Kind::File { mode, .. } if options.has("F") && mode & 0o111 != 0 => format!("{name}*"),
        _ => name.clone(),
    };
    let mut text = String::new();
    if options.has("l") || options.has("n") {
        for entry in entries {
            text.push_str(&format!("{}\n", long_line(&marked(entry), &entry.1, options.has("h"))));
        }
    } else if c.tty && !options.has("1") && !entries.is_empty() {
        let names: Vec<String> = entries.into_iter().map(marked).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
        let columns = (80 / width).max(1);
        let rows = names.len().div_ceil(columns);
        for row in 0..rows {
            let line: String = names.iter().skip(row).step_by(rows).map(|name| format!("{name:<width$}")).collect();
            text.push_str(&format!("{}\n", line.trim_end()));
        }
    } else {
        entries.into_iter().for_each(|entry| text.push_str(&format!("{}\n", marked(entry))));
    }
    c.print(text).await
}

/// Everything at and below a path, a directory before what is in it.
pub(super) fn walk(c: &Container, start: &str) -> Vec<(String, usize, Kind)> {
    let mut found = Vec::new();
    let mut open = vec![(start.to_owned(), 0)];
    while let Some((path, depth)) = open.pop() {
        let Some(kind) = kind_of(c, &c.path(&path)) else { continue };
        if kind == Kind::Directory {
            let base = path.trim_end_matches('/');
            let below = c.files.list(&c.path(&path)).unwrap_or_default();
            open.extend(below.into_iter().rev().map(|name| (format!("{base}/{name}"), depth + 1)));
        }
        found.push((path, depth, kind));
    }
    found
}

/// A test or action of `find`.
enum Term {
    Name(String, bool),
    Path(String),
    Type(char),
    Size(std::cmp::Ordering, usize),
    Empty,
    Not,
    Or,
    Print,
    Print0,
    Delete,
    Exec(Vec<String>),
}

/// Reads an expression: its terms, and the least and greatest depth.
fn find_terms(words: &[String]) -> Result<(Vec<Term>, usize, usize), String> {
    let (mut least, mut greatest) = (0, usize::MAX);
    let mut terms = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let mut next = || rest.next().cloned().ok_or_else(|| format!("{word} requires an argument"));
        match word.as_str() {
            "-name" => terms.push(Term::Name(next()?, false)),
            "-iname" => terms.push(Term::Name(next()?.to_lowercase(), true)),
            "-path" => terms.push(Term::Path(next()?)),
            "-type" => terms.push(Term::Type(next()?.chars().next().unwrap_or('f'))),
            "-maxdepth" => greatest = next()?.parse().map_err(|_| "invalid number".to_owned())?,
            "-mindepth" => least = next()?.parse().map_err(|_| "invalid number".to_owned())?,
            "-size" => {
                let text = next()?;
                let order = match text.chars().next() {
                    Some('+') => std::cmp::Ordering::Greater,
                    Some('-') => std::cmp::Ordering::Less,
                    _ => std::cmp::Ordering::Equal,
                };
                let text = text.trim_start_matches(['+', '-']);
                let (digits, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
                let unit = match unit {
                    "c" => 1,
                    "k" => 1024,
                    "M" => 1 << 20,
                    _ => 512,
                };
                let size: usize = digits.parse().map_err(|_| "invalid number".to_owned())?;
                terms.push(Term::Size(order, size.saturating_mul(unit)));
            }
            "-empty" => terms.push(Term::Empty),
            "!" | "-not" => terms.push(Term::Not),
            "-o" | "-or" => terms.push(Term::Or),
            "-a" | "-and" | "-xdev" | "-follow" => {}
            "-print" => terms.push(Term::Print),
            "-print0" => terms.push(Term::Print0),
            "-delete" => terms.push(Term::Delete),
            "-exec" => {
                let mut command = Vec::new();
                loop {
                    match next()?.as_str() {
                        ";" | "+" => break,
                        word => command.push(word.to_owned()),
                    }
                }
                terms.push(Term::Exec(command));
            }
            "-mtime" | "-mmin" | "-newer" | "-user" | "-group" | "-perm" => {
                next()?;
            }
            other => return Err(format!("unrecognized: {other}")),
        }
    }
    Ok((terms, least, greatest))
}

async fn find(c: &mut Container) -> Outcome {
    let words = c.args[1..].to_vec();
    let first = words.iter().position(|word| word.starts_with('-') || word == "!").unwrap_or(words.len());
    let starts = if first == 0 { vec![".".to_owned()] } else { words[..first].to_vec() };
    let (terms, least, greatest) = match find_terms(&words[first..]) {
        Ok(terms) => terms,
        Err(message) => return refuse(c, message, 1).await,
    };
    let acts = terms.iter().any(|term| matches!(term, Term::Print | Term::Print0 | Term::Delete | Term::Exec(_)));
    let output = SharedOutput::new(std::mem::replace(&mut c.stdout, Box::new(tokio::io::sink())));
    c.stdout = Box::new(output.clone());
    let surroundings = launch::Surroundings::of(c);
    let mut status = 0;
    for start in starts {
        if kind_of(c, &c.path(&start)).is_none() {
            c.complain(format!("find: {start}: No such file or directory")).await;
            status = 1;
            continue;
        }
        for (path, depth, kind) in walk(c, &start) {
            if !(least..=greatest).contains(&depth) {
                continue;
            }
            let mut holds = true;
            let mut negated = false;
            for term in &terms {
                if matches!(term, Term::Or) {
                    if holds {
                        break;
                    }
                    holds = true;
                    continue;
                }
                if matches!(term, Term::Not) {
                    negated = !negated;
                    continue;
                }
                if !holds {
                    continue;
                }
                let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(&path);
                let result = match term {
                    Term::Name(wanted, false) => pattern::matches(wanted, name),
                    Term::Name(wanted, true) => pattern::matches(wanted, &name.to_lowercase()),
                    Term::Path(wanted) => pattern::matches(wanted, &path),
                    Term::Type('d') => kind == Kind::Directory,
                    Term::Type('f') => matches!(kind, Kind::File { .. }),
                    Term::Type(_) => false,
                    Term::Size(order, size) => {
                        matches!(kind, Kind::File { length, .. } if length.cmp(size) == *order)
                    }
                    Term::Empty => match kind {
                        Kind::File { length, .. } => length == 0,
                        Kind::Directory => c.files.list(&c.path(&path)).is_ok_and(|names| names.is_empty()),
                    },
                    Term::Print => {
                        c.print(format!("{path}\n")).await?;
                        true
                    }
                    Term::Print0 => {
                        c.print(format!("{path}\0")).await?;
                        true
                    }
                    Term::Delete => c.files.remove(&c.path(&path)).is_ok(),
                    Term::Exec(command) => {
                        let args: Vec<String> = command.iter().map(|word| word.replace("{}", &path)).collect();
                        match args.first().and_then(|name| c.programs.program(name)) {
                            Some(program) => {
                                let container = surroundings.container(args, Box::new(tokio::io::empty()), &output);
                                launch::run(program, container).await == 0
                            }
                            None => {
                                let name = args.first().cloned().unwrap_or_default();
                                return refuse(c, format!("{name}: No such file or directory"), 1).await;
                            }
                        }
                    }
                    Term::Not | Term::Or => true,
                };
                holds = result != negated;
                negated = false;
            }
            if holds && !acts {
                c.print(format!("{path}\n")).await?;
            }
            tokio::task::coop::consume_budget().await;
        }
    }
    Ok(status)
}

async fn tree(c: &mut Container) -> Outcome {
    let start = c.args.get(1).cloned().unwrap_or_else(|| ".".to_owned());
    let mut text = String::new();
    let entries = walk(c, &start);
    for (path, depth, _) in &entries {
        let name = if *depth == 0 { path.as_str() } else { path.rsplit('/').next().unwrap_or(path) };
        let indent = "│   ".repeat(depth.saturating_sub(1));
        let mark = if *depth == 0 { "" } else { "├── " };
        text.push_str(&format!("{indent}{mark}{name}\n"));
    }
    let directories = entries.iter().filter(|(_, depth, kind)| *depth > 0 && *kind == Kind::Directory).count();
    let files = entries.iter().filter(|(_, _, kind)| *kind != Kind::Directory).count();
    c.print(format!("{text}\n{directories} directories, {files} files\n")).await?;
    Ok(0)
}

async fn stat(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "c:|format: f L t", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut status = 0;
    for operand in &options.operands {
        let Some(kind) = kind_of(c, &c.path(operand)) else {
            c.complain(format!("stat: can't stat '{operand}': No such file or directory")).await;
            status = 1;
            continue;
        };
        let (length, mode, what) = match kind {
            Kind::Directory => (4096, 0o755, "directory"),
            Kind::File { length, mode } => (length, mode, "regular file"),
        };
        let start = if what == "directory" { 'd' } else { '-' };
        let text = match options.value("c") {
            Some(format) => format
                .replace("%s", &length.to_string())
                .replace("%a", &format!("{mode:o}"))
                .replace("%A", &format!("{start}{}", letters(mode)))
                .replace("%n", operand)
                .replace("%F", what)
                .replace("%U", "root")
                .replace("%G", "root")
                .replace("%u", "0")
                .replace("%g", "0"),
            None => format!(
                "  File: {operand}\n  Size: {length}\tBlocks: {}\tIO Block: 4096\t{what}\nAccess: (0{mode:o}/{start}{})  Uid: (    0/    root)   Gid: (    0/    root)",
                length.div_ceil(512),
                letters(mode)
            ),
        };
        c.print(text + "\n").await?;
    }
    Ok(status)
}

async fn du(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "s h k m a c d:", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let starts = if options.operands.is_empty() { vec![".".to_owned()] } else { options.operands.clone() };
    for start in starts {
        let entries = walk(c, &start);
        let sum = |below: &str| -> usize {
            let prefix = format!("{}/", below.trim_end_matches('/'));
            let inside = entries.iter().filter(|(path, _, _)| path == below || path.starts_with(&prefix));
            inside.map(|(_, _, kind)| if let Kind::File { length, .. } = kind { *length } else { 0 }).sum()
        };
        let shown: Vec<&str> = if options.has("s") {
            vec![&start]
        } else {
            let directories = entries.iter().rev().filter(|(_, _, kind)| *kind == Kind::Directory || options.has("a"));
            directories.map(|(path, _, _)| path.as_str()).collect()
        };
        let lines: String = shown
            .into_iter()
            .map(|path| {
                let bytes = sum(path);
                let size = if options.has("h") { human_size(bytes) } else { bytes.div_ceil(1024).to_string() };
                format!("{size}\t{path}\n")
            })
            .collect();
        c.print(lines).await?;
    }
    Ok(0)
}

async fn df(c: &mut Container) -> Outcome {
    let used: usize =
        walk(c, "/").iter().map(|(_, _, kind)| if let Kind::File { length, .. } = kind { *length } else { 0 }).sum();
    let (blocks, used) = (CAPACITY / 1024, used.div_ceil(1024));
    let percent = used * 100 / blocks;
    let left = blocks.saturating_sub(used);
    let text = format!(
        "Filesystem           1K-blocks      Used Available Use% Mounted on\noverlay              {blocks:>9} {used:>9} {left:>9} {percent:>3}% /\n"
    );
    c.print(text).await?;
    Ok(0)
}

async fn realpath(c: &mut Container) -> Outcome {
    let operands: Vec<String> = c.args[1..].iter().filter(|arg| !arg.starts_with('-')).cloned().collect();
    let mut status = 0;
    for operand in operands {
        let path = c.path(&operand);
        if kind_of(c, &path).is_none() {
            c.complain(format!("{}: {operand}: No such file or directory", c.args[0].clone())).await;
            status = 1;
            continue;
        }
        c.print(format!("{path}\n")).await?;
    }
    Ok(status)
}
