//! Takes messages in on fastwebsockets: hyper's upgrade, one task a connection, a `FragmentCollector`, as
//! its echo example does. A payload is copied into the topic's buffer, which is there already: its own
//! lies in the connection's read buffer.

#![forbid(unsafe_code)]

use std::{cell::RefCell, convert::Infallible, io::Result, rc::Rc};

use fastwebsockets::{
    FragmentCollector, OpCode,
    upgrade::{UpgradeFut, is_upgrade_request, upgrade},
};
use http_body_util::Empty;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use peer_ingest::{Table, run};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local, unconstrained},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Messages = Rc<RefCell<Table<Vec<u8>>>>;

fn main() -> Result<()> {
    run(|listener| async move { LocalSet::new().run_until(serve(listener)).await })
}

async fn serve(listener: TcpListener) -> Result<()> {
    let messages = Messages::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(upgrade_one(stream, Rc::clone(&messages)));
    }
}

async fn upgrade_one(stream: TcpStream, messages: Messages) {
    let answer = async |mut request: Request<Incoming>| {
        if !is_upgrade_request(&request) {
            return Ok::<_, Infallible>(refusal());
        }
        let topic = request.uri().path().to_owned();
        Ok(match upgrade(&mut request) {
            Ok((response, socket)) => {
                // Its example does without tokio's budget as well.
                spawn_local(unconstrained(take(socket, topic, Rc::clone(&messages))));
                response
            }
            Err(_) => refusal(),
        })
    };
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    // Who hangs up in the middle of a request is no concern of this server's.
    let _ = served.with_upgrades().await;
}

async fn take(socket: UpgradeFut, topic: String, messages: Messages) {
    let Ok(socket) = socket.await else { return };
    let mut socket = FragmentCollector::new(socket);
    while let Ok(frame) = socket.read_frame().await {
        match frame.opcode {
            OpCode::Text | OpCode::Binary => {
                messages.borrow_mut().copy(&topic, &frame.payload);
            }
            OpCode::Close => break,
            // Pings are answered by the library.
            OpCode::Continuation | OpCode::Ping | OpCode::Pong => {}
        }
    }
}

fn refusal() -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
