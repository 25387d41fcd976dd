//! What a template is made of, as data: host trees to bind, a shared immutable folder, and the files that each sandbox
//! gets as its own. Building it reads the host; using it does not.
//!
//! `base` is the only template: the host's `/usr` read-only and everything else of our own. Templates with a root of
//! their own take the same place.

use std::path::Path;

use crate::etc;

/// The template that needs nothing but the host.
pub(crate) const BASE: &str = "base";

/// Where the shared immutable folder appears inside.
pub(crate) const FIXED: &str = "etc/sandhold";

/// A template that can be mounted.
#[derive(Debug)]
pub(crate) struct Template {
    /// Host folders, bound read-only with all that is mounted below them.
    pub(crate) trees: Vec<Tree>,
    /// What each sandbox gets as its own, in the order of making.
    pub(crate) own: Vec<Entry>,
    /// What all share, read-only, at [`FIXED`]; paths are relative to it.
    pub(crate) fixed: Vec<Entry>,
}

/// A host folder that appears inside.
#[derive(Debug)]
pub(crate) struct Tree {
    /// On the host, absolute.
    pub(crate) source: String,
    /// Inside, without the leading slash.
    pub(crate) target: String,
}

/// Something in a root file system. Paths have no leading slash.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A folder.
    Dir { path: String, mode: u32, owner: Owner },
    /// A file.
    File {
        path: String,
        mode: u32,
        owner: Owner,
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link { path: String, target: String },
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// `root`, or the only id there is.
    Root,
    /// `user`.
    User,
}

pub(crate) fn dir(path: &str, mode: u32) -> Entry {
    Entry::Dir {
        path: path.to_owned(),
        mode,
        owner: Owner::Root,
    }
}

pub(crate) fn file(path: &str, content: impl Into<Vec<u8>>) -> Entry {
    Entry::File {
        path: path.to_owned(),
        mode: 0o644,
        owner: Owner::Root,
        content: content.into(),
    }
}

pub(crate) fn link(path: &str, target: &str) -> Entry {
    Entry::Link {
        path: path.to_owned(),
        target: target.to_owned(),
    }
}

/// Folders beside `/usr` that hold programs and libraries. Links into `/usr` on merged systems, folders on others.
const PROGRAM_DIRS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

impl Template {
    /// Reads what `name` needs from the host; `trust` are certificates to trust beside the host's. `None`: there is no such
    /// template.
    ///
    /// # Errors
    /// A host folder that the template cannot do without is missing; the string is its path.
    pub(crate) fn load(name: &str, trust: Option<&str>) -> Result<Option<Self>, String> {
        if name != BASE {
            return Ok(None);
        }
        if !Path::new("/usr/bin").is_dir() {
            return Err("/usr/bin".to_owned());
        }
        let mut template = Self {
            trees: vec![tree("/usr")],
            own: Vec::new(),
            fixed: Vec::new(),
        };
        template
            .own
            .extend(["usr", "proc", "sys", "dev", "run", "opt", "srv", "mnt", "media"].map(|path| dir(path, 0o755)));
        for name in PROGRAM_DIRS {
            let host = Path::new("/").join(name);
            match std::fs::read_link(&host) {
                Ok(target) if target.strip_prefix("/").unwrap_or(&target).starts_with("usr") => {
                    template.own.push(link(name, &target.to_string_lossy()));
                }
                // A link to elsewhere would show a host folder that is not the template's.
                Ok(_) => {}
                Err(_) if host.is_dir() => {
                    template.own.push(dir(name, 0o755));
                    template.trees.push(tree(&format!("/{name}")));
                }
                Err(_) => {}
            }
        }
        template.own.extend(homes());
        etc::fill(&mut template, trust);
        Ok(Some(template))
    }
}

fn tree(source: &str) -> Tree {
    Tree {
        source: source.to_owned(),
        target: source.trim_start_matches('/').to_owned(),
    }
}

/// The folders that programs expect to write to.
fn homes() -> Vec<Entry> {
    let user = |path: &str, mode| Entry::Dir {
        path: path.to_owned(),
        mode,
        owner: Owner::User,
    };
    let user_file = |path: &str, content: &str| Entry::File {
        path: path.to_owned(),
        mode: 0o644,
        owner: Owner::User,
        content: content.into(),
    };
    vec![
        dir("home", 0o755),
        user("home/user", 0o755),
        user_file("home/user/.profile", etc::DOT_PROFILE),
        user_file("home/user/.bashrc", etc::DOT_BASHRC),
        dir("root", 0o700),
        file("root/.profile", etc::DOT_PROFILE),
        file("root/.bashrc", etc::DOT_BASHRC),
        dir("tmp", 0o1777),
        dir("run/lock", 0o1777),
        dir("var", 0o755),
        dir("var/tmp", 0o1777),
        dir("var/log", 0o755),
        dir("var/cache", 0o755),
        dir("var/lib", 0o755),
        link("opt/sandhold", "../etc/sandhold"),
        link("var/run", "/run"),
        link("var/lock", "/run/lock"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_names_parents_before_children_and_no_host_path() {
        let base = Template::load(BASE, None).unwrap().unwrap();
        assert_eq!(base.trees[0].source, "/usr");
        for list in [&base.own, &base.fixed] {
            let mut seen = std::collections::BTreeSet::new();
            for entry in list {
                let (Entry::Dir { path, .. } | Entry::File { path, .. } | Entry::Link { path, .. }) = entry;
                assert!(!path.starts_with('/') && !path.contains(".."), "{path}");
                assert!(seen.insert(path.clone()), "{path} stands twice");
                if let Some((parent, _)) = path.rsplit_once('/') {
                    assert!(seen.contains(parent), "{path} comes before {parent}");
                }
            }
        }
    }

    #[test]
    fn certificates_of_the_server_come_after_those_of_the_host() {
        let bundle = |trust| {
            let base = Template::load(BASE, trust).unwrap().unwrap();
            base.fixed.into_iter().find_map(|entry| match entry {
                Entry::File { path, content, .. } if path.ends_with(etc::BUNDLE) => Some(content),
                _ => None,
            })
        };
        let host = bundle(None).unwrap_or_default();
        let both = bundle(Some("one more\n")).unwrap();
        assert!(both.starts_with(&host) && both.ends_with(b"\none more\n") || both == b"one more\n");
    }

    #[test]
    fn other_templates_do_not_exist() {
        assert!(Template::load("no-such", None).unwrap().is_none());
    }
}
