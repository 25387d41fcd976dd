//! Names of keys, and what a terminal sends for them.

use crate::{answer::ToolError, budget, limits};

/// The names, for refusals.
const KNOWN: &str = "enter, tab, escape, space, backspace, delete, insert, up, down, left, right, home, end, pageup, pagedown, f1 to f12, \
                     any single character, with ctrl+, alt+ or shift+ before it; text:abc types abc";

/// Modifiers as terminals number them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    shift: bool,
    alt: bool,
    ctrl: bool,
}

impl Held {
    fn number(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.ctrl)
    }
}

/// What is sent for these keys. `application`: the program asked for arrow keys of its own kind.
pub(crate) fn bytes(keys: &[String], application: bool) -> Result<Vec<u8>, ToolError> {
    let mut sent = Vec::new();
    for key in keys {
        match encode(key, application) {
            Some(bytes) => sent.extend(bytes),
            None => {
                let shown = budget::line(key, 80);
                return Err(ToolError::invalid(format!("keys has {shown:?}, which is no key"))
                    .hint(format!("Keys: {KNOWN}. To type this as text: \"text:{shown}\".")));
            }
        }
    }
    limits::at_most("keys", sent.len(), limits::STDIN)?;
    Ok(sent)
}

fn encode(key: &str, application: bool) -> Option<Vec<u8>> {
    if let Some(text) = key.strip_prefix("text:") {
        return Some(text.replace('\n', "\r").into_bytes());
    }
    let mut held = Held::default();
    let mut name = key;
    while let Some((modifier, rest)) = name.split_once(['+', '-']).filter(|(_, rest)| !rest.is_empty()) {
        match modifier.to_ascii_lowercase().as_str() {
            "ctrl" | "control" => held.ctrl = true,
            "alt" | "meta" => held.alt = true,
            "shift" => held.shift = true,
            _ => break,
        }
        name = rest;
    }
    if let Some(bytes) = named(&name.to_ascii_lowercase(), held, application) {
        return Some(bytes);
    }
    let mut characters = name.chars();
    if let (Some(c), None) = (characters.next(), characters.next()) {
        return character(c, held);
    }
    // What cannot be the name of a key is text: `:wq`, `two words`.
    let like_a_name = key.chars().all(|c| c.is_ascii_alphanumeric() || "+-_".contains(c));
    (!like_a_name && held == Held::default()).then(|| key.replace('\n', "\r").into_bytes())
}

/// A key with a name.
fn named(name: &str, held: Held, application: bool) -> Option<Vec<u8>> {
    let plain = held == Held::default();
    // Those that end with a letter.
    let letter = match name {
        "up" => Some('A'),
        "down" => Some('B'),
        "right" => Some('C'),
        "left" => Some('D'),
        "home" => Some('H'),
        "end" => Some('F'),
        _ => None,
    };
    if let Some(letter) = letter {
        let text = match (plain, application) {
            (true, true) => format!("\x1bO{letter}"),
            (true, false) => format!("\x1b[{letter}"),
            (false, _) => format!("\x1b[1;{}{letter}", held.number()),
        };
        return Some(text.into_bytes());
    }
    let function = name.strip_prefix('f').and_then(|n| n.parse::<u8>().ok());
    if let Some(n @ 1..=4) = function {
        let letter = char::from(b'P' + n - 1);
        let text = match plain {
            true => format!("\x1bO{letter}"),
            false => format!("\x1b[1;{}{letter}", held.number()),
        };
        return Some(text.into_bytes());
    }
    let number = match (name, function) {
        ("insert" | "ins", _) => Some(2),
        ("delete" | "del", _) => Some(3),
        ("pageup" | "pgup" | "page_up", _) => Some(5),
        ("pagedown" | "pgdn" | "pgdown" | "page_down", _) => Some(6),
        (_, Some(5)) => Some(15),
        (_, Some(n @ 6..=10)) => Some(n + 11),
        (_, Some(n @ 11..=12)) => Some(n + 12),
        _ => None,
    };
    if let Some(number) = number {
        let text = match plain {
            true => format!("\x1b[{number}~"),
            false => format!("\x1b[{number};{}~", held.number()),
        };
        return Some(text.into_bytes());
    }
    let byte = match name {
        "enter" | "return" => b'\r',
        "tab" if held.shift => return Some(b"\x1b[Z".to_vec()),
        "tab" => b'\t',
        "escape" | "esc" => 0x1b,
        "space" if held.ctrl => 0,
        "space" => b' ',
        "backspace" if held.ctrl => 0x08,
        "backspace" => 0x7f,
        _ => return None,
    };
    Some(with_alt(vec![byte], held))
}

