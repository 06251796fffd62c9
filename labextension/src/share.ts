/**
 * One connection for all visible pages of a browser that look at the same server.
 *
 * The page that holds a Web Lock leads: it keeps the connection and passes on what that brings; the others tell it what they want. When
 * it is closed, hidden or dies, the browser gives the lock to the next one, which goes on behind the last event that it was told. Where
 * a browser has no locks (a page without TLS from another host) each page has a connection of its own.
 */
import { Connection, type ISink, type ISource, type IStanding, type IStats, NOTHING, type Send } from './connection';
import { type IWanted, covers, together } from './wanted';

const NAME = 'kafka_jupyter.stream/1'; // pages of another version of these messages share among themselves
const BEAT = 10_000; // ms between two signs of life of the page that leads
const SILENCE = 30_000; // ms without any, after which its lock is taken: it hangs
const ANSWER = 3_000; // ms in which it answers one that has just come
const LOOK = 500; // ms between two looks at how long it has said nothing
const SETTLE = 50; // ms in which the others tell a new leader what they want

type Message = { from: string } & (
  | { kind: 'want'; wanted: IWanted | null }
  | { kind: 'lead' | 'beat' }
  | { kind: 'standing'; standing: IStanding; place: string; fresh: boolean }
  | { kind: 'event'; event: string; text: string; id: string }
);
type Told = Message extends infer Each ? (Each extends { from: string } ? Omit<Each, 'from'> : never) : never;

export function isShareable(): boolean {
  return typeof navigator !== 'undefined' && !!navigator.locks && typeof BroadcastChannel !== 'undefined';
}

export class SharedConnection implements ISource {
  /** Does this page keep the connection? */
  leads = false;

  /** `server`: the address by which the pages know that they mean the same one. */
  constructor(
    private readonly _sink: ISink,
    send: Send,
    stats: IStats,
    server: string,
    private readonly _locks: LockManager = navigator.locks
  ) {
    this._name = `${NAME} ${server}`;
    const sink: ISink = {
      wanted: () => this._union(),
      onEvent: (kind, text, id) => this._pass(kind, text, id),
      onStanding: (standing, fresh) => this._stand(standing, fresh)
    };
    this._own = new Connection(sink, send, stats);
  }

  wake(): void {
    if (!this._sink.wanted()) {
      return;
    }
    if (this.leads) {
      this._own.wake();
    } else if (this._stay) {
      this._want();
    } else {
      this._join();
    }
  }

  release(): void {
    if (!this._stay) {
      return;
    }
    this._tell({ kind: 'want', wanted: null });
    this._unlead();
    this._stay.abort();
    this._stay = null;
    this._turn?.abort();
    this._channel?.close();
    this._channel = null;
    clearInterval(this._patience);
    this._sink.onStanding(NOTHING, false);
  }

  private _join(): void {
    const stay = (this._stay = new AbortController()).signal;
    this._channel = new BroadcastChannel(this._name);
    this._channel.onmessage = (event: MessageEvent<Message>) => this._hear(event.data);
    this._leader = '';
    this._attached = false;
    this._sink.onStanding({ ...NOTHING, connection: this._own.place ? 'retrying' : 'connecting' }, false);
    const here = () => {
      this._want();
      return until(stay);
    };
    // the leader waits for this lock too: it is given to it when this page is gone, whatever the reason
    this._locks.request(`${this._name} ${this._page}`, { signal: stay }, here).catch(() => undefined);
    this._queue(stay);
    this._await(ANSWER);
  }

  /** Waits for the lock of the one that leads; or takes it. */
  private _queue(stay: AbortSignal, steal = false): void {
    this._turn?.abort();
    this._turn = new AbortController();
    const options = steal ? { steal } : { signal: this._turn.signal };
    const lead = () => (stay.aborted ? undefined : this._lead(stay));
    this._locks.request(this._name, options, lead).catch(() => {
      if (this.leads) {
        // this page has hung, and another one has taken the lock
        this._unlead();
        this._want();
        this._queue(stay);
        this._await(ANSWER);
      }
    });
  }

  private _lead(stay: AbortSignal): Promise<void> {
    const settle = this._leader ? SETTLE : 0;
    this.leads = true;
    this._attached = false;
    clearInterval(this._patience);
    this._term = new AbortController();
    this._beat = setInterval(() => this._tell({ kind: 'beat' }), BEAT);
    this._tell({ kind: 'lead' });
    setTimeout(() => this._own.wake(), settle);
    return until(stay);
  }

