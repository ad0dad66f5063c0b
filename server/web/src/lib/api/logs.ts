/** Log lines, and building of queries for them. */
import { get, own } from './client';
import { quoted } from './series';
import type { Span } from '../range';

export const SEVERITIES = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'unknown'] as const;
export type Severity = (typeof SEVERITIES)[number];

export interface Entry {
  id: string;
  ts_ns: string;
  labels: Record<string, string>;
  severity: Severity;
  line: string;
  truncated: boolean;
}

export interface Page {
  entries: Entry[];
  next: string | null;
  stats: { blocks_read: number; bytes_read: number; took_ms: number; skipped_corrupt: number };
}

export interface Bucket {
  ts_ms: number;
  counts: Partial<Record<Severity, number>>;
}

/** Milliseconds as the API wants times of logs: nanoseconds, which no double can hold. */
export const toNs = (ms: number): string => `${Math.round(ms)}000000`;

const times = (span: Span) => ({ start_ns: toNs(span.startMs), end_ns: toNs(span.endMs) });

export const search = (query: string, span: Span, cursor: string | null, limit: number, signal?: AbortSignal) =>
  get<Page>('/logs', { query, ...times(span), limit, direction: 'backward', cursor }, signal);
export const histogram = (query: string, span: Span, stepMs: number, signal?: AbortSignal) =>
  get<{ buckets: Bucket[] }>('/logs/histogram', { query, ...times(span), step_ms: stepMs }, signal);
export const labels = (span: Span, signal?: AbortSignal) => get<{ labels: string[] }>('/logs/labels', times(span), signal);
export const labelValues = (name: string, span: Span, signal?: AbortSignal) =>
  get<{ values: string[] }>(`/logs/labels/${encodeURIComponent(name)}/values`, times(span), signal);
export const context = (id: string, around: number, signal?: AbortSignal) =>
  get<{ entries: Entry[] }>('/logs/context', { id, before: around, after: around }, signal);
export const tailAddress = (query: string) => own('/logs/tail', { query });

const MATCHER = /^\s*(\w+)\s*(=~|!~|!=|=)\s*"((?:\\.|[^"\\])*)"\s*$/;

/** The braces at the beginning of a query, and the rest. */
export function splitQuery(query: string): { matchers: string[]; rest: string } {
  const found = /^\s*\{((?:[^"{}]|"(?:\\.|[^"\\])*")*)\}([\s\S]*)$/.exec(query);
  if (!found) return { matchers: [], rest: query.trim() };
  const matchers = found[1]!.match(/(?:[^",]|"(?:\\.|[^"\\])*")+/g) ?? [];
  return { matchers: matchers.map((one) => one.trim()).filter(Boolean), rest: found[2]!.trim() };
}

/** Filters need braces, and braces need a label: one that every line has. */
const ANY = 'host=~".+"';

function joinQuery(matchers: string[], rest: string): string {
  const named = matchers.filter((one) => one !== ANY);
  if (rest === '' || !isFilter(rest)) return named.length === 0 ? rest : joinQuery(named, asFilters(rest));
  return `{${(named.length ? named : [ANY]).join(', ')}} ${rest}`.trim();
}

function isFilter(rest: string): boolean {
  return /^(\||!=|!~)/.test(rest);
}

/** Labels that the query demands to be equal to something. */
export function equalLabels(query: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const matcher of splitQuery(query).matchers) {
    const [, name, operator, value] = MATCHER.exec(matcher) ?? [];
    if (name && operator === '=') found[name] = value!.replace(/\\(.)/g, (_, letter) => (letter === 'n' ? '\n' : letter));
  }
  return found;
}

/** The query with a label equal to a value, or (null) without that label. */
export function withLabel(query: string, name: string, value: string | null): string {
  const { matchers, rest } = splitQuery(query);
  const kept = matchers.filter((one) => MATCHER.exec(one)?.[1] !== name);
  if (value !== null) kept.push(`${name}=${quoted(value)}`);
  if (kept.length && rest === '') return `{${kept.join(', ')}}`;
  return joinQuery(kept, rest);
}

const LEVEL = /\s*\|\s*level\s*(?:=~|!=|!~|=)\s*"[^"]*"/g;

/** The query with a filter on severity, or (null) without. */
export function withSeverity(query: string, severity: Severity | null): string {
  const { matchers, rest } = splitQuery(query);
  const without = rest.replace(LEVEL, '').trim();
  if (severity === null) return without === '' && matchers.some((one) => one !== ANY) ? `{${matchers.join(', ')}}` : joinQuery(matchers, without);
  return joinQuery(matchers, [asFilters(without), `| level=${quoted(severity)}`].filter(Boolean).join(' '));
}

/** The severity that the query asks for, if it is one. */
export function askedSeverity(query: string): Severity | null {
  const found = /\|\s*level\s*=\s*"(\w+)"/.exec(splitQuery(query).rest)?.[1];
  return SEVERITIES.find((one) => one === found) ?? null;
}

/** Words as they stand alone match in any case of letters; so must the filter that they become. */
function asFilters(rest: string): string {
  if (rest === '' || isFilter(rest)) return rest;
  const escaped = (term: string) => unquoted(term).replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return terms(rest).map((term) => `|~ ${quoted(`(?i)${escaped(term)}`)}`).join(' ');
}

function terms(text: string): string[] {
  return text.match(/"(?:\\.|[^"\\])*"|\S+/g) ?? [];
}

/** What the query searches for as text, so that it can be marked in lines. */
export function searchedWords(query: string): string[] {
  const { matchers, rest } = splitQuery(query);
  if (matchers.length === 0) return terms(rest).map(unquoted).filter(Boolean);
  const found = [...rest.matchAll(/\|([=~])\s*("(?:\\.|[^"\\])*")/g)].map(([, kind, term]) => {
    const plain = unquoted(term!);
    return kind === '=' ? plain : plain.replace(/^\(\?i\)/, '').replace(/\\([.*+?^${}()|[\]\\])/g, '$1');
  });
  return found.filter(Boolean);
}

function unquoted(term: string): string {
  return term.startsWith('"') ? term.slice(1, -1).replace(/\\(.)/g, '$1') : term;
}
