import { describe, expect, test } from 'vitest';
import { colorsFor, largest, stack, summary, type Line } from '../src/lib/chart';
import { matchesHost, metricTone, sortHosts, toSparks } from '../src/lib/hosts';
import { en } from '../src/lib/i18n/en';
import { zh } from '../src/lib/i18n/zh';
import { outputLines } from '../src/lib/output';
import { changes, wrongNow } from '../src/lib/overview';
import { marked, MOST_ROWS, TailBuffer, window } from '../src/lib/tail';
import { entry, world } from '../e2e/support/data';

const line = (name: string, values: (number | null)[]): Line => ({ name, values, color: '--c1' });

describe('both languages', () => {
  const keys = (value: unknown, path = ''): string[] =>
    value && typeof value === 'object' ? Object.entries(value).flatMap(([key, inner]) => keys(inner, `${path}.${key}`)) : [path];
  test('have the same words', () => expect(keys(zh)).toEqual(keys(en)));
  test('have no empty word', () => {
    const empty = (value: unknown): boolean => (typeof value === 'string' ? value.trim() === '' : typeof value === 'object' && value !== null && Object.values(value).some(empty));
    expect([empty(en), empty(zh)]).toEqual([false, false]);
  });
  test('Chinese has the punctuation of Chinese', () => {
    const texts = (value: unknown): string[] =>
      typeof value === 'string' ? [value] : typeof value === 'function' ? [String(value)] : Object.values(value as object).flatMap(texts);
    expect(texts(zh).filter((text) => /[\u4e00-\u9fff][,:;?!]|[,;:][\u4e00-\u9fff]/.test(text))).toEqual([]);
  });
});

describe('charts', () => {
  test('a stack adds up and keeps gaps', () => expect(stack([line('a', [1, null, 2]), line('b', [10, null, null])])).toEqual([[1, null, 2], [11, null, 2]]));
  test('colours are stable and differ', () => {
    const [a] = colorsFor(['web-1']);
    expect(colorsFor(['db-1', 'web-1', 'web-2']).length).toBe(new Set(colorsFor(['db-1', 'web-1', 'web-2'])).size);
    expect(colorsFor(['web-1', 'x'])[0]).toBe(a);
    expect(new Set(colorsFor(Array.from({ length: 8 }, (_, n) => `host-${n}`))).size).toBe(8);
  });
  test('summaries leave out what is missing', () => {
    expect(summary([1, null, 3])).toEqual({ last: 3, max: 3, mean: 2 });
    expect(summary([null])).toEqual({ last: null, max: null, mean: null });
  });
  test('the largest are shown first, in their order', () => expect(largest([line('a', [1]), line('b', [9]), line('c', [5])], 2).map(({ name }) => name)).toEqual(['b', 'c']));
});

describe('the table of hosts', () => {
  const { hosts } = world(1_763_884_800_000);
  test('trouble comes first', () => expect(sortHosts(hosts, 'state', false, {})[0]?.name).toBe('web-3'));
  test('hosts without a value come last in both directions', () => {
    const cpu = new Map([['web-1', 5], ['web-2', 50]]);
    expect(sortHosts(hosts, 'cpu', true, { cpu }).slice(0, 2).map(({ name }) => name)).toEqual(['web-2', 'web-1']);
    expect(sortHosts(hosts, 'cpu', false, { cpu }).slice(0, 2).map(({ name }) => name)).toEqual(['web-1', 'web-2']);
  });
  test('all words must match, in name, place or label', () => {
    expect(hosts.filter((host) => matchesHost(host, 'prod TEAM=shop')).map(({ name }) => name)).toEqual(['web-1']);
  });
  test('lines of a column share a scale', () => {
    expect(toSparks({ times: [0, 1], series: [{ labels: { instance: 'a' }, values: [1, null] }, { labels: { instance: 'b' }, values: [200, 3] }] }, 100).max).toBe(200);
  });
  test('numbers are coloured when they should be', () => {
    expect([metricTone('cpu', 50, 4), metricTone('memory', 85, 4), metricTone('disk', 99, 4), metricTone('load', 9, 4), metricTone('load', 9, undefined)]).toEqual(['', 'warning', 'critical', 'warning', '']);
  });
});

