/**
 * Numbers, times and sizes as people read them. Pure: language and time are arguments.
 *
 * Three significant digits; IEC units for memory and disk, SI for network and counts, 万 and 亿 in Chinese.
 */

export type Language = 'en' | 'zh';

/** Shown where a value is not known. */
export const UNKNOWN = '–';

/** A narrow no-break space keeps a number and its unit together. */
const GAP = '\u202f';

type Maybe = number | null | undefined;

function known(value: Maybe): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

/** Three significant digits, without zeros that say nothing. */
export function digits(value: Maybe): string {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1000) return String(value);
  if (size < 0.001) return value.toExponential(1).replace(/\.0e/, 'e');
  if (size >= 1000) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let at = 0;
  let rest = value;
  // 999.6 would be shown as 1000, so the next unit begins where rounding to three digits reaches it.
  while (at < units.length - 1 && Math.abs(rest) >= (base === 1024 ? 1023.5 : 999.5)) {
    rest /= base;
    at += 1;
  }
  const text = Math.abs(rest) >= 1000 ? String(Math.round(rest)) : String(Number(rest.toPrecision(3)));
  return units[at] === '' ? text : `${text}${GAP}${units[at]}`;
}

/** Memory and disk. */
export function bytes(value: Maybe): string {
  return known(value) ? scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']) : UNKNOWN;
}

/** Bytes moved in a second. */
export function byteRate(value: Maybe): string {
  return known(value) ? `${bytes(value)}/s` : UNKNOWN;
}

/** Network: from bits a second. */
export function bitRate(value: Maybe): string {
  return known(value) ? scaled(value, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s']) : UNKNOWN;
}

/** How many of something. */
export function count(value: Maybe, language: Language): string {
  if (!known(value)) return UNKNOWN;
  if (language === 'en') return Math.abs(value) < 1000 ? digits(value) : scaled(value, 1000, ['', 'k', 'M', 'G', 'T']);
  if (Math.abs(value) < 9999.5) return digits(value);
  return scaled(value / 1e4, 1e4, ['万', '亿', '万亿']);
}

/** A share of 100, with one decimal so that columns line up. */
export function percent(value: Maybe): string {
  return known(value) ? value.toFixed(1) : UNKNOWN;
}

const pad = (value: number, length = 2): string => String(value).padStart(length, '0');

/** `850 ms`, `12s`, `3m 05s`, `2h 05m`, `3d 04h`. */
export function duration(ms: Maybe): string {
  if (!known(ms)) return UNKNOWN;
  const size = Math.max(0, ms);
  if (size < 1000) return `${digits(Math.round(size * 100) / 100)}${GAP}ms`;
  if (size < 9950) return `${Number((size / 1000).toFixed(1))}s`;
  const seconds = Math.round(size / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m ${pad(seconds % 60)}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h ${pad(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d ${pad(hours % 24)}h`;
}

const STEPS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
];

/** `5 min ago`, `5分钟前`; the future is `in 5 min`. Within a second it is `now`. */
export function relative(atMs: Maybe, nowMs: number, language: Language): string {
  if (!known(atMs)) return UNKNOWN;
  const format = new Intl.RelativeTimeFormat(language === 'zh' ? 'zh-CN' : 'en', { style: 'short', numeric: 'auto' });
  const difference = atMs - nowMs;
  const [unit, size] = STEPS.find(([, step]) => Math.abs(difference) >= step) ?? ['second', 1000];
  // "tomorrow" and "next day" would hide how long it is.
  const amount = Math.trunc(difference / size);
  if (amount === 0) return format.format(0, 'second');
  return new Intl.RelativeTimeFormat(language === 'zh' ? 'zh-CN' : 'en', { style: 'short' }).format(amount, unit);
}

/** `2025-11-23 14:05:09`, in the browser's time zone. */
export function dateTime(ms: Maybe): string {
  if (!known(ms)) return UNKNOWN;
  const at = new Date(ms);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(ms)}`;
}

/** `14:05:09`. */
export function clock(ms: number): string {
  const at = new Date(ms);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

/** `11-23 14:05:09.123`: log lines. */
export function logTime(ns: string): string {
  const ms = nsToMs(ns);
  const at = new Date(ms);
  return `${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(ms)}.${pad(((ms % 1000) + 1000) % 1000, 3)}`;
}

/** Nanoseconds as text lose their last six digits; a double could not hold them. */
export function nsToMs(ns: string): number {
  return ns.length > 6 ? Number(ns.slice(0, -6)) : 0;
}

/** `UTC+08:00`: stated wherever times are shown. */
export function zone(at = new Date()): string {
  const offset = -at.getTimezoneOffset();
  const size = Math.abs(offset);
  return `UTC${offset < 0 ? '-' : '+'}${pad(Math.floor(size / 60))}:${pad(size % 60)}`;
}
