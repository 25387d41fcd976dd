//! Templates, their names, builds and tags, as they are written down.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sandhold_runtime::StoredRoot;
use sandhold_wire::{
    limits::TEMPLATE_TAGS,
    names::DEFAULT_TAG,
    templates::{BuildReason, TemplateBuildStatus as Status},
};
use serde::de::DeserializeOwned;

use super::{
    db::{DbError, now},
    names::{Name, cut},
};
use crate::{
    entry::Start,
    error::Refusal,
    limits::{BUILDS_KEPT, TEMPLATES},
    owner::Owner,
};

/// The column of an owner.
pub(crate) fn number(owner: Owner) -> i64 {
    owner.number().unwrap_or(0)
}

/// One template.
#[derive(Debug, Clone)]
pub(crate) struct TemplateRow {
    pub(crate) id: String,
    /// As [`number`].
    pub(crate) owner: i64,
    pub(crate) public: bool,
    pub(crate) names: Vec<String>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) spawned: u64,
    pub(crate) spawned_at: Option<i64>,
}

/// One build.
#[derive(Debug, Clone)]
pub(crate) struct BuildRow {
    pub(crate) id: String,
    pub(crate) template: String,
    pub(crate) status: Status,
    pub(crate) cpus: Option<f64>,
    pub(crate) memory_mb: Option<u64>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) finished_at: Option<i64>,
    pub(crate) reason: Option<BuildReason>,
    /// What its sandboxes stand on, once it is ready.
    pub(crate) root: Option<StoredRoot>,
    pub(crate) start: Start,
}

const TEMPLATE: &str = "id, owner, public, created_at, updated_at, spawned, spawned_at";
const BUILD: &str = "id, template, status, cpus, memory_mb, created_at, updated_at, finished_at, reason, root, start";

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A column that holds JSON, or nothing.
fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into()))
}

/// JSON for a column.
pub(crate) fn text(value: &impl serde::Serialize) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::Refused(Refusal::internal(error.to_string())))
}

pub(crate) fn status(text: &str) -> Status {
    match text {
        "waiting" => Status::Waiting,
        "building" => Status::Building,
        "ready" => Status::Ready,
        _ => Status::Error,
    }
}

fn template_row(row: &Row<'_>) -> rusqlite::Result<TemplateRow> {
    Ok(TemplateRow {
        id: row.get(0)?,
        owner: row.get(1)?,
        public: row.get(2)?,
        names: Vec::new(),
        created_at: row.get(3)?,
        updated_at: row.get(4)?,
        spawned: unsigned(row.get(5)?),
        spawned_at: row.get(6)?,
    })
}

fn build_row(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    Ok(BuildRow {
        id: row.get(0)?,
        template: row.get(1)?,
        status: status(&row.get::<_, String>(2)?),
        cpus: row.get(3)?,
        memory_mb: row.get::<_, Option<i64>>(4)?.map(unsigned),
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
        finished_at: row.get(7)?,
        reason: json(row, 8)?,
        root: json(row, 9)?,
        start: json(row, 10)?.unwrap_or_default(),
    })
}

fn names_of(db: &Connection, template: &str) -> rusqlite::Result<Vec<String>> {
    let mut names = db.prepare_cached("SELECT name FROM names WHERE template = ?1 ORDER BY name")?;
    names.query_map([template], |row| row.get(0))?.collect()
}

/// All names of an owner's templates.
pub(crate) fn all_names(db: &Connection, owner: Owner) -> rusqlite::Result<Vec<String>> {
    let mut names = db.prepare_cached("SELECT name FROM names WHERE owner = ?1 ORDER BY name")?;
    names.query_map([number(owner)], |row| row.get(0))?.collect()
}

