//! Firewall rules that keep the bridge of functions from the host's own services and from
//! link-local addresses, where clouds serve their machines' credentials. Only root can set them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use hanshu_core::NodeId;
use nix::unistd::Uid;

use crate::backend::host::SandboxHost;

const PROGRAMS: [&str; 3] = ["/usr/sbin/iptables", "/sbin/iptables", "/usr/bin/iptables"];
/// Docker passes all forwarded packets through this chain and leaves its rules to others.
const FORWARDED: &str = "DOCKER-USER";
/// The chain of packets for the host itself.
const TO_HOST: &str = "INPUT";
const LINK_LOCAL: &str = "169.254.0.0/16";

/// The firewall rules of one node.
#[derive(Clone, Debug)]
pub(super) struct HostFirewall {
    host: SandboxHost,
    program: PathBuf,
    interface: String,
    /// Marks this node's rules: `hanshu:<node>`.
    comment: String,
}

/// A rule's chain and arguments.
type FirewallRule = (&'static str, Vec<String>);

impl HostFirewall {
    /// Finds the host's `iptables`.
    ///
    /// # Errors
    /// Why this user or host cannot set rules.
    pub(super) fn find(host: SandboxHost, node: &NodeId, interface: &str) -> Result<Self, String> {
        if !Uid::effective().is_root() {
            return Err("only root may set firewall rules".into());
        }
        // The host's own program uses the same of the kernel's tables as the engine does.
        let found = PROGRAMS.map(Path::new).into_iter().find(|path| host.path(path).exists());
        let program = found.ok_or("iptables is not installed (package iptables)")?.to_owned();
        let interface = interface.to_owned();
        Ok(Self { host, program, interface, comment: format!("hanshu:{node}") })
    }

    /// Sets the rules that are not set. Blocks for some milliseconds.
    ///
    /// # Errors
    /// What `iptables` says.
    pub(super) fn apply(&self) -> io::Result<()> {
        let resolv_conf = self.host.path(Path::new("/etc/resolv.conf"));
        let resolvers = resolvers(&fs::read_to_string(resolv_conf).unwrap_or_default());
        let rules = rules(&self.interface, &resolvers);
        let is_set =
            |(chain, rule): &FirewallRule| self.run("-C", chain, &self.marked(rule)).is_ok();
        if rules.iter().all(is_set) {
            return Ok(());
        }
        self.clear();
        // Each is inserted at the front, so the last inserted comes first.
        for (chain, rule) in rules.iter().rev() {
            self.run("-I", chain, &self.marked(rule))?;
        }
        Ok(())
    }

    /// Removes all rules of this node. Best effort: a missing chain has none.
    pub(super) fn clear(&self) {
        for chain in [FORWARDED, TO_HOST] {
            let Ok(text) = self.run("-S", chain, &[]) else { continue };
            for rule in ours(&text, &self.comment) {
                if let Err(error) = self.run("-D", chain, &rule) {
                    tracing::warn!(%error, "Could not remove a firewall rule");
                }
            }
        }
    }

    fn marked(&self, rule: &[String]) -> Vec<String> {
        let mark = ["-m", "comment", "--comment", &self.comment].map(str::to_owned);
        // The target, two words, stays last.
        let (matches, target) = rule.split_at(rule.len().saturating_sub(2));
        [matches, &mark, target].concat()
    }

    fn run(&self, action: &str, chain: &str, rule: &[String]) -> io::Result<String> {
        let output = self
            .host
            .command(&self.program)
            .args(["-w", "5", action, chain])
            .args(rule)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("iptables {action} {chain}: {}", text.trim())))
    }
}

/// In order: name servers stay reachable, whatever their address; the rest is dropped.
fn rules(interface: &str, resolvers: &[IpAddr]) -> Vec<FirewallRule> {
    let rule = |words: &[&str]| {
        ["-i", interface].iter().chain(words).map(|word| (*word).to_owned()).collect()
    };
    let mut rules = Vec::new();
    for address in resolvers {
        let address = address.to_string();
        for protocol in ["udp", "tcp"] {
            let words = ["-d", &address, "-p", protocol, "--dport", "53", "-j"];
            rules.push((FORWARDED, rule(&[&words[..], &["RETURN"]].concat())));
            rules.push((TO_HOST, rule(&[&words[..], &["ACCEPT"]].concat())));
        }
    }
    rules.push((FORWARDED, rule(&["-d", LINK_LOCAL, "-j", "DROP"])));
    rules.push((TO_HOST, rule(&["-j", "DROP"])));
    rules
}

/// Name servers that a container asks itself. Those on the host's loopback are asked by Docker.
fn resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let words = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = words.filter_map(|word| word.trim().parse::<IpAddr>().ok());
    addresses.filter(|address| address.is_ipv4() && !address.is_loopback()).collect()
}

/// This node's rules in the output of `iptables -S`, without action and chain.
fn ours(text: &str, comment: &str) -> Vec<Vec<String>> {
    let rules = text.lines().filter_map(|line| line.strip_prefix("-A "));
    let words = rules.map(|rule| {
        let words = rule.split_whitespace().skip(1).map(|word| word.trim_matches('"').to_owned());
        words.collect::<Vec<_>>()
    });
    words.filter(|words| words.iter().any(|word| word == comment)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_stay_reachable_and_the_rest_of_the_host_does_not() {
        let found = resolvers("nameserver 127.0.0.53\nnameserver 169.254.169.253\noptions x\n");
        assert_eq!(found, ["169.254.169.253".parse::<IpAddr>().unwrap()]);
        let rules = rules("hanshu-0", &found);
        let lines: Vec<_> =
            rules.iter().map(|(chain, words)| format!("{chain} {}", words.join(" "))).collect();
        assert_eq!(
            lines,
            [
                "DOCKER-USER -i hanshu-0 -d 169.254.169.253 -p udp --dport 53 -j RETURN",
                "INPUT -i hanshu-0 -d 169.254.169.253 -p udp --dport 53 -j ACCEPT",
                "DOCKER-USER -i hanshu-0 -d 169.254.169.253 -p tcp --dport 53 -j RETURN",
                "INPUT -i hanshu-0 -d 169.254.169.253 -p tcp --dport 53 -j ACCEPT",
                "DOCKER-USER -i hanshu-0 -d 169.254.0.0/16 -j DROP",
                "INPUT -i hanshu-0 -j DROP",
            ]
        );
    }

    #[test]
    fn rules_of_another_node_are_not_ours() {
        let text = "-P INPUT ACCEPT\n\
            -A INPUT -i a -m comment --comment \"hanshu:n1\" -j DROP\n\
            -A INPUT -i b -m comment --comment hanshu:n11 -j DROP\n";
        let found = ours(text, "hanshu:n1");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].join(" "), "-i a -m comment --comment hanshu:n1 -j DROP");
    }
}
