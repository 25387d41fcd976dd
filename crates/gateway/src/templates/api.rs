//! The calls about templates, their builds and tags.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode};
use rusqlite::Connection;
use sandhold_wire::{
    limits::{BUILD_LOG_PAGE, TEMPLATE_PAGE},
    names,
    rest::SNAPSHOT_NOT_FOUND,
    templates::{
        AssignTemplateTags, AssignedTemplateTags, DeleteTemplateTags, Template, TemplateAlias, TemplateBuildInfo,
        TemplateBuildLogs, TemplateBuildRequest, TemplateBuildStart, TemplateBuildStatus, TemplateRequested,
        TemplateTag, TemplateUpdate, TemplateUpdated, TemplateWithBuilds,
    },
};

use super::{
    db::{DbError, shown},
    logs::{self, Level, Wanted},
    names::{Name, tags as check_tags},
    rows::{self, TemplateRow},
    shown::{Sizes, build_of, template_of},
};
use crate::{
    api::body,
    create::{ID_ALPHABET, random_text},
    error::Refusal,
    owner::Owner,
    query::pairs,
    sandboxes::Sandboxes,
};

type Table = State<Arc<Sandboxes>>;
/// Length of a template's id, as E2B's are.
const ID_LEN: usize = 20;
#[expect(clippy::cast_possible_truncation, reason = "it is small")]
const PAGE: u32 = BUILD_LOG_PAGE as u32;

/// `POST /v3/templates` and `POST /v2/templates`
pub(crate) async fn request(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: TemplateBuildRequest = body(request).await?;
    let asked = request.name.or(request.alias).filter(|name| !name.is_empty());
    let asked = asked.ok_or_else(|| Refusal::bad_request("name is missing: a template needs one"))?;
    let name = Name::parse(&asked)?;
    name.check_new()?;
    sandboxes.template_layers()?;
    let mut wanted: Vec<String> = name.tag.iter().cloned().collect();
    wanted.extend(request.tags.unwrap_or_default());
    let mut tags = check_tags(&wanted)?;
    if tags.is_empty() {
        tags.push(names::DEFAULT_TAG.to_owned());
    }
    let caps = sandhold_wire::caps::Caps::default();
    let caps = caps.with(sandhold_wire::caps::Cap::Cpus, request.cpu_count);
    #[expect(
        clippy::cast_precision_loss,
        reason = "what is beyond 52 bits is refused in any case"
    )]
    let caps = caps.with(
        sandhold_wire::caps::Cap::MemoryMb,
        request.memory_mb.map(|mb| mb as f64),
    );
    sandboxes.config.caps.check(&caps, &sandboxes.info())?;
    let (template, build) = (random_text(ID_LEN, ID_ALPHABET)?, uuid::Uuid::new_v4().to_string());
    let (limits, told) = ((request.cpu_count, request.memory_mb), (build.clone(), tags.clone()));
    let row = sandboxes
        .templates
        .db
        .run(move |db| rows::request(db, owner, &name, &tags, limits, (&template, &build)))
        .await?;
    let (build_id, tags) = told;
    let requested = TemplateRequested {
        template_id: row.id.clone(),
        build_id,
        public: row.public,
        names: row.names.clone(),
        tags,
        aliases: row.names.clone(),
    };
    // Clients of v2 read a whole template.
    let mut answer = serde_json::to_value(&requested).map_err(|error| Refusal::internal(error.to_string()))?;
    let template = serde_json::to_value(template_of(&sandboxes, row, &[], &Sizes::default())).unwrap_or_default();
    if let (Some(answer), serde_json::Value::Object(template)) = (answer.as_object_mut(), template) {
        for (name, value) in template {
            answer.entry(name).or_insert(value);
        }
    }
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// `POST /templates`: builds of a Dockerfile by the server, which E2B gave up, too.
pub(crate) async fn v1() -> Refusal {
    Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "templates are built with POST /v3/templates here: use an SDK of version 2",
    )
}

/// `POST /v2/templates/{id}/builds/{build}`
pub(crate) async fn start_build(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path((template, build)): Path<(String, String)>,
    request: Body,
) -> Result<Response, Refusal> {
    let asked: TemplateBuildStart = body(request).await?;
    sandboxes.begin_build(owner, &template, &build, asked).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response())
}

