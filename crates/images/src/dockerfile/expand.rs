//! Quotes, escapes and variables of a word, as BuildKit resolves them.

use std::{iter::Peekable, str::Chars};

use crate::limits;

/// What a variable is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Set(String),
    Unset,
    /// Not known here: it is left as it stands.
    Keep,
}

/// Resolves a word.
pub(super) fn word(text: &str, escape: char, value: &dyn Fn(&str) -> Value) -> Result<String, String> {
    Reader::new(text, escape, value, true).until(None, 0)
}

/// Resolves a text in which quotes are not special.
pub(super) fn text(text: &str, escape: char, value: &dyn Fn(&str) -> Value) -> Result<String, String> {
    Reader::new(text, escape, value, false).until(None, 0)
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    value: &'a dyn Fn(&str) -> Value,
    quotes: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, escape: char, value: &'a dyn Fn(&str) -> Value, quotes: bool) -> Self {
        Self {
            chars: text.chars().peekable(),
            escape,
            value,
            quotes,
        }
    }

    fn until(&mut self, stop: Option<char>, depth: usize) -> Result<String, String> {
        if depth > limits::EXPANSION_DEPTH {
            return Err("its ${…} lie too deep within each other".to_owned());
        }
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' if self.quotes => loop {
                    match self.chars.next() {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => return Err("a single quote is not ended".to_owned()),
                    }
                },
                '"' if self.quotes => self.double(&mut out, depth)?,
                '$' => out.push_str(&self.variable(depth)?),
                // At the end it is nothing.
                c if c == self.escape => out.extend(self.chars.next()),
                c => out.push(c),
            }
            if out.len() > limits::WORD_BYTES {
                return Err(format!("it grows to more than {} bytes", limits::WORD_BYTES));
            }
        }
        match stop {
            Some(_) => Err("a ${ is not ended by }".to_owned()),
            None => Ok(out),
        }
    }

    fn double(&mut self, out: &mut String, depth: usize) -> Result<(), String> {
        loop {
            match self.chars.next() {
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.variable(depth)?),
                Some(c) if c == self.escape => match self.chars.peek() {
                    Some(next) if ['"', '$', self.escape].contains(next) => out.extend(self.chars.next()),
                    _ => out.push(c),
                },
                Some(c) => out.push(c),
                None => return Err("a double quote is not ended".to_owned()),
            }
            if out.len() > limits::WORD_BYTES {
                return Err(format!("it grows to more than {} bytes", limits::WORD_BYTES));
            }
        }
    }

    /// After a `$`.
    fn variable(&mut self, depth: usize) -> Result<String, String> {
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            return Ok(match (self.value)(&name) {
                _ if name.is_empty() => "$".to_owned(),
                Value::Set(value) => value,
                Value::Unset => String::new(),
                Value::Keep => format!("${name}"),
            });
        }
        self.chars.next();
        let name = self.name();
        if name.is_empty() {
            return Err("after ${ comes the name of a variable".to_owned());
        }
        let mut sign = match self.chars.next() {
            Some('}') => {
                return Ok(match (self.value)(&name) {
                    Value::Set(value) => value,
                    Value::Unset => String::new(),
                    Value::Keep => format!("${{{name}}}"),
                });
            }
            Some(sign) => sign,
            None => return Err("a ${ is not ended by }".to_owned()),
        };
        let colon = sign == ':';
        if colon {
            sign = self.chars.next().ok_or("a ${ is not ended by }")?;
        }
        if !"-+?".contains(sign) {
            return Err(format!(
                "${{{name}{}{sign}…}} is not supported; there are ${{X:-word}}, ${{X:+word}} and ${{X:?message}}",
                if colon { ":" } else { "" }
            ));
        }
        let word = self.until(Some('}'), depth + 1)?;
        let value = match (self.value)(&name) {
            Value::Keep => return Ok(format!("${{{name}{}{sign}{word}}}", if colon { ":" } else { "" })),
            Value::Set(value) if !(colon && value.is_empty()) => Some(value),
            _ => None,
        };
        match (sign, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("the variable {name} is not set")),
            (_, None) => Err(format!("the variable {name} is not set: {word}")),
        }
    }

    /// A name: letters, digits and `_`; or digits alone, or one sign of a shell's.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(first) = self.chars.peek().copied() else {
            return name;
        };
        if "@*#?-$!".contains(first) {
            name.extend(self.chars.next());
            return name;
        }
        while let Some(c) = self.chars.peek().copied() {
            let fits = if first.is_ascii_digit() {
                c.is_ascii_digit()
            } else {
                c.is_alphanumeric() || c == '_'
            };
            if !fits {
                break;
            }
            name.push(c);
            self.chars.next();
        }
        name
    }
}
