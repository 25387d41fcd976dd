//! `build_template`

use sandhold_client::{
    BuildEvent, BuildReason, Client, Error, TemplateBuilding, TemplateRequested, TemplateSource, TemplateSpec,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::run_command::KillOnDrop;
use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    dockerfiles::{Dockerfiles, Planned},
    errors,
    jobs::Say,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

/// How images in files of a machine are written.
const IN_FILES: [&str; 3] = ["oci:", "oci-archive:", "docker-archive:"];

pub(super) struct BuildTemplate;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    name: String,
    /// Of a registry: debian:12
    from_image: Option<String>,
    /// Or base
    from_template: Option<String>,
    /// Its text; no COPY
    dockerfile: Option<String>,
    /// Runs in each sandbox of it
    start_cmd: Option<String>,
    /// Succeeds once that is ready
    ready_cmd: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    job_id: String,
    template_id: String,
    build_id: String,
    /// What of the Dockerfile was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl Tool for BuildTemplate {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "build_template",
        title: "Build a template",
        description: "Build what create_sandbox takes as template, from one of from_image, from_template and dockerfile, as a job: get_job_status has its log. A name used again passes to the new build.",
        toolset: Toolset::Templates,
        hints: Hints::FETCHES,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let name = p.name.clone();
        let (spec, notes) = spec(p, call.dockerfiles.as_deref())?;
        let (tell, told) = oneshot::channel();
        let client = call.client().clone();
        let cmd = format!("build_template {name}");
        let work = |say| build(client, spec, say, tell);
        let worked = call.tenant.jobs.work(None, cmd, work, Built::text)?;
        let job = worked.job;
        let guard = KillOnDrop::new(&call, &job);
        let Ok(requested) = told.await else {
            guard.disarm();
            call.tenant.jobs.remove(&job.id);
            let ended = || ToolError::new("cancelled", "the build was ended by kill_job");
            return match worked.result.await {
                Ok(Err(error)) => Err(error),
                _ => Err(ended()),
            };
        };
        guard.disarm();
        let mut text = format!(
            "template {name} is being built as job {}: get_job_status with wait_s reads its log and how it ends; then \
             create_sandbox with template {name:?}",
            job.id
        );
        for note in &notes {
            text.push('\n');
            text.push_str(note);
        }
        let output = Output {
            job_id: job.id.clone(),
            template_id: requested.template_id,
            build_id: requested.build_id,
            notes,
        };
        Ok(Reply::new(output, text))
    }
}

/// What is asked for, and what of it is left out.
fn spec(p: Params, dockerfiles: Option<&dyn Dockerfiles>) -> Result<(TemplateSpec, Vec<String>), ToolError> {
    limits::template("name", &p.name)?;
    for (argument, command) in [("start_cmd", &p.start_cmd), ("ready_cmd", &p.ready_cmd)] {
        if let Some(command) = command {
            limits::at_most(argument, command.len(), limits::CMD)?;
        }
    }
    let (from, steps, start_cmd, mut notes) = match (p.from_image, p.from_template, p.dockerfile) {
        (Some(image), None, None) => (image_of("from_image", image)?, Vec::new(), None, Vec::new()),
        (None, Some(template), None) => {
            limits::template("from_template", &template)?;
            (TemplateSource::Template(template), Vec::new(), None, Vec::new())
        }
        (None, None, Some(text)) => {
            let Planned {
                image,
                steps,
                start_cmd,
                notes,
            } = plan(&text, dockerfiles)?;
            (image_of("the image of FROM", image)?, steps, start_cmd, notes)
        }
        _ => {
            return Err(ToolError::invalid(
                "a template is built from exactly one of from_image, from_template and dockerfile",
            )
            .hint("Give one of them: from_image for an image as it is, dockerfile to install something on it."));
        }
    };
    notes
        .iter_mut()
        .for_each(|note| *note = budget::line(note, budget::LINE));
    let spec = TemplateSpec {
        name: p.name,
        tags: Vec::new(),
        from,
        steps,
        start_cmd: p.start_cmd.or(start_cmd),
        ready_cmd: p.ready_cmd,
        cpus: None,
        memory_mb: None,
        force: false,
    };
    Ok((spec, notes))
}

/// An image of a registry. Files of the machine that builds are not for models, nor for callers over a network.
fn image_of(argument: &str, reference: String) -> Result<TemplateSource, ToolError> {
    limits::at_most(argument, reference.len(), limits::IMAGE_NAME)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    let starts = reference.starts_with(|c: char| c.is_ascii_alphanumeric());
    let in_files = IN_FILES.iter().any(|kind| reference.starts_with(kind)) || reference.contains(":/");
    if starts && !in_files && reference.bytes().all(fits) {
        return Ok(TemplateSource::Image {
            reference,
            credentials: None,
        });
    }
    Err(
        ToolError::invalid(format!("{argument} is {reference:?}, which is no image of a registry"))
            .hint("Name it like debian:12 or ghcr.io/owner/image:tag."),
    )
}

