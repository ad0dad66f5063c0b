/** Deployments. */
import { get, own, post } from './client';

export const DEPLOYMENT_STATES = ['running', 'succeeded', 'failed', 'aborted'] as const;
export type DeploymentState = (typeof DEPLOYMENT_STATES)[number];
export const HOST_PROGRESS = [
  'pending', 'sent', 'preparing', 'switching', 'reverting', 'succeeded', 'failed', 'reverted', 'revert_failed', 'refused', 'skipped', 'unknown',
] as const;
export type HostProgressState = (typeof HOST_PROGRESS)[number];
export type Strategy = 'one_by_one' | 'all_at_once';

export interface HostProgress {
  id: string;
  name: string;
  state: HostProgressState;
  reason: string;
  release: string | null;
  started_at_ms: number | null;
  finished_at_ms: number | null;
}

export interface Deployment {
  id: string;
  app: string;
  release: string;
  state: DeploymentState;
  strategy: Strategy;
  stop_on_failure: boolean;
  created_by: string;
  created_at_ms: number;
  finished_at_ms: number | null;
  rollback_of: string | null;
  abort_requested?: boolean;
  reason: string;
  hosts: HostProgress[];
  spec?: unknown;
}

interface EventBase {
  n: number;
  at_ms: number;
  host: string;
}

export type DeploymentEvent = EventBase &
  (
    | { kind: 'state'; state: HostProgressState; reason: string; release: string | null }
    | { kind: 'step_started'; step: string }
    | { kind: 'output'; step: string; text: string }
    | { kind: 'step_finished'; step: string; ok: boolean; detail: string; took_ms: number }
  );

export interface NewDeployment {
  spec_yaml: string;
  hosts?: string[];
  selector?: Record<string, string>;
  strategy: Strategy;
  stop_on_failure: boolean;
}

const path = (id: string) => `/deployments/${encodeURIComponent(id)}`;

export const deployments = (limit: number, signal?: AbortSignal) => get<{ deployments: Deployment[] }>('/deployments', { limit }, signal);
export const deployment = (id: string, signal?: AbortSignal) => get<Deployment>(path(id), {}, signal);
export const createDeployment = (request: NewDeployment) => post<Deployment>('/deployments', request);
export const rollBack = (id: string) => post<Deployment>(`${path(id)}/rollback`);
export const abort = (id: string) => post<Deployment>(`${path(id)}/abort`);
export const eventsAddress = (id: string, after: string) => own(`${path(id)}/events`, { after });

/** What a deploy.yml says at its top, for the confirmation. The server reads it properly; this only shows it. */
export function glance(yaml: string): { app: string | null; release: string | null; root: string | null } {
  const value = (key: string): string | null => {
    const found = new RegExp(`^${key}:[ \\t]*(?:"([^"]*)"|'([^']*)'|([^#\\r\\n]*))`, 'm').exec(yaml);
    return (found?.[1] ?? found?.[2] ?? found?.[3])?.trim() || null;
  };
  return { app: value('app'), release: value('release'), root: value('root') };
}

/** `role=web, env=prod` as labels; null if it cannot be read. */
export function parseSelector(text: string): Record<string, string> | null {
  const found: Record<string, string> = {};
  for (const part of text.split(/[,\s]+/).filter(Boolean)) {
    const match = /^(\w+)=(.+)$/.exec(part);
    if (!match) return null;
    found[match[1]!] = match[2]!;
  }
  return found;
}

/** What is rolled back: a host where the new release serves, or may. */
export function isTouched(state: HostProgressState): boolean {
  return state === 'succeeded' || state === 'revert_failed' || state === 'unknown';
}
