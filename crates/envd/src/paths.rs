//! How the paths of requests are understood: as Go's `filepath.Abs` and envd do it, without looking at the disk.

use std::path::{Path, PathBuf};

use crate::users::User;

/// The absolute, cleaned path of `path` for `user`. Empty: the working folder. `~` and `~/…`: the user's home. Anything
/// else that is relative starts from `workdir`, and where that is none from the home.
///
/// # Errors
/// `~name`, which envd does not know either, and zero bytes.
pub(crate) fn resolve(path: &str, user: &User, workdir: Option<&str>) -> Result<PathBuf, PathError> {
    let base = workdir.unwrap_or(&user.home);
    if path.contains('\0') {
        return Err(PathError::Nul);
    }
    if path.is_empty() {
        return Ok(clean(Path::new(base)));
    }
    if let Some(rest) = path.strip_prefix('~') {
        return match rest.strip_prefix('/') {
            Some(below) => Ok(clean(&Path::new(&user.home).join(below.trim_start_matches('/')))),
            None if rest.is_empty() => Ok(clean(Path::new(&user.home))),
            None => Err(PathError::OtherHome),
        };
    }
    Ok(clean(&Path::new(base).join(path)))
}

/// Why a path cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// `~name`.
    #[error("cannot expand user-specific home dir")]
    OtherHome,
    /// A zero byte.
    #[error("the path contains a zero byte")]
    Nul,
}

/// Takes out `.`, `..` and repeated slashes by the letters alone, as Go's `filepath.Clean` does.
pub(crate) fn clean(path: &Path) -> PathBuf {
    use std::path::Component;

    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "user".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![],
            home: "/home/user".into(),
            shell: String::new(),
        }
    }

    #[test]
    fn resolves_as_envd_does() {
        for (path, workdir, wanted) in [
            ("", None, "/home/user"),
            ("", Some("/w"), "/w"),
            ("~", Some("/w"), "/home/user"),
            ("~/a/../b", Some("/w"), "/home/user/b"),
            ("~//a", None, "/home/user/a"),
            ("a/./b//c", None, "/home/user/a/b/c"),
            ("a", Some("/w/x"), "/w/x/a"),
            ("/a/../../b/", None, "/b"),
            ("/", None, "/"),
        ] {
            assert_eq!(
                resolve(path, &user(), workdir),
                Ok(PathBuf::from(wanted)),
                "{path:?} {workdir:?}"
            );
        }
        assert_eq!(resolve("~root/x", &user(), None), Err(PathError::OtherHome));
        assert_eq!(resolve("a\0b", &user(), None), Err(PathError::Nul));
        assert_eq!(resolve("~/\0b", &user(), None), Err(PathError::Nul));
    }
}
