//! A broadcast server on fastwebsockets: two tasks a connection, the writing one over a buffer that it
//! flushes when nothing more waits for it. Must not know how threads and queues are made.

use std::{collections::VecDeque, convert::Infallible, future::ready, io::Cursor, sync::Arc};

use bytes::Bytes;
use fastwebsockets::{
    FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead,
    WebSocketWrite, after_handshake_split,
    upgrade::{self, UpgradeFut},
};
use http_body_util::Empty;
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use peer_broadcast::{PUBLISH, flags::Flags, hub::Hub, queue::Queue, threads};
use tokio::{
    io::{AsyncReadExt, BufWriter, Chain},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A frame to write, its payload shared.
type Message = (OpCode, Bytes);
/// What came with the handshake, then the socket.
type Input = Chain<Cursor<Bytes>, OwnedReadHalf>;

/// The library writes each frame with a call of its own, so many to be written at once need a buffer.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

fn main() -> std::io::Result<()> {
    threads::run(&Flags::of_process(), serve)
}

async fn serve(listener: TcpListener, hub: Arc<Hub<Message>>) -> std::io::Result<()> {
    loop {
        let stream = threads::accept(&listener).await;
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            let answer = service_fn(move |request| ready(answer(request, &hub)));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            // Who sends no proper request is gone.
            drop(connection.with_upgrades().await);
        });
    }
}

fn answer(
    mut request: Request<Incoming>,
    hub: &Arc<Hub<Message>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let publishes = request.uri().path().starts_with(PUBLISH);
    let Ok((response, upgraded)) = upgrade::upgrade(&mut request) else {
        let mut refusal = Response::new(Empty::new());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refusal);
    };
    tokio::spawn(connection(upgraded, publishes, Arc::clone(hub)));
    Ok(response)
}

async fn connection(upgraded: UpgradeFut, publishes: bool, hub: Arc<Hub<Message>>) {
    let Ok(socket) = upgraded.await else { return };
    // hyper's box about the socket is left behind: halves of a TcpStream need no lock.
    let Ok(parts) = socket.into_inner().into_inner().downcast::<TokioIo<TcpStream>>() else {
        return;
    };
    let (read_half, write_half) = parts.io.into_inner().into_split();
    let (input, output) = after_handshake_split(
        Cursor::new(parts.read_buf).chain(read_half),
        BufWriter::with_capacity(WRITE_BUFFER_BYTES, write_half),
        Role::Server,
    );
    let queue = if publishes { Queue::new() } else { hub.subscribe() };
    tokio::spawn(write(output, queue.clone()));
    if publishes {
        drop(publish(input, &queue, &hub).await);
    } else {
        drop(read(input, &queue).await);
    }
    queue.close();
}

/// Until the close; what the protocol makes us answer goes into the queue.
async fn read(
    mut input: WebSocketRead<Input>,
    queue: &Queue<Message>,
) -> Result<(), WebSocketError> {
    let mut answer = |frame| ready(enqueue(frame, queue));
    while input.read_frame(&mut answer).await?.opcode != OpCode::Close {}
    Ok(())
}

async fn publish(
    input: WebSocketRead<Input>,
    queue: &Queue<Message>,
    hub: &Hub<Message>,
) -> Result<(), WebSocketError> {
    let mut input = FragmentCollectorRead::new(input);
    let mut answer = |frame| ready(enqueue(frame, queue));
    loop {
        let frame = input.read_frame(&mut answer).await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => hub.publish(&message(frame)),
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}

/// For the writing task. That it has ended already is no error here: reading ends by itself.
fn enqueue(frame: Frame<'_>, queue: &Queue<Message>) -> Result<(), WebSocketError> {
    queue.push(message(frame));
    Ok(())
}

fn message(frame: Frame<'_>) -> Message {
    let payload = match frame.payload {
        Payload::Bytes(bytes) => bytes.freeze(),
        other => Bytes::copy_from_slice(&other),
    };
    (frame.opcode, payload)
}

async fn write(
    mut output: WebSocketWrite<BufWriter<OwnedWriteHalf>>,
    queue: Queue<Message>,
) -> Result<(), WebSocketError> {
    let mut batch = VecDeque::new();
    while queue.take(&mut batch).await {
        for (opcode, payload) in &batch {
            let frame = Frame::new(true, *opcode, None, Payload::Borrowed(payload));
            output.write_frame(frame).await?;
        }
        batch.clear();
        output.flush().await?;
    }
    Ok(())
}
