//! REST types of templates and their builds, named and spelled as E2B's OpenAPI spells them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `POST /v3/templates`, and `POST /v2/templates`, whose clients send `alias`: asks for a build of a template, which is
/// made if there is none of that name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TemplateBuildRequest {
    /// Name of the template, `name` or `name:tag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What older clients call the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Tags that the build gets once it is ready; `default` when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Virtual processors of its sandboxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<f64>,
    /// Memory of its sandboxes in MiB.
    #[serde(rename = "memoryMB", skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Room that is left on the disk of its sandboxes, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free_disk_mb: Option<u64>,
}

/// Answer of `POST /v3/templates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRequested {
    /// Id of the template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Id of the build, which waits to be started.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// Whether others may use the template.
    #[serde(default)]
    pub public: bool,
    /// Names of the template.
    #[serde(default)]
    pub names: Vec<String>,
    /// Tags that the build gets.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The names, as older clients want them.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// Answer of `GET /templates/{id}/files/{hash}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateFileUpload {
    /// Whether the files are there already.
    pub present: bool,
    /// Where they are put (a tar, which may be gzipped), also to replace them. In this process: a path of this API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Headers that the upload needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// `POST /v2/templates/{id}/builds/{build}`: what to build, from an image or from a template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TemplateBuildStart {
    /// The image that it begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_image: Option<String>,
    /// The template that it begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_template: Option<String>,
    /// Who pulls the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_image_registry: Option<ImageRegistry>,
    /// Whether nothing is taken from the cache.
    pub force: bool,
    /// What is done on top, in order.
    pub steps: Vec<TemplateStep>,
    /// What runs in every sandbox from its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// Succeeds once that is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_cmd: Option<String>,
}

/// Credentials of a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum ImageRegistry {
    /// A name and a password.
    Registry {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// Amazon's.
    Aws {
        /// Name of the key.
        aws_access_key_id: String,
        /// The key.
        aws_secret_access_key: String,
        /// Where the registry is.
        aws_region: String,
    },
    /// Google's.
    Gcp {
        /// A service account's key file.
        service_account_json: String,
    },
}

impl std::fmt::Debug for ImageRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Registry { .. } => "Registry",
            Self::Aws { .. } => "Aws",
            Self::Gcp { .. } => "Gcp",
        })
    }
}

/// One step of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateStep {
    /// `RUN`, `COPY`, `ENV`, `ARG`, `WORKDIR` or `USER`.
    #[serde(rename = "type")]
    pub kind: String,
    /// RUN: the command, then the user if it is another one. COPY: source, destination, then owner and octal mode, which may
    /// be empty. ENV and ARG: names and values in turn. WORKDIR: the folder. USER: the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// COPY: the SHA-256 that its files were uploaded by, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_hash: Option<String>,
    /// Whether this step and those after it are not taken from the cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateBuildStatus {
    /// It was not started, or its turn has not come.
    Waiting,
    /// It is under way.
    Building,
    /// Sandboxes can be made from it.
    Ready,
    /// It failed.
    Error,
}

/// One line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLogEntry {
    /// RFC 3339.
    pub timestamp: String,
    /// What a person reads. What commands print is untrusted.
    pub message: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// `base`, the number of a step, the first being 1, or `finalize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Why a build failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildReason {
    /// What a person reads.
    pub message: String,
    /// The step that failed, as in [`BuildLogEntry::step`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The last lines of its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_entries: Vec<BuildLogEntry>,
}

/// Answer of `GET /templates/{id}/builds/{build}/status?logsOffset&limit&level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateBuildInfo {
    /// Always empty; older clients want it.
    #[serde(default)]
    pub logs: Vec<String>,
    /// The log from the offset on, at most [`crate::limits::BUILD_LOG_PAGE`] lines.
    #[serde(default)]
    pub log_entries: Vec<BuildLogEntry>,
    /// The template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// The build.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// How far it is.
    pub status: TemplateBuildStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<BuildReason>,
}

/// Answer of `GET /templates/{id}/builds/{build}/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateBuildLogs {
    /// The lines.
    pub logs: Vec<BuildLogEntry>,
}

