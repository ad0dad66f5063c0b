/** What the pages do: keys, filters in the address, live streams, dialogs that say exactly what will happen, errors. */
import type { Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { entry } from '../support/data';
import { PASSWORD } from '../support/fake';
import { suite } from '../support/suite';

const here = suite();
const path = (page: Page) => new URL(page.url()).pathname + new URL(page.url()).search;
const posts = (prefix: string) => here.server.requests.filter(({ method, path }) => method === 'POST' && path.startsWith(prefix));

async function hosts(page: Page): Promise<string[]> {
  return page.locator('tbody td.name').allInnerTexts();
}

describe('keys', () => {
  test('search goes to a host, places are two keys away', async () => {
    const page = await here.visit('/?env=prod');
    await page.getByText('web-3 is silent').waitFor();
    await page.keyboard.press('/');
    await page.getByRole('combobox', { name: /Search hosts/ }).fill('db-1');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'db-1' }).waitFor();
    expect(path(page)).toBe('/hosts/db-1?env=prod');
    await page.keyboard.press('g');
    await page.keyboard.press('d');
    await page.getByRole('heading', { name: 'Deploys' }).waitFor();
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.keyboard.press('t');
    await page.getByRole('radio', { name: 'Last 6 hours' }).click();
    expect(path(page)).toBe('/deploys?env=prod&range=6h');
  });

  test('what is typed into a field is no command', async () => {
    const page = await here.visit('/hosts');
    const field = page.getByRole('searchbox');
    await field.click();
    await page.keyboard.type('gl?/t');
    expect(await field.inputValue()).toBe('gl?/t');
    expect(await page.getByRole('dialog').count()).toBe(0);
    expect(new URL(page.url()).pathname).toBe('/hosts');
  });

  test('the first Tab offers to skip to the content, and the focus is seen', async () => {
    const page = await here.visit('/settings');
    await page.getByText('grafana', { exact: true }).waitFor();
    await page.keyboard.press('Tab');
    const skip = page.getByRole('link', { name: 'Skip to the content' });
    expect(await skip.evaluate((link) => [document.activeElement === link, link.getBoundingClientRect().top >= 0, getComputedStyle(link).outlineStyle])).toEqual([true, true, 'solid']);
    await page.keyboard.press('Enter');
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('content');
  });
});

test('language and theme change at once and are kept', async () => {
  const page = await here.visit('/settings');
  await page.getByRole('radio', { name: '中文' }).click();
  await page.getByRole('heading', { name: '设置' }).waitFor();
  await page.getByRole('radio', { name: '深色' }).click();
  await page.reload();
  await page.getByRole('heading', { name: '设置' }).waitFor();
  expect(await page.evaluate(() => [document.documentElement.dataset.theme, document.documentElement.lang, document.title])).toEqual(['dark', 'zh-CN', '设置 · 护航']);
});

describe('hosts', () => {
  test('sorting and filtering stand in the address, and back undoes pages, not letters', async () => {
    const page = await here.visit('/hosts');
    await page.getByText('90.2').first().waitFor();
    expect((await hosts(page))[0]).toBe('web-3');
    await page.getByRole('button', { name: 'CPU, %' }).click();
    await expect.poll(() => hosts(page).then((all) => all[0])).toBe('web-1');
    await page.getByRole('searchbox').fill('web');
    await expect.poll(() => hosts(page)).toEqual(['web-1', 'web-2', 'web-stage-1', 'web-3']);
    expect(path(page)).toBe('/hosts?sort=cpu&desc=1&q=web');
    await page.getByRole('link', { name: 'web-2' }).click();
    await page.getByRole('heading', { name: 'web-2' }).waitFor();
    await page.goBack();
    await expect.poll(() => hosts(page).then((all) => all.length)).toBe(4);
  });

  test('a change on the server is seen without asking', async () => {
    const page = await here.visit('/hosts');
    await page.getByText('90.2').first().waitFor();
    await expect.poll(() => here.server.readers('/live')).toBe(1);
    here.server.world.hosts.find((host) => host.name === 'web-2')!.state = 'silent';
    here.server.changed('hosts');
    await page.getByRole('row').filter({ hasText: 'web-2' }).getByText('Silent').waitFor();
  });

  test('an empty fleet says how to get a host, and sees it join', async () => {
    const [first] = here.server.world.hosts;
    here.server.world.hosts = [];
    const page = await here.visit('/hosts');
    await page.getByText('No hosts yet').waitFor();
    await page.getByRole('button', { name: 'Add host' }).last().click();
    await page.getByLabel('Labels').fill('role');
    await page.getByText('Labels are written name=value').waitFor();
    await page.getByLabel('Labels').fill('role=web, team=shop');
    await page.getByLabel('Region').fill('eu');
    await page.getByRole('button', { name: 'Make the command' }).click();
    await page.getByText(/shipwatch-agent enroll --server/).waitFor();
    expect(JSON.parse(posts('/enrolment-tokens')[0]!.body)).toEqual({ env: 'prod', region: 'eu', labels: { role: 'web', team: 'shop' }, ttl: '1h', uses: 1 });
    here.server.world.hosts = [first!];
    here.server.changed('hosts');
    await page.getByText('Joined: web-1').waitFor();
  });

  test('revoking says what happens before it does', async () => {
    const page = await here.visit('/hosts/web-2');
    await page.getByRole('button', { name: 'Revoke…' }).click();
    await page.getByText(/The certificate of web-2 is refused from now on/).waitFor();
    expect(posts('/hosts')).toEqual([]);
    await page.getByRole('button', { name: 'Revoke web-2' }).click();
    await page.getByText('Revoked', { exact: true }).waitFor();
    expect(posts('/hosts')).toHaveLength(1);
  });
});

