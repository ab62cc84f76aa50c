//! Which of the kernel's means to use, and how much of its memory.
//!
//! Knows: the flags. Must not know: how they are used.

use clap::{Args, ValueEnum};

/// Part of what all commands share.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct KernelFlags {
    /// What is used of the kernel: all that it has, or no more than Linux 5.10 had, where connections
    /// are file descriptors, as many as `ulimit -n` allows, and receiving costs more
    #[arg(long, value_enum, default_value_t = KernelTier::Auto)]
    pub(crate) kernel_tier: KernelTier,
    /// Send buffer asked of the kernel for each publisher (it doubles that) [default: the kernel's, which
    /// grows to some MB]. What is in it counts as sent: the smaller it is, the sooner a server that
    /// does not read its publishers makes them late
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(2048..=1 << 30))]
    pub(crate) send_buffer: Option<u32>,
}

/// How much of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelTier {
    /// Whatever is found to work.
    Auto,
    /// What Linux 5.10 has.
    Base,
}