/// What is asked of a log.
fn wanted(request: &Request, backward: bool) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted {
        offset: 0,
        from: None,
        most: PAGE,
        backward,
        levels: Level::from("debug"),
    };
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        let bad = || Refusal::bad_request(format!("{name} \"{value}\" is not what this call takes"));
        match name.as_str() {
            "logsOffset" => wanted.offset = value.parse().map_err(|_| bad())?,
            "cursor" => wanted.from = Some(value.parse().map_err(|_| bad())?),
            "limit" => wanted.most = value.parse::<u32>().map_err(|_| bad())?.min(PAGE),
            "level" => wanted.levels = Level::from(&value),
            "direction" => {
                wanted.backward = match value.as_str() {
                    "forward" => false,
                    "backward" => true,
                    _ => return Err(bad()),
                }
            }
            _ => {}
        }
    }
    Ok(wanted)
}

/// `GET /templates/{id}/builds/{build}/status`
pub(crate) async fn build_status(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path((template, build)): Path<(String, String)>,
    request: Request,
) -> Result<Json<TemplateBuildInfo>, Refusal> {
    let wanted = wanted(&request, false)?;
    let info = sandboxes.templates.db.read(move |db| {
        let template = rows::own(db, owner, &template)?;
        let build = rows::build(db, &template.id, &build)?;
        Ok(TemplateBuildInfo {
            logs: Vec::new(),
            log_entries: logs::read(db, &build.id, wanted)?,
            template_id: template.id,
            build_id: build.id,
            status: build.status,
            reason: build.reason,
        })
    });
    Ok(Json(info.await?))
}

/// `GET /templates/{id}/builds/{build}/logs`
pub(crate) async fn build_logs(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path((template, build)): Path<(String, String)>,
    request: Request,
) -> Result<Json<TemplateBuildLogs>, Refusal> {
    let wanted = wanted(&request, false)?;
    let logs = sandboxes.templates.db.read(move |db| {
        let template = rows::own(db, owner, &template)?;
        let build = rows::build(db, &template.id, &build)?;
        Ok(logs::read(db, &build.id, wanted)?)
    });
    Ok(Json(TemplateBuildLogs { logs: logs.await? }))
}

/// `GET /templates/aliases/{alias}`
pub(crate) async fn alias(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(alias): Path<String>,
) -> Result<Json<TemplateAlias>, Refusal> {
    let name = Name::parse(&alias).map_err(|_| rows::missing(&alias))?;
    if name.name == names::DEFAULT_TEMPLATE {
        return Ok(Json(TemplateAlias {
            template_id: names::DEFAULT_TEMPLATE.into(),
            public: true,
        }));
    }
    let found = sandboxes.templates.db.read(move |db| {
        let template = rows::get(db, owner, &name.name)?;
        if let Some(tag) = &name.tag
            && rows::tagged(db, &template.id, tag)?.is_none()
        {
            return Err(rows::missing(&alias).into());
        }
        Ok(TemplateAlias {
            template_id: template.id,
            public: template.public,
        })
    });
    Ok(Json(found.await?))
}

/// `GET /templates` and `GET /v2/templates`
pub(crate) async fn list(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, Refusal> {
    let (mut limit, mut after) = (TEMPLATE_PAGE, None);
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        match name.as_str() {
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=TEMPLATE_PAGE).contains(limit))
                    .ok_or_else(|| {
                        Refusal::bad_request(format!("limit \"{value}\" is not between 1 and {TEMPLATE_PAGE}"))
                    })?;
            }
            "nextToken" if !value.is_empty() => {
                let token = value
                    .split_once('-')
                    .and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
                after = Some(token.ok_or_else(|| Refusal::bad_request("nextToken was not given by this server"))?);
            }
            _ => {}
        }
    }
    let mut found = sandboxes
        .templates
        .db
        .read(move |db| {
            let found = rows::list(db, owner, after.as_ref(), limit + 1)?;
            found
                .into_iter()
                .map(|row| Ok((rows::builds(db, &row.id)?, row)))
                .collect::<Result<Vec<_>, DbError>>()
        })
        .await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more);
    let next = next.and_then(|(_, last)| HeaderValue::from_str(&format!("{}-{}", last.created_at, last.id)).ok());
    let sizes = Sizes::of(&sandboxes).await;
    let found = found
        .into_iter()
        .map(|(builds, row)| template_of(&sandboxes, row, &builds, &sizes));
    let mut response = Json(found.collect::<Vec<_>>()).into_response();
    if let Some(next) = next {
        let header = HeaderName::from_static(names::NEXT_TOKEN_HEADER);
        response.headers_mut().insert(header, next);
    }
    Ok(response)
}

/// `GET /default-templates`: there are none but `base`, which is no template.
pub(crate) async fn defaults() -> Json<Vec<Template>> {
    Json(Vec::new())
}

