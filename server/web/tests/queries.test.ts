import { describe, expect, test } from 'vitest';
import { glance, parseSelector } from '../src/lib/api/deployments';
import { askedSeverity, equalLabels, searchedWords, splitQuery, toNs, withLabel, withSeverity } from '../src/lib/api/logs';
import { quoted, selector, seriesNames, splitThreshold, timeGrid, toMatrix } from '../src/lib/api/series';
import { cli, curl, shell } from '../src/lib/copyas';
import { fleetQuery, METRICS } from '../src/lib/hosts';
import { chartQueries, CHARTS } from '../src/lib/hostcharts';

describe('PromQL', () => {
  test('values are quoted, whatever is in them', () => {
    expect(quoted('a"b\\c\nd')).toBe('"a\\"b\\\\c\\nd"');
    expect(selector({ instance: 'web-1', env: '', 'mode!': 'idle', 'fstype!~': 'tmpfs|ramfs', 'name~': 'a.*' })).toBe('{instance="web-1", mode!="idle", fstype!~"tmpfs|ramfs", name=~"a.*"}');
    expect(selector({ env: '' })).toBe('');
  });
  test('a host with quotes in its name cannot leave its string', () => {
    for (const chart of CHARTS) for (const expr of Object.values(chartQueries(chart, 'x"} or vector(1) #', '60s'))) expect(expr).toContain('instance="x\\"} or vector(1) #"');
  });
  test('queries of the fleet are of one environment or all', () => {
    for (const metric of METRICS) {
      expect(fleetQuery(metric, 'prod', '60s')).toContain('env="prod"');
      expect(fleetQuery(metric, '', '60s')).not.toContain('env=');
    }
  });
  test.each([
    ['a > 80', 'a', 80],
    ['100 * (1 - avg by (instance) (rate(x{mode="idle"}[5m]))) > 80', '100 * (1 - avg by (instance) (rate(x{mode="idle"}[5m])))', 80],
    ['predict_linear(free[6h], 4 * 3600) < 0', 'predict_linear(free[6h], 4 * 3600)', 0],
    ['up == bool 0', 'up', 0],
    ['a > 1 and b > 2', 'a > 1 and b > 2', null],
    ['(a > 1 and b) > 2', '(a > 1 and b)', 2],
    ['absent(up)', 'absent(up)', null],
    ['x{name="a > 3"}', 'x{name="a > 3"}', null],
  ])('%s is shown as %s with a line at %s', (given, expr, threshold) => expect(splitThreshold(given)).toEqual({ expr, threshold }));
  test('points stand on a grid; what is missing stays a gap', () => {
    const times = timeGrid({ startMs: 61_000, endMs: 121_000 }, 15);
    expect(times).toEqual([75, 90, 105, 120]);
    const matrix = toMatrix([{ metric: { a: 'b' }, values: [[75, '1'], [105, 'NaN'], [120, '4.5'], [999, '7']] }], times, 15);
    expect(matrix.series).toEqual([{ labels: { a: 'b' }, values: [1, null, null, 4.5] }]);
  });
  test('names tell only what differs', () => {
    expect(seriesNames([{ __name__: 'up', instance: 'a', job: 'n' }, { __name__: 'up', instance: 'b', job: 'n' }])).toEqual(['a', 'b']);
    expect(seriesNames([{ __name__: 'up', instance: 'a' }])).toEqual(['up{instance="a"}']);
    expect(seriesNames([{ x: '1', y: '2' }, { x: '2', y: '1' }])).toEqual(['{x="1", y="2"}', '{x="2", y="1"}']);
  });
});

describe('log queries', () => {
  test('braces and the rest are told apart', () => {
    expect(splitQuery('{host="a,b}", env=~"p.*"} |= "x" | level="error"')).toEqual({ matchers: ['host="a,b}"', 'env=~"p.*"'], rest: '|= "x" | level="error"' });
    expect(splitQuery('time out')).toEqual({ matchers: [], rest: 'time out' });
    expect(equalLabels('{host="a\\"b", env=~"p.*"}')).toEqual({ host: 'a"b' });
  });
  test.each([
    ['', 'host', 'web-1', '{host="web-1"}'],
    ['{host="a", env="prod"} |= "x"', 'host', 'b', '{env="prod", host="b"} |= "x"'],
    ['{host="a"} |= "x"', 'host', null, '{host=~".+"} |= "x"'],
    ['{host="a"}', 'host', null, ''],
    // Words match in any case of letters, and must go on doing so.
    ['Time.out "order 42"', 'host', 'a', '{host="a"} |~ "(?i)Time\\\\.out" |~ "(?i)order 42"'],
  ])('%s with %s = %s is %s', (query, name, value, expected) => expect(withLabel(query, name, value)).toBe(expected));
  test('severity comes and goes', () => {
    const some = withSeverity('{host="a"} |= "x"', 'error');
    expect(some).toBe('{host="a"} |= "x" | level="error"');
    expect(askedSeverity(some)).toBe('error');
    expect(withSeverity(some, 'warn')).toBe('{host="a"} |= "x" | level="warn"');
    expect(withSeverity(some, null)).toBe('{host="a"} |= "x"');
    expect(withSeverity('', 'error')).toBe('{host=~".+"} | level="error"');
    expect(withSeverity(withSeverity('', 'error'), null)).toBe('');
    expect(withSeverity('{host="a"}', null)).toBe('{host="a"}');
  });
  test('what is searched for is marked, in either form', () => {
    expect(searchedWords('Timeout "order 42"')).toEqual(['Timeout', 'order 42']);
    expect(searchedWords(withLabel('a.b c', 'host', 'x'))).toEqual(['a.b', 'c']);
    expect(searchedWords('{host="a"} |= "x" != "y" | level="error"')).toEqual(['x']);
  });
  test('nanoseconds are exact', () => expect(toNs(1_763_884_800_123)).toBe('1763884800123000000'));
});

describe('deployments', () => {
  test('the top of a deploy.yml', () => {
    expect(glance('version: 1\napp: shop-api # the API\nrelease: "v 2"\nroot: \'/srv/shop\'\nsteps:\n  - app: no\n')).toEqual({ app: 'shop-api', release: 'v 2', root: '/srv/shop' });
    expect(glance('')).toEqual({ app: null, release: null, root: null });
  });
  test('labels', () => {
    expect(parseSelector(' env=staging,  role=web ')).toEqual({ env: 'staging', role: 'web' });
    expect(parseSelector('')).toEqual({});
    expect(parseSelector('env')).toBeNull();
  });
});

test('commands are safe to paste', () => {
  expect(shell("it's $HOME")).toBe(`'it'\\''s $HOME'`);
  expect(cli('logs', '{host="a"}', '--follow')).toBe(`shipwatch logs '{host="a"}' --follow`);
  expect(curl('http://x', '/api/v1/query', { query: 'a > 1' })).toBe(`curl -fsS -H "Authorization: Bearer $SHIPWATCH_TOKEN" -G http://x/api/v1/query --data-urlencode 'query=a > 1'`);
});
