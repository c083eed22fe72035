//! Sends one byte to the given socket and waits for its end, to time a container's start. It needs
//! only the C library, so that it runs in every image.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

fn main() -> io::Result<()> {
    let socket = std::env::args_os().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    let mut line = UnixStream::connect(socket)?;
    line.write_all(&[0])?;
    line.read_to_end(&mut Vec::new())?;
    Ok(())
}
