//! What one client hears of a process: its start, its output, its end, and a sign of life when it is silent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use connectrpc::ConnectError;
use futures::Stream;
use http::HeaderMap;
use sandhold_wire::limits::KEEPALIVE_S;
use sandhold_wire::names::KEEPALIVE_HEADER;
use sandhold_wire::proto::process::process_event::EndEvent;
use tokio::time::{Instant, Sleep, sleep_until};

use super::event::Event;
use super::hub::{Item, Listener};

/// The message of Go's connect when a deadline has passed.
pub(crate) const DEADLINE_EXCEEDED: &str = "context deadline exceeded";

/// The stream of `Start` and `Connect`.
pub(crate) struct EventStream {
    pid: Option<u32>,
    rest: Rest,
    keepalive: Keepalive,
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Rest {
    Live(Listener),
    /// What it printed last, then its end.
    Ended(std::vec::IntoIter<Item>, Arc<EndEvent>),
    Done,
}

/// One timer for a stream's life: it is set anew only when it fires, not at every event.
struct Keepalive {
    interval: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl EventStream {
    /// Follows a running process. `deadline` ends the stream and nothing else.
    pub(crate) fn live(
        pid: u32,
        listener: Listener,
        headers: &HeaderMap,
        deadline: Option<std::time::Instant>,
    ) -> Self {
        Self::new(pid, Rest::Live(listener), headers, deadline)
    }

    /// Tells of a process that has ended already, and what it printed as far as that is kept.
    pub(crate) fn ended(pid: u32, items: Vec<Item>, end: Arc<EndEvent>) -> Self {
        Self::new(pid, Rest::Ended(items.into_iter(), end), &HeaderMap::new(), None)
    }

    fn new(pid: u32, rest: Rest, headers: &HeaderMap, deadline: Option<std::time::Instant>) -> Self {
        Self {
            pid: Some(pid),
            rest,
            keepalive: Keepalive {
                interval: keepalive_interval(headers),
                last: Instant::now(),
                timer: None,
            },
            deadline: deadline.map(|at| Box::pin(sleep_until(at.into()))),
        }
    }
}

impl Stream for EventStream {
    type Item = Result<Event, ConnectError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(pid) = this.pid.take() {
            return Poll::Ready(Some(Ok(Event::Start(pid))));
        }
        let item = match &mut this.rest {
            Rest::Live(listener) => listener.poll_next(cx),
            Rest::Ended(items, end) => Poll::Ready(items.next().unwrap_or_else(|| Item::End(Arc::clone(end)))),
            Rest::Done => return Poll::Ready(None),
        };
        match item {
            Poll::Ready(Item::Data(source, bytes)) => {
                this.keepalive.last = Instant::now();
                return Poll::Ready(Some(Ok(Event::Data(source, bytes))));
            }
            Poll::Ready(Item::End(end)) => {
                this.rest = Rest::Done;
                return Poll::Ready(Some(Ok(Event::End(end))));
            }
            Poll::Ready(Item::Deadline) => return this.expired(),
            Poll::Pending => {}
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return this.expired();
        }
        match this.keepalive.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Ok(Event::Keepalive))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl EventStream {
    fn expired(&mut self) -> Poll<Option<Result<Event, ConnectError>>> {
        self.rest = Rest::Done;
        Poll::Ready(Some(Err(ConnectError::deadline_exceeded(DEADLINE_EXCEEDED))))
    }
}

impl Keepalive {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { interval, last, timer } = self;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(*last + *interval)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = *last + *interval;
            if due <= now {
                *last = now;
                timer.as_mut().reset(now + *interval);
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// The client's `Keepalive-Ping-Interval` in whole seconds; the default where it is missing or not a positive number.
pub(crate) fn keepalive_interval(headers: &HeaderMap) -> Duration {
    let asked = headers
        .get(KEEPALIVE_HEADER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().parse::<u32>().ok());
    Duration::from_secs(asked.filter(|&s| s > 0).map_or(KEEPALIVE_S, u64::from))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn intervals() {
        for (value, wanted) in [("50", 50), (" 1 ", 1), ("0", 90), ("-5", 90), ("x", 90), ("", 90)] {
            let mut headers = HeaderMap::new();
            headers.insert(KEEPALIVE_HEADER, HeaderValue::from_static(value));
            assert_eq!(keepalive_interval(&headers).as_secs(), wanted, "{value:?}");
        }
        assert_eq!(keepalive_interval(&HeaderMap::new()).as_secs(), 90);
    }
}
