//! The agent dies at every boundary of the journal, and by `kill -9`, and the deployment still ends as it should.

use crate::host::{Host, Log, close, step, wait_for_file};
use shipwatch_agent::deploy::Executor;
use shipwatch_common::model::deploy::{Command, EventKind, HostState, Phase, Spec};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
};

/// What one crash and going on came to.
struct Story {
    end: HostState,
    crashed: bool,
}

/// Lets the agent die at crash point `n` of this deployment, then go on; the server repeats its command.
fn crash_and_go_on(host: &Host, command: &Command, n: u64) -> Story {
    let before = host.current("shop");
    let (executor, log) = host.open_with(|setup| setup.crash = Some(Host::crash_at(n)));
    executor.handle(command.clone()).unwrap();
    // Ends when the worker has stopped, at the crash or at the end.
    assert!(executor.finish(std::time::Duration::from_secs(40)));
    let told_end = log.states(&command.deployment_id).last().copied().filter(|state| state.is_end());
    // Between any two instructions there is one whole release behind `current`.
    if let Some(current) = host.current("shop") {
        let whole = fs::read_to_string(host.root("shop").join("releases").join(&current).join("name"));
        assert!(whole.is_ok_and(|name| current.starts_with(&name)), "current is {current} after crash point {n}");
    } else {
        assert_eq!(before, None, "current vanished at crash point {n}");
    }
    let (executor, log) = host.open();
    executor.resume().unwrap();
    executor.handle(command.clone()).unwrap();
    let (end, reason) = log.end(&command.deployment_id);
    close(executor);
    assert_ne!(end, HostState::Refused, "crash point {n}: {reason}");
    let crashed = told_end.is_none_or(|told| told == HostState::Refused);
    Story { end, crashed }
}

/// Goes through all crash points of deploying what `spec` makes on top of a good release, until one is behind the end.
fn at_every_boundary(first: u64, stride: u64, release: &str, end: HostState, trace: &str) -> u64 {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "good")).0, HostState::Succeeded);
    let mut n = first;
    loop {
        let good = host.serves("shop").unwrap();
        host.clear_trace("shop");
        let name = format!("{release}{n}");
        let command = host.deploy(host.spec("shop", &name));
        let story = crash_and_go_on(&host, &command, n);
        assert_eq!(story.end, end, "crash point {n}");
        let serves = if end == HostState::Succeeded { name.clone() } else { good.clone() };
        assert_eq!(host.serves("shop"), Some(serves), "crash point {n}");
        // Each step ran exactly once: none was lost, none was run blindly again.
        assert_eq!(host.trace("shop"), trace.replace("NEW", &name).replace("OLD", &good), "crash point {n}");
        let leftovers = fs::read_dir(host.root("shop").join("releases")).unwrap();
        assert!(leftovers.map(|e| e.unwrap().file_name().into_string().unwrap()).all(|name| !name.starts_with('.')));
        if !story.crashed {
            return n;
        }
        n += stride;
    }
}

/// Spread over threads, since a deployment mostly waits for its steps.
fn spread(release: &str, end: HostState, trace: &str, least: u64) {
    let stride = 4;
    let last = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..stride).map(|first| scope.spawn(move || at_every_boundary(first, stride, release, end, trace))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    assert!(last > least, "only {last} crash points");
}

#[test]
fn at_every_boundary_on_the_way_forward() {
    spread("v", HostState::Succeeded, "prepare:NEW stop:OLD start:NEW finish:NEW", 30);
}

#[test]
fn at_every_boundary_on_the_way_back() {
    spread("bad", HostState::Reverted, "prepare:NEW stop:OLD start:NEW stop:NEW start:OLD", 40);
}

#[test]
fn at_every_boundary_of_a_failure_before_the_switch() {
    let host = Host::new();
    assert_eq!(host.deploy_now(host.spec("shop", "good")).0, HostState::Succeeded);
    for n in 0.. {
        host.clear_trace("shop");
        let mut spec = host.spec("shop", &format!("v{n}"));
        spec.steps[0] = step("prepare", Phase::Prepare, "exit 1");
        let story = crash_and_go_on(&host, &host.deploy(spec), n);
        assert_eq!((story.end, host.serves("shop").as_deref()), (HostState::Failed, Some("good")), "crash point {n}");
        assert_eq!(host.trace("shop"), format!("prepare:v{n}"));
        if !story.crashed {
            assert!(n > 15, "only {n} crash points");
            break;
        }
    }
}

