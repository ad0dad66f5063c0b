/** What every file of tests needs: one browser, one fake server, and after each test no mistakes. */
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { launch, open, type View, type Wanted } from './browser';
import { FakeServer } from './fake';

export interface Suite {
  server: FakeServer;
  visit(path: string, wanted?: Wanted): Promise<Page>;
}

export function suite(defaults: Wanted = {}): Suite {
  let browser: Browser;
  const views: View[] = [];
  const made = {
    async visit(path: string, wanted: Wanted = {}) {
      const view = await open(browser, made.server.url, { ...defaults, ...wanted });
      views.push(view);
      await view.page.goto(path);
      return view.page;
    },
  } as Suite;
  beforeAll(async () => {
    [browser, made.server] = await Promise.all([launch(), FakeServer.start()]);
  });
  afterEach(async () => {
    const mistakes = views.flatMap((view) => view.mistakes);
    await Promise.all(views.splice(0).map((view) => view.close()));
    made.server.reset();
    expect(mistakes).toEqual([]);
  });
  afterAll(async () => {
    await browser?.close();
    await made.server?.stop();
  });
  return made;
}
