//! The file of the operator's secrets.

use std::{ffi::OsString, fs::File, io::Read, path::Path};

use anyhow::{Context, Result, bail};
use sandhold_egress::{Secret, SecretConfig};
use serde::Deserialize;

/// The largest file that is read, of either kind, in bytes.
const SIZE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    host: String,
    header: String,
    value: Option<String>,
    value_env: Option<String>,
    value_file: Option<String>,
    env: Option<String>,
}

/// Reads the list. `lookup` reads this program's environment. No error tells a value.
pub(crate) fn read(path: &Path, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Vec<SecretConfig>> {
    let text = private(path)?;
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| {
        // What the error says itself may hold a piece of the file.
        let what = if error.is_data() {
            "is no list of {\"host\", \"header\", \"value\" or \"value_env\" or \"value_file\", \"env\"}"
        } else {
            "is no JSON"
        };
        anyhow::anyhow!(
            "{} {what}: line {}, column {}",
            path.display(),
            error.line(),
            error.column()
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let numbered = entries.into_iter().zip(1..);
    numbered
        .map(|(entry, number)| {
            secret(entry, folder, &lookup).with_context(|| format!("{}, entry {number}", path.display()))
        })
        .collect()
}

fn secret(entry: Entry, folder: &Path, lookup: impl Fn(&str) -> Option<OsString>) -> Result<SecretConfig> {
    let value = match (entry.value, entry.value_env, entry.value_file) {
        (Some(value), None, None) => value,
        (None, Some(name), None) => lookup(&name)
            .with_context(|| format!("the variable {name:?} is not set"))?
            .into_string()
            .map_err(|_| anyhow::anyhow!("the variable {name:?} is not valid UTF-8"))?,
        (None, None, Some(file)) => private(&folder.join(file))?.trim_end_matches(['\r', '\n']).to_owned(),
        _ => bail!("it needs one of value, value_env and value_file"),
    };
    let word = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if let Some(name) = entry.env.as_deref().filter(|name| !word(name)) {
        bail!("{name:?} is no name of an environment variable, such as OPENAI_API_KEY");
    }
    Secret::new(&entry.host, &entry.header, &value)?;
    Ok(SecretConfig {
        host: entry.host,
        header: entry.header,
        value,
        env: entry.env,
    })
}

/// Reads a file that nobody else may read.
fn private(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = file
            .metadata()
            .with_context(|| format!("cannot read {}", path.display()))?
            .mode();
        if mode & 0o077 != 0 {
            bail!(
                "{} holds secrets and others may read or write it (mode {:03o}): chmod 600 it",
                path.display(),
                mode & 0o777
            );
        }
    }
    let mut text = String::new();
    let read = file
        .take(SIZE + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if read as u64 > SIZE {
        bail!("{} is larger than {SIZE} bytes", path.display());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }

    fn read_text(text: &str) -> Result<Vec<SecretConfig>> {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("key"), "of a file\n", 0o600);
        let path = folder.path().join("secrets.json");
        write(&path, text, 0o600);
        read(&path, |name| (name == "THERE").then(|| "of a variable".into()))
    }

    #[test]
    fn values_come_from_three_places() {
        let found = read_text(
            r#"[{"host": "a.test", "header": "X", "value": "said", "env": "A_KEY"},
                {"host": "*.b.test", "header": "Y", "value_env": "THERE"},
                {"host": "c.test", "header": "Z", "value_file": "key"}]"#,
        )
        .unwrap();
        let values: Vec<_> = found.iter().map(|one| one.value.as_str()).collect();
        assert_eq!(values, ["said", "of a variable", "of a file"]);
        assert_eq!(found[0].env.as_deref(), Some("A_KEY"));
        assert!(!format!("{found:?}").contains("said"));
    }

    #[test]
    fn errors_name_the_entry_and_no_value() {
        for (text, word) in [
            (r#"[{"host": "a.test", "header": "X"}]"#, "entry 1"),
            (
                r#"[{"host": "a.test", "header": "X", "value": "hidden", "value_env": "THERE"}]"#,
                "one of value",
            ),
            (
                r#"[{"host": "a.test", "header": "X", "value_env": "ABSENT"}]"#,
                "ABSENT",
            ),
            (
                r#"[{"host": "a.test", "header": "X", "value_file": "absent"}]"#,
                "absent",
            ),
            (
                r#"[{"host": "a.test", "header": "Host", "value": "hidden"}]"#,
                "HTTP's own",
            ),
            (
                r#"[{"host": "a.test", "header": "X", "value": "hidden\n"}]"#,
                "line break",
            ),
            (
                r#"[{"host": "a.test", "header": "X", "value": "hidden", "env": "A-B"}]"#,
                "A-B",
            ),
            (r#"[{"host": "a.test", "header": "X", "hidden": "hidden"}]"#, "line 1"),
            (r#"["hidden"]"#, "is no list"),
            ("hidden", "is no JSON"),
        ] {
            let error = format!("{:#}", read_text(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.json");
        for mode in [0o640, 0o604, 0o620] {
            write(&path, "[]", mode);
            let error = format!("{:#}", read(&path, |_| None).unwrap_err());
            assert!(error.contains("chmod 600"), "{error}");
        }
        write(&path, "[]", 0o600);
        assert!(read(&path, |_| None).unwrap().is_empty());
    }
}
