//! The steps of a build, each as E2B's builder understands it.

use std::collections::BTreeMap;

use sandhold_runtime::StoredRoot;
use sandhold_wire::{names::DEFAULT_USER, templates::TemplateStep};

use super::{
    super::{cache::Done, logs::Level, uploads::check_hash},
    Building, Failure,
    scripts::{ADD_USER, COPY, WORKDIR, evaluate},
    workshop::{Shell, Task, Workshop},
};
use crate::{
    entry::Start,
    error::Refusal,
    limits::{BUILD_ARGUMENT, BUILD_OWN_TIME, BUILD_STEP_TIME},
};

/// What a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Run { cmd: String, user: Option<String> },
    Copy(Copy),
    Env(Vec<(String, String)>),
    Workdir(String),
    User(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) hash: String,
    src: String,
    dest: String,
    owner: Option<String>,
    mode: String,
}

impl Step {
    /// Reads a step, as far as that can be without a sandbox.
    pub(super) fn parse(step: &TemplateStep) -> Result<Self, Refusal> {
        let kind = step.kind.to_ascii_uppercase();
        let bad = |why: &str| Refusal::bad_request(format!("{kind} {why}"));
        if let Some(long) = step
            .args
            .iter()
            .find(|arg| arg.len() > BUILD_ARGUMENT || arg.contains('\0'))
        {
            return Err(bad(&format!(
                "has an argument of {} bytes; at most {BUILD_ARGUMENT} without a zero byte are allowed",
                long.len()
            )));
        }
        let arg = |n: usize| step.args.get(n).filter(|arg| !arg.is_empty()).cloned();
        match kind.as_str() {
            "RUN" => Ok(Self::Run {
                cmd: arg(0).ok_or_else(|| bad("needs a command"))?,
                user: arg(1),
            }),
            "ENV" | "ARG" => {
                let (pairs, rest) = step.args.as_chunks::<2>();
                if pairs.is_empty() || !rest.is_empty() {
                    return Err(bad("needs names, each with a value"));
                }
                if let Some([name, _]) = pairs.iter().find(|[name, _]| name.is_empty() || name.contains('=')) {
                    return Err(bad(&format!(
                        "cannot set {name:?}: names are not empty and hold no `=`"
                    )));
                }
                Ok(Self::Env(
                    pairs.iter().cloned().map(|[name, value]| (name, value)).collect(),
                ))
            }
            "WORKDIR" => Ok(Self::Workdir(arg(0).ok_or_else(|| bad("needs a path"))?)),
            "USER" => Ok(Self::User(arg(0).ok_or_else(|| bad("needs a name"))?)),
            "COPY" | "ADD" => {
                let (Some(src), Some(dest)) = (arg(0), arg(1)) else {
                    return Err(bad("needs a source and a destination"));
                };
                let hash = step.files_hash.clone().unwrap_or_default();
                check_hash(&hash).map_err(|_| bad("needs filesHash, by which its files were uploaded"))?;
                let mode = arg(3).unwrap_or_default();
                if mode.len() > 5 || !mode.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
                    return Err(bad(&format!("has the mode {mode:?}, which is not octal: 0755")));
                }
                Ok(Self::Copy(Copy {
                    hash,
                    src: source(&src)
                        .ok_or_else(|| bad(&format!("has the source {src:?}, which leads out of the files")))?,
                    dest,
                    owner: arg(2),
                    mode,
                }))
            }
            _ => {
                let shown: String = step.kind.chars().take(40).collect();
                Err(Refusal::bad_request(format!(
                    "{shown:?} is no step: RUN, COPY, ENV, ARG, WORKDIR and USER are"
                )))
            }
        }
    }
}

/// What is copied of the files: the path before the first part with a wildcard, which the client has looked at.
fn source(text: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" if parts.is_empty() && text.starts_with('/') => return None,
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part if part.contains(['*', '?', '[', '{']) => break,
            part => parts.push(part),
        }
    }
    Some(if parts.is_empty() { ".".into() } else { parts.join("/") })
}

