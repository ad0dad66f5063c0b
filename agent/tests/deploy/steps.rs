//! Steps that behave badly: they hang, trap signals, flood, leave daemons behind.

use crate::host::{Host, close, is_alive, kill, step, wait_for_file};
use shipwatch_common::model::deploy::{HostState, OnInterrupt, Phase, Spec};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

fn only(host: &Host, run: &str) -> Spec {
    let mut spec = host.spec("shop", "v1");
    spec.steps = vec![step("go", Phase::Start, run)];
    spec
}

fn run_dir(host: &Host, id: &str, step: &str) -> PathBuf {
    let app = fs::read_dir(host.base.join("state/apps")).unwrap().next().unwrap().unwrap().path();
    let runs = fs::read_dir(app.join("runs").join(id)).unwrap().map(|entry| entry.unwrap().path());
    runs.max().filter(|path| path.to_str().unwrap().ends_with(step)).unwrap()
}

#[test]
fn a_step_that_traps_term_is_killed_with_its_children() {
    let host = Host::new();
    let shared = host.root("shop").join("shared");
    let run = "trap 'echo asked to stop' TERM\nsleep 300 & echo $! > $SHIPWATCH_ROOT/shared/child\nwhile :; do sleep 0.1; done";
    let mut spec = only(&host, run);
    spec.steps[0].timeout = Duration::from_millis(200);
    let (executor, log) = host.open();
    let command = host.deploy(spec);
    let began = Instant::now();
    executor.handle(command.clone()).unwrap();
    let (state, reason) = log.end(&command.deployment_id);
    let took = began.elapsed();
    assert_eq!(state, HostState::Reverted);
    assert!(reason.contains("go failed: timed out after 200ms"), "{reason}");
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(20), "{took:?}");
    assert!(log.output(&command.deployment_id).contains("asked to stop"));
    assert!(!is_alive(&wait_for_file(&shared.join("child"))));
    close(executor);
}

#[test]
fn a_daemon_that_holds_the_output_open_does_not_hold_up_the_step() {
    let host = Host::new();
    let (executor, log) = host.open();
    let command =
        host.deploy(only(&host, "(while :; do echo tick; sleep 0.05; done) & echo $! > $SHIPWATCH_ROOT/shared/daemon; echo begun"));
    let began = Instant::now();
    executor.handle(command.clone()).unwrap();
    assert_eq!(log.end(&command.deployment_id).0, HostState::Succeeded);
    assert!(began.elapsed() < Duration::from_secs(20));
    let daemon = wait_for_file(&host.root("shop").join("shared/daemon"));
    assert!(is_alive(&daemon), "it lives on after its step");
    kill(&daemon);
    assert!(log.output(&command.deployment_id).contains("begun"));
    close(executor);
}

#[test]
fn a_flood_of_output_is_bounded_on_disk_and_on_the_wire() {
    let host = Host::new();
    let (executor, log) = host.open();
    let command = host.deploy(only(&host, "yes 'a line of forty-nine characters and a newline ..' | head -c 50000000"));
    executor.handle(command.clone()).unwrap();
    let id = &command.deployment_id;
    assert_eq!(log.end(id).0, HostState::Succeeded);
    let output = log.output(id);
    assert!(output.len() < 2 << 20, "{} bytes were sent", output.len());
    let note = output.lines().find(|line| line.contains("output were left out")).unwrap();
    let left_out: usize = note.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    let told = output.len() - note.len() - 1;
    assert!((left_out + told).abs_diff(50_000_000) < 200_000, "{left_out} + {told}");
    let kept = fs::metadata(run_dir(&host, id, "go").join("output")).unwrap().len();
    assert!(kept <= 18 << 20, "{kept} bytes on disk");
    close(executor);
}

#[test]
fn output_and_reasons_are_masked_as_log_lines_are() {
    let host = Host::new();
    let line = "charged lihua@example.com, password=hunter2";
    let masked = host.setup().masker.mask(line).text.into_owned();
    let mut spec = only(&host, &format!("echo '{line}'"));
    spec.health[0].exec = Some(format!("echo '{line}'; exit 1"));
    spec.health[0].deadline = Duration::from_millis(50);
    let (executor, log) = host.open();
    let command = host.deploy(spec);
    executor.handle(command.clone()).unwrap();
    let (_, reason) = log.end(&command.deployment_id);
    assert_eq!(log.output(&command.deployment_id), format!("{masked}\n"));
    assert!(reason.contains("charged"), "{reason}");
    assert_eq!(reason.contains("lihua@example.com"), masked.contains("lihua@example.com"), "{reason}");
    close(executor);
}

