//! Tools that change the file tree: `mkdir`, `rm`, `cp`, `mv`, `touch`, `chmod`, `dd`, `mktemp`.

use super::Tool;
use super::listing::{kind_of, walk};
use super::options::{Options, Order};
use super::stdio::{Outcome, parent_exists, reason, seed};
use super::system::refuse;
use crate::files::Kind;
use crate::program::Container;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("chgrp", |_| Box::pin(async { Ok(0) })),
    Tool::new("chmod", |c| Box::pin(chmod(c))),
    Tool::new("chown", |_| Box::pin(async { Ok(0) })),
    Tool::new("cp", |c| Box::pin(cp(c))),
    Tool::new("dd", |c| Box::pin(dd(c))),
    Tool::new("install", |c| Box::pin(cp(c))),
    Tool::new("ln", |c| Box::pin(ln(c))),
    Tool::new("mkdir", |c| Box::pin(mkdir(c))),
    Tool::new("mktemp", |c| Box::pin(mktemp(c))),
    Tool::new("mv", |c| Box::pin(mv(c))),
    Tool::new("rm", |c| Box::pin(rm(c))),
    Tool::new("rmdir", |c| Box::pin(rmdir(c))),
    Tool::new("touch", |c| Box::pin(touch(c))),
    Tool::new("truncate", |c| Box::pin(truncate(c))),
];

async fn mkdir(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "p|parents m: v", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut status = 0;
    for operand in &options.operands {
        let path = c.path(operand);
        let failure = match c.files.kind(&path) {
            Some(Kind::Directory) if options.has("p") => continue,
            Some(_) => Some(io::ErrorKind::AlreadyExists.into()),
            None if !options.has("p") && !parent_exists(&c.files, &path) => Some(io::ErrorKind::NotFound.into()),
            None => c.files.make_directory(&path).err(),
        };
        if let Some(error) = failure {
            refuse(c, format!("can't create directory '{operand}': {}", reason(&error)), 1).await?;
            status = 1;
        }
    }
    Ok(status)
}

async fn rmdir(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "p", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut status = 0;
    for operand in &options.operands {
        let path = c.path(operand);
        let failure = match c.files.list(&path) {
            Ok(names) if names.is_empty() => c.files.remove(&path).err(),
            Ok(_) => Some(io::ErrorKind::DirectoryNotEmpty.into()),
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            refuse(c, format!("'{operand}': {}", reason(&error)), 1).await?;
            status = 1;
        }
    }
    Ok(status)
}

async fn rm(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "r|recursive R f|force i v d", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut status = 0;
    for operand in &options.operands {
        let path = c.path(operand);
        let failure = match c.files.kind(&path) {
            None if options.has("f") => continue,
            None => Some(reason(&io::ErrorKind::NotFound.into())),
            Some(Kind::Directory) if !options.has("r") && !options.has("R") => Some("is a directory".to_owned()),
            Some(_) => c.files.remove(&path).err().map(|error| reason(&error)),
        };
        if let Some(why) = failure {
            let name = if why == "is a directory" {
                format!("'{operand}' {why}")
            } else {
                format!("can't remove '{operand}': {why}")
            };
            refuse(c, name, 1).await?;
            status = 1;
        }
    }
    Ok(status)
}

/// Where a source lands: in a directory under its own name, else at the target itself.
fn landing(c: &Container, source: &str, target: &str) -> String {
    let path = c.path(target);
    match kind_of(c, &path) {
        Some(Kind::Directory) => {
            let name = c.path(source);
            let name = name.rsplit('/').next().unwrap_or_default();
            format!("{}/{name}", path.trim_end_matches('/'))
        }
        _ => path,
    }
}

/// Copies a file, or a directory with all that is in it.
fn copy(c: &Container, source: &str, to: &str) -> io::Result<()> {
    let from = c.path(source);
    if to == from || to.starts_with(&format!("{}/", from.trim_end_matches('/'))) {
        return Err(io::Error::other("cannot copy into itself"));
    }
    for (path, _, kind) in walk(c, &from) {
        let target = format!("{to}{}", &path[from.trim_end_matches('/').len()..]);
        match kind {
            Kind::Directory => c.files.make_directory(&target)?,
            Kind::File { mode, .. } => {
                let content = c.files.read(&path)?;
                c.files.write(&target, content)?;
                c.files.set_mode(&target, mode)?;
            }
        }
    }
    Ok(())
}

