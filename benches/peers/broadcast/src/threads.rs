//! One single-threaded runtime for each processor, pinned to it, with a listener of its own on the shared
//! port. Must not know what is served.

use std::{
    io::Result,
    net::{Ipv4Addr, SocketAddr},
    process,
    sync::{Arc, Barrier},
    thread,
};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime,
};

use crate::{flags::Flags, hub::Hub};

/// How many connections may wait to be accepted.
pub const BACKLOG: u32 = 4096;

/// Serves on every thread; what ends one of them ends the process.
pub fn run<T, S>(flags: &Flags, serve: impl Fn(TcpListener, Arc<Hub<T>>) -> S + Sync) -> Result<()>
where
    T: Clone + Send + 'static,
    S: Future<Output = Result<()>>,
{
    raise_descriptors()?;
    let threads = flags.cpus.len();
    let all_listen = Barrier::new(threads + 1);
    thread::scope(|scope| {
        for (&cpu, (hub, from_others)) in flags.cpus.iter().zip(Hub::all(threads)) {
            let (serve, all_listen) = (&serve, &all_listen);
            scope.spawn(move || {
                let serve_here = async || {
                    let listener = listen(flags.port, threads > 1)?;
                    all_listen.wait();
                    tokio::spawn(Arc::clone(&hub).deliver_from(from_others));
                    serve(listener, hub).await
                };
                if let Err(error) = block_on(cpu, serve_here()) {
                    eprintln!("processor {cpu}, port {}: {error}", flags.port);
                    process::exit(1);
                }
            });
        }
        all_listen.wait();
        println!("listening on 127.0.0.1:{}", flags.port);
    });
    Ok(())
}

fn block_on(cpu: usize, serve: impl Future<Output = Result<()>>) -> Result<()> {
    pin(&[cpu])?;
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve)
}

/// The next connection, without Nagle's delay. What fails with one connection concerns no other.
pub async fn accept(listener: &TcpListener) -> tokio::net::TcpStream {
    loop {
        if let Ok((stream, _)) = listener.accept().await
            && stream.set_nodelay(true).is_ok()
        {
            return stream;
        }
        tokio::task::yield_now().await;
    }
}

fn listen(port: u16, shared: bool) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

/// The calling thread, and those that it begins.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// As many descriptors as the process may have.
pub fn raise_descriptors() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
