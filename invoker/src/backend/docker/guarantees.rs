//! What a container holds on this host, and what it does not. Pure: a table of facts.

use crate::backend::guarantee::SandboxGuarantee;

/// What decides.
#[derive(Clone, Debug)]
pub(super) struct DockerHostCapabilities {
    /// Whether the control groups of containers can be written to.
    pub(super) groups: bool,
    /// Why there are no firewall rules, if there are none.
    pub(super) firewall_refused: Option<String>,
    /// Why `/tmp` is memory, if it is.
    pub(super) tmp_refused: Option<String>,
    /// Whether the server is root.
    pub(super) root: bool,
}

const ONE_USER: &str = "not root: sandboxes have the server's user, each in a container of its own";
const NO_GROUP: &str = "the control groups of containers are out of reach";

/// The table, in the order of ARCHITECTURE.md.
pub(super) fn table(facts: &DockerHostCapabilities) -> Vec<SandboxGuarantee> {
    vec![
        SandboxGuarantee::held("hostile code is kept in"),
        if facts.root {
            SandboxGuarantee::held("own user per sandbox")
        } else {
            SandboxGuarantee::partly("own user per sandbox", ONE_USER)
        },
        SandboxGuarantee::held("no capabilities, no new privileges"),
        SandboxGuarantee::held("read-only root without the host's files"),
        SandboxGuarantee::held("sees its own processes only"),
        SandboxGuarantee::held("memory limit"),
        SandboxGuarantee::held("limit of processes"),
        SandboxGuarantee::held("limit of open files"),
        SandboxGuarantee::held("fair share of the processor"),
        if facts.groups {
            SandboxGuarantee::held("freezing when idle")
        } else {
            SandboxGuarantee::partly(
                "freezing when idle",
                format!("{NO_GROUP}: by docker pause, 6 ms"),
            )
        },
        match &facts.tmp_refused {
            None => SandboxGuarantee::held("512 MB of /tmp beside memory"),
            Some(reason) => SandboxGuarantee::partly(
                "512 MB of /tmp beside memory",
                format!("64 MB, counted as memory: {reason}"),
            ),
        },
        SandboxGuarantee::held("network = false"),
        match &facts.firewall_refused {
            None => SandboxGuarantee::held("network without the host's services"),
            Some(reason) => SandboxGuarantee::partly(
                "network without the host's services",
                format!(
                    "no traffic between functions, but the host and 169.254.0.0/16 can be \
                     reached: {reason}"
                ),
            ),
        },
        SandboxGuarantee::held("nothing is left behind"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::guarantee::GuaranteeLevel;

    #[test]
    fn root_holds_everything_and_a_member_of_dockers_group_most() {
        let weak = |facts: &DockerHostCapabilities| {
            let rows = table(facts).into_iter().filter(|row| row.held != GuaranteeLevel::Held);
            rows.map(|row| row.what).collect::<Vec<_>>()
        };
        let mut facts = DockerHostCapabilities {
            groups: true,
            firewall_refused: None,
            tmp_refused: None,
            root: true,
        };
        assert!(weak(&facts).is_empty());
        facts.root = false;
        facts.groups = false;
        facts.firewall_refused = Some("only root may set firewall rules".into());
        facts.tmp_refused = Some("only root may mount file systems".into());
        assert_eq!(
            weak(&facts),
            [
                "own user per sandbox",
                "freezing when idle",
                "512 MB of /tmp beside memory",
                "network without the host's services",
            ]
        );
    }
}
