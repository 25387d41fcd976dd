//! One process's output to all who listen.
//!
//! Every listener has a queue of its own. The process is read only while the fullest queue has room: a slow listener holds
//! the process up, as a full pipe would, and loses nothing. Who leaves takes the queue along. Output that nobody listens
//! to is dropped, but for that of jobs: its newest part is kept for those who listen later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sandhold_wire::proto::process::process_event::EndEvent;

use super::kept::{Budget, Kept, Offsets};
use crate::limits::{EVENT_OVERHEAD, UNREAD_OUTPUT};

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A terminal, which has both.
    Pty,
}

/// What a listener hears.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    /// Output.
    Data(Source, Bytes),
    /// The process ended; nothing follows.
    End(Arc<EndEvent>),
    /// The deadline of the call that started the process passed; nothing follows.
    Deadline,
}

/// The listeners of one process.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queues: Vec<Queue>,
    next_id: u64,
    reader: Option<Waker>,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Queue {
    id: u64,
    items: VecDeque<Item>,
    unread: usize,
    waker: Option<Waker>,
}

impl Queue {
    fn push(&mut self, item: Item) {
        if let Item::Data(_, bytes) = &item {
            self.unread += bytes.len() + EVENT_OVERHEAD;
        }
        self.items.push_back(item);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Inner {
    /// Opens a queue and returns its id.
    fn open(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.queues.push(Queue {
            id,
            items: VecDeque::new(),
            unread: 0,
            waker: None,
        });
        id
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a queue; from now on nothing is missed.
    pub(crate) fn listen(self: &Arc<Self>) -> Listener {
        let id = self.lock().open();
        Listener {
            hub: Arc::clone(self),
            id,
        }
    }

    /// One that keeps the newest output.
    pub(super) fn keeping(budget: Arc<Budget>) -> Self {
        let kept = Some(Kept::new(budget));
        Self(Mutex::new(Inner {
            kept,
            ..Inner::default()
        }))
    }

    /// Opens a queue that begins with what is kept from `from` on; says where that begins. `None` where nothing is kept.
    pub(super) fn listen_from(self: &Arc<Self>, from: Offsets) -> Option<(Offsets, Listener)> {
        let mut inner = self.lock();
        let (starts, items) = inner.kept.as_ref()?.since(from);
        let id = inner.open();
        if let Some(queue) = inner.queues.last_mut() {
            items.into_iter().for_each(|item| queue.push(item));
        }
        let hub = Arc::clone(self);
        Some((starts, Listener { hub, id }))
    }

    /// What is kept from `from` on, and where that begins.
    pub(super) fn kept(&self, from: Offsets) -> Option<(Offsets, Vec<Item>)> {
        self.lock().kept.as_ref().map(|kept| kept.since(from))
    }

    /// Bytes that came so far, where they are kept.
    pub(super) fn totals(&self) -> Offsets {
        self.lock().kept.as_ref().map(Kept::totals).unwrap_or_default()
    }

    /// Nothing will come any more. Returns how many bytes are kept.
    pub(super) fn settle(&self) -> usize {
        let mut inner = self.lock();
        let Some(kept) = &mut inner.kept else { return 0 };
        kept.settle();
        kept.held()
    }

    /// Whether anybody listens, or what comes is kept.
    pub(crate) fn is_heard(&self) -> bool {
        let inner = self.lock();
        !inner.queues.is_empty() || inner.kept.is_some()
    }

    /// Whether every listener has taken all that there was.
    pub(crate) fn is_drained(&self) -> bool {
        self.lock().queues.iter().all(|q| q.items.is_empty())
    }

    /// Puts output into every queue.
    pub(crate) fn data(&self, source: Source, bytes: &Bytes) {
        let mut inner = self.lock();
        if let Some(kept) = &mut inner.kept {
            kept.push(source, bytes);
        }
        for queue in &mut inner.queues {
            queue.push(Item::Data(source, bytes.clone()));
        }
    }

    /// Tells the end to everybody.
    pub(crate) fn end(&self, end: &Arc<EndEvent>) {
        for queue in &mut self.lock().queues {
            queue.push(Item::End(Arc::clone(end)));
        }
    }

    /// Tells the listener with `id` that its deadline passed.
    pub(crate) fn deadline(&self, id: u64) {
        if let Some(queue) = self.lock().queues.iter_mut().find(|q| q.id == id) {
            queue.push(Item::Deadline);
        }
    }

    /// Waits until every queue has room.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.queues.iter().all(|q| q.unread < UNREAD_OUTPUT) {
            return Poll::Ready(());
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One who listens. Dropped: the queue is gone.
#[derive(Debug)]
pub(crate) struct Listener {
    hub: Arc<Hub>,
    id: u64,
}

impl Listener {
    /// Names the listener to [`Hub::deadline`].
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The next item.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Item> {
        let mut inner = self.hub.lock();
        let Inner { queues, reader, .. } = &mut *inner;
        let Some(queue) = queues.iter_mut().find(|q| q.id == self.id) else {
            return Poll::Pending;
        };
        let Some(item) = queue.items.pop_front() else {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Item::Data(_, bytes) = &item {
            let full = queue.unread >= UNREAD_OUTPUT;
            queue.unread -= bytes.len() + EVENT_OVERHEAD;
            if full
                && queue.unread < UNREAD_OUTPUT
                && let Some(reader) = reader.take()
            {
                reader.wake();
            }
        }
        Poll::Ready(item)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.hub.lock();
        inner.queues.retain(|q| q.id != self.id);
        if let Some(reader) = inner.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn the_slowest_listener_holds_the_reader() {
        let hub = Arc::new(Hub::default());
        assert!(!hub.is_heard());
        let (fast, slow) = (hub.listen(), hub.listen());
        let big = Bytes::from(vec![0; UNREAD_OUTPUT]);
        hub.data(Source::Stdout, &big);
        assert!(hub.poll_room(&mut context()).is_pending());
        assert!(matches!(fast.poll_next(&mut context()), Poll::Ready(Item::Data(Source::Stdout, b)) if b == big));
        assert!(hub.poll_room(&mut context()).is_pending(), "one is still full");
        assert!(!hub.is_drained());
        drop(slow);
        assert!(hub.poll_room(&mut context()).is_ready());
        assert!(hub.is_drained());
    }

    #[test]
    fn a_late_listener_of_a_job_hears_what_is_kept() {
        let hub = Arc::new(Hub::keeping(Arc::default()));
        assert!(hub.is_heard());
        hub.data(Source::Stdout, &Bytes::from_static(b"before"));
        let (starts, listener) = hub.listen_from([3, 0]).unwrap();
        hub.data(Source::Stdout, &Bytes::from_static(b" after"));
        assert_eq!((starts, hub.totals()), ([3, 0], [12, 0]));
        for wanted in ["ore", " after"] {
            assert!(
                matches!(listener.poll_next(&mut context()), Poll::Ready(Item::Data(Source::Stdout, b)) if b == wanted)
            );
        }
        assert!(listener.poll_next(&mut context()).is_pending());
        assert!(
            Arc::new(Hub::default()).listen_from([0, 0]).is_none(),
            "nobody keeps it"
        );
    }

    #[test]
    fn a_late_listener_hears_only_what_follows() {
        let hub = Arc::new(Hub::default());
        hub.data(Source::Pty, &Bytes::from_static(b"lost"));
        let listener = hub.listen();
        assert!(listener.poll_next(&mut context()).is_pending());
        hub.deadline(listener.id() + 1);
        assert!(listener.poll_next(&mut context()).is_pending(), "another's deadline");
        hub.deadline(listener.id());
        assert!(matches!(
            listener.poll_next(&mut context()),
            Poll::Ready(Item::Deadline)
        ));
    }
}
