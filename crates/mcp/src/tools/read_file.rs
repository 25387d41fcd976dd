//! `read_file`

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::StreamExt;
use sandhold_client::{Error, ReadOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Artifact, Image, Reply, ToolError},
    args::Encoding,
    budget,
    call::{Call, Target},
    limits, lines,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ReadFile;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    path: String,
    /// First line, from 1; -20 reads the last 20
    offset_line: Option<i64>,
    limit_lines: Option<u64>,
    encoding: Option<Encoding>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Output {
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_lines: Option<usize>,
    truncated: bool,
}

impl Tool for ReadFile {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "read_file",
        title: "Read a file",
        description: "Read a text file, about 30 kB a page. Pictures are shown as such; for other binary files ask for base64.",
        toolset: Toolset::Files,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let limit = match p.limit_lines {
            Some(lines) => usize::try_from(limits::between("limit_lines", lines, 1, 1_000_000)?).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let read = target
            .files()
            .read(&p.path, ReadOptions::default(), limits::READ_WHOLE)
            .await;
        let id = target.id();
        let data = match read {
            Ok(data) => data,
            Err(error) => {
                // Only a file that is too large is worth another try.
                let size = oversize(&target, &p.path, &error).await?;
                let reply = match p.encoding {
                    Some(Encoding::Base64) => Err(too_large_for_base64(size)),
                    _ => large(&target, &p.path, size, p.offset_line.unwrap_or(1), limit).await,
                };
                return reply.map(|r| r.within(id)).map_err(|e| e.within(id));
            }
        };
        let reply = match p.encoding {
            Some(Encoding::Base64) => base64(&data),
            given => match picture(&data).filter(|_| given.is_none()) {
                Some(mime) => show(&data, mime),
                None => text(&p.path, &data, p.offset_line.unwrap_or(1), limit),
            },
        };
        match reply {
            Ok(reply) => Ok(reply.within(id)),
            Err(error) if LINKED.contains(&error.code) => linked(&target, &p.path, error).await,
            Err(error) => Err(error.within(id)),
        }
    }
}

/// A file that is no text, and one that is too long to be shown as what it is.
const NOT_TEXT: &str = "not_text";
const TOO_LARGE: &str = "too_large";
/// Errors that come with a link that the file can be read by.
const LINKED: [&str; 2] = [NOT_TEXT, TOO_LARGE];

/// The error, with the link.
async fn linked(target: &Target, path: &str, error: ToolError) -> Result<Reply<Output>, ToolError> {
    let entry = match target.files().info(path, None).await {
        Ok(entry) if entry.size <= limits::RESOURCE => entry,
        _ => return Err(error.within(target.id())),
    };
    let output = Output {
        size: entry.size,
        ..Output::default()
    };
    let file = Artifact::new(target.id(), &entry.path, entry.size);
    Ok(Reply::new(output, "")
        .within(target.id())
        .artifacts([file])
        .failed(error))
}

/// The size of a file that could not be read whole because of it; otherwise the error of reading.
async fn oversize(target: &Target, path: &str, error: &Error) -> Result<u64, ToolError> {
    let told = target.error(error);
    if matches!(
        error,
        Error::SandboxNotFound { .. } | Error::NotFound(_) | Error::Transport { .. }
    ) {
        return Err(told);
    }
    match target.files().info(path, None).await {
        Ok(entry) if entry.kind == sandhold_client::EntryType::Dir => {
            Err(ToolError::invalid(format!("{} is a folder", entry.path))
                .hint("Call list_dir.")
                .within(target.id()))
        }
        Ok(entry) if entry.size > limits::READ_WHOLE => Ok(entry.size),
        _ => Err(told),
    }
}