test('dragging over a chart zooms all, a double click goes back', async () => {
  const page = await here.visit('/hosts/web-1');
  const plot = page.locator('.u-over').first();
  await plot.waitFor();
  await plot.scrollIntoViewIfNeeded();
  const box = (await plot.boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.25, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 50, { steps: 4 });
  await page.mouse.up();
  await expect.poll(() => new URL(page.url()).searchParams.get('range')).toMatch(/^\d{13}\.\.\d{13}$/);
  const [from, to] = new URL(page.url()).searchParams.get('range')!.split('..').map(Number) as [number, number];
  expect((to - from) / 60_000).toBeGreaterThan(13);
  expect((to - from) / 60_000).toBeLessThan(17);
  // One step in the history, although nine charts share the cursor.
  const asked = () => here.server.requests.filter(({ path, body }) => path === '/api/v1/query_range' && body.includes('mode')).map(({ body }) => Number(new URLSearchParams(body).get('start')));
  await expect.poll(() => Math.abs(asked().at(-1)! * 1000 - from)).toBeLessThan(10_000);
  await page.locator('.u-over').first().dblclick();
  await expect.poll(() => path(page)).toBe('/hosts/web-1');
});

describe('logs', () => {
  test('filters change the query, a line shows its neighbours', async () => {
    const page = await here.visit('/logs');
    await page.getByText('库存同步延迟').first().waitFor();
    await page.getByLabel('host', { exact: true }).selectOption('web-2');
    await page.getByRole('button', { name: /^error/ }).click();
    expect(new URL(page.url()).searchParams.get('q')).toBe('{host="web-2"} | level="error"');
    await page.getByRole('listbox', { name: 'Log lines' }).getByRole('option').first().click();
    await page.getByRole('complementary', { name: 'Line' }).waitFor();
    await page.getByRole('button', { name: 'Lines around it' }).click();
    await expect.poll(() => page.locator('.context li').count()).toBeGreaterThan(3);
    await page.getByRole('button', { name: /shop\/app.log/ }).first().click();
    expect(new URL(page.url()).searchParams.get('q')).toBe('{host="web-2", filename="/var/log/shop/app.log"} | level="error"');
  });

  test('a mistake in the query is told where it is typed', async () => {
    const page = await here.visit('/logs?q=%7B%7B');
    await page.getByText('The query could not be read').waitFor();
    await page.getByText('query: column 2').waitFor();
  });

  test('older lines come as one scrolls', async () => {
    const page = await here.visit('/logs');
    await page.getByText('300 lines+').waitFor();
    await page.getByRole('listbox', { name: 'Log lines' }).focus();
    await page.keyboard.press('End');
    await page.getByText('600 lines').waitFor();
    await page.getByText('No older lines in this time range.').waitFor();
    // However many there are, few are drawn.
    expect(await page.getByRole('listbox', { name: 'Log lines' }).getByRole('option').count()).toBeLessThan(120);
  });

  test('live lines follow, pause while one reads, and tell of gaps', async () => {
    const page = await here.visit('/logs?live=1');
    await page.getByText('Waiting for lines that match…').waitFor();
    await expect.poll(() => here.server.readers('/logs/tail')).toBe(1);
    const now = Date.now();
    here.server.push('/logs/tail', 'entries', Array.from({ length: 80 }, (_, n) => entry(now + n, n)));
    await page.getByText('80 lines').waitFor();
    await expect.poll(() => page.getByRole('listbox').evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight)).toBeLessThan(2);
    await page.getByRole('listbox').evaluate((box) => (box.scrollTop = 0));
    await page.getByText('Paused while you read').waitFor();
    here.server.push('/logs/tail', 'gap', { dropped: 12 });
    here.server.push('/logs/tail', 'entries', [{ ...entry(now + 100, 1), line: 'the newest line' }]);
    await page.getByRole('button', { name: '2 new lines' }).click();
    await page.getByText('the newest line').waitFor();
    await page.getByText('12 lines left out here').waitFor();
    here.server.cut();
    await page.getByText('The stream is cut').first().waitFor();
    await expect.poll(() => here.server.readers('/logs/tail'), { timeout: 10_000 }).toBe(1);
    await page.getByText('Following').waitFor();
  });

  test('nothing found and nothing there are told apart', async () => {
    const page = await here.visit('/logs?q=nosuchword');
    await page.getByText('No line matches').waitFor();
  });
});

