/**
 * One request to the server. Every resource file goes through here, so that a session that has ended is noticed in one place.
 */
import { ApiError } from './failure';

const BASE = '/shipwatch/api/v1';

export type Parameters = Record<string, string | number | null | undefined>;

let onUnauthenticated: () => void = () => {};

/** Called whenever the server does not know (any more) who is asking. */
export function whenUnauthenticated(handler: () => void): void {
  onUnauthenticated = handler;
}

let onDate: (serverMs: number) => void = () => {};

/** Called with the server's time of each answer. */
export function whenDated(handler: (serverMs: number) => void): void {
  onDate = handler;
}

export function unauthenticated(): void {
  onUnauthenticated();
}

/** The address of a resource of Shipwatch's own API. */
export function own(path: string, parameters: Parameters = {}): string {
  return withParameters(`${BASE}${path}`, parameters);
}

export function withParameters(path: string, parameters: Parameters): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== '') search.set(name, String(value));
  }
  const query = search.toString();
  return query ? `${path}?${query}` : path;
}

interface Options {
  body?: unknown;
  form?: Parameters;
  signal?: AbortSignal | undefined;
  /** Signing in answers 401 for a wrong password; that is not a session that ended. */
  signingIn?: boolean;
}

/** The answer's JSON; `undefined` for 204. Throws [`ApiError`], or `TypeError` if there was no answer. */
export async function send<T>(method: string, address: string, options: Options = {}): Promise<T> {
  const init: RequestInit = { method, headers: { accept: 'application/json' }, credentials: 'same-origin' };
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    init.body = JSON.stringify(options.body);
    init.headers = { ...init.headers, 'content-type': 'application/json' };
  } else if (options.form) {
    init.body = withParameters('', options.form).slice(1);
    init.headers = { ...init.headers, 'content-type': 'application/x-www-form-urlencoded' };
  }
  const response = await fetch(address, init);
  const date = Date.parse(response.headers.get('date') ?? '');
  if (!Number.isNaN(date)) onDate(date);
  if (!response.ok) {
    const error = await ApiError.from(response);
    if (error.status === 401 && !options.signingIn) onUnauthenticated();
    throw error;
  }
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

export function get<T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<T> {
  return send<T>('GET', own(path, parameters), { signal });
}

export function post<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return send<T>('POST', own(path), { body, signal });
}

export function remove(path: string): Promise<void> {
  return send<void>('DELETE', own(path));
}
