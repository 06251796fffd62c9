/** The figures of a run: its table of metrics, and the curves of one of them. */
import { type IChart, svgChart } from './chart';
import { add, say, show } from './dom';
import { metric } from './format';
import { getHub } from './stream';
import type { ICurves, IMetricLine } from './summary';
import { trans } from './words';

/** metric, last, best: one row a metric. */
export class MetricTable {
  constructor(host: HTMLElement) {
    const table = add('table', 'kj-metrics', add('div', 'kj-metricsBox', host));
    const head = table.createTHead().insertRow();
    this._heads = [trans.__('metric'), '', trans.__('best')].map(text => {
      const cell = add('th', '', head, text);
      cell.scope = 'col';
      return cell;
    });
    this._rows = table.createTBody();
  }

  render(lines: readonly IMetricLine[], epoch: number): void {
    say(this._heads[1], epoch ? trans.__('epoch %1', epoch) : '');
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
export class Picture {
  constructor(host: HTMLElement) {
    const box = add('div', 'kj-picture', host);
    this._canvas = add('div', 'kj-chart', box);
    this._canvas.setAttribute('role', 'img');
    const legend = add('div', 'kj-legend', box);
    this._choice = add('select', 'kj-choice', legend);
    this._choice.setAttribute('aria-label', trans.__('Metric shown'));
    this._choice.addEventListener('change', () => this._draw());
    add('span', 'kj-grow', legend);
    this._keys = ['', 'kj-mod-dashed'].map(mod => add('span', `kj-key ${mod}`, legend));
    this._resize = new ResizeObserver(() => this._draw());
    this._resize.observe(this._canvas);
  }

  render(pictures: readonly ICurves[], description: string): void {
    this._pictures = pictures;
    this._canvas.setAttribute('aria-label', trans.__('Curves, %1', description));
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
