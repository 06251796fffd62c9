/** One run inside a card: builds its elements once, then only writes what changed. */
import { add, button, copy, say, sayAll, show } from './dom';
import { MetricTable, Picture } from './figures';
import { metric, stateName, tone } from './format';
import type { RunModel } from './model';
import { type Verb, shortId } from './run';
import { type IMetricLine, curves, footnotes, headline, metricLines, note, progress, spoken, verbsOf, when } from './summary';
import { trans } from './words';

export interface IViewOptions {
  /** Sends a wish; raises with the reason if it cannot. Of a retry it gives the id of the new run, where that is known. */
  ask(model: RunModel, verb: Verb): Promise<string>;
  /** A run was retried as another one. */
  retried(model: RunModel, runId: string): void;
  /** Why buttons cannot work now; empty when they can. */
  blocked(): string;
  /** What the notebook holds about a run that nobody here knows. */
  saved: string;
  /** Said when what is shown is not live. */
  offline: string;
}

/** A button: its label, what it says while the wish is under way, and what it does. */
interface IButton {
  label: string;
  busy: string;
  title: string;
}

/** In the order of the buttons. */
function buttons(): Record<Verb, IButton> {
  return {
    stop: {
      label: trans.__('Stop'),
      busy: trans.__('Stopping…'),
      title: trans.__('End after this batch and keep the weights so far')
    },
    pause: {
      label: trans.__('Pause'),
      busy: trans.__('Pausing…'),
      title: trans.__('Write a checkpoint, free the worker, and rest until it is resumed')
    },
    resume: { label: trans.__('Resume'), busy: trans.__('Resuming…'), title: trans.__('Let any worker go on with it') },
    cancel: { label: trans.__('Cancel'), busy: trans.__('Cancelling…'), title: trans.__('End at once; your weights stay as before') },
    retry: {
      label: trans.__('Retry'),
      busy: trans.__('Retrying…'),
      title: trans.__('Submit it again, as a new run from its last checkpoint')
    }
  };
}

let counter = 0;

export class RunView {
  readonly node: HTMLElement;

  constructor(
    host: HTMLElement,
    readonly model: RunModel,
    private readonly _options: IViewOptions,
    private _open = false
  ) {
    const id = `kj-run-${Date.now().toString(36)}-${counter++}`;
    const root = (this.node = add('section', 'kj-Run', host));
    root.setAttribute('aria-labelledby', `${id}-name ${id}-short`); // names are not unique
    const head = add('div', 'kj-head', root);
    this._chip = add('span', 'kj-chip', head);
    this._name = add('span', 'kj-name', head);
    this._name.id = `${id}-name`;
    this._short = add('span', 'kj-id', head);
    this._short.id = `${id}-short`;
    add('span', 'kj-grow', head);
    this._when = add('span', 'kj-when', head);
    const row = add('span', 'kj-buttons', head);
    for (const verb of Object.keys(this._verbs) as Verb[]) {
      this._buttons[verb] = button('kj-button', row, this._verbs[verb].label, () => void this._ask(verb));
    }
    this._more = button('kj-button kj-mod-quiet', row, trans.__('Details'), () => this._toggle());
    this._bar = add('div', 'kj-bar', root);
    this._bar.setAttribute('role', 'progressbar');
    this._bar.setAttribute('aria-labelledby', `${id}-name`);
    this._fill = add('div', 'kj-fill', this._bar);
    this._note = add('p', 'kj-note', root);
    this._result = add('p', 'kj-note kj-result', root);
    this._saved = add('pre', 'kj-saved', root);
    this._error = add('div', 'kj-error', root);
    this._errorName = add('b', '', this._error);
    this._errorPlace = add('span', '', this._error);
    this._errorText = add('div', '', this._error);
    this._body = add('div', 'kj-body', root);
    this._body.id = `${id}-body`;
    this._more.setAttribute('aria-controls', this._body.id);
    this._table = new MetricTable(this._body);
    this._picture = new Picture(this._body);
    this._traceback = add('pre', 'kj-traceback', root);
    this._traceback.id = `${id}-traceback`;
    this._traceback.tabIndex = 0; // a long one must be scrollable by keyboard
    const foot = add('div', 'kj-foot', root);
    this._unfold = button('kj-link', foot, trans.__('Show the whole traceback'), () => this._toggleTraceback());
    this._unfold.setAttribute('aria-controls', this._traceback.id);
    this._link = add('span', 'kj-reconnecting', foot);
    this._notes = add('span', 'kj-footnotes', foot);
    add('span', 'kj-grow', foot);
    this._attach = button('kj-link', foot, '', () => void this._copy());
    this._attach.title = trans.__('Copy: shows this card and returns the run in any notebook');
  }

