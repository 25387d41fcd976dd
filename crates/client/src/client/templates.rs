//! Templates: what they are built from, the builds, and their names and tags.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use sandhold_wire::{
    limits::TEMPLATE_PAGE,
    names,
    templates::{
        AssignTemplateTags, AssignedTemplateTags, BuildLogEntry, BuildReason, DeleteTemplateTags, ImageRegistry,
        Template, TemplateAlias, TemplateBuildInfo, TemplateBuildRequest, TemplateBuildStart, TemplateBuildStatus,
        TemplateFileUpload, TemplateRequested, TemplateStep, TemplateTag, TemplateUpdate, TemplateUpdated,
        TemplateWithBuilds,
    },
};

use super::{Client, call::Call, segment};
use crate::{
    Error,
    answer::Refusal,
    limits,
    transport::{Body, BoxError},
};

/// What to build.
#[derive(Debug, Clone)]
pub struct TemplateSpec {
    /// `name` or `name:tag`: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// Further tags that the build gets once it is ready.
    pub tags: Vec<String>,
    /// What it begins with.
    pub from: TemplateSource,
    /// What is done on top, in order.
    pub steps: Vec<BuildStep>,
    /// What runs in every sandbox from its start.
    pub start_cmd: Option<String>,
    /// Succeeds once that is ready.
    pub ready_cmd: Option<String>,
    /// Virtual processors of its sandboxes; `None` is the server's default.
    pub cpus: Option<f64>,
    /// Memory of its sandboxes in MiB; `None` is the server's default.
    pub memory_mb: Option<u64>,
    /// Whether nothing is taken from the cache.
    pub force: bool,
}

/// What a build begins with.
#[derive(Clone)]
pub enum TemplateSource {
    /// An image of a registry.
    Image {
        /// Such as `debian:12` or `registry.example:5000/a/b@sha256:…`.
        reference: String,
        /// Name and password at the registry.
        credentials: Option<(String, String)>,
    },
    /// A template, by id, name or `name:tag`; `base` is the sandbox that one gets without a template.
    Template(String),
}

impl std::fmt::Debug for TemplateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image { reference, .. } => f.debug_tuple("Image").field(reference).finish(),
            Self::Template(name) => f.debug_tuple("Template").field(name).finish(),
        }
    }
}

/// One step of a build.
#[derive(Debug, Clone)]
pub enum BuildStep {
    /// Runs a shell command.
    Run {
        /// The command.
        cmd: String,
        /// Who runs it; `None` is the user of the steps before.
        user: Option<String>,
    },
    /// Puts files into the template.
    Copy {
        /// The path inside the archive that is copied; a folder's content goes into `dest`.
        src: String,
        /// Where to; relative paths start at the working folder, a `/` at the end makes it a folder.
        dest: String,
        /// The owner, `user` or `user:group`; `None` is the user of the steps before.
        user: Option<String>,
        /// Permissions; `None` leaves those of the archive.
        mode: Option<u32>,
        /// The files.
        files: StepFiles,
    },
    /// Sets environment variables, in order; `$NAME` in a value is replaced.
    Env(Vec<(String, String)>),
    /// Makes a folder, if it is absent, and sets it as the working folder.
    Workdir(String),
    /// Sets the user.
    User(String),
}

/// Files of a step, packed.
#[derive(Debug, Clone)]
pub struct StepFiles {
    /// What the server knows them by, 64 lower-case hexadecimal digits: the same for the same files.
    pub hash: String,
    /// A tar, which may be gzipped, read from its beginning.
    pub archive: Arc<File>,
}

/// A build that was started.
pub struct TemplateBuilding {
    pub(super) client: Client,
    /// What was asked for.
    pub requested: TemplateRequested,
    seen: u64,
    lines: std::vec::IntoIter<BuildLogEntry>,
    ended: Option<Result<(), BuildReason>>,
}

/// What a build told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// A line of its log.
    Log(BuildLogEntry),
    /// It is ready. Nothing follows.
    Ready,
    /// It failed. Nothing follows.
    Failed(BuildReason),
}

