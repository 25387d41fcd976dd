//! What a name stands for: the root and the settings that a sandbox begins with.

use sandhold_runtime::Root;
use sandhold_wire::names::{DEFAULT_TAG, DEFAULT_TEMPLATE};

use super::{
    names::{Name, cut, nearest},
    rows,
};
use crate::{create::Origin, error::Refusal, owner::Owner, sandboxes::Sandboxes, snapshots};

/// Names that are told where a name is not known.
const NAMES_TOLD: usize = 10;

impl Sandboxes {
    /// What a sandbox of this template begins with: `base`, an id, a name, or either with `:` and a tag.
    pub(crate) async fn resolve(&self, owner: Owner, text: &str) -> Result<Origin, Refusal> {
        // Without a look into any file.
        if text == DEFAULT_TEMPLATE {
            return Ok(Origin::base());
        }
        let Ok(name) = Name::parse(text) else {
            return Err(rows::missing(text));
        };
        let found = self.template(owner, text, name).await;
        match found {
            Err(refusal) if refusal.status() == http::StatusCode::NOT_FOUND => {
                let snapshot = snapshots::resolve(self, owner, text).await;
                snapshot.ok().flatten().ok_or(refusal)
            }
            found => found,
        }
    }

    /// Counts a sandbox that was made of a template. Nobody waits for it.
    pub(crate) fn count_spawn(&self, template: &str) {
        if template == DEFAULT_TEMPLATE {
            return;
        }
        let (db, template) = (self.templates.db.clone(), template.to_owned());
        tokio::spawn(async move { db.run(move |db| Ok(rows::spawned(db, &template)?)).await });
    }

    async fn template(&self, owner: Owner, text: &str, name: Name) -> Result<Origin, Refusal> {
        if name.name == DEFAULT_TEMPLATE && name.tag() == DEFAULT_TAG {
            return Ok(Origin::base());
        }
        let text = cut(text);
        self.templates
            .db
            .read(move |db| {
                let Some(template) = rows::find(db, owner, &name.name)? else {
                    let known = rows::all_names(db, owner)?;
                    let hint = match nearest(&name.name, &known) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None if known.is_empty() => {
                            format!("there is \"{DEFAULT_TEMPLATE}\"; others have to be built first")
                        }
                        None => {
                            let shown = known.iter().take(NAMES_TOLD).map(String::as_str);
                            let shown = shown.collect::<Vec<_>>().join(", ");
                            let more = if known.len() > NAMES_TOLD { ", …" } else { "" };
                            format!("there are {DEFAULT_TEMPLATE}, {shown}{more}")
                        }
                    };
                    let message = format!("template \"{text}\" does not exist: {hint}");
                    return Err(Refusal::new(http::StatusCode::NOT_FOUND, message).into());
                };
                let build = rows::tagged(db, &template.id, name.tag())?;
                let alias = template.names.first().cloned().unwrap_or_else(|| template.id.clone());
                let Some((build, root)) = build.and_then(|build| Some((build.clone(), build.root?))) else {
                    let why = no_build(db, &template, &name)?;
                    let message = format!("template \"{text}\" cannot be used: {why}");
                    return Err(Refusal::new(http::StatusCode::NOT_FOUND, message).into());
                };
                Ok(Origin {
                    template: template.id,
                    alias,
                    start: build.start,
                    root: Root::from(root),
                    cpus: build.cpus,
                    memory_mb: build.memory_mb,
                })
            })
            .await
    }
}

/// Why a template has no build of a tag.
fn no_build(
    db: &rusqlite::Connection,
    template: &rows::TemplateRow,
    name: &Name,
) -> Result<String, super::db::DbError> {
    use sandhold_wire::templates::TemplateBuildStatus as Status;

    let tags: Vec<String> = rows::tags(db, &template.id)?.into_iter().map(|(tag, ..)| tag).collect();
    if !tags.is_empty() {
        return Ok(format!("it has no tag \"{}\"; it has {}", name.tag(), tags.join(", ")));
    }
    let newest = rows::builds(db, &template.id)?.into_iter().next();
    Ok(match newest.map(|build| (build.status, build.reason)) {
        Some((Status::Waiting | Status::Building, _)) => "its first build is not ready yet".into(),
        Some((_, Some(reason))) => format!("its build failed: {}", reason.message),
        _ => "it has no build that is ready".into(),
    })
}
