//! Asks a release whether it is healthy.
//!
//! Each check must pass the asked number of times in a row before its deadline. The last failure's reason is what people
//! get to see, since "did not become healthy" alone helps nobody. An attempt that the deadline cuts short says nothing about the
//! release: then it is the reason of the one before.
//!
//! # Invariants
//! - One attempt never takes longer than its timeout, nor a check longer than its deadline and one attempt.
//! - An answer is read up to a bound.

use super::fetch;
use shipwatch_common::{mask::Masker, model::deploy::Health, time::format_duration};
use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};
use tokio::{net::TcpStream, time::Instant};

/// Of a body that is searched for `contains`.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Of an `exec` check's output that is shown.
const SHOWN_BYTES: u64 = 300;

/// Where `exec` checks run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Working directory.
    pub cwd: &'a Path,
    /// The whole environment.
    pub env: &'a BTreeMap<String, String>,
    /// A file for the output of `exec` checks.
    pub output: &'a Path,
    /// For what the app answered.
    pub masker: &'a Masker,
}

/// Runs all checks, one after the other.
///
/// # Errors
/// Which check did not pass and why.
pub(crate) async fn check(checks: &[Health], place: Place<'_>) -> Result<String, String> {
    let mut attempts = 0;
    for health in checks {
        attempts += check_one(health, place).await.map_err(|reason| place.masker.mask(&reason).text.into_owned())?;
    }
    Ok(format!("healthy after {attempts} attempt{}", if attempts == 1 { "" } else { "s" }))
}

async fn check_one(health: &Health, place: Place<'_>) -> Result<u32, String> {
    let until = Instant::now() + health.deadline;
    let mut in_a_row = 0;
    let mut attempts = 0;
    let mut last: Option<String> = None;
    loop {
        let began = Instant::now();
        attempts += 1;
        let timeout = health.timeout.min(until.saturating_duration_since(began).max(Duration::from_millis(1)));
        let answer = tokio::time::timeout(timeout, attempt(health, place)).await;
        let is_cut_short = answer.is_err() && timeout < health.timeout;
        let reason = match answer.unwrap_or_else(|_| Err(format!("no answer within {}", format_duration(timeout)))) {
            Err(reason) if is_cut_short => last.unwrap_or(reason),
            Ok(()) => {
                in_a_row += 1;
                if in_a_row >= health.pass {
                    return Ok(attempts);
                }
                format!("passed {in_a_row} times in a row, {} needed", health.pass)
            }
            Err(reason) => {
                in_a_row = 0;
                reason
            }
        };
        let next = began + health.interval;
        if next >= until || Instant::now() >= until {
            return Err(late(health, attempts, &reason));
        }
        last = Some(reason);
        tokio::time::sleep_until(next).await;
    }
}

fn late(health: &Health, attempts: u32, reason: &str) -> String {
    let name = match (&health.http, &health.tcp, &health.exec) {
        (Some(url), ..) => format!("http {}", url.split('?').next().unwrap_or(url)),
        (_, Some(address), _) => format!("tcp {address}"),
        (.., Some(run)) => format!("exec `{}`", run.lines().next().unwrap_or_default()),
        _ => "check".to_owned(),
    };
    format!("{name} did not pass within {} ({attempts} attempts), at last: {reason}", format_duration(health.deadline))
}

async fn attempt(health: &Health, place: Place<'_>) -> Result<(), String> {
    if let Some(url) = &health.http {
        http(url, health.contains.as_deref()).await
    } else if let Some(address) = &health.tcp {
        TcpStream::connect(address).await.map(drop).map_err(|error| format!("could not connect: {error}"))
    } else if let Some(run) = &health.exec {
        exec(run, place).await
    } else {
        Err("the check is empty".to_owned())
    }
}

async fn http(url: &str, contains: Option<&str>) -> Result<(), String> {
    let client = if url.starts_with("https://") { fetch::tls_client() } else { fetch::plain_client() }?;
    let mut response = client.get(url).send().await.map_err(|error| fetch::chain(&error.without_url()))?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("status {status}"));
    }
    let Some(wanted) = contains else { return Ok(()) };
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| fetch::chain(&error.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY_BYTES {
            break;
        }
    }
    if String::from_utf8_lossy(&body).contains(wanted) {
        return Ok(());
    }
    Err(format!("status {status}, but the answer of {} bytes does not contain `{wanted}`", body.len()))
}

