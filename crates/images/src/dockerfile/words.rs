//! How the rest of an instruction is parted into words, flags and JSON. Quotes and escapes stay in the words: they are
//! resolved when variables are replaced.

/// Parts a line at blanks that are neither quoted nor escaped.
pub(super) fn words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                words.extend(word.take());
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the end of the line it is nothing.
            if let Some(next) = chars.next() {
                word.get_or_insert_default().extend([c, next]);
            }
            continue;
        }
        word.get_or_insert_default().push(c);
    }
    words.extend(word);
    words
}

/// Takes the flags off the begin of a line: their texts without quotes, and the rest.
pub(super) fn flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let mut flag = String::new();
        let mut quote = None;
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match quote {
                None if c.is_whitespace() => {
                    end = at;
                    break;
                }
                None if c == '\'' || c == '"' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ if c == escape => flag.extend(chars.next().map(|(_, next)| next)),
                _ => flag.push(c),
            }
        }
        rest = rest[end..].trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// The exec form: an array of JSON's strings. None if it is something else: then it is the shell form.
pub(super) fn json(rest: &str) -> Option<Result<Vec<String>, &'static str>> {
    let rest = rest.trim();
    if !rest.starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(rest).ok()?;
    let text = |value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err("only strings may stand in its array"),
    };
    Some(values.into_iter().map(text).collect())
}
