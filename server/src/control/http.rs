//! The admin port's connections: how many, and for how long they may say nothing.
//!
//! Knows: sockets and HTTP/1.1 as a whole. Must not know: what is served.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tracing::{debug, warn};

/// Accepts and serves until dropped. When [`CONNECTIONS_MAX`] are open, the next waits in the
/// listener's backlog.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            unreachable!("nobody closes the semaphore");
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or the client was gone before we came: neither lasts.
                warn!(%error, "accepting on the admin port");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            serve_one(stream, router).await;
            drop(permit);
        });
    }
}

async fn serve_one(stream: TcpStream, router: Router) {
    let socket = socket2::SockRef::from(&stream);
    // A client that takes nothing of an answer would hold its place for ever.
    if let Err(error) =
        socket.set_tcp_user_timeout(Some(STALL_TIMEOUT)).and_then(|()| stream.set_nodelay(true))
    {
        return debug!(%error, "the client was gone before it was served");
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection on the admin port");
    }
}

/// Open at a time. With the largest bodies on all of them, 1 GiB.
const CONNECTIONS_MAX: usize = 128;
const HEAD_BYTES_MAX: usize = 32 << 10;
/// For a request's head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
