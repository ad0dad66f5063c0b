/** Hosts. */
import { get, post } from './client';

export const HOST_STATES = ['up', 'silent', 'stopped', 'enrolled', 'revoked'] as const;
export type HostState = (typeof HOST_STATES)[number];

export interface Facts {
  hostname?: string;
  os?: string;
  kernel?: string;
  arch?: string;
  agent_version?: string;
  cpus?: number;
  memory_bytes?: number;
  boot_time_s?: number;
}

export interface Host {
  id: string;
  name: string;
  env: string;
  region: string;
  labels: Record<string, string>;
  state: HostState;
  last_seen_ms: number | null;
  enrolled_at_ms: number | null;
  certificate_expires_ms: number | null;
  facts: Facts | null;
  address: string | null;
  transport: string | null;
  rtt_ms: number | null;
  clock_offset_ms?: number | null;
  lanes: Record<string, { pending_bytes: number | null }>;
  deploys_allowed: boolean;
}

export const hosts = (signal?: AbortSignal) => get<{ hosts: Host[] }>('/hosts', {}, signal);
export const host = (id: string, signal?: AbortSignal) => get<Host>(`/hosts/${encodeURIComponent(id)}`, {}, signal);
export const revoke = (id: string) => post<Host>(`/hosts/${encodeURIComponent(id)}/revoke`);
