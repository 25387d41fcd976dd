//! What every tool answers with: `{ok, sandbox_id, error}` and the tool's own fields for programs, a short text for a model.

use rmcp::model::{CallToolResult, ContentBlock, Resource};
use serde::Serialize;
use serde_json::{Map, Number, Value, json};

use crate::resources;

/// A limit of a sandbox that was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub(crate) struct LimitMet {
    /// As `create_sandbox` names it.
    pub(crate) name: &'static str,
    /// What it is.
    #[schemars(with = "f64")]
    pub(crate) value: Number,
}

impl LimitMet {
    /// A limit with its value.
    pub(crate) fn new(name: &'static str, value: f64) -> Self {
        Self {
            name,
            value: number(value),
        }
    }
}

/// A number that is whole where it can be.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a limit beyond 63 bits is shown as the largest number"
)]
pub(crate) fn number(value: f64) -> Number {
    match Number::from_f64(value) {
        Some(number) if value.fract() != 0.0 => number,
        _ => Number::from(value as i64),
    }
}

/// A failure that a model can do something about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolError {
    /// A word a program can compare.
    pub(crate) code: &'static str,
    /// What failed, on which object.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The sandbox it failed in.
    pub(crate) sandbox_id: Option<String>,
    /// The limit that was met.
    pub(crate) limit: Option<LimitMet>,
}

impl ToolError {
    /// An error with a code of its own.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            sandbox_id: None,
            limit: None,
        }
    }

    /// An argument was refused.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid_argument", message)
    }

    /// Says what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the sandbox.
    pub(crate) fn within(mut self, sandbox_id: &str) -> Self {
        self.sandbox_id = Some(sandbox_id.to_owned());
        self
    }

    /// Names the sandbox, if there is one.
    pub(crate) fn within_any(mut self, sandbox_id: Option<&str>) -> Self {
        self.sandbox_id = sandbox_id.map(str::to_owned);
        self
    }

    /// Names the limit that was met.
    pub(crate) fn limit(mut self, limit: LimitMet) -> Self {
        self.limit = Some(limit);
        self
    }

    /// What a model reads.
    pub(crate) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\n{hint}", self.message),
            None => self.message.clone(),
        }
    }

    fn value(&self) -> Value {
        let mut map = Map::new();
        map.insert("code".into(), self.code.into());
        map.insert("message".into(), self.message.clone().into());
        if let Some(hint) = &self.hint {
            map.insert("hint".into(), hint.clone().into());
        }
        if let Some(limit) = &self.limit {
            map.insert("limit".into(), json!(limit));
        }
        Value::Object(map)
    }
}

/// A picture, shown beside the text.
pub(crate) struct Image {
    /// Base64.
    pub(crate) data: String,
    /// `image/png`, …
    pub(crate) mime: &'static str,
}

/// A file in a sandbox that holds what is too long for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Artifact {
    /// A resource that can be read.
    uri: String,
    /// Its path in the sandbox.
    path: String,
    /// Bytes.
    size: u64,
}

impl Artifact {
    /// The file at this absolute path.
    pub(crate) fn new(sandbox_id: &str, path: &str, size: u64) -> Self {
        Self {
            uri: resources::file_uri(sandbox_id, path),
            path: path.to_owned(),
            size,
        }
    }

    fn link(&self) -> ContentBlock {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let mut resource = Resource::new(&self.uri, name).with_size(self.size);
        if let Some(kind) = mime_guess::from_path(&self.path).first() {
            resource = resource.with_mime_type(kind.essence_str());
        }
        ContentBlock::resource_link(resource)
    }
}

/// What a tool returns when it did its work, or part of it.
pub(crate) struct Reply<O> {
    /// The tool's own fields.
    output: O,
    text: String,
    sandbox_id: Option<String>,
    images: Vec<Image>,
    artifacts: Vec<Artifact>,
    error: Option<ToolError>,
}

impl<O: Serialize> Reply<O> {
    /// `text` is what a model reads.
    pub(crate) fn new(output: O, text: impl Into<String>) -> Self {
        Self {
            output,
            text: text.into(),
            sandbox_id: None,
            images: Vec::new(),
            artifacts: Vec::new(),
            error: None,
        }
    }

    /// Names the sandbox.
    pub(crate) fn within(mut self, sandbox_id: &str) -> Self {
        self.sandbox_id = Some(sandbox_id.to_owned());
        self
    }

    /// Names the sandbox, if there is one.
    pub(crate) fn within_any(mut self, sandbox_id: Option<&str>) -> Self {
        self.sandbox_id = sandbox_id.map(str::to_owned);
        self
    }

