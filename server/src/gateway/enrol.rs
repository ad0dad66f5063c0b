//! How a host gets its first certificate.

use super::Shared;
use shipwatch_common::{
    identity::EnrolmentToken,
    model::AgentId,
    protocol::{EnrolAnswer, EnrolRequest},
    time::{duration_ms, now_ms},
    transport::{self, Receiver, TransportError},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tracing::{info, warn};

/// A host that takes longer is not served.
const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn serve(connection: &quinn::Connection, shared: &Arc<Shared>) {
    let remote = connection.remote_address();
    match tokio::time::timeout(TIMEOUT, exchange(connection, shared)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%remote, %error, "enrolment failed"),
        Err(_) => warn!(%remote, "enrolment took too long"),
    }
    // The agent closes once it has the answer.
    let _agent_slow = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await;
}

async fn exchange(connection: &quinn::Connection, shared: &Arc<Shared>) -> Result<(), TransportError> {
    let lost = |error: quinn::ConnectionError| TransportError::Lost(transport::explain(&error));
    let (mut to, from) = connection.accept_bi().await.map_err(lost)?;
    let mut from = Receiver::new(from);
    let Some(request) = from.next::<EnrolRequest>().await? else { return Ok(()) };
    let answer = match enrol(&request, shared).await {
        Ok(answer) => answer,
        Err(reason) => {
            shared.counters.refused_total.fetch_add(1, Ordering::Relaxed);
            warn!(remote = %connection.remote_address(), name = %request.name, %reason, "refused an enrolment");
            EnrolAnswer::Refused { reason }
        }
    };
    transport::send(&mut to, &answer).await?;
    let _already_closed = to.finish();
    Ok(())
}

/// A host name that is safe in labels, paths and messages.
fn clean_name(wish: &str) -> String {
    let name: String = wish.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).take(63).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

async fn enrol(request: &EnrolRequest, shared: &Arc<Shared>) -> Result<EnrolAnswer, String> {
    let now = now_ms();
    let life = shared.config.certificate_life;
    let expires = now.saturating_add(duration_ms(life));
    let agent = AgentId(*uuid::Uuid::now_v7().as_bytes());
    // Signed before the token is used up: a request that cannot be signed costs no use.
    let chain = shared.authority.issue_agent(agent, &request.csr_der, now, life).map_err(|error| error.to_string())?;
    let hash = EnrolmentToken::secret_hash(&request.secret);
    let host = shared
        .store
        .enrol(hash, agent, &clean_name(&request.name), request.facts.clone(), expires, now)
        .await
        .map_err(|error| error.to_string())?;
    info!(host = %host.name, id = %host.id, env = %host.env, region = %host.region, "host enrolled");
    shared.changed.host(&host.id.to_string());
    Ok(EnrolAnswer::Accepted { chain_der: chain.iter().map(|certificate| certificate.to_vec()).collect(), name: host.name })
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_made_safe() {
        for (wish, name) in [("web-1.eu", "web-1.eu"), ("a b/../c\n", "ab..c"), ("主机", "host"), ("", "host")] {
            assert_eq!(super::clean_name(wish), name);
        }
    }
}
