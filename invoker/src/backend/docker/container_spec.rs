//! From a sandbox's specification to a container's. Pure.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
};
use hanshu_runtimes::wire::SHIM_ENV;

use super::images::recipe;
use super::labels::LABEL;
use crate::backend::port::{SandboxOwner, SandboxSpec};
use crate::backend::tmp::{MEMORY_TMP_BYTES, SandboxTmp};

/// Docker's name for a loopback and nothing else.
pub(super) const NO_NETWORK: &str = "none";
/// When the host is out of memory, functions go before anything of its own.
const OOM_SCORE_ADJ: i64 = 500;
/// Docker's unit: 1,024 are one core's worth when cores are scarce.
const SHARES_PER_CORE: i64 = 1024;

/// Where the code is.
pub(super) const CODE_DIR: &str = "/var/user";

/// Folders of the host that are made for one container.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContainerFolders<'a> {
    /// `/var/runtime`.
    pub(super) runtime_dir: &'a Path,
    /// `/tmp`.
    pub(super) tmp: &'a SandboxTmp,
    /// For a prewarmed sandbox: where its code will be mounted.
    pub(super) slot: Option<&'a Path>,
}

/// The container of a sandbox.
pub(super) fn container(
    spec: &SandboxSpec,
    network: &str,
    places: ContainerFolders<'_>,
) -> ContainerCreateBody {
    let mut labels =
        vec![(LABEL, spec.node.to_string()), ("hanshu.instance", spec.instance.to_string())];
    match &spec.whose {
        SandboxOwner::Function { function, version, .. } => {
            labels.push(("hanshu.function", function.to_string()));
            labels.push(("hanshu.version", version.to_string()));
        }
        // Labels last as long as the container does, so that this one never gets its function's.
        SandboxOwner::Unassigned => labels.push(("hanshu.prewarmed", "true".into())),
    }
    ContainerCreateBody {
        image: Some(recipe::reference(spec.family)),
        hostname: Some("hanshu".into()),
        user: Some(format!("{0}:{0}", spec.uid)),
        working_dir: Some("/".into()),
        entrypoint: Some(vec!["/var/runtime/hanshu".into()]),
        cmd: Some(["shim", "--dir", "/run/hanshu"].map(str::to_owned).to_vec()),
        env: Some(vec![format!("{}={}", SHIM_ENV.0, SHIM_ENV.1)]),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        host_config: Some(host(spec, network, places)),
        ..Default::default()
    }
}

fn host(spec: &SandboxSpec, network: &str, places: ContainerFolders<'_>) -> HostConfig {
    let memory = i64::from(spec.memory_mb) * 1024 * 1024;
    let mut mounts = vec![
        bind(&spec.run_dir, "/run/hanshu", true),
        bind(places.runtime_dir, "/var/runtime", true),
    ];
    mounts.extend(code(&spec.whose, places.slot));
    let mut tmpfs = None;
    match places.tmp {
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

/// What is seen at `/var/user`: the code, or what is mounted on a prewarmed sandbox's slot from now on.
fn code(whose: &SandboxOwner, slot: Option<&Path>) -> Option<Mount> {
    match whose {
        SandboxOwner::Function { code_dir, .. } => Some(bind(code_dir, CODE_DIR, true)),
        SandboxOwner::Unassigned => slot.map(|slot| Mount {
            bind_options: Some(MountBindOptions {
                propagation: Some(MountBindOptionsPropagationEnum::RSLAVE),
                ..Default::default()
            }),
            ..bind(slot, CODE_DIR, true)
        }),
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
    use hanshu_core::{FunctionId, InstanceId, RuntimeFamily};

    use super::*;
    use crate::backend::port::NetworkAccess;

    fn of_hello() -> SandboxOwner {
        SandboxOwner::Function {
            function: FunctionId {
                namespace: "default".parse().unwrap(),
                name: "hello".parse().unwrap(),
            },
            version: "$LATEST".parse().unwrap(),
            code_dir: "/data/code/x".into(),
        }
    }

    fn places<'a>(tmp: &'a SandboxTmp, slot: Option<&'a Path>) -> ContainerFolders<'a> {
        ContainerFolders { runtime_dir: Path::new("/data/runtime/z"), tmp, slot }
    }

    fn made(tmp: &SandboxTmp) -> HostConfig {
        of(of_hello(), places(tmp, None)).host_config.unwrap()
    }

    fn of(whose: SandboxOwner, places: ContainerFolders<'_>) -> ContainerCreateBody {
        let spec = SandboxSpec {
            instance: InstanceId::new(),
            node: "n1".parse().unwrap(),
            whose,
            family: RuntimeFamily::Python,
            memory_mb: 128,
            cpu_milli: 500,
            network: NetworkAccess::None,
            pids_max: 1024,
            open_files_max: 1024,
            uid: 700_001,
            run_dir: "/data/run/y".into(),
        };
        let body = container(&spec, NO_NETWORK, places);
        assert_eq!(body.user.as_deref(), Some("700001:700001"));
        assert_eq!(body.labels.as_ref().unwrap()[LABEL], "n1");
        body
    }

    #[test]
    fn a_prewarmed_sandbox_differs_in_its_labels_and_where_its_code_comes_from() {
        let tmp = SandboxTmp::Folder("/data/tmp/1".into());
        let slot = Path::new("/data/slots/shared/x");
        let mut prewarmed = of(SandboxOwner::Unassigned, places(&tmp, Some(slot)));
        let mut plain = of(of_hello(), places(&tmp, None));
        let code_of = |body: &mut ContainerCreateBody| {
            let mounts = body.host_config.as_mut().unwrap().mounts.as_mut().unwrap();
            let at = mounts.iter().position(|one| one.target.as_deref() == Some(CODE_DIR));
            mounts.remove(at.unwrap())
        };
        let (its, other) = (code_of(&mut prewarmed), code_of(&mut plain));
        assert_eq!(its.source.as_deref(), slot.to_str());
        assert_eq!((its.read_only, other.read_only), (Some(true), Some(true)));
        assert!(!prewarmed.labels.take().unwrap().contains_key("hanshu.function"));
        plain.labels = None;
        // Each has folders of its own.
        let run = |body: &mut ContainerCreateBody| body.host_config.as_mut().unwrap().mounts = None;
        run(&mut prewarmed);
        run(&mut plain);
        assert_eq!(prewarmed, plain);
    }

    #[test]
    fn only_tmp_can_be_written_to() {
        let host = made(&SandboxTmp::Folder("/data/tmp/1".into()));
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
        let host = made(&SandboxTmp::Memory);
        assert!(host.tmpfs.unwrap()["/tmp"].ends_with("size=67108864"));
        assert_eq!(host.mounts.unwrap().len(), 3);
    }

    #[test]
    fn limits_are_in_dockers_units() {
        let host = made(&SandboxTmp::Memory);
        assert_eq!(host.memory, Some(134_217_728));
        assert_eq!(host.memory_swap, host.memory);
        assert_eq!(host.cpu_shares, Some(512));
        assert_eq!(host.pids_limit, Some(1024));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    }
}
