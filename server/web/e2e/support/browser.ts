/** Chromium, and pages that remember everything that went wrong in them. */
import { access } from 'node:fs/promises';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

const PATH = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];

export async function launch(): Promise<Browser> {
  await access(PATH).catch(() => {
    throw new Error(`${PATH} is missing: apt-get install --no-install-recommends chromium fonts-noto-cjk (or say where it is in CHROMIUM)`);
  });
  return chromium.launch({ executablePath: PATH, headless: true, args: FLAGS });
}

export interface View {
  page: Page;
  /** Errors of the console, exceptions, violations of the content security policy. */
  mistakes: string[];
  close(): Promise<void>;
}

export interface Wanted {
  language?: 'en' | 'zh';
  theme?: 'light' | 'dark';
  phone?: boolean;
  signedIn?: boolean;
  options?: BrowserContextOptions;
}

export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

export async function open(browser: Browser, url: string, wanted: Wanted = {}): Promise<View> {
  const { language = 'en', theme = 'light', phone = false, signedIn = true } = wanted;
  const context = await browser.newContext({
    baseURL: url, viewport: phone ? PHONE : DESKTOP, hasTouch: phone, isMobile: phone, locale: language === 'zh' ? 'zh-CN' : 'en-GB', colorScheme: theme, timezoneId: 'Asia/Shanghai', reducedMotion: 'reduce', ...wanted.options,
  });
  if (signedIn) await context.addCookies([{ name: 'shipwatch_session', value: 'fake', url }]);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const mistakes: string[] = [];
  page.on('pageerror', (error) => mistakes.push(`exception: ${error.message}`));
  page.on('console', (message) => {
    // Chromium reports each answer ≥ 400 as an error; the pages tell of them, and tests check that.
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) mistakes.push(`console: ${message.text()}`);
    if (message.type() === 'warning') mistakes.push(`console warning: ${message.text()}`);
  });
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  return { page, mistakes, close: () => context.close() };
}

/** How far the page reaches beyond the screen to the right, and what does. */
export function overflow(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const wide = [...document.querySelectorAll('body *')].filter((element) => element.getBoundingClientRect().right > width + 0.5);
    return [`${document.documentElement.scrollWidth} > ${width}`, ...wide.slice(0, 5).map((element) => `${element.tagName}.${element.className}`)];
  });
}