impl Building<'_> {
    pub(super) async fn step(&mut self, asked: &TemplateStep, number: usize, count: usize) -> Result<(), Failure> {
        let label = number.to_string();
        let step = Step::parse(asked).map_err(Failure::at(&label))?;
        let shown: String = asked.args.join(" ").chars().take(200).collect();
        let head = format!("[{number}/{count}] {} {shown}", asked.kind.to_ascii_uppercase());
        let mut parts: Vec<&[u8]> = vec![asked.kind.as_bytes()];
        parts.extend(asked.args.iter().map(String::as_bytes));
        let hash = asked.files_hash.clone().unwrap_or_default();
        parts.push(hash.as_bytes());
        let key = self.key(&parts, &label)?;
        if self.cached(&key, &label).await? {
            self.log.line(Level::Info, Some(&label), format!("CACHED {head}"));
            return Ok(());
        }
        self.log.line(Level::Info, Some(&label), head);
        let done = self.perform(step, &label).await?;
        self.done(&key, &label, done).await
    }

    async fn perform(&mut self, step: Step, label: &str) -> Result<Done, Failure> {
        let mut start = self.start.clone();
        let root = match step {
            Step::Run { cmd, user } => {
                let task = Task {
                    step: label,
                    script: cmd,
                    user: user.or_else(|| Some(user_of(&start))),
                    cwd: start.workdir.clone(),
                    envs: start.envs.clone(),
                    shell: Shell::Login,
                    within: BUILD_STEP_TIME,
                    level: Level::Info,
                };
                self.in_sandbox(label, task).await?.1
            }
            Step::Copy(copy) => self.copy(copy, label).await?,
            Step::Env(pairs) => {
                for (name, value) in pairs {
                    let value = self.evaluated(value, &start, label).await?;
                    start.envs.insert(name, value);
                }
                self.root.clone()
            }
            Step::Workdir(path) => {
                let path = self.evaluated(path, &start, label).await?;
                let path = match (path.starts_with('/'), &start.workdir) {
                    (true, _) => path,
                    (false, Some(below)) => format!("{}/{path}", below.trim_end_matches('/')),
                    (false, None) => format!("/{path}"),
                };
                let user = user_of(&start);
                let task = self.own_task(label, WORKDIR, [("SH_PATH", path), ("SH_USER", user)]);
                let (printed, root) = self.in_sandbox(label, task).await?;
                start.workdir = Some(printed.trim_end_matches('\n').to_owned());
                root
            }
            Step::User(name) => {
                let name = self.evaluated(name, &start, label).await?;
                // A group, as Docker has it, is the user's own here.
                let name = name.split(':').next().unwrap_or_default();
                // Where there is one user only, all files are that one's, as they are root's elsewhere.
                let name = if name == "root" && self.has_one_user() {
                    DEFAULT_USER
                } else {
                    name
                }
                .to_owned();
                let task = self.own_task(label, ADD_USER, [("SH_USER", name.clone())]);
                let root = self.in_sandbox(label, task).await?.1;
                start.user = Some(name);
                root
            }
        };
        Ok(Done { root, start })
    }

    /// Whether the sandboxes of this machine have one user, and no root.
    fn has_one_user(&self) -> bool {
        !self.job.sandboxes.info().can_switch_user
    }

    /// A script of the server's own, which root runs.
    fn own_task<'a, const N: usize>(&self, step: &'a str, script: &str, envs: [(&str, String); N]) -> Task<'a> {
        Task {
            step,
            script: script.to_owned(),
            user: None,
            cwd: Some("/".into()),
            envs: envs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            shell: Shell::Plain,
            within: BUILD_OWN_TIME,
            level: Level::Debug,
        }
    }

    /// Runs a task in a sandbox of its own. One without a user is root's.
    async fn in_sandbox(&self, label: &str, mut task: Task<'_>) -> Result<(String, StoredRoot), Failure> {
        let workshop = Workshop::open(self, label).await?;
        task.user = task
            .user
            .filter(|user| !self.has_one_user() || user != "root")
            .or_else(|| workshop.root_user());
        let done = workshop.run(self, task).await;
        workshop.close(self, label, done).await
    }

    /// A text in which the names of environment variables are replaced by their values.
    async fn evaluated(&self, text: String, start: &Start, label: &str) -> Result<String, Failure> {
        if !text.contains('$') {
            return Ok(text);
        }
        let workshop = Workshop::open(self, label).await?;
        let task = Task {
            step: label,
            script: evaluate(&text),
            user: workshop.root_user(),
            cwd: Some("/".into()),
            envs: start.envs.clone(),
            shell: Shell::Plain,
            within: BUILD_OWN_TIME,
            level: Level::Debug,
        };
        let printed = workshop.run(self, task).await;
        workshop.end().await;
        printed
    }

    async fn copy(&self, copy: Copy, label: &str) -> Result<StoredRoot, Failure> {
        let failed = |message: String| Failure::new(label, message);
        let uploads = &self.job.sandboxes.templates.uploads;
        let path = uploads.path(self.job.owner, &copy.hash);
        // So that it is not removed meanwhile.
        uploads.present(self.job.owner, &copy.hash);
        let mut file = tokio::fs::File::open(&path).await.map_err(|error| {
            failed(format!(
                "the files of {} are not there, upload them again: {error}",
                copy.src
            ))
        })?;
        let mut magic = [0; 2];
        let read = tokio::io::AsyncReadExt::read(&mut file, &mut magic).await;
        let zipped = read.map_err(|error| failed(error.to_string()))? == 2 && magic == [0x1f, 0x8b];
        tokio::io::AsyncSeekExt::rewind(&mut file)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let start = &self.start;
        let user = user_of(start);
        let owner = copy.owner.filter(|_| !self.has_one_user());
        let owner = owner.unwrap_or_else(|| user.clone());
        let dest = self.evaluated(copy.dest, start, label).await?;
        let archive = format!("/tmp/.copy-{}", &copy.hash[..16]);
        let envs: BTreeMap<String, String> = [
            ("SH_ARCHIVE", archive.clone()),
            ("SH_ZIP", if zipped { "z" } else { "" }.to_owned()),
            ("SH_SRC", copy.src),
            ("SH_DEST", dest),
            // Of whom no group is said gets that of their login.
            (
                "SH_OWNER",
                if owner.contains(':') {
                    owner
                } else {
                    format!("{owner}:")
                },
            ),
            ("SH_MODE", copy.mode),
            ("SH_WORKDIR", start.workdir.clone().unwrap_or_default()),
            ("SH_USER", user),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let workshop = Workshop::open(self, label).await?;
        let task = Task {
            envs,
            user: workshop.root_user(),
            ..self.own_task(label, COPY, [])
        };
        let done = match workshop.put(label, file, &archive).await {
            Ok(()) => workshop.run(self, task).await,
            Err(failure) => Err(failure),
        };
        Ok(workshop.close(self, label, done).await?.1)
    }
}

