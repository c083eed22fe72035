//! What a container guarantees on this host. Pure: a table from what the host allows.

use crate::backend::guarantee::SandboxGuarantee;

/// What this host allows.
#[derive(Clone, Debug)]
pub(super) struct DockerHostCapabilities {
    /// The control groups of containers can be written to.
    pub(super) cgroups: bool,
    /// Why there are no firewall rules, if there are none.
    pub(super) firewall_refused: Option<String>,
    /// Why `/tmp` is memory, if it is.
    pub(super) tmp_refused: Option<String>,
    /// The server is root.
    pub(super) root: bool,
}

const ONE_USER: &str = "not root: sandboxes have the server's user, each in a container of its own";
const NO_GROUP: &str = "the control groups of containers cannot be reached";

/// The table, in the order of ARCHITECTURE.md.
pub(super) fn table(host: &DockerHostCapabilities) -> Vec<SandboxGuarantee> {
    vec![
        SandboxGuarantee::full("hostile code is kept in"),
        if host.root {
            SandboxGuarantee::full("own user per sandbox")
        } else {
            SandboxGuarantee::partial("own user per sandbox", ONE_USER)
        },
        SandboxGuarantee::full("no capabilities, no new privileges"),
        SandboxGuarantee::full("read-only root without the host's files"),
        SandboxGuarantee::full("sees its own processes only"),
        SandboxGuarantee::full("memory limit"),
        SandboxGuarantee::full("limit of processes"),
        SandboxGuarantee::full("limit of open files"),
        SandboxGuarantee::full("fair share of the processor"),
        if host.cgroups {
            SandboxGuarantee::full("freezing when idle")
        } else {
            SandboxGuarantee::partial(
                "freezing when idle",
                format!("{NO_GROUP}: by docker pause, 6 ms"),
            )
        },
        match &host.tmp_refused {
            None => SandboxGuarantee::full("512 MB of /tmp beside memory"),
            Some(reason) => SandboxGuarantee::partial(
                "512 MB of /tmp beside memory",
                format!("64 MB, counted as memory: {reason}"),
            ),
        },
        SandboxGuarantee::full("network = false"),
        match &host.firewall_refused {
            None => SandboxGuarantee::full("network without the host's services"),
            Some(reason) => SandboxGuarantee::partial(
                "network without the host's services",
                format!(
                    "no traffic between functions, but the host and 169.254.0.0/16 can be \
                     reached: {reason}"
                ),
            ),
        },
        SandboxGuarantee::full("nothing is left behind"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::guarantee::GuaranteeLevel;

    #[test]
    fn root_guarantees_everything_and_a_member_of_dockers_group_most() {
        let weak = |host: &DockerHostCapabilities| {
            let rows = table(host).into_iter().filter(|row| row.level != GuaranteeLevel::Full);
            rows.map(|row| row.what).collect::<Vec<_>>()
        };
        let mut host = DockerHostCapabilities {
            cgroups: true,
            firewall_refused: None,
            tmp_refused: None,
            root: true,
        };
        assert!(weak(&host).is_empty());
        host.root = false;
        host.cgroups = false;
        host.firewall_refused = Some("only root may set firewall rules".into());
        host.tmp_refused = Some("only root may mount file systems".into());
        assert_eq!(
            weak(&host),
            [
                "own user per sandbox",
                "freezing when idle",
                "512 MB of /tmp beside memory",
                "network without the host's services",
            ]
        );
    }
}
