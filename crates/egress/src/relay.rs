//! Carrying bytes between a client inside and its target.

use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};

use crate::{
    limits,
    sandbox::{Grant, Sandbox},
    stream::{Activity, Io, Stream, Watched},
};

/// Carries bytes both ways until both sides ended, one failed, nothing moved for long, or the rules forbid it. `head` is
/// what the client said already.
pub(crate) async fn splice(sandbox: &Sandbox, client: Stream, upstream: impl Io, head: &[u8], grant: &Grant) {
    let activity = Activity::new();
    let mut client = Watched {
        inner: client,
        activity: activity.clone(),
    };
    let mut upstream = Watched {
        inner: upstream,
        activity: activity.clone(),
    };
    let carry = async {
        upstream.write_all(head).await?;
        copy_bidirectional_with_sizes(&mut client, &mut upstream, limits::BUFFER, limits::BUFFER).await
    };
    let clean = tokio::select! {
        done = carry => done.is_ok(),
        () = activity.idle(limits::IDLE) => false,
        () = sandbox.revoked(grant) => false,
    };
    if !clean {
        // A cut that looked like an end would be taken for the whole answer.
        client.reset();
        upstream.reset();
    }
}