fn plan(text: &str, dockerfiles: Option<&dyn Dockerfiles>) -> Result<Planned, ToolError> {
    limits::at_most("dockerfile", text.len(), limits::DOCKERFILE)?;
    let Some(dockerfiles) = dockerfiles else {
        return Err(ToolError::new("unsupported", "this server reads no Dockerfiles")
            .hint("Give from_image or from_template instead."));
    };
    dockerfiles.plan(text).map_err(|why| {
        ToolError::invalid(budget::line(&why, budget::LINE))
            .hint("Mend that line. Files are written by RUN with a here-document: there is no folder to COPY from.")
    })
}

/// A build that is ready.
struct Built {
    name: String,
}

impl Built {
    fn text(&self) -> String {
        format!("template {} is ready", self.name)
    }
}

/// Asks for the build, tells of it and follows it to its end. Dropping it ends the build, where the server can.
async fn build(
    client: Client,
    spec: TemplateSpec,
    say: Say,
    tell: oneshot::Sender<TemplateRequested>,
) -> Result<Built, ToolError> {
    let building = client.build_template(&spec).await.map_err(|error| refused(&error))?;
    let requested = building.requested.clone();
    let mut building = EndOnDrop {
        client,
        building: Some(building),
    };
    // Who asked may have gone; the job goes on or is ended all the same.
    let _ = tell.send(requested);
    let followed = tokio::time::timeout(limits::BUILD_FOLLOWED, building.follow(&say)).await;
    let ended = followed.unwrap_or_else(|_| {
        let hours = limits::BUILD_FOLLOWED.as_secs() / 3600;
        Err(ToolError::new(
            "timeout",
            format!("the build did not end within {hours} hours"),
        ))
    });
    if ended.is_ok() {
        building.building = None;
    }
    ended.map(|()| Built { name: spec.name })
}

/// A build that is given up when nobody follows it any more.
struct EndOnDrop {
    client: Client,
    building: Option<TemplateBuilding>,
}

impl EndOnDrop {
    async fn follow(&mut self, say: &Say) -> Result<(), ToolError> {
        let Some(building) = &mut self.building else {
            return Ok(());
        };
        let mut left = limits::BUILD_TRIES;
        loop {
            match building.next().await {
                Ok(BuildEvent::Log(line)) => {
                    left = limits::BUILD_TRIES;
                    if line.level != "debug" {
                        say.say(line.message.clone());
                        say.log(&line.message);
                    }
                }
                Ok(BuildEvent::Ready) => return Ok(()),
                Ok(BuildEvent::Failed(reason)) => {
                    self.building = None;
                    return Err(failed(&reason));
                }
                Err(Error::Transport { .. } | Error::Timeout(_) | Error::RateLimited(_)) if left > 1 => {
                    left -= 1;
                    tokio::time::sleep(limits::BUILD_RETRY).await;
                }
                Err(error) => return Err(errors::explain(&error)),
            }
        }
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let (Some(building), Ok(runtime)) = (self.building.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let client = self.client.clone();
        runtime.spawn(async move {
            let TemplateRequested {
                template_id, build_id, ..
            } = &building.requested;
            match client.cancel_template_build(template_id, build_id).await {
                Ok(true) => {}
                Ok(false) => tracing::debug!(build_id, "the server does not end builds: it goes on"),
                Err(error) => tracing::warn!(build_id, %error, "a build could not be ended"),
            }
        });
    }
}

fn refused(error: &Error) -> ToolError {
    let told = errors::explain(error);
    match error {
        Error::NotFound(_) => ToolError::new("template_not_found", told.message)
            .hint("list_templates shows the templates there are; base is always there."),
        Error::Unsupported(_) => {
            told.hint("Work in a sandbox instead, and keep it with create_snapshot if that is offered.")
        }
        _ => told,
    }
}

fn failed(reason: &BuildReason) -> ToolError {
    let step = match reason.step.as_deref() {
        Some("base") => " at what it begins with".to_owned(),
        Some("finalize") => " at the end, when a sandbox of it was tried".to_owned(),
        Some(number) => format!(" at step {}", budget::line(number, 20)),
        None => String::new(),
    };
    let message = budget::line(&reason.message, budget::LINE);
    ToolError::new("build_failed", format!("the build failed{step}: {message}"))
        .hint("The log above says more. Mend it and call build_template again: what was done before is not done again.")
}
