//! JSON schemas that every model API and MCP client takes.
//!
//! The raw output of schemars made SDK clients drop tools. What is left is: one `type` a node, no `$ref`, no `oneOf`, no `const`,
//! no `format`, no boolean schema, optional means absent from `required`.
//!
//! The list of tools costs context in every session, so there an output schema says only what is true of every result; the
//! whole ones are in `schemas/tools/` and in what `sandhold tools` prints.

use rmcp::model::JsonObject;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Input,
    Output,
}

/// The schema of a tool's arguments.
pub(crate) fn input<T: JsonSchema>() -> JsonObject {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut root = object(settings.into_generator().into_root_schema_for::<T>().to_value());
    tidy(&mut root, Side::Input);
    root.remove("description");
    if let Some(Value::Object(properties)) = root.get_mut("properties") {
        for (name, property) in properties.iter_mut().filter(|(name, _)| is_plain(name)) {
            debug_assert!(property.get("type").is_some(), "{name}");
            property.as_object_mut().map(|p| p.remove("description"));
        }
    }
    root.insert("type".into(), json!("object"));
    root.entry("properties").or_insert_with(|| json!({}));
    root
}

/// Whether an argument is the same in every tool and known by its name: the instructions say what a left out
/// `sandbox_id` means.
pub(crate) fn is_plain(argument: &str) -> bool {
    matches!(argument, "sandbox_id" | "name" | "value")
}

/// What the list of tools says of a structured result.
pub(crate) fn brief_output() -> JsonObject {
    object(json!({"type": "object"}))
}

/// The schema of a tool's structured result: the fields of `T` and those that every result may have. `undone`: whether a
/// checkpoint may be taken before a call.
pub(crate) fn output<T: JsonSchema>(undone: bool) -> JsonObject {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut root = object(settings.into_generator().into_root_schema_for::<T>().to_value());
    tidy(&mut root, Side::Output);
    let own = root.remove("properties").map(object).unwrap_or_default();
    let mut properties = object(json!({
        "ok": {"type": "boolean"},
        "sandbox_id": {"type": "string"},
    }));
    properties.extend(own);
    let text = json!({"type": "string"});
    if undone {
        properties.insert("checkpoint_id".into(), text.clone());
    }
    let error = json!({"code": text, "message": text, "hint": text,
        "limit": {"type": "object", "properties": {"name": text, "value": {"type": "number"}}}});
    properties.insert("error".into(), json!({"type": "object", "properties": error}));
    let artifact = json!({"uri": text, "path": text, "size": {"type": "integer"}});
    let artifacts = json!({"type": "array", "items": {"type": "object", "properties": artifact}});
    properties.insert("artifacts".into(), artifacts);
    let mut root = Map::new();
    root.insert("type".into(), json!("object"));
    root.insert("properties".into(), Value::Object(properties));
    // Nothing is required: a failure has only `ok` and `error`.
    root
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Visits schema positions only, so that a property that is named `format` stays.
fn tidy(node: &mut JsonObject, side: Side) {
    without_null(node);
    if let Some(Value::Array(choices)) = node.remove("oneOf") {
        match one_enum(&choices) {
            Some(values) => {
                node.insert("type".into(), json!("string"));
                node.insert("enum".into(), values.into());
            }
            None => {
                node.insert("anyOf".into(), choices.into());
            }
        }
    }
    if let Some(value) = node.remove("const") {
        node.insert("enum".into(), json!([value]));
    }
    for keyword in ["title", "format", "$schema"] {
        node.remove(keyword);
    }
    if node.get("default").is_some_and(Value::is_null) {
        node.remove("default");
    }
    // Unknown arguments are refused at run time; saying so here makes a widespread client fail.
    if node.get("additionalProperties").is_some_and(Value::is_boolean) {
        node.remove("additionalProperties");
    }
    if side == Side::Output {
        for keyword in ["description", "required", "minimum", "maximum"] {
            node.remove(keyword);
        }
    }
    if node.get("minimum").is_some_and(|v| v.as_f64() == Some(0.0)) {
        node.remove("minimum");
    }
    if let Some(Value::Object(items)) = node.get_mut("items") {
        // The list says what its entries are, and everyone knows what a name and a value are.
        items.remove("description");
        if let Some(Value::Object(fields)) = items
            .get_mut("properties")
            .filter(|f| f.get("name").is_some() && f.get("value").is_some())
        {
            fields
                .values_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|f| drop(f.remove("description")));
        }
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties
            .values_mut()
            .filter_map(Value::as_object_mut)
            .for_each(|p| tidy(p, side));
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(Value::Object(child)) = node.get_mut(keyword) {
            tidy(child, side);
        }
    }
    for keyword in ["anyOf", "allOf"] {
        if let Some(Value::Array(children)) = node.get_mut(keyword) {
            children
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|c| tidy(c, side));
        }
    }
}

