/**
 * One SSE connection for everything on the page: browsers allow six HTTP/1.1 connections an origin, over all tabs.
 *
 * The plugin and the widget are separate bundles, so module scope is not page scope: the hub lives on globalThis, and its key
 * carries the version of this interface. Nothing here may import from @jupyterlab.
 */
import { createParser } from 'eventsource-parser';

import type { ChartFactory } from './chart';

export const HUB_KEY = Symbol.for('kafka_jupyter.stream/1');
const NAMESPACE = 'kafka-jupyter';

const FIRST_DELAY = 500; // ms before the first attempt to reconnect, unless the server says another; doubled up to LAST_DELAY
const LAST_DELAY = 15_000;
const SILENCE = 30_000; // ms; the server speaks every 10 s, so three missed beats are a dead connection (a laptop that slept)
const HIDDEN = 10_000; // ms after which a hidden tab gives its connection back
const SETTLE = 30; // ms; a notebook that opens brings its cards one by one
const NAMED = 100; // runs that a connection names; more of them, and it takes all
const LINGER = 500; // ms; a view that is rendered anew unsubscribes and subscribes at once

/** What the server takes for one; a notebook may hold anything. */
const RUN_ID = /^[a-z0-9][a-z0-9-]{0,79}$/;

/** `off`: there is no server to ask (VS Code, a static page, the extension disabled, no permission). */
export type Connection = 'idle' | 'connecting' | 'open' | 'retrying' | 'off';

/** How requests reach the Jupyter server. `path` is relative to its base_url. */
export interface ITransport {
  kind: string;
  request(path: string, init: RequestInit): Promise<Response>;
}

export interface IListener {
  /** One event of the run that was asked for (or of all runs and workers). */
  onEvent(kind: string, data: unknown): void;
  /** `fresh`: what happened before this connection is unknown, so ask for it. */
  onConnection(connection: Connection, fresh: boolean): void;
}

interface IEntry {
  runId: string | null;
  listener: IListener;
}

/** What a connection brings: `runs`, batches and log lines of `detail`; null is all of them. */
interface IWanted {
  runs: ReadonlySet<string> | null;
  detail: ReadonlySet<string> | null;
}

export class StreamHub {
  connection: Connection = 'idle';
  /** Set by the plugin, which brings the large chart; the widget alone draws a small one. */
  chart: ChartFactory | null = null;
  /** Figures for people and tests. */
  readonly stats = { connects: 0, resumes: 0, events: 0, transport: '' };

  /** Called by the plugin: its requests carry token and XSRF as the application's own do. */
  useTransport(transport: ITransport): void {
    this._transport = transport;
    if (this.connection === 'off') {
      this._wake();
    }
  }

  /** Follow one run, or the states and epochs of all when runId is null. Returns the function that ends it. */
  subscribe(runId: string | null, listener: IListener): () => void {
    const entry = { runId, listener };
    this._entries.add(entry);
    this._watchPage();
    this._settling ??= setTimeout(() => {
      this._settling = undefined;
      this._wake();
    }, SETTLE);
    listener.onConnection(this.connection, true);
    return () => {
      this._entries.delete(entry);
      setTimeout(() => {
        if (!this._entries.size) {
          this._release();
        }
      }, LINGER);
    };
  }

  async request(path: string, init: RequestInit = {}): Promise<Response> {
    this._transport ??= pageTransport();
    if (!this._transport) {
      throw new Error('No Jupyter server is reachable from this page');
    }
    return this._transport.request(`${NAMESPACE}/${path}`, init);
  }

  private _wake(): void {
    if (!this._entries.size || isHidden()) {
      return;
    }
    this._skipDelay?.();
    if (this._running && !this._covers()) {
      this._widening = true;
      this._abort?.abort();
    }
    if (!this._running) {
      this._running = this._keepOpen().finally(() => {
        this._running = null;
        if (this._abort?.signal.aborted) {
          this._wake(); // somebody came while the old connection was being closed
        }
      });
    }
  }

  private _release(): void {
    this._abort?.abort();
    this._skipDelay?.();
    this._set('idle');
  }

  private async _keepOpen(): Promise<void> {
    let delay = this._retry;
    this._widening = false;
    this._set(this._lastId ? 'retrying' : 'connecting');
    for (;;) {
      const abort = (this._abort = new AbortController());
      try {
        const response = await this._connect(abort.signal);
        if (!response) {
          return this._set('off');
        }
        delay = this._retry;
        await this._read(response, abort, ms => (delay = this._retry = ms));
      } catch {
        // whatever broke the connection, the answer is the same: connect again and resume
      }
      if (abort.signal.aborted && (!this._entries.size || isHidden())) {
        return;
      }
      if (this._widening) {
        this._widening = false;
        this._set('connecting');
        continue;
      }
      this._set('retrying');
      await this._pause(delay * (0.75 + Math.random() / 2));
      if (!this._entries.size || isHidden()) {
        return;
      }
      delay = Math.min(delay * 2, LAST_DELAY);
    }
  }

  /** null: there is no stream on this server for us, and asking again would not change that. */
  private async _connect(signal: AbortSignal): Promise<Response | null> {
    this._transport ??= pageTransport();
    if (!this._transport) {
      return null;
    }
    const headers: Record<string, string> = { Accept: 'text/event-stream' };
    if (this._lastId) {
      headers['Last-Event-ID'] = this._lastId;
    }
    this._named = this._wanted();
    const response = await this.request(`events${queryOf(this._named)}`, { headers, signal });
    if (response.status === 404 || response.status === 403) {
      return null;
    }
    if (!response.ok || !response.body) {
      throw new Error(`HTTP ${response.status}`);
    }
    return response;
  }

