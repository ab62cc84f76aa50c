//! A minimal WebSocket broadcast server on ntex: what uringcast is compared with.
//!
//! One worker pinned to one core. A connection to a path that begins with `/pub` publishes: each of
//! its messages goes to all the others, in a `Bytes` that they share. No topics, no bounds.
//!
//! `peer-ntex --port 9101 --cpu 0`

use std::{
    cell::RefCell,
    env,
    io::{Error, ErrorKind, Result},
};

use ntex::{
    service::{fn_factory_with_config, fn_service},
    util::{ByteString, Bytes},
    web::{self, App, HttpRequest, HttpResponse, HttpServer, ws},
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

thread_local! {
    /// Of the one worker.
    static SUBSCRIBERS: RefCell<Vec<ws::WsSink>> = const { RefCell::new(Vec::new()) };
}

#[ntex::main]
async fn main() -> Result<()> {
    let (port, cpu) = arguments()?;
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    // Before the runtime makes threads: they inherit it.
    sched_setaffinity(None, &cpus)?;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;

    let server = HttpServer::new(async || {
        App::new()
            .service(web::resource("/pub{rest}*").to(publish))
            .service(web::resource("/{path}*").to(subscribe))
    })
    .workers(1)
    .backlog(4096)
    .maxconn(1 << 20)
    .bind(("127.0.0.1", port))?;
    println!("listening on 127.0.0.1:{port}");
    server.run().await
}

async fn subscribe(request: HttpRequest) -> std::result::Result<HttpResponse, web::Error> {
    ws::start::<_, _, &str, web::Error>(
        request,
        None,
        fn_factory_with_config(async |sink: ws::WsSink| {
            SUBSCRIBERS.with_borrow_mut(|subscribers| subscribers.push(sink));
            Ok::<_, web::Error>(fn_service(async |frame| Ok::<_, Error>(answer(frame))))
        }),
    )
    .await
}

async fn publish(request: HttpRequest) -> std::result::Result<HttpResponse, web::Error> {
    ws::start::<_, _, &str, web::Error>(
        request,
        None,
        fn_factory_with_config(async |_sink: ws::WsSink| {
            Ok::<_, web::Error>(fn_service(async |frame| {
                Ok::<_, Error>(match frame {
                    ws::Frame::Text(text) => {
                        broadcast(&ws::Message::Text(text_of(text)?));
                        None
                    }
                    ws::Frame::Binary(bytes) => {
                        broadcast(&ws::Message::Binary(bytes));
                        None
                    }
                    other => answer(other),
                })
            }))
        }),
    )
    .await
}

/// A clone of the message to each: the payload is shared.
fn broadcast(message: &ws::Message) {
    SUBSCRIBERS.with_borrow_mut(|subscribers| {
        subscribers.retain(|sink| {
            let open = !sink.io().is_closed();
            if open {
                // Encoding into the connection's buffer happens at once; the future is its result.
                drop(sink.send(message.clone()));
            }
            open
        });
    });
}

fn answer(frame: ws::Frame) -> Option<ws::Message> {
    match frame {
        ws::Frame::Ping(payload) => Some(ws::Message::Pong(payload)),
        ws::Frame::Close(reason) => Some(ws::Message::Close(reason)),
        _ => None,
    }
}

fn text_of(bytes: Bytes) -> Result<ByteString> {
    ByteString::try_from(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "text not UTF-8"))
}

fn arguments() -> Result<(u16, usize)> {
    let usage = || Error::new(ErrorKind::InvalidInput, "peer-ntex --port PORT [--cpu CPU]");
    let (mut port, mut cpu) = (None, 0);
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(usage)?;
        match name.as_str() {
            "--port" => port = Some(value.parse().map_err(|_| usage())?),
            "--cpu" => cpu = value.parse().map_err(|_| usage())?,
            _ => return Err(usage()),
        }
    }
    Ok((port.ok_or_else(usage)?, cpu))
}
