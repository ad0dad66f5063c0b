/** Alerts, channels, messages. */
import { get, post } from './client';

export const ALERT_STATES = ['firing', 'pending', 'resolved'] as const;
export type AlertState = (typeof ALERT_STATES)[number];

export interface Alert {
  fingerprint: string;
  name: string;
  state: AlertState;
  severity: string;
  value: number | null;
  labels: Record<string, string>;
  annotations: Record<string, string>;
  expr: string;
  group: string;
  active_at_ms: number | null;
  fired_at_ms: number | null;
  resolved_at_ms: number | null;
}

export interface AlertDetail extends Alert {
  history: { at_ms: number; state: AlertState; value: number | null }[];
  deliveries: Delivery[];
}

export const DELIVERY_STATES = ['queued', 'accepted', 'throttled', 'dead'] as const;

export interface Delivery {
  id: string;
  channel: string;
  kind: string;
  state: (typeof DELIVERY_STATES)[number];
  reason: string;
  title: string;
  attempts: number;
  created_at_ms: number;
  next_attempt_ms: number | null;
  finished_at_ms: number | null;
  last_error: string | null;
  fingerprints: string[];
}

export interface Channel {
  name: string;
  kind: string;
  target: string;
}

export const alerts = (signal?: AbortSignal) => get<{ alerts: Alert[] }>('/alerts', { state: ALERT_STATES.join(',') }, signal);
export const alert = (fingerprint: string, signal?: AbortSignal) =>
  get<AlertDetail>(`/alerts/${encodeURIComponent(fingerprint)}`, {}, signal);
export const notifications = (limit: number, signal?: AbortSignal) => get<{ deliveries: Delivery[] }>('/notifications', { limit }, signal);
export const channels = (signal?: AbortSignal) => get<{ channels: Channel[] }>('/channels', {}, signal);
export const testChannel = (name: string) =>
  post<{ ok: boolean; answer: string; took_ms?: number }>(`/channels/${encodeURIComponent(name)}/test`);

/** When the alert began to be what it is. */
export function alertSince(alert: Alert): number | null {
  if (alert.state === 'resolved') return alert.resolved_at_ms;
  return alert.state === 'firing' ? (alert.fired_at_ms ?? alert.active_at_ms) : alert.active_at_ms;
}

/** Worst first, then the newest. */
export function byUrgency(a: Alert, b: Alert): number {
  const rank = (one: Alert) => ALERT_STATES.indexOf(one.state) * 10 + ['critical', 'warning'].indexOf(one.severity.toLowerCase()) + (isKnown(one) ? 0 : 5);
  return rank(a) - rank(b) || (alertSince(b) ?? 0) - (alertSince(a) ?? 0);
}

function isKnown(alert: Alert): boolean {
  return ['critical', 'warning'].includes(alert.severity.toLowerCase());
}
