/** Answers of the series API, made up from what the expression mentions. Smooth, positive, with one gap. */

export const HOSTS = ['web-1', 'web-2', 'db-1', 'sync-worker-with-a-rather-long-name-7', 'web-stage-1'];

interface Shape {
  labels: Record<string, string>;
  base: number;
  swing: number;
}

function shapes(expr: string): Shape[] {
  const one = /instance="([^"]+)"/.exec(expr)?.[1];
  const each = (names: string[], label: string, base: number, swing: number): Shape[] =>
    names.map((name, n) => ({ labels: { instance: one ?? 'web-1', [label]: name }, base: base / (n + 1), swing: swing / (n + 1) }));
  if (expr.includes('by (mode)')) return each(['user', 'system', 'iowait', 'steal', 'softirq'], 'mode', 42, 14);
  if (one) {
    if (expr.includes('node_filesystem')) return each(['/', '/var/lib/postgresql', '/boot'], 'mountpoint', 71, 2);
    if (expr.includes('node_disk')) return each(['sda', 'sdb'], 'device', 4e6, 2e6);
    if (expr.includes('node_network')) return each(['eth0', 'eth1'], 'device', 3.4e7, 1.2e7);
    if (expr.includes('node_pressure')) return [{ labels: { instance: one }, base: 3.2, swing: 2 }];
    if (expr.includes('node_memory_Swap')) return [{ labels: { instance: one }, base: 4e8, swing: 1e8 }];
    if (expr.includes('node_memory')) return [{ labels: { instance: one }, base: 2.4e9, swing: 3e8 }];
    if (expr.includes('node_filefd')) return [{ labels: { instance: one }, base: 2400, swing: 300 }];
    if (expr.includes('count')) return [{ labels: { instance: one }, base: 4, swing: 0 }];
    return [{ labels: { instance: one }, base: 1.3, swing: 0.8 }];
  }
  if (expr.includes('nothing')) return [];
  const size = expr.includes('node_network') ? 3e7 : expr.includes('node_load') ? 1.2 : expr.includes('filesystem') ? 50 : 47;
  return HOSTS.map((instance, n) => ({ labels: { instance, env: 'prod', job: 'node' }, base: size * (n === 0 ? 1.92 : 1 - n * 0.15), swing: size * 0.1 }));
}

const at = (shape: Shape, time: number) => shape.base + shape.swing * Math.sin(time / 500 + shape.base);

export function instant(expr: string, time: number) {
  return { resultType: 'vector', result: shapes(expr).map((shape) => ({ metric: shape.labels, value: [time, String(shape.base)] })) };
}

export function range(expr: string, start: number, end: number, step: number) {
  const times: number[] = [];
  for (let time = start; time <= end; time += step) times.push(time);
  const gap = (n: number) => n > times.length * 0.55 && n < times.length * 0.62;
  const values = (shape: Shape) => times.flatMap((time, n) => (gap(n) ? [] : [[time, String(at(shape, time))] as [number, string]]));
  return { resultType: 'matrix', result: shapes(expr).map((shape) => ({ metric: shape.labels, values: values(shape) })) };
}
