import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { test } from 'node:test';

import type { ISink, IStanding } from '../src/connection';
import { SharedConnection } from '../src/share';
import { StreamHub } from '../src/stream';
import { type IWanted, covers, queryOf, wantedBy } from '../src/wanted';
import { Browser, Locks } from './locks';
import { event, site, startStream } from './site';

/** A page that wants some runs, and keeps what it is told. */
class Page implements ISink {
  events: string[] = [];
  told: string[] = [];
  standing: IStanding | null = null;
  readonly stats = { connects: 0, resumes: 0, events: 0 };
  readonly locks: Locks;
  readonly source: SharedConnection;

  constructor(
    private readonly _browser: Browser,
    server: string,
    public runs: readonly (string | null)[]
  ) {
    this.locks = new Locks(_browser);
    const send = (wanted: IWanted, headers: Record<string, string>, signal: AbortSignal) => {
      return this._dead ? new Promise<null>(() => undefined) : fetch(server + queryOf(wanted), { headers, signal });
    };
    this.source = new SharedConnection(this, send, this.stats, server, this.locks);
  }

  wanted(): IWanted | null {
    return this.runs.length ? wantedBy(this.runs) : null;
  }

  onEvent(kind: string, text: string, id: string): void {
    if (!this._dead) {
      this.events.push(`${kind} ${id} ${text}`);
      this._look();
    }
  }

  onStanding(standing: IStanding, fresh: boolean): void {
    if (!this._dead) {
      this.standing = standing;
      this.told.push(`${standing.connection}${fresh ? ' fresh' : ''}`);
      this._look();
    }
  }

  until(condition: () => boolean): Promise<void> {
    return new Promise(resolve => {
      const look = () => {
        if (condition()) {
          this._looks.delete(look);
          resolve();
        }
      };
      this._looks.add(look);
      look();
    });
  }

  /** Is it brought all that it wants? */
  isOpen(): boolean {
    return this.standing?.connection === 'open' && covers(this.standing.named, this.wanted()!);
  }

  close(): void {
    this.runs = [];
    this.source.release();
  }

  /** Without a word, as a page does whose process dies: its socket is closed and its locks are given to others. */
  die(): void {
    this._dead = true;
    const inner = this.source as unknown as { _channel: BroadcastChannel; _beat: undefined; _patience: undefined };
    inner._channel.close();
    clearInterval(inner._beat);
    clearInterval(inner._patience);
    inner._channel = { postMessage: () => undefined, close: () => undefined } as unknown as BroadcastChannel;
    this._browser.gone(this.locks);
  }

  private _look(): void {
    this._looks.forEach(look => look());
  }

  private _dead = false;
  private _looks = new Set<() => void>();
}

interface IScene {
  browser: Browser;
  base: string;
  requests: IncomingMessage[];
  streams: ServerResponse[];
  page: (...runs: (string | null)[]) => Page;
  /** To whoever has a connection now. */
  send: (id: string, runId?: string) => void;
  close: () => Promise<void>;
}

async function scene(): Promise<IScene> {
  const streams: ServerResponse[] = [];
  const { requests, close, base } = await site((_, request, response) => {
    streams.push(response);
    response.on('close', () => streams.splice(streams.indexOf(response), 1));
    startStream(response);
    response.write('retry: 10\n\n');
    if (!request.headers['last-event-id']) {
      event(response, '1', 'health', { reachable: true });
    }
  });
  const browser = new Browser();
  const pages: Page[] = [];
  return {
    browser,
    base,
    requests,
    streams,
    page: (...runs) => {
      const page = new Page(browser, `${base}kafka-jupyter/events`, runs);
      pages.push(page);
      page.source.wake();
      return page;
    },
    send: (id, runId = 'a-1') => streams.forEach(stream => event(stream, id, 'run', { run_id: runId })),
    close: () => {
      pages.forEach(page => page.close());
      return close();
    }
  };
}

const TIME = { timeout: 10_000 };
const ids = (page: Page) => page.events.filter(each => each.startsWith('run')).map(each => Number(each.split(' ')[1]));
const asked = (requests: IncomingMessage[]) => requests.map(request => [request.url?.split('?')[1], request.headers['last-event-id']]);

test('several pages have one connection, and each is told everything from then on', TIME, async () => {
  const { page, requests, send, close } = await scene();
  const first = page(null);
  await first.until(() => first.isOpen() && first.events.length === 1);
  const second = page(null);
  await second.until(() => second.isOpen());
  send('5');
  await Promise.all([first, second].map(each => each.until(() => ids(each).includes(5))));
  assert.equal(requests.length, 1);
  assert.deepEqual([first.source.leads, second.source.leads], [true, false]);
  assert.deepEqual(second.told, ['connecting', 'open fresh']);
  assert.equal(second.events[0], 'health  {"reachable":true}');
  assert.deepEqual([first.stats.connects, second.stats.connects], [1, 0]);
  await close();
});

test('a page that wants more has the connection widened, and the others miss nothing', TIME, async () => {
  const { page, requests, send, close } = await scene();
  const first = page('a-1');
  await first.until(() => first.isOpen() && first.events.length === 1);
  send('5');
  await first.until(() => ids(first).length === 1);
  const second = page('b-2');
  await second.until(() => second.isOpen());
  send('6', 'b-2');
  await second.until(() => ids(second).length === 1);
  assert.deepEqual(asked(requests), [
    ['runs=a-1', undefined],
    ['runs=a-1,b-2', '5']
  ]);
  assert.deepEqual(ids(first), [5, 6]);
  assert.deepEqual(
    first.told.filter(told => told.includes('fresh')),
    ['open fresh']
  );
  await close();
});

