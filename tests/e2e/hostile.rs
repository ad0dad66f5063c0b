//! A server in wrong hands asks an agent for what it must not do.

use serde_json::json;
use shipwatch_common::protocol::{AgentMessage, ServerMessage};
use shipwatch_tests::{Agent, double::Double, wait_for};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_server_gets_telemetry_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let double = Double::start();
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    agent.enrol(&double.address.to_string(), &double.token, "web-1");
    agent.start();
    wait_for("first samples", Duration::from_secs(30), || async { double.look(|seen| seen.samples > 0).then_some(()) }).await;

    let marker = dir.path().join("marker");
    let touch = format!("touch {}", marker.display());
    let config = agent.dir().join("agent.toml");
    let before = std::fs::read(&config).unwrap();
    let command = |json: serde_json::Value| double.say(ServerMessage::Command { json: json.to_string() });
    // A command, in the only form that there is: a deployment.
    command(json!({"deployment_id": "0193aaaa-0000-7000-8000-000000000001", "epoch": 1, "action": {"Deploy": {
        "version": 1, "app": "shop", "release": "v1", "root": dir.path().join("srv"), "artifact": {"url": "file:///etc/hostname", "sha256": "0".repeat(64)},
        "steps": [{"id": "own", "phase": "prepare", "run": touch}], "health": [], "keep": {"releases": 5}, "env": {}}}}));
    // Commands in forms that somebody may hope for.
    for wish in [
        json!({"exec": touch}),
        json!({"action": "exec", "run": touch}),
        json!({"write_file": {"path": marker, "content": "x"}}),
        json!({"deployment_id": "x", "epoch": 2, "action": {"WriteFile": {"path": marker, "content": "x"}}}),
        json!({"set_config": {"policy": {"deploy": {"enabled": true}}}}),
        json!("reload"),
    ] {
        command(wish);
    }
    double.say(ServerMessage::Certificate { chain_der: vec![vec![1, 2, 3]] });

    wait_for("six refusals and the refused deployment", Duration::from_secs(30), || async {
        let refused = double.look(|seen| seen.control.iter().filter(|message| matches!(message, AgentMessage::Refused { .. })).count());
        let event = double.look(|seen| seen.events.iter().any(|json| json.contains("refused")));
        (refused >= 6 && event).then_some(())
    })
    .await;
    let samples = double.look(|seen| seen.samples);
    wait_for("telemetry to go on", Duration::from_secs(20), || async { double.look(|seen| seen.samples > samples + 100).then_some(()) })
        .await;

    // A message that is none at all ends the connection, and the agent comes back with its telemetry.
    double.say(ServerMessage::Welcome(shipwatch_common::protocol::Welcome { version: 1, name: "x".into(), marks: vec![], now_ms: 0 }));
    wait_for("the agent to come back", Duration::from_secs(30), || async { double.look(|seen| seen.sessions >= 2).then_some(()) }).await;

    assert!(!marker.try_exists().unwrap(), "the server made the agent run or write something");
    assert!(!dir.path().join("srv").try_exists().unwrap());
    assert_eq!(std::fs::read(&config).unwrap(), before, "the server changed the agent's configuration");
    let log = agent.process().said();
    assert!(log.matches("refused a command of the server").count() >= 6, "{log}");
    assert!(log.contains("refused a certificate that was not asked for"), "{log}");
    assert_eq!(agent.process().stop().code(), Some(0));
}
