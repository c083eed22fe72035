//! The shim as a process, with each adapter, seen from the invoker's side.

mod custom;
mod direct;
mod go;
mod init;
mod shell;
mod world;
