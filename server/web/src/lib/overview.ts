/** What is wrong now and what changed, put together from all resources. Pure: the time is an argument. */
import { alertSince, byUrgency, type Alert, type Delivery } from './api/alerts';
import type { Deployment } from './api/deployments';
import type { Host } from './api/hosts';
import type { Catalogue } from './i18n';
import { alertTone, deliveryTone, deploymentTone, type Tone } from './tones';

export interface Item {
  key: string;
  tone: Tone;
  word: string;
  title: string;
  detail: string;
  atMs: number | null;
  /** Path inside the dashboard. */
  path: string;
  env: string;
}

export interface Sources {
  hosts: Host[] | undefined;
  alerts: Alert[] | undefined;
  deployments: Deployment[] | undefined;
  deliveries: Delivery[] | undefined;
}

export const DAY_MS = 86_400_000;

/** Worst first; among equals the newest first. */
export function wrongNow(from: Sources, nowMs: number, t: Catalogue): Item[] {
  const firing = (from.alerts ?? []).filter((alert) => alert.state === 'firing').sort(byUrgency).map((alert) => ofAlert(alert, t));
  const silent = (from.hosts ?? []).filter((host) => host.state === 'silent').map((host): Item => ({
    key: `host-${host.id}`, tone: 'critical', word: t.hostState.silent, title: t.overview.hostSilent(host.name), detail: [t.common.envs[host.env] ?? host.env, host.region].filter(Boolean).join(' · '),
    atMs: host.last_seen_ms, path: `/hosts/${encodeURIComponent(host.name)}`, env: host.env,
  }));
  const latest = latestOfApps(from.deployments ?? []);
  const deployments = (from.deployments ?? [])
    // A failure that a later deployment of the application has mended is no longer wrong.
    .filter((one) => one.state === 'running' || (one.state === 'failed' && latest.get(one.app) === one.id && nowMs - (one.finished_at_ms ?? one.created_at_ms) < DAY_MS))
    .map((one) => ofDeployment(one, t, envOf(one, from.hosts)));
  const messages = (from.deliveries ?? [])
    .filter((one) => (one.state === 'dead' || one.state === 'throttled') && nowMs - one.created_at_ms < DAY_MS)
    .map((one): Item => ({
      key: `message-${one.id}`, tone: deliveryTone(one.state), word: t.deliveryState[one.state], title: one.state === 'dead' ? t.overview.undelivered(one.channel) : t.overview.throttled(one.channel),
      detail: [one.title, one.last_error].filter(Boolean).join(' · '), atMs: one.finished_at_ms ?? one.created_at_ms, path: '/alerts?tab=messages', env: '',
    }));
  const rank: Partial<Record<Tone, number>> = { critical: 0, warning: 1, changing: 2 };
  return [...firing, ...silent, ...deployments, ...messages].sort((a, b) => (rank[a.tone] ?? 3) - (rank[b.tone] ?? 3) || (b.atMs ?? 0) - (a.atMs ?? 0));
}

function ofAlert(alert: Alert, t: Catalogue): Item {
  return {
    key: `alert-${alert.fingerprint}`, tone: alertTone(alert), word: t.severity[alert.severity.toLowerCase()] ?? t.alertState[alert.state], title: [alert.name, alert.labels.instance].filter(Boolean).join(' · '),
    detail: alert.annotations.summary ?? '', atMs: alertSince(alert), path: `/alerts/${alert.fingerprint}`, env: alert.labels.env ?? '',
  };
}

function ofDeployment(one: Deployment, t: Catalogue, env: string): Item {
  const name = `${one.app} ${one.release}`;
  const done = one.hosts.filter((host) => host.state === 'succeeded').length;
  const title = {
    running: t.overview.deployRunning(name), failed: t.overview.deployFailed(name), aborted: t.overview.deployAborted(name),
    succeeded: one.rollback_of ? t.overview.rolledBack(name) : t.overview.deploySucceeded(name),
  }[one.state];
  const detail = [one.state === 'running' ? t.deploys.progressOf(done, one.hosts.length) : t.overview.onHosts(one.hosts.length), one.created_by && t.overview.by(one.created_by), one.reason].filter(Boolean).join(' · ');
  return { key: `deploy-${one.id}`, tone: deploymentTone(one.state), word: t.deploymentState[one.state], title, detail, atMs: one.finished_at_ms ?? one.created_at_ms, path: `/deploys/${one.id}`, env };
}

function envOf(one: Deployment, hosts: Host[] | undefined): string {
  const envs = new Set(one.hosts.map(({ name }) => hosts?.find((host) => host.name === name)?.env ?? ''));
  return envs.size === 1 ? [...envs][0]! : '';
}

function latestOfApps(deployments: Deployment[]): Map<string, string> {
  const latest = new Map<string, Deployment>();
  for (const one of deployments) {
    const other = latest.get(one.app);
    if (!other || one.created_at_ms > other.created_at_ms) latest.set(one.app, one);
  }
  return new Map([...latest].map(([app, one]) => [app, one.id]));
}

/** The last day, newest first. */
export function changes(from: Sources, nowMs: number, t: Catalogue): Item[] {
  const items: Item[] = [];
  for (const one of from.deployments ?? []) if (one.state !== 'running') items.push(ofDeployment(one, t, envOf(one, from.hosts)));
  for (const alert of from.alerts ?? []) {
    const named = [alert.name, alert.labels.instance].filter(Boolean).join(' · ');
    const base = { path: `/alerts/${alert.fingerprint}`, env: alert.labels.env ?? '', detail: alert.annotations.summary ?? '' };
    if (alert.fired_at_ms) items.push({ ...base, key: `fired-${alert.fingerprint}`, tone: alertTone({ ...alert, state: 'firing' }), word: t.alertState.firing, title: t.overview.fired(named), atMs: alert.fired_at_ms });
    if (alert.resolved_at_ms) items.push({ ...base, key: `resolved-${alert.fingerprint}`, tone: 'ok', word: t.alertState.resolved, title: t.overview.resolved(named), atMs: alert.resolved_at_ms, detail: '' });
  }
  for (const host of from.hosts ?? []) {
    if (host.enrolled_at_ms) items.push({ key: `joined-${host.id}`, tone: 'ok', word: t.overview.joined, title: t.overview.enrolled(host.name), detail: [t.common.envs[host.env] ?? host.env, host.region].filter(Boolean).join(' · '), atMs: host.enrolled_at_ms, path: `/hosts/${encodeURIComponent(host.name)}`, env: host.env });
  }
  return items.filter((item) => nowMs - (item.atMs ?? 0) < DAY_MS).sort((a, b) => (b.atMs ?? 0) - (a.atMs ?? 0));
}
