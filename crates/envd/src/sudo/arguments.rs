//! The command line of `sudo`, as people use it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::packet::Request;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run something.
    Run,
    /// `-v`: say whether something could be run.
    Validate,
    /// `-l`: say what may be run.
    List,
    /// `-k`, `-K` without a command: nothing is remembered, so nothing is forgotten.
    Forget,
    /// `-h`.
    Help,
    /// `-V`.
    Version,
}

/// A command line that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) action: Action,
    /// The user to become.
    pub(crate) user: String,
    pub(crate) request: Request,
    /// `-g` was given: told, but not obeyed.
    pub(crate) group: bool,
}

/// A command line that was not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("unknown option {0}")]
    Unknown(String),
    #[error("option {0} is not supported in a sandbox")]
    Unsupported(String),
    #[error("option {0} needs a value")]
    NoValue(String),
    #[error("option {0} takes no value")]
    Value(String),
    #[error("-i and -s cannot be given together")]
    TwoShells,
    #[error("there is nothing to run")]
    Nothing,
}

/// Long options and the letters they stand for.
const LONG: &[(&str, char)] = &[
    ("askpass", 'A'),
    ("background", 'b'),
    ("chdir", 'D'),
    ("chroot", 'R'),
    ("close-from", 'C'),
    ("command-timeout", 'T'),
    ("edit", 'e'),
    ("group", 'g'),
    ("help", 'h'),
    ("host", 'h'),
    ("list", 'l'),
    ("login", 'i'),
    ("non-interactive", 'n'),
    ("other-user", 'U'),
    ("preserve-env", 'E'),
    ("preserve-groups", 'P'),
    ("prompt", 'p'),
    ("remove-timestamp", 'K'),
    ("reset-timestamp", 'k'),
    ("set-home", 'H'),
    ("shell", 's'),
    ("stdin", 'S'),
    ("user", 'u'),
    ("validate", 'v'),
    ("version", 'V'),
];

/// Letters whose value follows.
const WITH_VALUE: &str = "CDghpRTUu";

/// Understands the arguments after the program's name.
///
/// # Errors
/// [`UsageError`] names the option.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut found = Invocation {
        action: Action::Run,
        user: "root".to_owned(),
        request: Request::default(),
        group: false,
    };
    let mut forget = false;
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next_if(|a| is_option(a)) {
        let text = argument.to_string_lossy().into_owned();
        if text == "--" {
            break;
        }
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (long, None),
            };
            let Some(&(_, letter)) = LONG.iter().find(|(known, _)| *known == name) else {
                return Err(UsageError::Unknown(format!("--{name}")));
            };
            match (letter, value) {
                ('E', Some(list)) => {
                    let names = list.to_string_lossy();
                    found.request.keep.extend(names.split(',').map(OsString::from));
                }
                ('h', None) if name == "help" => found.action = Action::Help,
                (letter, value) if WITH_VALUE.contains(letter) => {
                    let value = match value {
                        Some(value) => value,
                        None => arguments.next().ok_or(UsageError::NoValue(format!("--{name}")))?,
                    };
                    found.valued(letter, value)?;
                }
                (_, Some(_)) => return Err(UsageError::Value(format!("--{name}"))),
                (letter, None) => found.flag(letter, &mut forget)?,
            }
            continue;
        }
        for (at, letter) in text[1..].char_indices() {
            // `-h` alone is for help; with a value it names a host.
            if letter == 'h' && text.len() == 2 {
                found.action = Action::Help;
            } else if WITH_VALUE.contains(letter) {
                let rest = &argument.as_bytes()[(1 + at + letter.len_utf8()).min(argument.len())..];
                let value = if rest.is_empty() {
                    arguments.next().ok_or(UsageError::NoValue(format!("-{letter}")))?
                } else {
                    OsStr::from_bytes(rest).to_owned()
                };
                found.valued(letter, value)?;
                break;
            } else {
                found.flag(letter, &mut forget)?;
            }
        }
    }
    while let Some(set) = arguments.next_if(|a| is_assignment(a)) {
        found.request.set.push(set);
    }
    found.request.command = arguments.collect();
    found.settled(forget)
}

