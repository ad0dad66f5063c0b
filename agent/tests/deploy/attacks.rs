//! Artifacts that were tampered with, and disks that fill up.

use crate::host::{Host, step};
use shipwatch_common::model::deploy::{HostState, Phase};
use std::{fs, path::Path, process::Command};

#[test]
fn a_changed_artifact_is_never_unpacked() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    let spec = host.spec("shop", "v2");
    let path = spec.artifact.url.strip_prefix("file://").unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[512] ^= 1;
    fs::write(path, bytes).unwrap();
    let (state, reason) = host.deploy_now(spec);
    assert_eq!(state, HostState::Failed);
    assert!(reason.contains("fetch failed") && reason.contains("changed or damaged"), "{reason}");
    assert_eq!(host.serves("shop").as_deref(), Some("v1"));
}

#[test]
fn an_artifact_that_reaches_out_of_its_directory_is_refused_whole() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    for (name, kind, link) in [
        ("../../evil", tar::EntryType::Regular, ""),
        ("evil", tar::EntryType::Symlink, "../../../../etc"),
        ("evil", tar::EntryType::Fifo, ""),
    ] {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(512 * 3, 0);
        let mut spec = host.spec("shop", "v2");
        spec.artifact = host.write_artifact("evil.tar", &bytes);
        let (state, reason) = host.deploy_now(spec);
        assert_eq!(state, HostState::Failed);
        assert!(reason.contains("unpack failed: entry") && reason.contains("evil"), "{reason}");
        assert_eq!(host.serves("shop").as_deref(), Some("v1"));
        assert!(!host.root("shop").join("evil").try_exists().unwrap());
        let left: Vec<_> = fs::read_dir(host.root("shop").join("releases")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

/// A small file system of its own; none if this user may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn big_tar(bytes: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "big", std::io::repeat(b'x').take(bytes as u64)).unwrap();
    builder.into_inner().unwrap()
}

use std::io::Read as _;

#[test]
fn a_disk_that_fills_up_while_unpacking_leaves_the_old_release_serving() {
    let Some(disk) = SmallDisk::mount("6m") else { return full_device_instead() };
    let host = Host::new();
    fs::create_dir_all(host.base.join("srv")).unwrap();
    let mut first = host.spec("shop", "v1");
    let root = disk.path().canonicalize().unwrap().join("shop");
    first.root = root.to_str().unwrap().to_owned();
    let deploy = |spec| {
        let (executor, log) = host.open_with(|setup| {
            let mut policy = host.policy();
            policy.deploy.roots = vec![disk.path().canonicalize().unwrap().to_str().unwrap().to_owned()];
            setup.policy = shipwatch_agent::policy::Source::Fixed(Box::new(policy));
        });
        let command = host.deploy(spec);
        executor.handle(command.clone()).unwrap();
        let end = log.end(&command.deployment_id);
        crate::host::close(executor);
        end
    };
    assert_eq!(deploy(first.clone()).0, HostState::Succeeded);
    let mut second = host.spec("shop", "v2");
    second.root.clone_from(&first.root);
    let tar = zstd::encode_all(&big_tar(20 << 20)[..], 1).unwrap();
    second.artifact = host.write_artifact("big.tar.zst", &tar);
    let (state, reason) = deploy(second);
    assert_eq!(state, HostState::Failed);
    assert!(reason.contains("unpack failed") && reason.contains("No space left"), "{reason}");
    assert_eq!(fs::read_to_string(root.join("current/name")).unwrap(), "v1");
    assert_eq!(fs::read_dir(root.join("releases")).unwrap().count(), 1, "what was unpacked in part is removed");
}

/// Without the right to mount: a bound of the policy stands in for the disk's.
fn full_device_instead() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    let mut spec = host.spec("shop", "v2");
    spec.artifact = host.write_artifact("big.tar.zst", &zstd::encode_all(&big_tar(80 << 20)[..], 1).unwrap());
    assert_eq!(host.deploy_now(spec).0, HostState::Failed);
    assert_eq!(host.serves("shop").as_deref(), Some("v1"));
}

#[test]
fn a_release_that_fills_the_disk_can_still_be_taken_back() {
    let Some(disk) = SmallDisk::mount("16m") else { return full_device_instead() };
    let host = Host::at(&disk.path().canonicalize().unwrap());
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    let mut spec = host.spec("shop", "v2");
    spec.steps[2] = step("start", Phase::Start, "cat /dev/zero > $SHIPWATCH_ROOT/shared/full; cat /dev/zero > fill; exit 1");
    spec.steps[1] = step("stop", Phase::Stop, "");
    let (state, reason) = host.deploy_now(spec);
    assert_eq!(state, HostState::Reverted, "{reason}");
    assert!(reason.contains("start failed: exit code 1"), "{reason}");
    assert_eq!(host.serves("shop").as_deref(), Some("v1"));
}
