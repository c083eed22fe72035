//! A container's settings, from a sandbox's specification. Pure.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
};
use hanshu_runtimes::wire::SHIM_ENV;

use super::labels::LABEL;
use crate::backend::port::{CODE_DIR, SandboxMount, SandboxOwner, SandboxSpec};
use crate::backend::tmp::{MEMORY_TMP_BYTES, SandboxTmp};

/// Docker's name for a loopback and nothing else.
pub(super) const NO_NETWORK: &str = "none";
/// When the host is out of memory, functions are killed before its own processes.
const OOM_SCORE_ADJ: i64 = 500;
/// Docker's unit: 1,024 are one core's worth when cores are scarce.
const SHARES_PER_CORE: i64 = 1024;

/// Folders of the host that a container sees beside those of its specification.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContainerFolders<'a> {
    /// Source of the mount at `/var/runtime`.
    pub(super) runtime_dir: &'a Path,
    /// Source of the mount at `/tmp`.
    pub(super) tmp: &'a SandboxTmp,
    /// For a prewarmed sandbox: where its code will be mounted.
    pub(super) prewarm: Option<&'a Path>,
}

/// The settings of a sandbox's container.
pub(super) fn container(
    spec: &SandboxSpec,
    network: &str,
    folders: ContainerFolders<'_>,
) -> ContainerCreateBody {
    let mut labels =
        vec![(LABEL, spec.node.to_string()), ("hanshu.instance", spec.instance.to_string())];
    match &spec.owner {
        SandboxOwner::Function { function, version } => {
            labels.push(("hanshu.function", function.to_string()));
            labels.push(("hanshu.version", version.to_string()));
        }
        // Labels cannot be changed later: this container never gets its function's.
        SandboxOwner::Unassigned => labels.push(("hanshu.prewarmed", "true".into())),
    }
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some("hanshu".into()),
        user: Some(format!("{0}:{0}", spec.uid)),
        working_dir: Some("/".into()),
        entrypoint: Some(vec!["/var/runtime/hanshu".into()]),
        cmd: Some(["shim", "--dir", "/run/hanshu"].map(str::to_owned).to_vec()),
        env: Some(vec![format!("{}={}", SHIM_ENV.0, SHIM_ENV.1)]),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        host_config: Some(host(spec, network, folders)),
        ..Default::default()
    }
}

fn host(spec: &SandboxSpec, network: &str, folders: ContainerFolders<'_>) -> HostConfig {
    let memory = i64::from(spec.memory_mb) * 1024 * 1024;
    let mut mounts = vec![
        bind(&spec.run_dir, "/run/hanshu", true),
        bind(folders.runtime_dir, "/var/runtime", true),
    ];
    let of_spec = |mount: &SandboxMount| bind(&mount.source, &mount.target.to_string_lossy(), true);
    mounts.extend(spec.mounts.iter().map(of_spec));
    mounts.extend(folders.prewarm.map(late_code));
    let mut tmpfs = None;
    match folders.tmp {
        SandboxTmp::Folder(folder) => mounts.push(bind(folder, "/tmp", false)),
        SandboxTmp::Memory => {
            let how = format!("rw,nosuid,nodev,exec,mode=1777,size={MEMORY_TMP_BYTES}");
            tmpfs = Some(HashMap::from([("/tmp".to_owned(), how)]));
        }
    }
    HostConfig {
        network_mode: Some(network.into()),
        mounts: Some(mounts),
        tmpfs,
        memory: Some(memory),
        // Memory and swap together: no swap.
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

/// The mount at which a prewarmed sandbox's code appears later: what the host mounts there
/// propagates into the container.
fn late_code(folder: &Path) -> Mount {
    Mount {
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RSLAVE),
            ..Default::default()
        }),
        ..bind(folder, CODE_DIR, true)
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
    use hanshu_core::{FunctionId, InstanceId};

    use super::*;
    use crate::backend::port::NetworkAccess;

    fn hello() -> SandboxOwner {
        let function =
            FunctionId { namespace: "default".parse().unwrap(), name: "hello".parse().unwrap() };
        SandboxOwner::Function { function, version: "$LATEST".parse().unwrap() }
    }

    fn code() -> Vec<SandboxMount> {
        vec![SandboxMount { source: "/data/code/x".into(), target: CODE_DIR.into() }]
    }

    fn folders<'a>(tmp: &'a SandboxTmp, prewarm: Option<&'a Path>) -> ContainerFolders<'a> {
        ContainerFolders { runtime_dir: Path::new("/data/runtime/z"), tmp, prewarm }
    }

    fn host_config(tmp: &SandboxTmp) -> HostConfig {
        make(hello(), code(), folders(tmp, None)).host_config.unwrap()
    }

    fn make(
        owner: SandboxOwner,
        mounts: Vec<SandboxMount>,
        folders: ContainerFolders<'_>,
    ) -> ContainerCreateBody {
        let spec = SandboxSpec {
            instance: InstanceId::new(),
            node: "n1".parse().unwrap(),
            owner,
            image: "hanshu/python:1".into(),
            mounts,
            memory_mb: 128,
            cpu_milli: 500,
            network: NetworkAccess::None,
            listens: false,
            pids_max: 1024,
            open_files_max: 1024,
            uid: 700_001,
            run_dir: "/data/run/y".into(),
        };
        let body = container(&spec, NO_NETWORK, folders);
        assert_eq!(body.user.as_deref(), Some("700001:700001"));
        assert_eq!(body.image.as_deref(), Some("hanshu/python:1"));
        assert_eq!(body.labels.as_ref().unwrap()[LABEL], "n1");
        body
    }

    #[test]
    fn a_prewarmed_sandbox_differs_in_its_labels_and_where_its_code_comes_from() {
        let tmp = SandboxTmp::Folder("/data/tmp/1".into());
        let prewarm = Path::new("/data/prewarm/shared/x");
        let unassigned = SandboxOwner::Unassigned;
        let mut prewarmed = make(unassigned, Vec::new(), folders(&tmp, Some(prewarm)));
        let mut plain = make(hello(), code(), folders(&tmp, None));
        let take_code = |body: &mut ContainerCreateBody| {
            let mounts = body.host_config.as_mut().unwrap().mounts.as_mut().unwrap();
            let index = mounts.iter().position(|one| one.target.as_deref() == Some(CODE_DIR));
            mounts.remove(index.unwrap())
        };
        let (late, fixed) = (take_code(&mut prewarmed), take_code(&mut plain));
        assert_eq!(late.source.as_deref(), prewarm.to_str());
        assert_eq!((late.read_only, fixed.read_only), (Some(true), Some(true)));
        assert!(!prewarmed.labels.take().unwrap().contains_key("hanshu.function"));
        plain.labels = None;
        // Each has folders of its own.
        for body in [&mut prewarmed, &mut plain] {
            body.host_config.as_mut().unwrap().mounts = None;
        }
        assert_eq!(prewarmed, plain);
    }

    #[test]
    fn only_tmp_can_be_written_to() {
        let host = host_config(&SandboxTmp::Folder("/data/tmp/1".into()));
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
        let host = host_config(&SandboxTmp::Memory);
        assert!(host.tmpfs.unwrap()["/tmp"].ends_with("size=67108864"));
        assert_eq!(host.mounts.unwrap().len(), 3);
    }

    #[test]
    fn limits_are_in_dockers_units() {
        let host = host_config(&SandboxTmp::Memory);
        assert_eq!(host.memory, Some(134_217_728));
        assert_eq!(host.memory_swap, host.memory);
        assert_eq!(host.cpu_shares, Some(512));
        assert_eq!(host.pids_limit, Some(1024));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    }
}
