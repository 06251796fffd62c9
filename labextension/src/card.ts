/** The card of a cell: one row a run, at most four pictures a second, a voice that speaks when a state changes. */
import { add, button, say, show } from './dom';
import { stateName } from './format';
import { RunModel } from './model';
import { Pace, TICK } from './pace';
import type { Verb } from './run';
import { type IViewOptions, RunView } from './runview';
import { getHub } from './stream';
import { trans } from './words';

export interface ICardOptions extends Partial<IViewOptions> {
  /** Who shows it: "renderer" or "widget". */
  source: string;
  /** Show table and curves of runs that have ended, without being asked. */
  open?: boolean;
  /** Follow what the runs write as well. */
  lines?: boolean;
  /** The page's own notebook, if it does not hold the result of runs that have ended. */
  keeper?: IKeeper;
  /** Called after each rendering. */
  rendered?(): void;
}

/** Puts the result into the notebook that shows the card: only when somebody asks for it. */
export interface IKeeper {
  /** Does the notebook lack the result? */
  lacks(): boolean;
  /** Raises with the reason if it cannot. */
  keep(runIds: readonly string[]): Promise<void>;
}

const GRACE = 3_000; // ms behind the end, in which the kernel that waits puts the result there by itself

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
    this._save = add('div', 'kj-save', this.node);
    this._saveNote = add('span', '', this._save);
    this._saveButton = button('kj-button', this._save, trans.__('Save result into notebook'), () => void this._keep());
    show(this._save, false);
    this._theme = new MutationObserver(() => this._views.forEach(view => view.recolor()));
    this._theme.observe(document.body, {
      attributes: true,
      attributeFilter: ['data-jp-theme-light', 'data-jp-theme-name', 'class']
    });
    this._ticker = setInterval(() => {
      if ([...this._views.values()].some(view => view.model.run && !view.model.run.terminal)) {
        this._pace.tick();
      }
    }, TICK);
  }

  /** The runs of this card, in order. Rows that are there already stay as they are. */
  show(named: readonly string[]): void {
    this._named = named;
    const runIds = named.flatMap(runId => [runId, ...this._retriesOf(runId)]);
    if (runIds.length === this._views.size && runIds.every(runId => this._views.has(runId))) {
      this.refresh(); // what stands around it may have changed: the notebook holds the result now
      return;
    }
    for (const [runId, view] of this._views) {
      if (!runIds.includes(runId)) {
        this._drop(runId, view);
      }
    }
    for (const runId of runIds) {
      if (!this._views.has(runId)) {
        this._views.forEach(view => view.model.run?.terminal && view.fold());
        const model = new RunModel(runId, getHub(), this._options.lines);
        this._views.set(runId, new RunView(this.node, model, this._options, this._options.open));
        this.node.appendChild(this._save);
        model.follow(calm => (calm ? this._pace.calm() : this._pace.news()));
      }
    }
    this._pace.now();
  }

  model(runId: string): RunModel | undefined {
    return this._views.get(runId)?.model;
  }

  /** Something that it shows has changed. */
  refresh(): void {
    this._pace.news();
  }

  dispose(): void {
    clearInterval(this._ticker);
    this._pace.stop();
    clearTimeout(this._later);
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
    for (const view of this._views.values()) {
      view.render();
      this._speak(view.model);
    }
    this._renderSave();
    this._options.rendered?.();
  }

  private _renderSave(): void {
    const models = [...this._views.values()].map(view => view.model);
    const over = models.length > 0 && models.every(model => model.known && model.run?.terminal && model.now() > model.run.ended_ms + GRACE);
    const lacks = over && !!this._options.keeper?.lacks();
    show(this._save, lacks);
    say(this._saveNote, this._saveFailure || trans.__('The notebook does not hold this result yet.'));
    if (!lacks && models.some(model => model.run?.terminal && model.now() <= model.run.ended_ms + GRACE)) {
      this._later ??= setTimeout(() => {
        this._later = undefined;
        this.refresh();
      }, GRACE);
    }
  }

  private async _keep(): Promise<void> {
    this._saveButton.disabled = true;
    this._saveFailure = '';
    try {
      await this._options.keeper?.keep([...this._views.keys()]);
    } catch (error) {
      this._saveFailure = trans.__('It could not be saved: %1', error instanceof Error ? error.message : String(error));
    }
    this._saveButton.disabled = false;
    this.refresh();
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
  private readonly _pace = new Pace(() => this._render());
  private _named: readonly string[] = [];
  private _retries = new Map<string, string>();
  private _views = new Map<string, RunView>();
  private _spoken = new Map<string, string>();
  private _voice: HTMLElement;
  private _save: HTMLElement;
  private _saveNote: HTMLElement;
  private _saveButton: HTMLButtonElement;
  private _saveFailure = '';
  private _later: ReturnType<typeof setTimeout> | undefined;
  private _theme: MutationObserver;
  private _ticker: ReturnType<typeof setInterval>;
}
