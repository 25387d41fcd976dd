//! The tools as other stacks take them: MCP's list, and the function declarations of three model APIs.

use serde_json::{Map, Value, json};

use crate::{
    registry::{ConfigError, Entry, Selection},
    tools,
};

/// A way to write the tools down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The result of MCP's `tools/list`, with whole output schemas.
    Mcp,
    /// The `tools` of OpenAI's Chat Completions, as many other servers take them, in strict mode: every argument is required,
    /// and one that may be left out takes `null`.
    OpenAi,
    /// The `tools` of Anthropic's Messages.
    Anthropic,
    /// One of the `tools` of Gemini's `generateContent`: function declarations in its subset of OpenAPI's schemas.
    Gemini,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mcp, Self::OpenAi, Self::Anthropic, Self::Gemini];

    /// Its name on the command line, and that of its file in `schemas/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }
}

/// The selected tools in a format.
///
/// # Errors
///
/// The selection names something that does not exist, or leaves no tool.
pub fn export(format: Format, selection: &Selection) -> Result<Value, ConfigError> {
    let names = selection.names()?;
    let listed = tools::all().into_iter().filter(|e| names.contains(e.spec.name));
    let tools = listed.map(|entry| {
        let (name, description) = (entry.spec.name, entry.spec.description);
        let mut schema = Value::Object((*entry.listed.input_schema).clone());
        match format {
            Format::Mcp => whole(&entry),
            Format::OpenAi => {
                strict(&mut schema);
                let function = json!({"name": name, "description": description, "parameters": schema, "strict": true});
                json!({"type": "function", "function": function})
            }
            Format::Anthropic => {
                closed(&mut schema);
                json!({"name": name, "description": description, "input_schema": schema})
            }
            Format::Gemini => {
                // An object without properties is refused there.
                if schema["properties"].as_object().is_none_or(Map::is_empty) {
                    return json!({"name": name, "description": description});
                }
                open_api(&mut schema);
                json!({"name": name, "description": description, "parameters": schema})
            }
        }
    });
    let tools: Vec<Value> = tools.collect();
    Ok(match format {
        Format::Mcp => json!({ "tools": tools }),
        Format::OpenAi | Format::Anthropic => Value::Array(tools),
        Format::Gemini => json!({ "functionDeclarations": tools }),
    })
}

/// A tool of MCP's list, with its whole output schema.
pub(crate) fn whole(entry: &Entry) -> Value {
    let mut listed = serde_json::to_value(&entry.listed).unwrap_or_default();
    listed["outputSchema"] = entry.output.clone().into();
    listed
}

/// Calls `change` with this node and all below it.
fn visit(node: &mut Value, change: &dyn Fn(&mut Map<String, Value>)) {
    let Some(map) = node.as_object_mut() else { return };
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|child| visit(child, change));
    }
    if let Some(items) = map.get_mut("items") {
        visit(items, change);
    }
    change(map);
}

fn is_object(map: &Map<String, Value>) -> bool {
    map.get("type").is_some_and(|kind| kind == "object")
}

/// Nothing but what is named.
fn closed(schema: &mut Value) {
    visit(schema, &|map| {
        if is_object(map) {
            map.insert("additionalProperties".into(), false.into());
        }
    });
}

/// The rules of OpenAI's structured outputs: objects are closed and all their properties are required.
fn strict(schema: &mut Value) {
    closed(schema);
    visit(schema, &|map| {
        if !is_object(map) {
            return;
        }
        let required: Vec<Value> = map
            .get("required")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) else {
            return;
        };
        let names: Vec<Value> = properties.keys().map(|name| name.as_str().into()).collect();
        for (name, property) in properties
            .iter_mut()
            .filter(|(name, _)| !required.iter().any(|r| r == name.as_str()))
        {
            debug_assert!(property["type"].is_string(), "{name} has one type");
            property["type"] = json!([property["type"], "null"]);
            if let Some(values) = property.get_mut("enum").and_then(Value::as_array_mut) {
                values.push(Value::Null);
            }
        }
        map.insert("required".into(), names.into());
    });
}

/// The types of OpenAPI's subset are in capitals there.
fn open_api(schema: &mut Value) {
    visit(schema, &|map| {
        if let Some(Value::String(kind)) = map.get_mut("type") {
            kind.make_ascii_uppercase();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(format: Format, tool: &str) -> Value {
        let selection = Selection {
            tools: vec![tool.into()],
            ..Selection::default()
        };
        export(format, &selection).unwrap()
    }

    #[test]
    fn strict_schemas_require_everything() {
        let function = &one(Format::OpenAi, "run_command")[0]["function"];
        let schema = &function["parameters"];
        assert_eq!(
            (&function["strict"], &schema["additionalProperties"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(
            schema["required"].as_array().unwrap().len(),
            schema["properties"].as_object().unwrap().len()
        );
        assert_eq!(schema["properties"]["cmd"]["type"], "string");
        assert_eq!(schema["properties"]["timeout_s"]["type"], json!(["integer", "null"]));
        assert_eq!(schema["properties"]["user"]["enum"], json!(["user", "root", null]));
        let pair = &schema["properties"]["envs"]["items"];
        assert_eq!(
            (&pair["required"], &pair["additionalProperties"]),
            (&json!(["name", "value"]), &json!(false))
        );
    }

    #[test]
    fn the_formats_differ_as_their_apis_do() {
        let anthropic = &one(Format::Anthropic, "write_files")[0];
        assert_eq!(anthropic["input_schema"]["required"], json!(["files"]));
        assert_eq!(
            anthropic["input_schema"]["properties"]["files"]["items"]["additionalProperties"],
            false
        );
        let gemini = &one(Format::Gemini, "write_files")["functionDeclarations"][0];
        assert_eq!(gemini["parameters"]["properties"]["files"]["items"]["type"], "OBJECT");
        assert!(
            one(Format::Gemini, "list_jobs")["functionDeclarations"][0]
                .get("parameters")
                .is_none()
        );
        let mcp = one(Format::Mcp, "list_jobs");
        assert_eq!(mcp["tools"][0]["outputSchema"]["type"], "object");
        let all = export(
            Format::OpenAi,
            &Selection {
                toolsets: Some(vec!["all".into()]),
                ..Selection::default()
            },
        );
        assert_eq!(all.unwrap().as_array().unwrap().len(), crate::tools().len());
    }

    #[test]
    fn what_null_says_is_accepted() {
        let args = json!({"cmd": "true", "cwd": null, "envs": null, "user": null, "timeout_s": null});
        let call = one(Format::Mcp, "run_command");
        let schema = call["tools"][0]["inputSchema"].as_object().unwrap();
        #[derive(serde::Deserialize)]
        struct Params {
            cwd: Option<String>,
        }
        let read: Params = crate::args::parse("run_command", schema, args.as_object().unwrap().clone()).unwrap();
        assert!(read.cwd.is_none());
    }
}
