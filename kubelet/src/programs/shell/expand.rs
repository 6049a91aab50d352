//! Word expansion (POSIX 2.6): tilde, commands, arithmetic; [`super::parameter`] does parameters, [`super::braces`] braces, and
//! [`super::fields`] splits and matches paths.

use super::braces::braces;
use super::fields::Fields;
use super::source::{depth, guarded, parser_options};
use super::{Descriptor, Interrupt, NESTING, Shell};
use crate::programs::stdio::{pipe, read_all};
use brush_parser::ast;
use brush_parser::word::{self, Parameter, ParameterExpr, SpecialParameter, WordPiece, WordPieceWithSource};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Words within words: `${a:-${b:-…}}`.
pub(super) const WORD_DEPTH: usize = 24;

/// Whether a text stands within double quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    Quoted,
    Unquoted,
}

/// Where a piece stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) quoted: bool,
    /// Literal text is split too: it is the word of an unquoted `${x:-word}`.
    pub(super) inner: bool,
}

pub(super) type Expanded<T> = Result<T, Interrupt>;

impl Shell {
    /// All arguments that words expand to.
    pub(super) async fn expand_words<'w>(
        &mut self,
        words: impl Iterator<Item = &'w ast::Word>,
    ) -> Expanded<Vec<String>> {
        let mut arguments = Vec::new();
        for word in words {
            self.expand_word(&word.value, &mut arguments).await?;
        }
        Ok(arguments)
    }

    /// All arguments that a word expands to.
    pub(super) async fn expand_word(&mut self, word: &str, arguments: &mut Vec<String>) -> Expanded<()> {
        if !word.contains(['$', '`', '"', '\'', '\\', '~', '*', '?', '[', '{']) {
            arguments.push(word.to_owned());
            return Ok(());
        }
        for word in braces(word) {
            let separators = self.lookup("IFS").unwrap_or_else(|| " \t\n".to_owned());
            let mut fields = Fields::split_by(separators);
            self.expand_into(&word, Quoting::Unquoted, &mut fields).await?;
            arguments.extend(fields.into_arguments(&self.world.files, &self.cwd, !self.settings.no_globbing));
        }
        Ok(())
    }

    /// The text a word expands to, unsplit: values, redirection targets, the word of `case`.
    pub(super) async fn expand_to_string(&mut self, word: &str, quoting: Quoting) -> Expanded<String> {
        let mut fields = Fields::whole();
        self.expand_into(word, quoting, &mut fields).await?;
        Ok(fields.into_text())
    }

    /// The pattern a word expands to.
    pub(super) async fn expand_to_pattern(&mut self, word: &str) -> Expanded<String> {
        let mut fields = Fields::whole();
        self.expand_into(word, Quoting::Unquoted, &mut fields).await?;
        Ok(fields.into_pattern())
    }

    /// The body of a here-document.
    pub(super) async fn expand_here_document(&mut self, text: &str) -> Expanded<String> {
        self.expand_to_string(text, Quoting::Quoted).await
    }

    async fn expand_into(&mut self, word: &str, quoting: Quoting, fields: &mut Fields) -> Expanded<()> {
        let quoted = quoting == Quoting::Quoted;
        let word = if quoted { word.to_owned() } else { self.tilde(word) };
        let pieces = self.parse_word(&word, quoted).await?;
        self.pieces(&pieces, Place { quoted, inner: false }, fields).await
    }

    /// `~` and `~/…` at the start of a word.
    pub(super) fn tilde(&mut self, word: &str) -> String {
        match word.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = self.lookup("HOME").unwrap_or_else(|| "/root".to_owned());
                format!("'{}'{rest}", home.replace('\'', "'\\''"))
            }
            _ => word.to_owned(),
        }
    }

    pub(super) async fn parse_word(&mut self, text: &str, quoted: bool) -> Expanded<Vec<WordPieceWithSource>> {
        if depth(text) > WORD_DEPTH {
            return Err(self.mistake("bad substitution: nested too deep").await);
        }
        let parsed = guarded(|| {
            let options = parser_options();
            if quoted { word::parse_heredoc(text, &options) } else { word::parse(text, &options) }
        });
        match parsed {
            Some(Ok(pieces)) => Ok(pieces),
            _ => Err(self.mistake(&format!("bad substitution: {text}")).await),
        }
    }

    pub(super) fn pieces<'a>(
        &'a mut self,
        pieces: &'a [WordPieceWithSource],
        place: Place,
        fields: &'a mut Fields,
    ) -> BoxFuture<'a, Expanded<()>> {
        async move {
            for piece in pieces {
                self.piece(&piece.piece, place, fields).await?;
            }
            Ok(())
        }
        .boxed()
    }

    async fn piece(&mut self, piece: &WordPiece, place: Place, fields: &mut Fields) -> Expanded<()> {
        match piece {
            WordPiece::Text(text) if place.inner && !place.quoted => fields.expansion(text, false),
            WordPiece::Text(text) => fields.literal(text, place.quoted),
            WordPiece::SingleQuotedText(text) => fields.literal(text, true),
            WordPiece::AnsiCQuotedText(text) => fields.literal(&ansi_c(text), true),
            WordPiece::EscapeSequence(text) => match text.strip_prefix('\\') {
                Some("\n") => {}
                Some(escaped) => fields.literal(escaped, true),
                None => fields.literal(text, true),
            },
            WordPiece::TildeExpansion(_) => fields.literal("~", true),
            WordPiece::DoubleQuotedSequence(inner) | WordPiece::GettextDoubleQuotedSequence(inner) => {
                if !self.is_empty_list(inner) {
                    fields.literal("", true);
                }
                self.pieces(inner, Place { quoted: true, inner: place.inner }, fields).await?;
            }
            WordPiece::CommandSubstitution(text) | WordPiece::BackquotedCommandSubstitution(text) => {
                let output = self.substitute(text).await?;
                fields.expansion(&output, place.quoted);
            }
            WordPiece::ArithmeticExpression(expression) => {
                let value = self.arithmetic(&expression.value).await?;
                fields.expansion(&value.to_string(), place.quoted);
            }
            WordPiece::ParameterExpansion(expression) => self.parameter(expression, place, fields).await?,
        }
        Ok(())
    }

    /// Whether a double-quoted sequence is just a `$@` without parameters: then it makes no field at all.
    fn is_empty_list(&self, pieces: &[WordPieceWithSource]) -> bool {
        let [WordPieceWithSource { piece: WordPiece::ParameterExpansion(expression), .. }] = pieces else {
            return false;
        };
        match expression {
            ParameterExpr::Parameter {
                parameter: Parameter::Special(SpecialParameter::AllPositionalParameters { concatenate: false }),
                ..
            } => self.positional.is_empty(),
            ParameterExpr::Parameter {
                parameter: Parameter::NamedWithAllIndices { name, concatenate: false }, ..
            } => self.elements(name).is_empty(),
            _ => false,
        }
    }

    /// The output of a command, without its trailing newlines.
    async fn substitute(&mut self, text: &str) -> Expanded<String> {
        if self.nesting >= NESTING {
            return Err(self.too_deep().await);
        }
        let mut subshell = self.fork();
        let (writer, reader) = pipe();
        subshell.descriptors.insert(1, Descriptor::Output(writer));
        let text = text.to_owned();
        let task = subshell.spawn(|shell| async move { shell.run_text(&text).await }.boxed());
        let output = read_all(reader);
        let output = if self.interactive {
            tokio::select! {
                output = output => output,
                () = super::run::interrupted(&mut self.signals) => return Err(Interrupt::Abandon(130)),
            }
        } else {
            output.await
        };
        let mut output = match output {
            Ok(output) => output,
            Err(error) => {
                let reason = crate::programs::stdio::reason(&error);
                return Err(self.mistake(&format!("command substitution: {reason}")).await);
            }
        };
        self.substitution = Some(self.until_interrupted(task).await?);
        output.retain(|byte| *byte != 0);
        while output.last() == Some(&b'\n') {
            output.pop();
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
}

/// A text as a shell word that stands for it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The text of `$'…'`, and of `echo -e`.
pub(super) fn ansi_c(text: &str) -> String {
    String::from_utf8_lossy(&crate::programs::escapes::unescape(text, crate::programs::escapes::Style::AnsiC).0)
        .into_owned()
}
