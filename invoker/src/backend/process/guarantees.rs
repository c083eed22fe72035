//! What a process sandbox holds on this host, and what it does not. Pure: a table of facts.

use crate::backend::guarantee::{GuaranteeLevel, SandboxGuarantee};

/// What decides.
#[derive(Clone, Debug)]
pub(super) struct ProcessHostCapabilities {
    /// Whether the server is root.
    pub(super) root: bool,
    /// Whether control groups can be made.
    pub(super) groups: bool,
    /// Why `/tmp` is memory, if it is.
    pub(super) tmp_refused: Option<String>,
}

const KERNEL: &str = "walls of namespaces only, without a filter of system calls: for one's own \
                      functions";
const ONE_USER: &str = "not root: all sandboxes have the server's user; they cannot see each \
                        other's processes and files";
const NO_GROUP: &str = "no control group can be made";

/// The table, in the order of ARCHITECTURE.md.
pub(super) fn table(facts: &ProcessHostCapabilities) -> Vec<SandboxGuarantee> {
    let grouped = |what, without: GuaranteeLevel, reason: &str| {
        if facts.groups {
            SandboxGuarantee::held(what)
        } else {
            SandboxGuarantee { what, held: without, reason: format!("{NO_GROUP}: {reason}") }
        }
    };
    vec![
        SandboxGuarantee::partly("hostile code is kept in", KERNEL),
        if facts.root {
            SandboxGuarantee::held("own user per sandbox")
        } else {
            SandboxGuarantee::no("own user per sandbox", ONE_USER)
        },
        SandboxGuarantee::held("no capabilities, no new privileges"),
        SandboxGuarantee::held("read-only root without the host's files"),
        SandboxGuarantee::held("sees its own processes only"),
        grouped(
            "memory limit",
            GuaranteeLevel::Partly,
            "each process is bounded, 256 MB above the limit",
        ),
        grouped(
            "limit of processes",
            GuaranteeLevel::Held,
            "the kernel counts per sandbox (Linux 5.14)",
        ),
        SandboxGuarantee::held("limit of open files"),
        grouped("fair share of the processor", GuaranteeLevel::No, "all share alike"),
        grouped("freezing when idle", GuaranteeLevel::No, "idle sandboxes may run on"),
        match &facts.tmp_refused {
            None => SandboxGuarantee::held("512 MB of /tmp beside memory"),
            Some(reason) => SandboxGuarantee::partly(
                "512 MB of /tmp beside memory",
                format!("64 MB, counted as memory: {reason}"),
            ),
        },
        SandboxGuarantee::held("network = false"),
        SandboxGuarantee::no(
            "network without the host's services",
            "network = true shares the host's network, its own services included; Go and custom \
             runtimes have a loopback of their own only",
        ),
        if facts.groups {
            SandboxGuarantee::held("nothing is left behind")
        } else {
            SandboxGuarantee::partly(
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

    fn check(facts: &ProcessHostCapabilities, weak: &[&str]) {
        let table = table(facts);
        let found: Vec<_> = table
            .iter()
            .filter(|row| row.held != GuaranteeLevel::Held)
            .map(|row| row.what)
            .collect();
        assert_eq!(found, weak);
        assert!(
            table.iter().all(|row| (row.held == GuaranteeLevel::Held) == row.reason.is_empty()
                || row.held == GuaranteeLevel::Held)
        );
    }

    #[test]
    fn root_with_groups_lacks_the_network_and_the_filter_only() {
        let facts = ProcessHostCapabilities { root: true, groups: true, tmp_refused: None };
        check(&facts, &["hostile code is kept in", "network without the host's services"]);
    }

    #[test]
    fn a_user_is_told_of_everything_that_is_missing() {
        let refused = Some("only root may mount file systems".to_owned());
        let facts = ProcessHostCapabilities { root: false, groups: false, tmp_refused: refused };
        check(
            &facts,
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