/// A template by id or name: the owner's own, or one that is public.
pub(crate) fn find(db: &Connection, owner: Owner, id_or_name: &str) -> rusqlite::Result<Option<TemplateRow>> {
    let found = db
        .prepare_cached(&format!(
            "SELECT {TEMPLATE} FROM templates WHERE (owner = ?1 OR public) AND (id = ?2 OR \
             id IN (SELECT template FROM names WHERE name = ?2)) \
             ORDER BY owner = ?1 DESC, id = ?2 DESC, created_at LIMIT 1"
        ))?
        .query_row(params![number(owner), id_or_name], template_row)
        .optional()?;
    found
        .map(|template| {
            Ok(TemplateRow {
                names: names_of(db, &template.id)?,
                ..template
            })
        })
        .transpose()
}

/// The same; what is not there is refused.
pub(crate) fn get(db: &Connection, owner: Owner, id_or_name: &str) -> Result<TemplateRow, DbError> {
    find(db, owner, id_or_name)?.ok_or_else(|| missing(id_or_name).into())
}

/// The same; what is another's is refused, too.
pub(crate) fn own(db: &Connection, owner: Owner, id_or_name: &str) -> Result<TemplateRow, DbError> {
    let template = get(db, owner, id_or_name)?;
    if template.owner == number(owner) {
        return Ok(template);
    }
    Err(Refusal::new(
        http::StatusCode::FORBIDDEN,
        format!(
            "template \"{}\" is another's: it can be used, not changed",
            cut(id_or_name)
        ),
    )
    .into())
}

/// There is no such template.
pub(crate) fn missing(id_or_name: &str) -> Refusal {
    let message = format!("template \"{}\" does not exist", cut(id_or_name));
    Refusal::new(http::StatusCode::NOT_FOUND, message)
}

/// An owner's templates, the newest first, after the one that was made at a time with an id.
pub(crate) fn list(
    db: &Connection,
    owner: Owner,
    after: Option<&(i64, String)>,
    most: usize,
) -> rusqlite::Result<Vec<TemplateRow>> {
    let (at, id) = after.map_or((i64::MAX, ""), |(at, id)| (*at, id.as_str()));
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut found: Vec<TemplateRow> = db
        .prepare_cached(&format!(
            "SELECT {TEMPLATE} FROM templates WHERE owner = ?1 AND (created_at, id) < (?2, ?3) \
             ORDER BY created_at DESC, id DESC LIMIT ?4"
        ))?
        .query_map(params![number(owner), at, id, most], template_row)?
        .collect::<rusqlite::Result<_>>()?;
    for template in &mut found {
        template.names = names_of(db, &template.id)?;
    }
    Ok(found)
}

/// Notes a new build, and the template where there is none of that name.
pub(crate) fn request(
    db: &Connection,
    owner: Owner,
    name: &Name,
    tags: &[String],
    (cpus, memory_mb): (Option<f64>, Option<u64>),
    (template_id, build_id): (&str, &str),
) -> Result<TemplateRow, DbError> {
    let now = now();
    let known = db
        .query_row(
            "SELECT template FROM names WHERE owner = ?1 AND name = ?2",
            params![number(owner), name.name],
            |row| row.get::<_, String>(0),
        )
        .optional()?;
    // An id of one's own names its template, too.
    let known = match known {
        Some(known) => Some(known),
        None => find(db, owner, &name.name)?
            .filter(|found| found.owner == number(owner) && found.id == name.name)
            .map(|found| found.id),
    };
    let id = match known {
        Some(known) => {
            db.execute(
                "UPDATE templates SET updated_at = ?2 WHERE id = ?1",
                params![known, now],
            )?;
            known
        }
        None => {
            let count: i64 = db.query_row(
                "SELECT count(*) FROM templates WHERE owner = ?1",
                [number(owner)],
                |row| row.get(0),
            )?;
            if count >= TEMPLATES {
                let message =
                    format!("there are {count} templates, at most {TEMPLATES} are allowed: delete some first");
                return Err(Refusal::new(http::StatusCode::TOO_MANY_REQUESTS, message).into());
            }
            db.execute(
                "INSERT INTO templates (id, owner, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)",
                params![template_id, number(owner), now],
            )?;
            db.execute(
                "INSERT INTO names (owner, name, template) VALUES (?1, ?2, ?3)",
                params![number(owner), name.name, template_id],
            )?;
            template_id.to_owned()
        }
    };
    let memory_mb = memory_mb.map(|mb| i64::try_from(mb).unwrap_or(i64::MAX));
    db.execute(
        "INSERT INTO builds (id, template, status, tags, cpus, memory_mb, created_at, updated_at) \
         VALUES (?1, ?2, 'waiting', ?3, ?4, ?5, ?6, ?6)",
        params![build_id, id, text(&tags)?, cpus, memory_mb, now],
    )?;
    // Those that were never started, or failed, or have no tag any more.
    db.execute(
        "DELETE FROM builds WHERE id IN (SELECT id FROM builds WHERE template = ?1 AND status != 'building' \
         AND NOT (status = 'waiting' AND server IS NOT NULL) AND id NOT IN (SELECT build FROM tags WHERE template = ?1) \
         AND id != ?2 ORDER BY created_at DESC LIMIT -1 OFFSET ?3)",
        params![id, build_id, BUILDS_KEPT],
    )?;
    get(db, owner, &id)
}

