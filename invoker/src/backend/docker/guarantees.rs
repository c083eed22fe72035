//! What a container holds on this host, and what it does not. Pure: a table of facts.

use crate::backend::guarantee::Guarantee;

/// What decides.
#[derive(Clone, Debug)]
pub(super) struct Facts {
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
pub(super) fn table(facts: &Facts) -> Vec<Guarantee> {
    vec![
        Guarantee::held("hostile code is kept in"),
        if facts.root {
            Guarantee::held("own user per sandbox")
        } else {
            Guarantee::partly("own user per sandbox", ONE_USER)
        },
        Guarantee::held("no capabilities, no new privileges"),
        Guarantee::held("read-only root without the host's files"),
        Guarantee::held("sees its own processes only"),
        Guarantee::held("memory limit"),
        Guarantee::held("limit of processes"),
        Guarantee::held("limit of open files"),
        Guarantee::held("fair share of the processor"),
        if facts.groups {
            Guarantee::held("freezing when idle")
        } else {
            Guarantee::partly("freezing when idle", format!("{NO_GROUP}: by docker pause, 6 ms"))
        },
        match &facts.tmp_refused {
            None => Guarantee::held("512 MB of /tmp beside memory"),
            Some(reason) => Guarantee::partly(
                "512 MB of /tmp beside memory",
                format!("64 MB, counted as memory: {reason}"),
            ),
        },
        Guarantee::held("network = false"),
        match &facts.firewall_refused {
            None => Guarantee::held("network without the host's services"),
            Some(reason) => Guarantee::partly(
                "network without the host's services",
                format!(
                    "no traffic between functions, but the host and 169.254.0.0/16 can be \
                     reached: {reason}"
                ),
            ),
        },
        Guarantee::held("nothing is left behind"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::guarantee::Held;

    #[test]
    fn root_holds_everything_and_a_member_of_dockers_group_most() {
        let weak = |facts: &Facts| {
            let rows = table(facts).into_iter().filter(|row| row.held != Held::Held);
            rows.map(|row| row.what).collect::<Vec<_>>()
        };
        let mut facts =
            Facts { groups: true, firewall_refused: None, tmp_refused: None, root: true };
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
