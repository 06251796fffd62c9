/** Web Locks of one browser, exclusive ones: https://w3c.github.io/web-locks/#algorithms. Node 20 has none. */

type Grant = (lock: Lock | null) => unknown;

interface IRequest {
  page: Locks;
  name: string;
  grant: Grant;
  settle: { resolve: (value: unknown) => void; reject: (reason: unknown) => void };
}

/** What all pages share. */
export class Browser {
  private _held = new Map<string, IRequest>();
  private _queue: IRequest[] = [];

  request(request: IRequest, options: LockOptions): void {
    const { signal, steal } = options;
    if (signal?.aborted) {
      request.settle.reject(signal.reason);
      return;
    }
    if (steal) {
      this._held.get(request.name)?.settle.reject(new DOMException('The lock was stolen', 'AbortError'));
      this._held.delete(request.name);
      this._queue.unshift(request);
    } else {
      this._queue.push(request);
      signal?.addEventListener('abort', () => {
        if (this._queue.includes(request)) {
          this._queue = this._queue.filter(each => each !== request);
          request.settle.reject(signal.reason);
        }
      });
    }
    queueMicrotask(() => this._serve());
  }

  /** What the browser does with the locks of a page that is gone. */
  gone(page: Locks): void {
    this._queue = this._queue.filter(each => each.page !== page);
    for (const [name, request] of [...this._held]) {
      if (request.page === page) {
        this._held.delete(name);
      }
    }
    this._serve();
  }

  private _serve(): void {
    for (const request of [...this._queue]) {
      if (!this._held.has(request.name)) {
        this._queue = this._queue.filter(each => each !== request);
        this._held.set(request.name, request);
        void this._hold(request);
      }
    }
  }

  private async _hold(request: IRequest): Promise<void> {
    try {
      request.settle.resolve(await request.grant({ name: request.name, mode: 'exclusive' }));
    } catch (error) {
      request.settle.reject(error);
    }
    if (this._held.get(request.name) === request) {
      this._held.delete(request.name);
      this._serve();
    }
  }
}

/** As one page sees them. */
export class Locks implements LockManager {
  constructor(private readonly _browser: Browser) {}

  request(name: string, options: LockOptions | Grant, grant?: Grant): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const request = { page: this, name, grant: grant ?? (options as Grant), settle: { resolve, reject } };
      this._browser.request(request, grant ? (options as LockOptions) : {});
    });
  }

  query(): Promise<LockManagerSnapshot> {
    return Promise.resolve({ held: [], pending: [] });
  }
}
