/** Which tone a state has; the words are in the catalogue. */
import type { Alert, Delivery } from './api/alerts';
import type { DeploymentState, HostProgressState } from './api/deployments';
import type { Severity } from './api/logs';

/** How something is, as `Tag` shows it. */
export type Tone = 'ok' | 'warning' | 'critical' | 'unknown' | 'silenced' | 'changing' | 'off' | 'waiting';

export function alertTone(alert: Pick<Alert, 'state' | 'severity'>): Tone {
  if (alert.state === 'resolved') return 'ok';
  if (alert.state === 'pending') return 'waiting';
  return alert.severity.toLowerCase() === 'critical' ? 'critical' : 'warning';
}

export function deploymentTone(state: DeploymentState): Tone {
  return ({ running: 'changing', succeeded: 'ok', failed: 'critical', aborted: 'off' } as const)[state];
}

export function progressTone(state: HostProgressState): Tone {
  switch (state) {
    case 'succeeded': return 'ok';
    case 'sent': case 'preparing': case 'switching': case 'reverting': return 'changing';
    case 'failed': case 'revert_failed': return 'critical';
    case 'reverted': case 'refused': return 'warning';
    case 'pending': return 'waiting';
    case 'skipped': return 'off';
    case 'unknown': return 'unknown';
  }
}

export function deliveryTone(state: Delivery['state']): Tone {
  return ({ queued: 'waiting', accepted: 'ok', throttled: 'warning', dead: 'critical' } as const)[state];
}

export const SEVERITY_COLORS: Record<Severity, string> = {
  fatal: '--s-fatal', error: '--s-error', warn: '--s-warn', info: '--s-info', debug: '--s-debug', trace: '--s-debug', unknown: '--s-unknown',
};