for (const end of ['close', 'die'] as const) {
  test(`when the page that leads ${end === 'die' ? 'dies' : 'is closed'} another one goes on where it was`, TIME, async () => {
    const { page, requests, streams, send, close } = await scene();
    const first = page(null);
    await first.until(() => first.isOpen() && first.events.length === 1);
    const others = [page('a-1'), page('b-2')];
    await Promise.all(others.map(each => each.until(() => each.isOpen())));
    send('5');
    await Promise.all(others.map(each => each.until(() => ids(each).length === 1)));
    const before = others.map(each => each.told.length);
    if (end === 'die') {
      streams.forEach(stream => stream.destroy());
    }
    first[end]();
    await Promise.all(others.map((each, i) => each.until(() => each.told.slice(before[i]).includes('open'))));
    send('6');
    await Promise.all(others.map(each => each.until(() => ids(each).length === 2)));
    assert.deepEqual(others.map(ids), [
      [5, 6],
      [5, 6]
    ]);
    assert.deepEqual(asked(requests).at(-1), ['runs=a-1,b-2', '5']);
    assert.equal(others.filter(each => each.source.leads).length, 1);
    assert.ok(others.every((each, i) => each.told.slice(before[i]).every(told => !told.includes('fresh'))));
    await close();
  });
}

test('a page that comes back after something has happened is told so', TIME, async () => {
  const { page, send, close } = await scene();
  const first = page(null);
  await first.until(() => first.isOpen() && first.events.length === 1);
  const second = page('a-1');
  await second.until(() => second.isOpen());
  const runs = second.runs;
  second.close();
  assert.equal(second.standing?.connection, 'idle');
  send('5');
  await first.until(() => ids(first).length === 1);
  second.runs = runs;
  second.told = [];
  second.source.wake();
  await second.until(() => second.isOpen());
  assert.deepEqual(second.told, ['retrying', 'open fresh']);
  await close();
});

test('what a page wanted that is gone is asked for no more', TIME, async () => {
  const { page, requests, streams, close } = await scene();
  const first = page('a-1');
  await first.until(() => first.isOpen() && first.events.length === 1);
  for (const end of ['close', 'die'] as const) {
    const second = page('b-2');
    await second.until(() => second.isOpen());
    second[end]();
    await new Promise(resolve => setTimeout(resolve, 50));
    first.told = [];
    streams.forEach(stream => stream.end());
    await first.until(() => first.told.includes('open'));
    assert.equal(asked(requests).at(-1)?.[0], 'runs=a-1');
  }
  await close();
});

test('of many pages that come and go one leads at a time, and none misses anything while it is there', TIME, async () => {
  const { page, streams, send, close } = await scene();
  const stays = page(null);
  await stays.until(() => stays.isOpen() && stays.events.length === 1);
  const crowd = Array.from({ length: 6 }, () => page(null));
  const all = [stays, ...crowd];
  await Promise.all(crowd.map(each => each.until(() => each.isOpen())));
  for (let id = 2; id < 20; id++) {
    send(String(id));
    const here = all.filter(each => each.runs.length);
    await Promise.all(here.map(each => each.until(() => ids(each).at(-1) === id)));
    assert.equal(here.filter(each => each.source.leads).length, 1);
    assert.equal(streams.length, 1);
    if (id % 3 === 0) {
      const leader = here.find(each => each.source.leads)!;
      const next = here.filter(each => each !== leader);
      next.forEach(each => (each.told = []));
      leader.close();
      await Promise.all(next.map(each => each.until(() => each.told.includes('open'))));
    }
  }
  for (const each of all) {
    const seen = ids(each);
    assert.deepEqual(
      seen,
      seen.map((_, i) => i + 2)
    );
  }
  await close();
});

test('a page that stands still itself takes the lock from nobody: the answer has come meanwhile', TIME, async () => {
  const { page, requests, close } = await scene();
  const first = page(null);
  await first.until(() => first.isOpen() && first.events.length === 1);
  const second = page(null);
  // both stand still for longer than the second waits for an answer, as beside a notebook that is drawn; timers go before messages then
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3_200);
  await second.until(() => second.isOpen());
  assert.deepEqual([first.source.leads, second.source.leads], [true, false]);
  assert.equal(requests.length, 1);
  await close();
});

test('a page that was refused and is given another way to its server lets go of the lock that others wait for', TIME, async () => {
  const { browser, base, page, close } = await scene();
  Object.defineProperty(globalThis, 'navigator', { value: { locks: new Locks(browser) }, configurable: true });
  const hub = new StreamHub();
  const server = `${base}kafka-jupyter/events`;
  hub.useTransport({ kind: 'page', server, request: () => Promise.resolve(new Response('{}', { status: 403 })) });
  const told: string[] = [];
  const heard = async (wanted: string) => {
    while (told.at(-1) !== wanted) {
      await new Promise(resolve => setTimeout(resolve, 5));
    }
  };
  const leave = hub.subscribe(null, { onEvent: () => undefined, onConnection: connection => told.push(connection) });
  await heard('off');
  const other = page(null);
  await other.until(() => other.standing?.connection === 'off'); // it is told so: the page that holds the lock was refused
  hub.useTransport({ kind: 'plugin', server, request: (path, init) => fetch(base + path, init) });
  await other.until(() => other.isOpen());
  assert.ok(other.source.leads, 'it waits behind a page that has no connection');
  await heard('open');
  assert.ok(hub.isGuest);
  leave();
  await close();
});
