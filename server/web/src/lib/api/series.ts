/** Prometheus' API, and building of queries for it. */
import { send } from './client';
import type { Span } from '../range';

export type Labels = Record<string, string>;

interface RawSample {
  metric: Labels;
  value?: [number, string];
  values?: [number, string][];
}

interface Answer {
  status: 'success';
  data: { resultType: string; result: RawSample[] | [number, string] };
  warnings?: string[];
}

/** One series with one value. */
export interface Sample {
  labels: Labels;
  value: number;
}

/** Series over one time axis; a missing point is null. Times are seconds. */
export interface Matrix {
  times: number[];
  series: { labels: Labels; values: (number | null)[] }[];
}

export async function query(expr: string, atMs?: number, signal?: AbortSignal): Promise<Sample[]> {
  const form = { query: expr, time: atMs === undefined ? undefined : (atMs / 1000).toFixed(3) };
  const { data } = await send<Answer>('POST', '/api/v1/query', { form, signal });
  if (data.resultType === 'scalar') return [{ labels: {}, value: number((data.result as [number, string])[1]) }];
  if (data.resultType === 'string') return [];
  return (data.result as RawSample[]).map((one) => ({
    labels: one.metric,
    value: number(one.value?.[1] ?? one.values?.at(-1)?.[1] ?? 'NaN'),
  }));
}

export async function queryRange(expr: string, span: Span, stepS: number, signal?: AbortSignal): Promise<Matrix> {
  const grid = timeGrid(span, stepS);
  const form = { query: expr, start: grid[0], end: grid.at(-1), step: stepS };
  const { data } = await send<Answer>('POST', '/api/v1/query_range', { form, signal });
  return toMatrix(data.result as RawSample[], grid, stepS);
}

/** Multiples of the step, so that a chart that is read again has the same points. */
export function timeGrid(span: Span, stepS: number): number[] {
  const first = Math.ceil(span.startMs / 1000 / stepS);
  const last = Math.max(first, Math.floor(span.endMs / 1000 / stepS));
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * stepS);
}

export function toMatrix(result: RawSample[], times: number[], stepS: number): Matrix {
  const first = times[0] ?? 0;
  const series = result.map(({ metric, values = [] }) => {
    const line = new Array<number | null>(times.length).fill(null);
    for (const [at, text] of values) {
      const place = Math.round((at - first) / stepS);
      const value = number(text);
      if (place >= 0 && place < line.length && Number.isFinite(value)) line[place] = value;
    }
    return { labels: metric, values: line };
  });
  return { times, series };
}

function number(text: string): number {
  if (text === '+Inf' || text === 'Inf') return Infinity;
  return text === '-Inf' ? -Infinity : Number(text);
}

/** A string of PromQL or of the log language. */
export function quoted(value: string): string {
  return `"${value.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n')}"`;
}

/** `{instance="web-1", mode!="idle"}`; a name that ends in `!`, `~` or `!~` carries its operator. */
export function selector(labels: Record<string, string | undefined>): string {
  const parts = Object.entries(labels).flatMap(([name, value]) => {
    if (value === undefined || value === '') return [];
    const found = /^(\w+?)(!~|!|~)?$/.exec(name);
    const operator = { '!~': '!~', '!': '!=', '~': '=~' }[found?.[2] ?? ''] ?? '=';
    return [`${found?.[1] ?? name}${operator}${quoted(value)}`];
  });
  return parts.length ? `{${parts.join(', ')}}` : '';
}

/** How a series is called in a table or legend: its own labels, without those that all have in common. */
export function seriesName(labels: Labels, common: ReadonlySet<string> = new Set()): string {
  const { __name__: name = '', ...rest } = labels;
  const shown = Object.entries(rest).filter(([label]) => !common.has(label));
  const inner = shown.map(([label, value]) => `${label}=${quoted(value)}`).join(', ');
  return inner ? `${name}{${inner}}` : name || '{}';
}

/** Names of labels that have the same value in every series. */
export function commonLabels(all: readonly Labels[]): Set<string> {
  const [first, ...rest] = all;
  if (!first || rest.length === 0) return new Set();
  return new Set(Object.keys(first).filter((name) => rest.every((other) => other[name] === first[name])));
}

/** Names of series beside each other: what differs. One label alone needs no name of its own. */
export function seriesNames(all: readonly Labels[]): string[] {
  const common = commonLabels(all);
  const own = new Set(all.flatMap((labels) => Object.keys(labels)).filter((label) => !common.has(label)));
  if (all.length > 1 && own.size === 1) return all.map((labels) => labels[[...own][0]!] || '{}');
  return all.map((labels) => seriesName(labels, common));
}

/**
 * A rule's expression as a chart shows it: what is compared, and with what.
 * `a > 80` becomes `a` with a line at 80. An expression of another shape is shown as it is.
 */
export function splitThreshold(expr: string): { expr: string; threshold: number | null } {
  const found = /^([\s\S]*\S)\s*(>=|<=|==|!=|>|<)\s*(?:bool\s+)?(-?[\d.]+(?:e[+-]?\d+)?)\s*$/i.exec(expr);
  if (!found || !balanced(found[1]!) || /\b(and|or|unless)\b/i.test(outside(found[1]!))) return { expr, threshold: null };
  return { expr: found[1]!, threshold: Number(found[3]) };
}

function balanced(text: string): boolean {
  let depth = 0;
  for (const letter of outside(text, false)) {
    if ('([{'.includes(letter)) depth += 1;
    if (')]}'.includes(letter)) depth -= 1;
    if (depth < 0) return false;
  }
  return depth === 0;
}

/** The text without strings and, if asked, without what stands in brackets. */
function outside(text: string, brackets = true): string {
  let plain = text.replace(/"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'/g, '');
  if (!brackets) return plain;
  for (let before = ''; before !== plain; ) {
    before = plain;
    plain = plain.replace(/\([^()]*\)|\{[^{}]*\}|\[[^[\]]*\]/g, '');
  }
  return plain;
}