  render(): void {
    const { model } = this;
    const run = model.run;
    const now = model.now();
    const unreachable = model.connection === 'off' || model.known === false;
    this.node.dataset.state = run?.state ?? '';
    this.node.dataset.connection = model.connection;
    this.node.dataset.tone = run ? tone(run.state) : 'idle';
    say(this._chip, run ? stateName(run.state) : unreachable ? trans.__('UNKNOWN') : trans.__('LOADING'));
    say(this._name, run?.name ?? model.runId);
    say(this._short, run?.short ?? '');
    say(this._when, run ? when(run, model.history, now) : '');
    const lines = metricLines(model.history.epochs);
    if (run && !run.terminal && lines.length) {
      this._open = true; // who has watched it keeps the picture at the end: no jump
    }
    const open = this._open || (!!run && !run.terminal && run.state === 'RUNNING');
    show(this._body, open && (lines.length > 0 || !run?.terminal));
    this._renderButtons();
    this._renderBar();
    this._renderText(unreachable);
    this._renderError();
    show(this._more, !!run?.terminal && lines.length > 0);
    this._more.setAttribute('aria-expanded', String(open));
    say(this._more, open ? trans.__('Less') : trans.__('Details'));
    this._renderResult(!open && run?.state === 'SUCCEEDED' ? headline(lines) : []);
    if (!this._body.hidden) {
      this._table.render(lines, model.history.epochs.length ? model.history.epochs[model.history.epochs.length - 1].epoch + 1 : 0);
      this._picture.render(curves(model.history.epochs), run ? spoken(run, model.history) : '');
    }
  }

  /** Finished rows of a card with several runs fold away when the next one comes. */
  fold(): void {
    this._open = false;
  }

  recolor(): void {
    this._picture.recolor();
  }

  dispose(): void {
    this._picture.dispose();
    this.node.remove();
  }

  private _renderButtons(): void {
    const verbs = this.model.run && !this._retried ? verbsOf(this.model.run) : [];
    const blocked = this._options.blocked();
    for (const [verb, element] of Object.entries(this._buttons) as [Verb, HTMLButtonElement][]) {
      const busy = this._asked === verb && this._askedIn === this.model.run?.state;
      show(element, verbs.includes(verb));
      element.disabled = !!blocked || busy;
      element.title = blocked || this._verbs[verb].title;
      say(element, busy ? this._verbs[verb].busy : this._verbs[verb].label);
    }
  }

  private _renderBar(): void {
    const { run, history } = this.model;
    show(this._bar, !!run);
    if (!run) {
      return;
    }
    const { done, fraction } = progress(run, history);
    this._bar.setAttribute('aria-valuemin', String(run.initial_epoch));
    this._bar.setAttribute('aria-valuemax', String(run.epochs));
    if (run.attempt || run.terminal) {
      this._bar.setAttribute('aria-valuenow', String(done));
    } else {
      this._bar.removeAttribute('aria-valuenow'); // nobody knows when it begins
    }
    this._bar.setAttribute('aria-valuetext', spoken(run, history));
    this._fill.style.width = `${(100 * fraction).toFixed(2)}%`;
  }

  private _renderText(unreachable: boolean): void {
    const { model } = this;
    const { run } = model;
    const offline = unreachable ? this._options.offline : '';
    const nobody = run ? '' : unreachable ? `${trans.__('Run %1 is not known here.', model.runId)} ${offline}`.trim() : '';
    const newer = run?.read_only ? trans.__('It was written by a newer kafka_jupyter: upgrade to see and steer it.') : '';
    const retried = this._retried && trans.__('Retried as %1.', shortId(this._retried));
    const told = run ? [note(run), retried].filter(Boolean).join(' ') : nobody;
    const below = !this._body.hidden; // a line above the curves would push them down
    const text = this._failure || newer || (below ? '' : told);
    say(this._note, text);
    show(this._note, !!text);
    say(this._saved, this._options.saved);
    show(this._saved, !run && unreachable && !!this._options.saved);
    say(this._link, model.away && !run?.terminal ? trans.__('reconnecting…') : '');
    const notes = run ? footnotes(run, model.history, model.now()) : [];
    sayAll(this._notes, 'span', [below ? told : '', ...notes, run ? offline : ''].filter(Boolean));
    say(this._attach, this._copied || `%kafka_attach ${shortId(model.runId)}`);
    show(this._attach, !!run);
  }

