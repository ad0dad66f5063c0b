/** What the frame of every page needs: environments to switch between, names to search, how much is on fire. */
import { alerts, type Alert } from './api/alerts';
import { deployments, type Deployment } from './api/deployments';
import { hosts, type Host } from './api/hosts';
import { resource, type Resource } from './resource.svelte';

const USUAL = ['dev', 'staging', 'prod'];

class Fleet {
  hosts = $state.raw<Resource<{ hosts: Host[] }>>();
  alerts = $state.raw<Resource<{ alerts: Alert[] }>>();
  deployments = $state.raw<Resource<{ deployments: Deployment[] }>>();

  /** To be called by the frame, which lives as long as the session; pages read, too. */
  use(): void {
    this.hosts = resource((signal) => hosts(signal), { on: ['hosts'], everyMs: 30_000 });
    this.alerts = resource((signal) => alerts(signal), { on: ['alerts'], everyMs: 30_000 });
    this.deployments = resource((signal) => deployments(50, signal), { on: ['deployments'], everyMs: 60_000 });
  }

  get envs(): string[] {
    const known = new Set(this.hosts?.data?.hosts.map((host) => host.env).filter(Boolean));
    return [...USUAL.filter((env) => known.delete(env)), ...[...known].sort()];
  }

  get firing(): number {
    return this.alerts?.data?.alerts.filter((alert) => alert.state === 'firing').length ?? 0;
  }
}

export const fleet = new Fleet();
