//! The users of the sandbox. `/etc/passwd` and `/etc/group` are read directly: a static program has no NSS.
//!
//! They are read anew for every lookup: they are small, and the sandbox may change them at any time.

use std::sync::OnceLock;

use sandhold_wire::names::DEFAULT_USER;

use crate::beginning::beginning;
use crate::limits::ACCOUNT_FILE;

/// The id of [`DEFAULT_USER`] where nothing else is said.
const USER_ID: u32 = 1000;

/// A user of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Login name.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// All groups, the primary one first.
    pub(crate) groups: Vec<u32>,
    /// Home folder.
    pub(crate) home: String,
    /// Login shell.
    pub(crate) shell: String,
}

/// A user that the sandbox does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error looking up user '{0}': user: unknown user {0}")]
pub(crate) struct UnknownUser(pub(crate) String);

/// The sandbox's one user, where it stands on its host's own root: the host's account files do not know it.
static ONLY: OnceLock<User> = OnceLock::new();

/// Says who the sandbox's one user is. Once, at the start.
pub(crate) fn only(user: User) {
    // Nothing else sets it.
    let _ = ONLY.set(user);
}

/// Finds a user by name, or by number when no user has that name.
///
/// # Errors
/// [`UnknownUser`] when `/etc/passwd` has no such line.
pub(crate) fn lookup(name: &str) -> Result<User, UnknownUser> {
    if let Some(only) = ONLY
        .get()
        .filter(|only| only.name == name || name.parse() == Ok(only.uid))
    {
        return Ok(only.clone());
    }
    find(
        name,
        &beginning("/etc/passwd", ACCOUNT_FILE),
        &beginning("/etc/group", ACCOUNT_FILE),
    )
    .or_else(|| built_in(name, rustix::process::geteuid().as_raw()))
    .ok_or_else(|| UnknownUser(name.to_owned()))
}

/// The users that every sandbox has. An image's own files may know neither: they are put there by processes of both.
/// `own` is the daemon's id, which is the only one where it is not root.
fn built_in(name: &str, own: u32) -> Option<User> {
    let (uid, home) = match name {
        "root" => (0, "/root"),
        DEFAULT_USER if own == 0 => (USER_ID, "/home/user"),
        DEFAULT_USER => (own, "/home/user"),
        _ => return None,
    };
    Some(User {
        name: name.to_owned(),
        uid,
        gid: uid,
        groups: vec![uid],
        home: home.to_owned(),
        shell: "/bin/bash".to_owned(),
    })
}

/// The names of users and groups, for listings: one read serves many entries.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: Vec<(u32, String)>,
    groups: Vec<(u32, String)>,
}

impl Names {
    /// Reads both files.
    pub(crate) fn read() -> Self {
        let only = ONLY.get();
        let name = |id: fn(&User) -> u32| only.map(|user| (id(user), user.name.clone()));
        let with = |first: Option<(u32, String)>, file: &str| -> Vec<(u32, String)> {
            first.into_iter().chain(ids(&beginning(file, ACCOUNT_FILE))).collect()
        };
        Self {
            users: with(name(|user| user.uid), "/etc/passwd"),
            groups: with(name(|user| user.gid), "/etc/group"),
        }
    }

    /// The name of a user, or the number where there is none.
    pub(crate) fn user(&self, uid: u32) -> String {
        name_of(&self.users, uid)
    }

    /// The name of a group, or the number where there is none.
    pub(crate) fn group(&self, gid: u32) -> String {
        name_of(&self.groups, gid)
    }
}

fn name_of(list: &[(u32, String)], id: u32) -> String {
    list.iter()
        .find(|(i, _)| *i == id)
        .map_or_else(|| id.to_string(), |(_, name)| name.clone())
}

fn ids(text: &str) -> Vec<(u32, String)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        })
        .collect()
}

fn find(name: &str, passwd: &str, group: &str) -> Option<User> {
    let lines = || passwd.lines().filter_map(parse);
    let mut user = lines()
        .find(|u| u.name == name)
        .or_else(|| name.parse().ok().and_then(|uid: u32| lines().find(|u| u.uid == uid)))?;
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { continue };
        let Ok(gid) = gid.parse() else { continue };
        if gid != user.gid && members.split(',').any(|m| m == user.name) {
            user.groups.push(gid);
        }
    }
    Some(user)
}

fn parse(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    let gid = gid.parse().ok()?;
    let home = if home.starts_with('/') { home } else { "/" };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid,
        groups: vec![gid],
        home: home.to_owned(),
        shell: shell.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\n1000:x:7:7::/odd:/bin/sh\nuser:x:1000:1000:,,,:/home/user:/bin/bash\nrel:x:5:5::home:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nuser:x:1000:\nvideo:x:44:root,user\naudio:x:29:user\nbad:x\nother:x:9:username\n";

    #[test]
    fn finds_by_name_then_by_number() {
        let user = find("user", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (1000, 1000, vec![1000, 44, 29]));
        assert_eq!(user.home, "/home/user");
        assert_eq!(user.shell, "/bin/bash");
        assert_eq!(
            find("1000", PASSWD, GROUP).unwrap().uid,
            7,
            "a name comes before a number"
        );
        assert_eq!(find("0", PASSWD, GROUP).unwrap().name, "root");
        assert_eq!(find("rel", PASSWD, GROUP).unwrap().home, "/");
        for unknown in ["broken", "nobody", "", "42"] {
            assert_eq!(find(unknown, PASSWD, GROUP), None, "{unknown:?}");
        }
    }

    #[test]
    fn some_are_there_whatever_the_files_say() {
        let user = built_in("user", 0).unwrap();
        assert_eq!((user.uid, user.home.as_str()), (1000, "/home/user"));
        assert_eq!(built_in("user", 7).unwrap().uid, 7);
        assert_eq!(built_in("root", 7).unwrap().uid, 0);
        assert_eq!(built_in("nobody", 0), None);
    }

    #[test]
    fn names_ids() {
        let names = Names {
            users: ids(PASSWD),
            groups: ids(GROUP),
        };
        assert_eq!(names.user(1000), "user");
        assert_eq!(names.group(44), "video");
        assert_eq!(names.user(4242), "4242");
    }
}
