//! The programs of this crate as one: `isolate` by name, else the shim. What the tests of this
//! crate and of the invoker start and install.

fn main() -> std::process::ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "isolate") {
        return hanshu_runtimes::isolation::main();
    }
    hanshu_runtimes::shim::main()
}
