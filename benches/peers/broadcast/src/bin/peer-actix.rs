//! A broadcast server on actix-web and actix-http's WebSocket codec, which actix-ws wraps. Must not know how
//! queues are made.
//!
//! actix-ws has a queue of 32 messages for each connection, behind which a broadcast waits, and encodes a
//! message for each. Here the body of the answer is a queue without a bound, of frames encoded once.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    io::Result,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use actix_codec::{Decoder, Encoder};
use actix_http::{
    body::BodyStream,
    ws::{self, Codec, Frame, Message},
};
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, error, rt,
    web::{self, Bytes, BytesMut, Payload},
};
use futures_util::{Stream, StreamExt, stream::poll_fn};
use peer_broadcast::{
    PUBLISH,
    flags::Flags,
    hub::Hub,
    queue::Queue,
    threads::{BACKLOG, pin, raise_descriptors},
};

thread_local! {
    /// The worker's.
    static HUB: OnceCell<Arc<Hub<Bytes>>> = const { OnceCell::new() };
}

fn main() -> Result<()> {
    let flags = Flags::of_process();
    raise_descriptors()?;
    // Before the runtime makes threads: they inherit it. The one that accepts may stay where it is free.
    pin(&flags.cpus)?;
    rt::System::new().block_on(serve(flags))
}

async fn serve(flags: Flags) -> Result<()> {
    let (workers, port) = (flags.cpus.len(), flags.port);
    let hubs = Hub::all(workers).into_iter().map(Some).collect::<Vec<_>>();
    let hubs = Arc::new(Mutex::new(hubs));
    let begun = Arc::new(AtomicUsize::new(0));
    let server = HttpServer::new(move || {
        // Each worker calls this once, on its own thread.
        let own = begun.fetch_add(1, Ordering::Relaxed);
        pin(&[flags.cpus[own]]).expect("a processor that exists");
        let (hub, from_others) = hubs.lock().expect("no panic")[own].take().expect("one for each");
        rt::spawn(Arc::clone(&hub).deliver_from(from_others));
        HUB.with(|cell| cell.set(hub).ok().expect("one worker a thread"));
        App::new().default_service(web::to(upgrade))
    })
    .workers(workers)
    .worker_max_blocking_threads(1)
    .max_connections(1 << 20)
    .backlog(BACKLOG)
    .bind(("127.0.0.1", port))?
    .run();
    println!("listening on 127.0.0.1:{port}");
    server.await
}

async fn upgrade(request: HttpRequest, payload: Payload) -> actix_web::Result<HttpResponse> {
    let mut response = ws::handshake(request.head())?;
    let hub = HUB.with(|cell| Arc::clone(cell.get().expect("set before the first request")));
    let publishes = request.path().starts_with(PUBLISH);
    let queue = if publishes { Queue::new() } else { hub.subscribe() };
    let body = response.message_body(BodyStream::new(frames(queue.clone())))?;
    rt::spawn(async move {
        // Who breaks the protocol is left, as is who closes.
        drop(read(payload, &queue, publishes.then_some(&*hub)).await);
        queue.close();
    });
    Ok(HttpResponse::from(body.map_into_boxed_body()))
}

/// What waits for a connection, as its body.
fn frames(queue: Queue<Bytes>) -> impl Stream<Item = Result<Bytes>> {
    let mut batch = VecDeque::new();
    poll_fn(move |context| {
        if batch.is_empty() {
            match queue.poll_take(context, &mut batch) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(batch.pop_front().map(Ok))
    })
}

/// Until the close; what publishers send goes to `hub`.
async fn read(
    mut payload: Payload,
    queue: &Queue<Bytes>,
    hub: Option<&Hub<Bytes>>,
) -> actix_web::Result<()> {
    let mut codec = Codec::new().max_size(1 << 24);
    let mut buffer = BytesMut::new();
    while let Some(bytes) = payload.next().await {
        buffer.extend_from_slice(&bytes?);
        while let Some(frame) = codec.decode(&mut buffer).map_err(error::ErrorBadRequest)? {
            let text = matches!(frame, Frame::Text(_));
            match frame {
                Frame::Text(bytes) | Frame::Binary(bytes) => {
                    if let Some(hub) = hub {
                        hub.publish(&encoded(message(text, bytes)?));
                    }
                }
                Frame::Ping(bytes) => _ = queue.push(encoded(Message::Pong(bytes))),
                Frame::Close(reason) => {
                    queue.push(encoded(Message::Close(reason)));
                    return Ok(());
                }
                Frame::Pong(_) | Frame::Continuation(_) => {}
            }
        }
    }
    Ok(())
}

fn message(text: bool, bytes: Bytes) -> actix_web::Result<Message> {
    if !text {
        return Ok(Message::Binary(bytes));
    }
    Ok(Message::Text(bytes.try_into().map_err(error::ErrorBadRequest)?))
}

fn encoded(message: Message) -> Bytes {
    let mut frame = BytesMut::new();
    let encoding = Codec::new().encode(message, &mut frame);
    encoding.expect("a whole message after none");
    frame.freeze()
}
