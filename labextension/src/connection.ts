/** One SSE connection that is kept: it comes back by itself, behind what it brought last. */
import { createParser } from 'eventsource-parser';

import { type IRefusal, refusalOf } from './transport';
import { type IWanted, covers } from './wanted';

const FIRST_DELAY = 500; // ms before the first attempt to reconnect, unless the server says another; doubled up to LAST_DELAY
const LAST_DELAY = 15_000;
const LAST_DELAY_REFUSED = 60_000; // ms; where the server says why, as without a Kafka: whoever looks at runs asks at once
const SILENCE = 30_000; // ms; the server speaks every 10 s, so three missed beats are a dead connection (a laptop that slept)

/** `off`: there is no server to ask (VS Code, a static page, the extension disabled, no permission). */
export type State = 'idle' | 'connecting' | 'open' | 'retrying' | 'off';

export interface IStanding {
  connection: State;
  /** Why there is no connection, where the server says so. */
  refusal: IRefusal | null;
  /** What the connection brings. */
  named: IWanted;
}

export const NOTHING: IStanding = { connection: 'idle', refusal: null, named: { runs: new Set(), detail: new Set() } };

/** Figures for people and tests. */
export interface IStats {
  connects: number;
  resumes: number;
  events: number;
}

/** Whom the events are for. */
export interface ISink {
  /** null: nobody wants anything. */
  wanted(): IWanted | null;
  /** `id`: the place behind this event, where it has one. */
  onEvent(kind: string, text: string, id: string): void;
  /** `fresh`: what happened before is unknown to this page, so ask for it. */
  onStanding(standing: IStanding, fresh: boolean): void;
}

/** What brings events: a connection of this page, or one that several pages share. */
export interface ISource {
  /** Somebody came, or looks: connects, brings more, or tries again at once. */
  wake(): void;
  /** Nobody is left. */
  release(): void;
}

/** Sends the request; null: there is no server. */
export type Send = (wanted: IWanted, headers: Record<string, string>, signal: AbortSignal) => Promise<Response | null>;

export class Connection implements ISource {
  standing = NOTHING;
  /** The place behind the last event; a connection begins there. */
  place = '';

  constructor(
    private readonly _sink: ISink,
    private readonly _send: Send,
    private readonly _stats: IStats
  ) {}

  wake(): void {
    const wanted = this._sink.wanted();
    if (!wanted) {
      return;
    }
    this._skipDelay?.();
    if (this._running && !covers(this.standing.named, wanted)) {
      this._widening = true;
      this._abort?.abort();
    }
    this._running ??= this._keepOpen().finally(() => {
      this._running = null;
      if (this._abort?.signal.aborted) {
        this.wake(); // somebody came while the old connection was being closed
      }
    });
  }

  release(): void {
    this._abort?.abort();
    this._skipDelay?.();
    this._set('idle');
  }

  private async _keepOpen(): Promise<void> {
    let delay = this._retry;
    this._widening = false;
    this._set(this.place ? 'retrying' : 'connecting');
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
      if (abort.signal.aborted && !this._sink.wanted()) {
        return;
      }
      if (this._widening) {
        this._widening = false;
        this._set('connecting');
        continue;
      }
      this._set('retrying', refusal);
      await this._pause(delay * (0.75 + Math.random() / 2));
      if (!this._sink.wanted()) {
        return;
      }
      delay = Math.min(delay * 2, refusal?.kind ? LAST_DELAY_REFUSED : LAST_DELAY);
    }
  }

  private async _connect(signal: AbortSignal): Promise<Response | null> {
    const headers: Record<string, string> = { Accept: 'text/event-stream' };
    if (this.place) {
      headers['Last-Event-ID'] = this.place;
    }
    const named = this._sink.wanted() ?? NOTHING.named;
    this.standing = { ...this.standing, named };
    return this._send(named, headers, signal);
  }

  /** Would asking again change nothing? A server that had the stream before is being started behind its proxy. */
  private _isFinal(refusal: IRefusal): boolean {
    return refusal.status === 403 || (refusal.status === 404 && !this.place);
  }

  private async _read(response: Response, abort: AbortController, onRetry: (ms: number) => void): Promise<void> {
    const resumed = !!this.place;
    this._stats.connects++;
    this._stats.resumes += resumed ? 1 : 0;
    this._set('open', null, !resumed);
    const parser = createParser({
      onEvent: event => {
        this._stats.events++;
        this.place = event.id ?? this.place;
        this._sink.onEvent(event.event ?? 'message', event.data, event.id ?? '');
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

  private _set(connection: State, refusal: IRefusal | null = null, fresh = false): void {
    this.standing = { connection, refusal, named: this.standing.named };
    this._sink.onStanding(this.standing, fresh);
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

  private _running: Promise<void> | null = null;
  private _abort: AbortController | null = null;
  private _skipDelay: (() => void) | null = null;
  private _widening = false;
  private _retry = FIRST_DELAY; // or what the server has wished, also where the next connection breaks before it says so again
}

function isStream(response: Response): boolean {
  return response.ok && !!response.body && !!response.headers.get('Content-Type')?.startsWith('text/event-stream'); // not a login page
}