async fn cp(c: &mut Container) -> Outcome {
    let options =
        match Options::parse(&c.args[1..], "r|recursive R a|archive f p i v d t: T L P n u D m:", Order::Permuted) {
            Ok(options) => options,
            Err(message) => return refuse(c, message, 1).await,
        };
    let Some((target, sources)) = options.operands.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return refuse(c, "missing file operand", 1).await;
    };
    if sources.len() > 1 && kind_of(c, &c.path(target)) != Some(Kind::Directory) {
        return refuse(c, format!("target '{target}' is not a directory"), 1).await;
    }
    let recursive = options.has("r") || options.has("R") || options.has("a");
    let mut status = 0;
    for source in sources {
        let to = landing(c, source, target);
        let failure = match c.files.kind(&c.path(source)) {
            None => Some(format!("can't stat '{source}': No such file or directory")),
            Some(Kind::Directory) if !recursive => Some(format!("omitting directory '{source}'")),
            Some(_) if !parent_exists(&c.files, &to) => Some(format!("can't create '{to}': No such file or directory")),
            Some(_) => copy(c, source, &to).err().map(|error| format!("can't create '{to}': {}", reason(&error))),
        };
        if let Some(message) = failure {
            refuse(c, message, 1).await?;
            status = 1;
        }
    }
    Ok(status)
}

async fn mv(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "f i n v t: T", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let Some((target, sources)) = options.operands.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return refuse(c, "missing file operand", 1).await;
    };
    let mut status = 0;
    for source in sources {
        let to = landing(c, source, target);
        let path = c.path(source);
        let moved = match c.files.kind(&path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(_) if to == path => Ok(()),
            Some(_) => copy(c, source, &to).and_then(|()| c.files.remove(&path)),
        };
        if let Err(error) = moved {
            refuse(c, format!("can't rename '{source}': {}", reason(&error)), 1).await?;
            status = 1;
        }
    }
    Ok(status)
}

/// There are no links in the tree: a copy is made, which reads the same.
async fn ln(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "s f n v T", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let [source, target] = &options.operands[..] else {
        return refuse(c, "missing file operand", 1).await;
    };
    let to = landing(c, source, target);
    match copy(c, source, &to) {
        Ok(()) => Ok(0),
        Err(error) => refuse(c, format!("{target}: {}", reason(&error)), 1).await,
    }
}