/// `Option<T>` as `T`: an absent field says the same.
fn without_null(node: &mut JsonObject) {
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            node.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = node.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    if let Some(Value::Array(choices)) = node.get_mut("anyOf") {
        choices.retain(|c| c.get("type") != Some(&json!("null")));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            node.remove("anyOf");
            for (keyword, value) in only {
                node.entry(keyword).or_insert(value);
            }
        }
    }
}

/// The strings of an enum whose variants have comments.
fn one_enum(choices: &[Value]) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    for choice in choices {
        match (choice.get("const"), choice.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => values.push(value.clone()),
            (None, Some(list)) => values.extend(list.iter().cloned()),
            (None, None) => return None,
        }
    }
    values.iter().all(Value::is_string).then_some(values)
}

/// The rules that `schema` breaks, for the test over all tools.
#[cfg(test)]
pub(crate) fn violations(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if schema["type"] != "object" || !schema["properties"].is_object() {
        found.push("root is not an object with properties".into());
    }
    check(schema, "$", &mut found);
    found
}

#[cfg(test)]
fn check(node: &Value, at: &str, found: &mut Vec<String>) {
    const BANNED: [&str; 22] = [
        "$ref",
        "$defs",
        "oneOf",
        "allOf",
        "anyOf",
        "not",
        "if",
        "const",
        "format",
        "title",
        "default",
        "prefixItems",
        "patternProperties",
        "propertyNames",
        "contains",
        "uniqueItems",
        "minLength",
        "maxLength",
        "pattern",
        "additionalProperties",
        "$schema",
        "nullable",
    ];
    let Some(map) = node.as_object() else {
        found.push(format!("{at}: not a schema object"));
        return;
    };
    found.extend(
        BANNED
            .iter()
            .filter(|k| map.contains_key(**k))
            .map(|k| format!("{at}: has {k}")),
    );
    let kind = map.get("type").and_then(Value::as_str);
    if kind.is_none() {
        found.push(format!("{at}: has not exactly one type"));
    }
    if kind == Some("array") && !map.contains_key("items") {
        found.push(format!("{at}: array of anything"));
    }
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        properties
            .iter()
            .for_each(|(name, child)| check(child, &format!("{at}.{name}"), found));
    }
    if let Some(items) = map.get("items") {
        check(items, &format!("{at}[]"), found);
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    /// A word.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        /// The first.
        One,
        /// The second.
        Two,
    }

    /// Everything that schemars writes in a way that some client refuses.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Hard {
        /// Which
        word: Option<Word>,
        /// How many
        #[serde(skip_serializing_if = "Option::is_none")]
        count: Option<u32>,
        /// Parts
        parts: Option<Vec<Word>>,
        /// A property with the name of a keyword
        format: String,
    }

    #[test]
    fn rewrites_what_clients_refuse() {
        let schema = Value::Object(input::<Hard>());
        assert_eq!(violations(&schema), Vec::<String>::new(), "{schema:#}");
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["format"], "properties": {
                "word": {"type": "string", "enum": ["one", "two"], "description": "Which"},
                "count": {"type": "integer", "description": "How many"},
                "parts": {"type": "array", "items": {"type": "string", "enum": ["one", "two"]}, "description": "Parts"},
                "format": {"type": "string", "description": "A property with the name of a keyword"},
            }})
        );
    }

    #[test]
    fn outputs_promise_nothing() {
        let schema = Value::Object(output::<Hard>(false));
        assert_eq!(violations(&schema), Vec::<String>::new(), "{schema:#}");
        assert!(schema.get("required").is_none());
        assert_eq!(schema["properties"]["count"], json!({"type": "integer"}));
    }

    #[test]
    fn the_check_finds_what_it_should() {
        let raw = Value::Object(object(schemars::schema_for!(Hard).to_value()));
        let found = violations(&raw).join("; ");
        for part in ["$defs", "additionalProperties", "has format", "exactly one type"] {
            assert!(found.contains(part), "{part} not in {found}");
        }
    }
}
