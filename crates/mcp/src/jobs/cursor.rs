//! Where a reader of a job's output stands, as text that a model can hand back.

use crate::answer::ToolError;

/// How much of each stream was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

impl Cursor {
    /// `120.7`: bytes of standard output and of standard error.
    pub(crate) fn encode(self) -> String {
        format!("{}.{}", self.stdout, self.stderr)
    }

    /// Reads it back; nothing is the beginning.
    pub(crate) fn decode(text: Option<&str>) -> Result<Self, ToolError> {
        let Some(text) = text.filter(|t| !t.is_empty()) else {
            return Ok(Self::default());
        };
        let number = |part: &str| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()));
        let parts = text.split_once('.').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        let Some((stdout, stderr)) = parts else {
            let shown: String = text.chars().take(80).collect();
            return Err(ToolError::invalid(format!(
                "cursor is {shown:?}; it is one that get_job_status or run_command gave"
            ))
            .hint("Leave cursor out to read from the beginning."));
        };
        Ok(Self { stdout, stderr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let cursor = Cursor { stdout: 120, stderr: 7 };
        assert_eq!(cursor.encode(), "120.7");
        assert_eq!(Cursor::decode(Some("120.7")), Ok(cursor));
        assert_eq!(Cursor::decode(None), Ok(Cursor::default()));
        for bad in ["1", "1.", "a.b", "1.2.3", "-1.0", "+1.0", "99999999999999999999.0"] {
            assert!(Cursor::decode(Some(bad)).unwrap_err().message.contains(bad), "{bad}");
        }
    }
}