/// Whom the steps are done as.
fn user_of(start: &Start) -> String {
    start.user.clone().unwrap_or_else(|| DEFAULT_USER.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(kind: &str, args: &[&str]) -> TemplateStep {
        TemplateStep {
            kind: kind.into(),
            args: args.iter().map(ToString::to_string).collect(),
            files_hash: Some("0".repeat(64)),
            force: false,
        }
    }

    #[test]
    fn steps_are_read() {
        let read = |kind: &str, args: &[&str]| Step::parse(&step(kind, args));
        assert!(
            matches!(read("RUN", &["true", "root"]).unwrap(), Step::Run { user: Some(user), .. } if user == "root")
        );
        assert!(matches!(read("arg", &["A", "1", "B", ""]).unwrap(), Step::Env(pairs) if pairs.len() == 2));
        let Step::Copy(copy) = read("COPY", &["src/*.py", "/app", "", "0644"]).unwrap() else {
            panic!("no copy");
        };
        assert_eq!(
            (copy.src.as_str(), copy.owner, copy.mode.as_str()),
            ("src", None, "0644")
        );
        for (kind, args) in [
            ("RUN", &[][..]),
            ("ENV", &["A"]),
            ("ENV", &["A=B", "1"]),
            ("WORKDIR", &[""]),
            ("COPY", &["a"]),
            ("COPY", &["../a", "/b"]),
            ("COPY", &["/a", "/b"]),
            ("COPY", &["a", "/b", "", "u+x"]),
            ("VOLUME", &["/x"]),
        ] {
            assert!(read(kind, args).is_err(), "{kind} {args:?}");
        }
        let mut without = step("COPY", &["a", "b"]);
        without.files_hash = None;
        assert!(Step::parse(&without).is_err());
    }

    #[test]
    fn sources_are_below_the_files() {
        for (text, wanted) in [
            ("a.txt", "a.txt"),
            ("./a/b/", "a/b"),
            (".", "."),
            ("*.txt", "."),
            ("a/**/b", "a"),
            ("a/../b", "b"),
        ] {
            assert_eq!(source(text).as_deref(), Some(wanted), "{text}");
        }
        assert_eq!(source("a/../../b"), None);
    }
}