impl Invocation {
    fn flag(&mut self, letter: char, forget: &mut bool) -> Result<(), UsageError> {
        match letter {
            // No password is ever asked for, and groups are the user's own.
            'n' | 'S' | 'A' | 'P' => {}
            'E' => self.request.keep_env = true,
            'H' => self.request.set_home = true,
            'i' => self.request.login = true,
            's' => self.request.shell = true,
            'k' | 'K' => *forget = true,
            'v' => self.action = Action::Validate,
            'l' => self.action = Action::List,
            'V' => self.action = Action::Version,
            'b' | 'e' => return Err(UsageError::Unsupported(format!("-{letter}"))),
            other => return Err(UsageError::Unknown(format!("-{other}"))),
        }
        Ok(())
    }

    fn valued(&mut self, letter: char, value: OsString) -> Result<(), UsageError> {
        match letter {
            'u' => {
                let name = value.to_string_lossy().into_owned();
                self.user = name.strip_prefix('#').unwrap_or(&name).to_owned();
            }
            'g' => self.group = true,
            'D' => self.request.folder = Some(value),
            // The prompt of a password that is not asked for; whom `-l` is about, where all may do all.
            'p' | 'U' => {}
            other => return Err(UsageError::Unsupported(format!("-{other}"))),
        }
        Ok(())
    }

    fn settled(mut self, forget: bool) -> Result<Self, UsageError> {
        if self.action != Action::Run {
            return Ok(self);
        }
        let shell = self.request.login || self.request.shell;
        if self.request.login && self.request.shell {
            return Err(UsageError::TwoShells);
        }
        if self.request.command.is_empty() && !shell {
            if !forget {
                return Err(UsageError::Nothing);
            }
            self.action = Action::Forget;
        }
        Ok(self)
    }
}

fn is_option(argument: &OsStr) -> bool {
    let bytes = argument.as_bytes();
    bytes.len() > 1 && bytes[0] == b'-'
}

fn is_assignment(argument: &OsStr) -> bool {
    let name = argument
        .as_bytes()
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default();
    name.len() < argument.len()
        && name.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_')
        && name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn commands_keep_their_own_options() {
        let found = parsed("-nE -u user A=1 B= ls -l -- -n C=3").unwrap();
        assert_eq!((found.action, found.user.as_str()), (Action::Run, "user"));
        assert!(found.request.keep_env);
        assert_eq!(found.request.set, ["A=1", "B="]);
        assert_eq!(found.request.command, ["ls", "-l", "--", "-n", "C=3"]);
        let found = parsed("-- -n x").unwrap();
        assert_eq!(found.request.command, ["-n", "x"]);
    }

    #[test]
    fn users_in_every_spelling() {
        for line in [
            "-u user id",
            "-uuser id",
            "-nuuser id",
            "--user=user id",
            "--user user id",
        ] {
            let found = parsed(line).unwrap();
            assert_eq!(
                (found.user.as_str(), &*found.request.command),
                ("user", &["id".into()][..]),
                "{line}"
            );
        }
        assert_eq!(parsed("-u #1000 id").unwrap().user, "1000");
        assert_eq!(parsed("id").unwrap().user, "root");
    }

    #[test]
    fn shells_and_questions() {
        assert!(parsed("-i").unwrap().request.login);
        assert!(parsed("-su user").unwrap().request.shell);
        assert_eq!(parsed("-k").unwrap().action, Action::Forget);
        assert_eq!(parsed("-k id").unwrap().action, Action::Run);
        assert_eq!(parsed("-v").unwrap().action, Action::Validate);
        assert_eq!(parsed("-nl").unwrap().action, Action::List);
        assert_eq!(parsed("-h").unwrap().action, Action::Help);
        assert_eq!(parsed("--preserve-env=A,B id").unwrap().request.keep, ["A", "B"]);
        assert!(parsed("-g adm id").unwrap().group);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, error) in [
            ("-x id", UsageError::Unknown("-x".into())),
            ("--frob id", UsageError::Unknown("--frob".into())),
            ("-b id", UsageError::Unsupported("-b".into())),
            ("-C 3 id", UsageError::Unsupported("-C".into())),
            ("-u", UsageError::NoValue("-u".into())),
            ("--login=x", UsageError::Value("--login".into())),
            ("-i -s", UsageError::TwoShells),
            ("", UsageError::Nothing),
            ("A=1", UsageError::Nothing),
        ] {
            assert_eq!(parsed(line), Err(error), "{line}");
        }
    }
}