impl TemplateBuilding {
    /// What comes next; waits for it. Cancelling it loses nothing, and ends no build.
    ///
    /// # Errors
    /// Those of the connection and of the server; it can be called again.
    pub async fn next(&mut self) -> Result<BuildEvent, Error> {
        loop {
            if let Some(line) = self.lines.next() {
                self.seen += 1;
                return Ok(BuildEvent::Log(line));
            }
            let TemplateRequested {
                template_id, build_id, ..
            } = &self.requested;
            let info = self
                .client
                .template_build_status(template_id, build_id, self.seen)
                .await?;
            let more = !info.log_entries.is_empty();
            self.lines = info.log_entries.into_iter();
            match info.status {
                TemplateBuildStatus::Ready => self.ended = Some(Ok(())),
                TemplateBuildStatus::Error => self.ended = Some(Err(info.reason.unwrap_or_default())),
                TemplateBuildStatus::Waiting | TemplateBuildStatus::Building => {}
            }
            match &self.ended {
                // An answer holds a part of the log only.
                _ if more => {}
                Some(Ok(())) => return Ok(BuildEvent::Ready),
                Some(Err(reason)) => return Ok(BuildEvent::Failed(reason.clone())),
                None => tokio::time::sleep(limits::BUILD_POLL).await,
            }
        }
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// [`Error::Server`] with the reason of a build that failed, and those of [`TemplateBuilding::next`].
    pub async fn finished(&mut self) -> Result<(), Error> {
        loop {
            match self.next().await? {
                BuildEvent::Log(_) => {}
                BuildEvent::Ready => return Ok(()),
                BuildEvent::Failed(reason) => {
                    return Err(Error::Server {
                        status: 422,
                        message: reason.message,
                    });
                }
            }
        }
    }
}

impl Client {
    /// Starts a build of a template, which is made if there is none of that name. What it tells is read from the answer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what is refused, [`Error::NotFound`] where the template that it begins with is not
    /// there, [`Error::Unsupported`] where the server cannot build.
    pub async fn build_template(&self, spec: &TemplateSpec) -> Result<TemplateBuilding, Error> {
        let request = TemplateBuildRequest {
            name: Some(spec.name.clone()),
            tags: Some(spec.tags.clone()).filter(|tags| !tags.is_empty()),
            cpu_count: spec.cpus,
            memory_mb: spec.memory_mb,
            ..TemplateBuildRequest::default()
        };
        let call = Call::new(Method::POST, "/v3/templates".into(), None).json(&request)?;
        let requested: TemplateRequested = self.read(call).await?.1;
        for step in &spec.steps {
            if let BuildStep::Copy { files, .. } = step {
                self.upload_step(&requested.template_id, files).await?;
            }
        }
        let path = format!(
            "/v2/templates/{}/builds/{}",
            segment(&requested.template_id),
            segment(&requested.build_id)
        );
        self.done(Call::new(Method::POST, path, None).json(&start(spec))?)
            .await?;
        Ok(TemplateBuilding {
            client: self.clone(),
            requested,
            seen: 0,
            lines: Vec::new().into_iter(),
            ended: None,
        })
    }

    /// How far a build is, and its log from line `offset` on, of which one answer holds a part.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such build.
    pub async fn template_build_status(
        &self,
        template: &str,
        build: &str,
        offset: u64,
    ) -> Result<TemplateBuildInfo, Error> {
        let (template, build) = (segment(template), segment(build));
        let path = format!("/templates/{template}/builds/{build}/status?logsOffset={offset}");
        Ok(self.read(Call::new(Method::GET, path, None)).await?.1)
    }

    /// All templates of the caller, the newest first; at most `most` of them.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn templates(&self, most: usize) -> Result<Vec<Template>, Error> {
        let mut found: Vec<Template> = Vec::new();
        let mut after = None::<String>;
        while found.len() < most {
            let limit = TEMPLATE_PAGE.min(most - found.len());
            let next = after.map_or_else(String::new, |token| format!("&nextToken={}", segment(&token)));
            let path = format!("/v2/templates?limit={limit}{next}");
            let (head, page) = self.read::<Vec<Template>>(Call::new(Method::GET, path, None)).await?;
            let token = head
                .headers
                .get(names::NEXT_TOKEN_HEADER)
                .and_then(|token| token.to_str().ok())
                .filter(|token| !token.is_empty());
            after = token.map(str::to_owned).filter(|_| !page.is_empty());
            found.extend(page);
            if after.is_none() {
                break;
            }
        }
        found.truncate(most);
        Ok(found)
    }