/// An agent in a process of its own: this test binary, running only [`agent_process`].
struct Agent {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Agent {
    fn start(host: &Host) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["crashes::agent_process", "--exact", "--ignored", "--nocapture"])
            .env("SHIPWATCH_TEST_BASE", &host.base)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads what it tells until a line has `wanted` in it.
    #[track_caller]
    fn until(&mut self, wanted: &str) {
        for line in self.lines.by_ref() {
            if line.unwrap().contains(wanted) {
                return;
            }
        }
        panic!("the agent ended without telling {wanted}");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Deploys what `command.json` in its directory says, telling its events. Run by [`Agent::start`] only.
#[test]
#[ignore = "a part of other tests, run by them in a process of its own"]
fn agent_process() {
    let Some(base) = std::env::vars().find(|(name, _)| name == "SHIPWATCH_TEST_BASE").map(|(_, value)| PathBuf::from(value)) else {
        panic!("run by other tests only");
    };
    let host = Host::at(&base);
    let command: Command = serde_json::from_str(&fs::read_to_string(base.join("command.json")).unwrap()).unwrap();
    let events = Log::default();
    let log = events.clone();
    let executor = Executor::open(host.setup(), move |event| {
        println!("{:?}", event.kind);
        log.push(event);
        Ok::<_, std::io::Error>(())
    })
    .unwrap();
    executor.resume().unwrap();
    executor.handle(command.clone()).unwrap();
    events.end(&command.deployment_id);
    close(executor);
}

fn killed_when(told: &[&str], spec: impl Fn(&Host) -> Spec, end: HostState, serves: &str, trace: &str) {
    for told in told {
        let host = Host::new();
        assert_eq!(host.deploy_now(host.spec("shop", "v1")).0, HostState::Succeeded);
        host.clear_trace("shop");
        let command = host.deploy(spec(&host));
        fs::write(host.base.join("command.json"), serde_json::to_string(&command).unwrap()).unwrap();
        let mut agent = Agent::start(&host);
        agent.until(told);
        agent.kill();
        let (executor, log) = host.open();
        executor.resume().unwrap();
        let (state, reason) = log.end(&command.deployment_id);
        assert_eq!(state, end, "killed at {told}: {reason}");
        assert_eq!((host.serves("shop").as_deref(), host.trace("shop").as_str()), (Some(serves), trace), "killed at {told}");
        close(executor);
    }
}

#[test]
fn kill_9_on_the_way_forward() {
    let told = [
        "Preparing",
        "step: \"unpack\"",
        "StepStarted { step: \"prepare\"",
        "StepStarted { step: \"start\"",
        "StepFinished { step: \"start\"",
    ];
    let slow = |host: &Host| {
        let mut spec = host.spec("shop", "v2");
        for step in &mut spec.steps {
            step.run.push_str("\nsleep 0.15");
        }
        spec
    };
    killed_when(&told, slow, HostState::Succeeded, "v2", "prepare:v2 stop:v1 start:v2 finish:v2");
}

#[test]
fn kill_9_on_the_way_back() {
    let told = ["Reverting", "StepStarted { step: \"stop\"", "current is v1"];
    let bad = |host: &Host| host.spec("shop", "v2-bad");
    killed_when(&told, bad, HostState::Reverted, "v1", "prepare:v2-bad stop:v1 start:v2-bad stop:v2-bad start:v1");
}

#[test]
fn an_end_that_could_not_be_told_is_told_by_the_next_agent() {
    let host = Host::new();
    let (state, command) = {
        let command = host.deploy(host.spec("shop", "v1"));
        let executor = Executor::open(host.setup(), |event: shipwatch_common::model::deploy::Event| {
            if matches!(event.kind, EventKind::State { state, .. } if state.is_end()) { Err("full") } else { Ok(()) }
        })
        .unwrap();
        executor.handle(command.clone()).unwrap();
        assert!(executor.finish(std::time::Duration::from_secs(40)));
        (HostState::Succeeded, command)
    };
    for told in [true, false] {
        let (executor, log) = host.open();
        executor.resume().unwrap();
        if told {
            assert_eq!(log.end(&command.deployment_id).0, state);
        }
        close(executor);
        assert_eq!(log.states(&command.deployment_id).len(), usize::from(told));
    }
    wait_for_file(&host.root("shop").join("shared/trace"));
}
