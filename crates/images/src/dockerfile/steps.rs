//! Instructions as steps.

mod files;

use std::collections::BTreeMap;

use super::{
    Build, Dockerfile, DockerfileError, From, Note, Plan, Step, StepKind,
    expand::{self, Value},
    lines::Instruction,
    quote, words,
};
use crate::limits;

/// Variables by name; none: it has a value, but that is not known here.
type Variables = BTreeMap<String, Option<String>>;

/// What `CMD` or `ENTRYPOINT` said.
enum Command {
    Exec(Vec<String>),
    Shell(String),
}

pub(super) struct Converter<'a> {
    file: &'a Dockerfile,
    build: &'a Build<'a>,
    /// Those of `ARG`s before `FROM`, and those that are always there.
    global: Variables,
    args: Variables,
    envs: Variables,
    shell: Vec<String>,
    spent: usize,
    steps: Vec<Step>,
    notes: Vec<Note>,
    entrypoint: Option<Command>,
    cmd: Option<Command>,
}

impl<'a> Converter<'a> {
    pub(super) fn new(file: &'a Dockerfile, build: &'a Build<'a>) -> Self {
        let mut global = Variables::new();
        if let Some(platform) = build.platform {
            for side in ["TARGET", "BUILD"] {
                global.insert(format!("{side}PLATFORM"), Some(platform.to_string()));
                global.insert(format!("{side}OS"), Some(platform.os.clone()));
                global.insert(format!("{side}ARCH"), Some(platform.architecture.clone()));
                global.insert(format!("{side}VARIANT"), Some(platform.variant.clone()));
            }
        }
        let base = build.base.map(|base| base.env.clone()).unwrap_or_default();
        Self {
            file,
            build,
            global,
            args: Variables::new(),
            envs: base.into_iter().map(|(name, value)| (name, Some(value))).collect(),
            shell: build.base.map(|base| base.shell.clone()).unwrap_or_default(),
            spent: 0,
            steps: Vec::new(),
            notes: Vec::new(),
            entrypoint: None,
            cmd: None,
        }
    }

    pub(super) fn from(&mut self) -> Result<From, DockerfileError> {
        let file = self.file;
        for one in &file.instructions[..file.from] {
            for word in arguments(one, file.escape)? {
                let (name, value) = self.arg(one, &word, true)?;
                self.global.insert(name, value);
            }
        }
        let one = &file.instructions[file.from];
        let parts: Vec<&str> = one.rest.split_whitespace().collect();
        let image = match parts.as_slice() {
            [image] => image,
            [image, word, _] if word.eq_ignore_ascii_case("as") => image,
            _ => return Err(one.error("FROM has the form: FROM image, or FROM image AS name")),
        };
        let mut platform = None;
        for flag in &one.flags {
            match flag.split_once('=') {
                Some(("--platform", value)) => platform = Some(self.global_word(one, value)?),
                _ => return Err(one.error(format!("FROM has no option {flag:?}"))),
            }
        }
        let image = self.global_word(one, image)?;
        if image.is_empty() {
            return Err(one.error("the name of the image is empty: give its ARG a value"));
        }
        Ok(From {
            image,
            platform,
            line: one.line,
        })
    }

    pub(super) fn plan(mut self) -> Result<Plan, DockerfileError> {
        let from = self.from()?;
        for one in &self.file.instructions[self.file.from + 1..] {
            self.instruction(one)?;
        }
        let declared = |name: &str| self.args.contains_key(name) || self.global.contains_key(name);
        for name in self.build.args.keys().filter(|name| !declared(name)) {
            self.notes.push(Note {
                line: from.line,
                text: format!("a value was given for {name}, but there is no ARG {name}"),
            });
        }
        let start = self.start();
        let sets = |kind| self.steps.iter().any(|step| step.kind == kind);
        Ok(Plan {
            from,
            sets_user: sets(StepKind::User),
            sets_workdir: sets(StepKind::Workdir),
            steps: self.steps,
            start,
            notes: self.notes,
        })
    }