    /// Adds a picture.
    pub(crate) fn image(mut self, image: Image) -> Self {
        self.images.push(image);
        self
    }

    /// Names files with what is too long.
    pub(crate) fn artifacts(mut self, artifacts: impl IntoIterator<Item = Artifact>) -> Self {
        self.artifacts.extend(artifacts);
        self
    }

    /// Makes it a failure that still tells what was done. The error's text comes first.
    pub(crate) fn failed(mut self, error: ToolError) -> Self {
        self.text = format!("{}\n{}", error.text(), self.text).trim_end().to_owned();
        self.error = Some(error);
        self
    }
}

/// The result of the protocol for a reply or an error. `links`: whether the client knows links to resources.
pub(crate) fn finish<O: Serialize>(result: Result<Reply<O>, ToolError>, links: bool) -> CallToolResult {
    let mut map = Map::new();
    map.insert("ok".into(), true.into());
    let reply = match result {
        Ok(reply) => reply,
        Err(error) => return failure(&error, map),
    };
    if let Some(id) = &reply.sandbox_id {
        map.insert("sandbox_id".into(), id.clone().into());
    }
    match serde_json::to_value(&reply.output) {
        Ok(Value::Object(fields)) => map.extend(fields),
        Ok(_) => {}
        Err(error) => {
            return failure(
                &ToolError::new("internal", format!("the answer cannot be encoded: {error}")),
                map,
            );
        }
    }
    if !reply.artifacts.is_empty() {
        map.insert("artifacts".into(), json!(reply.artifacts));
    }
    let mut content = Vec::with_capacity(1 + reply.images.len() + reply.artifacts.len());
    if !reply.text.is_empty() {
        content.push(ContentBlock::text(reply.text));
    }
    content.extend(
        reply
            .images
            .into_iter()
            .map(|image| ContentBlock::image(image.data, image.mime)),
    );
    content.extend(reply.artifacts.iter().filter(|_| links).map(Artifact::link));
    let mut result = CallToolResult::success(content);
    if let Some(error) = &reply.error {
        map.insert("ok".into(), false.into());
        map.insert("error".into(), error.value());
        result.is_error = Some(true);
    }
    result.structured_content = Some(Value::Object(map));
    result
}

fn failure(error: &ToolError, mut map: Map<String, Value>) -> CallToolResult {
    map.insert("ok".into(), false.into());
    if let Some(id) = &error.sandbox_id {
        map.insert("sandbox_id".into(), id.clone().into());
    }
    map.insert("error".into(), error.value());
    let mut result = CallToolResult::error(vec![ContentBlock::text(error.text())]);
    result.structured_content = Some(Value::Object(map));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_the_contract() {
        let reply = Reply::new(json!({"size": 3}), "wrote 3 bytes").within("i1");
        let result = finish(Ok(reply), true);
        assert_eq!(
            result.structured_content,
            Some(json!({"ok": true, "sandbox_id": "i1", "size": 3}))
        );
        assert_ne!(result.is_error, Some(true));
    }

    #[test]
    fn long_things_are_linked_where_links_are_known() {
        let reply = || Reply::new(json!({}), "cut").artifacts([Artifact::new("i1", "/tmp/a b.csv", 5)]);
        let result = finish(Ok(reply()), true);
        let uri = "sandhold://sandbox/i1/file/tmp/a%20b.csv";
        assert_eq!(
            result.structured_content,
            Some(json!({"ok": true, "artifacts": [{"uri": uri, "path": "/tmp/a b.csv", "size": 5}]}))
        );
        let link = result.content[1].as_resource_link().unwrap();
        assert_eq!(
            (
                link.uri.as_str(),
                link.name.as_str(),
                link.mime_type.as_deref(),
                link.size
            ),
            (uri, "a b.csv", Some("text/csv"), Some(5))
        );
        assert_eq!(finish(Ok(reply()), false).content.len(), 1);
    }

    #[test]
    fn a_failure_keeps_what_was_done() {
        let reply = Reply::new(json!({"stdout": "x"}), "stdout:\nx").failed(
            ToolError::new("timeout", "too slow")
                .hint("wait")
                .limit(LimitMet::new("cpus", 2.0)),
        );
        let result = finish(Ok(reply), true);
        let expected = json!({"ok": false, "stdout": "x", "error": {"code": "timeout", "message": "too slow", "hint": "wait", "limit": {"name": "cpus", "value": 2}}});
        assert_eq!(result.structured_content, Some(expected));
        assert_eq!(result.is_error, Some(true));
        assert_eq!(result.content[0].as_text().unwrap().text, "too slow\nwait\nstdout:\nx");
    }
}
