//! `COPY`, `ADD`, and texts that stand in the Dockerfile itself.

use std::cell::RefCell;

use super::{
    super::{
        expand::{self, Value},
        lines::{Heredoc, Instruction},
        quote::quote,
    },
    Converter, DockerfileError, StepKind, words,
};
use crate::pattern;

/// What `ADD` would unpack.
const PACKED: [&str; 10] = [
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".tar.zst",
    ".tzst",
    ".tar.lzma",
];

/// Who and how a file shall be.
struct Attributes {
    owner: String,
    mode: String,
}

impl Converter<'_> {
    pub(super) fn copy(&mut self, one: &Instruction) -> Result<(), DockerfileError> {
        let attributes = self.attributes(one)?;
        let words = match words::json(&one.rest) {
            Some(words) => words.map_err(|why| one.error(why))?,
            None => words::words(&one.rest, self.file.escape),
        };
        let Some((last, sources)) = words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
            return Err(one.error(format!("{} needs a source and a destination", one.name)));
        };
        let dest = self.word(one, last)?;
        if dest.is_empty() {
            return Err(one.error("the destination is empty"));
        }
        if sources.len() > 1 && !dest.ends_with('/') && dest != "." {
            return Err(one.error("with several sources the destination is a folder, and ends with a slash"));
        }
        let mut heredocs = one.heredocs.iter();
        for source in sources {
            if !one.heredocs.is_empty() && Heredoc::begin(source).is_some() {
                if let Some(heredoc) = heredocs.next() {
                    self.write(one, heredoc, &dest, &attributes)?;
                }
                continue;
            }
            let source = self.word(one, source)?;
            if one.name == "ADD" {
                refuse_more_than_copy(one, &source)?;
            }
            // A leading slash means the context; a trailing one means nothing.
            let Some(cleaned) = pattern::clean(&source) else {
                return Err(one.error(format!("{source:?} leads out of the context, the folder of the build")));
            };
            let args = vec![cleaned, dest.clone(), attributes.owner.clone(), attributes.mode.clone()];
            self.step(one, StepKind::Copy, args);
        }
        Ok(())
    }

    fn attributes(&mut self, one: &Instruction) -> Result<Attributes, DockerfileError> {
        let (mut owner, mut mode) = (String::new(), String::new());
        for flag in &one.flags {
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            match name {
                "--chown" => owner = self.word(one, value)?,
                "--chmod" => {
                    let said = self.word(one, value)?;
                    let octal = (3..=4).contains(&said.len()) && said.bytes().all(|b| (b'0'..=b'7').contains(&b));
                    if !octal {
                        return Err(one.error(format!("{said:?} is not a mode such as 755")));
                    }
                    mode = format!("{said:0>4}");
                }
                // How Docker stores it; the files are the same.
                "--link" => {}
                "--from" => {
                    return Err(one.error(format!(
                        "{} --from is not supported, as builds of several stages are not: put the files into the context",
                        one.name
                    )));
                }
                name => return Err(one.error(format!("{} {name} is not supported", one.name))),
            }
        }
        Ok(Attributes { owner, mode })
    }

    /// Writes a text of the Dockerfile to a file: a command does it, as root, as `COPY` does.
    fn write(
        &mut self,
        one: &Instruction,
        heredoc: &Heredoc,
        dest: &str,
        attributes: &Attributes,
    ) -> Result<(), DockerfileError> {
        let mut content = heredoc.body();
        if heredoc.expand {
            let unknown = RefCell::new(None);
            let value = |name: &str| match self.value(name) {
                Value::Keep if !name.is_empty() => {
                    unknown.replace(Some(name.to_owned()));
                    Value::Unset
                }
                value => value,
            };
            content = expand::text(&content, self.file.escape, &value).map_err(|why| one.error(why))?;
            if let Some(name) = unknown.take() {
                return Err(one.error(format!(
                    "the variable {name} is not known here: set it with ARG or ENV, or write <<'{}' to keep ${name} as it is",
                    heredoc.name
                )));
            }
            self.spend(one, content.len())?;
        }
        let end = delimiter(&content);
        let file = quote(&heredoc.name);
        let target = match dest.ends_with('/') {
            true => format!("f={}\n", quote(&format!("{dest}{}", heredoc.name))),
            false => format!("f={}\nif [ -d \"$f\" ]; then f=\"$f\"/{file}; fi\n", quote(dest)),
        };
        let newline = if content.is_empty() || content.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let mut line = format!(
            "set -e\n{target}mkdir -p \"$(dirname -- \"$f\")\"\ncat >\"$f\" <<'{end}'\n{content}{newline}{end}\n"
        );
        if !attributes.owner.is_empty() {
            line.push_str(&format!("chown -- {} \"$f\"\n", quote(&attributes.owner)));
        }
        let mode = if attributes.mode.is_empty() {
            "0644"
        } else {
            &attributes.mode
        };
        line.push_str(&format!("chmod {mode} -- \"$f\""));
        self.step(one, StepKind::Run, vec![line, "root".to_owned()]);
        Ok(())
    }
}

fn refuse_more_than_copy(one: &Instruction, source: &str) -> Result<(), DockerfileError> {
    let lower = source.to_ascii_lowercase();
    if lower.contains("://") || lower.starts_with("git@") {
        return Err(one.error(format!(
            "ADD of a URL is not supported: write RUN curl -fsSLo FILE {source}, or RUN git clone for a repository"
        )));
    }
    if PACKED.iter().any(|end| lower.ends_with(end)) {
        return Err(one.error(
            "ADD would unpack this archive, which is not supported: COPY it, then RUN tar -xf FILE -C FOLDER && rm FILE",
        ));
    }
    Ok(())
}

/// The script of a `RUN` that is nothing but a heredoc.
pub(super) fn script(one: &Instruction) -> Option<String> {
    let [heredoc] = one.heredocs.as_slice() else {
        return None;
    };
    Heredoc::begin(one.rest.trim())?;
    let content = heredoc.body();
    if !content.starts_with("#!") {
        return Some(content);
    }
    // A script that names its own interpreter becomes a file.
    let end = delimiter(&content);
    let newline = if content.ends_with('\n') { "" } else { "\n" };
    Some(format!(
        "f=$(mktemp) && cat >\"$f\" <<'{end}'\n{content}{newline}{end}\nchmod +x \"$f\" && \"$f\"\ns=$?; rm -f \"$f\"; exit $s"
    ))
}

/// A line that ends a heredoc and is not in the text.
fn delimiter(content: &str) -> String {
    let mut end = "SANDHOLD_EOF".to_owned();
    while content.contains(&end) {
        end.push('_');
    }
    end
}