    fn instruction(&mut self, one: &Instruction) -> Result<(), DockerfileError> {
        match one.name {
            "RUN" => self.run(one),
            "COPY" | "ADD" => self.copy(one),
            "ENV" => self.env(one),
            "ARG" => self.args(one),
            "WORKDIR" | "USER" => {
                let value = self.word(one, &one.rest)?;
                if value.is_empty() {
                    return Err(one.error(format!("{} needs a value", one.name)));
                }
                let kind = if one.name == "USER" {
                    StepKind::User
                } else {
                    StepKind::Workdir
                };
                self.step(one, kind, vec![value]);
                Ok(())
            }
            "CMD" => {
                self.cmd = Some(command(one)?);
                Ok(())
            }
            "ENTRYPOINT" => {
                self.entrypoint = Some(command(one)?);
                Ok(())
            }
            "SHELL" => match words::json(&one.rest) {
                Some(Ok(shell)) if !shell.is_empty() => {
                    self.shell = shell;
                    Ok(())
                }
                _ => Err(one.error("SHELL has the form: SHELL [\"/bin/bash\", \"-c\"]")),
            },
            name => {
                let why = match name {
                    "HEALTHCHECK" => "nobody asks for its state here",
                    "ONBUILD" => "it is for builds on this one, which do not read it",
                    "STOPSIGNAL" => "a sandbox is ended as a whole",
                    "EXPOSE" => "every port of a sandbox can be reached",
                    "VOLUME" => "a sandbox keeps its files itself",
                    _ => "it changes nothing in the files",
                };
                self.notes.push(Note {
                    line: one.line,
                    text: format!("{name} was left out: {why}"),
                });
                Ok(())
            }
        }
    }

    fn run(&mut self, one: &Instruction) -> Result<(), DockerfileError> {
        for flag in &one.flags {
            if flag == "--network=default" || flag == "--security=sandbox" {
                continue;
            }
            let name = flag.split('=').next().unwrap_or_default();
            return Err(one.error(match name {
                "--mount" => {
                    "RUN --mount is not supported: COPY the files that it needs, and remove them in the same RUN \
                     if they shall not stay; for a cache, leave it out"
                        .to_owned()
                }
                _ => format!("RUN {name} is not supported: leave it out"),
            }));
        }
        if one.rest.is_empty() {
            return Err(one.error("RUN needs a command"));
        }
        let line = match words::json(&one.rest) {
            Some(words) => quote::join(&words.map_err(|why| one.error(why))?),
            None => self.in_shell(match files::script(one) {
                Some(script) => script,
                None => one.heredocs.iter().fold(one.rest.clone(), |line, heredoc| {
                    format!("{line}\n{}{}", heredoc.content, heredoc.name)
                }),
            }),
        };
        self.step(one, StepKind::Run, vec![line]);
        Ok(())
    }

    /// A command line for `SHELL`'s shell, if there is one.
    fn in_shell(&self, line: String) -> String {
        if self.shell.is_empty() || self.shell == ["/bin/sh", "-c"] {
            return line;
        }
        quote::join(self.shell.iter().chain([&line]))
    }

    fn env(&mut self, one: &Instruction) -> Result<(), DockerfileError> {
        let escape = self.file.escape;
        let parts = words::words(&one.rest, escape);
        let first = parts
            .first()
            .ok_or_else(|| one.error("ENV has the form: ENV NAME=value"))?;
        let mut pairs = Vec::new();
        if first.contains('=') {
            for part in &parts {
                let pair = part.split_once('=');
                pairs.push(
                    pair.ok_or_else(|| one.error(format!("there is no = in {part:?}; a value with blanks is quoted")))?,
                );
            }
        } else {
            // The older form: a name, and the rest of the line.
            let pair = one.rest.split_once(|c: char| c.is_whitespace());
            let (name, value) = pair.ok_or_else(|| one.error("ENV has the form: ENV NAME=value"))?;
            pairs.push((name, value.trim_start()));
        }
        let mut args = Vec::new();
        let mut set = Vec::new();
        for (name, value) in pairs {
            let name = self.word(one, name)?;
            if name.is_empty() {
                return Err(one.error("the name of a variable is empty"));
            }
            // All of one instruction see the values from before it.
            let (value, known) = self.known_word(one, value)?;
            args.extend([name.clone(), value.clone()]);
            set.push((name, known.then_some(value)));
        }
        self.envs.extend(set);
        self.step(one, StepKind::Env, args);
        Ok(())
    }

    fn args(&mut self, one: &Instruction) -> Result<(), DockerfileError> {
        let mut args = Vec::new();
        for word in arguments(one, self.file.escape)? {
            let (name, value) = self.arg(one, &word, false)?;
            if let Some(value) = &value {
                args.extend([name.clone(), value.clone()]);
            }
            self.args.insert(name, value);
        }
        if !args.is_empty() {
            self.step(one, StepKind::Arg, args);
        }
        Ok(())
    }

