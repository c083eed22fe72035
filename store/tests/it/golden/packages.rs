//! Packages of golden data folders.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use hanshu_core::Digest;
use hanshu_core::ports::PackageStore as _;
use hanshu_store::{FolderPackages, UnpackLimits};

use super::files::versions;
use super::places::copy_folder;

#[tokio::test]
async fn every_package_can_be_had_and_unpacked() {
    for version in versions() {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&version.path("sqlite/packages/"), folder.path());
        let clock = Arc::new(hanshu_core::SystemClock);
        let packages = FolderPackages::open(folder.path(), UnpackLimits::default(), clock).unwrap();
        let answers = version.json("sqlite/answers.json");
        let revisions = answers["revisions"].as_array().unwrap();
        let codes: BTreeSet<_> =
            revisions.iter().map(|each| each["code"].as_str().unwrap()).collect();
        assert!(1 < codes.len(), "{}: one is of replaced code", version.name);
        for code in codes {
            let digest: Digest = code.parse().unwrap();
            let zip = fs::read(version.path(&format!("sqlite/packages/{code}.zip"))).unwrap();
            assert_eq!(packages.zip(&digest).await.unwrap(), zip, "{}: {code}", version.name);
            let unpacked = packages.folder(&digest).await.unwrap();
            let script = fs::read_to_string(unpacked.join("run.sh")).unwrap();
            assert!(script.starts_with("#!/bin/sh\n"), "{}: {code}", version.name);
        }
    }
}
