//! What the server itself does inside the sandboxes of a build, in the shell of whatever image it is.

/// Makes `user`, whose id is 1000 unless the image has a user of that name, its home, and a `/bin/bash`: E2B's SDKs run
/// every command with it. Runs as root, or as the sandbox's one user, to whom all files belong there.
pub(super) const PREPARE: &str = r##"set -eu
umask 022
has() {
    while IFS=: read -r name rest || [ -n "$name" ]; do
        if [ "$name" = "$2" ]; then return 0; fi
    done < "$1"
    return 1
}
with_id() {
    while IFS=: read -r name _ id rest || [ -n "$name" ]; do
        if [ "$id" = "$2" ]; then return 0; fi
    done < "$1"
    return 1
}
add() {
    # The first name of an id is the one that is shown.
    if [ -s "$1" ] && with_id "$1" 1000; then old=$(cat "$1"); printf '%s\n%s\n' "$2" "$old" > "$1"
    else
        if [ -s "$1" ] && [ -n "$(tail -c 1 "$1")" ]; then echo >> "$1"; fi
        printf '%s\n' "$2" >> "$1"
    fi
}
mkdir -p /etc /home /tmp /var/tmp
[ -e /etc/passwd ] || : > /etc/passwd
[ -e /etc/group ] || : > /etc/group
has /etc/passwd root || add /etc/passwd 'root:x:0:0:root:/root:/bin/sh'
has /etc/group root || add /etc/group 'root:x:0:'
if [ ! -x /bin/bash ]; then
    found=$(command -v bash || true)
    if [ -n "$found" ]; then
        ln -s "$found" /bin/bash
        echo "/bin/bash is $found"
    else
        printf '#!/bin/sh\nexec /bin/sh "$@"\n' > /bin/bash
        chmod 755 /bin/bash
        echo "the image has no bash: /bin/bash runs /bin/sh"
    fi
fi
has /etc/group user || add /etc/group 'user:x:1000:'
if has /etc/passwd user; then
    echo "the image has a user named user"
else
    add /etc/passwd 'user:x:1000:1000:,,,:/home/user:/bin/bash'
fi
if [ ! -d /home/user ]; then
    mkdir -p /home/user
    if [ -d /etc/skel ]; then cp -R /etc/skel/. /home/user/; fi
    chown -R user: /home/user
    chmod 755 /home/user
fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p /root
    chmod 1777 /tmp /var/tmp
fi
"##;

/// Makes the user `$SH_USER`, unless there is one of that name or number.
pub(super) const ADD_USER: &str = r##"set -eu
id -u "$SH_USER" > /dev/null 2>&1 && exit 0
case "$SH_USER" in
    *[!a-z0-9_-]*|''|[0-9-]*) echo "there is no user $SH_USER, and none of that name can be made" >&2; exit 1;;
esac
if command -v useradd > /dev/null; then useradd -m -s /bin/bash "$SH_USER"
elif adduser --help 2>&1 | grep -q -- --disabled-password; then adduser --disabled-password --gecos "" "$SH_USER"
else adduser -D -s /bin/bash "$SH_USER"
fi
"##;

/// Makes the folder `$SH_PATH`, which `$SH_USER` gets with those above it that are new.
pub(super) const WORKDIR: &str = r##"set -eu
if [ ! -d "$SH_PATH" ]; then
    first=$SH_PATH
    check=$SH_PATH
    while [ ! -d "$check" ]; do
        first=$check
        check=$(dirname "$check")
    done
    mkdir -p "$SH_PATH"
    chown -R "$SH_USER:" "$first"
fi
cd "$SH_PATH"
pwd
"##;

/// Prints `$SH_VALUE`, in which the gateway left nothing to be replaced but `$NAME` and `${NAME}`.
pub(super) fn evaluate(value: &str) -> String {
    let escaped = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('`', "\\`")
        .replace("$(", "\\$(");
    format!("printf '%s' \"{escaped}\"")
}

