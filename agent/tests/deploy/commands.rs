//! Which commands are carried out: duplicates, epochs, policy, one at a time, aborting.

use crate::host::{Host, close, step, wait_for_file};
use shipwatch_agent::policy::{Policy, Source};
use shipwatch_common::model::deploy::{Action, Command, HostState, Phase};
use std::fs;

/// Waits until the step is told to go on.
const HOLD: &str = "echo held > $SHIPWATCH_ROOT/shared/held\nuntil [ -e $SHIPWATCH_ROOT/shared/go ]; do sleep 0.02; done";

#[test]
fn a_duplicate_is_answered_and_not_run_again() {
    let host = Host::new();
    let command = host.deploy(host.spec("shop", "v1"));
    for round in 0..3 {
        let (executor, log) = host.open();
        executor.handle(command.clone()).unwrap();
        assert_eq!(log.end(&command.deployment_id).0, HostState::Succeeded, "round {round}");
        close(executor);
    }
    assert_eq!(host.trace("shop"), "prepare:v1 start:v1 finish:v1");
}

#[test]
fn an_older_epoch_is_refused_even_when_repeated_and_after_a_restart() {
    let host = Host::new();
    let old = host.deploy(host.spec("shop", "v0"));
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    for _ in 0..2 {
        let (executor, log) = host.open();
        executor.handle(old.clone()).unwrap();
        let (state, reason) = log.end(&old.deployment_id);
        assert_eq!(state, HostState::Refused);
        assert!(reason.contains("epoch 1 is older than 2"), "{reason}");
        close(executor);
    }
    assert_eq!(host.serves("shop").as_deref(), Some("v1"));
}

#[test]
fn what_the_policy_does_not_permit_is_refused_and_leaves_no_trace() {
    let host = Host::new();
    let good = host.spec("shop", "v1");
    let mut cases = Vec::new();
    let mut elsewhere = good.clone();
    elsewhere.root = host.base.join("other").to_str().unwrap().to_owned();
    cases.push((host.policy(), elsewhere, "root"));
    let mut url = good.clone();
    url.artifact.url = "https://example.com/a.tar".to_owned();
    cases.push((host.policy(), url, "artifact URL"));
    let mut apps = host.policy();
    apps.deploy.apps = vec!["blog".to_owned()];
    cases.push((apps, good.clone(), "deploy.apps"));
    cases.push((Policy::default(), good.clone(), "deploy.enabled"));
    let mut bad = good;
    (bad.version, bad.steps[0].run) = (7, String::new());
    cases.push((host.policy(), bad, "`version` must be 1, not 7; `steps.0.run`"));
    for (policy, spec, told) in cases {
        let (executor, log) = host.open_with(|setup| setup.policy = Source::Fixed(Box::new(policy)));
        let command = host.deploy(spec);
        executor.handle(command.clone()).unwrap();
        let (state, reason) = log.end(&command.deployment_id);
        assert_eq!(state, HostState::Refused);
        assert!(reason.contains(told), "expected {told:?} in {reason:?}");
        close(executor);
    }
    assert!(!host.base.join("srv").try_exists().unwrap() && !host.base.join("other").try_exists().unwrap());
    assert_eq!(fs::read_dir(host.base.join("state/apps")).unwrap().count(), 0);
}

#[test]
fn one_at_a_time_per_app_and_a_hung_step_holds_up_nobody_else() {
    let host = Host::new();
    let (executor, log) = host.open();
    let mut spec = host.spec("shop", "v1");
    spec.steps[0] = step("prepare", Phase::Prepare, HOLD);
    fs::create_dir_all(host.root("shop")).unwrap();
    let hung = host.deploy(spec);
    executor.handle(hung.clone()).unwrap();
    wait_for_file(&host.root("shop").join("shared/held"));

    let other = host.deploy(host.spec("blog", "v1"));
    executor.handle(other.clone()).unwrap();
    assert_eq!(log.end(&other.deployment_id).0, HostState::Succeeded);

    let second = host.deploy(host.spec("shop", "v2"));
    executor.handle(second.clone()).unwrap();
    let (state, reason) = log.end(&second.deployment_id);
    assert_eq!(state, HostState::Refused);
    assert!(reason.contains(&hung.deployment_id) && reason.contains("under way"), "{reason}");

    let mut nested = host.spec("nested", "v1");
    nested.root = host.root("shop").join("inner").to_str().unwrap().to_owned();
    let nested = host.deploy(nested);
    executor.handle(nested.clone()).unwrap();
    assert_eq!(log.end(&nested.deployment_id).0, HostState::Refused);

    fs::write(host.root("shop").join("shared/go"), "").unwrap();
    assert_eq!(log.end(&hung.deployment_id).0, HostState::Succeeded);
    // Refused once is refused for good: the server has counted this host as refused.
    executor.handle(second.clone()).unwrap();
    close(executor);
    assert_eq!(log.states(&second.deployment_id), [HostState::Refused, HostState::Refused]);
    assert_eq!(host.serves("shop").as_deref(), Some("v1"));
}