    /// Name and value of an `ARG`; none: it has no value.
    fn arg(
        &mut self,
        one: &Instruction,
        word: &str,
        global: bool,
    ) -> Result<(String, Option<String>), DockerfileError> {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default)),
            None => (word, None),
        };
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(one.error(format!("{name:?} is not the name of a variable")));
        }
        if let Some(given) = self.build.args.get(name) {
            return Ok((name.to_owned(), Some(given.clone())));
        }
        let value = match default {
            Some(default) if global => Some(self.global_word(one, default)?),
            Some(default) => Some(self.word(one, default)?),
            None => self.global.get(name).cloned().flatten(),
        };
        Ok((name.to_owned(), value))
    }

    fn global_word(&mut self, one: &Instruction, word: &str) -> Result<String, DockerfileError> {
        let value = |name: &str| match self.global.get(name) {
            Some(Some(value)) => Value::Set(value.clone()),
            _ => Value::Unset,
        };
        let word = expand::word(word, self.file.escape, &value).map_err(|why| one.error(why))?;
        self.spend(one, word.len())?;
        Ok(word)
    }

    /// What a variable is for the instruction that comes now.
    fn value(&self, name: &str) -> Value {
        match self.envs.get(name).or_else(|| self.args.get(name)) {
            Some(Some(value)) => Value::Set(value.clone()),
            // An ARG without a value is not there, but the image below may have a variable of the name.
            _ if self.build.base.is_none() => Value::Keep,
            _ => Value::Unset,
        }
    }

    fn word(&mut self, one: &Instruction, word: &str) -> Result<String, DockerfileError> {
        Ok(self.known_word(one, word)?.0)
    }

    /// A word, and whether nothing in it was left for later.
    fn known_word(&mut self, one: &Instruction, word: &str) -> Result<(String, bool), DockerfileError> {
        let kept = std::cell::Cell::new(false);
        let value = |name: &str| {
            let value = self.value(name);
            kept.set(kept.get() || (value == Value::Keep && !name.is_empty()));
            value
        };
        let word = expand::word(word, self.file.escape, &value).map_err(|why| one.error(why))?;
        self.spend(one, word.len())?;
        Ok((word, !kept.get()))
    }

    fn spend(&mut self, one: &Instruction, bytes: usize) -> Result<(), DockerfileError> {
        self.spent += bytes;
        if self.spent > limits::PLAN_BYTES {
            return Err(one.error(format!("its variables grow to more than {} bytes", limits::PLAN_BYTES)));
        }
        Ok(())
    }

    fn step(&mut self, one: &Instruction, kind: StepKind, args: Vec<String>) {
        self.steps.push(Step {
            kind,
            args,
            line: one.line,
            text: one.text.clone(),
        });
    }

    /// Docker's rule: the arguments of `CMD` follow `ENTRYPOINT`, unless that is a line for a shell.
    fn start(&self) -> Option<String> {
        let inherited = || {
            let words = &self.build.base?.entrypoint;
            (!words.is_empty()).then(|| Command::Exec(words.clone()))
        };
        let from_base = match (&self.entrypoint, &self.cmd) {
            (None, Some(_)) => inherited(),
            _ => None,
        };
        let line = match (self.entrypoint.as_ref().or(from_base.as_ref()), &self.cmd) {
            (Some(Command::Exec(words)), None) | (None, Some(Command::Exec(words))) => quote::join(words),
            (Some(Command::Exec(words)), Some(Command::Exec(more))) => quote::join(words.iter().chain(more)),
            (Some(Command::Exec(words)), Some(Command::Shell(line))) => {
                let sh = ["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = if self.shell.is_empty() { &sh[..] } else { &self.shell };
                quote::join(words.iter().chain(shell).chain([line]))
            }
            (Some(Command::Shell(line)), _) | (None, Some(Command::Shell(line))) => {
                if line.is_empty() {
                    String::new()
                } else {
                    self.in_shell(line.clone())
                }
            }
            (None, None) => return None,
        };
        (!line.trim().is_empty()).then_some(line)
    }
}

fn arguments(one: &Instruction, escape: char) -> Result<Vec<String>, DockerfileError> {
    let words = words::words(&one.rest, escape);
    if words.is_empty() {
        return Err(one.error("ARG has the form: ARG NAME or ARG NAME=value"));
    }
    Ok(words)
}

fn command(one: &Instruction) -> Result<Command, DockerfileError> {
    match words::json(&one.rest) {
        Some(words) => Ok(Command::Exec(words.map_err(|why| one.error(why))?)),
        None => Ok(Command::Shell(one.rest.clone())),
    }
}
