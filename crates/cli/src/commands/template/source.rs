//! What a build begins with, from the command's arguments.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use sandhold_client::{BuildStep, TemplateSource};
use sandhold_images::{
    Source,
    context::Context,
    debian::{self, Debian, DebianError},
};
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use crate::{
    args::BuildArgs,
    dockerfile,
    images::OwnImages,
    settings::{Provider, Settings},
};

/// The largest Dockerfile that is read.
const DOCKERFILE_BYTES: u64 = 1 << 20;

/// What a build begins with.
pub(super) struct Begin {
    pub(super) from: TemplateSource,
    pub(super) steps: Vec<BuildStep>,
    pub(super) start_cmd: Option<String>,
    /// Images that are not of a registry.
    pub(super) own: OwnImages,
}

impl Begin {
    fn image(reference: String) -> Self {
        Self {
            from: TemplateSource::Image {
                reference,
                credentials: None,
            },
            steps: Vec::new(),
            start_cmd: None,
            own: OwnImages::default(),
        }
    }
}

/// Finds, reads or makes it.
pub(super) async fn begin(
    args: &BuildArgs,
    settings: &Settings,
    screen: &Arc<Screen>,
    cancel: &CancellationToken,
) -> Result<Begin> {
    let here = || match &settings.provider {
        Provider::Local => Ok(()),
        _ => bail!("images in files and new Debians are for builds on this machine: add --provider local"),
    };
    if let Some(image) = &args.from_image {
        let source: Source = image.parse()?;
        if !matches!(source, Source::Registry(_)) {
            bail!("--from-image takes the name of an image in a registry; for an image in files use --from-oci");
        }
        return Ok(Begin::image(image.clone()));
    }
    if let Some(template) = &args.from_template {
        return Ok(Begin {
            from: TemplateSource::Template(template.clone()),
            ..Begin::image(String::new())
        });
    }
    if let Some(path) = &args.from_oci {
        here()?;
        let reference = in_files(path)?;
        return Ok(Begin {
            own: OwnImages {
                file: Some(reference.clone()),
                ..OwnImages::default()
            },
            ..Begin::image(reference)
        });
    }
    if let Some(suite) = &args.debian {
        here()?;
        return new_debian(suite.clone(), args.packages.clone(), settings, screen, cancel).await;
    }
    let file = args.file.clone().context("there is nothing to build from")?;
    let (context, pairs) = (args.context.clone(), build_args(&args.build_arg)?);
    let reading = tokio::task::spawn_blocking(move || of_dockerfile(&file, context, pairs));
    let planned = reading.await.context("the Dockerfile was not read")??;
    for note in &planned.notes {
        screen.line(note);
    }
    Ok(Begin {
        steps: planned.steps,
        start_cmd: planned.start_cmd,
        ..Begin::image(planned.image)
    })
}

/// An image in files, by a path that holds wherever it is opened.
fn in_files(path: &str) -> Result<String> {
    let typed = ["oci:", "oci-archive:", "docker-archive:"]
        .iter()
        .any(|kind| path.starts_with(kind));
    if typed {
        return Ok(path.to_owned());
    }
    let whole = std::path::absolute(path).with_context(|| format!("{path} is no path"))?;
    std::fs::metadata(&whole).with_context(|| format!("{path} cannot be read"))?;
    let whole = whole.into_os_string().into_string();
    whole.map_err(|path| anyhow::anyhow!("{} is not valid UTF-8", path.display()))
}

fn build_args(given: &[String]) -> Result<BTreeMap<String, String>> {
    given
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => bail!("--build-arg \"{pair}\" is not NAME=VALUE"),
        })
        .collect()
}

fn of_dockerfile(
    file: &Path,
    context: Option<PathBuf>,
    args: BTreeMap<String, String>,
) -> Result<sandhold_mcp::Planned> {
    let cannot = || format!("{} cannot be read", file.display());
    let meta = std::fs::metadata(file).with_context(cannot)?;
    if !meta.is_file() || meta.len() > DOCKERFILE_BYTES {
        bail!("{} is no Dockerfile: it is a folder, or far too large", file.display());
    }
    let text = std::fs::read_to_string(file).with_context(cannot)?;
    let beside = || match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let folder = context.unwrap_or_else(beside);
    let context = Context::open(&folder).with_context(|| format!("{} cannot be copied from", folder.display()))?;
    dockerfile::plan(&text, args, Some(&context))
}

async fn new_debian(
    suite: Option<String>,
    packages: Vec<String>,
    settings: &Settings,
    screen: &Arc<Screen>,
    cancel: &CancellationToken,
) -> Result<Begin> {
    let program = debian::find(&settings.local.images.programs).ok_or(DebianError::NoProgram)?;
    let release = || debian::suite_of(&std::fs::read_to_string("/etc/os-release").unwrap_or_default());
    let wanted = Debian {
        suite: suite.unwrap_or_else(release),
        packages,
        ..Debian::default()
    };
    screen.line(&format!("making a Debian {} with mmdebstrap", wanted.suite));
    // It stays open, and goes with this program.
    let folder = tempfile::tempdir().context("there is no place for a Debian")?;
    let tell = |line: &str| screen.line(line);
    let image = debian::build(&program, &wanted, &folder.path().join("root.tar"), &tell, cancel).await?;
    let reference = image.source.to_string();
    Ok(Begin {
        own: OwnImages {
            made: Some(image),
            ..OwnImages::default()
        },
        ..Begin::image(reference)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_wholly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(in_files(path).unwrap(), path);
        assert_eq!(in_files("oci:a:b").unwrap(), "oci:a:b");
        assert!(in_files(&format!("{path}/none")).is_err());
    }

    #[test]
    fn build_args_are_pairs() {
        let pairs = build_args(&["A=1".into(), "B=".into(), "C=x=y".into()]).unwrap();
        assert_eq!(pairs["C"], "x=y");
        assert!(build_args(&["A".into()]).is_err());
        assert!(build_args(&["=1".into()]).is_err());
    }
}