  private _unlead(): void {
    this.leads = false;
    this._leader = '';
    clearInterval(this._beat);
    this._term?.abort();
    this._wishes.clear();
    this._own.release();
  }

  private _hear(message: Message): void {
    if (message.kind === 'want') {
      this._heed(message.from, message.wanted);
      return;
    }
    if (this.leads) {
      return; // one that has hung goes on speaking until it learns that it leads no more
    }
    if (message.kind === 'lead') {
      this._leader = message.from;
      this._attached = false;
      this._want();
    }
    this._leader ||= message.from;
    if (message.from === this._leader) {
      this._await(SILENCE);
      this._follow(message);
    }
  }

  private _follow(message: Message): void {
    if (message.kind === 'standing') {
      const { standing, place } = message;
      const gap = !this._attached && (!place || place !== this._own.place);
      if (standing.connection === 'open') {
        this._attached = true;
        this._own.place = place;
      }
      this._sink.onStanding(standing, message.fresh || gap);
    } else if (message.kind === 'event' && this._attached) {
      this._own.place = message.id || this._own.place;
      this._sink.onEvent(message.event, message.text, message.id);
    }
  }

  /** As the leader: what another page wants from now on. */
  private _heed(page: string, wanted: IWanted | null): void {
    if (!this.leads) {
      return;
    }
    if (!wanted) {
      this._wishes.delete(page);
      return;
    }
    if (!this._wishes.has(page)) {
      const gone = () => this._heed(page, null);
      this._locks.request(`${this._name} ${page}`, { signal: this._term!.signal }, gone).catch(() => undefined);
    }
    this._wishes.set(page, wanted);
    const { connection, named } = this._own.standing;
    if (connection === 'idle') {
      return; // the others tell theirs just now, and then it begins
    }
    if (connection !== 'open' || !covers(named, wanted)) {
      this._own.wake();
    }
    this._tellStanding(false);
    if (this._health) {
      this._tell({ kind: 'event', event: 'health', text: this._health, id: '' });
    }
  }

  private _pass(kind: string, text: string, id: string): void {
    if (kind === 'health') {
      this._health = text;
    }
    this._tell({ kind: 'event', event: kind, text, id });
    this._sink.onEvent(kind, text, id);
  }

  private _stand(standing: IStanding, fresh: boolean): void {
    if (this.leads) {
      this._tellStanding(fresh);
      this._sink.onStanding(standing, fresh);
    }
  }

  private _tellStanding(fresh: boolean): void {
    this._tell({ kind: 'standing', standing: this._own.standing, place: this._own.place, fresh });
  }

  private _want(): void {
    this._tell({ kind: 'want', wanted: this._sink.wanted() });
  }

  private _tell(told: Told): void {
    if (!this.leads || told.kind === 'lead' || this._wishes.size) {
      this._channel?.postMessage({ ...told, from: this._page });
    }
  }

  private _union(): IWanted | null {
    const own = this.leads ? this._sink.wanted() : null;
    return own && together([own, ...this._wishes.values()]);
  }

  /** The page that leads must speak in that time; what this page stands still itself (while its notebook is drawn) is not held against it. */
  private _await(ms: number): void {
    clearInterval(this._patience);
    let looks = ms / LOOK;
    this._patience = setInterval(() => {
      looks--;
      if (looks <= 0 && this._stay && !this.leads) {
        clearInterval(this._patience);
        this._queue(this._stay.signal, true);
      }
    }, LOOK);
  }

  private readonly _own: Connection;
  private readonly _name: string;
  private readonly _page = crypto.randomUUID();
  private _channel: BroadcastChannel | null = null;
  private _stay: AbortController | null = null; // aborted when this page leaves; null while it is not here
  private _turn: AbortController | null = null; // aborted when it waits no more to lead
  private _term: AbortController | null = null; // aborted when it leads no more
  private _leader = '';
  private _attached = false; // has it been told everything since that leader's connection was open?
  private _wishes = new Map<string, IWanted>(); // of the other pages, while this one leads
  private _health = ''; // as it was told last
  private _beat: ReturnType<typeof setInterval> | undefined;
  private _patience: ReturnType<typeof setInterval> | undefined;
}

/** A lock is held until this resolves. */
function until(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
}
