/**
 * One stream for everything on the page: browsers allow six HTTP/1.1 connections an origin, over all tabs.
 *
 * The plugin and the widget are separate bundles, so module scope is not page scope: the hub lives on globalThis, and its key
 * carries the version of this interface. Nothing here may import from @jupyterlab.
 */
import type { ChartFactory } from './chart';
import { Connection, type ISink, type ISource, type IStanding, NOTHING, type Send, type State } from './connection';
import { SharedConnection, isShareable } from './share';
import { type IRefusal, type ITransport, pageTransport } from './transport';
import { type IWanted, covers, queryOf, wantedBy } from './wanted';

export const HUB_KEY = Symbol.for('kafka_jupyter.stream/1');
const NAMESPACE = 'kafka-jupyter';

const HIDDEN = 10_000; // ms after which a hidden tab gives its connection back
const SETTLE = 30; // ms; a notebook that opens brings its cards one by one
const LINGER = 500; // ms; a view that is rendered anew unsubscribes and subscribes at once

export interface IListener {
  /** One event of the run that was asked for (or of all runs and workers). */
  onEvent(kind: string, data: unknown): void;
  /** `fresh`: what happened before this connection is unknown, so ask for it. */
  onConnection(connection: State, fresh: boolean): void;
}

interface IEntry {
  runId: string | null;
  listener: IListener;
  /** No connection has covered it yet: what happened until then is unknown to it. */
  fresh: boolean;
}

export class StreamHub {
  /** Set by the plugin, which brings the large chart; the widget alone draws a small one. */
  chart: ChartFactory | null = null;
  readonly stats = { connects: 0, resumes: 0, events: 0, transport: '' };

  get connection(): State {
    return this._standing.connection;
  }

  /** Why there is no connection, where the server says so. */
  get refusal(): IRefusal | null {
    return this._standing.refusal;
  }

  /** Does another page of this browser keep the connection? */
  get isGuest(): boolean {
    return this._source instanceof SharedConnection && !this._source.leads;
  }

  /** Called by the plugin: its requests carry token and XSRF as the application's own do. */
  useTransport(transport: ITransport): void {
    this._transport = transport;
    if (this.connection === 'off') {
      this._source?.release(); // it may hold the lock of the browser's pages
      this._source = null;
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
          this._source?.release();
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
    if (this._wanted()) {
      this._source ??= this._open();
      this._source.wake();
    }
  }

  private _open(): ISource {
    this._transport ??= pageTransport();
    const transport = this._transport;
    const sink: ISink = {
      wanted: () => this._wanted(),
      onEvent: (kind, text) => this._dispatch(kind, text),
      onStanding: (standing, fresh) => this._stand(standing, fresh)
    };
    const send: Send = async (wanted, headers, signal) => {
      if (!transport) {
        return null;
      }
      this.stats.transport = transport.kind;
      return transport.request(`${NAMESPACE}/events${queryOf(wanted)}`, { headers, signal });
    };
    return transport?.server && isShareable()
      ? new SharedConnection(sink, send, this.stats, transport.server)
      : new Connection(sink, send, this.stats);
  }

  /** null: nobody looks. */
  private _wanted(): IWanted | null {
    return this._entries.size && !isHidden() ? wantedBy([...this._entries].map(entry => entry.runId)) : null;
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

  private _stand(standing: IStanding, fresh: boolean): void {
    const before = this._standing;
    this._standing = standing;
    const changed = standing.connection !== before.connection || standing.refusal?.message !== before.refusal?.message;
    for (const entry of [...this._entries]) {
      if (changed || fresh || entry.fresh) {
        this._tell(entry, fresh);
      }
    }
  }

  private _tell(entry: IEntry, fresh = false): void {
    const { connection, named } = this._standing;
    const covered = connection === 'open' && covers(named, wantedBy([entry.runId]));
    entry.listener.onConnection(connection === 'open' && !covered ? 'connecting' : connection, fresh || entry.fresh);
    if (covered && entry.fresh) {
      entry.fresh = false;
      if (this._health) {
        entry.listener.onEvent('health', this._health);
      }
    }
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
        timer = setTimeout(() => this._source?.release(), HIDDEN);
      } else {
        this._wake();
      }
    });
    addEventListener('online', () => this._wake());
  }

  private _entries = new Set<IEntry>();
  private _transport: ITransport | null = null;
  private _source: ISource | null = null;
  private _standing = NOTHING;
  private _health: unknown = null; // as it was told last
  private _settling: ReturnType<typeof setTimeout> | undefined;
  private _watching = false;
}

export function getHub(): StreamHub {
  const page = globalThis as unknown as Record<symbol, StreamHub | undefined>;
  return (page[HUB_KEY] ??= new StreamHub());
}

function isHidden(): boolean {
  return typeof document !== 'undefined' && document.hidden;
}