/// One build of a template.
pub(crate) fn build(db: &Connection, template: &str, build: &str) -> Result<BuildRow, DbError> {
    let found = db
        .prepare_cached(&format!("SELECT {BUILD} FROM builds WHERE template = ?1 AND id = ?2"))?
        .query_row([template, build], build_row)
        .optional()?;
    found.ok_or_else(|| {
        let message = format!("template {template} has no build \"{}\"", cut(build));
        Refusal::new(http::StatusCode::NOT_FOUND, message).into()
    })
}

/// The builds of a template, the newest first.
pub(crate) fn builds(db: &Connection, template: &str) -> rusqlite::Result<Vec<BuildRow>> {
    db.prepare_cached(&format!(
        "SELECT {BUILD} FROM builds WHERE template = ?1 ORDER BY created_at DESC, id LIMIT {BUILDS_KEPT} + {TEMPLATE_TAGS}"
    ))?
    .query_map([template], build_row)?
    .collect()
}

/// The build of a tag. Tags are of builds that are ready.
pub(crate) fn tagged(db: &Connection, template: &str, tag: &str) -> rusqlite::Result<Option<BuildRow>> {
    db.prepare_cached(&format!(
        "SELECT {BUILD} FROM builds WHERE id = (SELECT build FROM tags WHERE template = ?1 AND tag = ?2) \
         AND status = 'ready'"
    ))?
    .query_row([template, tag], build_row)
    .optional()
}

