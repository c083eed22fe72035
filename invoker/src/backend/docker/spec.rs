//! From a sandbox's specification to a container's. Pure.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits,
};
use hanshu_core::{InstanceId, NodeId};
use hanshu_runtimes::wire::SHIM_ENV;

use super::DockerOptions;
use crate::backend::SandboxSpec;
use crate::images;
use crate::tmp::{MEMORY_TMP_BYTES, Tmp};

/// The label by which everything of a node is found.
pub(crate) const LABEL: &str = "hanshu";
/// Docker's name for a loopback and nothing else.
pub(super) const NO_NETWORK: &str = "none";
/// When the host is out of memory, functions go before anything of its own.
const OOM_SCORE_ADJ: i64 = 500;
/// Docker's unit: 1,024 are one core's worth when cores are scarce.
const SHARES_PER_CORE: i64 = 1024;

/// A container's name.
pub(super) fn name(instance: InstanceId) -> String {
    format!("hanshu-{instance}")
}

/// The label of a node, as a filter.
pub(crate) fn filter(node: &NodeId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL}={node}")])])
}

/// The container of a sandbox.
pub(super) fn container(
    options: &DockerOptions,
    spec: &SandboxSpec,
    network: &str,
    tmp: &Tmp,
) -> ContainerCreateBody {
    let labels = [
        (LABEL, spec.node.to_string()),
        ("hanshu.function", spec.function.to_string()),
        ("hanshu.version", spec.version.to_string()),
        ("hanshu.instance", spec.instance.to_string()),
    ];
    ContainerCreateBody {
        image: Some(images::reference(spec.family)),
        hostname: Some("hanshu".into()),
        user: Some(format!("{0}:{0}", spec.uid)),
        working_dir: Some("/".into()),
        entrypoint: Some(vec!["/var/runtime/hanshu".into()]),
        cmd: Some(["shim", "--dir", "/run/hanshu"].map(str::to_owned).to_vec()),
        env: Some(vec![format!("{}={}", SHIM_ENV.0, SHIM_ENV.1)]),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        host_config: Some(host(options, spec, network, tmp)),
        ..Default::default()
    }
}

fn host(options: &DockerOptions, spec: &SandboxSpec, network: &str, tmp: &Tmp) -> HostConfig {
    let memory = i64::from(spec.memory_mb) * 1024 * 1024;
    let mut mounts = vec![
        bind(&spec.run_dir, "/run/hanshu", true),
        bind(&spec.code_dir, "/var/user", true),
        bind(&options.runtime_dir, "/var/runtime", true),
    ];
    let mut tmpfs = None;
    match tmp {
        Tmp::Folder(folder) => mounts.push(bind(folder, "/tmp", false)),
        Tmp::Memory => {
            let how = format!("rw,nosuid,nodev,exec,mode=1777,size={MEMORY_TMP_BYTES}");
            tmpfs = Some(HashMap::from([("/tmp".to_owned(), how)]));
        }
    }
    HostConfig {
        network_mode: Some(network.into()),
        mounts: Some(mounts),
        tmpfs,
        memory: Some(memory),
        // Together with swap: none.
        memory_swap: Some(memory),
        cpu_shares: Some((i64::from(spec.cpu_milli) * SHARES_PER_CORE / 1000).max(2)),
        pids_limit: i64::try_from(spec.pids_max).ok(),
        ulimits: Some(vec![ulimit("nofile", spec.open_files_max), ulimit("core", 0)]),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        ipc_mode: Some("none".into()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        ..Default::default()
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.into()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

fn ulimit(name: &str, value: u64) -> ResourcesUlimits {
    let value = i64::try_from(value).ok();
    ResourcesUlimits { name: Some(name.into()), soft: value, hard: value }
}

#[cfg(test)]
mod tests {
    use hanshu_core::{Digest, Family, FunctionId};

    use super::*;
    use crate::backend::Network;

    fn made(tmp: &Tmp) -> HostConfig {
        let node: NodeId = "n1".parse().unwrap();
        let spec = SandboxSpec {
            instance: InstanceId::new(),
            node: node.clone(),
            function: FunctionId {
                namespace: "default".parse().unwrap(),
                name: "hello".parse().unwrap(),
            },
            version: "$LATEST".parse().unwrap(),
            revision: Digest::from_bytes([7; 32]),
            family: Family::Python,
            code_dir: "/data/code/x".into(),
            memory_mb: 128,
            cpu_milli: 500,
            network: Network::None,
            pids_max: 1024,
            open_files_max: 1024,
            uid: 700_001,
            run_dir: "/data/run/y".into(),
        };
        let options = DockerOptions {
            node,
            engine: None,
            dir: "/data/docker".into(),
            runtime_dir: "/data/runtime/z".into(),
        };
        let body = container(&options, &spec, NO_NETWORK, tmp);
        assert_eq!(body.user.as_deref(), Some("700001:700001"));
        assert_eq!(body.labels.unwrap()[LABEL], "n1");
        body.host_config.unwrap()
    }

    #[test]
    fn only_tmp_can_be_written_to() {
        let host = made(&Tmp::Folder("/data/tmp/1".into()));
        assert_eq!(host.readonly_rootfs, Some(true));
        let writable: Vec<_> = host
            .mounts
            .unwrap()
            .into_iter()
            .filter(|mount| mount.read_only != Some(true))
            .map(|mount| mount.target.unwrap())
            .collect();
        assert_eq!(writable, ["/tmp"]);
        assert_eq!(host.tmpfs, None);
    }

    #[test]
    fn memory_serves_where_nothing_can_be_mounted() {
        let host = made(&Tmp::Memory);
        assert!(host.tmpfs.unwrap()["/tmp"].ends_with("size=67108864"));
        assert_eq!(host.mounts.unwrap().len(), 3);
    }

    #[test]
    fn limits_are_in_dockers_units() {
        let host = made(&Tmp::Memory);
        assert_eq!(host.memory, Some(134_217_728));
        assert_eq!(host.memory_swap, host.memory);
        assert_eq!(host.cpu_shares, Some(512));
        assert_eq!(host.pids_limit, Some(1024));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    }
}