describe('alerts', () => {
  test('a test of a channel shows what it answered', async () => {
    const page = await here.visit('/alerts?tab=channels');
    await page.getByRole('button', { name: 'Send a test: ding-ops' }).click();
    await page.getByText('errcode 0').waitFor();
    await page.getByRole('button', { name: 'Send a test: mail' }).click();
    await page.getByText('Not accepted').waitFor();
    await page.getByText('smtp.example.com:465: connection refused').waitFor();
  });

  test('a new alert appears and is counted', async () => {
    const page = await here.visit('/alerts');
    await page.getByRole('link', { name: 'CpuBusy' }).waitFor();
    await expect.poll(() => here.server.readers('/live')).toBe(1);
    const [first] = here.server.world.alerts;
    here.server.world.alerts.push({ ...first!, fingerprint: 'f'.repeat(16), name: 'DiskFull' });
    here.server.changed('alerts');
    await page.getByRole('link', { name: 'DiskFull' }).waitFor();
    expect(await page.getByRole('link', { name: /^Alerts 3/ }).count()).toBe(1);
  });
});

describe('deployments', () => {
  test('a new one is confirmed host by host and sent as it was shown', async () => {
    const page = await here.visit('/deploys/new');
    await page.getByRole('textbox', { name: 'Specification' }).fill('version: 1\napp: shop-api\nrelease: v43\n');
    await page.getByText('shop-api, release v43').waitFor();
    await page.getByRole('checkbox', { name: /^web-1/ }).check();
    await page.getByRole('checkbox', { name: /^web-3/ }).check();
    await page.getByText('Silent now, so the server will refuse: web-3').waitFor();
    await page.getByRole('checkbox', { name: /^web-3/ }).uncheck();
    await page.getByRole('checkbox', { name: /^web-2/ }).check();
    await page.getByRole('button', { name: 'Review…' }).click();
    expect(await page.getByRole('dialog').locator('.exact li strong').allInnerTexts()).toEqual(['web-1', 'web-2']);
    expect(posts('/deployments')).toEqual([]);
    await page.getByRole('button', { name: 'Deploy to 2 hosts' }).click();
    await expect.poll(() => new URL(page.url()).pathname).toBe('/deploys/dep-new');
    expect(JSON.parse(posts('/deployments')[0]!.body)).toMatchObject({ hosts: ['web-1', 'web-2'], strategy: 'one_by_one', stop_on_failure: true });
  });

  test('labels choose hosts, and all mistakes of a specification are shown', async () => {
    const page = await here.visit('/deploys/new');
    await page.getByRole('textbox', { name: 'Specification' }).fill('version: 1\n');
    await page.getByRole('radio', { name: 'By labels' }).check();
    await page.getByRole('textbox', { name: 'By labels' }).fill('env=prod, role=web');
    await page.getByText('3 hosts match').waitFor();
    await page.getByRole('button', { name: 'Review…' }).click();
    await page.getByRole('button', { name: 'Deploy to 3 hosts' }).click();
    await page.getByText('spec: steps: at least one is needed').waitFor();
    await page.getByText('spec: app: must not be empty').waitFor();
  });

  test('output comes live, goes on after a cut, and ends', async () => {
    const page = await here.visit('/deploys/dep-running');
    const stream = '/deployments/dep-running/events';
    await page.getByText('listening on 8080').first().waitFor();
    const events = here.server.world.events['dep-running']!;
    const next = events.at(-1)!.n + 1;
    const more = { n: next, at_ms: Date.now(), host: 'web-2', kind: 'output' as const, step: 'start', text: 'one more line\n' };
    here.server.push(stream, 'deployment', more, next);
    await page.getByText('one more line').waitFor();
    events.push(more, { n: next + 1, at_ms: Date.now(), host: 'web-2', kind: 'state', state: 'succeeded', reason: '', release: 'v42' });
    here.server.cut();
    await page.locator('.hosts li').filter({ hasText: 'web-2' }).getByText('Succeeded').waitFor();
    expect(await page.getByText('one more line').count()).toBe(1);
    const asked = here.server.requests.filter(({ path }) => path === stream).map(({ search }) => search.get('after'));
    expect(asked).toEqual(['0', String(next)]);
    here.server.push(stream, 'end', {});
    await page.getByText('ended', { exact: true }).waitFor();
  });

  test('aborting names what goes back, what is not begun, and what stays', async () => {
    const page = await here.visit('/deploys/dep-running');
    await page.getByRole('button', { name: 'Abort…' }).click();
    await page.getByText('go back: web-2.').waitFor();
    await page.getByText('These have the new release and keep it: web-1.').waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Abort', exact: true }).click();
    await page.getByText('Aborted').first().waitFor();
    expect(posts('/deployments/dep-running/abort')).toHaveLength(1);
  });

  test('rolling back lists the hosts and leads to the new deployment', async () => {
    const page = await here.visit('/deploys/dep-done');
    await page.getByRole('button', { name: 'Roll back…' }).click();
    expect(await page.getByRole('dialog').locator('.exact li').allInnerTexts()).toEqual(['web-1', 'web-2']);
    await page.getByRole('button', { name: 'Roll back 2 hosts' }).click();
    await expect.poll(() => new URL(page.url()).pathname).toBe('/deploys/dep-new');
    await page.getByText('takes back').waitFor();
  });
});

