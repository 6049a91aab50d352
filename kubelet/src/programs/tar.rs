//! `tar`: enough for `kubectl cp` both ways. An archive streams through, whatever its size; only the member at hand is held in memory.
//! Reading archives is in [`super::tar_reader`].

use super::Tool;
use super::listing::walk;
use super::options::{Options, Order};
use super::stdio::{Outcome, reason};
use super::system::refuse;
use super::tar_reader::{Members, What};
use crate::files::{Kind, resolve};
use crate::program::{Container, Output};
use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::io::AsyncWriteExt;

pub(super) const TOOLS: &[Tool] = &[Tool::new("tar", |c| Box::pin(tar(c)))];

const OPTIONS: &str = "c|create x|extract t|list f:|file: C:|directory: v|verbose p m o z|gzip O k h j J T: X: exclude:|exclude: \
    strip-components:|strip-components: no-same-owner|no-same-owner no-same-permissions|no-same-permissions \
    overwrite|overwrite warning:|warning: null|null";

async fn tar(c: &mut Container) -> Outcome {
    let mut args = c.args[1..].to_vec();
    // The first word may be options without a dash: `tar cf -`.
    if let Some(first) = args.first_mut()
        && !first.starts_with('-')
    {
        first.insert(0, '-');
    }
    let options = match Options::parse(&args, OPTIONS, Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    if options.has("z") || options.has("j") || options.has("J") {
        return refuse(c, "compressed archives are not supported", 1).await;
    }
    if let Some(directory) = options.value("C").map(str::to_owned) {
        let path = c.path(&directory);
        let exists = c.files.kind(&path) == Some(Kind::Directory) || matches!(path.as_str(), "/" | "/tmp" | "/root");
        if !exists {
            return refuse(c, format!("can't change directory to '{directory}': No such file or directory"), 1).await;
        }
        c.cwd = path;
    }
    match (options.has("c"), options.has("x"), options.has("t")) {
        (true, false, false) => create(c, &options).await,
        (false, true, false) | (false, false, true) => extract(c, &options).await,
        _ => refuse(c, "need at least one of -c, -x or -t", 1).await,
    }
}

async fn create(c: &mut Container, options: &Options) -> Outcome {
    let mut output: Output = match options.value("f").unwrap_or("-") {
        "-" => std::mem::replace(&mut c.stdout, Box::new(tokio::io::sink())),
        path => c.create(path, false)?,
    };
    if options.operands.is_empty() {
        return refuse(c, "empty archive", 1).await;
    }
    let mut builder = Builder::new(Vec::new());
    let mut status = 0;
    let mut told = false;
    let mut is_empty = true;
    for operand in &options.operands {
        if c.files.kind(&c.path(operand)).is_none() {
            refuse(c, format!("{operand}: No such file or directory"), 1).await?;
            status = 1;
            continue;
        }
        for (path, _, kind) in walk(c, operand) {
            let mut name = path.trim_start_matches('/').to_owned();
            if path.starts_with('/') && !told {
                told = true;
                refuse(c, "removing leading '/' from member names", 0).await?;
            }
            if name.is_empty() {
                continue;
            }
            let mut header = Header::new_gnu();
            header.set_mtime(super::clock::now().as_second().unsigned_abs());
            let content = match kind {
                Kind::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    if !name.ends_with('/') {
                        name.push('/');
                    }
                    Bytes::new()
                }
                Kind::File { mode, .. } => {
                    header.set_mode(mode);
                    c.files.read(&c.path(&path))?
                }
            };
            header.set_size(content.len() as u64);
            if options.has("v") {
                c.complain(&name).await;
            }
            // The head through the builder, which knows about long names; the content past it, uncopied.
            is_empty = false;
            builder.append_data(&mut header, &name, std::io::empty())?;
            output.write_all(&std::mem::take(builder.get_mut())).await?;
            output.write_all(&content).await?;
            output.write_all(&[0; 512][..content.len().next_multiple_of(512) - content.len()]).await?;
        }
    }
    // Nothing was found: without the end of an archive `kubectl cp` waits for the exit status instead of taking it for an empty one.
    if !is_empty || status == 0 {
        let end = builder.into_inner()?;
        output.write_all(&end).await?;
    }
    output.flush().await?;
    Ok(status)
}

