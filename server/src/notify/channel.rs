//! A channel: takes a message and says what became of it. It never retries and keeps no queue; the outbox does.

use super::{
    alert::{Alert, Notification, Severity},
    config::{self, Kind},
    dingtalk::DingTalk,
    email::Email,
    group::Audience,
    http::{Http, shown_target},
    render::Renderer,
    secret::Scrubber,
    webhook::Webhook,
};
use shipwatch_common::time::UnixMs;
use shipwatch_series::matcher::{Matcher, all_match};
use std::{sync::Arc, time::Duration};

/// What became of an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The channel took it; its words.
    Accepted(String),
    /// Not now; try again, not before `after` if that is given.
    Retry {
        /// Why.
        reason: String,
        /// What the channel asked for.
        after: Option<Duration>,
    },
    /// The channel's quota is used up until then.
    Throttled {
        /// Why.
        reason: String,
        /// Until when.
        after: Duration,
    },
    /// It will never take this message.
    Rejected(String),
}

/// Ways to deliver.
#[derive(Debug)]
pub(super) enum Transport {
    Webhook(Webhook),
    DingTalk(DingTalk),
    Email(Box<Email>),
}

/// A configured channel.
#[derive(Debug)]
pub struct Channel {
    name: String,
    kind: Kind,
    target: String,
    min_severity: Severity,
    matchers: Vec<Matcher>,
    send_resolved: bool,
    timeout: Duration,
    transport: Transport,
    scrubber: Scrubber,
}

impl Channel {
    /// From the configuration; reads files of secrets.
    ///
    /// # Errors
    /// What is wrong, with the channel's name, without secrets.
    pub fn open(config: &config::Channel, renderer: &Arc<Renderer>, http: Option<&Http>, timeout: Duration) -> Result<Self, String> {
        let fail = |error: String| format!("notify channel {}: {error}", config.name);
        let url = || -> Result<reqwest::Url, String> {
            config::url(config.url.or_file(&config.url_file)?.reveal()).map_err(|error| format!("url {error}"))
        };
        let secret = config.secret.or_file(&config.secret_file).map_err(fail)?;
        let password = config.password.or_file(&config.password_file).map_err(fail)?;
        let client = || http.cloned().ok_or_else(|| "no HTTP client".to_owned());
        let (transport, target, address) = match config.kind {
            Kind::Webhook => {
                let url = url().map_err(fail)?;
                let made = Webhook::new(client().map_err(fail)?, url.clone(), secret.clone(), Arc::clone(renderer));
                (Transport::Webhook(made), shown_target(&url), Some(url))
            }
            Kind::Dingtalk => {
                let url = url().map_err(fail)?;
                let made = DingTalk::new(client().map_err(fail)?, url.clone(), secret.clone(), config, Arc::clone(renderer));
                (Transport::DingTalk(made), shown_target(&url), Some(url))
            }
            Kind::Email => {
                let made = Email::new(config, &password, timeout, Arc::clone(renderer)).map_err(fail)?;
                let target = made.target();
                (Transport::Email(Box::new(made)), target, None)
            }
        };
        let mut secrets = vec![secret.reveal().to_owned(), password.reveal().to_owned()];
        if let Some(url) = &address {
            secrets.extend(secret_parts(url));
        }
        Ok(Self {
            name: config.name.clone(),
            kind: config.kind,
            target,
            min_severity: config.min_severity,
            matchers: config.matchers.iter().map(|text| config::matcher(text)).collect::<Result<_, _>>().map_err(fail)?,
            send_resolved: config.send_resolved,
            timeout,
            transport,
            scrubber: Scrubber::new(secrets.iter().map(String::as_str)),
        })
    }

    /// What kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Where to, without anything secret.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Messages per minute that it takes, if that is known.
    #[must_use]
    pub const fn per_minute(&self) -> Option<usize> {
        match self.kind {
            // Of the 20 that a robot takes; people test channels as well.
            Kind::Dingtalk => Some(18),
            Kind::Webhook | Kind::Email => None,
        }
    }

    /// One attempt, bounded in time. What it tells holds no secret of the channel.
    pub async fn send(&self, message: &Notification, now_ms: UnixMs) -> Outcome {
        let attempt = async {
            match &self.transport {
                Transport::Webhook(channel) => channel.send(message, now_ms).await,
                Transport::DingTalk(channel) => channel.send(message, now_ms).await,
                Transport::Email(channel) => channel.send(message, now_ms).await,
            }
        };
        let outcome = tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| Outcome::Retry {
            reason: format!("no answer within {}", shipwatch_common::time::format_duration(self.timeout)),
            after: None,
        });
        let clean = |text: String| self.scrubber.clean(&text);
        match outcome {
            Outcome::Accepted(answer) => Outcome::Accepted(clean(answer)),
            Outcome::Retry { reason, after } => Outcome::Retry { reason: clean(reason), after },
            Outcome::Throttled { reason, after } => Outcome::Throttled { reason: clean(reason), after },
            Outcome::Rejected(reason) => Outcome::Rejected(clean(reason)),
        }
    }
}

/// Everything of a URL that may be a credential.
fn secret_parts(url: &reqwest::Url) -> Vec<String> {
    let mut parts = vec![url.as_str().to_owned(), url.username().to_owned(), url.password().unwrap_or_default().to_owned()];
    parts.extend(url.query().map(str::to_owned));
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    // A short part is a word such as `hook`; tokens are long.
    parts.extend(url.path_segments().into_iter().flatten().filter(|part| part.len() >= 12).map(str::to_owned));
    parts
}

impl Audience for Channel {
    fn name(&self) -> &str {
        &self.name
    }

    fn accepts(&self, alert: &Alert) -> bool {
        Severity::of(&alert.labels) >= self.min_severity && all_match(&self.matchers, &alert.labels)
    }

    fn wants_resolved(&self) -> bool {
        self.send_resolved
    }
}

impl<T: Audience> Audience for Arc<T> {
    fn name(&self) -> &str {
        T::name(self)
    }

    fn accepts(&self, alert: &Alert) -> bool {
        T::accepts(self, alert)
    }

    fn wants_resolved(&self) -> bool {
        T::wants_resolved(self)
    }
}
