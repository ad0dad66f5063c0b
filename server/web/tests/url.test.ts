import { expect, test } from 'vitest';
import { fixedRange, normalRange, parseLength, rateWindow, resolveRange, stepFor } from '../src/lib/range';
import { address, choice, flag, readState, safeNext, text, words, writeState } from '../src/lib/url';

const schema = { q: text(), sort: choice(['name', 'cpu'], 'name'), live: flag(), pick: words() };

test('what an address says is read, and what it cannot say is the default', () => {
  expect(readState(schema, new URLSearchParams('q=a%20b&sort=cpu&live=1&pick=x,y'))).toEqual({ q: 'a b', sort: 'cpu', live: true, pick: ['x', 'y'] });
  expect(readState(schema, new URLSearchParams('sort=evil&live=yes&pick='))).toEqual({ q: '', sort: 'name', live: false, pick: [] });
});

test('writing keeps what is not ours and leaves out defaults', () => {
  const before = new URLSearchParams('env=prod&range=6h&sort=cpu&q=x');
  expect(writeState(schema, before, { sort: 'name', live: true }).toString()).toBe('env=prod&range=6h&q=x&live=1');
  expect(before.toString()).toContain('sort=cpu');
});

test('every state that is written is read again', () => {
  const state = { q: 'a&b=c #%', sort: 'cpu' as const, live: true, pick: ['web-1', 'web-2'] };
  expect(readState(schema, new URLSearchParams(writeState(schema, new URLSearchParams(), state).toString()))).toEqual(state);
});

test('environment and time range go along from page to page', () => {
  const here = new URLSearchParams('env=prod&range=6h&q=x');
  expect(address('/logs', { q: 'y' }, here)).toBe('/logs?env=prod&range=6h&q=y');
  expect(address('/logs', { range: null, q: '' }, here)).toBe('/logs?env=prod');
});

test.each([
  [null, '/'], ['/hosts?env=prod', '/hosts?env=prod'], ['//evil.example', '/'], ['/\\evil.example', '/'], ['https://evil.example', '/'], ['javascript:alert(1)', '/'], ['/signin?next=/x', '/'],
])('after signing in, %s leads to %s', (given, expected) => expect(safeNext(given)).toBe(expected));

test('ranges', () => {
  const now = 1_763_884_800_000;
  expect(resolveRange('15m', now)).toEqual({ startMs: now - 900_000, endMs: now });
  expect(resolveRange(fixedRange({ startMs: now - 5, endMs: now }), 0)).toEqual({ startMs: now - 5, endMs: now });
  expect([normalRange('7d'), normalRange('x'), normalRange(`${now}..${now - 1}`), normalRange(null)]).toEqual(['7d', '1h', '1h', '1h']);
  expect([parseLength('90m'), parseLength('-1h'), parseLength('1y')]).toEqual([5_400_000, null, null]);
});

test('a chart has about as many points as asked for, and never more', () => {
  for (const hours of [0.25, 1, 6, 24, 168, 720, 20_000]) {
    const span = { startMs: 0, endMs: hours * 3_600_000 };
    const step = stepFor(span, 300, 5);
    const points = (hours * 3600) / step;
    expect(points).toBeLessThanOrEqual(300);
    expect(step).toBeGreaterThanOrEqual(5);
  }
  expect(stepFor({ startMs: 0, endMs: 3_600_000 }, 240, 5)).toBe(15);
  expect([rateWindow(5), rateWindow(300)]).toEqual(['60s', '600s']);
});