  private async _read(response: Response, abort: AbortController, onRetry: (ms: number) => void): Promise<void> {
    const resumed = !!this._lastId;
    this.stats.connects++;
    this.stats.resumes += resumed ? 1 : 0;
    this.stats.transport = this._transport?.kind ?? '';
    this._set('open', !resumed);
    const parser = createParser({
      onEvent: event => {
        this.stats.events++;
        this._dispatch(event.event ?? 'message', event.data);
        this._lastId = event.id ?? this._lastId;
      },
      onRetry
    });
    const reader = response.body!.getReader();
    const decoder = new TextDecoder();
    let watchdog: ReturnType<typeof setTimeout> | undefined;
    try {
      for (;;) {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), SILENCE);
        const { done, value } = await reader.read();
        if (done) {
          return;
        }
        parser.feed(decoder.decode(value, { stream: true }));
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  private _wanted(): IWanted {
    const ids = named([...this._entries]);
    return { runs: [...this._entries].some(entry => entry.runId === null) ? null : ids, detail: ids };
  }

  /** Does the connection bring what everybody here wants? */
  private _covers(): boolean {
    const wanted = this._wanted();
    return covers(this._named.runs, wanted.runs) && covers(this._named.detail, wanted.detail);
  }

  private _dispatch(kind: string, text: string): void {
    try {
      const data = JSON.parse(text) as { run_id?: unknown } | null;
      const runId = data?.run_id;
      for (const entry of [...this._entries]) {
        if (entry.runId === null || typeof runId !== 'string' || entry.runId === runId) {
          entry.listener.onEvent(kind, data);
        }
      }
    } catch (error) {
      console.error(`kafka_jupyter: an event '${kind}' was passed over`, error); // one bad event must not break the stream for ever
    }
  }

  private _set(connection: Connection, fresh = false): void {
    if (connection !== this.connection) {
      this.connection = connection;
      [...this._entries].forEach(entry => entry.listener.onConnection(connection, fresh));
    }
  }

  private _pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms);
      this._skipDelay = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  private _watchPage(): void {
    if (this._watching || typeof document === 'undefined') {
      return;
    }
    this._watching = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    document.addEventListener('visibilitychange', () => {
      clearTimeout(timer);
      if (document.hidden) {
        timer = setTimeout(() => this._release(), HIDDEN);
      } else {
        this._wake();
      }
    });
    addEventListener('online', () => this._wake());
  }

  private _entries = new Set<IEntry>();
  private _transport: ITransport | null = null;
  private _running: Promise<void> | null = null;
  private _abort: AbortController | null = null;
  private _skipDelay: (() => void) | null = null;
  private _named: IWanted = { runs: null, detail: null };
  private _widening = false;
  private _settling: ReturnType<typeof setTimeout> | undefined;
  private _lastId = '';
  private _retry = FIRST_DELAY; // or what the server has wished, also where the next connection breaks before it says so again
  private _watching = false;
}

export function getHub(): StreamHub {
  const page = globalThis as unknown as Record<symbol, StreamHub | undefined>;
  return (page[HUB_KEY] ??= new StreamHub());
}

/** Their runs; null (all) where they are too many for a URL. */
function named(entries: readonly IEntry[]): ReadonlySet<string> | null {
  const ids = new Set(entries.map(entry => entry.runId ?? '').filter(id => RUN_ID.test(id)));
  return ids.size > NAMED ? null : ids;
}

function covers(has: ReadonlySet<string> | null, wanted: ReadonlySet<string> | null): boolean {
  return has === null || (wanted !== null && [...wanted].every(id => has.has(id)));
}

function queryOf(wanted: IWanted): string {
  const [name, ids] = wanted.runs ? ['runs', wanted.runs] : ['detail', wanted.detail]; // of named runs it brings all
  return ids ? `?${name}=${[...ids].map(encodeURIComponent).join(',')}` : '';
}

function isHidden(): boolean {
  return typeof document !== 'undefined' && document.hidden;
}

function cookie(name: string): string | undefined {
  const found = document.cookie.match(`(?:^|; )${name}=([^;]*)`);
  return found ? decodeURIComponent(found[1]) : undefined;
}

/** Without the plugin: JupyterLab and Notebook 7 put address and token into the page; null where no Jupyter server made the page. */
export function pageTransport(): ITransport | null {
  const text = typeof document === 'undefined' ? null : document.getElementById('jupyter-config-data')?.textContent;
  if (!text) {
    return null;
  }
  const config = JSON.parse(text) as { baseUrl?: string; token?: string };
  const base = new URL(config.baseUrl ?? '/', location.href);
  return {
    kind: 'page',
    request: (path, init) => {
      const headers = new Headers(init.headers);
      if (config.token) {
        headers.set('Authorization', `token ${config.token}`);
      }
      const xsrf = cookie('_xsrf');
      if (xsrf) {
        headers.set('X-XSRFToken', xsrf);
      }
      return fetch(new URL(path, base), { credentials: 'same-origin', cache: 'no-store', ...init, headers });
    }
  };
}
