/** Time ranges: the last so much until now, or from one moment to another. Pure. */

/** As it stands in the address: `1h`, or `1763884800000..1763888400000`. */
export type RangeText = string;

export interface Span {
  startMs: number;
  endMs: number;
}

export const PRESETS = ['15m', '1h', '6h', '24h', '7d', '30d'] as const;
export const DEFAULT_RANGE = '1h';

const UNITS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** Length in milliseconds of `15m`, `1h`, `7d`; null for anything else. */
export function parseLength(text: string): number | null {
  const found = /^(\d{1,4})([smhdw])$/.exec(text);
  const unit = found && UNITS[found[2]!];
  return found && unit ? Number(found[1]) * unit : null;
}

/** Two moments, if the text is such a range. */
function parseFixed(text: string): Span | null {
  const found = /^(\d{10,15})\.\.(\d{10,15})$/.exec(text);
  if (!found) return null;
  const [startMs, endMs] = [Number(found[1]), Number(found[2])];
  return startMs < endMs ? { startMs, endMs } : null;
}

export function isFixed(text: RangeText): boolean {
  return parseFixed(text) !== null;
}

/** What the address says, or the last hour if it says nothing that can be read. */
export function normalRange(text: string | null | undefined): RangeText {
  return text && (parseLength(text) || isFixed(text)) ? text : DEFAULT_RANGE;
}

export function resolveRange(text: RangeText, nowMs: number): Span {
  return parseFixed(text) ?? { startMs: nowMs - (parseLength(text) ?? UNITS.h!), endMs: nowMs };
}

export function fixedRange(span: Span): RangeText {
  return `${Math.round(span.startMs)}..${Math.round(span.endMs)}`;
}

const NICE_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400];

/** Seconds between points, so that a chart has about `points` of them, but never closer than `leastS`. */
export function stepFor(span: Span, points: number, leastS = 1): number {
  const exact = Math.max((span.endMs - span.startMs) / 1000 / points, leastS);
  return NICE_S.find((step) => step >= exact) ?? Math.ceil(exact / 86_400) * 86_400;
}

/** The window of `rate`: several samples even of a slow agent, and no gaps between points. */
export function rateWindow(stepS: number): string {
  return `${Math.max(60, stepS * 2)}s`;
}
