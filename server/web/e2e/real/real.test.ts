/** Against a real server with one agent, as `packaging/browser.sh` starts them. */
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { launch, open, type View } from '../support/browser';

function given(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; packaging/browser.sh starts a server and an agent and runs this`);
  return value;
}

const url = given('SHIPWATCH_URL');
let browser: Browser;
let view: View;

beforeAll(async () => {
  browser = await launch();
  view = await open(browser, url, { signedIn: false });
});
afterAll(() => browser?.close());

test('signing in shows the fleet with values', async () => {
  const { page } = view;
  await page.goto('/hosts');
  await page.getByLabel('User').fill(given('SHIPWATCH_USER'));
  await page.getByLabel('Password', { exact: true }).fill(given('SHIPWATCH_PASSWORD'));
  await page.keyboard.press('Enter');
  const row = page.getByRole('row').filter({ hasText: 'web-1' });
  await row.getByText('OK').waitFor();
  await expect.poll(() => row.getByRole('cell').allInnerTexts(), { timeout: 20_000 }).toSatisfy((cells: string[]) => cells.slice(4).every((cell) => /\d/.test(cell)));
  expect(view.mistakes).toEqual([]);
});
