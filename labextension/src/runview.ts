/** One run inside a card: builds its elements once, then only writes what changed. */
import { type IChart, svgChart } from './chart';
import { add, button, copy, say, sayAll, show } from './dom';
import { metric, tone } from './format';
import type { RunModel } from './model';
import { type Verb, shortId } from './run';
import { type ICurves, type IMetricLine, curves, footnotes, headline, metricLines, note, progress, spoken, verbsOf, when } from './summary';
import { getHub } from './stream';

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

const VERBS: Record<Verb, { label: string; busy: string; title: string }> = {
  stop: { label: 'Stop', busy: 'Stopping…', title: 'End after this batch and keep the weights so far' },
  pause: { label: 'Pause', busy: 'Pausing…', title: 'Write a checkpoint, free the worker, and rest until it is resumed' },
  resume: { label: 'Resume', busy: 'Resuming…', title: 'Let any worker go on with it' },
  cancel: { label: 'Cancel', busy: 'Cancelling…', title: 'End at once; your weights stay as before' },
  retry: { label: 'Retry', busy: 'Retrying…', title: 'Submit it again, as a new run from its last checkpoint' }
};

const ORDER = Object.keys(VERBS) as Verb[];

let counter = 0;

export class RunView {
  readonly node: HTMLElement;

  constructor(
    host: HTMLElement,
    readonly model: RunModel,
    private readonly _options: IViewOptions
  ) {
    const id = `kj-run-${Date.now().toString(36)}-${counter++}`;
    const root = (this.node = add('section', 'kj-Run', host));
    root.setAttribute('aria-labelledby', `${id}-name`);
    const head = add('div', 'kj-head', root);
    this._chip = add('span', 'kj-chip', head);
    this._name = add('span', 'kj-name', head);
    this._name.id = `${id}-name`;
    this._short = add('span', 'kj-id', head);
    add('span', 'kj-grow', head);
    this._when = add('span', 'kj-when', head);
    const buttons = add('span', 'kj-buttons', head);
    for (const verb of ORDER) {
      this._buttons[verb] = button('kj-button', buttons, VERBS[verb].label, () => void this._ask(verb));
    }
    this._more = button('kj-button kj-mod-quiet', buttons, 'Details', () => this._toggle());
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
    this._unfold = button('kj-link', foot, 'Show the whole traceback', () => this._toggleTraceback());
    this._unfold.setAttribute('aria-controls', this._traceback.id);
    this._link = add('span', 'kj-reconnecting', foot);
    this._notes = add('span', 'kj-footnotes', foot);
    add('span', 'kj-grow', foot);
    this._attach = button('kj-link', foot, '', () => void this._copy());
    this._attach.title = 'Copy: shows this card and returns the run in any notebook';
  }

