//! Reading of arguments, with refusals that name the argument and list what is allowed.

use std::collections::BTreeMap;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::answer::ToolError;

/// A name with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pair {
    /// Name
    pub(crate) name: String,
    /// Value
    pub(crate) value: String,
}

/// Default: user
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum User {
    User,
    Root,
}

impl User {
    /// Its name in the sandbox.
    pub(crate) fn name(self) -> String {
        match self {
            Self::User => "user".into(),
            Self::Root => "root".into(),
        }
    }
}

/// Default: utf8
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Utf8,
    Base64,
}

/// Pairs as a map; the last of equal names counts.
pub(crate) fn map(pairs: Option<Vec<Pair>>) -> BTreeMap<String, String> {
    pairs
        .unwrap_or_default()
        .into_iter()
        .map(|p| (p.name, p.value))
        .collect()
}

/// Reads the arguments of `tool`, whose input schema is `schema`.
pub(crate) fn parse<P: DeserializeOwned>(tool: &str, schema: &JsonObject, args: JsonObject) -> Result<P, ToolError> {
    let mut value = Value::Object(args);
    whole_numbers(&mut value);
    left_out(&mut value, schema);
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let path = error.path().to_string();
        let reason = plain(&error.into_inner().to_string());
        let message = if path == "." {
            format!("the arguments of {tool} were refused: {reason}")
        } else {
            format!("argument {path} of {tool} was refused: {reason}")
        };
        ToolError::invalid(message).hint(format!("Arguments of {tool}: {}", summary(schema)))
    })
}

/// Clients that make every argument required can leave a text out only by sending an empty one.
fn left_out(args: &mut Value, schema: &JsonObject) {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|list| list.iter().any(|r| r == name));
    let is_known = |name: &str| schema.get("properties").is_some_and(|all| all.get(name).is_some());
    if let Some(args) = args.as_object_mut() {
        args.retain(|name, value| value != "" || is_required(name) || !is_known(name));
    }
}

/// Some clients send every number as a fraction: 60.0 is taken for 60.
fn whole_numbers(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            if let Some(float) = number
                .as_f64()
                .filter(|f| number.is_f64() && f.fract() == 0.0 && f.abs() < EXACT)
            {
                #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
                let whole = float as i64;
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// serde's message in words that are not Rust's.
fn plain(message: &str) -> String {
    let mut text = message.to_owned();
    for (rust, plain) in [
        ("expected u64", "expected a whole number that is not negative"),
        ("expected u32", "expected a whole number that is not negative"),
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("invalid type: sequence", "invalid type: list"),
        ("invalid type: map", "invalid type: object"),
        (
            "invalid length 0, expected struct",
            "invalid type: list, expected object",
        ),
        ("expected struct Pair", "expected an object {name, value}"),
        ("missing field", "missing argument"),
        ("unknown field", "unknown argument"),
    ] {
        text = text.replace(rust, plain);
    }
    text
}

/// `cmd (string, required), cwd (string)` of an input schema.
fn summary(schema: &JsonObject) -> String {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|list| list.iter().any(|v| v == name));
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return "none".into();
    };
    if properties.is_empty() {
        return "none".into();
    }
    let mut properties: Vec<(&String, &Value)> = properties.iter().collect();
    properties.sort_by_key(|(name, _)| !is_required(name));
    let describe = |(name, property): (&String, &Value)| {
        let kind = match property.get("enum").and_then(Value::as_array) {
            Some(values) => values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|"),
            None => property.get("type").and_then(Value::as_str).unwrap_or("any").to_owned(),
        };
        if is_required(name) {
            format!("{name} ({kind}, required)")
        } else {
            format!("{name} ({kind})")
        }
    };
    properties.into_iter().map(describe).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema;

    /// For the tests.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Params {
        /// What to run
        cmd: String,
        /// Seconds
        timeout_s: Option<u64>,
        /// Variables
        envs: Option<Vec<Pair>>,
        /// Who
        user: Option<User>,
    }

    fn read(value: Value) -> Result<Params, ToolError> {
        parse(
            "run_command",
            &schema::input::<Params>(),
            value.as_object().unwrap().clone(),
        )
    }

    #[test]
    fn null_and_whole_fractions_are_fine() {
        let p = read(json!({"cmd": "ls", "timeout_s": 60.0, "envs": null, "user": "root"})).unwrap();
        assert_eq!(
            (p.cmd.as_str(), p.timeout_s, p.user),
            ("ls", Some(60), Some(User::Root))
        );
        assert!(p.envs.is_none());
    }

    #[test]
    fn empty_texts_are_left_out_where_they_may_be() {
        let p = read(json!({"cmd": "", "user": ""})).unwrap();
        assert_eq!((p.cmd.as_str(), p.user), ("", None));
    }

    #[test]
    fn refusals_name_the_argument_and_list_the_allowed() {
        for (args, part) in [
            (json!({"command": "ls"}), "unknown argument `command`"),
            (json!({}), "missing argument `cmd`"),
            (json!({"cmd": null}), "argument cmd of run_command"),
            (json!({"cmd": "x", "comand": ""}), "unknown argument `comand`"),
            (
                json!({"cmd": "x", "timeout_s": "soon"}),
                "argument timeout_s of run_command",
            ),
            (
                json!({"cmd": "x", "timeout_s": -1}),
                "a whole number that is not negative",
            ),
            (
                json!({"cmd": "x", "timeout_s": 1.5}),
                "a whole number that is not negative",
            ),
            (
                json!({"cmd": "x", "envs": [{"name": "A"}]}),
                "argument envs[0] of run_command",
            ),
            (json!({"cmd": "x", "envs": {"A": "1"}}), "expected a list"),
            (json!({"cmd": "x", "user": "admin"}), "`user`"),
        ] {
            let error = read(args.clone()).unwrap_err();
            assert!(error.message.contains(part), "{args}: {}", error.message);
            assert_eq!(
                error.hint.unwrap(),
                "Arguments of run_command: cmd (string, required), envs (array), timeout_s (integer), user (user|root)"
            );
        }
    }
}
