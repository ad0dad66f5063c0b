import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from '../src/lib/api/failure';
import { follow, pause, SseParser, type SseEvent } from '../src/lib/sse';

const parse = (chunks: string[]): SseEvent[] => {
  const parser = new SseParser();
  return chunks.flatMap((chunk) => parser.push(chunk));
};

describe('the parser', () => {
  const stream = '\ufeff: hello\n\nid: 7\nevent: entries\ndata: [1,\ndata:  2]\n\ndata:x\r\n\r\nevent: end\ndata\n\n:keep-alive\n\nevent: never\n\n';
  const expected = [
    { id: '7', event: 'entries', data: '[1,\n 2]' },
    { id: '7', event: 'message', data: 'x' },
    { id: '7', event: 'end', data: '' },
  ];
  test('reads fields, comments, many lines of data, all line ends', () => expect(parse([stream])).toEqual(expected));
  test('does not care where the stream is cut', () => {
    for (let size = 1; size < 12; size += 1) {
      const chunks = stream.match(new RegExp(`[\\s\\S]{1,${size}}`, 'g'))!;
      expect(parse(chunks), `pieces of ${size}`).toEqual(expected);
    }
  });
  test('gives nothing for an event that has not ended', () => expect(parse(['data: half\n'])).toEqual([]));
});

test('pauses grow to a bound', () => {
  const pauses = [0, 1, 2, 3, 50].map((attempt) => pause(attempt, 0.5));
  expect(pauses).toEqual([500, 1000, 2000, 4000, 15_000]);
});

describe('following', () => {
  let server: Server;
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });
  async function serve(answer: Parameters<typeof createServer>[1]): Promise<string> {
    server = createServer(answer);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  test('after a break it goes on behind the last event', async () => {
    const asked: string[] = [];
    const url = await serve((request, response) => {
      const after = Number(new URL(request.url ?? '', 'http://x').searchParams.get('after'));
      asked.push(String(after));
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(`id: ${after + 1}\ndata: ${after + 1}\n\n`);
    });
    const abort = new AbortController();
    const seen: string[] = [];
    let broken = 0;
    await follow((last) => `${url}/?after=${last || 0}`, { event: ({ data }) => seen.push(data) === 2 && abort.abort(), broken: () => (broken += 1) }, abort.signal);
    expect({ seen, asked, broken }).toEqual({ seen: ['1', '2'], asked: ['0', '1'], broken: 1 });
  });

  test('a refusal that another attempt cannot mend is thrown with its message', async () => {
    const url = await serve((_, response) => {
      response.writeHead(400, { 'content-type': 'application/json' });
      response.end('{"error":{"code":"bad_request","message":"query: column 2","id":"x"}}');
    });
    const refused = await follow(() => url, { event: () => undefined }, new AbortController().signal).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ApiError);
    expect(refused).toMatchObject({ status: 400, message: 'query: column 2', id: 'x' });
  });
});
