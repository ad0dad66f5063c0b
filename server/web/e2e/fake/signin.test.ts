import { expect, test } from 'vitest';
import { overflow } from '../support/browser';
import { PASSWORD } from '../support/fake';
import { suite } from '../support/suite';

const here = suite({ signedIn: false });
const visit = here.visit;

test('signing in leads back to where one wanted to go', async () => {
  const page = await visit('/hosts?env=prod&sort=cpu');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: 'web-1', exact: true }).first().waitFor();
  expect(new URL(page.url()).pathname + new URL(page.url()).search).toBe('/hosts?env=prod&sort=cpu');
});

test('a wrong password is told, and nothing is lost', async () => {
  const page = await visit('/signin');
  await page.getByLabel('Password', { exact: true }).fill('wrong');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('The name or the password is wrong.').waitFor();
  expect(await page.getByLabel('User').inputValue()).toBe('admin');
  expect(await page.evaluate(() => document.activeElement?.getAttribute('name'))).toBe('password');
});

test('after too many attempts the page counts down', async () => {
  here.server.broken.set('POST /session', { status: 429, headers: { 'retry-after': '42' } });
  const page = await visit('/signin');
  await page.getByLabel('Password', { exact: true }).fill('wrong');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText(/try again in 4[12] seconds/).waitFor();
  expect(await page.getByRole('button', { name: 'Sign in' }).isDisabled()).toBe(true);
});

test('a server that is gone is told, and found again', async () => {
  const page = await visit('/signin');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.route('**/shipwatch/**', (route) => route.abort());
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('The server does not answer.').waitFor();
  await page.unroute('**/shipwatch/**');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('navigation', { name: 'Main' }).first().waitFor();
});

test('a session that ends leads to the sign-in page and back', async () => {
  const page = await visit('/hosts', { signedIn: true });
  await page.getByRole('link', { name: 'web-1', exact: true }).first().waitFor();
  here.server.sessionValid = false;
  here.server.changed('hosts');
  await page.getByText('You were signed out.').waitFor();
  expect(new URL(page.url()).search).toBe('?next=%2Fhosts');
});

test('Chinese, dark, on a phone', async () => {
  const page = await visit('/signin', { language: 'zh', theme: 'dark', phone: true });
  await page.getByRole('button', { name: '登录' }).waitFor();
  expect(await overflow(page)).toEqual([]);
  expect(await page.evaluate(() => document.documentElement.lang)).toBe('zh-CN');
  expect(await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor)).toBe('rgb(15, 18, 22)');
});