fn text(path: &str, data: &Bytes, offset: i64, limit: usize) -> Result<Reply<Output>, ToolError> {
    let size = data.len() as u64;
    let content = std::str::from_utf8(data).ok().filter(|t| !is_binary(t.as_bytes()));
    let Some(content) = content else {
        let kind = if is_binary(data) {
            "binary data"
        } else {
            "text that is not UTF-8"
        };
        return Err(ToolError::new(NOT_TEXT, format!("{path} is {kind}, {size} bytes"))
            .hint("Read it with encoding base64, or turn it into text with run_command (file, iconv, xxd)."));
    };
    let slice = lines::slice(content, offset, limit, budget::ANSWER);
    let output = Output {
        size,
        first_line: Some(slice.first),
        total_lines: Some(slice.total),
        truncated: slice.truncated,
        text: Some(slice.text.clone()),
        ..Output::default()
    };
    let note = note(slice.first, slice.shown, Some(slice.total), slice.truncated, slice.cut);
    Ok(Reply::new(output, with_note(slice.text, &note)))
}

/// What follows the text when not all of the file is shown.
fn note(first: usize, shown: usize, total: Option<usize>, truncated: bool, cut: usize) -> String {
    if cut > 0 {
        return format!(
            "[line {first} goes on for {cut} bytes; read them with run_command: sed -n {first}p FILE | cut -c…]"
        );
    }
    let last = first + shown.saturating_sub(1);
    match total {
        Some(0) => "[the file is empty]".into(),
        Some(total) if shown == 0 => format!("[no line {first}: the file has {total}]"),
        Some(total) if truncated => format!(
            "[lines {first} to {last} of {total}; go on with offset_line {}]",
            last + 1
        ),
        Some(total) if first > 1 => format!("[lines {first} to {last} of {total}]"),
        None if truncated => format!("[lines {first} to {last}; go on with offset_line {}]", last + 1),
        _ => String::new(),
    }
}

fn with_note(mut text: String, note: &str) -> String {
    if !note.is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(note);
    }
    text
}

/// Lines of a file that is too large to be read whole.
async fn large(target: &Target, path: &str, size: u64, offset: i64, limit: usize) -> Result<Reply<Output>, ToolError> {
    if offset < 0 {
        return tail(target, path, size, offset, limit).await;
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX).saturating_sub(1);
    let options = ReadOptions {
        user: None,
        range: Some((0, limits::READ_SCAN.min(size))),
    };
    let mut stream = target
        .files()
        .read_stream(path, options)
        .await
        .map_err(|e| target.error(&e))?;
    let (mut kept, mut line): (Vec<u8>, usize) = (Vec::new(), 0);
    let wanted_until = start.saturating_add(limit);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| target.error(&e))?;
        for part in chunk.split_inclusive(|b| *b == b'\n') {
            // A little more than fits tells that there is more.
            if line >= start && line < wanted_until && kept.len() <= budget::ANSWER {
                kept.extend_from_slice(&part[..part.len().min(budget::ANSWER + 1)]);
            }
            line += usize::from(part.ends_with(b"\n"));
        }
        if is_binary(&kept) {
            return Err(large_binary(path, size).within(target.id()));
        }
        if line >= wanted_until || kept.len() > budget::ANSWER {
            break;
        }
    }
    if line < start && kept.is_empty() && size > limits::READ_SCAN {
        let scanned = limits::READ_SCAN;
        return Err(ToolError::invalid(format!(
            "line {offset} of {path} is beyond the first {scanned} bytes, which are all that is scanned"
        ))
        .hint("Use run_command with sed -n, head or tail, or a negative offset_line.")
        .within(target.id()));
    }
    let content = String::from_utf8_lossy(&kept);
    let slice = lines::slice(&content, 1, limit, budget::ANSWER);
    let output = Output {
        size,
        first_line: Some(start + 1),
        truncated: true,
        text: Some(slice.text.clone()),
        ..Output::default()
    };
    let note = format!(
        "{} (the file has {size} bytes)",
        note(start + 1, slice.shown, None, true, slice.cut)
    );
    Ok(Reply::new(output, with_note(slice.text, &note)))
}