  private _renderError(): void {
    const run = this.model.run;
    const error = run && (run.terminal || run.state === 'RETRYING') ? run.error : null;
    show(this._error, !!error);
    show(this._unfold, !!error?.traceback);
    show(this._traceback, !!error?.traceback && this._tracebackOpen);
    this._unfold.setAttribute('aria-expanded', String(this._tracebackOpen));
    say(this._unfold, this._tracebackOpen ? trans.__('Hide the traceback') : trans.__('Show the whole traceback'));
    if (error) {
      say(this._errorName, error.error || error.reason);
      const place = [
        error.worker ? trans.__('on worker %1', error.worker) : '',
        error.attempt ? trans.__('attempt %1', error.attempt) : ''
      ];
      say(this._errorPlace, ` ${place.filter(Boolean).join(', ')}`);
      say(this._errorText, error.message);
      say(this._traceback, error.traceback);
    }
  }

  private _renderResult(lines: IMetricLine[]): void {
    show(this._result, lines.length > 0);
    const key = lines.map(line => `${line.name} ${line.best} ${line.bestEpoch}`).join();
    if (key === this._resultKey) {
      return;
    }
    this._resultKey = key;
    this._result.textContent = '';
    lines.forEach((line, i) => {
      add('span', '', this._result, `${i ? ' · ' : ''}${line.name} `);
      add(i ? 'span' : 'b', '', this._result, metric(line.best));
      add('span', '', this._result, `${i ? '' : ' ★'} @${line.bestEpoch}`);
    });
  }

  private async _ask(verb: Verb): Promise<void> {
    this._asked = verb;
    this._askedIn = this.model.run?.state ?? '';
    this._failure = '';
    this._renderButtons();
    try {
      const made = await this._options.ask(this.model, verb);
      if (made) {
        this._retried = made;
        this._options.retried(this.model, made);
      }
    } catch (error) {
      this._asked = null;
      const why = error instanceof Error ? error.message : String(error);
      this._failure = trans.__('%1 did not get through: %2', this._verbs[verb].label, why);
    }
    this.render();
  }

  private async _copy(): Promise<void> {
    const command = `%kafka_attach ${this.model.runId}`;
    const done = await copy(command);
    this._copied = done ? trans.__('copied') : trans.__('this page may not copy; type %1', command);
    this.render();
    if (done) {
      setTimeout(() => {
        this._copied = '';
        this.render();
      }, 1500);
    }
  }

  private _toggle(): void {
    this._open = !this._open;
    this.render();
  }

  private _toggleTraceback(): void {
    this._tracebackOpen = !this._tracebackOpen;
    this.render();
  }

  private _chip: HTMLElement;
  private _name: HTMLElement;
  private _short: HTMLElement;
  private _when: HTMLElement;
  private readonly _verbs = buttons();
  private _buttons = {} as Record<Verb, HTMLButtonElement>;
  private _more: HTMLButtonElement;
  private _bar: HTMLElement;
  private _fill: HTMLElement;
  private _note: HTMLElement;
  private _result: HTMLElement;
  private _saved: HTMLElement;
  private _error: HTMLElement;
  private _errorName: HTMLElement;
  private _errorPlace: HTMLElement;
  private _errorText: HTMLElement;
  private _traceback: HTMLElement;
  private _unfold: HTMLButtonElement;
  private _body: HTMLElement;
  private _table: MetricTable;
  private _picture: Picture;
  private _link: HTMLElement;
  private _notes: HTMLElement;
  private _attach: HTMLButtonElement;
  private _tracebackOpen = false;
  private _copied = '';
  private _asked: Verb | null = null;
  private _askedIn = '';
  private _failure = '';
  private _retried = ''; // the run that goes on for this one
  private _resultKey = '';
}
