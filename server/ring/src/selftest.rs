//! What this kernel does, where nothing announces it.
//!
//! Knows: the one short send, and the one close, that settle it. Must not know: what depends on the
//! answers.
//!
//! **Sends without a completion each.** A short send that posts no completion would lose bytes in
//! silence (so it is on every kernel without `MSG_WAITALL`, and before 6.1 sometimes with it), and no
//! flag announces that it does not.
//!
//! **Closing a slot.** Before Linux 6.13 the table lets go of what was in a slot only when everything
//! that was in flight before has ended, on whatever slot.

use std::{
    io::Read as _,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use io_uring::{opcode, squeue, types};
use socket2::SockRef;

use crate::{
    error::{Errno, RingError},
    queue::Queues,
    tag::{Kind, Tag},
};

/// Sends a little, which must fit and post nothing, then too much, which must post what was taken.
pub(crate) fn skip_is_sound(queues: &mut Queues) -> Result<bool, RingError> {
    let (ours, _theirs) = UnixStream::pair().map_err(RingError::system("socketpair"))?;
    SockRef::from(&ours)
        .set_send_buffer_size(SEND_BUFFER_BYTES)
        .map_err(RingError::system("setsockopt(SO_SNDBUF)"))?;
    let bytes = vec![0; PROBE_BYTES];
    let answer = |result: Option<i32>| match result {
        // Neither nothing nor everything.
        Some(taken) => taken > 0 && (taken as usize) < PROBE_BYTES,
        None => false,
    };
    let little = send(queues, &ours, &bytes[..1])?;
    let much = send(queues, &ours, &bytes)?;
    let full = send(queues, &ours, &bytes)?;
    Ok(little.is_none() && answer(much) && full == Some(-libc::EAGAIN))
}

/// Closes a slot while a poll of another is armed, and looks whether the peer hears of it. The kernel
/// must be one that closes slots: another would close descriptor 0.
pub(crate) fn close_is_prompt(queues: &mut Queues) -> Result<bool, RingError> {
    let pair = || UnixStream::pair().map_err(RingError::system("socketpair"));
    let ((ours, mut theirs), (idle, idle_peer)) = (pair()?, pair()?);
    theirs.set_nonblocking(true).map_err(RingError::system("ioctl(FIONBIO)"))?;
    let submitter = queues.uring.submitter();
    submitter.register_files_sparse(2).map_err(RingError::system("io_uring_register(FILES2)"))?;
    submitter
        .register_files_update(0, &[ours.as_raw_fd(), idle.as_raw_fd()])
        .map_err(RingError::system("io_uring_register(FILES_UPDATE)"))?;
    drop(ours);
    let tag = Tag::index(Kind::Ignored, 0).bits();
    let poll = opcode::PollAdd::new(types::Fixed(1), libc::POLLIN as u32).build();
    let close = opcode::Close::new(types::Fixed(0)).build();
    for entry in [poll, close] {
        // SAFETY: points to nothing.
        unsafe { queues.push(entry.user_data(tag)) };
    }
    queues.submit_all(&mut Vec::new())?;
    let closed = theirs.read(&mut [0]).is_ok_and(|bytes| bytes == 0);
    // The poll ends with its socket's peer.
    drop(idle_peer);
    Ok(closed)
}

/// One send as in a batch; the result of its completion, if it posts one.
fn send(queues: &mut Queues, socket: &UnixStream, bytes: &[u8]) -> Result<Option<i32>, RingError> {
    let entry =
        opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag::index(Kind::Ignored, 0).bits());
    // SAFETY: MSG_DONTWAIT: it is over when the enter below returns, or the process ends.
    unsafe { queues.push(entry) };
    while queues.queued() > 0 {
        match queues.enter(0, true, None) {
            Ok(_) | Err(Errno(libc::EINTR)) => {}
            // The entry would still point to our bytes.
            Err(errno) => crate::send::abort(errno),
        }
    }
    let mut result = None;
    queues.reap(|raw| result = Some(raw.result));
    Ok(result)
}

/// What the socket's buffer takes; the kernel doubles it.
const SEND_BUFFER_BYTES: usize = 16 << 10;
/// Much more than that.
const PROBE_BYTES: usize = 256 << 10;