test("ranges end at the server's now, even when the clock here is wrong", async () => {
  const page = await here.visit('/signin', { signedIn: false });
  await page.clock.setFixedTime(Date.now() + 3 * 3_600_000);
  await page.goto('/hosts/web-1');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.keyboard.press('Enter');
  await page.locator('.u-over').first().waitFor();
  const ends = here.server.requests.filter(({ path }) => path === '/api/v1/query_range').map(({ body }) => Number(new URLSearchParams(body).get('end')));
  expect(ends.length).toBeGreaterThan(5);
  for (const end of ends) expect(Math.abs(end - Date.now() / 1000)).toBeLessThan(60);
});

describe('errors', () => {
  test('carry the id that the log has, and can be tried again', async () => {
    here.server.broken.set('GET /deployments?', { status: 500 });
    here.server.broken.set('GET /deployments', { status: 500, message: 'control.db: disk I/O error' });
    const page = await here.visit('/deploys');
    await page.getByText('control.db: disk I/O error').waitFor();
    await page.getByText('0193b2c4-77aa-7000-9000-0123456789ab').waitFor();
    here.server.broken.clear();
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByRole('link', { name: 'order-sync' }).waitFor();
  });

  test('a wrong expression shows what the server said of it', async () => {
    const page = await here.visit('/explore');
    await page.getByRole('textbox', { name: 'Expression' }).fill('rate(');
    await page.keyboard.press('Enter');
    await page.getByText('The expression could not be evaluated').waitFor();
    await page.getByText('unclosed left parenthesis').waitFor();
  });

  test('what is missing says so and leads on', async () => {
    const page = await here.visit('/hosts/nobody');
    await page.getByText('There is no host “nobody”').waitFor();
    await page.goto('/deploys/nothing');
    await page.getByText('There is no such deployment').waitFor();
    await page.goto('/alerts/0000');
    await page.getByText('There is no such alert (any more)').waitFor();
  });

  test('a cut live connection is told, and what was missed is read', async () => {
    const page = await here.visit('/hosts');
    await page.getByText('90.2').first().waitFor();
    await expect.poll(() => here.server.readers('/live')).toBe(1);
    here.server.broken.set('GET /live', { status: 503 });
    here.server.cut();
    await page.getByText('The live connection to the server is cut').waitFor();
    here.server.world.hosts.find((host) => host.name === 'web-2')!.state = 'silent';
    here.server.broken.clear();
    await page.getByRole('row').filter({ hasText: 'web-2' }).getByText('Silent').waitFor();
    await page.getByText('The live connection to the server is cut').waitFor({ state: 'detached' });
  });
});
