//! A broadcast server on tokio-tungstenite: two tasks a connection, the writing one flushes when nothing
//! more waits for it. Must not know how threads and queues are made.

use std::{collections::VecDeque, io::Result, sync::Arc};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use peer_broadcast::{PUBLISH, flags::Flags, hub::Hub, queue::Queue, threads};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};

/// Each connection's, for its whole life. The default of 128 KiB is for few connections that receive much.
const READ_BUFFER_BYTES: usize = 4096;

fn main() -> Result<()> {
    threads::run(&Flags::of_process(), serve)
}

async fn serve(listener: TcpListener, hub: Arc<Hub<Message>>) -> Result<()> {
    loop {
        let stream = threads::accept(&listener).await;
        tokio::spawn(connection(stream, Arc::clone(&hub)));
    }
}

async fn connection(stream: TcpStream, hub: Arc<Hub<Message>>) {
    let mut publishes = false;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let read_path =
        |request: &Request, response: Response| -> std::result::Result<Response, ErrorResponse> {
            publishes = request.uri().path().starts_with(PUBLISH);
            Ok(response)
        };
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let Ok(socket) = accept_hdr_async_with_config(stream, read_path, Some(config)).await else {
        return;
    };
    let (sink, messages) = socket.split();
    if publishes {
        publish(messages, &hub).await;
    } else {
        let queue = hub.subscribe();
        tokio::spawn(write(sink, queue.clone()));
        read(messages).await;
        queue.close();
    }
}

/// Pings are answered by the library, while it reads.
async fn read(mut messages: SplitStream<WebSocketStream<TcpStream>>) {
    while let Some(Ok(_)) = messages.next().await {}
}

async fn publish(mut messages: SplitStream<WebSocketStream<TcpStream>>, hub: &Hub<Message>) {
    while let Some(Ok(message)) = messages.next().await {
        if message.is_text() || message.is_binary() {
            hub.publish(&message);
        }
    }
}

async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    queue: Queue<Message>,
) -> std::result::Result<(), Error> {
    let mut batch = VecDeque::new();
    while queue.take(&mut batch).await {
        for message in batch.drain(..) {
            sink.feed(message).await?;
        }
        sink.flush().await?;
    }
    Ok(())
}
