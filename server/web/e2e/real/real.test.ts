/** Against a real server with one agent, as `packaging/browser.sh` starts them. The tests are one story, in this order. */
import { readFile } from 'node:fs/promises';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { launch, open, type View } from '../support/browser';

function given(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; packaging/browser.sh starts a server and an agent and runs this`);
  return value;
}

const url = given('SHIPWATCH_URL');
const user = given('SHIPWATCH_USER');
let browser: Browser;
let view: View;

beforeAll(async () => {
  browser = await launch();
  view = await open(browser, url, { signedIn: false });
});
afterEach(() => expect(view.mistakes.splice(0)).toEqual([]));
afterAll(() => browser?.close());

const signIn = (password: string) =>
  fetch(`${url}/shipwatch/api/v1/session`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ user, password }) });

test('signing in shows the fleet with values', async () => {
  const { page } = view;
  await page.goto('/hosts');
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password', { exact: true }).fill('not the password');
  await page.keyboard.press('Enter');
  await page.getByText('The name or the password is wrong.').waitFor();
  await page.getByLabel('Password', { exact: true }).fill(given('SHIPWATCH_PASSWORD'));
  await page.keyboard.press('Enter');
  const row = page.getByRole('row').filter({ hasText: 'web-1' });
  await row.getByText('OK').waitFor();
  const values = () => row.getByRole('cell').allInnerTexts().then((cells) => cells.slice(4).filter((cell) => /\d/.test(cell)).length);
  await expect.poll(values, { timeout: 30_000, interval: 500 }).toBe(5);
});

test("a host's charts have points", async () => {
  const { page } = view;
  await page.goto('/hosts/web-1?range=15m');
  await page.getByRole('img', { name: /^CPU by mode/ }).waitFor();
  for (const name of ['CPU by mode, %', 'Load and cores', 'Memory', 'Disk space used, %']) {
    const chart = page.locator('figure').filter({ has: page.getByRole('heading', { name, exact: true }) });
    await expect.poll(() => chart.innerText().then((text) => /\d/.test(text)), { timeout: 20_000 }).toBe(true);
    // Drawn, not only described: some pixels of the canvas have a colour.
    expect(await chart.locator('canvas').evaluate((canvas: HTMLCanvasElement) => canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0))).toBe(true);
  }
  expect(await page.getByRole('alert').count()).toBe(0);
});

test('an expression is evaluated, and a wrong one explained', async () => {
  const { page } = view;
  await page.goto('/explore?as=table&expr=node_load1');
  await page.getByRole('cell', { name: 'web-1' }).first().waitFor();
  await page.getByRole('textbox', { name: 'Expression' }).fill('sum(node_load1');
  await page.keyboard.press('Enter');
  await page.getByText('The expression could not be evaluated').waitFor();
});

test('logs are found, and new ones come live', async () => {
  const { page } = view;
  await page.goto('/logs');
  await page.getByRole('listbox', { name: 'Log lines' }).getByRole('option').first().waitFor();
  await page.getByLabel('host', { exact: true }).selectOption('web-1');
  await page.getByRole('listbox', { name: 'Log lines' }).getByRole('option').first().waitFor();
  await page.goto('/logs?live=1&q=sign-in');
  await page.getByText('Following').waitFor();
  // The server logs each wrong password, the agent tails the server's log.
  expect((await signIn('wrong again')).status).toBe(401);
  await page.getByRole('listbox', { name: 'Log lines' }).getByText('failed').first().waitFor({ timeout: 20_000 });
});

test('a deployment is started, followed to its end, and seen on the host page', async () => {
  const { page } = view;
  const spec = await readFile(given('SHIPWATCH_DEPLOY_YML'), 'utf8');
  await page.goto('/deploys/new');
  await page.getByRole('textbox', { name: 'Specification' }).fill(spec);
  await page.getByRole('checkbox', { name: /^web-1/ }).check();
  await page.getByRole('button', { name: 'Review…' }).click();
  await page.getByRole('button', { name: 'Deploy to 1 host' }).click();
  await page.locator('.head').getByText('Succeeded').waitFor({ timeout: 45_000 });
  await page.getByText('start: done in').waitFor();
  await page.getByText('ended', { exact: true }).waitFor();
  await page.goto('/hosts/web-1');
  await page.getByRole('link', { name: /sample-app v1/ }).first().waitFor();
});

test('every other page opens without a mistake, in Chinese', async () => {
  const { page } = view;
  await page.goto('/settings');
  await page.getByRole('radio', { name: '中文' }).click();
  for (const [path, text] of [['/', '最近变更'], ['/alerts', '告警'], ['/alerts?tab=channels', '通知渠道'], ['/alerts?tab=messages', '通知记录'], ['/deploys', 'sample-app'], ['/settings', '服务端']] as const) {
    await page.goto(path);
    await page.locator('main').getByText(text).locator('visible=true').first().waitFor();
    await page.waitForFunction(() => document.querySelectorAll('.bone').length === 0);
    expect(await page.getByRole('alert').allInnerTexts(), path).toEqual([]);
  }
  if (process.env.SHOTS) {
    for (const [name, path] of [['overview', '/'], ['hosts', '/hosts'], ['host', '/hosts/web-1?range=15m'], ['logs', '/logs'], ['deploys', '/deploys']] as const) {
      await page.goto(path);
      await page.waitForFunction(() => document.querySelectorAll('.bone').length === 0 && document.querySelector('h1'));
      await page.screenshot({ path: `${process.env.SHOTS}/real-${name}.png`, fullPage: true });
    }
  }
});

test('signing out ends the session', async () => {
  const { page } = view;
  await page.goto('/hosts');
  await page.getByRole('button', { name: '退出登录' }).click();
  await page.getByRole('button', { name: '登录' }).waitFor();
  await page.goto('/hosts');
  await page.getByRole('button', { name: '登录' }).waitFor();
});
