//! `sandhold template list`

use std::process::ExitCode;

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use sandhold_client::{Client, Template, TemplateBuildStatus, TemplateTag};
use serde_json::{Value, json};

use super::{bytes, plain};

/// Most templates that are shown.
const MOST: usize = 1000;
/// Templates whose tags are asked for at once.
const AT_ONCE: usize = 8;

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) async fn run(client: &Client, json: bool) -> Result<ExitCode> {
    let found = client.templates(MOST).await.context("the templates cannot be listed")?;
    let rows: Vec<(Template, Vec<TemplateTag>)> = stream::iter(found)
        .map(|template| async move {
            // An aside: without them the list is still one.
            let tags = client.template_tags(&template.template_id).await.unwrap_or_default();
            (template, tags)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    if json {
        let rows: Vec<Value> = rows.iter().map(|(template, tags)| value(template, tags)).collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&rows).context("the list cannot be written down")?
        );
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        println!("no templates yet; `sandhold template build --help` says how to make one");
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![["NAME", "TAGS", "SIZE", "AGE", "STATE"].map(str::to_owned)];
    lines.extend(rows.iter().map(|(template, tags)| line(template, tags)));
    print(&lines);
    Ok(ExitCode::SUCCESS)
}

/// The name of a state.
pub(super) fn state(status: TemplateBuildStatus) -> &'static str {
    match status {
        TemplateBuildStatus::Waiting => "waiting",
        TemplateBuildStatus::Building => "building",
        TemplateBuildStatus::Ready => "ready",
        TemplateBuildStatus::Error => "failed",
    }
}

/// What a template is called.
pub(super) fn name(template: &Template) -> String {
    let names = if template.names.is_empty() {
        &template.aliases
    } else {
        &template.names
    };
    if names.is_empty() {
        return plain(&template.template_id);
    }
    plain(&names.join(","))
}

fn value(template: &Template, tags: &[TemplateTag]) -> Value {
    json!({
        "template_id": template.template_id,
        "names": template.names,
        "tags": tags.iter().map(|tag| json!({"tag": tag.tag, "build_id": tag.build_id})).collect::<Vec<_>>(),
        "size_bytes": template.size_bytes,
        "created_at": template.created_at,
        "updated_at": template.updated_at,
        "state": state(template.build_status),
        "cpus": template.cpu_count,
        "memory_mb": template.memory_mb,
        "sandboxes_made": template.spawn_count,
    })
}

fn line(template: &Template, tags: &[TemplateTag]) -> [String; 5] {
    let tags = tags.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>().join(",");
    [
        name(template),
        if tags.is_empty() { "-".into() } else { plain(&tags) },
        template.size_bytes.map_or_else(|| "-".into(), bytes),
        age(&template.updated_at),
        state(template.build_status).into(),
    ]
}

/// How long ago a time is, in its largest unit.
pub(super) fn age(at: &str) -> String {
    let at = humantime::parse_rfc3339_weak(at.split_once('+').map_or(at, |(at, _)| at));
    let Some(age) = at.ok().and_then(|at| at.elapsed().ok()) else {
        return "-".into();
    };
    let seconds = age.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Prints a table.
#[expect(clippy::print_stdout, reason = "the command's output")]
fn print<const N: usize>(lines: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        println!("{}", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_one_unit() {
        assert!(age("2020-01-01T00:00:00Z").ends_with(" days"));
        assert!(age("2020-01-01T00:00:00.123456+00:00").ends_with(" days"));
        assert_eq!(age("soon"), "-");
    }
}
