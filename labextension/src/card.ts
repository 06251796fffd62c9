/** The card of a cell: one row a run, at most four pictures a second, a voice that speaks when a state changes. */
import { add, say } from './dom';
import { stateName } from './format';
import { RunModel } from './model';
import type { Verb } from './run';
import { type IViewOptions, RunView } from './runview';
import { getHub } from './stream';
import { trans } from './words';

const FRAME = 250; // ms between two renders
const TICK = 1000; // ms; ages and times left move without news

export interface ICardOptions extends Partial<IViewOptions> {
  /** Who shows it: "renderer" or "widget". */
  source: string;
  /** Follow what the runs write as well. */
  lines?: boolean;
  /** Called after each rendering. */
  rendered?(): void;
}

export class RunCard {
  readonly node: HTMLElement;

  constructor(host: HTMLElement, options: ICardOptions) {
    this.node = add('div', 'kj-Card', host);
    this.node.dataset.source = options.source;
    this._options = {
      ask: (model: RunModel, verb: Verb) => model.ask(verb),
      retried: (model: RunModel, runId: string) => this._follow(model.runId, runId),
      blocked: () => '',
      saved: '',
      offline: trans.__('This is what the notebook holds.'),
      ...options
    };
    this._voice = add('div', 'kj-voice', this.node);
    this._voice.setAttribute('role', 'status');
    this._theme = new MutationObserver(() => this._views.forEach(view => view.recolor()));
    this._theme.observe(document.body, {
      attributes: true,
      attributeFilter: ['data-jp-theme-light', 'data-jp-theme-name', 'class']
    });
    this._ticker = setInterval(() => {
      if ([...this._views.values()].some(view => view.model.run && !view.model.run.terminal)) {
        this.refresh();
      }
    }, TICK);
  }

  /** The runs of this card, in order. Rows that are there already stay as they are. */
  show(named: readonly string[]): void {
    this._named = named;
    const runIds = named.flatMap(runId => [runId, ...this._retriesOf(runId)]);
    for (const [runId, view] of this._views) {
      if (!runIds.includes(runId)) {
        this._drop(runId, view);
      }
    }
    for (const runId of runIds) {
      if (!this._views.has(runId)) {
        this._views.forEach(view => view.model.run?.terminal && view.fold());
        const model = new RunModel(runId, getHub(), this._options.lines);
        this._views.set(runId, new RunView(this.node, model, this._options));
        model.follow(() => this.refresh());
      }
    }
    this._render();
  }

  model(runId: string): RunModel | undefined {
    return this._views.get(runId)?.model;
  }

  /** Renders soon, and not more often than a person can read. */
  refresh(): void {
    this._timer ??= setTimeout(() => this._render(), Math.max(0, this._last + FRAME - Date.now()));
  }

  dispose(): void {
    clearInterval(this._ticker);
    clearTimeout(this._timer);
    this._theme.disconnect();
    this._views.forEach((view, runId) => this._drop(runId, view));
    this.node.remove();
  }

  /** A retry stands behind the run that it goes on for. */
  private _follow(runId: string, retry: string): void {
    this._retries.set(runId, retry);
    this.show(this._named);
  }

  private _retriesOf(runId: string): string[] {
    const retry = this._retries.get(runId);
    return retry && !this._named.includes(retry) ? [retry, ...this._retriesOf(retry)] : [];
  }

  private _drop(runId: string, view: RunView): void {
    view.model.dispose();
    view.dispose();
    this._views.delete(runId);
  }

  private _render(): void {
    clearTimeout(this._timer);
    this._timer = undefined;
    this._last = Date.now();
    for (const view of this._views.values()) {
      view.render();
      this._speak(view.model);
    }
    this._options.rendered?.();
  }

  private _speak(model: RunModel): void {
    const state = model.run?.state;
    const before = this._spoken.get(model.runId);
    if (state && state !== before) {
      this._spoken.set(model.runId, state);
      if (before) {
        say(this._voice, trans.__('Run %1 now: %2', `${model.run?.name} ${model.run?.short}`, stateName(state).toLowerCase()));
      }
    }
  }

  private readonly _options: IViewOptions & ICardOptions;
  private _named: readonly string[] = [];
  private _retries = new Map<string, string>();
  private _views = new Map<string, RunView>();
  private _spoken = new Map<string, string>();
  private _voice: HTMLElement;
  private _theme: MutationObserver;
  private _ticker: ReturnType<typeof setInterval>;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _last = 0;
}
