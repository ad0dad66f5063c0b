//! Personal data and secrets in a followed file: found nowhere behind the agent's masker.

use shipwatch_tests::{Agent, Server, double::Double, files_with, wait_for};
use std::{path::Path, time::Duration};

/// What is planted; none of these may be seen anywhere.
const PLANTED: &[&str] = &[
    "4111111111111111",
    "6222021234567890128",
    "5500-0055-5555-5559",
    "13812345678",
    "+8613912345679",
    "11010519491231002X",
    "zhang.wei@example.com",
    "hunter2-very-secret",
    "P@ssw0rd!2026",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "LTAI5tAbCdEfGhIjKlMnOpQr",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "AKIAIOSFODNN7EXAMPLE",
];

const LINES: &str = r#"INFO paid with card 4111111111111111 by zhang.wei@example.com
{"level":"info","card":"6222021234567890128","phone":"13812345678","password":"hunter2-very-secret"}
ERROR card=5500-0055-5555-5559 mobile=+8613912345679 id_card=11010519491231002X
GET /login?user=a&password=P@ssw0rd!2026&token=ghp_abcdefghijklmnopqrstuvwxyz0123456789 HTTP/1.1
Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U
access_key_id: LTAI5tAbCdEfGhIjKlMnOpQr aws=AKIAIOSFODNN7EXAMPLE
last line of the planted file
"#;

fn nowhere(dir: &Path) {
    for secret in PLANTED {
        let found = files_with(dir, secret.as_bytes());
        assert!(found.is_empty(), "{secret} is in {found:?}");
    }
}

fn tail(dir: &Path) -> String {
    let logs = dir.join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(logs.join("shop.log"), LINES).unwrap();
    format!("[tail]\nfiles = [\"{}/*.log\"]\nstart_at = \"beginning\"\nrescan = \"200ms\"\n", logs.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_in_spool_server_files_api_or_logs() {
    let dir = tempfile::tempdir().unwrap();
    let planted = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), &tail(planted.path()));
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    // Without a server first, so that everything lies in the spool.
    server.process().kill();
    agent.start();
    let spool = agent.state().join("spool/logs");
    wait_for("the lines to be in the spool", Duration::from_secs(30), || async {
        (spool.is_dir() && !files_with(&spool, b"last line of the planted file").is_empty()).then_some(())
    })
    .await;
    nowhere(&agent.state());
    server.run().await;
    let api = server.api();
    let lines = wait_for("the lines to be stored", Duration::from_secs(30), || async {
        let lines = api.lines(r#"{filename=~".*shop.log"}"#).await;
        (lines.len() == 7).then_some(lines)
    })
    .await;
    for secret in PLANTED {
        assert!(!lines.iter().any(|(_, line)| line.contains(secret)), "{secret} came out of the API");
    }
    assert!(lines.iter().any(|(_, line)| line.contains("paid with card [")), "{lines:?}");
    server.process().stop();
    agent.process().stop();
    nowhere(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_in_the_decrypted_frames() {
    let dir = tempfile::tempdir().unwrap();
    let planted = tempfile::tempdir().unwrap();
    let double = Double::start();
    let mut agent = Agent::prepare(&dir.path().join("agent"), &tail(planted.path()));
    agent.enrol(&double.address.to_string(), &double.token, "web-1");
    agent.start();
    let has = |needle: &[u8]| double.look(|seen| seen.bytes.windows(needle.len()).any(|window| window == needle));
    wait_for("the lines to arrive", Duration::from_secs(30), || async { has(b"last line of the planted file").then_some(()) }).await;
    wait_for("samples to arrive", Duration::from_secs(30), || async { double.look(|seen| seen.samples > 0).then_some(()) }).await;
    for secret in PLANTED {
        assert!(!has(secret.as_bytes()), "{secret} was sent");
    }
}