/// `GET /templates/{id}`
pub(crate) async fn get(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<TemplateWithBuilds>, Refusal> {
    let name = Name::parse(&id).map_err(|_| rows::missing(&id))?;
    let (row, builds) = sandboxes
        .templates
        .db
        .read(move |db| {
            let row = rows::get(db, owner, &name.name)?;
            // Of another's template one sees what one may use.
            let own = row.owner == rows::number(owner);
            let mut builds = rows::builds(db, &row.id)?;
            builds.retain(|build| own || build.status == TemplateBuildStatus::Ready);
            Ok((row, builds))
        })
        .await?;
    let sizes = Sizes::of(&sandboxes).await;
    let told = builds.iter().map(|build| build_of(&sandboxes, build, &sizes)).collect();
    Ok(Json(TemplateWithBuilds {
        template: template_of(&sandboxes, row, &builds, &sizes),
        builds: told,
    }))
}

/// `PATCH /templates/{id}` and `PATCH /v2/templates/{id}`
pub(crate) async fn update(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Json<TemplateUpdated>, Refusal> {
    let asked: TemplateUpdate = body(request).await?;
    let names = sandboxes.templates.db.run(move |db| {
        let row = rows::own(db, owner, &id)?;
        if let Some(public) = asked.public {
            db.execute(
                "UPDATE templates SET public = ?2, updated_at = ?3 WHERE id = ?1",
                rusqlite::params![row.id, public, super::db::now()],
            )?;
        }
        Ok(row.names)
    });
    Ok(Json(TemplateUpdated { names: names.await? }))
}

/// `DELETE /templates/{id}`
pub(crate) async fn delete(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let wanted = id.clone();
    let builds = sandboxes
        .templates
        .db
        .run(move |db| {
            if rows::find(db, owner, &id)?.is_none() {
                return Ok(None);
            }
            let row = rows::own(db, owner, &id)?;
            let builds = rows::builds(db, &row.id)?;
            db.execute("DELETE FROM templates WHERE id = ?1", [&row.id])?;
            Ok(Some(builds))
        })
        .await?;
    // E2B's clients delete snapshots by the same call.
    let Some(builds) = builds else {
        if !sandboxes.snapshots.delete(owner, &wanted).await? {
            return Err(rows::missing(&wanted).code(SNAPSHOT_NOT_FOUND));
        }
        sandboxes.layering.collect_soon();
        return Ok(StatusCode::NO_CONTENT);
    };
    for build in builds {
        sandboxes.templates.builds.cancel(&build.id);
    }
    sandboxes.layering.collect_soon();
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /templates/tags`
pub(crate) async fn assign_tags(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    request: Body,
) -> Result<(StatusCode, Json<AssignedTemplateTags>), Refusal> {
    let asked: AssignTemplateTags = body(request).await?;
    let (target, tags) = (Name::parse(&asked.target)?, check_tags(&asked.tags)?);
    if tags.is_empty() {
        return Err(Refusal::bad_request("tags is empty"));
    }
    let told = tags.clone();
    let build = sandboxes.templates.db.run(move |db| {
        let row = rows::own(db, owner, &target.name)?;
        let build = rows::tagged(db, &row.id, target.tag())?.ok_or_else(|| no_tag(&row, &[target.tag().to_owned()]))?;
        rows::assign(db, &row.id, &build.id, &tags)?;
        Ok(build.id)
    });
    let assigned = AssignedTemplateTags {
        build_id: build.await?,
        tags: told,
    };
    Ok((StatusCode::CREATED, Json(assigned)))
}

/// `DELETE /templates/tags`
pub(crate) async fn unassign_tags(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let asked: DeleteTemplateTags = body(request).await?;
    let (name, tags) = (Name::parse(&asked.name)?, check_tags(&asked.tags)?);
    let gone = sandboxes.templates.db.run(move |db| {
        let row = rows::own(db, owner, &name.name)?;
        let absent = rows::unassign(db, &row.id, &tags)?;
        if absent.is_empty() {
            return Ok(());
        }
        Err(no_tag(&row, &absent).into())
    });
    gone.await?;
    sandboxes.layering.collect_soon();
    Ok(StatusCode::NO_CONTENT)
}

fn no_tag(row: &TemplateRow, tags: &[String]) -> Refusal {
    let name = row.names.first().unwrap_or(&row.id);
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("template \"{name}\" has no tag \"{}\"", tags.join("\", \"")),
    )
}

/// `GET /templates/{id}/tags`
pub(crate) async fn tags(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<Vec<TemplateTag>>, Refusal> {
    let name = Name::parse(&id).map_err(|_| rows::missing(&id))?;
    let tags = sandboxes.templates.db.read(move |db: &Connection| {
        let row = rows::get(db, owner, &name.name)?;
        Ok(rows::tags(db, &row.id)?)
    });
    let told = tags.await?.into_iter().map(|(tag, build_id, at)| TemplateTag {
        tag,
        build_id,
        created_at: shown(at),
    });
    Ok(Json(told.collect()))
}
