//! The sample app that is shipped, deployed as its users do: real archives, a real service, real HTTP.

use crate::host::Host;
use shipwatch_agent::deploy::local;
use shipwatch_common::model::deploy::HostState;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Ends the service whatever the test comes to.
struct Service<'a>(&'a Host);

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let root = self.0.root("sample-app");
        let _ = Command::new("sh").arg("stop.sh").current_dir(root.join("current")).env("SHIPWATCH_ROOT", &root).status();
    }
}

#[test]
fn the_broken_version_is_taken_back_and_the_one_before_serves() {
    if Command::new("node").arg("--version").output().is_err() {
        // The app is written for Node, which building the agent does not need.
        return;
    }
    let host = Host::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let out = host.base.join("artifacts");
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/sample-app/build.sh");
    let built = Command::new(build).args([out.as_path(), &host.root("sample-app")]).env("PORT", port.to_string()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let _service = Service(&host);
    for (release, end, serves) in
        [("v1", HostState::Succeeded, "v1"), ("v2", HostState::Succeeded, "v2"), ("v3", HostState::Reverted, "v2")]
    {
        let file = out.join(release).join("deploy.yml");
        let quick =
            fs::read_to_string(&file).unwrap().replace("interval: 500ms", "interval: 50ms").replace("deadline: 15s", "deadline: 2s");
        fs::write(&file, quick).unwrap();
        let mut setup = host.setup();
        setup.path = std::env::vars().find(|(name, _)| name == "PATH").unwrap().1;
        let mut told = Vec::new();
        let (state, reason) = local::run(&out.join(release), setup, |event| told.push(format!("{:?}", event.kind))).unwrap();
        assert_eq!(state, end, "{reason}\n{}", told.join("\n"));
        if release == "v3" {
            assert!(reason.contains("status 500") && reason.contains("v2 serves again"), "{reason}");
        }
        assert!(get(port).contains(&format!("\"version\":\"{serves}\"")), "{}", get(port));
    }
    let log = fs::read_to_string(host.root("sample-app").join("shared/app.log")).unwrap();
    assert!(log.contains("ERROR sample-app v3") && log.contains("phone=13800138000"), "{log}");
}
