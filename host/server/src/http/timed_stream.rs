//! A client's socket with bounds on the client's slowness: a head arrives within a time, and what is written is taken.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection_state::ConnectionState;

/// Bytes that the system keeps for a client and has not sent. More would not be faster, and hide that a slow client reads.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// The times that clients have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTimeouts {
    /// Time from the first byte of a head until it is complete.
    pub(crate) head: Duration,
    /// Time from the opening of a connection, or the end of its last request, until the next head is complete.
    pub(crate) idle: Duration,
    /// Time in which a client takes some of what is written to it.
    pub(crate) write: Duration,
}

/// A client's socket.
pub(crate) struct TimedStream {
    stream: TcpStream,
    state: Arc<ConnectionState>,
    timeouts: ClientTimeouts,
    /// Runs while a part of a head is there.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    /// Puts the bounds around a socket.
    pub(crate) fn new(stream: TcpStream, state: Arc<ConnectionState>, timeouts: ClientTimeouts) -> TimedStream {
        // If the system refuses, slow clients are told from silent ones a little later.
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        TimedStream { stream, state, timeouts, head: None, blocked: None }
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let timeout = self.timeouts.write;
        let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(blocked.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client takes no bytes")))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if read.is_ready() {
            if into.filled().len() > before {
                self.state.received();
            }
            return read;
        }
        match self.state.head_since() {
            None => {
                self.head = None;
                Poll::Pending
            }
            Some(since) => {
                let until = since + self.timeouts.head;
                let head = self.head.get_or_insert_with(|| Box::pin(sleep_until(until)));
                if head.deadline() != until {
                    head.as_mut().reset(until);
                }
                ready!(head.as_mut().poll(cx));
                Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the head of a request is too slow")))
            }
        }
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Is called when everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.state.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
