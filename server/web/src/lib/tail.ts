/** Lines as they come, bounded: what a live view keeps, and what it says about lines that it lacks. Pure. */
import type { Entry } from './api/logs';

export interface Gap {
  gap: number;
  key: string;
}
export type Row = Entry | Gap;

export const isGap = (row: Row): row is Gap => 'gap' in row;

/** Most rows that are kept; older ones are dropped. */
export const MOST_ROWS = 5000;

export class TailBuffer {
  rows: Row[] = [];
  /** Came while the reader was reading. */
  waiting: Row[] = [];
  paused = false;
  /** Whether older rows were dropped. */
  cut = false;
  private gaps = 0;

  add(entries: readonly Entry[]): void {
    this.push(entries);
  }

  addGap(lines: number): void {
    const into = this.paused ? this.waiting : this.rows;
    const last = into.at(-1);
    // Two gaps without a line between them are one.
    if (last && isGap(last)) into[into.length - 1] = { ...last, gap: last.gap + lines };
    else this.push([{ gap: lines, key: `gap-${(this.gaps += 1)}` }]);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    const waiting = this.waiting;
    this.waiting = [];
    this.push(waiting);
  }

  private push(more: readonly Row[]): void {
    const all = (this.paused ? this.waiting : this.rows).concat(more);
    const kept = all.length > MOST_ROWS ? all.slice(-MOST_ROWS) : all;
    if (kept.length < all.length) this.cut = true;
    if (this.paused) this.waiting = kept;
    else this.rows = kept;
  }
}

/** The line in pieces: those that were searched for, and the rest. */
export function marked(line: string, words: readonly string[]): { text: string; hit: boolean }[] {
  const wanted = words.filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  if (wanted.length === 0) return [{ text: line, hit: false }];
  const pieces = line.split(new RegExp(`(${wanted.join('|')})`, 'gi'));
  return pieces.map((text, at) => ({ text, hit: at % 2 === 1 })).filter(({ text }) => text !== '');
}

/** Which rows of a long list are drawn. */
export function window(scrollTop: number, height: number, rowHeight: number, rows: number, spare = 12): { first: number; end: number } {
  const first = Math.max(0, Math.min(rows, Math.floor(scrollTop / rowHeight) - spare));
  return { first, end: Math.min(rows, Math.ceil((scrollTop + height) / rowHeight) + spare) };
}
