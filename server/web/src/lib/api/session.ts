/** Who is signed in; tokens; the server itself. */
import { get, own, post, remove, send } from './client';

export interface Session {
  user: string;
  role: string;
  expires_at_ms: number | null;
}

export interface ApiToken {
  id: string;
  name: string;
  created_at_ms: number;
  expires_at_ms: number | null;
  last_used_at_ms: number | null;
}

export interface EnrolmentToken {
  id: string;
  env: string;
  region: string;
  labels: Record<string, string>;
  uses_left: number;
  expires_at_ms: number;
}

export interface NewEnrolment {
  env: string;
  region: string;
  labels: Record<string, string>;
  ttl: string;
  uses: number;
}

export interface Info {
  version: string;
  ca_fingerprint: string;
  agents_address: string;
  started_at_ms: number;
  now_ms: number;
}

export const session = (signal?: AbortSignal) => send<Session>('GET', own('/session'), { signal, signingIn: true });
export const signIn = (user: string, password: string) =>
  send<Session>('POST', own('/session'), { body: { user, password }, signingIn: true });
export const signOut = () => remove('/session');
/** A wrong old password answers 401 as well: the form tells it, the session goes on. */
export const changePassword = (old: string, next: string) =>
  send<void>('POST', own('/password'), { body: { old, new: next }, signingIn: true });
export const info = (signal?: AbortSignal) => get<Info>('/info', {}, signal);

export const tokens = (signal?: AbortSignal) => get<{ tokens: ApiToken[] }>('/tokens', {}, signal);
export const createToken = (name: string, ttl: string | null) =>
  post<{ id: string; token: string }>('/tokens', ttl ? { name, ttl } : { name });
export const deleteToken = (id: string) => remove(`/tokens/${encodeURIComponent(id)}`);

export const enrolmentTokens = (signal?: AbortSignal) => get<{ tokens: EnrolmentToken[] }>('/enrolment-tokens', {}, signal);
export const createEnrolment = (grant: NewEnrolment) =>
  post<{ id: string; token: string; command: string }>('/enrolment-tokens', grant);
export const deleteEnrolment = (id: string) => remove(`/enrolment-tokens/${encodeURIComponent(id)}`);
