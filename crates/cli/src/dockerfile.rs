//! Dockerfiles as the steps of a build, with the files that they copy.

use std::{collections::BTreeMap, io::Seek, sync::Arc};

use anyhow::{Context as _, Result, bail};
use sandhold_client::{BuildStep, StepFiles};
use sandhold_images::{
    Platform, Source,
    context::Context,
    dockerfile::{Build, Dockerfile, Step, StepKind},
};
use sandhold_mcp::Planned;

/// Who runs things and where, in an image whose Dockerfile does not say: as in sandboxes of E2B.
const USER: &str = "user";
const WORKDIR: &str = "/home/user";

/// Reads Dockerfiles for models: there are no files beside them.
pub(crate) struct Dockerfiles;

impl sandhold_mcp::Dockerfiles for Dockerfiles {
    fn plan(&self, text: &str) -> Result<Planned, String> {
        plan(text, BTreeMap::new(), None).map_err(|error| format!("{error:#}"))
    }
}

/// What a Dockerfile asks for. `args` are values of its `ARG`s; `context` has the files that it copies, which are packed.
/// It blocks.
pub(crate) fn plan(text: &str, args: BTreeMap<String, String>, context: Option<&Context>) -> Result<Planned> {
    let platform = Platform::host();
    let build = Build {
        args,
        platform: Some(&platform),
        base: None,
    };
    let plan = Dockerfile::parse(text)?.plan(&build)?;
    let image = plan.from.image;
    let line = plan.from.line;
    if image == "scratch" {
        bail!(
            "line {line} of the Dockerfile: FROM scratch is not supported, a sandbox needs a shell: begin with an image"
        );
    }
    let source = image.parse::<Source>();
    let source = source.with_context(|| format!("line {line} of the Dockerfile names no image"))?;
    if !matches!(source, Source::Registry(_)) {
        bail!("line {line} of the Dockerfile: FROM names an image of a registry, such as debian:12");
    }
    let mut notes: Vec<String> = plan
        .notes
        .into_iter()
        .map(|note| format!("line {}: {}", note.line, note.text))
        .collect();
    if let Some(wanted) = plan.from.platform.filter(|wanted| *wanted != platform.to_string()) {
        notes.push(format!(
            "line {line}: --platform={wanted} was left out: it is built for {platform}"
        ));
    }
    // Dockerfiles are written for root in /, and E2B's sandboxes are their user's.
    let mut steps = vec![BuildStep::User("root".into()), BuildStep::Workdir("/".into())];
    for one in plan.steps {
        steps.push(step(one, context)?);
    }
    if !plan.sets_user {
        steps.push(BuildStep::User(USER.into()));
    }
    if !plan.sets_workdir {
        steps.push(BuildStep::Workdir(WORKDIR.into()));
    }
    Ok(Planned {
        image,
        steps,
        start_cmd: plan.start,
        notes,
    })
}

fn step(step: Step, context: Option<&Context>) -> Result<BuildStep> {
    let mut args = step.args.into_iter();
    let mut next = || args.next().filter(|arg| !arg.is_empty());
    let given =
        |arg: Option<String>| arg.with_context(|| format!("line {} of the Dockerfile is not complete", step.line));
    Ok(match step.kind {
        StepKind::Run => BuildStep::Run {
            cmd: given(next())?,
            user: next(),
        },
        StepKind::Copy => {
            let (src, dest) = (given(next())?, given(next())?);
            let (user, mode) = (next(), next());
            let Some(context) = context else {
                bail!(
                    "line {} of the Dockerfile: there are no files here to copy: {:?}",
                    step.line,
                    step.text
                );
            };
            let files = pack(context, &src, &dest).with_context(|| format!("line {} of the Dockerfile", step.line))?;
            let mode = mode.map(|mode| u32::from_str_radix(&mode, 8)).transpose();
            let mode = mode.with_context(|| format!("line {} of the Dockerfile has a mode that is none", step.line))?;
            BuildStep::Copy {
                src,
                dest,
                user,
                mode,
                files,
            }
        }
        // E2B knows no difference: those of ARG are in the image, too.
        StepKind::Env | StepKind::Arg => {
            let words: Vec<String> = args.collect();
            let pairs = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            BuildStep::Env(pairs.collect())
        }
        StepKind::Workdir => BuildStep::Workdir(given(next())?),
        StepKind::User => BuildStep::User(given(next())?),
    })
}

fn pack(context: &Context, src: &str, dest: &str) -> Result<StepFiles> {
    let hash = context.hash(src, dest)?;
    let mut file = tempfile::tempfile().context("there is no place for the files to copy")?;
    context.pack(src, std::io::BufWriter::new(&file))?;
    file.rewind().context("the files to copy cannot be read again")?;
    Ok(StepFiles {
        hash,
        archive: Arc::new(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stand_between_root_and_user() {
        let planned = plan(
            "FROM debian:12\nARG A=1\nRUN echo $A\nENV B=2\nEXPOSE 80\nCMD [\"serve\"]\n",
            BTreeMap::from([("A".to_owned(), "3".to_owned())]),
            None,
        )
        .unwrap();
        assert_eq!(
            (planned.image.as_str(), planned.start_cmd.as_deref()),
            ("debian:12", Some("serve"))
        );
        let shown: Vec<String> = planned.steps.iter().map(|step| format!("{step:?}")).collect();
        assert_eq!(shown[0], r#"User("root")"#);
        assert_eq!(shown[2], r#"Env([("A", "3")])"#);
        assert!(shown[3].contains("echo"), "{shown:?}");
        assert_eq!(
            shown[shown.len() - 2..],
            [r#"User("user")"#, r#"Workdir("/home/user")"#]
        );
        assert!(planned.notes[0].starts_with("line 5: EXPOSE"), "{:?}", planned.notes);
        let own = plan("FROM a\nUSER me\nWORKDIR /srv\n", BTreeMap::new(), None).unwrap();
        assert!(matches!(own.steps.last(), Some(BuildStep::Workdir(folder)) if folder == "/srv"));
    }

    #[test]
    fn files_are_those_of_the_context_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "text").unwrap();
        let context = Context::open(folder.path()).unwrap();
        let text = "FROM a\nCOPY --chmod=755 a /b/\n";
        let planned = plan(text, BTreeMap::new(), Some(&context)).unwrap();
        let BuildStep::Copy { mode, files, .. } = &planned.steps[2] else {
            panic!("{:?}", planned.steps)
        };
        assert_eq!((*mode, files.hash.len()), (Some(0o755), 64));
        assert!(files.archive.metadata().unwrap().len() > 0);
        let told = plan(text, BTreeMap::new(), None).unwrap_err().to_string();
        assert!(told.contains("line 2") && told.contains("no files"), "{told}");
        for bad in [
            "FROM scratch",
            "FROM /etc/shadow",
            "FROM oci:/x",
            "FROM ./x",
            "RUN x",
            "FROM a AS b\nFROM b",
        ] {
            assert!(plan(bad, BTreeMap::new(), Some(&context)).is_err(), "{bad}");
        }
    }
}
