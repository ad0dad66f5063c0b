/**
 * Every page in both languages, both themes, on a desk and on a phone: it shows what it should, fits the screen, breaks no
 * rule of the content security policy, and axe finds nothing. `SHOTS=DIR` keeps pictures.
 */
import { mkdir } from 'node:fs/promises';
import axe from 'axe-core';
import type { Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { overflow, type Wanted } from '../support/browser';
import { suite } from '../support/suite';

const here = suite();
const fingerprint = Buffer.from('CpuBusyweb-1').toString('hex').slice(0, 16);

/** Name, address, and a text that stands there once the data is there, in English and in Chinese. */
const PAGES: [string, string, string | RegExp, string | RegExp][] = [
  ['overview', '/', 'web-3 is silent', 'web-3 失联'],
  ['hosts', '/hosts', '90.2', '90.2'],
  ['hosts-add', '/hosts?add=1', 'Make the command', '生成命令'],
  ['host', '/hosts/web-1', 'waiting for IO', '等待 IO'],
  ['host-silent', '/hosts/web-3', /This host is silent/, /此主机失联/],
  ['explore-empty', '/explore', 'Ask anything of the series', '查询任意指标'],
  ['explore-chart', '/explore?expr=node_load1', /5 series/, /5 条序列/],
  ['explore-table', '/explore?expr=node_load1&as=table', /5 series/, /5 条序列/],
  ['logs', '/logs', '库存同步延迟', '库存同步延迟'],
  ['logs-filtered', '/logs?q=order', 'marketplace', 'marketplace'],
  ['logs-live', '/logs?live=1', 'Waiting for lines', '等待匹配的日志'],
  ['alerts', '/alerts', 'CpuBusy', 'CpuBusy'],
  ['alerts-channels', '/alerts?tab=channels', 'ding-ops', 'ding-ops'],
  ['alerts-messages', '/alerts?tab=messages', 'connection refused', 'connection refused'],
  ['alert', `/alerts/${fingerprint}`, 'Messages about it', '相关通知'],
  ['deploys', '/deploys', 'order-sync', 'order-sync'],
  ['deploy-new', '/deploys/new', 'Paste a deploy.yml', '拖到这里'],
  ['deploy-running', '/deploys/dep-running', 'listening on 8080', 'listening on 8080'],
  ['deploy-failed', '/deploys/dep-failed', /health check failed/, /health check failed/],
  ['settings', '/settings', 'grafana', 'grafana'],
  ['lost', '/no/such/page', 'There is no such page', '没有这个页面'],
];

const LOOKS: [string, Wanted][] = [
  ['en-light', { language: 'en', theme: 'light' }],
  ['zh-dark', { language: 'zh', theme: 'dark' }],
  ['zh-light-phone', { language: 'zh', theme: 'light', phone: true }],
  ['en-dark-phone', { language: 'en', theme: 'dark', phone: true }],
];

async function shown(page: Page, wanted: string | RegExp): Promise<void> {
  await page.waitForFunction(
    ({ text, isPattern }) => {
      const values = [...document.querySelectorAll<HTMLInputElement>('input, textarea')].map((field) => `${field.value} ${field.placeholder}`).join(' ');
      const all = `${document.body.innerText} ${values}`;
      return isPattern ? new RegExp(text).test(all) : all.includes(text);
    },
    { text: wanted instanceof RegExp ? wanted.source : wanted, isPattern: wanted instanceof RegExp },
  );
}

/** Nothing on its way any more, and nothing that stands for what is still to come. */
async function settled(page: Page): Promise<void> {
  await page.waitForFunction(() => document.querySelectorAll('.bone').length === 0);
}

describe.each(LOOKS)('%s', (look, wanted) => {
  test.each(PAGES)('%s', async (name, path, en, zh) => {
    const page = await here.visit(path, wanted);
    await shown(page, wanted.language === 'zh' ? zh : en);
    await settled(page);
    if (process.env.SHOTS) {
      await mkdir(process.env.SHOTS, { recursive: true });
      await page.screenshot({ path: `${process.env.SHOTS}/${name}.${look}.png`, fullPage: !name.includes('add') });
    }
    expect(await overflow(page)).toEqual([]);
    // As a string: the policy forbids further scripts in the page, not those of the debugger.
    await page.evaluate(axe.source);
    const found = await page.evaluate(async () => {
      const { violations } = await (window as unknown as { axe: typeof axe }).axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] });
      return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.target.join(' ')} (${node.any.map((one) => one.message).join('; ')})`).join(' | ')}`);
    });
    expect(found).toEqual([]);
  });
});

test('whatever is wrong with one part, the others are shown', async () => {
  here.server.broken.set('POST /api/v1/query', { status: 503, message: 'the series store is being repaired' });
  const page = await here.visit('/hosts');
  await page.getByText('Values could not be read').waitFor();
  await page.getByText('the series store is being repaired').waitFor();
  await page.getByRole('link', { name: 'web-1', exact: true }).waitFor();
  here.server.broken.clear();
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByText('90.2').first().waitFor();
});
