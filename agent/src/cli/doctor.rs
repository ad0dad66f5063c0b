//! `shipwatch-agent doctor`: what keeps the agent from working, and how to mend it.

use serde::Serialize;
use shipwatch_agent::{
    config::Config,
    policy,
    uplink::identity::{EnrolError, IdentityStore},
};
use shipwatch_common::{
    time::now_ms,
    transport::{self, Trust},
};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    what: &'static str,
    detail: String,
}

fn good(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Good, what, detail: detail.into() }
}

fn warning(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Warning, what, detail: detail.into() }
}

fn bad(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Bad, what, detail: detail.into() }
}

pub(super) async fn run(config: &Config, json: bool) -> io::Result<ExitCode> {
    let state_dir = Path::new(&config.agent.state_dir);
    let mut findings = vec![user(), state(state_dir), policy_file(config), pressure(), watches(), logs(config)];
    findings.extend(server(config, state_dir).await);
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        for finding in &findings {
            let mark = match finding.verdict {
                Verdict::Good => "ok  ",
                Verdict::Warning => "warn",
                Verdict::Bad => "BAD ",
            };
            writeln!(out, "{mark}  {:<14} {}", finding.what, finding.detail)?;
        }
    }
    Ok(if findings.iter().any(|finding| finding.verdict == Verdict::Bad) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn user() -> Finding {
    if rustix::process::geteuid().is_root() {
        good("user", "root")
    } else {
        warning(
            "user",
            "not root: files of other users and other users' mounts may be missing; run the agent as root or add it to the group adm",
        )
    }
}

fn state(dir: &Path) -> Finding {
    let probe = dir.join("doctor.tmp");
    let written = fs::create_dir_all(dir).and_then(|()| fs::write(&probe, b"x")).and_then(|()| fs::remove_file(&probe));
    if let Err(error) = written {
        return bad("state", format!("{} cannot be written: {error}; set agent.state_dir to a directory of this user", dir.display()));
    }
    match (fs::metadata(dir), rustix::fs::statvfs(dir)) {
        (Ok(meta), _) if meta.mode() & 0o077 != 0 => {
            warning("state", format!("{} can be read by others; the agent makes it private at its next start", dir.display()))
        }
        (_, Ok(space)) if space.f_bavail * space.f_frsize < 512 << 20 => {
            let free_mib = (space.f_bavail * space.f_frsize) >> 20;
            warning("state", format!("only {free_mib} MiB are free at {}; the spool may need up to 416 MiB (see [spool])", dir.display()))
        }
        _ => good("state", dir.display().to_string()),
    }
}

fn policy_file(config: &Config) -> Finding {
    match policy::Source::File(config.agent.policy_file.clone().into()).read() {
        (_, Some(reason)) => bad("policy", reason),
        (policy, None) if policy.deploy.enabled => {
            good("policy", format!("deployments are allowed below {}", policy.deploy.roots.join(", ")))
        }
        _ => good("policy", "deployments are off: the server gets telemetry and no more"),
    }
}

fn pressure() -> Finding {
    if matches!(Path::new("/proc/pressure").try_exists(), Ok(true)) {
        good("kernel", "pressure stall information is there")
    } else {
        warning("kernel", "no /proc/pressure: boot with psi=1 (Linux 4.20 or newer) for node_pressure_* series")
    }
}

fn watches() -> Finding {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match (read("max_user_watches"), read("max_user_instances")) {
        (Some(watches), Some(instances)) if watches >= 8192 && instances >= 64 => {
            good("inotify", format!("{watches} watches, {instances} instances"))
        }
        (Some(watches), Some(instances)) => warning(
            "inotify",
            format!(
                "{watches} watches and {instances} instances are few: sysctl fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances=512; until then files are looked at every second"
            ),
        ),
        _ => warning("inotify", "not available; files are looked at every second instead"),
    }
}

fn logs(config: &Config) -> Finding {
    let wants_journal = config.tail.sources.iter().any(|source| source.journal.is_some());
    if wants_journal && !can_read_journal() {
        return bad("logs", "journalctl is not there: install systemd (apt-get install systemd), or take the journal out of tail.sources");
    }
    if config.tail.files.is_empty() {
        return match config.tail.sources.len() {
            0 => warning("logs", "no files are followed; set tail.files"),
            count => good("logs", format!("{count} sources")),
        };
    }
    let missing: Vec<&str> = config
        .tail
        .files
        .iter()
        .map(String::as_str)
        .filter(|glob| {
            let literal = glob.split(['*', '?', '[', '{']).next().unwrap_or("/");
            let dir =
                if literal.len() == glob.len() || !literal.ends_with('/') { Path::new(literal).parent() } else { Some(Path::new(literal)) };
            dir.is_some_and(|dir| fs::read_dir(dir).is_err())
        })
        .collect();
    if missing.is_empty() {
        good("logs", config.tail.files.join(", "))
    } else {
        warning("logs", format!("no such directory, or not readable, for: {}", missing.join(", ")))
    }
}

fn can_read_journal() -> bool {
    let asked = Command::new("journalctl").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

async fn server(config: &Config, state_dir: &Path) -> Vec<Finding> {
    let identity = match IdentityStore::new(state_dir).load() {
        Ok(identity) => identity,
        Err(EnrolError::NotEnrolled) => return vec![bad("identity", EnrolError::NotEnrolled.to_string())],
        Err(error) => return vec![bad("identity", error.to_string())],
    };
    let mut findings = Vec::new();
    let days = (identity.certificate.not_after_ms - now_ms()) / 86_400_000;
    if identity.certificate.not_after_ms < now_ms() {
        findings.push(bad("identity", "the certificate is out of date: check the clock (`date`), or enrol again with --force"));
    } else {
        findings
            .push(good("identity", format!("{} ({}), certificate good for {days} more days", identity.name, identity.certificate.agent)));
    }
    let address = if config.uplink.server.is_empty() { &identity.server } else { &config.uplink.server };
    let Some(ca) = identity.credentials.chain.last() else { return findings };
    let trust = Trust::Enrolled { ca, credentials: &identity.credentials };
    match transport::connect(address, &trust).await {
        Ok((_endpoint, connection)) => {
            findings.push(good("server", format!("{address} answers over QUIC in {:.1} ms", connection.rtt().as_secs_f64() * 1000.0)));
            connection.close(transport::CLOSE_GOING_AWAY.into(), b"doctor");
        }
        Err(error) => findings.push(bad("server", error.to_string())),
    }
    findings
}
