//! The sample application: v1, v2, a broken v3 that goes back by itself, and a rollback by hand.

use serde_json::{Value, json};
use shipwatch_tests::{Agent, Api, Server, free_port, wait_for};
use std::{path::Path, process::Command, time::Duration};

async fn deploy(api: &Api, spec: &Path, hosts: &[&str]) -> Value {
    let yaml = std::fs::read_to_string(spec).unwrap();
    let (status, made) = api.post("/shipwatch/api/v1/deployments", &json!({"spec_yaml": yaml, "hosts": hosts})).await;
    assert_eq!(status, 201, "{made}");
    ended(api, &made).await
}

async fn ended(api: &Api, made: &Value) -> Value {
    let id = made["id"].as_str().unwrap().to_owned();
    wait_for("the deployment to end", Duration::from_secs(120), || async {
        let deployment = api.try_get(&format!("/shipwatch/api/v1/deployments/{id}"), &[]).await?;
        (deployment["state"] != "running").then_some(deployment)
    })
    .await
}

async fn version(port: u16) -> String {
    match reqwest::get(format!("http://127.0.0.1:{port}/")).await {
        Ok(response) => response.text().await.unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_v2_broken_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (out, root) = (dir.path().join("artifacts"), dir.path().join("srv/sample"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/sample-app/build.sh");
    let built = Command::new("sh").arg(script).args([&out, &root]).env("PORT", port.to_string()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    let policy = format!(
        "[deploy]\nenabled = true\napps = [\"*\"]\nroots = [\"{}\"]\nartifact_urls = [\"file://{}/\"]\nallow_root = true\n",
        dir.path().join("srv").display(),
        out.display()
    );
    std::fs::create_dir_all(dir.path().join("srv")).unwrap();
    std::fs::write(agent.dir().join("policy.toml"), policy).unwrap();
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let api = server.api();
    assert_eq!(api.wait_for_host("web-1", "up").await["deploys_allowed"], true);

    for (release, text) in [("v1", "v1"), ("v2", "v2")] {
        let deployment = deploy(&api, &out.join(release).join("deploy.yml"), &["web-1"]).await;
        assert_eq!(deployment["state"], "succeeded", "{deployment}");
        let answer = version(port).await;
        assert!(answer.contains(text), "{answer}");
    }
    let broken = deploy(&api, &out.join("v3/deploy.yml"), &["web-1"]).await;
    assert_eq!((broken["state"].as_str(), broken["hosts"][0]["state"].as_str()), (Some("failed"), Some("reverted")), "{broken}");
    let answer = version(port).await;
    assert!(answer.contains("v2"), "{answer}");

    let (_, log) = api.get(&format!("/shipwatch/api/v1/deployments/{}/log", broken["id"].as_str().unwrap()), &[]).await;
    let kinds: Vec<&str> = log["events"].as_array().unwrap().iter().filter_map(|event| event["kind"].as_str()).collect();
    for kind in ["state", "step_started", "step_finished", "output"] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }

    let (_, all) = api.get("/shipwatch/api/v1/deployments", &[]).await;
    let second = all["deployments"].as_array().unwrap().iter().find(|one| one["release"] == "v2").unwrap();
    let (status, made) = api.post(&format!("/shipwatch/api/v1/deployments/{}/rollback", second["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(status, 201, "{made}");
    let rolled = ended(&api, &made).await;
    assert_eq!(rolled["state"], "succeeded", "{rolled}");
    let answer = version(port).await;
    assert!(answer.contains("v1"), "{answer}");

    let (status, refused) = api.post("/shipwatch/api/v1/deployments", &json!({"spec_yaml": "version: 2\n", "hosts": ["web-1"]})).await;
    assert_eq!(status, 400, "{refused}");
    let spec = std::fs::read_to_string(out.join("v1/deploy.yml")).unwrap();
    let (status, refused) = api.post("/shipwatch/api/v1/deployments", &json!({"spec_yaml": spec, "hosts": ["nobody"]})).await;
    assert!(status == 409 && refused.to_string().contains("nobody"), "{refused}");
    let stop = Command::new("sh").arg(root.join("current/stop.sh")).env("SHIPWATCH_ROOT", &root).status();
    assert!(stop.is_ok_and(|status| status.success()), "the sample application could not be stopped");
}
