//! What a process sandbox guarantees on this host. Pure: a table from what the host allows.

use crate::backend::guarantee::{GuaranteeLevel, SandboxGuarantee};

/// What this host allows.
#[derive(Clone, Debug)]
pub(super) struct ProcessHostCapabilities {
    /// The server is root.
    pub(super) root: bool,
    /// Control groups can be made.
    pub(super) cgroups: bool,
    /// Why `/tmp` is memory, if it is.
    pub(super) tmp_refused: Option<String>,
}

const KERNEL: &str = "isolated by namespaces only, without a system call filter: for one's own \
                      functions";
const ONE_USER: &str = "not root: all sandboxes have the server's user; they cannot see each \
                        other's processes and files";
const NO_GROUP: &str = "no control group can be made";

/// The table, in the order of ARCHITECTURE.md.
pub(super) fn table(host: &ProcessHostCapabilities) -> Vec<SandboxGuarantee> {
    let grouped = |what, without: GuaranteeLevel, reason: &str| {
        if host.cgroups {
            SandboxGuarantee::full(what)
        } else {
            SandboxGuarantee { what, level: without, reason: format!("{NO_GROUP}: {reason}") }
        }
    };
    vec![
        SandboxGuarantee::partial("hostile code is kept in", KERNEL),
        if host.root {
            SandboxGuarantee::full("own user per sandbox")
        } else {
            SandboxGuarantee::none("own user per sandbox", ONE_USER)
        },
        SandboxGuarantee::full("no capabilities, no new privileges"),
        SandboxGuarantee::full("read-only root without the host's files"),
        SandboxGuarantee::full("sees its own processes only"),
        grouped(
            "memory limit",
            GuaranteeLevel::Partial,
            "each process is bounded, 256 MB above the limit",
        ),
        grouped(
            "limit of processes",
            GuaranteeLevel::Full,
            "the kernel counts per sandbox (Linux 5.14)",
        ),
        SandboxGuarantee::full("limit of open files"),
        grouped("fair share of the processor", GuaranteeLevel::None, "all share alike"),
        grouped("freezing when idle", GuaranteeLevel::None, "idle sandboxes may run on"),
        match &host.tmp_refused {
            None => SandboxGuarantee::full("512 MB of /tmp beside memory"),
            Some(reason) => SandboxGuarantee::partial(
                "512 MB of /tmp beside memory",
                format!("64 MB, counted as memory: {reason}"),
            ),
        },
        SandboxGuarantee::full("network = false"),
        SandboxGuarantee::none(
            "network without the host's services",
            "network = true shares the host's network, its own services included; Go and custom \
             runtimes have a loopback of their own only",
        ),
        if host.cgroups {
            SandboxGuarantee::full("nothing is left behind")
        } else {
            SandboxGuarantee::partial(
                "nothing is left behind",
                "no control group: a sandbox ends with its first process, which ends when its \
                 server does",
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &ProcessHostCapabilities, weak: &[&str]) {
        let table = table(host);
        let found: Vec<_> = table
            .iter()
            .filter(|row| row.level != GuaranteeLevel::Full)
            .map(|row| row.what)
            .collect();
        assert_eq!(found, weak);
        assert!(
            table.iter().all(|row| (row.level == GuaranteeLevel::Full) == row.reason.is_empty()
                || row.level == GuaranteeLevel::Full)
        );
    }

    #[test]
    fn root_with_cgroups_lacks_only_the_network_and_the_system_call_filter() {
        let host = ProcessHostCapabilities { root: true, cgroups: true, tmp_refused: None };
        check(&host, &["hostile code is kept in", "network without the host's services"]);
    }

    #[test]
    fn a_user_is_told_of_everything_that_is_missing() {
        let refused = Some("only root may mount file systems".to_owned());
        let host = ProcessHostCapabilities { root: false, cgroups: false, tmp_refused: refused };
        check(
            &host,
            &[
                "hostile code is kept in",
                "own user per sandbox",
                "memory limit",
                "fair share of the processor",
                "freezing when idle",
                "512 MB of /tmp beside memory",
                "network without the host's services",
                "nothing is left behind",
            ],
        );
    }
}