describe('the overview', () => {
  const now = 1_763_884_800_000;
  const { hosts, alerts, deployments, deliveries } = world(now);
  test('says what is wrong, worst first', () => {
    const items = wrongNow({ hosts, alerts, deployments, deliveries }, now, en);
    expect(items.map(({ tone }) => tone)).toEqual(['critical', 'critical', 'critical', 'critical', 'warning', 'warning', 'changing']);
    expect(items[0]?.title).toBe('HostDown · web-3');
  });
  test('a failure that a later deployment has mended is not wrong any more', () => {
    const [, failed] = deployments;
    const mended = { ...failed!, id: 'later', state: 'succeeded' as const, created_at_ms: failed!.created_at_ms + 1 };
    const titles = (all: typeof deployments) => wrongNow({ hosts: [], alerts: [], deployments: all, deliveries: [] }, now, en).length;
    expect([titles([failed!]), titles([mended, failed!])]).toEqual([1, 0]);
  });
  test('tells the changes of a day, newest first', () => {
    const items = changes({ hosts, alerts, deployments, deliveries }, now, en);
    expect(items.every(({ atMs }) => now - atMs! < 86_400_000)).toBe(true);
    expect(items.map(({ atMs }) => atMs)).toEqual(items.map(({ atMs }) => atMs).sort((a, b) => b! - a!));
  });
});

describe('live logs', () => {
  const some = (n: number) => Array.from({ length: n }, (_, at) => entry(at, at));
  test('keep so many rows and say that older ones were dropped', () => {
    const buffer = new TailBuffer();
    buffer.add(some(MOST_ROWS));
    expect([buffer.rows.length, buffer.cut]).toEqual([MOST_ROWS, false]);
    buffer.add(some(3));
    expect([buffer.rows.length, buffer.cut]).toEqual([MOST_ROWS, true]);
  });
  test('do not move while somebody reads', () => {
    const buffer = new TailBuffer();
    buffer.add(some(2));
    buffer.pause();
    buffer.add(some(3));
    buffer.addGap(7);
    expect([buffer.rows.length, buffer.waiting.length]).toEqual([2, 4]);
    buffer.resume();
    expect([buffer.rows.length, buffer.waiting.length]).toEqual([6, 0]);
  });
  test('neighbouring gaps are one', () => {
    const buffer = new TailBuffer();
    buffer.addGap(3);
    buffer.addGap(4);
    expect(buffer.rows).toMatchObject([{ gap: 7 }]);
  });
  test('only what is seen is drawn', () => {
    expect(window(0, 480, 24, 5000, 10)).toEqual({ first: 0, end: 30 });
    expect(window(24_000, 480, 24, 5000, 10)).toEqual({ first: 990, end: 1030 });
    expect(window(1e9, 480, 24, 5, 10)).toEqual({ first: 5, end: 5 });
  });
  test('hits are marked, whatever they contain', () => {
    expect(marked('a (b) A', ['a', '(b)'])).toEqual([{ text: 'a', hit: true }, { text: ' ', hit: false }, { text: '(b)', hit: true }, { text: ' ', hit: false }, { text: 'A', hit: true }]);
  });
});

test("a deployment's output is plain lines", () => {
  const base = { n: 4, at_ms: 0, host: 'web-1' };
  expect(outputLines({ ...base, kind: 'output', step: 's', text: '\u001b[32mok\u001b[0m\n10%\r50%\r100%\n' }, en).map(({ text }) => text)).toEqual(['ok', '100%']);
  expect(outputLines({ ...base, kind: 'state', state: 'reverted', reason: 'unhealthy', release: null }, en)[0]).toMatchObject({ kind: 'failed', text: 'now: Went back · unhealthy' });
});
