//! `sandhold template inspect`

use std::process::ExitCode;

use anyhow::{Context, Result};
use sandhold_client::{Client, Error, TemplateBuild, TemplateTag, TemplateWithBuilds};

use super::{
    bytes,
    list::{age, name, state},
    plain, short,
};

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) async fn run(client: &Client, asked: &str, json: bool) -> Result<ExitCode> {
    let found = match client.template(asked).await {
        Ok(found) => found,
        Err(Error::NotFound(_)) => {
            anyhow::bail!("there is no template {asked}; `sandhold template list` shows them")
        }
        Err(error) => return Err(error).with_context(|| format!("template {asked} cannot be looked at")),
    };
    // An aside, as in the list.
    let tags = client
        .template_tags(&found.template.template_id)
        .await
        .unwrap_or_default();
    if json {
        let mut value = serde_json::to_value(&found).context("the template cannot be written down")?;
        value["tags"] = serde_json::to_value(&tags).context("its tags cannot be written down")?;
        println!("{value:#}");
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", text(&found, &tags));
    Ok(ExitCode::SUCCESS)
}

fn text(found: &TemplateWithBuilds, tags: &[TemplateTag]) -> String {
    let template = &found.template;
    let mut lines = vec![
        format!("name       {}", name(template)),
        format!("id         {}", plain(&template.template_id)),
        format!("made       {} ago", age(&template.created_at)),
        format!("sandboxes  {} made of it", template.spawn_count),
    ];
    for build in &found.builds {
        lines.push(String::new());
        lines.extend(of_build(build, tags));
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn of_build(build: &TemplateBuild, tags: &[TemplateTag]) -> Vec<String> {
    let its: Vec<&str> = tags
        .iter()
        .filter(|tag| tag.build_id == build.build_id)
        .map(|tag| tag.tag.as_str())
        .collect();
    let its = if its.is_empty() {
        String::new()
    } else {
        format!(", tags {}", plain(&its.join(", ")))
    };
    let mut lines = vec![
        format!(
            "build {}: {} {} ago{its}",
            short(&build.build_id),
            state(build.status),
            age(build.finished_at.as_deref().unwrap_or(&build.updated_at)),
        ),
        format!("  {} cpus, {} MiB of memory", build.cpu_count, build.memory_mb),
    ];
    let Some(setup) = &build.setup else { return lines };
    let said = [
        ("user", &setup.user),
        ("folder", &setup.workdir),
        ("starts", &setup.start_cmd),
        ("ready when", &setup.ready_cmd),
    ];
    for (what, value) in said {
        if let Some(value) = value {
            lines.push(format!("  {what}: {}", plain(value)));
        }
    }
    for (name, value) in &setup.envs {
        lines.push(format!("  env {}={}", plain(name), plain(value)));
    }
    let below = if setup.base == "host" {
        ", over this machine's /usr"
    } else {
        ""
    };
    lines.push(format!("  {} layers{below}, the lowest first:", setup.layers.len()));
    let sizes = setup.layer_bytes.iter().copied().chain(std::iter::repeat(None));
    for (layer, size) in setup.layers.iter().zip(sizes) {
        let size = size.map_or_else(|| "missing".to_owned(), bytes);
        lines.push(format!("    {}  {size}", short(layer)));
    }
    lines
}