    /// A template, by id or name, with its builds.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn template(&self, id_or_name: &str) -> Result<TemplateWithBuilds, Error> {
        let path = format!("/templates/{}", segment(id_or_name));
        match self.read(Call::new(Method::GET, path, None)).await {
            Ok((_, found)) => Ok(found),
            // E2B takes ids alone.
            Err(error @ Error::NotFound(_)) => match self.template_named(id_or_name).await? {
                Some(alias) if alias.template_id != id_or_name => {
                    let path = format!("/templates/{}", segment(&alias.template_id));
                    Ok(self.read(Call::new(Method::GET, path, None)).await?.1)
                }
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// The template of a name, if there is one that the caller may use.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn template_named(&self, name: &str) -> Result<Option<TemplateAlias>, Error> {
        let path = format!("/templates/aliases/{}", segment(name));
        match self.read(Call::new(Method::GET, path, None)).await {
            Ok((_, alias)) => Ok(Some(alias)),
            Err(Error::NotFound(_) | Error::Server { status: 403, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a template, by id or name, with its builds. False if there was none.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn delete_template(&self, id_or_name: &str) -> Result<bool, Error> {
        let id = self.template_named(id_or_name).await?.map(|alias| alias.template_id);
        let path = format!("/templates/{}", segment(id.as_deref().unwrap_or(id_or_name)));
        match self.done(Call::new(Method::DELETE, path, None)).await {
            Ok(()) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets others use a template, by id, or nobody else. Returns its names.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn set_template_public(&self, id: &str, public: bool) -> Result<Vec<String>, Error> {
        let path = format!("/v2/templates/{}", segment(id));
        let call = Call::new(Method::PATCH, path, None).json(&TemplateUpdate { public: Some(public) })?;
        Ok(self.read::<TemplateUpdated>(call).await?.1.names)
    }

    /// Gives the build that `target` names (`name:tag`, or `name` for its tag `default`) further tags.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, [`Error::InvalidArgument`] for what cannot be a tag.
    pub async fn assign_template_tags(&self, target: &str, tags: Vec<String>) -> Result<AssignedTemplateTags, Error> {
        let body = AssignTemplateTags {
            target: target.to_owned(),
            tags,
        };
        let call = Call::new(Method::POST, "/templates/tags".into(), None).json(&body)?;
        Ok(self.read(call).await?.1)
    }

    /// Takes tags from a template; the builds stay.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such template or tag.
    pub async fn remove_template_tags(&self, name: &str, tags: Vec<String>) -> Result<(), Error> {
        let body = DeleteTemplateTags {
            name: name.to_owned(),
            tags,
        };
        self.done(Call::new(Method::DELETE, "/templates/tags".into(), None).json(&body)?)
            .await
    }

    /// The tags of a template, by id or name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such template.
    pub async fn template_tags(&self, id_or_name: &str) -> Result<Vec<TemplateTag>, Error> {
        let path = format!("/templates/{}/tags", segment(id_or_name));
        Ok(self.read(Call::new(Method::GET, path, None)).await?.1)
    }

    /// Brings the files of a step to the server, unless it has them.
    async fn upload_step(&self, template: &str, files: &StepFiles) -> Result<(), Error> {
        let path = format!("/templates/{}/files/{}", segment(template), segment(&files.hash));
        let upload: TemplateFileUpload = self.read(Call::new(Method::GET, path, None)).await?.1;
        let Some(url) = upload.url.filter(|_| !upload.present) else {
            return Ok(());
        };
        let failed = |what: &str, source: BoxError| Error::Transport {
            what: format!("{what} the files of a step"),
            source,
        };
        let file = files.archive.clone();
        let length = file
            .metadata()
            .map_err(|error| failed("cannot read", error.into()))?
            .len();
        let mut request = Request::new(body_of(file));
        *request.method_mut() = Method::PUT;
        // In this process it is a path; over HTTP a whole URL, which may be another server's.
        let url = if url.starts_with('/') {
            format!("{}{url}", self.inner.base)
        } else {
            url
        };
        *request.uri_mut() = url
            .parse()
            .map_err(|_| Error::Protocol("the server's URL for files of a build is none".into()))?;
        for (name, value) in upload.headers.unwrap_or_default() {
            let pair = (name.parse::<HeaderName>(), HeaderValue::from_str(&value));
            if let (Ok(name), Ok(value)) = pair {
                request.headers_mut().insert(name, value);
            }
        }
        request
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let sent = tokio::time::timeout(limits::BUILD_UPLOAD, self.inner.transport.send(request)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(source)) => return Err(failed("nobody took", source)),
            Err(_) => {
                let time = limits::BUILD_UPLOAD;
                return Err(Error::Timeout(format!(
                    "the files of a step were not taken within {time:?}"
                )));
            }
        };
        if response.status().is_success() {
            return Ok(());
        }
        Err(Refusal::read(response).await.of_control_plane(None))
    }
}

/// A file in pieces, each read when it is asked for.
fn body_of(file: Arc<File>) -> Body {
    let pieces = stream::try_unfold((file, 0u64), |(file, at)| async move {
        let piece = tokio::task::spawn_blocking({
            let file = file.clone();
            move || {
                let mut piece = vec![0; limits::UPLOAD_PIECE];
                let read = file.read_at(&mut piece, at)?;
                piece.truncate(read);
                Ok::<_, std::io::Error>(Bytes::from(piece))
            }
        })
        .await
        .map_err(BoxError::from)??;
        let next = at + u64::try_from(piece.len()).unwrap_or(0);
        Ok::<_, BoxError>((!piece.is_empty()).then(|| (Frame::data(piece), (file, next))))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// The body that starts a build.
fn start(spec: &TemplateSpec) -> TemplateBuildStart {
    let mut start = TemplateBuildStart {
        force: spec.force,
        steps: spec.steps.iter().map(step).collect(),
        start_cmd: spec.start_cmd.clone(),
        ready_cmd: spec.ready_cmd.clone(),
        ..TemplateBuildStart::default()
    };
    match &spec.from {
        TemplateSource::Template(name) => start.from_template = Some(name.clone()),
        TemplateSource::Image { reference, credentials } => {
            start.from_image = Some(reference.clone());
            start.from_image_registry = credentials
                .clone()
                .map(|(username, password)| ImageRegistry::Registry { username, password });
        }
    }
    start
}

fn step(step: &BuildStep) -> TemplateStep {
    let (kind, args, files_hash) = match step {
        BuildStep::Run { cmd, user } => {
            let args = [cmd.clone()].into_iter().chain(user.clone());
            ("RUN", args.collect(), None)
        }
        BuildStep::Copy {
            src,
            dest,
            user,
            mode,
            files,
        } => {
            let mode = mode.map_or_else(String::new, |mode| format!("{mode:04o}"));
            let args = vec![src.clone(), dest.clone(), user.clone().unwrap_or_default(), mode];
            ("COPY", args, Some(files.hash.clone()))
        }
        BuildStep::Env(pairs) => {
            let args = pairs.iter().flat_map(|(name, value)| [name.clone(), value.clone()]);
            ("ENV", args.collect(), None)
        }
        BuildStep::Workdir(path) => ("WORKDIR", vec![path.clone()], None),
        BuildStep::User(name) => ("USER", vec![name.clone()], None),
    };
    TemplateStep {
        kind: kind.into(),
        args,
        files_hash,
        force: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_the_sdks() {
        let files = StepFiles {
            hash: "ab".into(),
            archive: Arc::new(tempfile::tempfile().unwrap()),
        };
        let copy = step(&BuildStep::Copy {
            src: "a".into(),
            dest: "/b/".into(),
            user: None,
            mode: Some(0o755),
            files,
        });
        assert_eq!(copy.args, ["a", "/b/", "", "0755"]);
        assert_eq!(copy.files_hash.as_deref(), Some("ab"));
        let env = step(&BuildStep::Env(vec![
            ("A".into(), "1".into()),
            ("B".into(), "2".into()),
        ]));
        assert_eq!(
            (env.kind.as_str(), env.args),
            ("ENV", ["A", "1", "B", "2"].map(String::from).to_vec())
        );
    }
}
