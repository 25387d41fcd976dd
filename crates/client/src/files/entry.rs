//! Entries as the daemon tells them.

use buffa::MessageField;
use sandhold_wire::proto::filesystem as proto;

use super::{Entry, EntryType};
use crate::Error;

/// Permission bits of a mode, with set-user-id, set-group-id and the sticky bit.
const PERMISSIONS: u32 = 0o7777;

/// The entry of an answer that has to hold one.
pub(super) fn required(
    entry: MessageField<proto::EntryInfo, buffa::Inline<proto::EntryInfo>>,
    call: &str,
) -> Result<Entry, Error> {
    entry
        .into_option()
        .map(Into::into)
        .ok_or_else(|| Error::Protocol(format!("the answer of {call} holds no entry")))
}

impl From<proto::EntryInfo> for Entry {
    fn from(info: proto::EntryInfo) -> Self {
        let kind = match info.r#type.as_known() {
            // The daemon tells the kind of what a link points to.
            _ if info.is_symlink || info.symlink_target.is_some() => EntryType::Symlink,
            Some(proto::FileType::FILE_TYPE_FILE) => EntryType::File,
            Some(proto::FileType::FILE_TYPE_DIRECTORY) => EntryType::Dir,
            Some(proto::FileType::FILE_TYPE_SYMLINK) => EntryType::Symlink,
            _ => EntryType::Other,
        };
        // The message's JSON form is RFC 3339.
        let modified = info
            .modified_time
            .into_option()
            .and_then(|time| match serde_json::to_value(time) {
                Ok(serde_json::Value::String(text)) => Some(text),
                _ => None,
            });
        Self {
            name: info.name,
            path: info.path,
            kind,
            size: u64::try_from(info.size).unwrap_or(0),
            mode: info.mode & PERMISSIONS,
            permissions: info.permissions,
            owner: info.owner,
            group: info.group,
            modified,
            symlink_target: info.symlink_target,
            metadata: info.metadata.into_iter().collect(),
        }
    }
}
