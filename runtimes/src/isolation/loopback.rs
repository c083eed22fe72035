//! Brings `lo` up in a new network namespace with one rtnetlink(7) message.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const IFF_UP: u32 = 1;
/// `lo` is the first interface of every namespace.
const LO: u32 = 1;
const MESSAGE_LEN: usize = 32;
/// The errno in the kernel's reply: it follows the header of 16 bytes.
const ERRNO_AT: std::ops::Range<usize> = 16..20;

/// Returns once the kernel has confirmed it.
pub(super) fn up() -> io::Result<()> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    sendto(kernel.as_raw_fd(), &message(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 256];
    let len = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    check_reply(answer.get(..len).unwrap_or_default())
}

/// `struct nlmsghdr`, then `struct ifinfomsg` with the flag to set and its mask.
fn message() -> [u8; MESSAGE_LEN] {
    let mut bytes = Vec::with_capacity(MESSAGE_LEN);
    bytes.extend_from_slice(&32u32.to_ne_bytes());
    bytes.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    // Sequence number and port id: unused, since there is one request and one reply.
    bytes.extend_from_slice(&[0; 8]);
    // Family and device type: unspecified.
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&LO.to_ne_bytes());
    bytes.extend_from_slice(&IFF_UP.to_ne_bytes());
    bytes.extend_from_slice(&IFF_UP.to_ne_bytes());
    bytes.try_into().unwrap_or([0; MESSAGE_LEN])
}

/// The kernel acknowledges with an error message; errno 0 means success.
fn check_reply(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
    let errno = answer.get(ERRNO_AT).and_then(|four| four.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, errno) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(errno)) => Err(Errno::from_raw(-errno).into()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_as_long_as_it_says() {
        let bytes = message();
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), 32);
        assert_eq!(bytes[20..24], LO.to_ne_bytes());
    }

    #[test]
    fn the_kernels_refusal_is_an_error_and_its_zero_is_none() {
        let mut answer = [0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(check_reply(&answer).is_ok());
        answer[ERRNO_AT].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(check_reply(&answer).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(check_reply(&answer[..10]).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
