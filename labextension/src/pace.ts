/** When a card is drawn: an epoch at once, and never more often than a person can read. */
const FRAMES = 4; // a second at most
const FRAME = 1000 / FRAMES; // ms between two drawings of news
const CALM = 2 * FRAME; // ms between any drawing and one of nothing but batches
export const TICK = 1000; // ms between two calls of `tick`: ages and times left move without news

export class Pace {
  constructor(private readonly _draw: () => void) {}

  /** An epoch has ended, a state has changed. */
  news(): void {
    this._soon(this._news + FRAME, true);
  }

  /**
   * Nothing but batches, lines of a log, a heartbeat. Batches come four times a second: an epoch that had to keep its distance from them
   * would wait for an eighth of a second as a rule.
   */
  calm(): void {
    this._soon(this._last + CALM);
  }

  /** Time goes by. */
  tick(): void {
    this._soon(this._last + TICK);
  }

  /** A person has done something: at once, whatever has been drawn lately. */
  now(): void {
    this.stop();
    this._drawn = [...this._drawn.slice(1 - FRAMES), Date.now()];
    this._draw();
  }

  stop(): void {
    clearTimeout(this._timer);
    this._timer = undefined;
  }

  private get _last(): number {
    return this._drawn[this._drawn.length - 1] ?? 0;
  }

  /** Not before `at`, and never more than FRAMES in any second. What is drawn sooner for another reason takes this along. */
  private _soon(at: number, news = false): void {
    const due = Math.max(at, (this._drawn[this._drawn.length - FRAMES] ?? 0) + 1000);
    if (this._timer === undefined || due < this._due) {
      clearTimeout(this._timer);
      this._due = due;
      this._timer = setTimeout(() => {
        this._news = news ? Date.now() : this._news;
        this.now();
      }, due - Date.now());
    }
  }

  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _due = 0;
  private _drawn: number[] = []; // when, the last FRAMES of them
  private _news = 0; // when news were drawn last
}