async fn exec(run: &str, place: Place<'_>) -> Result<(), String> {
    let output = std::fs::File::create(place.output).map_err(|error| format!("{}: {error}", place.output.display()))?;
    let copy = output.try_clone().map_err(|error| error.to_string())?;
    let mut child = tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(run)
        .current_dir(place.cwd)
        .env_clear()
        .envs(place.env)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(copy)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("could not start: {error}"))?;
    let group = Group(child.id());
    let status = child.wait().await.map_err(|error| error.to_string())?;
    group.keep();
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let read = std::fs::File::open(place.output).and_then(|file| {
        use std::io::Read as _;
        file.take(SHOWN_BYTES).read_to_end(&mut said)
    });
    let said = if read.is_ok() { String::from_utf8_lossy(&said).trim().replace('\n', " | ") } else { String::new() };
    Err(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") })
}

/// Kills a check's whole process group when its attempt is given up.
struct Group(Option<u32>);

impl Group {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The child is dropped, and reaped, after this: its number is still its own.
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "could not end a health check");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    fn health(change: impl FnOnce(&mut Health)) -> Health {
        let mut health = Health {
            http: None,
            contains: None,
            tcp: None,
            exec: None,
            interval: Duration::from_millis(10),
            timeout: Duration::from_millis(300),
            pass: 2,
            deadline: Duration::from_millis(150),
        };
        change(&mut health);
        health
    }

    async fn run(health: Health) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let masker = Masker::new(&Default::default()).unwrap();
        let output = dir.path().join("out");
        check(&[health], Place { cwd: dir.path(), env: &env, output: &output, masker: &masker }).await
    }

    /// Answers 500 for the first `bad` requests.
    async fn serve(bad: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut count = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 2048];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                if read == 0 {
                    continue;
                }
                let status = if count < bad { "500 Internal Server Error" } else { "200 OK" };
                count += 1;
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nready");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn http_needs_a_good_status_and_the_text() {
        let address = serve(2).await;
        let url = format!("http://{address}/up?key=1");
        assert_eq!(
            run(health(|h| (h.http, h.contains) = (Some(url.clone()), Some("ready".into())))).await.unwrap(),
            "healthy after 4 attempts"
        );
        let told = run(health(|h| (h.http, h.contains) = (Some(url.clone()), Some("other".into())))).await.unwrap_err();
        assert!(told.contains("does not contain `other`") && !told.contains("key=1"), "{told}");
        let broken = serve(usize::MAX).await;
        let told = run(health(|h| h.http = Some(format!("http://{broken}/")))).await.unwrap_err();
        assert!(told.contains("status 500") && told.contains("within 150ms"), "{told}");
    }

    #[tokio::test]
    async fn tcp_needs_a_listener() {
        let address = serve(0).await;
        run(health(|h| h.tcp = Some(address.clone()))).await.unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let told = run(health(|h| h.tcp = Some(free.to_string()))).await.unwrap_err();
        assert!(told.contains("could not connect"), "{told}");
    }

    #[tokio::test]
    async fn exec_needs_exit_code_0_in_time() {
        run(health(|h| (h.exec, h.deadline) = (Some("test -d .".into()), Duration::from_secs(5)))).await.unwrap();
        let deadline = Duration::from_secs(1);
        let told = run(health(|h| (h.exec, h.deadline) = (Some("echo not yet; exit 7".into()), deadline))).await.unwrap_err();
        assert!(told.contains("exit status: 7: not yet"), "{told}");
        let hung = run(health(|h| (h.exec, h.timeout) = (Some("sleep 60".into()), Duration::from_millis(50)))).await.unwrap_err();
        assert!(hung.contains("no answer within"), "{hung}");
    }

    #[tokio::test]
    async fn an_attempt_that_the_deadline_cuts_short_hides_no_reason() {
        let dir = tempfile::tempdir().unwrap();
        // The first attempt fails at once, the second one hangs into the deadline.
        let run_this = format!("[ -e {0} ] && sleep 60; touch {0}; echo no database; exit 3", dir.path().join("tried").display());
        let change = |h: &mut Health| (h.exec, h.timeout, h.deadline) = (Some(run_this), Duration::from_secs(60), Duration::from_secs(1));
        let told = run(health(change)).await.unwrap_err();
        assert!(told.contains("(2 attempts), at last: exit status: 3: no database"), "{told}");
    }

    #[tokio::test]
    async fn a_failure_in_between_starts_the_count_again() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        // Passes on attempts 1, 3, 4.
        let run_this = format!("echo x >> {0}; n=$(wc -l < {0}); [ $n != 2 ]", count.display());
        let told = run(health(|h| (h.exec, h.deadline) = (Some(run_this), Duration::from_secs(10)))).await.unwrap();
        assert_eq!(told, "healthy after 4 attempts");
    }
}