#[test]
fn stopping_the_agent_is_prompt_and_the_step_goes_on() {
    let host = Host::new();
    let shared = host.root("shop").join("shared");
    let run = "echo before; echo $$ > $SHIPWATCH_ROOT/shared/pid\nuntil [ -e $SHIPWATCH_ROOT/shared/go ]; do sleep 0.02; done\necho after";
    let (executor, log) = host.open();
    let command = host.deploy(only(&host, run));
    executor.handle(command.clone()).unwrap();
    let pid = wait_for_file(&shared.join("pid"));
    let id = &command.deployment_id;
    log.wait(id, |kind| matches!(kind, shipwatch_common::model::deploy::EventKind::Output { .. }).then_some(()));
    let began = Instant::now();
    close(executor);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(is_alive(&pid));
    // Followed by the next agent.
    let (executor, log) = host.open();
    executor.resume().unwrap();
    log.wait(id, |kind| matches!(kind, shipwatch_common::model::deploy::EventKind::State { .. }).then_some(()));
    fs::write(shared.join("go"), "").unwrap();
    assert_eq!(log.end(id).0, HostState::Succeeded);
    assert_eq!(log.output(id), "after\n", "what was told before is not told again");
    assert_eq!(host.trace("shop"), "go:v1");
    close(executor);
}

#[test]
fn a_step_that_ended_while_no_agent_ran_keeps_its_result() {
    let host = Host::new();
    let shared = host.root("shop").join("shared");
    let run = "until [ -e $SHIPWATCH_ROOT/shared/go ]; do sleep 0.02; done; echo done; exit 9";
    let (executor, log) = host.open();
    let command = host.deploy(only(&host, run));
    executor.handle(command.clone()).unwrap();
    wait_for_file(&shared.join("trace"));
    close(executor);
    drop(log);
    fs::write(shared.join("go"), "").unwrap();
    let exit = run_dir(&host, &command.deployment_id, "go").join("exit");
    let until = Instant::now() + Duration::from_secs(20);
    while !exit.try_exists().unwrap() {
        assert!(Instant::now() < until);
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let (executor, log) = host.open();
    executor.resume().unwrap();
    let (state, reason) = log.end(&command.deployment_id);
    assert_eq!(state, HostState::Reverted);
    assert!(reason.contains("exit code 9"), "{reason}");
    close(executor);
}

/// Kills the shim, so that nobody knows how the step ended.
#[test]
fn an_interrupted_step_is_run_again_only_if_its_spec_permits_it() {
    for (policy, end, trace) in
        [(OnInterrupt::Fail, HostState::Reverted, "go:v1"), (OnInterrupt::Rerun, HostState::Succeeded, "go:v1 go:v1")]
    {
        for agent_lives in [true, false] {
            let host = Host::new();
            let shared = host.root("shop").join("shared");
            let run = "echo $$ > $SHIPWATCH_ROOT/shared/pid\nuntil [ -e $SHIPWATCH_ROOT/shared/go ]; do sleep 0.02; done";
            let mut spec = only(&host, run);
            spec.steps[0].on_interrupt = policy;
            let command = host.deploy(spec);
            let id = &command.deployment_id;
            let (mut executor, mut log) = host.open();
            executor.handle(command.clone()).unwrap();
            let pid = wait_for_file(&shared.join("pid"));
            let dir = run_dir(&host, id, "go");
            let until = Instant::now() + Duration::from_secs(20);
            while !dir.join("process").try_exists().unwrap() {
                assert!(Instant::now() < until);
                std::thread::park_timeout(Duration::from_millis(10));
            }
            if !agent_lives {
                close(executor);
                (executor, log) = host.open();
            }
            let started = fs::read_to_string(dir.join("started")).unwrap();
            let shim: String = started.rsplit("\"pid\":").next().unwrap().chars().take_while(char::is_ascii_digit).collect();
            fs::remove_file(shared.join("pid")).unwrap();
            kill(&shim);
            if policy == OnInterrupt::Rerun {
                // The first attempt is still waiting for `go`: only the second may see it.
                if !agent_lives {
                    executor.resume().unwrap();
                }
                assert_ne!(wait_for_file(&shared.join("pid")), pid);
                assert!(!is_alive(&pid), "what is left of the first attempt is ended before the second begins");
                fs::write(shared.join("go"), "").unwrap();
            } else if !agent_lives {
                executor.resume().unwrap();
            }
            let (state, reason) = log.end(id);
            assert_eq!(state, end, "{reason}");
            assert!(policy == OnInterrupt::Rerun || reason.contains("what ran it was killed"), "{reason}");
            assert!(!is_alive(&pid));
            assert_eq!(host.trace("shop"), trace);
            close(executor);
        }
    }
}
