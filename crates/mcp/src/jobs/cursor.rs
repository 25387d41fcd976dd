//! Where a reader of a job's output stands, as text that a model can hand back.

use crate::answer::ToolError;

/// How much of each stream was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
    /// Where the counting began: 0 at the job's start, another number where this server came later and cannot know what
    /// was printed before.
    pub(crate) since: u16,
}

impl Cursor {
    /// `120.7`: bytes of standard output and of standard error; `120.7.513` where they are not counted from the start.
    pub(crate) fn encode(self) -> String {
        match self.since {
            0 => format!("{}.{}", self.stdout, self.stderr),
            since => format!("{}.{}.{since}", self.stdout, self.stderr),
        }
    }

    /// Reads it back; nothing is the beginning.
    pub(crate) fn decode(text: Option<&str>) -> Result<Self, ToolError> {
        let Some(text) = text.filter(|t| !t.is_empty()) else {
            return Ok(Self::default());
        };
        let mut parts = text.split('.').map(|part| {
            let digits = part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u64>().ok().filter(|_| digits)
        });
        let read = (parts.next(), parts.next(), parts.next(), parts.next());
        let (stdout, stderr, since) = match read {
            (Some(Some(stdout)), Some(Some(stderr)), None, None) => (stdout, stderr, Some(0)),
            (Some(Some(stdout)), Some(Some(stderr)), Some(Some(since)), None) => {
                (stdout, stderr, u16::try_from(since).ok())
            }
            _ => (0, 0, None),
        };
        let Some(since) = since else {
            let shown: String = text.chars().take(80).collect();
            return Err(ToolError::invalid(format!(
                "cursor is {shown:?}; it is one that get_job_status or run_command gave"
            ))
            .hint("Leave cursor out to read from the beginning."));
        };
        Ok(Self { stdout, stderr, since })
    }

    /// The same place in a job that counts since `since`; its beginning if the cursor counts from elsewhere.
    pub(crate) fn within(self, since: u16) -> Self {
        if self.since == since {
            return self;
        }
        Self {
            since,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (since, text) in [(0, "120.7"), (513, "120.7.513")] {
            let cursor = Cursor {
                stdout: 120,
                stderr: 7,
                since,
            };
            assert_eq!(cursor.encode(), text);
            assert_eq!(Cursor::decode(Some(text)), Ok(cursor));
        }
        assert_eq!(Cursor::decode(None), Ok(Cursor::default()));
        for bad in [
            "1",
            "1.",
            "a.b",
            "1.2.3.4",
            "1.2.x",
            "1.2.70000",
            "-1.0",
            "+1.0",
            "99999999999999999999.0",
        ] {
            assert!(Cursor::decode(Some(bad)).unwrap_err().message.contains(bad), "{bad}");
        }
    }

    #[test]
    fn a_cursor_from_elsewhere_is_the_beginning() {
        let cursor = Cursor {
            stdout: 120,
            stderr: 7,
            since: 5,
        };
        assert_eq!(cursor.within(5), cursor);
        assert_eq!(cursor.within(0), Cursor::default());
    }
}