/// One of `GET /templates` and `GET /v2/templates`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Its id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// The newest build that is ready; without one the newest.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// Virtual processors of its sandboxes.
    pub cpu_count: f64,
    /// Memory of its sandboxes in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u64,
    /// Disk of its sandboxes in MiB.
    #[serde(rename = "diskSizeMB", default)]
    pub disk_size_mb: u64,
    /// Whether others may use it.
    #[serde(default)]
    pub public: bool,
    /// Its names, as older clients want them.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Its names.
    #[serde(default)]
    pub names: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// Who made it: not told here.
    #[serde(default)]
    pub created_by: Option<serde_json::Value>,
    /// RFC 3339: when a sandbox was last made of it.
    #[serde(default)]
    pub last_spawned_at: Option<String>,
    /// How many sandboxes were made of it.
    #[serde(default)]
    pub spawn_count: u64,
    /// How often it was built.
    #[serde(default)]
    pub build_count: u64,
    /// Version of the daemon's protocol.
    #[serde(default)]
    pub envd_version: String,
    /// How far the newest build is.
    #[serde(default = "ready")]
    pub build_status: TemplateBuildStatus,
    /// Bytes of the files that its newest build that is ready stands on. An addition of Sandhold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

fn ready() -> TemplateBuildStatus {
    TemplateBuildStatus::Ready
}

/// A build, as `GET /templates/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateBuild {
    /// Its id, a UUID.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// How far it is.
    pub status: TemplateBuildStatus,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Virtual processors of its sandboxes.
    pub cpu_count: f64,
    /// Memory of its sandboxes in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u64,
    /// What its sandboxes begin with. An addition of Sandhold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<TemplateSetup>,
}

/// What the sandboxes of a build begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TemplateSetup {
    /// `host` or `empty`: what is below the lowest layer.
    pub base: String,
    /// The layers, the lowest first, each by the SHA-256 of what it holds.
    pub layers: Vec<String>,
    /// Bytes of the files of each; of one that is missing none.
    pub layer_bytes: Vec<Option<u64>>,
    /// Environment of every process.
    pub envs: BTreeMap<String, String>,
    /// The user of processes and files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where relative paths start; absent: the user's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// What runs from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// Succeeds once that is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_cmd: Option<String>,
}

/// Answer of `GET /templates/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateWithBuilds {
    /// What a list shows.
    #[serde(flatten)]
    pub template: Template,
    /// Its builds, the newest first.
    #[serde(default)]
    pub builds: Vec<TemplateBuild>,
}

/// Answer of `GET /templates/aliases/{alias}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateAlias {
    /// The template of that name.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Whether others may use it.
    #[serde(default)]
    pub public: bool,
}

/// `POST /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignTemplateTags {
    /// The build that gets the tags: `name:tag`, or `name` for its tag `default`.
    pub target: String,
    /// The tags.
    pub tags: Vec<String>,
}

/// Answer of `POST /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTemplateTags {
    /// The tags that it got.
    pub tags: Vec<String>,
    /// The build that got them.
    #[serde(rename = "buildID")]
    pub build_id: String,
}

/// `DELETE /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTemplateTags {
    /// The template's name.
    pub name: String,
    /// The tags.
    pub tags: Vec<String>,
}

/// One of `GET /templates/{id}/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateTag {
    /// The tag.
    pub tag: String,
    /// The build that has it.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// RFC 3339: since when.
    pub created_at: String,
}

/// `PATCH /templates/{id}` and `PATCH /v2/templates/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUpdate {
    /// Whether others may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
}

/// Answer of the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUpdated {
    /// Names of the template.
    #[serde(default)]
    pub names: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_sdks_send() {
        let start: TemplateBuildStart = serde_json::from_str(
            r#"{"steps":[{"type":"COPY","args":["a","/b","",""],"force":false,"filesHash":"00","forceUpload":null},{"type":"RUN","args":["true","root"],"force":true}],
            "force":false,"fromImage":"debian:12","fromImageRegistry":{"type":"aws","awsAccessKeyId":"a","awsSecretAccessKey":"b","awsRegion":"c"},
            "startCmd":"sleep 9","readyCmd":"true"}"#,
        )
        .unwrap();
        assert_eq!(start.steps[0].files_hash.as_deref(), Some("00"));
        assert!(start.steps[1].force && !start.steps[0].force);
        assert!(matches!(start.from_image_registry, Some(ImageRegistry::Aws { .. })));
        assert_eq!(format!("{:?}", start.from_image_registry.unwrap()), "Aws");
        let registry: ImageRegistry =
            serde_json::from_str(r#"{"type":"registry","username":"u","password":"p"}"#).unwrap();
        assert!(matches!(registry, ImageRegistry::Registry { .. }));
    }

    #[test]
    fn sends_nothing_that_was_not_said() {
        let request = TemplateBuildRequest {
            name: Some("a:b".into()),
            ..TemplateBuildRequest::default()
        };
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"name":"a:b"}"#);
        let step = TemplateStep {
            kind: "USER".into(),
            args: vec!["root".into()],
            ..TemplateStep::default()
        };
        assert_eq!(
            serde_json::to_string(&step).unwrap(),
            r#"{"type":"USER","args":["root"]}"#
        );
    }
}
