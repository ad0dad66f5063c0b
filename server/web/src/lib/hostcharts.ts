/** The charts of a host: what is asked, and how answers become lines. Pure. */
import { selector, type Matrix } from './api/series';
import { colorsFor, lineOf, linesBy, type Line } from './chart';
import { NO_DISK, NO_NET } from './hosts';
import type { Catalogue } from './i18n';

export const CHARTS = ['cpu', 'load', 'memory', 'swap', 'diskSpace', 'diskIo', 'network', 'psi', 'files'] as const;
export type ChartName = (typeof CHARTS)[number];
export type Matrices = Record<string, Matrix>;
type Words = Catalogue['host'];

const NO_DEVICE = 'loop.*|ram.*|sr.*|zram.*|fd.*';

/** Expressions of one chart by name. `window` is what rates are taken over. */
export function chartQueries(chart: ChartName, instance: string, window: string): Record<string, string> {
  const at = (name: string, more: Record<string, string> = {}) => `${name}${selector({ instance, ...more })}`;
  const rate = (name: string, more: Record<string, string> = {}) => `rate(${at(name, more)}[${window}])`;
  switch (chart) {
    case 'cpu':
      // A share of all time that was counted, as in the table of hosts.
      return { modes: `100 * sum by (mode) (${rate('node_cpu_seconds_total', { 'mode!': 'idle' })}) / on () group_left () sum(${rate('node_cpu_seconds_total')})` };
    case 'load':
      return { load1: at('node_load1'), load5: at('node_load5'), load15: at('node_load15'), cores: `count(${at('node_cpu_seconds_total', { mode: 'idle' })})` };
    case 'memory':
      return {
        used: `${at('node_memory_MemTotal_bytes')} - ${at('node_memory_MemAvailable_bytes')}`,
        cached: `${at('node_memory_MemAvailable_bytes')} - ${at('node_memory_MemFree_bytes')}`,
        free: at('node_memory_MemFree_bytes'),
      };
    case 'swap':
      return { used: `${at('node_memory_SwapTotal_bytes')} - ${at('node_memory_SwapFree_bytes')}`, total: at('node_memory_SwapTotal_bytes') };
    case 'diskSpace': {
      const max = (name: string) => `max by (mountpoint) (${at(name, { 'fstype!~': NO_DISK })})`;
      return { used: `100 * (1 - ${max('node_filesystem_avail_bytes')} / (${max('node_filesystem_size_bytes')} > 0))` };
    }
    case 'diskIo':
      return { read: rate('node_disk_read_bytes_total', { 'device!~': NO_DEVICE }), written: rate('node_disk_written_bytes_total', { 'device!~': NO_DEVICE }) };
    case 'network':
      return { received: `8 * ${rate('node_network_receive_bytes_total', { 'device!~': NO_NET })}`, sent: `8 * ${rate('node_network_transmit_bytes_total', { 'device!~': NO_NET })}` };
    case 'psi':
      return {
        cpu: `100 * ${rate('node_pressure_cpu_waiting_seconds_total')}`,
        io: `100 * ${rate('node_pressure_io_waiting_seconds_total')}`,
        memory: `100 * ${rate('node_pressure_memory_waiting_seconds_total')}`,
      };
    case 'files':
      return { used: at('node_filefd_allocated'), limit: at('node_filefd_maximum') };
  }
}

/** Modes are always in this order and these colours, so that pages can be compared at a glance. */
const MODES: readonly [string, string][] = [
  ['user', '--c1'], ['system', '--c2'], ['iowait', '--c5'], ['steal', '--c4'], ['softirq', '--c7'], ['irq', '--c6'], ['nice', '--c3'],
];

export function chartLines(chart: ChartName, data: Matrices | undefined, words: Words): Line[] {
  if (!data) return [];
  const one = (key: string, name: string, color: string) => lineOf(data[key], name, color);
  switch (chart) {
    case 'cpu':
      return MODES.flatMap(([mode, color]) => {
        const values = data.modes?.series.find(({ labels }) => labels.mode === mode)?.values;
        return values?.some((value) => value !== null && value > 0) ? [{ name: words.modes[mode] ?? mode, values, color }] : [];
      });
    case 'load':
      return [...one('load1', words.load1, '--c1'), ...one('load5', words.load5, '--c6'), ...one('load15', words.load15, '--c8'), ...dashed(one('cores', words.cores, '--c2'))];
    case 'memory':
      return [...one('used', words.used, '--c1'), ...one('cached', words.cached, '--c6'), ...one('free', words.free, '--c8')];
    case 'swap':
      return withoutZero(data.total) ? [...one('used', words.swapUsed, '--c1'), ...dashed(one('total', words.total, '--c8'))] : [];
    case 'diskSpace':
      return linesBy(data.used, 'mountpoint');
    case 'diskIo':
      return bothWays(data.read, data.written, words.read, words.written);
    case 'network':
      return bothWays(data.received, data.sent, words.received, words.sent);
    case 'psi':
      return [...one('cpu', words.psiNames.cpu!, '--c1'), ...one('io', words.psiNames.io!, '--c5'), ...one('memory', words.psiNames.memory!, '--c4')];
    case 'files':
      return [...one('used', words.used, '--c1'), ...(nearLimit(data) ? dashed(one('limit', words.limit, '--c2')) : [])];
  }
}

const dashed = (lines: Line[]): Line[] => lines.map((line) => ({ ...line, dashed: true }));

function withoutZero(matrix: Matrix | undefined): boolean {
  return matrix?.series.some(({ values }) => values.some((value) => value !== null && value > 0)) ?? false;
}

/** A limit of 2⁶³ would flatten the line that matters. */
function nearLimit(data: Matrices): boolean {
  const largest = (matrix: Matrix | undefined) => Math.max(0, ...(matrix?.series[0]?.values.filter((value) => value !== null) ?? []));
  return largest(data.limit) < largest(data.used) * 20;
}

function bothWays(up: Matrix | undefined, down: Matrix | undefined, upName: string, downName: string): Line[] {
  const devices = [...new Set([...(up?.series ?? []), ...(down?.series ?? [])].map(({ labels }) => labels.device ?? ''))];
  const colors = colorsFor(devices);
  // Devices that never did anything would fill the legend.
  const used = (values: (number | null)[] | undefined) => values?.some((value) => value !== null && value > 0);
  return devices.flatMap((device, at) => {
    const [a, b] = [up, down].map((matrix) => matrix?.series.find(({ labels }) => labels.device === device)?.values);
    if (!used(a) && !used(b)) return [];
    const color = colors[at]!;
    return [...(a ? [{ name: `${device} ${upName}`, values: a, color }] : []), ...(b ? [{ name: `${device} ${downName}`, values: b, color, negative: true }] : [])];
  });
}
