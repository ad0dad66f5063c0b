/** A deployment's events as lines to be read. Pure. */
import type { DeploymentEvent } from './api/deployments';
import { duration } from './format';
import type { Catalogue } from './i18n';

export interface OutputLine {
  key: string;
  host: string;
  atMs: number;
  kind: 'output' | 'step' | 'state' | 'failed';
  text: string;
}

/** Most lines that a page keeps. */
export const MOST_LINES = 4000;

// Colours and cursor movements of terminals mean nothing here.
// eslint-disable-next-line no-control-regex
const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;

export function outputLines(event: DeploymentEvent, t: Catalogue): OutputLine[] {
  const line = (kind: OutputLine['kind'], text: string, part = 0): OutputLine => ({ key: `${event.n}.${part}`, host: event.host, atMs: event.at_ms, kind, text });
  switch (event.kind) {
    case 'output': {
      // A progress bar overwrites its line; only its last state matters.
      const lines = event.text.replace(ESCAPES, '').replace(/\n$/, '').split('\n');
      return lines.map((text, part) => line('output', text.replace(/\r$/, '').split('\r').at(-1) ?? '', part));
    }
    case 'step_started':
      return [line('step', t.deploys.stepStarted(event.step))];
    case 'step_finished':
      return [event.ok ? line('step', t.deploys.stepDone(event.step, duration(event.took_ms))) : line('failed', t.deploys.stepFailed(event.step, event.detail))];
    case 'state': {
      const bad = ['failed', 'reverted', 'revert_failed', 'refused'].includes(event.state);
      return [line(bad ? 'failed' : 'state', [t.deploys.hostNow(t.progress[event.state] ?? event.state), event.reason].filter(Boolean).join(' · '))];
    }
  }
}
