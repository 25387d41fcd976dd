//! Dockerfiles, as the steps of a template build.
//!
//! [`Dockerfile::parse`] reads the text, [`Dockerfile::from`] says which image is below, and [`Dockerfile::plan`] gives the
//! steps over it, in the form in which E2B's SDKs send them. A build has one stage. What cannot be done is refused, with the
//! line and with what to do instead; what only describes an image is left out, with a note.

mod expand;
mod lines;
mod quote;
mod steps;
mod words;

use std::collections::BTreeMap;

use lines::Instruction;

use crate::{Config, Platform, limits};

/// A Dockerfile of one stage.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    instructions: Vec<Instruction>,
    /// Where among them `FROM` is.
    from: usize,
    escape: char,
}

/// What is known of a build besides its Dockerfile.
#[derive(Debug, Clone, Default)]
pub struct Build<'a> {
    /// Values for its `ARG`s.
    pub args: BTreeMap<String, String>,
    /// What it is made for; `ARG TARGETARCH` and its kin tell it.
    pub platform: Option<&'a Platform>,
    /// The image below. Without it variables that the Dockerfile does not set are left as they stand, `$PATH` say: who
    /// does the steps replaces them, as E2B does.
    pub base: Option<&'a Config>,
}

/// The image that a Dockerfile stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Its name; `scratch` is no image, but nothing.
    pub image: String,
    /// What `--platform` says.
    pub platform: Option<String>,
    /// The line of `FROM`, from 1 on.
    pub line: usize,
}

/// What a build does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The image below.
    pub from: From,
    /// The steps over it, in order.
    pub steps: Vec<Step>,
    /// What `ENTRYPOINT` and `CMD` start, as a shell's command line.
    pub start: Option<String>,
    /// What was left out.
    pub notes: Vec<Note>,
    /// Whether `USER` says who runs things at the end.
    pub sets_user: bool,
    /// Whether `WORKDIR` says where things run at the end.
    pub sets_workdir: bool,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// What with. `RUN`: a shell's command line, and then possibly the user. `COPY`: the source, the destination, `user` or
    /// `user:group` or nothing, four octal digits of a mode or nothing. `ENV` and `ARG`: names and values by turns.
    /// `WORKDIR` and `USER`: one.
    pub args: Vec<String>,
    /// The line of its instruction, from 1 on.
    pub line: usize,
    /// The instruction as it stands there, cut if it is long.
    pub text: String,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Runs a command.
    Run,
    /// Copies files of the context.
    Copy,
    /// Sets variables, also of the image.
    Env,
    /// Sets variables for the steps that follow, not of the image.
    Arg,
    /// Sets and makes the working folder.
    Workdir,
    /// Sets who runs commands.
    User,
}

impl StepKind {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "RUN",
            Self::Copy => "COPY",
            Self::Env => "ENV",
            Self::Arg => "ARG",
            Self::Workdir => "WORKDIR",
            Self::User => "USER",
        }
    }
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The line, from 1 on.
    pub line: usize,
    /// What and why.
    pub text: String,
}

/// A line of a Dockerfile that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the Dockerfile: {why}: {text:?}")]
pub struct DockerfileError {
    /// The line, from 1 on.
    pub line: usize,
    /// The instruction, cut if it is long.
    pub text: String,
    /// What is wrong, and what to do.
    pub why: String,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// It is too large, has an unknown instruction, a part that is not ended, or not one `FROM`.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let whole = |why: String| DockerfileError {
            line: 1,
            text: cut(text.lines().next().unwrap_or_default()),
            why,
        };
        if text.len() > limits::DOCKERFILE_BYTES {
            return Err(whole(format!("it is larger than {} bytes", limits::DOCKERFILE_BYTES)));
        }
        let (instructions, escape) = lines::read(text)?;
        let mut froms = instructions.iter().enumerate().filter(|(_, one)| one.name == "FROM");
        let Some((from, _)) = froms.next() else {
            return Err(whole(
                "there is no FROM: its first instruction names the image to build on".to_owned(),
            ));
        };
        if let Some((_, second)) = froms.next() {
            return Err(second.error(
                "a build of several stages is not supported: build the earlier stages with another program, put what they \
                 make into the context, and COPY it from there",
            ));
        }
        if let Some(early) = instructions[..from].iter().find(|one| one.name != "ARG") {
            return Err(early.error("only ARG may stand before FROM"));
        }
        Ok(Self {
            instructions,
            from,
            escape,
        })
    }

    /// The image to build on. Variables in its name are the `ARG`s before it.
    ///
    /// # Errors
    /// `FROM` is not complete, or its variables are not.
    pub fn from(&self, build: &Build<'_>) -> Result<From, DockerfileError> {
        steps::Converter::new(self, build).from()
    }

    /// The steps over that image.
    ///
    /// # Errors
    /// The first instruction that cannot be done.
    pub fn plan(&self, build: &Build<'_>) -> Result<Plan, DockerfileError> {
        steps::Converter::new(self, build).plan()
    }
}

/// A line as an error shows it.
fn cut(line: &str) -> String {
    let mut short: String = line.trim().chars().take(limits::LINE_CHARS).collect();
    if short.len() < line.trim().len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
