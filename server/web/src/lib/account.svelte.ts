/** Who is signed in. Any 401 leads to the sign-in page and from there back to where it happened. */
import { signOut, session, type Session } from './api/session';
import { whenDated, whenUnauthenticated } from './api/client';
import { failureOf, type Failure } from './api/failure';
import { clock } from './clock.svelte';
import { live } from './live.svelte';
import { router } from './router.svelte';
import { safeNext } from './url';

class Account {
  session = $state.raw<Session | null>(null);
  /** Whether it is known who is signed in. */
  known = $state(false);
  failure = $state.raw<Failure | undefined>(undefined);

  constructor() {
    whenUnauthenticated(() => this.lost());
    whenDated((ms) => clock.compare(ms));
  }

  async check(): Promise<void> {
    try {
      this.entered(await session());
    } catch (error) {
      const failure = failureOf(error);
      if (failure.status === 401) this.lost();
      else this.failure = failure;
    }
  }

  entered(session: Session): void {
    this.session = session;
    this.known = true;
    this.failure = undefined;
    live.start();
    if (router.path === '/signin') router.go(safeNext(router.search.get('next')), { replace: true });
  }

  async leave(): Promise<void> {
    await signOut().catch(() => undefined);
    this.session = null;
    live.stop();
    router.go('/signin', { replace: true });
  }

  private lost(): void {
    this.session = null;
    this.known = true;
    this.failure = undefined;
    live.stop();
    if (router.path === '/signin') return;
    const here = router.path + router.url.search;
    router.go(here === '/' ? '/signin' : `/signin?next=${encodeURIComponent(here)}`, { replace: true });
  }
}

export const account = new Account();
