//! Bringing releases up, going back, keeping and cleaning.

use crate::host::{Host, close, step};
use shipwatch_agent::deploy::local;
use shipwatch_common::model::deploy::{EventKind, HostState, Phase};
use std::fs;

#[test]
fn v1_then_v2_then_a_broken_one_goes_back_to_v2() {
    let host = Host::new();
    let (executor, log) = host.open();
    let deploy = |release: &str| {
        let command = host.deploy(host.spec("shop", release));
        executor.handle(command.clone()).unwrap();
        (log.end(&command.deployment_id), command.deployment_id)
    };
    let ((state, _), first) = deploy("v1");
    assert_eq!((state, host.serves("shop").as_deref()), (HostState::Succeeded, Some("v1")));
    assert_eq!(log.states(&first), [HostState::Preparing, HostState::Switching, HostState::Succeeded]);
    assert_eq!(deploy("v2").0.0, HostState::Succeeded);
    host.clear_trace("shop");
    let ((state, reason), third) = deploy("v3-bad");
    assert_eq!(state, HostState::Reverted, "{reason}");
    assert!(reason.contains("health failed") && reason.contains("it is bad") && reason.contains("v2 serves again"), "{reason}");
    assert_eq!(host.serves("shop").as_deref(), Some("v2"));
    assert_eq!(host.trace("shop"), "prepare:v3-bad stop:v2 start:v3-bad stop:v3-bad start:v2");
    let states = [HostState::Preparing, HostState::Switching, HostState::Reverting, HostState::Reverted];
    assert_eq!(log.states(&third), states);
    let serving = log.wait(&third, |kind| match kind {
        EventKind::State { state: HostState::Reverted, release, .. } => Some(release.clone()),
        _ => None,
    });
    assert_eq!(serving.as_deref(), Some("v2"));
    close(executor);
}

#[test]
fn steps_get_their_environment_and_nothing_of_the_agents() {
    let host = Host::new();
    let mut spec = host.spec("shop", "v1");
    spec.steps = vec![step("start", Phase::Start, "pwd; env | sort")];
    let (executor, log) = host.open();
    let command = host.deploy(spec);
    executor.handle(command.clone()).unwrap();
    let id = command.deployment_id;
    assert_eq!(log.end(&id).0, HostState::Succeeded);
    let output = log.output(&id);
    let root = host.root("shop");
    let release_dir = root.join("releases").join(host.current("shop").unwrap());
    for line in [
        release_dir.to_str().unwrap().to_owned(),
        "APPLICATION_NAME=shop".to_owned(),
        "COLOUR=green".to_owned(),
        format!("DEPLOYMENT_ID={id}"),
        "LIFECYCLE_EVENT=ApplicationStart".to_owned(),
        "SHIPWATCH_APP=shop".to_owned(),
        format!("SHIPWATCH_DEPLOYMENT_ID={id}"),
        "SHIPWATCH_RELEASE=v1".to_owned(),
        format!("SHIPWATCH_RELEASE_DIR={}", release_dir.display()),
        format!("SHIPWATCH_ROOT={}", root.display()),
        "SHIPWATCH_STEP=start".to_owned(),
    ] {
        assert!(output.lines().any(|found| found == line), "{line} is missing in:\n{output}");
    }
    assert!(!output.contains("CARGO"), "the agent's environment leaked:\n{output}");
    close(executor);
}

#[test]
fn a_failing_prepare_leaves_the_old_release_untouched() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    let before = (host.current("shop"), fs::read_link(host.root("shop").join("current")).unwrap());
    host.clear_trace("shop");
    let mut spec = host.spec("shop", "v2");
    spec.steps[0] = step("prepare", Phase::Prepare, "exit 3");
    let (state, reason) = host.deploy_now(spec);
    assert_eq!(state, HostState::Failed);
    assert!(reason.contains("prepare failed: exit code 3") && reason.contains("was not touched"), "{reason}");
    assert_eq!((host.current("shop"), fs::read_link(host.root("shop").join("current")).unwrap()), before);
    assert_eq!(host.trace("shop"), "prepare:v2");
    assert_eq!(fs::read_dir(host.root("shop").join("releases")).unwrap().count(), 1, "the failed release is removed");
}

#[test]
fn a_failing_stop_starts_the_old_release_again() {
    let host = Host::new();
    let mut spec = host.spec("shop", "v1");
    spec.steps[1] = step("stop", Phase::Stop, "exit 1");
    assert_eq!(host.deploy_now(spec).0, HostState::Succeeded);
    host.clear_trace("shop");
    let (state, reason) = host.deploy_now(host.spec("shop", "v2"));
    assert_eq!(state, HostState::Failed);
    assert!(reason.contains("was started again"), "{reason}");
    assert_eq!(host.trace("shop"), "prepare:v2 stop:v1 start:v1");
    assert_eq!(host.serves("shop").as_deref(), Some("v1"));
}

#[test]
fn a_first_deployment_that_fails_leaves_nothing_serving() {
    let host = Host::new();
    let (state, reason) = host.deploy_now(host.spec("shop", "bad"));
    assert_eq!(state, HostState::Reverted);
    assert!(reason.contains("no release before"), "{reason}");
    assert_eq!(host.current("shop"), None);
    assert_eq!(host.trace("shop"), "prepare:bad start:bad stop:bad");
}

