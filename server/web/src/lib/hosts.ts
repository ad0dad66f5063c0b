/** What the table of hosts shows: queries, and how answers become columns. Pure. */
import type { Host, HostState } from './api/hosts';
import { selector, type Matrix, type Sample } from './api/series';
import type { Tone } from './tones';

/** File systems that hold no data of their own. */
export const NO_DISK = 'tmpfs|ramfs|devtmpfs|squashfs|iso9660|overlay|nsfs|proc|sysfs|efivarfs|fuse.lxcfs';
/** Interfaces that are not the host's own way out. */
export const NO_NET = 'lo|veth.*|br-.*|docker.*|cali.*|flannel.*|cni.*|virbr.*';

export const METRICS = ['cpu', 'memory', 'disk', 'load', 'network'] as const;
export type Metric = (typeof METRICS)[number];

/** One value for each host. */
export function fleetQuery(metric: Metric, env: string, window: string): string {
  const at = (name: string, more: Record<string, string> = {}) => `${name}${selector({ env, ...more })}`;
  switch (metric) {
    case 'cpu': {
      // A share of all time that was counted: right even when a host has not yet reported for a whole window.
      const rate = (more: Record<string, string>) => `sum by (instance) (rate(${at('node_cpu_seconds_total', more)}[${window}]))`;
      return `100 * (1 - ${rate({ mode: 'idle' })} / ${rate({})})`;
    }
    case 'memory':
      return `max by (instance) (100 * (1 - ${at('node_memory_MemAvailable_bytes')} / ${at('node_memory_MemTotal_bytes')}))`;
    case 'disk':
      return `max by (instance) (100 * (1 - ${at('node_filesystem_avail_bytes', { 'fstype!~': NO_DISK })} / (${at('node_filesystem_size_bytes', { 'fstype!~': NO_DISK })} > 0)))`;
    case 'load':
      return `max by (instance) (${at('node_load1')})`;
    case 'network': {
      const rate = (way: string) => `sum by (instance) (rate(${at(`node_network_${way}_bytes_total`, { 'device!~': NO_NET })}[${window}]))`;
      return `8 * (${rate('receive')} + ${rate('transmit')})`;
    }
  }
}

export function byInstance(samples: Sample[]): Map<string, number> {
  return new Map(samples.map(({ labels, value }) => [labels.instance ?? '', value]));
}

export interface Sparks {
  lines: Map<string, (number | null)[]>;
  max: number;
}

/** Lines of a column share one scale; percentages always end at 100. */
export function toSparks(matrix: Matrix, least: number): Sparks {
  let max = least;
  for (const { values } of matrix.series) for (const value of values) if (value !== null && value > max) max = value;
  return { lines: new Map(matrix.series.map(({ labels, values }) => [labels.instance ?? '', values])), max };
}

export function hostTone(state: HostState): Tone {
  return ({ up: 'ok', silent: 'critical', stopped: 'off', enrolled: 'waiting', revoked: 'off' } as const)[state];
}

/** Trouble first. */
const RANK: Record<HostState, number> = { silent: 0, up: 1, stopped: 2, enrolled: 3, revoked: 4 };

export type SortKey = 'state' | 'name' | 'env' | 'region' | Metric;

export function sortHosts(hosts: Host[], by: SortKey, descending: boolean, values: Partial<Record<Metric, Map<string, number>>>): Host[] {
  const name = (a: Host, b: Host) => a.name.localeCompare(b.name, 'en', { numeric: true });
  const sign = descending ? -1 : 1;
  const metric = (host: Host) => (METRICS.includes(by as Metric) ? values[by as Metric]?.get(host.name) : undefined);
  return [...hosts].sort((a, b) => {
    if (by === 'name') return sign * name(a, b);
    if (by === 'state') return sign * (RANK[a.state] - RANK[b.state]) || name(a, b);
    if (by === 'env' || by === 'region') return sign * a[by].localeCompare(b[by]) || name(a, b);
    const [x, y] = [metric(a), metric(b)];
    // Hosts without a value come last, whatever the direction.
    if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined) || name(a, b);
    return sign * (x - y) || name(a, b);
  });
}

/** All words occur in the name, the place or a label. */
export function matchesHost(host: Host, text: string): boolean {
  const all = [host.name, host.env, host.region, host.facts?.os ?? '', ...Object.entries(host.labels).map(([name, value]) => `${name}=${value}`)].join(' ').toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

/** From which value on a number is worth a colour. */
export function metricTone(metric: Metric, value: number | undefined, cores: number | undefined): '' | 'warning' | 'critical' {
  if (value === undefined) return '';
  if (metric === 'load') return cores && value > cores * 2 ? 'warning' : '';
  if (metric === 'network') return '';
  return value >= 95 ? 'critical' : value >= 85 ? 'warning' : '';
}
