import { describe, expect, test } from 'vitest';
import { bitRate, bytes, count, digits, duration, logTime, nsToMs, percent, relative } from '../src/lib/format';

/** No-break spaces are hard to see in a test. */
const plain = (text: string) => text.replace(/[\u202f\u00a0]/g, ' ');

test.each([
  [0, '0'], [7, '7'], [999, '999'], [92.14, '92.1'], [1.005, '1'], [0.01234, '0.0123'], [-3.14159, '-3.14'], [123456.7, '123457'], [0.00001234, '1.2e-5'],
  [null, '–'], [undefined, '–'], [Number.NaN, '–'], [Infinity, '–'],
])('digits of %s are %s', (value, expected) => expect(digits(value)).toBe(expected));

test.each([
  [0, '0 B'], [1023, '1023 B'], [1024, '1 KiB'], [1536, '1.5 KiB'], [8 * 2 ** 30, '8 GiB'], [7.777 * 2 ** 30, '7.78 GiB'], [1023.9 * 2 ** 20, '1 GiB'], [2 ** 60, '1024 PiB'],
])('%s bytes are %s', (value, expected) => expect(plain(bytes(value))).toBe(expected));

test.each([[999, '999 bit/s'], [1_234_567, '1.23 Mbit/s'], [999_600, '1 Mbit/s'], [2.5e9, '2.5 Gbit/s']])('%s bits a second are %s', (value, expected) =>
  expect(plain(bitRate(value))).toBe(expected),
);

test('counts are k in English and 万 in Chinese', () => {
  expect(plain(count(12_345, 'en'))).toBe('12.3 k');
  expect(plain(count(12_000, 'zh'))).toBe('1.2 万');
  expect(plain(count(9_999, 'zh'))).toBe('9999');
  expect(plain(count(345_600_000, 'zh'))).toBe('3.46 亿');
  expect(count(42, 'en')).toBe('42');
});

test.each([
  [0.25, '0.25 ms'], [850, '850 ms'], [1500, '1.5s'], [12_000, '12s'], [59_999, '1m 00s'], [185_000, '3m 05s'], [7_500_000, '2h 05m'], [273_600_000, '3d 04h'], [-5, '0 ms'],
])('%s ms last %s', (ms, expected) => expect(plain(duration(ms))).toBe(expected));

test('percentages line up', () => expect([percent(5), percent(92.14), percent(100)]).toEqual(['5.0', '92.1', '100.0']));

describe('relative times', () => {
  const now = 1_763_884_800_000;
  test.each([
    [-30_000, 'en', '30 sec. ago'], [-300_000, 'en', '5 min. ago'], [-300_000, 'zh', '5分钟前'], [3_600_000, 'en', 'in 1 hr.'], [-86_400_000, 'en', '1 day ago'], [-400, 'en', 'now'], [-400, 'zh', '现在'],
  ] as const)('%s ms in %s is %s', (offset, language, expected) => expect(plain(relative(now + offset, now, language))).toBe(expected));
});

test('nanoseconds keep their milliseconds', () => {
  expect(nsToMs('1763884800123456789')).toBe(1_763_884_800_123);
  expect(nsToMs('12')).toBe(0);
  expect(logTime('1763884800123456789')).toMatch(/^\d\d-\d\d \d\d:\d\d:\d\d\.123$/);
});