#[test]
fn a_way_back_that_fails_is_for_a_person() {
    let host = Host::new();
    let mut spec = host.spec("shop", "v1");
    spec.steps[2] = step("start", Phase::Start, "test ! -e ../../shared/no");
    assert_eq!(host.deploy_now(spec).0, HostState::Succeeded);
    fs::write(host.root("shop").join("shared/no"), "").unwrap();
    let (state, reason) = host.deploy_now(host.spec("shop", "v2-bad"));
    assert_eq!(state, HostState::RevertFailed);
    assert!(reason.contains("health failed") && reason.contains("start failed: exit code 1"), "{reason}");
    assert_eq!(host.serves("shop").as_deref(), Some("v1"));
}

#[test]
fn rolling_back_goes_further_each_time() {
    let host = Host::new();
    for release in ["v1", "v2", "v3"] {
        assert_eq!(host.deploy_now(host.spec("shop", release)).0, HostState::Succeeded);
    }
    let (executor, log) = host.open();
    for (id, serves, trace) in [("rollback-1", "v2", "stop:v3 start:v2"), ("rollback-2", "v1", "stop:v2 start:v1")] {
        host.clear_trace("shop");
        executor.handle(host.rollback("shop", id)).unwrap();
        assert_eq!(log.end(id).0, HostState::Succeeded);
        assert_eq!((host.serves("shop").as_deref(), host.trace("shop").as_str()), (Some(serves), trace));
    }
    executor.handle(host.rollback("shop", "rollback-3")).unwrap();
    let (state, reason) = log.end("rollback-3");
    assert_eq!(state, HostState::Refused);
    assert!(reason.contains("no good release"), "{reason}");
    close(executor);
}

#[test]
fn a_deployment_can_be_taken_back_under_its_own_id_once() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    let (executor, log) = host.open();
    let command = host.deploy(host.spec("shop", "v2"));
    executor.handle(command.clone()).unwrap();
    assert_eq!(log.end(&command.deployment_id).0, HostState::Succeeded);
    close(executor);
    let (executor, log) = host.open();
    for _ in 0..2 {
        executor.handle(host.rollback("shop", &command.deployment_id)).unwrap();
        assert_eq!(log.end(&command.deployment_id).0, HostState::Reverted);
    }
    executor.handle(command.clone()).unwrap();
    close(executor);
    assert_eq!(host.serves("shop").as_deref(), Some("v1"), "a late duplicate of the deployment does not bring it back");
}

#[test]
fn old_releases_are_removed_but_not_those_one_can_go_back_to() {
    let host = Host::new();
    for at in 1..=5 {
        let mut spec = host.spec("shop", &format!("v{at}"));
        spec.keep.releases = 1;
        assert_eq!(host.deploy_now(spec).0, HostState::Succeeded);
    }
    let names = |path: &str| {
        let mut names: Vec<String> =
            fs::read_dir(host.base.join(path)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.iter().map(|name| name.split('-').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Current, the one before, and one more.
    assert_eq!(names("srv/shop/releases"), ["v3", "v4", "v5"]);
    assert_eq!(names("state/cache").len(), 2);
}

#[test]
fn a_local_deployment_is_the_same_without_a_server() {
    let host = Host::new();
    let dir = host.base.join("local");
    fs::create_dir_all(dir.join("app")).unwrap();
    fs::write(dir.join("app/hello.sh"), "echo hello from $SHIPWATCH_RELEASE\n").unwrap();
    let yml = format!(
        "version: 1\napp: local\nrelease: r1\nroot: {}\nartifact: {{url: app/, sha256: ''}}\nsteps: [{{id: go, phase: start, run: sh hello.sh}}]\n",
        host.root("local").display()
    );
    fs::write(dir.join("deploy.yml"), &yml).unwrap();
    let mut told = String::new();
    let (state, reason) = local::run(&dir, host.setup(), |event| {
        if let EventKind::Output { text, .. } = &event.kind {
            told.push_str(text);
        }
    })
    .unwrap();
    assert_eq!(state, HostState::Succeeded, "{reason}");
    assert_eq!(told, "hello from r1\n");
    let mut refusing = host.setup();
    refusing.policy = shipwatch_agent::policy::Source::File("/does/not/exist".into());
    let (state, reason) = local::run(&dir, refusing, |_| {}).unwrap();
    assert_eq!(state, HostState::Refused);
    assert!(reason.contains("deploy.enabled"), "{reason}");
    fs::write(dir.join("deploy.yml"), yml.replace("app/", "../srv")).unwrap();
    assert!(local::run(&dir, host.setup(), |_| {}).unwrap_err().to_string().contains("below the directory"));
    fs::write(dir.join("deploy.yml"), yml.replace("app: local", "app: ''")).unwrap();
    assert!(local::run(&dir, host.setup(), |_| {}).unwrap_err().to_string().contains("`app`"));
    // The server's epochs still hold after a local deployment.
    assert_eq!(host.deploy_now(host.spec("local", "r2")).0, HostState::Succeeded);
}