async fn touch(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "c a m t: d: r:", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut status = 0;
    for operand in &options.operands {
        let path = c.path(operand);
        if c.files.kind(&path).is_some() || options.has("c") {
            continue;
        }
        let made = match parent_exists(&c.files, &path) {
            true => c.files.write(&path, ""),
            false => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = made {
            refuse(c, format!("{operand}: {}", reason(&error)), 1).await?;
            status = 1;
        }
    }
    Ok(status)
}

/// The mode that `755` or `u+x,go-w` makes of an old one.
fn new_mode(text: &str, old: u32) -> Option<u32> {
    if let Ok(mode) = u32::from_str_radix(text, 8) {
        return (mode <= 0o7777).then_some(mode);
    }
    let mut mode = old;
    for clause in text.split(',') {
        let at = clause.find(['+', '-', '='])?;
        let (who, change) = clause.split_at(at);
        let mut classes = 0;
        for c in who.chars() {
            classes |= match c {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return None,
            };
        }
        let classes = if classes == 0 { 0o777 } else { classes };
        let mut bits = 0;
        for c in change[1..].chars() {
            bits |= match c {
                'r' => 0o444,
                'w' => 0o222,
                'x' | 'X' => 0o111,
                's' | 't' => 0,
                _ => return None,
            };
        }
        match &change[..1] {
            "+" => mode |= bits & classes,
            "-" => mode &= !(bits & classes),
            _ => mode = mode & !classes | bits & classes,
        }
    }
    Some(mode)
}

async fn chmod(c: &mut Container) -> Outcome {
    let words: Vec<String> =
        c.args[1..].iter().filter(|arg| !matches!(arg.as_str(), "-R" | "-v" | "-f" | "-c")).cloned().collect();
    let recursive = c.args.iter().any(|arg| arg == "-R");
    let Some((mode, operands)) = words.split_first() else {
        return refuse(c, "missing operand", 1).await;
    };
    let mut status = 0;
    for operand in operands {
        let start = c.path(operand);
        if c.files.kind(&start).is_none() {
            refuse(c, format!("{operand}: No such file or directory"), 1).await?;
            status = 1;
            continue;
        }
        let entries = if recursive { walk(c, &start) } else { walk(c, &start).into_iter().take(1).collect() };
        for (path, _, kind) in entries {
            let Kind::File { mode: old, .. } = kind else { continue };
            let Some(new) = new_mode(mode, old) else {
                return refuse(c, format!("invalid mode '{mode}'"), 1).await;
            };
            if let Err(error) = c.files.set_mode(&path, new) {
                refuse(c, format!("{operand}: {}", reason(&error)), 1).await?;
                status = 1;
            }
        }
    }
    Ok(status)
}

async fn mktemp(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "d t p: u q", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let directory = options.value("p").unwrap_or("/tmp").trim_end_matches('/');
    let template = match options.operands.first() {
        Some(template) if template.contains('/') => template.clone(),
        Some(template) => format!("{directory}/{template}"),
        None => format!("{directory}/tmp.XXXXXX"),
    };
    let stem = template.trim_end_matches('X');
    let width = template.len() - stem.len();
    for attempt in 0..10_000u32 {
        let mut number = seed((&c.hostname, attempt, &template));
        let mut suffix = String::new();
        for _ in 0..width {
            suffix.push(char::from(
                b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[(number % 62) as usize],
            ));
            number /= 62;
        }
        let path = c.path(&format!("{stem}{suffix}"));
        if c.files.kind(&path).is_none() {
            match options.has("d") {
                true => c.files.make_directory(&path)?,
                false => c.files.write(&path, "")?,
            }
            c.print(format!("{path}\n")).await?;
            return Ok(0);
        }
    }
    refuse(c, format!("{template}: File exists"), 1).await
}

async fn truncate(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "s: c", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let Some(size) = options.value("s").and_then(size) else {
        return refuse(c, "invalid size", 1).await;
    };
    for operand in &options.operands {
        let path = c.path(operand);
        let mut content = c.files.read(&path).unwrap_or_default().to_vec();
        if size > crate::files::CAPACITY {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.resize(size, 0);
        c.files.write(&path, content)?;
    }
    Ok(0)
}

/// `10`, `4k`, `1M`, `1G`.
fn size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit: usize = match &text[digits.len()..] {
        "" | "c" => 1,
        "b" => 512,
        "k" | "K" | "kB" => 1024,
        "M" | "MB" => 1 << 20,
        "G" | "GB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

async fn dd(c: &mut Container) -> Outcome {
    let (mut input, mut output) = ("-".to_owned(), None);
    let (mut block, mut count, mut quiet) = (512, u64::MAX, false);
    let words = c.args.clone();
    for word in &words[1..] {
        let Some((name, value)) = word.split_once('=') else {
            return refuse(c, format!("unknown operand '{word}'"), 1).await;
        };
        match name {
            "if" => input = value.to_owned(),
            "of" => output = Some(value.to_owned()),
            "bs" | "ibs" | "obs" => match size(value).filter(|size| (1..=16 << 20).contains(size)) {
                Some(size) => block = size,
                None => return refuse(c, format!("invalid number '{value}'"), 1).await,
            },
            "count" => match value.parse() {
                Ok(number) => count = number,
                Err(_) => return refuse(c, format!("invalid number '{value}'"), 1).await,
            },
            "status" => quiet = value == "none",
            _ => {}
        }
    }
    let mut from = match c.open(&input) {
        Ok(from) => from,
        Err(error) => return refuse(c, format!("can't open '{input}': {}", reason(&error)), 1).await,
    };
    let mut to = match &output {
        None => None,
        Some(path) => match c.create(path, false) {
            Ok(to) => Some(to),
            Err(error) => return refuse(c, format!("can't open '{path}': {}", reason(&error)), 1).await,
        },
    };
    let mut buffer = vec![0; block];
    let (mut whole, mut part, mut bytes) = (0u64, 0u64, 0u64);
    while whole + part < count {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        if length == block {
            whole += 1;
        } else {
            part += 1;
        }
        bytes += length as u64;
        match &mut to {
            Some(to) => to.write_all(&buffer[..length]).await?,
            None => c.print(&buffer[..length]).await?,
        }
        tokio::task::coop::consume_budget().await;
    }
    if !quiet {
        c.complain(format!("{whole}+{part} records in\n{whole}+{part} records out\n{bytes} bytes copied")).await;
    }
    Ok(0)
}
