/**
 * One SSE connection for everything on the page: browsers allow six HTTP/1.1 connections an origin, over all tabs.
 *
 * The plugin and the widget are separate bundles, so module scope is not page scope: the hub lives on globalThis, and its key
 * carries the version of this interface. Nothing here may import from @jupyterlab.
 */
import { createParser } from 'eventsource-parser';

import type { ChartFactory } from './chart';
import { type IRefusal, type ITransport, pageTransport, refusalOf } from './transport';
import { type IWanted, covers, queryOf, wantedBy } from './wanted';

export const HUB_KEY = Symbol.for('kafka_jupyter.stream/1');
const NAMESPACE = 'kafka-jupyter';

const FIRST_DELAY = 500; // ms before the first attempt to reconnect, unless the server says another; doubled up to LAST_DELAY
const LAST_DELAY = 15_000;
const LAST_DELAY_REFUSED = 60_000; // ms; where the server says why, as without a Kafka: whoever looks at runs asks at once
const SILENCE = 30_000; // ms; the server speaks every 10 s, so three missed beats are a dead connection (a laptop that slept)
const HIDDEN = 10_000; // ms after which a hidden tab gives its connection back
const SETTLE = 30; // ms; a notebook that opens brings its cards one by one
const LINGER = 500; // ms; a view that is rendered anew unsubscribes and subscribes at once

/** `off`: there is no server to ask (VS Code, a static page, the extension disabled, no permission). */
export type Connection = 'idle' | 'connecting' | 'open' | 'retrying' | 'off';

export interface IListener {
  /** One event of the run that was asked for (or of all runs and workers). */
  onEvent(kind: string, data: unknown): void;
  /** `fresh`: what happened before this connection is unknown, so ask for it. */
  onConnection(connection: Connection, fresh: boolean): void;
}

interface IEntry {
  runId: string | null;
  listener: IListener;
  /** No connection has covered it yet: what happened until then is unknown to it. */
  fresh: boolean;
}

export class StreamHub {
  connection: Connection = 'idle';
  /** Why there is no connection, where the server says so. */
  refusal: IRefusal | null = null;
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
    const entry = { runId, listener, fresh: true };
    this._entries.add(entry);
    this._watchPage();
    this._settling ??= setTimeout(() => {
      this._settling = undefined;
      this._wake();
    }, SETTLE);
    this._tell(entry);
    return () => {
      this._entries.delete(entry);
      setTimeout(() => {
        if (!this._entries.size) {
          this._release();
        }
      }, LINGER);
    };
  }

  /** Asks at once if there is no connection: somebody looks. */
  hurry(): void {
    if (this.connection !== 'open') {
      this._wake();
    }
  }

  async request(path: string, init: RequestInit = {}): Promise<Response> {
    this._transport ??= pageTransport();
    if (!this._transport) {
      throw new Error('No Jupyter server is reachable from this page');
    }
    return this._transport.request(`${NAMESPACE}/${path}`, init);
  }

  private _wake(): void {
    if (!this._isWanted()) {
      return;
    }
    this._skipDelay?.();
    if (this._running && !covers(this._named, this._wanted())) {
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
      let refusal: IRefusal | null = null;
      try {
        const answer = await this._connect(abort.signal);
        if (answer && isStream(answer)) {
          delay = this._retry;
          await this._read(answer, abort, ms => (delay = this._retry = ms));
        } else {
          refusal = answer && (await refusalOf(answer));
          if (!refusal || this._isFinal(refusal)) {
            return this._set('off', refusal);
          }
        }
      } catch {
        // whatever broke the connection, the answer is the same: connect again and resume
      }
      if (abort.signal.aborted && !this._isWanted()) {
        return;
      }
      if (this._widening) {
        this._widening = false;
        this._set('connecting');
        continue;
      }
      this._set('retrying', refusal);
      await this._pause(delay * (0.75 + Math.random() / 2));
      if (!this._isWanted()) {
        return;
      }
      delay = Math.min(delay * 2, refusal?.kind ? LAST_DELAY_REFUSED : LAST_DELAY);
    }
  }

  /** null: there is no server. */
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
    return this.request(`events${queryOf(this._named)}`, { headers, signal });
  }

  /** Would asking again change nothing? A server that had the stream before is being started behind its proxy. */
  private _isFinal(refusal: IRefusal): boolean {
    return refusal.status === 403 || (refusal.status === 404 && !this._lastId);
  }

  private async _read(response: Response, abort: AbortController, onRetry: (ms: number) => void): Promise<void> {
    const resumed = !!this._lastId;
    this.stats.connects++;
    this.stats.resumes += resumed ? 1 : 0;
    this.stats.transport = this._transport?.kind ?? '';
    this._set('open', null, !resumed);
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
    return wantedBy([...this._entries].map(entry => entry.runId));
  }

  private _isWanted(): boolean {
    return this._entries.size > 0 && !isHidden();
  }

  private _dispatch(kind: string, text: string): void {
    try {
      const data = JSON.parse(text) as { run_id?: unknown } | null;
      if (kind === 'health') {
        this._health = data;
      }
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

  private _set(connection: Connection, refusal: IRefusal | null = null, fresh = false): void {
    if (connection !== this.connection || refusal?.message !== this.refusal?.message) {
      this.connection = connection;
      this.refusal = refusal;
      [...this._entries].forEach(entry => this._tell(entry, fresh));
    }
  }

  private _tell(entry: IEntry, fresh = false): void {
    const covered = this.connection === 'open' && covers(this._named, wantedBy([entry.runId]));
    entry.listener.onConnection(this.connection === 'open' && !covered ? 'connecting' : this.connection, fresh || entry.fresh);
    if (covered && entry.fresh) {
      entry.fresh = false;
      if (this._health) {
        entry.listener.onEvent('health', this._health);
      }
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
  private _health: unknown = null; // as it was told last
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

function isStream(response: Response): boolean {
  return response.ok && !!response.body && !!response.headers.get('Content-Type')?.startsWith('text/event-stream'); // not a login page
}

function isHidden(): boolean {
  return typeof document !== 'undefined' && document.hidden;
}
