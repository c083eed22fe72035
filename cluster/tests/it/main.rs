//! One process calls another, over real sockets.

#![cfg(test)]

mod peers;
mod test_support;
