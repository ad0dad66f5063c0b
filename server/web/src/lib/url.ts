/**
 * State that lives in the address: every view can be linked and the back button works. Pure.
 *
 * A view declares what it keeps (`{q: text(), sort: choice(…)}`); reading gives typed values, and anything that
 * cannot be read becomes the default. Values that are the default do not appear in the address.
 */

export interface Codec<T> {
  read(text: string | null): T;
  /** `null`: leave it out. */
  write(value: T): string | null;
}

export type Schema = Record<string, Codec<never> | Codec<any>>;
export type Values<S extends Schema> = { [K in keyof S]: S[K] extends Codec<infer T> ? T : never };

export function text(otherwise = ''): Codec<string> {
  return { read: (raw) => raw ?? otherwise, write: (value) => (value === otherwise ? null : value) };
}

export function choice<const T extends string>(all: readonly T[], otherwise: NoInfer<T>): Codec<T> {
  return {
    read: (raw) => all.find((one) => one === raw) ?? otherwise,
    write: (value) => (value === otherwise ? null : value),
  };
}

export function flag(): Codec<boolean> {
  return { read: (raw) => raw === '1', write: (value) => (value ? '1' : null) };
}

/** Words that hold no comma, in the order given. */
export function words(): Codec<string[]> {
  return {
    read: (raw) => (raw ? raw.split(',').filter(Boolean) : []),
    write: (value) => (value.length ? value.join(',') : null),
  };
}

export function readState<S extends Schema>(schema: S, search: URLSearchParams): Values<S> {
  const entries = Object.entries(schema).map(([name, codec]) => [name, codec.read(search.get(name))]);
  return Object.fromEntries(entries) as Values<S>;
}

/** The search part with some values changed; what the schema does not know stays as it is. */
export function writeState<S extends Schema>(schema: S, search: URLSearchParams, patch: Partial<Values<S>>): URLSearchParams {
  const next = new URLSearchParams(search);
  for (const [name, value] of Object.entries(patch)) {
    const raw = schema[name]?.write(value as never) ?? null;
    if (raw === null) next.delete(name);
    else next.set(name, raw);
  }
  return next;
}

/** An address inside the dashboard. `keep` carries environment and time range from page to page. */
export function address(path: string, values: Record<string, string | null | undefined>, keep?: URLSearchParams): string {
  const search = new URLSearchParams();
  for (const name of KEPT) {
    const value = keep?.get(name);
    if (value) search.set(name, value);
  }
  for (const [name, value] of Object.entries(values)) {
    if (value) search.set(name, value);
    else search.delete(name);
  }
  const query = search.toString();
  return query ? `${path}?${query}` : path;
}

/** What stays when the page changes. */
export const KEPT = ['env', 'range'] as const;

/** Where to go after signing in: only inside the dashboard, whatever the address bar was made to say. */
export function safeNext(raw: string | null): string {
  if (!raw || !raw.startsWith('/') || raw.startsWith('//') || raw.includes('\\')) return '/';
  return raw.startsWith('/signin') ? '/' : raw;
}