  render(): void {
    const { model } = this;
    const run = model.run;
    const now = model.now();
    const unreachable = model.connection === 'off' || model.known === false;
    this.node.dataset.state = run?.state ?? '';
    this.node.dataset.connection = model.connection;
    this.node.dataset.tone = run ? tone(run.state) : 'idle';
    say(this._chip, run?.state ?? (unreachable ? 'UNKNOWN' : 'LOADING'));
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
    say(this._more, open ? 'Less' : 'Details');
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
    for (const verb of ORDER) {
      const element = this._buttons[verb];
      const busy = this._asked === verb && this._askedIn === this.model.run?.state;
      show(element, verbs.includes(verb));
      element.disabled = !!blocked || busy;
      element.title = blocked || VERBS[verb].title;
      say(element, busy ? VERBS[verb].busy : VERBS[verb].label);
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
    const nobody = run ? '' : unreachable ? `Run ${model.runId} is not known here. ${offline}`.trim() : '';
    const newer = run?.read_only ? 'It was written by a newer kafka_jupyter: upgrade to see and steer it.' : '';
    const retried = this._retried && `Retried as ${shortId(this._retried)}.`;
    const told = run ? [note(run), retried].filter(Boolean).join(' ') : nobody;
    const below = !this._body.hidden; // a line above the curves would push them down
    const text = this._failure || newer || (below ? '' : told);
    say(this._note, text);
    show(this._note, !!text);
    say(this._saved, this._options.saved);
    show(this._saved, !run && unreachable && !!this._options.saved);
    say(this._link, model.away && !run?.terminal ? 'reconnecting…' : '');
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
    say(this._unfold, this._tracebackOpen ? 'Hide the traceback' : 'Show the whole traceback');
    if (error) {
      say(this._errorName, error.error || error.reason);
      const place = error.worker ? ` on worker ${error.worker}` : '';
      say(this._errorPlace, place + (error.attempt ? `${place ? ',' : ''} attempt ${error.attempt}` : ''));
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
      this._failure = `${VERBS[verb].label} did not get through: ${error instanceof Error ? error.message : String(error)}`;
    }
    this.render();
  }

  private async _copy(): Promise<void> {
    const command = `%kafka_attach ${this.model.runId}`;
    const done = await copy(command);
    this._copied = done ? 'copied' : `this page may not copy; type ${command}`;
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
  private _open = false;
  private _tracebackOpen = false;
  private _copied = '';
  private _asked: Verb | null = null;
  private _askedIn = '';
  private _failure = '';
  private _retried = ''; // the run that goes on for this one
  private _resultKey = '';
}

/** metric, last, best: one row a metric. */
class MetricTable {
  constructor(host: HTMLElement) {
    const table = add('table', 'kj-metrics', add('div', 'kj-metricsBox', host));
    const head = table.createTHead().insertRow();
    this._heads = ['metric', '', 'best'].map(text => {
      const cell = add('th', '', head, text);
      cell.scope = 'col';
      return cell;
    });
    this._rows = table.createTBody();
  }

  render(lines: readonly IMetricLine[], epoch: number): void {
    say(this._heads[1], epoch ? `epoch ${epoch}` : '');
    while (this._rows.rows.length > lines.length) {
      this._rows.deleteRow(-1);
    }
    lines.forEach((line, i) => {
      const row = this._rows.rows[i] ?? this._insert();
      const [name, last, best] = [...row.cells];
      say(name, line.name);
      name.title = line.name;
      say(last, metric(line.last));
      const value = line.best === null ? '' : metric(line.best);
      best.className = line.star && value ? 'kj-best' : '';
      say(best.children[0] as HTMLElement, value);
      say(best.children[1] as HTMLElement, value ? `${line.star ? ' ★' : ''} @${line.bestEpoch}` : '');
    });
  }

  private _insert(): HTMLTableRowElement {
    const row = this._rows.insertRow();
    const name = add('th', '', row);
    name.scope = 'row';
    row.insertCell();
    const best = row.insertCell();
    add('span', '', best);
    add('span', 'kj-at', best);
    return row;
  }

  private _heads: HTMLElement[];
  private _rows: HTMLTableSectionElement;
}

/** The curves of one metric and its validation twin, with a choice of metric below. */
class Picture {
  constructor(host: HTMLElement) {
    const box = add('div', 'kj-picture', host);
    this._canvas = add('div', 'kj-chart', box);
    this._canvas.setAttribute('role', 'img');
    const legend = add('div', 'kj-legend', box);
    this._choice = add('select', 'kj-choice', legend);
    this._choice.setAttribute('aria-label', 'Metric shown');
    this._choice.addEventListener('change', () => this._draw());
    add('span', 'kj-grow', legend);
    this._keys = ['', 'kj-mod-dashed'].map(mod => add('span', `kj-key ${mod}`, legend));
    this._resize = new ResizeObserver(() => this._draw());
    this._resize.observe(this._canvas);
  }

  render(pictures: readonly ICurves[], description: string): void {
    this._pictures = pictures;
    this._canvas.setAttribute('aria-label', `Curves, ${description}`);
    const titles = pictures.map(p => p.title);
    if (titles.join('\n') !== [...this._choice.options].map(o => o.value).join('\n')) {
      const chosen = this._choice.value;
      this._choice.replaceChildren();
      titles.forEach(title => (add('option', '', this._choice, title).value = title));
      this._choice.value = titles.includes(chosen) ? chosen : titles.includes('loss') ? 'loss' : titles[0] ?? '';
    }
    show(this._choice, titles.length > 1);
    this._draw();
  }

  recolor(): void {
    this._plot?.recolor();
  }

  dispose(): void {
    this._resize.disconnect();
    this._plot?.dispose();
  }

  private _draw(): void {
    const width = this._canvas.clientWidth;
    const picture = this._pictures.find(p => p.title === this._choice.value);
    this._keys.forEach((key, i) => {
      const curve = picture?.curves.find(c => c.dashed === (i === 1));
      say(key, curve?.name ?? '');
      show(key, !!curve);
    });
    if (!picture?.x.length || width < 40) {
      return; // hidden: the observer calls again
    }
    this._plot ??= (getHub().chart ?? svgChart)(this._canvas, (name, fallback) => {
      return getComputedStyle(this._canvas).getPropertyValue(name).trim() || fallback;
    });
    this._plot.draw(picture, width);
  }

  private _canvas: HTMLElement;
  private _choice: HTMLSelectElement;
  private _keys: HTMLElement[];
  private _pictures: readonly ICurves[] = [];
  private _plot: IChart | null = null;
  private _resize: ResizeObserver;
}