/// A character with what is held.
fn character(c: char, held: Held) -> Option<Vec<u8>> {
    let c = if held.shift { c.to_ascii_uppercase() } else { c };
    if !held.ctrl {
        return Some(with_alt(
            if c == '\n' {
                vec![b'\r']
            } else {
                c.to_string().into_bytes()
            },
            held,
        ));
    }
    let byte = match c {
        'a'..='z' | 'A'..='Z' | '[' | '\\' | ']' | '^' | '_' | '@' => u8::try_from(c).ok()? & 0x1f,
        ' ' | '2' => 0,
        '/' => 0x1f,
        '?' => 0x7f,
        _ => return None,
    };
    Some(with_alt(vec![byte], held))
}

fn with_alt(mut bytes: Vec<u8>, held: Held) -> Vec<u8> {
    if held.alt {
        bytes.insert(0, 0x1b);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(key: &str) -> Vec<u8> {
        bytes(&[key.to_owned()], false).unwrap()
    }

    /// As xterm sends them, from its documentation of control sequences.
    #[test]
    fn keys_of_xterm() {
        let table: [(&str, &[u8]); 40] = [
            ("ctrl+a", b"\x01"),
            ("ctrl+c", b"\x03"),
            ("Ctrl-C", b"\x03"),
            ("ctrl+z", b"\x1a"),
            ("ctrl+[", b"\x1b"),
            ("ctrl+space", b"\0"),
            ("alt+x", b"\x1bx"),
            ("alt+shift+x", b"\x1bX"),
            ("ctrl+alt+d", b"\x1b\x04"),
            ("enter", b"\r"),
            ("Return", b"\r"),
            ("alt+enter", b"\x1b\r"),
            ("tab", b"\t"),
            ("shift+tab", b"\x1b[Z"),
            ("escape", b"\x1b"),
            ("esc", b"\x1b"),
            ("backspace", b"\x7f"),
            ("space", b" "),
            ("delete", b"\x1b[3~"),
            ("insert", b"\x1b[2~"),
            ("up", b"\x1b[A"),
            ("left", b"\x1b[D"),
            ("ctrl+right", b"\x1b[1;5C"),
            ("shift+up", b"\x1b[1;2A"),
            ("home", b"\x1b[H"),
            ("end", b"\x1b[F"),
            ("pageup", b"\x1b[5~"),
            ("pgdn", b"\x1b[6~"),
            ("shift+delete", b"\x1b[3;2~"),
            ("f1", b"\x1bOP"),
            ("f4", b"\x1bOS"),
            ("f5", b"\x1b[15~"),
            ("f6", b"\x1b[17~"),
            ("f10", b"\x1b[21~"),
            ("f11", b"\x1b[23~"),
            ("F12", b"\x1b[24~"),
            ("ctrl+f5", b"\x1b[15;5~"),
            ("+", b"+"),
            ("ctrl+_", b"\x1f"),
            ("-", b"-"),
        ];
        for (key, bytes) in table {
            assert_eq!(sent(key), bytes, "{key}");
        }
        for (key, expected) in [("up", b"\x1bOA"), ("home", b"\x1bOH"), ("end", b"\x1bOF")] {
            assert_eq!(bytes(&[key.into()], true).unwrap(), expected, "{key}");
        }
    }

    #[test]
    fn text_is_typed() {
        for (key, bytes) in [
            ("x", "x"),
            ("ü", "ü"),
            (":wq", ":wq"),
            ("two words", "two words"),
            ("text:up", "up"),
            ("text:a\nb", "a\rb"),
            ("/a+b", "/a+b"),
        ] {
            assert_eq!(sent(key), bytes.as_bytes(), "{key}");
        }
        let keys = ["i", "text:hello", "escape", ":wq", "enter"].map(str::to_owned);
        assert_eq!(bytes(&keys, false).unwrap(), b"ihello\x1b:wq\r");
    }

    #[test]
    fn unknown_keys_are_refused_with_those_there_are() {
        for key in [
            "pagdown",
            "f13",
            "f0",
            "super+x",
            "ctrl+enterr",
            "ctrl+ü",
            "dd",
            "ctrl+two words",
            "",
        ] {
            let error = bytes(&[key.to_owned()], false).unwrap_err();
            assert!(error.message.contains(&format!("{key:?}")), "{key}: {}", error.message);
            assert!(error.hint.unwrap().contains("pageup, pagedown, f1 to f12"), "{key}");
        }
    }
}
