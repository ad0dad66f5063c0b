/** What a chart draws, apart from drawing it. Pure. */
import type { Matrix } from './api/series';

export interface Line {
  name: string;
  values: (number | null)[];
  /** A custom property of the theme, such as `--c1`. */
  color: string;
  /** Drawn below the axis: the other direction of the same thing. */
  negative?: boolean;
  dashed?: boolean;
}

export interface Mark {
  atMs: number;
  label: string;
  href: string;
}

/** A time in which an alert fired; without an end it still does. */
export interface Bar extends Mark {
  endMs: number | null;
  tone: 'critical' | 'warning';
}

export const COLORS = ['--c1', '--c2', '--c3', '--c4', '--c5', '--c6', '--c7', '--c8'] as const;

/** The same name has the same colour everywhere; two in one chart differ as long as there are colours. */
export function colorsFor(names: readonly string[]): string[] {
  const taken = new Set<number>();
  return names.map((name) => {
    let at = hash(name) % COLORS.length;
    for (let tries = 0; taken.has(at) && tries < COLORS.length; tries += 1) at = (at + 1) % COLORS.length;
    taken.add(at);
    return COLORS[at]!;
  });
}

function hash(text: string): number {
  let value = 2_166_136_261;
  for (let at = 0; at < text.length; at += 1) value = Math.imul(value ^ text.charCodeAt(at), 16_777_619) >>> 0;
  return value;
}

/** Running sums, so that lines lie on each other. A point that all lack stays a gap. */
export function stack(lines: readonly Line[]): (number | null)[][] {
  const length = lines[0]?.values.length ?? 0;
  const sums = new Array<number>(length).fill(0);
  return lines.map(({ values }) =>
    values.map((value, at) => {
      if (value === null && lines.every((line) => line.values[at] === null)) return null;
      sums[at]! += value ?? 0;
      return sums[at]!;
    }),
  );
}

export interface Summary {
  last: number | null;
  max: number | null;
  mean: number | null;
}

export function summary(values: readonly (number | null)[]): Summary {
  let last: number | null = null;
  let max: number | null = null;
  let sum = 0;
  let known = 0;
  for (const value of values) {
    if (value === null) continue;
    last = value;
    max = max === null ? value : Math.max(max, value);
    sum += value;
    known += 1;
  }
  return { last, max, mean: known ? sum / known : null };
}

/** Lines of a matrix, each called by one of its labels. */
export function linesBy(matrix: Matrix | undefined, label: string, name: (value: string) => string = (value) => value): Line[] {
  const series = matrix?.series ?? [];
  const colors = colorsFor(series.map(({ labels }) => labels[label] ?? ''));
  return series.map(({ labels, values }, at) => ({ name: name(labels[label] ?? ''), values, color: colors[at]! }));
}

export function lineOf(matrix: Matrix | undefined, name: string, color: string): Line[] {
  const values = matrix?.series[0]?.values;
  return values ? [{ name, values, color }] : [];
}

/** The lines with the largest maximum; the rest is for "show all". */
export function largest(lines: readonly Line[], n: number): Line[] {
  if (lines.length <= n) return [...lines];
  const rank = new Map(lines.map((line) => [line, Math.abs(summary(line.values).max ?? -Infinity)]));
  const kept = new Set([...lines].sort((a, b) => rank.get(b)! - rank.get(a)!).slice(0, n));
  return lines.filter((line) => kept.has(line));
}