async fn extract(c: &mut Container, options: &Options) -> Outcome {
    let source = options.value("f").unwrap_or("-").to_owned();
    let input = match c.open(&source) {
        Ok(input) => input,
        Err(error) => return refuse(c, format!("can't open '{source}': {}", reason(&error)), 1).await,
    };
    let strip: usize = options.value("strip-components").and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut members = Members::new(input);
    loop {
        let member = match members.next().await {
            Ok(Some(member)) => member,
            Ok(None) => return Ok(0),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                return refuse(c, format!("write error: {}", reason(&error)), 1).await;
            }
            Err(error) => return refuse(c, format!("invalid tar archive: {error}"), 1).await,
        };
        let stripped: Vec<&str> = member.name.split('/').filter(|part| !part.is_empty()).skip(strip).collect();
        let name = stripped.join("/");
        let wanted = options.operands.is_empty()
            || options.operands.iter().any(|operand| {
                let operand = operand.trim_matches('/');
                name == operand || name.starts_with(&format!("{operand}/"))
            });
        if name.is_empty() || !wanted {
            continue;
        }
        if options.has("t") || options.has("v") {
            c.print(format!("{}\n", member.name)).await?;
        }
        if options.has("t") {
            continue;
        }
        // `..` cannot climb out of the directory: it is resolved inside.
        let inside = resolve("/", &name);
        let path = format!("{}{inside}", c.cwd.trim_end_matches('/'));
        let placed = match member.what {
            What::File(content) if options.has("O") => {
                c.print(&content).await?;
                Ok(())
            }
            _ if options.has("O") => Ok(()),
            What::File(content) => c.files.write(&path, content).and_then(|()| c.files.set_mode(&path, member.mode)),
            What::Directory if c.files.kind(&path) == Some(Kind::Directory) => Ok(()),
            What::Directory => c.files.make_directory(&path),
            // The tree has no place for links and devices.
            What::Other => {
                refuse(c, format!("{}: links are not supported, skipped", member.name), 0).await?;
                Ok(())
            }
        };
        if let Err(error) = placed {
            return refuse(c, format!("can't open '{name}': {}", reason(&error)), 1).await;
        }
        tokio::task::coop::consume_budget().await;
    }
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::Machine;

    #[tokio::test(start_paused = true)]
    async fn what_tar_packs_it_unpacks() {
        let machine = Machine::new();
        let long = format!("/src/{}/deep.txt", "a-rather-long-directory-name/".repeat(6));
        machine.files.write("/src/a.txt", "hello").expect("room");
        machine.files.write("/src/sub/big", vec![7; 300_000]).expect("room");
        machine.files.write(&long, "deep").expect("room");
        let ran = machine.sh("tar cf - /src | tar xmf - -C /tmp; mkdir /out; cd /src && tar c . | tar x -C /out").await;
        assert_eq!(ran.status, 0, "{ran:?}");
        assert_eq!(machine.files.read("/tmp/src/a.txt").expect("unpacked"), "hello");
        assert_eq!(machine.files.read(&format!("/tmp{long}")).expect("unpacked"), "deep");
        assert_eq!(machine.files.read("/out/sub/big").expect("unpacked").len(), 300_000);
        let listed = machine.sh("tar cf /tmp/x.tar src/a.txt; tar tf /tmp/x.tar; tar xOf /tmp/x.tar").await;
        assert_eq!(listed.stdout, "src/a.txt\nhello");
    }

    #[tokio::test(start_paused = true)]
    async fn an_archive_that_ends_too_early_or_is_too_large_is_refused() {
        let machine = Machine::new();
        let ran = machine.sh("echo hello > /a; tar cf - /a | head -c 514 | tar xf - -C /tmp").await;
        assert_eq!(ran.status, 1, "{ran:?}");
        assert!(ran.stderr.ends_with("tar: invalid tar archive: it ends too early\n"), "{ran:?}");
        let mut header = tar::Header::new_gnu();
        header.set_path("huge").expect("a path");
        header.set_size(1 << 40);
        header.set_cksum();
        machine.files.write("/huge.tar", header.as_bytes().to_vec()).expect("room");
        let ran = machine.sh("tar xf /huge.tar").await;
        assert_eq!((ran.status, ran.stderr.as_str()), (1, "tar: write error: No space left on device\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_archive_that_is_none_is_refused() {
        let machine = Machine::new();
        let ran = machine.run(&["tar", "xf", "-"], &"not an archive ".repeat(100)).await;
        assert_eq!(ran.status, 1);
        assert!(ran.stderr.starts_with("tar: invalid tar archive: "), "{ran:?}");
    }
}
