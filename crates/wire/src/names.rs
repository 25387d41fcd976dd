//! Header names, ports and other fixed texts of the protocol.

/// What the names of metadata begin with that Sandhold sets by itself. It is about one sandbox: forks do not get it.
pub const OWN_METADATA: &str = "sandhold.";
/// The port envd is addressed by. Inside a local sandbox nothing listens there: the gateway forwards to an inherited socket.
pub const ENVD_PORT: u16 = 49983;
/// What the first SDKs append to a sandbox's id in host names and paths; it may not be empty, as `49983-<id>-` is no
/// host name.
pub const CLIENT_ID: &str = "local";
/// The port of the code interpreter.
pub const CODE_INTERPRETER_PORT: u16 = 49999;

/// The envd protocol version that local sandboxes report. The highest gate in the published SDKs is 0.6.4 (watch
/// `allow_network_mounts`); 0.6.13 is the version whose behaviour was copied.
pub const ENVD_VERSION: &str = "0.6.13";

/// Authenticates at the control plane.
pub const API_KEY_HEADER: &str = "x-api-key";
/// Authenticates at envd.
pub const ACCESS_TOKEN_HEADER: &str = "x-access-token";
/// Names the sandbox where the host name does not.
pub const SANDBOX_ID_HEADER: &str = "e2b-sandbox-id";
/// Names the port where the host name does not.
pub const SANDBOX_PORT_HEADER: &str = "e2b-sandbox-port";
/// Opens ports of a sandbox that was made with `allowPublicTraffic: false`.
pub const TRAFFIC_TOKEN_HEADER: &str = "e2b-traffic-access-token";
/// Seconds of silence after which a stream sends a keepalive event.
pub const KEEPALIVE_HEADER: &str = "keepalive-ping-interval";
/// Carries the next page's token in list answers.
pub const NEXT_TOKEN_HEADER: &str = "x-next-token";
/// Makes a create that is sent twice make one sandbox.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// The daemon's own path, of which the gateway alone knows the use: a tar of the writable root, read or restored.
pub const ARCHIVE_PATH: &str = "/sandhold/archive";
/// The daemon's own path: packs a folder of the sandbox into a zip file or a tar.gz.
pub const ZIP_PATH: &str = "/sandhold/zip";
/// The daemon's own path: unpacks an archive of the sandbox into a folder.
pub const UNZIP_PATH: &str = "/sandhold/unzip";
/// How long a request may take, in milliseconds; for `process.Process/Start` the deadline of the process.
pub const CONNECT_TIMEOUT_HEADER: &str = "connect-timeout-ms";
/// Prefix of the headers that carry file metadata.
pub const METADATA_HEADER_PREFIX: &str = "x-metadata-";
/// Prefix of the extended attributes that hold file metadata.
pub const METADATA_XATTR_PREFIX: &str = "user.e2b.";

/// Begins the tag of a process that is a job: whoever knows the job's id finds it, and no tag that others chose is one.
pub const JOB_TAG_PREFIX: &str = "sandhold-job:";
/// With `Connect`, how much of a job's standard output and error the client has: `120.7`. A daemon that keeps output
/// sends what follows first and answers with the same header, which says where that begins.
pub const REPLAY_HEADER: &str = "sandhold-replay";

/// The tag of the job `id`.
#[must_use]
pub fn job_tag(id: &str) -> String {
    format!("{JOB_TAG_PREFIX}{id}")
}

/// The id of the job with this tag; `None` if it is no job's.
#[must_use]
pub fn job_of_tag(tag: &str) -> Option<&str> {
    tag.strip_prefix(JOB_TAG_PREFIX)
}

/// The text of [`REPLAY_HEADER`].
#[must_use]
pub fn replay(offsets: [u64; 2]) -> String {
    format!("{}.{}", offsets[0], offsets[1])
}

/// Reads [`REPLAY_HEADER`].
#[must_use]
pub fn parse_replay(text: &str) -> Option<[u64; 2]> {
    let (stdout, stderr) = text.trim().split_once('.')?;
    Some([stdout.parse().ok()?, stderr.parse().ok()?])
}

/// The template that is used when none is named.
pub const DEFAULT_TEMPLATE: &str = "base";
/// The tag of a template's build that is used when none is named.
pub const DEFAULT_TAG: &str = "default";
/// The user that processes and files belong to when none is named.
pub const DEFAULT_USER: &str = "user";

/// Where callers of `sudo` find the daemon, inside a sandbox. A name that begins with `@` is that of an abstract socket: it
/// is of the sandbox's network namespace, and no change of its files touches it.
pub const SUDO_SOCKET: &str = "@sandhold-sudo";

/// A sandbox id is `i` and 20 characters of `[a-z0-9]`, as E2B's are.
pub const SANDBOX_ID_LEN: usize = 21;

/// Whether `id` can be the id of a sandbox at all: lower-case letters and digits, at most 64 of them.
#[must_use]
pub fn is_sandbox_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The message of E2B's 404 for a sandbox.
#[must_use]
pub fn sandbox_not_found(id: &str) -> String {
    format!("Sandbox \"{id}\" doesn't exist or you don't have access to it")
}

/// The message of the gateway's 502 for a sandbox that does not run. SDKs look for "was not found".
pub const PROXY_NOT_FOUND: &str = "The sandbox was not found";
/// The message of the gateway's 502 for a port nobody listens on. SDKs look for "port is not open".
pub const PROXY_PORT_CLOSED: &str = "The sandbox is running but port is not open";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert!(is_sandbox_id("i0123456789abcdefghij"));
        for bad in ["", "I0", "a-b", "a/b", "a.b", "é"] {
            assert!(!is_sandbox_id(bad), "{bad}");
        }
        assert!(!is_sandbox_id(&"a".repeat(65)));
    }
}
