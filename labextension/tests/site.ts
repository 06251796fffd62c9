/** A real HTTP server on the loopback, with the routes that a test gives, and a page's hub that asks it. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { StreamHub } from '../src/stream';

export interface ISite {
  hub: StreamHub;
  base: string;
  requests: IncomingMessage[];
  close: () => Promise<void>;
}

export async function site(route: (path: string, request: IncomingMessage, response: ServerResponse) => void): Promise<ISite> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    route((request.url ?? '').replace('/kafka-jupyter/', '').replace(/\?.*/, ''), request, response);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const hub = new StreamHub();
  hub.useTransport({ kind: 'test', request: (path, init) => fetch(base + path, init) });
  return {
    hub,
    base,
    requests,
    close: () => {
      server.closeAllConnections();
      return new Promise(resolve => server.close(() => resolve()));
    }
  };
}

export function event(response: ServerResponse, id: string, kind: string, data: unknown): void {
  response.write(`event: ${kind}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`);
}

export const isStream = (request: IncomingMessage) => request.url?.includes('/events') ?? false;

export function startStream(response: ServerResponse): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders();
}
