//! Redirections: descriptors opened, duplicated and closed for one command.

use super::expand::Quoting;
use super::{Descriptor, Shell, Step};
use crate::files::resolve;
use crate::programs::stdio::{SharedInput, SharedOutput, open_input, open_output, reason};
use brush_parser::ast::{IoFileRedirectKind as Kind, IoFileRedirectTarget as Target, IoRedirect};
use std::io::Cursor;

impl Shell {
    /// Applies redirections in order. The error is the step with which the command fails.
    pub(super) async fn redirect<'r>(&mut self, redirects: impl Iterator<Item = &'r IoRedirect>) -> Result<(), Step> {
        for redirect in redirects {
            self.redirect_one(redirect).await?;
        }
        Ok(())
    }

    async fn redirect_one(&mut self, redirect: &IoRedirect) -> Result<(), Step> {
        match redirect {
            IoRedirect::File(number, kind, target) => self.redirect_file(*number, kind, target).await,
            IoRedirect::OutputAndError(word, append) => {
                let path = self.expand_to_string(&word.value, Quoting::Unquoted).await.map_err(Err)?;
                self.redirect_both(&path, *append).await
            }
            IoRedirect::HereString(number, word) => {
                let text = self.expand_to_string(&word.value, Quoting::Unquoted).await.map_err(Err)?;
                self.here(number.unwrap_or(0), text + "\n");
                Ok(())
            }
            IoRedirect::HereDocument(number, document) => {
                let mut text = document.doc.value.clone();
                if document.remove_tabs {
                    text = text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect();
                }
                if document.requires_expansion {
                    text = self.expand_here_document(&text).await.map_err(Err)?;
                }
                self.here(number.unwrap_or(0), text);
                Ok(())
            }
        }
    }

    fn here(&mut self, number: i32, text: String) {
        let input = SharedInput::new(Cursor::new(text.into_bytes()));
        self.descriptors.insert(number, Descriptor::Input(input));
    }

    async fn redirect_file(&mut self, number: Option<i32>, kind: &Kind, target: &Target) -> Result<(), Step> {
        let number = |default: i32| number.unwrap_or(default);
        match (kind, target) {
            (_, Target::ProcessSubstitution(..)) => {
                Err(Err(self.mistake("process substitution is not supported").await))
            }
            (Kind::DuplicateInput | Kind::DuplicateOutput, Target::Fd(from)) => {
                let default = i32::from(matches!(kind, Kind::DuplicateOutput));
                self.duplicate(*from, number(default)).await
            }
            (_, Target::Fd(from)) => self.duplicate(*from, number(1)).await,
            (_, Target::Filename(word) | Target::Duplicate(word)) => {
                let path = self.expand_to_string(&word.value, Quoting::Unquoted).await.map_err(Err)?;
                match kind {
                    Kind::DuplicateInput | Kind::DuplicateOutput => {
                        let default = i32::from(matches!(kind, Kind::DuplicateOutput));
                        if path == "-" {
                            self.descriptors.remove(&number(default));
                            Ok(())
                        } else if let Ok(from) = path.trim_end_matches('-').parse() {
                            self.duplicate(from, number(default)).await
                        } else {
                            self.redirect_both(&path, false).await
                        }
                    }
                    Kind::Read => self.read_from(&path, number(0)).await,
                    Kind::Write | Kind::Clobber => self.write_to(&path, number(1), false).await,
                    Kind::Append => self.write_to(&path, number(1), true).await,
                    Kind::ReadAndWrite => self.read_from(&path, number(0)).await,
                }
            }
        }
    }

    async fn redirect_both(&mut self, path: &str, append: bool) -> Result<(), Step> {
        self.write_to(path, 1, append).await?;
        self.duplicate(1, 2).await
    }

    async fn duplicate(&mut self, from: i32, to: i32) -> Result<(), Step> {
        match self.descriptors.get(&from).cloned() {
            Some(descriptor) => {
                self.descriptors.insert(to, descriptor);
                Ok(())
            }
            None => {
                self.complain(&format!("{from}: Bad file descriptor")).await;
                Err(Ok(1))
            }
        }
    }

    async fn read_from(&mut self, path: &str, number: i32) -> Result<(), Step> {
        if let Some(from) = descriptor_of(path) {
            return self.duplicate(from, number).await;
        }
        match open_input(&self.world.files, &resolve(&self.cwd, path)) {
            Ok(input) => {
                self.descriptors.insert(number, Descriptor::Input(SharedInput::new(input)));
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.complain(&format!("can't open {path}: no such file")).await;
                Err(Ok(1))
            }
            Err(error) => {
                self.complain(&format!("can't open {path}: {}", reason(&error))).await;
                Err(Ok(1))
            }
        }
    }

    async fn write_to(&mut self, path: &str, number: i32, append: bool) -> Result<(), Step> {
        if let Some(from) = descriptor_of(path) {
            return self.duplicate(from, number).await;
        }
        match open_output(&self.world.files, &resolve(&self.cwd, path), append) {
            Ok(output) => {
                self.descriptors.insert(number, Descriptor::Output(SharedOutput::new(output)));
                Ok(())
            }
            Err(error) => {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => "nonexistent directory".to_owned(),
                    _ => reason(&error),
                };
                self.complain(&format!("can't create {path}: {why}")).await;
                Err(Ok(1))
            }
        }
    }
}

/// The descriptor that a path in `/dev` or `/proc` means. Process 1 writes where the container's output goes, as the shell does.
fn descriptor_of(path: &str) -> Option<i32> {
    match path {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        _ => {
            let number =
                ["/dev/fd/", "/proc/self/fd/", "/proc/1/fd/"].iter().find_map(|base| path.strip_prefix(base))?;
            number.parse().ok()
        }
    }
}