/// Unpacks `$SH_ARCHIVE` (`$SH_ZIP`: how tar is to read it) beside and puts what is `$SH_SRC` in it to `$SH_DEST`, as
/// `COPY` does: a folder's content goes into the destination and is merged with what is there; a file or link takes the
/// destination's name, or its own inside of it where that ends with `/` or is a folder. `$SH_OWNER` gets it all.
pub(super) const COPY: &str = r##"set -eu
umask 022
stage=$SH_ARCHIVE.d
trap 'rm -rf "$stage" "$SH_ARCHIVE"' EXIT
command -v tar > /dev/null || { echo "COPY needs the program tar, which the image does not have" >&2; exit 1; }
if [ -n "$SH_WORKDIR" ]; then
    cd "$SH_WORKDIR"
else
    home=
    while IFS=: read -r name _ _ _ _ dir _ || [ -n "$name" ]; do
        if [ "$name" = "$SH_USER" ]; then home=$dir; break; fi
    done < /etc/passwd
    cd "${home:-/}"
fi
case "$SH_DEST" in
    /*) dest=$SH_DEST;;
    *) dest=$(pwd)/$SH_DEST;;
esac
mkdir -p "$stage"
tar "-x${SH_ZIP}f" "$SH_ARCHIVE" -C "$stage"
rm -f "$SH_ARCHIVE"
entry=$stage/$SH_SRC
if [ ! -e "$entry" ] && [ ! -L "$entry" ]; then
    echo "the uploaded files hold no $SH_SRC" >&2
    exit 1
fi
if [ -d "$entry" ] && [ ! -L "$entry" ]; then
    chown -R "$SH_OWNER" "$entry"
    if [ -n "$SH_MODE" ]; then chmod -R "$SH_MODE" "$entry"; fi
    if [ ! -d "$dest" ]; then mkdir -p "$dest"; chown "$SH_OWNER" "$dest"; fi
    keep=
    if tar --version 2> /dev/null | grep -q GNU; then keep='--keep-directory-symlink --no-overwrite-dir'; fi
    (cd "$entry" && tar -cf - .) | tar -xpf - -C "$dest" $keep
    chmod -R u+rwx "$entry"
else
    case "$dest" in
        */) mkdir -p "$dest";;
        *) mkdir -p "$(dirname "$dest")";;
    esac
    if [ -d "$dest" ]; then dest=${dest%/}/$(basename "$entry"); fi
    chown -h "$SH_OWNER" "$entry"
    if [ -n "$SH_MODE" ] && [ ! -L "$entry" ]; then chmod "$SH_MODE" "$entry"; fi
    mv -f "$entry" "$dest"
fi
"##;

/// Has login shells know the template's `PATH`, which their profile would replace.
pub(super) const PATH_PROFILE: &str = r##"set -eu
[ -d /etc/profile.d ] || exit 0
{
    echo "# The PATH of the template."
    printf "PATH='%s'" "$(printf '%s' "$SH_PATH" | sed "s/'/'\\\\''/g")"
    printf ':"$PATH"\nexport PATH\n'
} > /etc/profile.d/00-template-path.sh
"##;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sh(script: &str, envs: &[(&str, &str)]) -> String {
        let ran = Command::new("sh")
            .args(["-c", script])
            .envs(envs.iter().copied())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    #[test]
    fn values_have_their_names_replaced_and_nothing_run() {
        let print = |value: &str| sh(&evaluate(value), &[("A", "1 \"2\"")]);
        assert_eq!(print("x$A-${A}y"), "x1 \"2\"-1 \"2\"y");
        for same in ["$(id)", "`id`", "a\"b", "back\\slash", "two\nlines", "'"] {
            assert_eq!(print(same), same);
        }
    }

    #[test]
    fn the_scripts_are_shell() {
        for script in [PREPARE, ADD_USER, WORKDIR, COPY, PATH_PROFILE] {
            let ran = Command::new("sh").args(["-n", "-c", script]).output().unwrap();
            assert!(
                ran.status.success(),
                "{script}: {}",
                String::from_utf8_lossy(&ran.stderr)
            );
        }
    }
}
