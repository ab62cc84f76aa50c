//! Whether the kernel has what the modern tier needs.
//!
//! Knows: features and opcodes with their kernel versions. Must not know: kernel version strings,
//! which distributions' backports make lie.

use io_uring::{IoUring, Probe, opcode};

use crate::error::RingError;

/// Looks at features first, then at opcodes; names the first one missing.
pub(crate) fn check(uring: &IoUring) -> Result<(), RingError> {
    let parameters = uring.params();
    let features = [
        (parameters.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (parameters.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL"),
        (parameters.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
        (parameters.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP"),
    ];
    let mut probe = Probe::new();
    // Linux 5.6; a kernel that refuses it has none of the opcodes.
    uring.submitter().register_probe(&mut probe).map_err(RingError::system("io_uring probe"))?;
    let opcodes = [
        (opcode::Accept::CODE, "IORING_OP_ACCEPT"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
        (opcode::Close::CODE, "IORING_OP_CLOSE"),
        (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::Recv::CODE, "IORING_OP_RECV"),
        (opcode::Send::CODE, "IORING_OP_SEND"),
        // Not used here. It came with 6.1, as did the repair that keeps the count of a short send,
        // which nothing announces.
        (opcode::SendMsgZc::CODE, "IORING_OP_SENDMSG_ZC"),
    ];
    let opcodes = opcodes.map(|(code, name)| (probe.is_supported(code), name));
    match features.into_iter().chain(opcodes).find(|(there, _)| !there) {
        Some((_, missing)) => Err(RingError::KernelTooOld { missing }),
        None => Ok(()),
    }
}
