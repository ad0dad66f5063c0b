/** The time as the views show it: moves once a second, while the page is seen. */

class Clock {
  now = $state(Date.now());
  /** How far the server's clock is ahead of the browser's; ranges that end now end at the server's now. */
  skewMs = 0;

  constructor() {
    const tick = () => {
      if (!document.hidden) this.now = Date.now();
    };
    setInterval(tick, 1000);
    document.addEventListener('visibilitychange', tick);
  }

  /** The server's time as an answer told it, to the second; small differences are the network's. */
  compare(serverMs: number): void {
    const ahead = serverMs + 500 - Date.now();
    this.skewMs = Math.abs(ahead) > 2500 ? ahead : 0;
  }

  server(): number {
    return Date.now() + this.skewMs;
  }
}

export const clock = new Clock();
