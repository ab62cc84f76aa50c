//! What `SEND` and `SEND_ZC` cost for large sends, from registered memory and from other, and whether the
//! kernel copied in the end: `zero_copy [--to ADDR]`.
//!
//! Alone it is its own receiver, over loopback; `--receive ADDR` is a receiver for another one, on the
//! other end of a pair of interfaces (`scripts/measure/zero_copy.py`). Ratios are to `SEND` in the
//! same round; times are of the sending thread, which on loopback and over pairs of interfaces does the
//! receiving half of the kernel's work as well, and of the whole process.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{IsTerminal as _, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
};

use clap::Parser;
use uringcast_benches::{
    clock::{monotonic_ns, process_cpu_ns, thread_cpu_ns},
    table::Table,
};
use uringcast_ring::{
    pin::pin_current_thread,
    zero_copy::{Method, ZeroCopySender},
};

/// Sends much to a few sockets by `SEND` and by `SEND_ZC`, in turns.
#[derive(Debug, Parser)]
struct Flags {
    /// One send, bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20])]
    sizes: Vec<usize>,
    /// Sockets; each gets one send of every batch.
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Sent in each turn, MiB.
    #[arg(long, default_value_t = 64)]
    mebibytes: usize,
    /// Turns of each method with each size.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Keeps the sending thread on this CPU.
    #[arg(long)]
    cpu: Option<usize>,
    /// Keeps the receiving threads on this CPU.
    #[arg(long)]
    receiver_cpu: Option<usize>,
    /// Sends to a receiver there.
    #[arg(long)]
    to: Option<SocketAddr>,
    /// Only receives, there, until it is stopped.
    #[arg(long, conflicts_with = "to")]
    receive: Option<SocketAddr>,
    /// Prints every turn's figures as lines of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// What one turn took, for each MiB.
#[derive(Clone, Copy)]
struct Figures {
    thread_ns: f64,
    process_ns: f64,
    wall_ns: f64,
    /// Part of the zero-copy sends that the kernel copied all the same.
    copied: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let receiver_cpu = flags.receiver_cpu;
    if let Some(address) = flags.receive {
        return Ok(receive(&TcpListener::bind(address)?, receiver_cpu)?);
    }
    let to = match flags.to {
        Some(to) => to,
        None => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            thread::spawn(move || receive(&listener, receiver_cpu));
            address
        }
    };
    if let Some(cpu) = flags.cpu {
        pin_current_thread(cpu)?;
    }
    let size_max = flags.sizes.iter().copied().max().ok_or("--sizes: none; give one at least")?;
    let mut sender = ZeroCopySender::new(vec![b'x'; size_max], flags.connections)?;
    let sockets: Vec<_> =
        (0..flags.connections).map(|_| TcpStream::connect(to)).collect::<Result<_, _>>()?;
    for &size in &flags.sizes {
        let mut rounds = Vec::new();
        for round in 0..flags.rounds {
            if std::io::stderr().is_terminal() {
                eprint!("\r{size} B: round {} of {} ", round + 1, flags.rounds);
            }
            let mut of = METHODS.map(|_| None);
            for at in 0..METHODS.len() {
                // Backwards in every other round: what one leaves behind hits the others in turn.
                let at = if round % 2 == 0 { at } else { METHODS.len() - 1 - at };
                of[at] = Some(turn(&mut sender, METHODS[at].1, &sockets, size, &flags)?);
            }
            rounds.push(of.map(|figures| figures.expect("every method had its turn")));
        }
        show(size, &rounds, flags.json);
    }
    Ok(())
}

fn turn(
    sender: &mut ZeroCopySender,
    method: Method,
    sockets: &[TcpStream],
    size: usize,
    flags: &Flags,
) -> Result<Figures, Box<dyn Error>> {
    let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    // What came before has left the sockets, and windows are as wide as this method makes them.
    sender.send(method, &sockets, size)?;
    let batches = (flags.mebibytes << 20).div_ceil(size * sockets.len());
    let before = (thread_cpu_ns(), process_cpu_ns(), monotonic_ns());
    let (mut bytes, mut notifications, mut copied) = (0, 0, 0);
    for _ in 0..batches {
        let sent = sender.send(method, &sockets, size)?;
        bytes += sent.bytes;
        notifications += sent.notifications;
        copied += sent.copied;
    }
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    Ok(Figures {
        thread_ns: (thread_cpu_ns() - before.0) as f64 / mebibytes,
        process_ns: (process_cpu_ns() - before.1) as f64 / mebibytes,
        wall_ns: (monotonic_ns() - before.2) as f64 / mebibytes,
        copied: copied as f64 / f64::from(u32::try_from(notifications)?.max(1)),
    })
}

fn show(size: usize, rounds: &[[Figures; METHODS.len()]], json: bool) {
    if json {
        for (at, (name, _)) in METHODS.iter().enumerate() {
            for (round, of) in rounds.iter().enumerate() {
                let Figures { thread_ns, process_ns, wall_ns, copied } = of[at];
                println!(
                    r#"{{"bytes":{size},"method":"{name}","round":{round},"thread_ns_per_mib":{thread_ns:.0},"process_ns_per_mib":{process_ns:.0},"wall_ns_per_mib":{wall_ns:.0},"copied":{copied:.3}}}"#
                );
            }
        }
        return;
    }
    let head = ["", "thread µs/MiB", "x", "process µs/MiB", "x", "wall µs/MiB", "copied"];
    let mut table = Table::new(format!("sends of {size} B"), head);
    for (at, (name, _)) in METHODS.iter().enumerate() {
        let of =
            |figure: fn(&Figures) -> f64| median(rounds.iter().map(|round| figure(&round[at])));
        let ratio = |figure: fn(&Figures) -> f64| {
            median(rounds.iter().map(|round| figure(&round[at]) / figure(&round[0])))
        };
        table.row([
            (*name).to_owned(),
            format!("{:.1}", of(|figures| figures.thread_ns) / 1e3),
            format!("{:.3}", ratio(|figures| figures.thread_ns)),
            format!("{:.1}", of(|figures| figures.process_ns) / 1e3),
            format!("{:.3}", ratio(|figures| figures.process_ns)),
            format!("{:.1}", of(|figures| figures.wall_ns) / 1e3),
            format!("{:.0} %", of(|figures| figures.copied) * 100.0),
        ]);
    }
    println!("{table}");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Reads what comes on every connection and throws it away.
fn receive(listener: &TcpListener, cpu: Option<usize>) -> std::io::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            if let Some(cpu) = cpu {
                pin_current_thread(cpu)?;
            }
            let mut room = vec![0; 256 << 10];
            while stream.read(&mut room)? > 0 {}
            Ok::<_, std::io::Error>(())
        });
    }
    Ok(())
}

/// `SEND` first: the others are compared with it.
const METHODS: [(&str, Method); 3] = [
    ("SEND", Method::Copy),
    ("SEND_ZC", Method::ZeroCopy),
    ("SEND_ZC, registered", Method::ZeroCopyFixed),
];