/// The last lines of a large file.
async fn tail(target: &Target, path: &str, size: u64, offset: i64, limit: usize) -> Result<Reply<Output>, ToolError> {
    let length = limits::READ_TAIL.min(size);
    let options = ReadOptions {
        user: None,
        range: Some((size - length, length)),
    };
    let data = target
        .files()
        .read(path, options, limits::READ_WHOLE)
        .await
        .map_err(|e| target.error(&e))?;
    if is_binary(&data) {
        return Err(large_binary(path, size).within(target.id()));
    }
    // The first line of the range is most likely not whole.
    let begin = data.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    let content = String::from_utf8_lossy(&data[begin..]);
    let slice = lines::slice(&content, offset, limit, budget::ANSWER);
    let output = Output {
        size,
        truncated: true,
        text: Some(slice.text.clone()),
        ..Output::default()
    };
    let note = format!("[{} of the last lines of a file of {size} bytes]", slice.shown);
    Ok(Reply::new(output, with_note(slice.text, &note)))
}

fn base64(data: &Bytes) -> Result<Reply<Output>, ToolError> {
    let size = data.len() as u64;
    if data.len() > limits::BASE64 {
        return Err(too_large_for_base64(size));
    }
    let encoded = STANDARD.encode(data);
    let text = if encoded.len() <= budget::ANSWER {
        encoded.clone()
    } else {
        format!("{size} bytes, base64 in the structured content")
    };
    let mime_type = picture(data);
    Ok(Reply::new(
        Output {
            size,
            base64: Some(encoded),
            mime_type,
            ..Output::default()
        },
        text,
    ))
}

fn too_large_for_base64(size: u64) -> ToolError {
    let most = limits::BASE64;
    ToolError::new(
        TOO_LARGE,
        format!("the file has {size} bytes; at most {most} are returned as base64"),
    )
    .hint("Work on it inside the sandbox with run_command, or split it there.")
}

fn show(data: &Bytes, mime: &'static str) -> Result<Reply<Output>, ToolError> {
    let size = data.len() as u64;
    if data.len() > limits::IMAGE {
        let most = limits::IMAGE;
        return Err(ToolError::new(
            TOO_LARGE,
            format!("the picture has {size} bytes; at most {most} are shown"),
        )
        .hint("Make it smaller inside the sandbox with run_command."));
    }
    let output = Output {
        size,
        mime_type: Some(mime),
        ..Output::default()
    };
    Ok(Reply::new(output, format!("{mime}, {size} bytes")).image(Image {
        data: STANDARD.encode(data),
        mime,
    }))
}

/// Whether data has what no text has: a NUL byte near its beginning.
fn is_binary(data: &[u8]) -> bool {
    data.iter().take(8192).any(|b| *b == 0)
}

/// The type of a picture, by its first bytes.
fn picture(data: &[u8]) -> Option<&'static str> {
    match data {
        [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Binary data that is too long for an answer, also as base64.
fn large_binary(path: &str, size: u64) -> ToolError {
    ToolError::new(NOT_TEXT, format!("{path} is binary data, {size} bytes"))
        .hint("Look at it with run_command (file, xxd | head), or cut a part out there.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_by_their_first_bytes() {
        assert_eq!(picture(b"\x89PNG\r\n\x1a\n..."), Some("image/png"));
        assert_eq!(picture(b"RIFF\0\0\0\0WEBPVP8 "), Some("image/webp"));
        assert_eq!(picture(b"GIF89a"), Some("image/gif"));
        assert_eq!(picture(b"\xFF\xD8\xFF\xE0"), Some("image/jpeg"));
        assert_eq!(picture(b"RIFF\0\0\0\0WAVE"), None);
        assert_eq!(picture(b""), None);
    }

    #[test]
    fn binary_is_refused_with_its_size() {
        for (data, kind) in [(&b"a\0b"[..], "binary data"), (b"gr\xFC\xDFe", "not UTF-8")] {
            let error = text("f", &Bytes::from_static(data), 1, 10).err().unwrap();
            assert!(
                error.message.contains(kind) && error.message.contains("bytes"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn notes_say_how_to_go_on() {
        assert_eq!(
            note(1, 2, Some(5), true, 0),
            "[lines 1 to 2 of 5; go on with offset_line 3]"
        );
        assert_eq!(note(1, 5, Some(5), false, 0), "");
        assert_eq!(note(9, 0, Some(5), false, 0), "[no line 9: the file has 5]");
        assert_eq!(note(1, 0, Some(0), false, 0), "[the file is empty]");
    }
}
