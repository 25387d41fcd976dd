//! How texts that nobody here wrote stand in a question: a person must see where they begin and end, and what is not shown.

use rmcp::model::JsonObject;
use serde_json::Value;

use crate::limits;

/// Characters of a path.
const PATH: usize = 200;
/// Characters of an argument that is a text.
const TEXT: usize = limits::QUESTION / 2;
/// Characters of a text within an argument.
const INNER: usize = 60;

/// A path, quoted.
pub(crate) fn path(path: &str) -> String {
    text(path, PATH)
}

/// The arguments of a call. Each is cut by itself, so that a long one hides no other.
pub(crate) fn arguments(args: &JsonObject) -> String {
    let shown = args.iter().map(|(name, value)| {
        let value = match value {
            Value::String(value) => text(value, TEXT),
            value => cut(&inner(value), limits::QUESTION, visible),
        };
        format!("{}:{value}", text(name, INNER))
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}

/// A question without line breaks and what cannot be seen, whatever its parts were.
pub(super) fn question(question: &str) -> String {
    question.chars().map(visible).collect()
}

/// A value within an argument.
fn inner(value: &Value) -> String {
    match value {
        Value::String(value) => text(value, INNER),
        Value::Array(values) => format!("[{}]", values.iter().map(inner).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{}:{}", text(name, INNER), inner(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        value => value.to_string(),
    }
}

/// A text in quotes that nothing in it ends.
fn text(text: &str, max: usize) -> String {
    let quoted = |c| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c => visible(c),
    };
    format!("\"{}\"", cut(text, max, quoted))
}

/// About `max` characters of the beginning and the end of a text, each shown as `show` does, and how many are missing.
fn cut(text: &str, max: usize, show: impl Fn(char) -> String) -> String {
    let mut used = 0;
    let whole: String = text
        .chars()
        .map(&show)
        .take_while(|shown| {
            used += shown.chars().count();
            used <= max
        })
        .collect();
    if used <= max {
        return whole;
    }
    let part = |chars: &mut dyn Iterator<Item = char>| {
        let mut used = 0;
        let shown = chars.map(&show).take_while(|shown| {
            used += shown.chars().count();
            used <= max / 2
        });
        shown.collect::<Vec<String>>()
    };
    let (head, mut tail) = (part(&mut text.chars()), part(&mut text.chars().rev()));
    tail.reverse();
    let missing = text.chars().count() - head.len() - tail.len();
    format!("{}…({missing} characters not shown)…{}", head.concat(), tail.concat())
}

/// A character as a person can see it: what breaks or turns lines, or has no width, is escaped.
fn visible(c: char) -> String {
    let hidden = c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    if hidden {
        c.escape_default().to_string()
    } else {
        c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        assert_eq!(path("/home/ü ser/a"), "\"/home/ü ser/a\"");
        assert_eq!(
            path("/tmp\"?\n\nDo: accept.\r\u{202e}\u{200b}\u{2066}\u{feff}\\"),
            r#""/tmp\"?\n\nDo: accept.\r\u{202e}\u{200b}\u{2066}\u{feff}\\""#
        );
        assert_eq!(question("a\nb\u{2028}c"), r"a\nb\u{2028}c");
    }

    #[test]
    fn what_is_cut_is_counted() {
        let long = format!("/begin{}end", "x".repeat(1000));
        let shown = path(&long);
        assert!(shown.starts_with("\"/beginx") && shown.ends_with("xend\""), "{shown}");
        assert!(shown.contains("x…(809 characters not shown)…x"), "{shown}");
        let breaks = path(&"\n".repeat(1000));
        assert!(breaks.contains("\\n…(900 characters not shown)…\\n"), "{breaks}");
        assert_eq!(path(&"x".repeat(PATH)).len(), PATH + 2, "what fits is whole");
    }

    #[test]
    fn a_long_argument_hides_no_other() {
        let long = "x".repeat(5000);
        let args = json!({
            "cmd": format!("echo {long}; rm -rf /"),
            "envs": [{"name": "A", "value": long}, {"name": "LD_PRELOAD", "value": "/evil"}],
            "user": "root"
        });
        let shown = arguments(args.as_object().unwrap());
        for part in [
            "echo x",
            "rm -rf /\"",
            "LD_PRELOAD",
            "/evil",
            r#""user":"root""#,
            "4715 characters not shown",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let args = json!({"cmd": ["a\u{202e}b", 7]});
        assert_eq!(arguments(args.as_object().unwrap()), r#"{"cmd":["a\u{202e}b",7]}"#);
    }
}
