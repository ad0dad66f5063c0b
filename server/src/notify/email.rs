//! Mail by SMTP: text and HTML, a stable id per message, one thread per group.
//!
//! Header values are built by lettre's types only; what came from elsewhere is on one line before it gets there.

use super::{
    alert::Notification,
    channel::Outcome,
    config::{self, MailTls},
    render::Renderer,
    secret::Secret,
};
use crate::causes::causes;
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, MultiPart, header},
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};
use sha2::{Digest as _, Sha256};
use shipwatch_common::time::UnixMs;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Longest part of a mail.
const MAX_PART_BYTES: usize = 200_000;

#[derive(Debug)]
pub(super) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    target: String,
    from: Mailbox,
    to: Vec<Mailbox>,
    renderer: Arc<Renderer>,
}

impl Email {
    pub(super) fn new(config: &config::Channel, password: &Secret, timeout: Duration, renderer: Arc<Renderer>) -> Result<Self, String> {
        let (usual, tls) = match config.tls {
            MailTls::None => (25, Tls::None),
            MailTls::Starttls => (587, Tls::Required(parameters(&config.host)?)),
            MailTls::Tls => (465, Tls::Wrapper(parameters(&config.host)?)),
        };
        let port = if config.port == 0 { usual } else { config.port };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host).port(port).tls(tls).timeout(Some(timeout));
        if !config.username.is_empty() {
            builder = builder.credentials(Credentials::new(config.username.clone(), password.reveal().to_owned()));
        }
        let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|error| format!("{text:?}: {error}"));
        let scheme = if config.tls == MailTls::Tls { "smtps" } else { "smtp" };
        Ok(Self {
            transport: builder.build(),
            target: format!("{scheme}://{}:{port}", config.host),
            from: mailbox(&config.from)?,
            to: config.to.iter().map(mailbox).collect::<Result<_, _>>()?,
            renderer,
        })
    }

    pub(super) fn target(&self) -> String {
        self.target.clone()
    }

    fn message(&self, message: &Notification) -> Result<Message, String> {
        let domain = self.from.email.domain();
        let thread = shipwatch_common::identity::hex(&Sha256::digest(message.group_key.as_bytes())[..8]);
        let made = u64::try_from(message.created_at_ms).map(Duration::from_millis).unwrap_or_default();
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(self.renderer.title(message))
            .date(SystemTime::UNIX_EPOCH + made)
            .message_id(Some(format!("<{}@{domain}>", message.id)))
            .header(header::References::from(format!("<group-{thread}@{domain}>")));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let parts =
            MultiPart::alternative_plain_html(self.renderer.text(message, MAX_PART_BYTES), self.renderer.html(message, MAX_PART_BYTES));
        builder.multipart(parts).map_err(|error| format!("the mail cannot be built: {error}"))
    }

    pub(super) async fn send(&self, message: &Notification, _now_ms: UnixMs) -> Outcome {
        let mail = match self.message(message) {
            Ok(mail) => mail,
            Err(error) => return Outcome::Rejected(error),
        };
        match self.transport.send(mail).await {
            Ok(response) => Outcome::Accepted(format!("{} {}", response.code(), response.message().collect::<Vec<_>>().join(" "))),
            Err(error) if error.is_permanent() => Outcome::Rejected(causes(&error)),
            Err(error) => Outcome::Retry { reason: causes(&error), after: None },
        }
    }
}

fn parameters(host: &str) -> Result<TlsParameters, String> {
    TlsParameters::new(host.to_owned()).map_err(|error| format!("tls for {host}: {}", causes(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{
        config::Language,
        render::samples::{message, renderer},
    };

    fn email() -> Email {
        let config = config::Channel {
            host: "127.0.0.1".into(),
            tls: MailTls::None,
            from: "护航 <alerts@example.com>".into(),
            to: vec!["a@example.com".into(), "B <b@example.com>".into()],
            ..config::tests_channel()
        };
        Email::new(&config, &Secret::default(), Duration::from_secs(1), Arc::new(renderer(Language::Both))).unwrap()
    }

    #[test]
    fn headers_are_whole_and_safe() {
        let mut told = message("mail");
        let name = "Evil\r\nBcc: victim@example.com\r\n\r\nbody";
        told.alerts[0].labels = told.alerts[0].labels.with([("alertname", name)]).unwrap();
        let mail = String::from_utf8(email().message(&told).unwrap().formatted()).unwrap();
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(head.contains("Message-ID: <0123456789abcdef0123456789abcdef@example.com>"), "{head}");
        assert!(head.contains("To: a@example.com, B <b@example.com>"), "{head}");
        assert!(head.contains("Subject: =?utf-8?b?") && head.is_ascii(), "{head}");
        assert!(head.contains("References: <group-"), "{head}");
        assert!(body.contains("Content-Type: text/plain; charset=utf-8") && body.contains("Content-Type: text/html; charset=utf-8"));
    }
}