#[test]
fn an_app_does_not_get_the_directory_of_another() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    let mut spec = host.spec("thief", "v1");
    spec.root = host.root("shop").to_str().unwrap().to_owned();
    let (state, reason) = host.deploy_now(spec);
    assert_eq!(state, HostState::Refused);
    assert!(reason.contains("belongs to app shop"), "{reason}");
}

#[test]
fn an_abort_goes_back_at_the_next_safe_point() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
    for (held, end, trace) in
        [("prepare", HostState::Failed, "prepare:v2"), ("start", HostState::Reverted, "prepare:v2 stop:v1 start:v2 stop:v2 start:v1")]
    {
        host.clear_trace("shop");
        let shared = host.root("shop").join("shared");
        for name in ["held", "go"] {
            let _ = fs::remove_file(shared.join(name));
        }
        let mut spec = host.spec("shop", "v2");
        for step in spec.steps.iter_mut().filter(|step| step.id == held) {
            step.run.push_str(HOLD);
        }
        let (executor, log) = host.open();
        let command = host.deploy(spec);
        executor.handle(command.clone()).unwrap();
        wait_for_file(&shared.join("held"));
        let late = Command { epoch: 0, ..host.abort(&command.deployment_id) };
        executor.handle(late).unwrap();
        executor.handle(host.abort("deployment-unknown")).unwrap();
        assert_eq!(log.end("deployment-unknown").0, HostState::Refused);
        executor.handle(host.abort(&command.deployment_id)).unwrap();
        // Taken before the step ends: commands are taken in order, and this one is answered at once.
        executor.handle(host.abort("deployment-unknown-2")).unwrap();
        log.end("deployment-unknown-2");
        fs::write(shared.join("go"), "").unwrap();
        let ends = |kind: &shipwatch_common::model::deploy::EventKind| match kind {
            shipwatch_common::model::deploy::EventKind::State { state, reason, .. } if state.is_end() && *state != HostState::Refused => {
                Some((*state, reason.clone()))
            }
            _ => None,
        };
        let (state, reason) = log.wait(&command.deployment_id, ends);
        assert_eq!(state, end, "{reason}");
        assert!(reason.contains("aborted on request"), "{reason}");
        assert_eq!((host.trace("shop").as_str(), host.serves("shop").as_deref()), (trace, Some("v1")));
        close(executor);
    }
}

#[test]
fn an_abort_ends_the_wait_for_health() {
    let host = Host::new();
    let mut spec = host.spec("shop", "v1-bad");
    spec.health[0].deadline = std::time::Duration::from_secs(3600);
    let (executor, log) = host.open();
    let command = host.deploy(spec);
    executor.handle(command.clone()).unwrap();
    log.step_started(&command.deployment_id, "health");
    executor.handle(host.abort(&command.deployment_id)).unwrap();
    assert_eq!(log.end(&command.deployment_id).0, HostState::Reverted);
    close(executor);
}

#[test]
fn commands_with_mistakes_are_refused() {
    let host = Host::new();
    let (executor, log) = host.open();
    let id = "../../../../etc/passwd";
    executor.handle(Command { deployment_id: id.to_owned(), epoch: 1, action: Action::Abort }).unwrap();
    assert_eq!(log.end(id).0, HostState::Refused);
    executor.handle(host.rollback("shop", "rollback-1")).unwrap();
    assert!(log.end("rollback-1").1.contains("no release serves"));
    close(executor);
}
