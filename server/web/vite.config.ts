import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

/** `npm run dev` shows the dashboard of a running server; `SHIPWATCH_URL` says which. */
const server = process.env.SHIPWATCH_URL ?? 'http://127.0.0.1:9700';

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    // The server's policy allows no inline scripts and no data: scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 200,
  },
  server: {
    proxy: Object.fromEntries(['/shipwatch', '/api', '/-'].map((path) => [path, { target: server, changeOrigin: true }])),
  },
  test: { include: ['tests/**/*.test.ts'], environment: 'node' },
});