/// A template's tags: tag, build, since when.
pub(crate) fn tags(db: &Connection, template: &str) -> rusqlite::Result<Vec<(String, String, i64)>> {
    db.prepare_cached("SELECT tag, build, created_at FROM tags WHERE template = ?1 ORDER BY created_at DESC, tag")?
        .query_map([template], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

/// Gives a build tags, which others lose.
pub(crate) fn assign(db: &Connection, template: &str, build: &str, tags: &[String]) -> Result<(), DbError> {
    for tag in tags {
        db.execute(
            "INSERT INTO tags (template, tag, build, created_at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (template, tag) DO UPDATE SET build = ?3, created_at = ?4",
            params![template, tag, build, now()],
        )?;
    }
    let count: i64 = db.query_row("SELECT count(*) FROM tags WHERE template = ?1", [template], |row| {
        row.get(0)
    })?;
    if usize::try_from(count).is_ok_and(|count| count > TEMPLATE_TAGS) {
        let message = format!("template {template} would have {count} tags, at most {TEMPLATE_TAGS} are allowed");
        return Err(Refusal::bad_request(message).into());
    }
    Ok(())
}

/// Takes tags away. The names of those that were not there are returned.
pub(crate) fn unassign(db: &Connection, template: &str, tags: &[String]) -> rusqlite::Result<Vec<String>> {
    let mut absent = Vec::new();
    for tag in tags {
        let gone = db.execute("DELETE FROM tags WHERE template = ?1 AND tag = ?2", [template, tag])?;
        if gone == 0 {
            absent.push(tag.clone());
        }
    }
    Ok(absent)
}

/// Notes that a build is a server's from now on. False if it was started before.
pub(crate) fn claim(db: &Connection, build: &str, server: &str) -> rusqlite::Result<bool> {
    let claimed = db.execute(
        "UPDATE builds SET server = ?2, updated_at = ?3 WHERE id = ?1 AND status = 'waiting' AND server IS NULL",
        params![build, server, now()],
    )?;
    Ok(claimed == 1)
}

/// Notes that a build is under way.
pub(crate) fn begun(db: &Connection, build: &str) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE builds SET status = 'building', updated_at = ?2 WHERE id = ?1 AND status = 'waiting'",
        params![build, now()],
    )?;
    Ok(())
}

/// Notes that a build is ready; it gets its tags. A build that is gone stays gone.
pub(crate) fn ready(db: &Connection, build: &str, root: &StoredRoot, start: &Start) -> Result<(), DbError> {
    let found = db
        .query_row(
            "UPDATE builds SET status = 'ready', updated_at = ?2, finished_at = ?2, root = ?3, start = ?4 \
             WHERE id = ?1 AND status = 'building' RETURNING template, tags",
            params![build, now(), text(root)?, text(start)?],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
        )
        .optional()?;
    let Some((template, tags)) = found else { return Ok(()) };
    let mut tags: Vec<String> = serde_json::from_str(&tags).unwrap_or_default();
    if tags.is_empty() {
        tags.push(DEFAULT_TAG.to_owned());
    }
    assign(db, &template, build, &tags)?;
    db.execute(
        "UPDATE templates SET updated_at = ?2 WHERE id = ?1",
        params![template, now()],
    )?;
    Ok(())
}

/// Notes that a build failed.
pub(crate) fn failed(db: &Connection, build: &str, reason: &BuildReason) -> Result<(), DbError> {
    db.execute(
        "UPDATE builds SET status = 'error', updated_at = ?2, finished_at = ?2, reason = ?3 \
         WHERE id = ?1 AND status IN ('waiting', 'building')",
        params![build, now(), text(reason)?],
    )?;
    Ok(())
}

/// Notes that the builds of servers that are gone failed. Returns how many.
pub(crate) fn abandon(db: &Connection, is_gone: impl Fn(&str) -> bool) -> Result<usize, DbError> {
    let open: Vec<(String, String)> = db
        .prepare("SELECT id, server FROM builds WHERE status IN ('waiting', 'building') AND server IS NOT NULL")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let reason = BuildReason {
        message: "the server that built it ended before the build did: build it again".into(),
        ..BuildReason::default()
    };
    let mut count = 0;
    for (build, _) in open.iter().filter(|(_, server)| is_gone(server)) {
        failed(db, build, &reason)?;
        count += 1;
    }
    Ok(count)
}

/// Counts a sandbox that was made of a template.
pub(crate) fn spawned(db: &Connection, template: &str) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE templates SET spawned = spawned + 1, spawned_at = ?2 WHERE id = ?1",
        params![template, now()],
    )?;
    Ok(())
}

/// What must stay: the roots of builds that are ready.
pub(crate) fn roots(db: &Connection) -> rusqlite::Result<Vec<StoredRoot>> {
    let mut rows = db.prepare("SELECT root FROM builds WHERE root IS NOT NULL")?;
    let roots: Vec<Option<StoredRoot>> = rows
        .query_map([], |row| json(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(roots.into_iter().flatten().collect())
}
