//! Says one byte on the socket that it is given, and waits for the end: a container's first sign of
//! life. Needs nothing but the C library, so that it runs in every image.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

fn main() -> io::Result<()> {
    let socket = std::env::args_os().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    let mut line = UnixStream::connect(socket)?;
    line.write_all(&[0])?;
    line.read_to_end(&mut Vec::new())?;
    Ok(())
}
