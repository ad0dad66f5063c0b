//! Who is let in, and what the others are told, at both ends.

use shipwatch_tests::{Agent, Server, double::Double, wait_for};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_and_servers_get_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let agent = Agent::prepare(&dir.path().join("agent"), "");
    let enrol = |token: &str, address: &str| agent.command(&["enroll", "--server", address, "--token", token, "--name", "x"]);
    let address = server.agents_address();

    let (code, said) = enrol("swe_nonsense", &address);
    assert!(code != 0 && said.contains("token is not usable"), "{said}");
    let other = Double::start();
    let (code, said) = enrol(&other.token, &address);
    assert!(code != 0 && said.contains("the token is of another server"), "{said}");
    let expired = server.command(&["token", "create", "--env", "test", "--ttl", "1ms"]);
    let (code, said) = enrol(&expired, &address);
    assert!(code != 0 && said.contains("expired"), "{said}");
    let once = server.command(&["token", "create", "--env", "test"]);
    assert_eq!(enrol(&once, &address).0, 0);
    let (code, said) = enrol(&once, &address);
    assert!(code != 0 && said.contains("already enrolled"), "{said}");
    let (code, said) = agent.command(&["enroll", "--server", &address, "--token", &once, "--force"]);
    assert!(code != 0 && said.contains("used up"), "{said}");
    let (code, said) = enrol(&server.token(), "127.0.0.1:1");
    assert!(code != 0, "{said}");
    let log = server.process().said();
    assert!(log.contains("refused an enrolment") && log.contains("expired"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_certificate_is_refused_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let double = Double::start();
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    agent.enrol(&double.address.to_string(), &double.token, "web-1");
    let mut server = Server::start(dir.path(), "").await;
    let config = std::fs::read_to_string(agent.dir().join("agent.toml")).unwrap();
    std::fs::write(agent.dir().join("agent.toml"), format!("{config}\n[uplink]\nserver = \"{}\"\n", server.agents_address())).unwrap();
    agent.start();
    wait_for("the agent to say why", Duration::from_secs(30), || {
        let said = agent.process().said();
        async move { said.contains("its CA differs").then_some(()) }
    })
    .await;
    wait_for("the server to say why", Duration::from_secs(30), || {
        let said = server.process().said();
        async move { said.contains("refused a connection").then_some(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renew_themselves_and_revocation_cuts_live_connections() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "[gateway]\ncertificate_life = \"30s\"\n").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    let api = server.api();
    let first = api.get("/shipwatch/api/v1/hosts/web-1", &[]).await.1["certificate_expires_ms"].as_i64().unwrap();
    agent.start();
    api.wait_for_host("web-1", "up").await;
    wait_for("a renewed certificate", Duration::from_secs(40), || async {
        let host = api.try_get("/shipwatch/api/v1/hosts/web-1", &[]).await?;
        (host["certificate_expires_ms"].as_i64()? > first).then_some(())
    })
    .await;
    // A restart uses the renewed pair.
    agent.process().kill();
    agent.start();
    api.wait_for_host("web-1", "up").await;

    let said = server.command(&["host", "revoke", "web-1"]);
    assert!(said.contains("revoked web-1"), "{said}");
    wait_for("the live connection to be cut", Duration::from_secs(20), || {
        let said = agent.process().said();
        async move { said.contains("this host was revoked").then_some(()) }
    })
    .await;
    agent.process().kill();
    agent.start();
    wait_for("the server to refuse it again", Duration::from_secs(20), || {
        let said = server.process().said();
        async move { said.contains("refused a connection").then_some(()) }
    })
    .await;
    assert_eq!(api.get("/shipwatch/api/v1/hosts/web-1", &[]).await.1["state"], "revoked");
}
